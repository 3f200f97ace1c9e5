// `pgkv init` against real servers of the oldest and the newest release: what it makes, what it refuses, and that it can
// be run again after every failure.
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
    const keys = Array.from({ length: 20 }, (_, index) => `user:{${index}}`);
    const own = keys.filter((key) => hashSlotOf('shop', key) < 8192 === (name === 'a'));
    for (const key of own) await ask(server, database, `SELECT kv_put('shop', '${key}', '1')`);
    t.strictSame(
      await ask(server, database, 'SELECT slot FROM kv ORDER BY slot'),
      own.map((key) => ({ slot: hashSlotOf('shop', key) })).sort((one, other) => one.slot - other.slot),
      'SQL and router agree on the slots, and on whose they are',
    );
  }
  const [{ known }] = (await ask(
    second,
    database,
    `SELECT count(*)::int AS known FROM pg_extension WHERE extname = 'pgkv'`,
  )) as [{ known: number }];
  t.equal(known, newest === 'embedded' ? 1 : 0, 'an extension where the server has its files, else plain SQL');

  const { clusterId, shards } = folder.catalog();
  t.match(clusterId, /^[0-9a-f-]{36}$/);
  for (const [index, server] of [first, second].entries()) {
    const [system] = await ask(server, database, 'SELECT system_identifier::text AS id FROM pg_control_system()');
    t.equal(shards[index]?.systemIdentifier, system!['id']);
    t.strictSame(await ask(server, database, 'SELECT * FROM pgkv.identity()'), [
      { cluster_id: clusterId, shard: ['a', 'b'][index], epoch: '1' },
    ]);
  }

  const again = await init(folder.configFile, database);
  t.equal(again.errors, '');
  t.equal(again.exitCode, 0);
  t.match(again.output, `all is as it should be; catalogue ${folder.catalogFile}: epoch 1`);
});

t.test(
  'run again it repairs what it makes, says what, and refuses options that contradict the catalogue',
  async (t) => {
    const database = await newDatabase();
    const folder = clusterFolder(t, servers);
    const again = (...args: string[]) =>
      runCli(['init', '--config', folder.configFile, '--user', first.superuser, ...args]);
    for (const server of [first, second]) {
      await ask(
        server,
        database,
        `DO $$ BEGIN CREATE ROLE pgkv_service LOGIN; EXCEPTION WHEN duplicate_object THEN END $$`,
      );
      await ask(server, database, 'CREATE ROLE pgkv_recover LOGIN NOINHERIT; CREATE ROLE app LOGIN');
    }
    t.teardown(async () => {
      for (const server of [first, second])
        await ask(
          server,
          database,
          'DROP OWNED BY pgkv_service, pgkv_recover; DROP ROLE pgkv_service, pgkv_recover, app',
        );
    });
    t.equal((await init(folder.configFile, database)).exitCode, 0);
    for (const [damage, what] of [
      ['DROP FUNCTION kv_put(text, text, jsonb, interval)', 'functions of public.kv'],
      ['DROP TRIGGER pgkv_slot ON kv', 'triggers of public.kv'],
      ['REVOKE EXECUTE ON FUNCTION pgkv.beat() FROM pgkv_service', 'grants'],
      ['REVOKE USAGE ON SCHEMA pgkv FROM pgkv_service', 'grants'],
      ['REVOKE EXECUTE ON FUNCTION pgkv.settle(text) FROM pgkv_recover', 'grants'],
      ['REVOKE app FROM pgkv_recover', 'grants'],
      ['DELETE FROM pgkv.shard_state', 'row of pgkv.shard_state'],
    ] as const) {
      await ask(second, database, damage);
      const dry = await again('--dry-run');
      const { exitCode, output, errors } = await again();
      t.strictSame([exitCode, errors, dry.exitCode], [0, '', 0], damage);
      for (const text of [dry.output, output]) {
        t.match(text, new RegExp(`^b .*; extension present, table present; renewed: ${what}$`, 'm'), damage);
        t.match(text, /^a .*; extension present, table present$/m);
      }
      t.match(output, /^catalogue .*: epoch 1, public\.kv \(jsonb\)$/m);
      t.match((await again()).output, /^all is as it should be; catalogue .*: epoch 1/m);
    }
    const doctor = async () => {
      const login = ['--dbname', database, '--user', first.superuser];
      return (await runCli(['doctor', '--config', folder.configFile, ...login])).output;
    };
    t.match(await doctor(), /ok +recovery +pgkv_recover can finish the transactions of all roles/);
    await ask(first, database, 'CREATE ROLE late LOGIN');
    t.match(await doctor(), /WARNING +recovery +not granted to pgkv_recover \(run pgkv init .*\): late$/m);
    t.match((await again()).output, /^a .*; renewed: grants$/m);
    t.notMatch(await doctor(), /WARNING +recovery/);
    await ask(first, database, 'DROP ROLE late');
    t.match(JSON.parse((await again('--json', '--table', 'kv', '--value', 'jsonb')).output), {
      ok: true,
      wasDone: true,
      shards: [{ repaired: [] }, { repaired: [] }],
    });
    for (const [args, says] of [
      [['--dbname', 'other'], `of the database ${database}, not other`],
      [['--table', 'second'], 'without a table public.second\n\tAdd tables with: pgkv table create second'],
      [['--value', 'bytea'], 'with jsonb values in public.kv'],
    ] as const) {
      const { exitCode, errors } = await again(...args);
      t.equal(exitCode, 1, args.join(' '));
      t.match(errors, 'there is a catalogue already', args.join(' '));
      t.match(errors, says);
    }
  },
);

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
    '"Odd ""name"""',
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

t.test('what 0.1.0 has set up is brought to this version, with its rows, and named', async (t) => {
  const database = await newDatabase();
  const folder = clusterFolder(t, servers);
  const oldest = readFileSync(new URL('../../extensions/pgkv/pgkv--0.1.0.sql', import.meta.url), 'utf8');
  const [files] = await ask(second, database, `SELECT FROM pg_available_extension_versions WHERE name = 'pgkv'`);
  await ask(first, database, oldest);
  await ask(second, database, files === undefined ? oldest : `CREATE EXTENSION pgkv VERSION '0.1.0'`);
  for (const [server, state] of [
    [first, `'a', 3, '{[0,8191]}'`],
    [second, `'b', 2, '{[8192,16383]}'`],
  ] as const) {
    await ask(server, database, `SELECT pgkv.create_table('kv'), pgkv.set_shard_state(${state})`);
    await ask(server, database, `SELECT kv_put('t', 'k', '1')`);
  }
  const old = {
    format: 1,
    epoch: 3,
    database,
    shards: [
      { name: 'a', hashSlots: [[0, 8191]] },
      { name: 'b', hashSlots: [[8192, 16383]] },
    ],
    tables: [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
  };
  writeFileSync(folder.catalogFile, JSON.stringify(old));
  const doctor = () =>
    runCli(['doctor', '--config', folder.configFile, '--dbname', database, '--user', first.superuser]);
  t.match((await doctor()).output, 'this program needs 0.3.0: run pgkv init again');

  const dry = await init(folder.configFile, database, '--dry-run');
  t.equal(dry.exitCode, 0, dry.errors);
  t.match(dry.output, /extension updated, table present$/m);
  t.strictSame(JSON.parse(readFileSync(folder.catalogFile, 'utf8')), old, 'a dry run changes nothing');

  const { exitCode, output, errors } = await init(folder.configFile, database);
  t.equal(exitCode, 0, errors);
  t.match(output, /^a .*; extension updated, table present\nb .*; extension updated, table present$/m);
  const { clusterId, epoch, shards } = folder.catalog();
  t.equal(epoch, 4);
  for (const [index, server] of [first, second].entries()) {
    t.ok(shards[index]?.systemIdentifier);
    t.strictSame(await ask(server, database, 'SELECT * FROM pgkv.identity()'), [
      { cluster_id: clusterId, shard: ['a', 'b'][index], epoch: '4' },
    ]);
    t.strictSame(await ask(server, database, `SELECT value, pgkv.version() FROM kv`), [{ value: 1, version: '0.3.0' }]);
    const [left] = await ask(
      server,
      database,
      `SELECT count(*)::int FROM pg_proc WHERE prosrc ~ 'EXIT WHEN NOT FOUND'`,
    );
    t.strictSame(left, { count: 0 }, 'functions of the table too');
  }
  const rows = (await doctor()).output;
  t.match(rows, /WRONG {4}rows +public\.kv: 1 of 1 have hash slots of other shards/, 'k was laid on both');
  t.match((await init(folder.configFile, database)).output, 'all is as it should be', 'nothing is left to do');

  folder.configure([
    { ...servers[0]!, name: 'b' },
    { ...servers[1]!, name: 'a' },
  ]);
  const swapped = await init(folder.configFile, database);
  t.match(swapped.errors, /the server of shard [ab] is another one than the catalogue knows: its system identifier/);
});

t.test('after a failure half way the shards keep the id they have, and two clusters are not joined', async (t) => {
  const database = await newDatabase();
  const folder = clusterFolder(t, servers);
  t.equal((await init(folder.configFile, database)).exitCode, 0);
  const { clusterId } = folder.catalog();
  rmSync(folder.catalogFile);
  t.equal((await init(folder.configFile, database)).exitCode, 0, 'as if the catalogue had not been written');
  t.equal(folder.catalog().clusterId, clusterId);
  rmSync(folder.catalogFile);
  await ask(second, database, `UPDATE pgkv.shard_state SET cluster_id = 'another'`);
  const { exitCode, errors } = await init(folder.configFile, database);
  t.equal(exitCode, 1);
  t.match(errors, `these belong to different clusters: shard a: ${clusterId}, shard b: another`);
});

t.test(
  'a lost catalogue is written anew from the shards, a server made anew is taken in by a later epoch',
  async (t) => {
    const database = await newDatabase();
    const folder = clusterFolder(t, servers);
    t.equal((await init(folder.configFile, database)).exitCode, 0);
    const more = [
      'table',
      'create',
      'more',
      '--value',
      'bytea',
      '--config',
      folder.configFile,
      '--user',
      first.superuser,
    ];
    t.equal((await runCli(more)).exitCode, 0);
    const before = folder.catalog();
    rmSync(folder.catalogFile);
    t.match((await init(folder.configFile, database)).errors, /at epoch 2\n\tBring back the catalogue/);
    // The statement of docs/OPERATION.md, on each server.
    const page = readFileSync(new URL('../../docs/OPERATION.md', import.meta.url), 'utf8');
    const statement = /-c "(SELECT s\.shard_name[^"]*)"/.exec(page)?.[1];
    if (statement === undefined) throw new Error('no statement in docs/OPERATION.md');
    const told = await Promise.all([first, second].map(async (server) => (await ask(server, database, statement))[0]!));
    const tables = told[0]!['tables'] as { schema: string; name: string; valueType: string }[];
    const written = {
      format: 2,
      epoch: Number(told[0]!['epoch']),
      clusterId: told[0]!['cluster_id'],
      database,
      shards: told.map((row) => ({
        name: row['shard_name'],
        systemIdentifier: row['system_identifier'],
        hashSlots: row['hash_slots'],
      })),
      tables,
    };
    const { tables: knownTables, ...known } = before;
    t.match(written, known);
    t.strictSame(new Set(tables.map(({ name }) => name)), new Set(knownTables.map(({ name }) => name)));
    writeFileSync(folder.catalogFile, JSON.stringify(written));
    t.match((await init(folder.configFile, database)).output, 'all is as it should be');

    const other = written.shards.map((shard, index) => (index === 1 ? { ...shard, systemIdentifier: '1' } : shard));
    writeFileSync(folder.catalogFile, JSON.stringify({ ...written, shards: other }));
    t.match((await init(folder.configFile, database)).errors, /shard b is another one than the catalogue knows/);
    const without = written.shards.map(({ systemIdentifier, ...shard }, index) =>
      index === 1 ? shard : { ...shard, systemIdentifier },
    );
    writeFileSync(folder.catalogFile, JSON.stringify({ ...written, epoch: 3, shards: without }));
    t.equal((await init(folder.configFile, database)).exitCode, 0);
    t.match(folder.catalog(), { epoch: 4, shards: before.shards });
  },
);

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
