// Reads of the home shard's catalogues while a block is open on another shard run beside it, on a connection of their own. So only
// what reads and nothing more may go there: what acts would not be undone with the block, and would leave its settings, role and
// locks to the next session; and nothing that hangs on what the block has set, or the session holds at home. All acts and reads
// with all that may have been said before, to one Postgres and through pgkv: the same answers and effects, or a refusal (0A000).
import t from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf, rowsOf, SqlClient, tagsOf } from '../support/sql-client.js';
import type { WireAddress } from '../support/wire-client.js';

await loadKeyHash();
/** Of the second shard of two. */
const KEY = Array.from({ length: 100 }, (_, n) => `k${n}`).find((key) => hashSlotOf('a', key) >= 8192)!;

/** What acts. */
const ACTS: readonly string[] = [
  'acts()',
  "set_config('app.own', 'x', false)",
  "set_config('app.own', 'x', true)",
  "set_config('work_mem', '5MB', false)",
  "set_config('role', 'other', false)",
  "set_config('search_path', 'pg_catalog', false)",
  'pg_advisory_lock(7)',
  'pg_advisory_xact_lock(7)',
  'pg_advisory_unlock(7)',
  "pg_notify('heard', 'x')",
  'lo_create(4711)',
  "nextval('drawn')",
  "setval('drawn', 99)",
  "currval('drawn')",
  'lastval()',
];
/** What makes it a read of a catalogue. */
const AS_READS: readonly ((act: string) => string)[] = [
  (act) => `select ${act} from pg_class where relname = 'plain'`,
  (act) => `select ${act}, 'plain'::regclass`,
  (act) => `select (select ${act} from pg_namespace where nspname = 'public')`,
];
/** Before the block. */
const HELD: readonly string[] = [
  'select 1',
  'create temp table own (a int)',
  'declare held cursor with hold for select 1',
  'prepare own as select 1',
  'listen heard',
  "select nextval('drawn')",
  "set work_mem = '3MB'",
];
/** In the block, in front of its first key or behind it. */
const SAID: readonly string[] = [
  'select 1',
  "set local work_mem = '2MB'",
  "set work_mem = '2MB'",
  'set local role other',
  'set local search_path = pg_catalog',
  "select set_config('app.own', 'y', true)",
  "set local work_mem = '2MB'; savepoint a",
  "savepoint a; set local app.own = 'z'; rollback to a",
];
const READS: readonly string[] = [
  "select 'own'::regclass::text",
  "select count(*) from pg_class where relname = 'own'",
  "select count(*), current_setting('work_mem') from pg_class where relname = 'plain'",
  "select current_setting('app.own', true), relname from pg_class where relname = 'plain'",
  "select current_user, relname from pg_class where relname = 'plain'",
  "select has_table_privilege('plain'::regclass, 'select')",
  "select 'plain'::regclass::text",
  "select pg_table_is_visible(oid) from pg_class where relname = 'plain'",
  "select relname from pg_class where relname = 'plain' for share",
  "select count(currval('drawn'::regclass)) > 0",
];
const SETTINGS = `select current_setting('work_mem'), current_setting('app.own', true), current_user::text, current_setting('search_path')`;
const EFFECTS = `select (select count(*) from plain), (select count(*) from pg_largeobject_metadata),
  (select count(*) from pg_locks where locktype = 'advisory')`;
const ROLE = 'create role other';
const SETTING_UP = [
  ROLE,
  'grant all on schema public to public',
  'create table plain (a int)',
  'create sequence drawn',
  'create function acts() returns int language plpgsql as $$ begin insert into plain values (1); return 1; end $$',
];

interface Case {
  readonly held: string;
  /** In the block, in front of the key. */
  readonly before: string;
  readonly behind: string;
  readonly sql: string;
  readonly end: 'commit' | 'rollback';
  readonly isExtended: boolean;
}

interface Outcome {
  readonly refused: boolean;
  readonly told: readonly string[];
}

/** Every second case unless it is long, so that any value of a part still meets any value of any other. */
const LONG = process.env['PGKV_LONG'] === '1';
const isPlayed = (...parts: readonly number[]): boolean => LONG || parts.reduce((sum, part) => sum + part, 0) % 2 === 0;

function* cases(): Generator<Case> {
  const nothing = { held: 'select 1', before: 'select 1', behind: 'select 1', end: 'commit' } as const;
  for (const [form, isExtended] of [false, true].entries()) {
    for (const [ending, end] of (['commit', 'rollback'] as const).entries()) {
      for (const [what, act] of ACTS.entries())
        for (const [how, as] of AS_READS.entries())
          if (isPlayed(form, ending, what, how))
            yield { ...nothing, held: "select nextval('drawn')", sql: as(act), end, isExtended };
    }
    for (const [what, sql] of READS.entries()) {
      for (const [which, held] of HELD.entries())
        if (isPlayed(form, what, which)) yield { ...nothing, held, sql, isExtended };
      for (const [which, said] of SAID.entries()) {
        if (isPlayed(form, what, which)) yield { ...nothing, before: said, sql, isExtended };
        if (isPlayed(form, what, which, 1)) yield { ...nothing, behind: said, sql, isExtended };
      }
    }
  }
}

async function play(address: WireAddress, login: { user: string; database: string }, one: Case): Promise<Outcome> {
  const client = await SqlClient.connect(address, login);
  const told: string[] = [];
  let refused = false;
  const say = async (sql: string, isExtended = false): Promise<void> => {
    const messages = isExtended
      ? await client.send([{ parse: sql }, { bind: [] }, { execute: '' }, 'sync'])
      : await client.answers(sql);
    const error = errorOf(messages);
    refused ||= error?.code === '0A000';
    told.push(`${sql}: ${error?.code ?? JSON.stringify([rowsOf(messages), tagsOf(messages)])}`);
  };
  await say(one.held);
  for (const sql of ['begin', one.before, `update kv set value = '1' where tenant_id = 'a' and key = '${KEY}'`])
    await say(sql);
  await say(one.behind);
  await say(one.sql, one.isExtended);
  await say(SETTINGS);
  await say(one.end);
  await say(SETTINGS);
  // The locks of a session are its own as long as it is.
  await say('select pg_advisory_unlock_all()');
  await client.end();
  return { refused, told };
}

t.test('reads of catalogues beside a block', { timeout: 600_000, bail: true }, async (t) => {
  const cluster = await kvServers(t, 2);
  const plain = await startPostgres({ version: 'embedded' });
  t.teardown(() => plain.stop());
  const login = { user: plain.superuser, database: 'postgres' };
  const router = await kvRouter(t, cluster);
  const [home, model] = await Promise.all(
    [cluster.servers[0]!, plain].map((server) => SqlClient.connect(server, login)),
  );
  await model!.run('create table kv (tenant_id text, key text, value jsonb)');
  for (const client of [home!, model!]) await client.run(...SETTING_UP);
  const elsewhere = await SqlClient.connect(cluster.servers[1]!, login);
  await elsewhere.run(ROLE);
  await elsewhere.end();
  const clean = "truncate plain; select lo_unlink(oid) from pg_largeobject_metadata; select setval('drawn', 1)";
  for (const one of cases()) {
    for (const client of [home!, model!]) await client.run(clean);
    const [ours, theirs] = await Promise.all([router, plain].map((address) => play(address, login, one)));
    const where = JSON.stringify(one);
    if (!ours!.refused && !t.strictSame(ours!.told, theirs!.told, where)) return;
    // Whoever was refused has done nothing.
    const effects = await Promise.all([home!, model!].map((client) => client.rows(EFFECTS)));
    if (!t.strictSame(effects[0], ours!.refused ? [['0', '0', '0']] : effects[1], `${where}: effects`)) return;
    const strangers = await Promise.all(Array.from({ length: 4 }, () => SqlClient.connect(router, login)));
    const seen = await Promise.all(strangers.map((stranger) => stranger.rows(SETTINGS)));
    await Promise.all(strangers.map((stranger) => stranger.end()));
    const usual = await model!.rows(SETTINGS);
    if (
      !t.strictSame(
        seen,
        strangers.map(() => usual),
        `${where}: strangers`,
      )
    )
      return;
  }
  await Promise.all([home!.end(), model!.end()]);
});
