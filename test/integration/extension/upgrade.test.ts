// From each older version, with rows in place, to this one: as an extension and as plain SQL, both ways leave behind what a
// first installation makes.
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import t, { type Test } from 'tap';
import {
  connectTo,
  EXTENSION_FOLDER,
  EXTENSION_SQL,
  EXTENSION_VERSION,
  errorOf,
  onEveryPostgres,
  rowsOf,
  valueFrom,
} from '../../support/kv-extension.js';
import { findPostgres } from '../../support/postgres-binaries.js';
import { startPostgres } from '../../support/postgres-server.js';

const OLDER = ['0.1.0', '0.2.0'];
const sqlOf = (version: string) => readFileSync(join(EXTENSION_FOLDER, `pgkv--${version}.sql`), 'utf8');

/** Everything in the schemas pgkv and public, as texts that do not depend on OIDs. */
const CONTENTS = `
  SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) || coalesce(obj_description(p.oid, 'pg_proc'), '') ||
    coalesce(p.proacl::text, '') FROM pg_proc p WHERE p.pronamespace = ANY ($1::regnamespace[])
  UNION ALL SELECT c.relname, concat(c.relkind, c.relacl, obj_description(c.oid, 'pg_class'))
    FROM pg_class c WHERE c.relnamespace = ANY ($1::regnamespace[])
  UNION ALL SELECT concat(c.relname, '.', a.attname), concat(format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attnum,
      pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = ANY ($1::regnamespace[]) AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL SELECT c.relname || ' ' || g.tgname, pg_get_triggerdef(g.oid) FROM pg_trigger g
    JOIN pg_class c ON c.oid = g.tgrelid WHERE c.relnamespace = ANY ($1::regnamespace[]) AND NOT g.tgisinternal
  UNION ALL SELECT c.relname, pg_get_viewdef(c.oid) FROM pg_class c
    WHERE c.relnamespace = ANY ($1::regnamespace[]) AND c.relkind = 'v'
  UNION ALL SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = ANY ($1::regnamespace[])
  UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = ANY ($1::regnamespace[])
  ORDER BY 1, 2`;
const contents = (client: pg.Client) => rowsOf(client, CONTENTS, ['{pgkv,public}']);

/** Rows of a key-value table in a shard that owns all slots but one. */
async function fill(client: pg.Client): Promise<unknown[][]> {
  await client.query(`SELECT pgkv.create_table('kv'), pgkv.create_table('blobs', 'bytea')`);
  await client.query(
    `INSERT INTO kv (tenant_id, key, value) SELECT 't', 'k' || i, to_jsonb(i) FROM generate_series(1, 200) i`,
  );
  const foreign = await valueFrom(client, `SELECT pgkv.slot('t', 'foreign')`);
  await client.query(`SELECT pgkv.set_shard_state('s', 7, $1)`, [
    `{[0,16383]}`.replace('0,16383]', `0,${Number(foreign) - 1}],[${Number(foreign) + 1},16383]`),
  ]);
  return rowsOf(client, 'SELECT * FROM kv ORDER BY key');
}

async function isOfThisVersion(t: Test, client: pg.Client, rows: unknown[][]): Promise<void> {
  t.equal(await valueFrom(client, 'SELECT pgkv.version()'), EXTENSION_VERSION);
  t.strictSame(await rowsOf(client, 'SELECT * FROM kv ORDER BY key'), rows, 'rows stay');
  t.strictSame(await rowsOf(client, 'SELECT * FROM pgkv.identity()'), [[null, 's', '7']]);
  const error = await errorOf(client, `INSERT INTO kv (tenant_id, key) VALUES ('t', 'foreign')`);
  t.match(error, { code: '23514', message: /belongs to another shard/ }, 'with the slots it had');
  await client.query(`SELECT pgkv.set_shard_state('s', 8, '{[0,16383]}', 'c1')`);
  t.equal((await errorOf(client, `SELECT pgkv.set_shard_state('s', 9, '{[0,16383]}', 'c2')`)).code, '55000');
  await client.query(`SELECT kv_put('t', 'foreign', '1')`);
  const ever = (await valueFrom(client, 'SELECT max(version) FROM kv')) as string;
  await client.query(`DELETE FROM kv; SELECT kv_put('t', 'k1', '1')`);
  t.ok(BigInt((await valueFrom(client, 'SELECT version FROM kv')) as string) > BigInt(ever));
}

onEveryPostgres(async (t, kv) => {
  const admin = await kv.connect(t);

  await admin.query('CREATE ROLE app LOGIN');
  for (const older of OLDER) {
    t.test(`${older} as plain SQL`, async (t) => {
      const [upgraded, first] = [`upgraded ${older}`, `fresh ${older}`];
      await admin.query(`CREATE DATABASE "${upgraded}" OWNER app`);
      await admin.query(`CREATE DATABASE "${first}" OWNER app`);
      const app = await kv.connect(t, { user: 'app', database: upgraded });
      await app.query(sqlOf(older));
      const rows = await fill(app);
      await app.query(EXTENSION_SQL);
      await app.query('SELECT pgkv.refresh_table(relation) FROM pgkv.tables');
      const fresh = await kv.connect(t, { user: 'app', database: first });
      await fresh.query(EXTENSION_SQL);
      await fill(fresh);
      t.strictSame(await contents(app), await contents(fresh));
      await isOfThisVersion(t, app, rows);
    });
  }

  t.test('an installation that is there as another kind is not touched', async (t) => {
    await admin.query('CREATE DATABASE older');
    const older = await kv.connect(t, { database: 'older' });
    await older.query(sqlOf('0.1.0'));
    await older.query(EXTENSION_SQL);
    const before = await contents(older);
    await older.query(EXTENSION_SQL);
    t.strictSame(await contents(older), before, 'run again it changes nothing');
  });
});

const embedded = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
for (const older of OLDER) t.test(`${older} as an extension`, embedded, (t) => asExtension(t, older));

async function asExtension(t: Test, older: string): Promise<void> {
  const path = mkdtempSync(join(tmpdir(), 'pgkv-upgrade-'));
  chmodSync(path, 0o755);
  cpSync(EXTENSION_FOLDER, join(path, 'extension'), { recursive: true });
  const server = await startPostgres({
    version: 'embedded',
    parameters: { extension_control_path: `${path}:$system` },
  });
  t.teardown(async () => {
    await server.stop();
    rmSync(path, { recursive: true, force: true });
  });
  const admin = await connectTo(t, server);
  await admin.query('CREATE ROLE app LOGIN');
  for (const name of ['upgraded', 'fresh']) await admin.query(`CREATE DATABASE ${name} OWNER app`);
  const app = await connectTo(t, server, { user: 'app', database: 'upgraded' });
  const fresh = await connectTo(t, server, { user: 'app', database: 'fresh' });
  await app.query(`CREATE EXTENSION pgkv VERSION '${older}'`);
  await fresh.query('CREATE EXTENSION pgkv');
  const rows = await fill(app);
  await fill(fresh);
  await app.query('ALTER EXTENSION pgkv UPDATE');
  await app.query('SELECT pgkv.refresh_table(relation) FROM pgkv.tables');
  t.strictSame(await contents(app), await contents(fresh));
  const members = `SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgkv')
    ORDER BY 1`;
  t.strictSame(await rowsOf(app, members), await rowsOf(fresh, members), 'all of it belongs to the extension');
  const dumped = `SELECT extconfig::regclass[]::text, extversion FROM pg_extension WHERE extname = 'pgkv'`;
  t.strictSame(await rowsOf(app, dumped), await rowsOf(fresh, dumped));
  await isOfThisVersion(t, app, rows);
  await app.query('DROP TABLE kv, blobs; DROP EXTENSION pgkv');
}
