// Whatever is dropped of the schema pgkv on a server, by hand or by a restore that ended half way, `doctor` finds, and `init` makes
// anew, or says exactly what to do. Generated from the catalogues: each object of the schema in turn, and what hangs on it;
// the database behind init against how it was before.
import pg from 'pg';
import t from 'tap';
import { extensionSource } from '../../src/cli/cluster/extension.js';
import { missingObjects } from '../../src/cli/cluster/extension-objects.js';
import type { DriverClient } from '../../src/cli/connect.js';
import { runCli } from '../support/cli-run.js';
import { ask, clusterFolder } from '../support/cluster-folder.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
/** Of so many, the commands are run as a user runs them; of the others the parts that look and restore. */
const AS_COMMANDS = 6;
/** One in so many is dropped in a short run. */
const SAMPLE = process.env['PGKV_LONG'] === '1' ? 1 : 4;

/** What is in the schema, as a statement that drops it. */
const DROPS = `
  SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure) AS sql FROM pg_proc p WHERE pronamespace = 'pgkv'::regnamespace
  UNION ALL
  SELECT format('DROP %s pgkv.%I CASCADE', CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'INDEX' END, relname)
    FROM pg_class c WHERE relnamespace = 'pgkv'::regnamespace AND relkind IN ('r', 'S', 'v', 'i')
     AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)
  UNION ALL
  SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) FROM pg_trigger g JOIN pg_class c ON c.oid = tgrelid
   WHERE relnamespace = 'pgkv'::regnamespace AND NOT tgisinternal
  UNION ALL
  SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint k
   WHERE connamespace = 'pgkv'::regnamespace AND contype = 'p'
  UNION ALL
  SELECT format('ALTER TABLE %s DROP COLUMN %I CASCADE', attrelid::regclass, attname) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
   WHERE relnamespace = 'pgkv'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT format('CREATE OR REPLACE FUNCTION pgkv.version() RETURNS text LANGUAGE sql AS %L', 'SELECT ''0.0.1''')
  UNION ALL
  SELECT format('CREATE OR REPLACE FUNCTION pgkv.slot(tenant text, key text) RETURNS integer LANGUAGE sql IMMUTABLE AS %L', 'SELECT 1')
  UNION ALL
  SELECT 'DROP SCHEMA pgkv CASCADE'
  ORDER BY 1`;
/** All there is in it and in the user's schema, apart from what is another one each time. */
const SNAPSHOT = `
  SELECT pg_get_functiondef(p.oid) || coalesce(obj_description(p.oid, 'pg_proc'), '') AS text FROM pg_proc p
   WHERE pronamespace IN ('pgkv'::regnamespace, 'public'::regnamespace)
  UNION ALL
  SELECT format('%s %s %s', c.oid::regclass, relkind, (SELECT string_agg(format('%s %s %s %s', attname, format_type(atttypid, atttypmod),
      attnotnull, (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum)), ', ' ORDER BY attname)
      FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)) FROM pg_class c
   WHERE relnamespace IN ('pgkv'::regnamespace, 'public'::regnamespace) AND relkind IN ('r', 'S', 'v', 'i')
  UNION ALL
  SELECT pg_get_triggerdef(g.oid) FROM pg_trigger g JOIN pg_class c ON c.oid = tgrelid
   WHERE relnamespace IN ('pgkv'::regnamespace, 'public'::regnamespace) AND NOT tgisinternal
  UNION ALL
  SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(k.oid)) FROM pg_constraint k
   WHERE connamespace IN ('pgkv'::regnamespace, 'public'::regnamespace) AND contype <> 'n'
  UNION ALL
  SELECT format('%s %s %s', shard_name, slots, cluster_id) FROM pgkv.shard_state
  ORDER BY 1`;

t.test('each object of the schema in turn', { timeout: 600_000 }, async (t) => {
  const server = await startPostgres({ version: 'embedded' });
  t.teardown(() => server.stop());
  const database = 'postgres';
  const folder = clusterFolder(t, [{ name: 'a', host: server.host, port: server.port }]);
  const command = (name: string, ...args: string[]) =>
    runCli([name, '--config', folder.configFile, '--user', server.superuser, ...args]);
  t.equal((await command('init', '--dbname', database)).exitCode, 0);
  await ask(server, database, "SELECT kv_put('t', 'k', '1')");
  const before = await ask(server, database, SNAPSHOT);
  const [{ version }] = (await ask(server, database, "SELECT version FROM kv WHERE key = 'k'")) as [
    { version: string },
  ];
  const all = (await ask<{ sql: string }>(server, database, DROPS)).map(({ sql }) => sql);
  t.ok(all.length > 60, `${all.length} objects, seed ${SEED}`);
  const drops = all.filter((_, index) => (index + SEED) % SAMPLE === 0);
  const random = new SeededRandom(SEED);
  const source = extensionSource();
  const chosen = new Set(drops.filter(() => random.chance(AS_COMMANDS / drops.length)));
  for (const drop of drops) {
    await ask(server, database, drop);
    if (chosen.has(drop)) {
      const { output } = await command('doctor');
      t.match(output, /WRONG +extension .*(?:pgkv init|needs)/, `${drop}: doctor`);
    } else if (!drop.startsWith('DROP SCHEMA')) {
      const { host, port, superuser: user } = server;
      const client = new pg.Client({ host, port, user, database });
      await client.connect();
      t.ok(
        (await missingObjects(client as unknown as DriverClient, source)).length > 0 ||
          /owned_slots|version\(\)/.test(drop),
        drop,
      );
      await client.end();
    }
    const first = await command('init');
    if (first.exitCode !== 0) {
      const advice = /((?:DROP TABLE [\w.]+(?:; )?)+)/.exec(first.errors)?.[1];
      t.ok(advice !== undefined, `${drop}: says what to do: ${first.errors}`);
      await ask(server, database, advice ?? '');
      const second = await command('init');
      t.equal(second.exitCode, 0, `${drop}: ${second.errors}`);
    } else t.notMatch(first.output, /all is as it should be/, drop);
    t.strictSame(await ask(server, database, SNAPSHOT), before, drop);
    const [row] = await ask(server, database, "UPDATE kv SET value = '2' WHERE key = 'k' RETURNING version");
    t.ok(BigInt(row!['version'] as string) > BigInt(version), `${drop}: versions go on`);
  }
  const last = await command('init');
  t.match(last.output, /all is as it should be/);
  t.match((await command('doctor')).output, /ok +extension/);
});
