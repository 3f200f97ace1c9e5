// `pgkv table` and `pgkv doctor` on a cluster of two real servers, and on the same cluster when it is ill.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { CatalogState } from '../../src/catalog/catalog-state.js';
import { FileCatalog } from '../../src/catalog/file-catalog.js';
import { runCli } from '../support/cli-run.js';
import { ask, type ClusterFolder, clusterFolder } from '../support/cluster-folder.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { freePort, startPostgres } from '../support/postgres-server.js';

const [first, second] = await Promise.all([
  startPostgres({ version: findPostgres('15') ? '15' : 'embedded' }),
  startPostgres({
    version: findPostgres('embedded') ? 'embedded' : '15',
    parameters: { max_prepared_transactions: '0' },
  }),
]);
t.teardown(() => Promise.all([first.stop(), second.stop()]));
const both = [first, second];
const authSql = readFileSync(new URL('../../config/auth.sql', import.meta.url), 'utf8');
for (const server of both) await ask(server, 'postgres', authSql);
const servers = both.map(({ host, port }, index) => ({ name: 'ab'[index]!, host, port }));

let count = 0;
interface Cluster extends ClusterFolder {
  readonly database: string;
  /** Runs a command with `--config` and as superuser. */
  run(...args: string[]): ReturnType<typeof runCli>;
}

/** A cluster in a database of its own, with table kv. */
async function newCluster(t: Test): Promise<Cluster> {
  const database = `cluster_${++count}`;
  for (const server of both) await ask(server, 'postgres', `CREATE DATABASE ${database}`);
  const folder = clusterFolder(t, servers);
  const run: Cluster['run'] = (...args) => runCli([...args, '--config', folder.configFile, '--user', first.superuser]);
  const { exitCode, errors } = await run('init', '--dbname', database);
  t.equal(exitCode, 0, errors);
  return { ...folder, database, run };
}

t.test('a table is made on all shards, listed, and dropped again, and watchers are told', async (t) => {
  const { run, catalogFile, catalog, database } = await newCluster(t);
  const watched = new FileCatalog(catalogFile, { pollMs: 20 });
  t.teardown(() => watched.close());
  await watched.read();
  const seen: CatalogState[] = [];
  watched.watch((state) => seen.push(state));

  const made = await run('table', 'create', 'blobs', '--value', 'bytea');
  t.strictSame(made, {
    exitCode: 0,
    output: 'table public.blobs (bytea) created on all shards; catalogue epoch 2\n',
    errors: '',
  });
  for (const server of both) {
    const put = `SELECT count(blobs_put('t', k, '\\x01'))::int FROM (SELECT i::text k FROM generate_series(1, 20) i) k
      WHERE pgkv.slot('t', k) <@ pgkv.owned_slots()`;
    const [row] = await ask<{ count: number }>(server, database, put);
    t.ok(row!.count > 2);
    t.strictSame(await ask(server, database, 'SELECT epoch::int FROM pgkv.shard_state'), [{ epoch: 2 }]);
  }
  const again = await run('table', 'create', 'blobs', '--value', 'bytea', '--json');
  t.match(JSON.parse(again.output), { ok: true, outcome: 'present', epoch: 2 });
  const otherwise = await run('table', 'create', 'blobs');
  t.equal(otherwise.exitCode, 1);
  t.match(otherwise.errors, 'there is a table public.blobs already, with bytea values');

  const list = await run('table', 'list');
  t.match(list.output, / public \| kv {4}\| jsonb\n public \| blobs \| bytea\n\(2 tables in database cluster_1\)\n$/);
  t.match(JSON.parse((await run('table', 'list', '--json')).output), {
    epoch: 2,
    tables: [{ name: 'kv' }, { schema: 'public', name: 'blobs', valueType: 'bytea' }],
  });

  const unsure = await run('table', 'drop', 'blobs');
  t.equal(unsure.exitCode, 1);
  t.match(unsure.errors, 'this drops public.blobs with all its keys\n\tIf so, add --yes.');
  t.equal(catalog().epoch, 2);
  t.equal(
    (await run('table', 'drop', 'blobs', '--yes')).output,
    'table public.blobs (bytea) dropped on all shards; catalogue epoch 3\n',
  );
  for (const server of both) {
    const left = await ask(server, database, `SELECT proname FROM pg_proc WHERE proname LIKE 'blobs%'`);
    t.strictSame(left, [], 'its functions are gone as well');
  }
  const gone = await run('table', 'drop', 'blobs', '--yes');
  t.match(gone.errors, 'there is no key-value table public.blobs\n\tThere is: public.kv.');
  for (const end = performance.now() + 3000; seen.length < 2 && performance.now() < end; ) await sleep(10);
  t.strictSame(
    seen.map(({ epoch, tables }) => [epoch, tables.length]),
    [
      [2, 2],
      [3, 1],
    ],
  );
});

t.test('a table that was filled before the cluster knew it is not taken over with rows of other shards', async (t) => {
  const { run, database } = await newCluster(t);
  await ask(first, database, "SELECT pgkv.create_table('early')");
  await ask(
    first,
    database,
    `SET pgkv.router = on; INSERT INTO early (tenant_id, key, value, slot)
      SELECT 't', i::text, '1', pgkv.slot('t', i::text) FROM generate_series(1, 20) i`,
  );
  const refused = await run('table', 'create', 'early');
  t.equal(refused.exitCode, 1);
  t.match(
    refused.errors,
    'shard a has a table public.early already, with rows whose hash slots belong to other shards',
  );
  await ask(first, database, 'DELETE FROM early');
  t.match(await run('table', 'create', 'early'), { exitCode: 0, errors: '' });
});

t.test('what failed on one shard is run again; the catalogue only knows tables that are everywhere', async (t) => {
  const { run, catalog, database } = await newCluster(t);
  await ask(second, database, 'CREATE TABLE carts (id int)');
  const failed = await run('table', 'create', 'carts');
  t.equal(failed.exitCode, 1);
  t.match(failed.errors, 'shard b has another table public.carts: it has no column tenant_id');
  t.strictSame(
    catalog().tables.map(({ name }) => name),
    ['kv'],
  );
  await ask(second, database, 'DROP TABLE carts');
  t.equal((await run('table', 'create', 'carts')).exitCode, 0);

  await ask(first, database, 'CREATE SCHEMA shop');
  const noSchema = await run('table', 'create', 'kv', '--schema', 'shop');
  t.match(noSchema.errors, 'shard b: schema "shop" does not exist');
  await ask(second, database, 'CREATE SCHEMA shop');
  t.equal((await run('table', 'create', 'kv', '--schema', 'shop')).exitCode, 0);
  t.match(await run('table', 'create', 'Shop.KV'), {
    exitCode: 0,
    output: /table shop\.kv \(jsonb\) was there already/,
  });
  t.match(await run('table', 'create', 'shop.kv', '--schema', 'public'), {
    exitCode: 1,
    errors: /--schema says public/,
  });
  t.match(await run('table', 'create', "k'v"), { exitCode: 1, errors: /It must be a name or schema\.name, as in SQL/ });

  // Dropped on one shard, then cut off.
  await ask(first, database, `SELECT pgkv.drop_table('shop.kv')`);
  t.equal((await run('table', 'drop', 'kv', '--schema', 'shop', '--yes')).exitCode, 0);
  t.strictSame(
    catalog().tables.map(({ name }) => name),
    ['kv', 'carts'],
  );
});

t.test('two that create at the same time both succeed', async (t) => {
  const { run, catalog } = await newCluster(t);
  const outcomes = await Promise.all(['x', 'y', 'z'].map((name) => run('table', 'create', name)));
  t.strictSame(
    outcomes.map(({ exitCode, errors }) => [exitCode, errors]),
    [0, 0, 0].map((code) => [code, '']),
  );
  t.equal(catalog().epoch, 4);
  t.strictSame(
    catalog()
      .tables.map(({ name }) => name)
      .sort(),
    ['kv', 'x', 'y', 'z'],
  );
});

t.test('a table whose lock is held is not waited for without end', { timeout: 20_000 }, async (t) => {
  const { run, database, catalog } = await newCluster(t);
  const { default: pg } = await import('pg');
  const holder = new pg.Client({ host: second.host, port: second.port, user: second.superuser, database });
  await holder.connect();
  t.teardown(() => holder.end());
  await holder.query('BEGIN; SELECT FROM kv');
  const { exitCode, errors } = await run('table', 'drop', 'kv', '--yes');
  t.equal(exitCode, 1);
  t.match(errors, 'shard b: canceling statement due to lock timeout');
  t.equal(catalog().tables.length, 1);
});

t.test('without a catalogue, and with shards it does not know', async (t) => {
  const { run, configure, catalogFile } = await newCluster(t);
  configure([...servers, { name: 'c', host: first.host, port: 1 }]);
  const unknown = await run('table', 'create', 'x');
  t.equal(unknown.exitCode, 1);
  t.match(unknown.errors, 'the configuration has shard "c", the catalogue does not');
  configure(servers);
  rmSync(catalogFile);
  t.match((await run('table', 'list')).errors, /there is no catalogue .*\n\tMake one: pgkv init --config /);
  writeFileSync(catalogFile, '{');
  t.match((await run('table', 'list')).errors, 'is not usable: it is not JSON');
  t.match(
    (await runCli(['table', 'list', '--data-dir', '/absent'])).errors,
    'no pgkv runs with the data folder /absent',
  );
});

interface Finding {
  readonly severity: string;
  readonly shard: string | null;
  readonly check: string;
  readonly message: string;
}

async function findings({ run }: Cluster): Promise<{ exitCode: number; ill: Finding[]; all: Finding[] }> {
  const { exitCode, output, errors } = await run('doctor', '--json');
  if (errors !== '') throw new Error(errors);
  const { ok, findings: all } = JSON.parse(output) as { ok: boolean; findings: Finding[] };
  if (ok !== (exitCode === 0)) throw new Error(`ok is ${ok}, exit code ${exitCode}`);
  return { exitCode, all, ill: all.filter(({ severity }) => severity === 'wrong' || severity === 'warning') };
}

t.test('the doctor finds nothing wrong with a cluster just made', async (t) => {
  const cluster = await newCluster(t);
  const { exitCode, ill, all } = await findings(cluster);
  t.strictSame(ill, []);
  t.equal(exitCode, 0);
  for (const shard of ['a', 'b']) {
    const checks = all.filter((finding) => finding.shard === shard).map(({ check }) => check);
    const examined = ['reach', 'encoding', 'connections', 'prepared', 'auth', 'extension', 'state'];
    // b allows no prepared transactions.
    examined.push(...(shard === 'a' ? ['recovery', 'table', 'rows'] : ['table', 'rows', 'roles']));
    t.strictSame(checks, [...examined, 'clock']);
  }
  t.match(all, [{ shard: null, check: 'catalogue', message: `${cluster.catalogFile}: epoch 1, 16384 hash slots` }]);
  const prepared = all.find(({ shard, check }) => shard === 'b' && check === 'prepared');
  t.match(prepared, { severity: 'info', message: 'max_prepared_transactions = 0' });
  const { output } = await cluster.run('doctor');
  t.match(output, /^shard a\n {2}ok {7}reach {8}127\.0\.0\.1:\d+ answers, PostgreSQL/m);
  t.match(output, '\n0 wrong, 0 warnings\n');
});

t.test('asked as the documents say, without --user, the doctor has no complaint about a right cluster', async (t) => {
  const cluster = await newCluster(t);
  const { exitCode, output, errors } = await runCli(['doctor', '--config', cluster.configFile]);
  t.strictSame([exitCode, errors], [0, '']);
  t.match(output, '\n0 wrong, 0 warnings\n');
  t.match(output, /info {5}rows {9}public\.kv: not looked at: pgkv_service may not read it, ask as a role that may/);
});

t.test('the doctor names each thing that is wrong', async (t) => {
  const only = async (
    cluster: Cluster,
    severity: string,
    shard: string | null,
    check: string,
    message: string | RegExp,
  ) => {
    const { exitCode, ill } = await findings(cluster);
    t.match(ill, [{ severity, shard, check, message }]);
    t.equal(ill.length, 1, JSON.stringify(ill));
    t.equal(exitCode, severity === 'wrong' ? 1 : 0);
  };
  const cluster = await newCluster(t);
  const { database, catalogFile, catalog } = cluster;
  const healthy = catalog();

  await ask(first, database, `CREATE ROLE doctored LOGIN PASSWORD 'one'; GRANT doctored TO pgkv_recover`);
  t.teardown(async () => {
    for (const server of [first, second]) await ask(server, 'postgres', 'DROP ROLE IF EXISTS doctored');
  });
  await only(cluster, 'warning', 'b', 'roles', 'of shard a, these may not log in here: doctored');
  await ask(second, database, `CREATE ROLE doctored LOGIN PASSWORD 'one'; GRANT doctored TO pgkv_recover`);
  await only(cluster, 'warning', 'b', 'roles', /^stored passwords differ from shard a's .*: doctored/);
  for (const server of [first, second]) await ask(server, database, 'DROP ROLE doctored');

  for (const server of both)
    await ask(
      server,
      database,
      `SET password_encryption = 'md5'; CREATE ROLE doctored LOGIN PASSWORD 'one'; GRANT doctored TO pgkv_recover`,
    );
  t.match((await findings(cluster)).ill, [
    { severity: 'warning', shard: 'a', check: 'roles', message: /^pgkv refuses passwords stored as MD5 .*: doctored$/ },
    { severity: 'warning', shard: 'b', check: 'roles', message: /: doctored$/ },
  ]);
  for (const server of both) await ask(server, database, 'DROP ROLE doctored');

  await ask(second, database, 'ALTER ROLE pgkv_service CONNECTION LIMIT 0');
  await only(
    cluster,
    'wrong',
    'b',
    'service',
    /^pgkv_service cannot log in as pgkv does: .*too many connections for role/,
  );
  await ask(second, database, 'ALTER ROLE pgkv_service CONNECTION LIMIT -1');
  for (const loss of [
    'REVOKE EXECUTE ON FUNCTION pgkv.beat() FROM pgkv_service',
    'ALTER FUNCTION pgkv.beat() RENAME TO away',
  ]) {
    await ask(second, database, loss);
    const { ill } = await findings(cluster);
    const gone = {
      severity: 'wrong',
      shard: 'b',
      check: 'extension',
      message: /function pgkv\.beat\(\): run pgkv init/,
    };
    const silent = { severity: 'warning', shard: 'b', check: 'heartbeat', message: /may not run pgkv\.beat\(\): run / };
    t.match(ill, /RENAME/.test(loss) ? [gone, silent] : [silent]);
    t.equal(ill.length, /RENAME/.test(loss) ? 2 : 1);
    if (/RENAME/.test(loss)) await ask(second, database, 'ALTER FUNCTION pgkv.away() RENAME TO beat');
    else t.equal((await cluster.run('init')).exitCode, 0);
  }
  await ask(second, database, 'DROP FUNCTION kv_put(text, text, jsonb, interval)');
  await only(
    cluster,
    'wrong',
    'b',
    'functions',
    /^public\.kv lacks kv_put\(tenant text, key text.*\): run pgkv init again$/,
  );
  t.equal((await cluster.run('init')).exitCode, 0);
  t.strictSame((await findings(cluster)).ill, []);

  // As an older version of the extension let it happen.
  const lay = (key: string, slot: string) =>
    `SET pgkv.router = on; INSERT INTO kv (tenant_id, key, value, slot) VALUES ('t', '${key}', '1', ${slot})`;
  await ask(second, database, lay('k', '16383'));
  await only(cluster, 'wrong', 'b', 'rows', "public.kv: 1 of 1 have a hash slot that is not their key's");
  await ask(second, database, `DELETE FROM kv; ${lay('1', '8191')}`);
  t.match((await findings(cluster)).ill, [
    { shard: 'b', check: 'rows', message: /^public\.kv: 1 of 1 have a hash slot/ },
    { shard: 'b', check: 'rows', message: /^public\.kv: 1 of 1 have hash slots of other shards/ },
  ]);
  await ask(second, database, 'DELETE FROM kv');

  await ask(first, 'postgres', 'DROP FUNCTION pgkv.role_login(text)');
  await only(cluster, 'warning', 'a', 'auth', /^has pgkv\.role_verifier of an older pgkv/);
  await ask(first, 'postgres', authSql);

  await ask(second, database, 'ALTER TABLE kv ADD COLUMN note text');
  await only(cluster, 'wrong', 'b', 'table', 'public.kv differs from shard a: note text');
  await ask(second, database, 'ALTER TABLE kv DROP COLUMN note; DROP TRIGGER pgkv_version ON kv');
  await only(cluster, 'wrong', 'b', 'table', /differs from shard a: CREATE TRIGGER pgkv_version/);
  await ask(second, database, `SELECT pgkv.refresh_table('kv')`);
  await ask(first, database, 'ALTER TABLE kv ALTER COLUMN value TYPE text USING value::text');
  t.match((await findings(cluster)).ill, [
    { shard: 'a', message: /is no key-value table: its column is "value text"/ },
  ]);
  await ask(first, database, 'DROP TABLE kv');
  await only(cluster, 'wrong', 'a', 'table', 'public.kv is missing');
  await ask(first, database, `DROP SCHEMA pgkv CASCADE`);
  t.match((await findings(cluster)).ill, [{ shard: 'a', check: 'extension', message: 'pgkv is not installed' }]);

  const mixed = await newCluster(t);
  mixed.configure([
    { ...servers[0]!, name: 'b' },
    { ...servers[1]!, name: 'a' },
  ]);
  t.match((await findings(mixed)).ill, [
    { shard: 'b', check: 'state', message: 'says that it is shard a: addresses are mixed up' },
    { shard: 'a', check: 'state', message: 'says that it is shard b' },
  ]);
  mixed.configure(servers);
  writeFileSync(mixed.catalogFile, JSON.stringify({ ...mixed.catalog(), epoch: 3 }));
  t.match(await findings(mixed), {
    exitCode: 0,
    ill: [{ severity: 'warning' }, { message: /behind the catalogue's 3/ }],
  });
  for (const server of both) await ask(server, mixed.database, 'UPDATE pgkv.shard_state SET epoch = 4');
  t.match(await findings(mixed), { exitCode: 1, ill: [{ message: 'is at epoch 4, the catalogue at 3' }, {}] });
  await ask(first, mixed.database, `UPDATE pgkv.shard_state SET epoch = 3, slots = '{[0,8000]}'`);
  t.match((await findings(mixed)).ill, [{ message: 'holds hash slots 0-8000, the catalogue says 0-8191' }, {}]);

  const third = await newCluster(t);
  third.configure(servers, '[pool]\nsize_max = 100\n');
  t.match((await findings(third)).ill, [
    { shard: 'a', check: 'connections', message: /= 107, max_connections = 60: does not fit/ },
    { shard: 'b', check: 'connections' },
  ]);
  third.configure([servers[0]!, { ...servers[1]!, port: await freePort() }]);
  await only(third, 'wrong', 'b', 'reach', /Connection refused/);
  third.configure(servers);
  rmSync(third.catalogFile);
  const missing = await third.run('doctor', '--json', '--dbname', third.database);
  t.equal(missing.exitCode, 1);
  t.match(JSON.parse(missing.output).findings, [
    { severity: 'wrong', check: 'catalogue', message: /is missing: run pgkv init/ },
  ]);
  writeFileSync(catalogFile, 'torn');
  t.match((await cluster.run('doctor', '--dbname', database)).output, / WRONG {4}catalogue {4}.* is not JSON/);
  writeFileSync(catalogFile, JSON.stringify({ ...healthy, database: 'absent_db' }));
  t.match((await findings(cluster)).ill, [{ check: 'reach', message: /database "absent_db" does not exist/ }, {}]);

  await ask(first, 'postgres', `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'`);
  await ask(second, 'postgres', `CREATE DATABASE latin TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'und'`);
  writeFileSync(catalogFile, JSON.stringify({ ...healthy, database: 'latin', tables: [] }));
  const { ill } = await findings(cluster);
  t.match(
    ill.find(({ check }) => check === 'encoding'),
    { severity: 'wrong', shard: 'a', message: 'LATIN1, not UTF8' },
  );
  t.match(
    ill.find(({ check }) => check === 'collation'),
    { severity: 'warning', shard: 'b' },
  );
});
