// `pgkv init` against real servers of the oldest and the newest release: what it makes, what it refuses, and that it can
// be run again after every failure.
import { chmodSync, cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { runCli } from '../support/cli-run.js';
import { ask, clusterFolder } from '../support/cluster-folder.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';

const oldest = findPostgres('15') ? '15' : 'embedded';
const newest = findPostgres('embedded') ? 'embedded' : '15';
/** The extension's files, where the servers' user can read them. */
const extensionPath = mkdtempSync(join(tmpdir(), 'pgkv-extension-path-'));
chmodSync(extensionPath, 0o755);
cpSync(fileURLToPath(new URL('../../extensions/pgkv', import.meta.url)), join(extensionPath, 'extension'), {
  recursive: true,
});
const [first, second] = await Promise.all([
  startPostgres({ version: oldest }),
  startPostgres({
    version: newest,
    parameters: newest === 'embedded' ? { extension_control_path: `$system:${extensionPath}` } : {},
  }),
]);
t.teardown(async () => {
  await Promise.all([first.stop(), second.stop()]);
  rmSync(extensionPath, { recursive: true, force: true });
});

let count = 0;
/** A database of its own on both servers. */
async function newDatabase(options = ''): Promise<string> {
  const name = `init_${++count}`;
  for (const server of [first, second]) await ask(server, 'postgres', `CREATE DATABASE ${name} ${options}`);
  return name;
}
const servers = [
  { name: 'a', host: first.host, port: first.port },
  { name: 'b', host: second.host, port: second.port },
];
const init = (configFile: string, database: string, ...args: string[]) =>
  runCli(['init', '--config', configFile, '--dbname', database, '--user', first.superuser, ...args]);

t.test('two empty databases become a cluster', async (t) => {
  const database = await newDatabase();
  const folder = clusterFolder(t, servers);
  const { exitCode, output, errors } = await init(folder.configFile, database);
  t.equal(errors, '');
  t.equal(exitCode, 0);
  t.match(output, `a (127.0.0.1:${first.port}): hash slots 0-8191; extension installed, table created\n`);
  t.match(output, `catalogue ${folder.catalogFile}: epoch 1, public.kv (jsonb)\n`);
  t.match(folder.catalog(), {
    epoch: 1,
    database,
    shards: [
      { name: 'a', hashSlots: [[0, 8191]] },
      { name: 'b', hashSlots: [[8192, 16383]] },
    ],
    tables: [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
  });

  await loadKeyHash();
  for (const [server, name, slots] of [
    [first, 'a', '{[0,8192)}'],
    [second, 'b', '{[8192,16384)}'],
  ] as const) {
    const state = await ask(server, database, 'SELECT shard_name, epoch::int, slots::text FROM pgkv.shard_state');
    t.strictSame(state, [{ shard_name: name, epoch: 1, slots }]);
    await ask(server, database, `SELECT kv_put('shop', 'user:{42}', '1')`);
    const [row] = await ask<{ slot: number }>(server, database, 'SELECT slot FROM kv');
    t.equal(row?.slot, hashSlotOf('shop', 'user:{42}'), 'SQL and router agree on the slot');
  }
  const [{ known }] = (await ask(
    second,
    database,
    `SELECT count(*)::int AS known FROM pg_extension WHERE extname = 'pgkv'`,
  )) as [{ known: number }];
  t.equal(known, newest === 'embedded' ? 1 : 0, 'an extension where the server has its files, else plain SQL');

  const again = await init(folder.configFile, database);
  t.equal(again.exitCode, 1);
  t.match(again.errors, `there is a catalogue already: ${folder.catalogFile} (epoch 1, 2 shards)`);
});

t.test('--json, --no-table, another table, bytea, stated slots', async (t) => {
  const database = await newDatabase();
  const folder = clusterFolder(t, [
    { ...servers[0]!, slots: '[[0, 99], [200, 16383]]' },
    { ...servers[1]!, slots: '[[100, 199]]' },
  ]);
  const { exitCode, output } = await init(
    folder.configFile,
    database,
    '--table',
    'Odd "name"',
    '--value',
    'bytea',
    '--json',
  );
  t.equal(exitCode, 0);
  t.match(JSON.parse(output), {
    ok: true,
    dryRun: false,
    catalog: folder.catalogFile,
    epoch: 1,
    shards: [
      { name: 'a', port: first.port, extension: 'installed', table: 'created' },
      { name: 'b', hashSlots: [[100, 199]] },
    ],
  });
  t.strictSame(folder.catalog().tables, [{ schema: 'public', name: 'Odd "name"', valueType: 'bytea' }]);
  const [row] = await ask(
    first,
    database,
    `SELECT value FROM "Odd ""name""_get"('t', 'k') RIGHT JOIN (SELECT 1) x ON true`,
  );
  t.strictSame(row, { value: null });

  const none = await newDatabase();
  const other = clusterFolder(t, servers);
  t.equal((await init(other.configFile, none, '--no-table')).exitCode, 0);
  t.strictSame(other.catalog().tables, []);
});

t.test('a dry run finds what would fail, and changes nothing', async (t) => {
  const database = await newDatabase();
  const folder = clusterFolder(t, servers);
  const { exitCode, output } = await init(folder.configFile, database, '--dry-run');
  t.equal(exitCode, 0);
  t.match(output, /extension installed, table created\nnothing was changed/);
  t.notOk(existsSync(folder.catalogFile));
  t.strictSame(await ask(first, database, `SELECT 1 FROM pg_namespace WHERE nspname = 'pgkv'`), []);
});

t.test('after a failure on one shard it is run again', async (t) => {
  const database = await newDatabase();
  const folder = clusterFolder(t, servers);
  await ask(second, database, 'CREATE TABLE kv (tenant_id text)');
  const failed = await init(folder.configFile, database);
  t.equal(failed.exitCode, 1);
  t.match(failed.errors, 'shard b has another table public.kv: its column is "tenant_id text"');
  t.notOk(existsSync(folder.catalogFile));
  await ask(second, database, 'DROP TABLE kv');
  const { exitCode, output } = await init(folder.configFile, database);
  t.equal(exitCode, 0);
  t.match(output, /^a .*; extension present, table present$/m);
  t.match(output, /^b .*; extension installed, table created$/m);
});

t.test('a server of another cluster, or another shard of this one, is refused', async (t) => {
  const database = await newDatabase();
  t.equal((await init(clusterFolder(t, servers).configFile, database)).exitCode, 0);
  const [a, b] = servers as [(typeof servers)[0], (typeof servers)[0]];
  const swapped = clusterFolder(t, [
    { ...a, name: 'b' },
    { ...b, name: 'a' },
  ]);
  const { exitCode, errors } = await init(swapped.configFile, database);
  t.equal(exitCode, 1);
  t.match(errors, 'the server of shard b already is shard a of a cluster, with hash slots 0-8191 at epoch 1');
  await ask(first, database, `SELECT pgkv.set_shard_state('a', 2, '{[0,8191]}')`);
  const lost = await init(clusterFolder(t, servers).configFile, database);
  t.match(lost.errors, /already is shard a .* at epoch 2\n\tBring back the catalogue/);
});

t.test('another encoding than UTF8 is refused, and one server under two names', async (t) => {
  const latin = await newDatabase(`TEMPLATE template0 ENCODING 'LATIN1'`);
  const folder = clusterFolder(t, servers);
  const { exitCode, errors } = await init(folder.configFile, latin);
  t.equal(exitCode, 1);
  t.match(errors, 'shard a: the encoding of its database is LATIN1, not UTF8');
  t.match(errors, 'shard b: the encoding', 'all shards at once');

  folder.configure([servers[0]!, { ...servers[0]!, name: 'b', host: 'localhost' }]);
  const twins = await init(folder.configFile, await newDatabase());
  t.match(twins.errors, 'shards a and b are one server');
});

t.test('what keeps it from beginning is said for every shard, with what to do', async (t) => {
  const database = await newDatabase();
  const folder = clusterFolder(t, servers);
  const absent = await init(folder.configFile, 'no_such_database');
  t.equal(absent.exitCode, 2);
  t.match(absent.errors, /shard a: .*database "no_such_database" does not exist\nshard b: .*does not exist/);

  for (const server of [first, second]) await ask(server, database, 'DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN');
  const poor = await runCli(['init', '--config', folder.configFile, '--dbname', database, '--user', 'poor']);
  t.equal(poor.exitCode, 1);
  t.match(poor.errors, /shard [ab]: permission denied .*\n\tConnect as a role that may: --user NAME/);

  const service = await runCli(['init', '--config', folder.configFile, '--dbname', database]);
  t.match(service.errors, 'role "pgkv_service" does not exist', 'without --user the service role connects');

  folder.configure(servers, 'path = ""'); // a second path: not valid TOML
  t.match((await init(folder.configFile, database)).errors, 'not valid TOML');
  t.match((await init(join(folder.configFile, 'absent'), database)).errors, 'cannot read');
  t.match((await runCli(['init'])).errors, 'which cluster?');
});

t.test('a password comes from PGPASSWORD', async (t) => {
  const server = await startPostgres({ version: newest, hba: 'scram' });
  t.teardown(() => server.stop());
  const folder = clusterFolder(t, [{ name: 'only', host: server.host, port: server.port }]);
  const args = ['init', '--config', folder.configFile, '--dbname', 'postgres', '--user', server.superuser];
  const without = await runCli(args);
  t.equal(without.exitCode, 2);
  t.match(without.errors, 'a password is needed and none was given');
  t.equal((await runCli(args, { PGPASSWORD: 'wrong' })).exitCode, 2);
  t.equal((await runCli(args, { PGPASSWORD: server.password })).exitCode, 0);
  t.match(folder.catalog().shards, [{ name: 'only', hashSlots: [[0, 16383]] }]);
});
