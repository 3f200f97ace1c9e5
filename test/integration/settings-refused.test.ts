// What a session or its block has set on one server is set again on the next, and one that does not know it says why: the client is
// told that server's own error, with its SQLSTATE and the shard's name, and nothing that has drivers try again (40001). Generated:
// all that servers may differ in × how it was set × what comes behind it, held against what the server says to the same
// SET. The block has failed then, nothing of it is done, and the session goes on.
import t, { type Test } from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf, type ServerError, SqlClient } from '../support/sql-client.js';

await loadKeyHash();
/** One case in three in a short run, another third by each seed. */
const LONG = process.env['PGKV_LONG'] === '1';
const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const keyOn = (shard: number): string =>
  Array.from({ length: 100 }, (_, n) => `k${n}`).find((key) => Math.floor(hashSlotOf('a', key) / 8192) === shard)!;
const [HERE, THERE] = [keyOn(0), keyOn(1)];

/** On the home shard alone. */
const SETTING_UP = [
  'create role lonely',
  'create role barred',
  'grant lonely, barred to usual',
  'create text search configuration own (copy = simple)',
  'create access method own type table handler heap_tableam_handler',
  'grant set on parameter log_min_duration_statement to usual',
];
/** What a SET names, and to what. */
const SETTINGS: readonly string[] = [
  'role lonely',
  'role barred',
  "default_text_search_config = 'public.own'",
  'default_table_access_method = own',
  'log_min_duration_statement = 500',
];

/** Before the statement that goes to the other shard; the last one begins a block or is in one. */
const WAYS: Readonly<Record<string, (set: string) => readonly string[]>> = {
  'local to the block': (set) => ['begin', `set local ${set}`],
  'in the block': (set) => ['begin', 'select 1', `set ${set}`],
  'with BEGIN': (set) => [`begin; set local ${set}`],
  'between savepoints': (set) => ['begin', 'savepoint a', `set local ${set}`, 'savepoint a'],
  'of the session': (set) => [`set ${set}`, 'begin'],
  'of the session, without a block': (set) => [`set ${set}`],
};

const UPDATE = `update kv set value = '2' where tenant_id = 'a' and key = '${THERE}'`;
const extended = (sql: string): readonly FrontendMessage[] => [{ parse: sql }, { bind: [] }, { execute: '' }];

const BEHIND: Readonly<Record<string, readonly FrontendMessage[]>> = {
  write: [{ query: UPDATE }],
  read: [{ query: `select value from kv where tenant_id = 'a' and key = '${THERE}'` }],
  extended: [...extended(UPDATE), 'sync'],
  'in parts': [{ parse: UPDATE }, { describe: 'statement' }, 'sync', { bind: [] }, { execute: '' }, 'sync'],
  pipelined: [...extended(UPDATE), ...extended(UPDATE), 'sync', ...extended(UPDATE), 'sync'],
  'with COMMIT': [...extended(UPDATE), ...extended('commit'), 'sync'],
  'text with COMMIT': [{ query: `${UPDATE}; commit` }],
};

t.test('settings that another shard refuses', { timeout: 300_000 }, async (t) => {
  const cluster = await kvServers(t, 2);
  const admin = { user: cluster.servers[0]!.superuser, database: 'postgres' };
  const login = { user: 'usual', database: 'postgres', password: 'secret' };
  const [home, other] = await Promise.all(cluster.servers.map((server) => SqlClient.connect(server, admin)));
  for (const client of [home!, other!])
    await client.run(
      "create role usual login password 'secret'",
      'grant all on kv to public',
      'grant create on schema public to public',
    );
  await home!.run(...SETTING_UP);
  // It is there, and not the user's.
  await other!.run('create role barred');
  const router = await kvRouter(t, cluster);
  const direct = await SqlClient.connect(cluster.servers[1]!, login);
  const client = await SqlClient.connect(router, login);
  for (const key of [HERE, THERE])
    await client.run(`insert into kv (tenant_id, key, value) values ('a', '${key}', '1')`);
  await client.end();
  for (const setting of SETTINGS) {
    await direct.run('begin');
    const want = await direct.failsWith(`set local ${setting}`);
    await direct.run('rollback');
    for (const [row, [way, said]] of Object.entries(WAYS).entries()) {
      for (const [column, [what, messages]] of Object.entries(BEHIND).entries()) {
        if (!LONG && (row + column + SETTINGS.indexOf(setting) + SEED) % 3 > 0) continue;
        const where = `${setting}: ${way}: ${what}`;
        const client = await SqlClient.connect(router, login);
        const before = said(setting);
        const isInBlock = before.some((sql) => sql.startsWith('begin'));
        for (const sql of before) await client.run(sql);
        const answers = await client.send(messages);
        checkRefusal(t, errorOf(answers), want, where);
        t.equal(answers.filter(({ type }) => type === 'CommandComplete').length, 0, `${where}: nothing is done`);
        if (isInBlock) {
          t.equal(client.status, 'E', `${where}: the block has failed`);
          t.equal(await client.fails('select 1'), '25P02', where);
          // Where the block has not begun anywhere, a server is asked, which knows its savepoints.
          const goesBack = await client.fails('rollback to a');
          t.equal(goesBack, way === 'of the session' ? '3B001' : '25P02', where);
        }
        if (isInBlock) await client.run('rollback');
        t.equal(client.status, 'I', where);
        // At home it holds, if it was the session's.
        await client.run('reset all', 'reset role', UPDATE.replaceAll("'2'", "'1'"));
        t.equal(await client.value(`select value from kv where tenant_id = 'a' and key = '${THERE}'`), '1', where);
        await client.end();
      }
    }
  }
  await Promise.all([home!, other!, direct].map((one) => one.end()));
});

function checkRefusal(t: Test, error: ServerError | null, want: ServerError, where: string): void {
  t.equal(error?.code, want.code, `${where}: ${error?.message}`);
  t.equal(error?.fields['M'], `${want.fields['M']} (on shard "s2")`, where);
}
