// Workers serve as one router: what one of them learns or is told reaches the others. Real processes, real Postgres.
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { runCli } from '../support/cli-run.js';
import { encodeCancel } from '../support/frontend-message.js';
import { startPostgres } from '../support/postgres-server.js';
import { buildPackage } from '../support/router-process.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';
import {
  startWorkerRouter,
  untilWorkers,
  type WorkerRouter,
  workerConfig,
  workerRouter,
  workerWith,
} from '../support/worker-router.js';

const { program } = buildPackage(t);
const server = await startPostgres({ version: 'embedded' });
t.teardown(() => server.stop());
const direct = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
t.teardown(() => direct.end());

const start = (t: Test, more = '', workers = 2): Promise<WorkerRouter> =>
  workerRouter(t, {
    program,
    servers: [server],
    workers,
    more: /size_max/.test(more) ? more : `${more}[pool]\nsize_max = 8\n`,
  });

function keyOf(client: SqlClient): { pid: number; key: Buffer } {
  const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  return data;
}

t.test('clients are spread evenly, over TCP and over the Unix socket', async (t) => {
  const sockets = (await workerConfig(t, { servers: [server], workers: 1 })).folder;
  const router = await start(t, `[listen]\nport = 0\nsocket_dir = "${sockets}"\n`, 3);
  for (const host of ['127.0.0.1', sockets]) {
    const shares = [0, 0, 0];
    for (let n = 0; n < 30; n++) shares[workerWith(await router.connect({}, host)) - 1]!++;
    t.strictSame(shares, [10, 10, 10], host);
  }
});

t.test('metrics are sums, with the share of each worker beside them', async (t) => {
  const router = await start(t);
  const [a, b] = await router.connectToEach();
  const before = await router.metrics();
  for (let n = 0; n < 30; n++) await a!.value('SELECT 1');
  for (let n = 0; n < 12; n++) await b!.value('SELECT 1');
  await a!.fails('SELECT 1/0');
  await b!.fails('SELECT 1/0');
  const after = await router.metrics();
  const grown = (name: string) => after.get(name)! - before.get(name)!;
  t.equal(grown('pgkv_statements_total'), 44);
  t.equal(grown('pgkv_worker_statements_total{worker="1"}'), 31);
  t.equal(grown('pgkv_worker_statements_total{worker="2"}'), 13);
  t.equal(grown('pgkv_errors_total{origin="server",sqlstate_class="22"}'), 2);
  t.equal(after.get('pgkv_clients_connected'), 2);
  t.equal(after.get('pgkv_server_connections'), 2, 'each worker has its own');
  t.equal(after.get('pgkv_workers'), 2);
  for (const name of ['control', 'worker-1', 'worker-2']) {
    t.ok(after.get(`process_resident_memory_bytes{process="${name}"}`)! > 10e6, name);
  }
  const shown = await untilWorkers(t, router, a!, 'the status shows both', ([one, two]) => {
    return one!.statements >= 30 && two!.statements >= 12;
  });
  t.match(shown, [
    { worker: 1, serving: true, clients: 1 },
    { worker: 2, serving: true, clients: 1 },
  ]);
});

t.test('a cancel request reaches its session wherever it lands, and a wrong key nobody', async (t) => {
  const router = await start(t);
  const clients = await router.connectToEach();
  const cancel = async (pid: number, key: Buffer) => {
    const wire = await WireClient.open(router);
    wire.sendBytes(encodeCancel(pid, key));
    const { outcome, messages } = await wire.wait('closed', 2_000);
    wire.destroy();
    t.same([outcome, messages.length], ['reached', 0], 'nothing is ever answered');
  };
  const runs = `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(20)'`;
  for (const client of clients) {
    // One after the other they land on both workers.
    for (let attempt = 0; attempt < 2; attempt++) {
      client.wire.send({ query: 'SELECT pg_sleep(20)' });
      while ((await direct.value(runs)) !== '1') await sleep(5);
      const { pid, key } = keyOf(client);
      await cancel(pid, key);
      t.equal(errorOf((await client.wire.wait(1, 3_000)).messages)?.code, '57014');
    }
  }
  const counted = await router.metrics();
  t.equal(counted.get('pgkv_cancels_received_total'), 4);
  t.equal(counted.get('pgkv_cancels_forwarded_total'), 4);
  for (const worker of [1, 2]) t.equal(counted.get(`pgkv_worker_cancels_received_total{worker="${worker}"}`), 2);

  const [first] = clients;
  first!.wire.send({ query: 'SELECT pg_sleep(0.3)' });
  const { pid, key } = keyOf(first!);
  const wrong = Buffer.from(key.map((byte) => byte ^ 1));
  // Its own worker, another one, a worker there is not, pids that none hands out.
  for (const target of [pid, pid, pid + 1, (9 << 24) + 1, 5, -1]) await cancel(target, wrong);
  t.equal(errorOf((await first!.wire.wait(1, 3_000)).messages), null, 'it runs to its end');
  t.equal((await router.metrics()).get('pgkv_cancels_forwarded_total'), 4);
});

t.test('a session is cancelled and ended by its pid from every worker, by who has the right', async (t) => {
  await direct.run('drop role if exists stranger', 'create role stranger login');
  const router = await start(t);
  const callers = await router.connectToEach();
  const strangers = await router.connectToEach({ user: 'stranger' });
  const runs = `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(30)'`;
  const running = async (count: string) => {
    while ((await direct.value(runs)) !== count) await sleep(5);
  };
  for (const caller of callers) {
    t.equal(await caller.value('SELECT pg_backend_pid()'), `${caller.wire.pid}`);
    for (const victim of await router.connectToEach()) {
      const about = `worker ${workerWith(caller)} to worker ${workerWith(victim)}`;
      victim.wire.send({ query: 'SELECT pg_sleep(30)' });
      await running('1');
      for (const stranger of strangers) {
        t.equal(await stranger.fails(`SELECT pg_terminate_backend(${victim.wire.pid})`), '42501', about);
      }
      t.equal(await caller.value(`SELECT pg_cancel_backend(${victim.wire.pid})`), 't', about);
      t.equal(errorOf((await victim.wire.wait(1)).messages)?.code, '57014', about);
      victim.wire.send({ query: 'SELECT pg_sleep(30)' });
      await running('1');
      t.equal(await caller.value(`SELECT pg_terminate_backend(${victim.wire.pid})`), 't', about);
      t.match(errorOf((await victim.wire.wait('closed')).messages)?.fields, { S: 'FATAL', C: '57P01' }, about);
      await running('0');
      t.equal(await caller.value(`SELECT pg_terminate_backend(${victim.wire.pid})`), 'f', 'it is gone');
    }
    // A worker there is not.
    t.equal(await caller.value(`SELECT pg_cancel_backend(${(9 << 24) + 1})`), 'f');
  }
});

t.test('a table that is made reaches every worker', async (t) => {
  const options = { servers: [server], workers: 3, more: '[catalog]\npath = "catalog.json"\n[pool]\nsize_max = 8\n' };
  const place = await workerConfig(t, options);
  const { configFile } = place;
  const as = ['--config', configFile, '--user', server.superuser];
  t.equal((await runCli(['init', ...as, '--dbname', 'postgres'])).exitCode, 0);
  const router = await startWorkerRouter(t, { program, ...options }, place);
  const clients = await router.connectToEach();
  const insert = (table: string, key: string) =>
    `INSERT INTO ${table} (tenant_id, key, value) VALUES ('shop', '${key}', '{}')`;
  for (const client of clients) await client.run(insert('kv', `of worker ${workerWith(client)}`));
  t.equal(await clients[0]!.value(`SELECT count(*) FROM kv WHERE tenant_id = 'shop'`), '3');
  t.equal(await clients[0]!.fails(insert('carts', 'a')), '42P01');

  t.match(await runCli(['table', 'create', 'carts', ...as]), { exitCode: 0, output: /catalogue epoch 2/ });
  const known = async (client: SqlClient) =>
    (JSON.parse((await client.value('SHOW pgkv.status'))!) as { tables: { name: string }[] }).tables.length;
  for (const client of clients) {
    for (const end = performance.now() + 5_000; (await known(client)) < 2 && performance.now() < end; ) await sleep(10);
    t.equal(await known(client), 2, `worker ${workerWith(client)}`);
    await client.run(insert('carts', `of worker ${workerWith(client)}`));
    const [[plan]] = (await client.rows(`EXPLAIN (ROUTE) ${insert('carts', 'x')}`)) as [[string]];
    t.equal(plan, 'Route: keyed');
  }
  await untilWorkers(t, router, clients[0]!, 'all report its epoch', (all) => all.every(({ epoch }) => epoch === 2));
});

t.test('DDL through one worker under load on all: nobody sees an error', async (t) => {
  const router = await start(t, '[pool]\nsize_max = 4\n');
  const admin = await router.connect();
  await admin.run('CREATE TABLE notes (id int PRIMARY KEY, text text)');
  await admin.run(`INSERT INTO notes SELECT n, 'text' FROM generate_series(1, 100) n`);
  const clients = [
    ...(await router.connectToEach()),
    ...(await router.connectToEach()),
    ...(await router.connectToEach()),
  ];
  let done = false;
  let answers = 0;
  const widths = new Set<number>();
  const load = async (client: SqlClient) => {
    for (let n = 0; !done; n++) {
      const id = String(1 + (n % 100));
      await client.extended('UPDATE notes SET text = $2 WHERE id = $1', [id, `text ${n}`]);
      // The text names no columns: what it gives changes with the table.
      const messages = await client.send([
        { parse: 'SELECT * FROM notes WHERE id = $1' },
        { bind: [id] },
        { describe: 'portal' },
        { execute: '' },
        'sync',
      ] as never);
      const error = errorOf(messages);
      if (error !== null) throw error;
      const described = messages.find((message) => message.type === 'RowDescription');
      const row = messages.find((message) => message.type === 'DataRow');
      if (described?.type !== 'RowDescription' || row?.type !== 'DataRow') throw new Error('no row');
      if (described.columns.length !== row.values.length) throw new Error('a row of another shape than was told');
      widths.add(row.values.length);
      answers++;
    }
  };
  const loads = Promise.all(clients.map(load));
  loads.catch(() => undefined);
  /** Until some more answers have come, of each client about three: a slow machine takes its time. */
  const more = async () => {
    for (const wanted = answers + 3 * clients.length; answers < wanted; ) await Promise.race([loads, sleep(5)]);
  };
  for (const column of ['note', 'extra', 'more']) {
    await more();
    await admin.run(`ALTER TABLE notes ADD COLUMN ${column} text`);
  }
  await more();
  await admin.run('ALTER TABLE notes DROP COLUMN more');
  await more();
  done = true;
  await t.resolves(loads);
  t.ok(widths.has(2) && widths.has(5), 'rows from before and after were seen');
  await admin.run('DROP TABLE notes');
});

t.test('code that DDL through one worker brings is known to the others: no state leaks there', async (t) => {
  const router = await start(t, '[pool]\nsize_max = 1\n');
  const [a, b] = await router.connectToEach();
  await a!.run('CREATE TABLE audited (id int)');
  // By now worker 2 has read what routines there are.
  await b!.run('INSERT INTO audited VALUES (1)');
  await a!.run(
    `CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.mark', 'b', false); RETURN NEW; END $$`,
    'CREATE TRIGGER mark BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION mark()',
  );
  // DDL reaches the other worker a moment after its author hears of it (docs/LIMITS.md).
  await sleep(1_500);
  await b!.run('INSERT INTO audited VALUES (2)');
  let other = await router.connect();
  while (workerWith(other) !== 2) other = await router.connect();
  t.not(await other.value(`SELECT current_setting('app.mark', true)`), 'b', 'it shares the only connection there');
  t.equal(await b!.value(`SELECT current_setting('app.mark', true)`), 'b', 'the session keeps what is its own');
  await a!.run('DROP TABLE audited', 'DROP FUNCTION mark');
});

t.test('a password that was changed is noticed by all at the first login that fails', async (t) => {
  const scram = await startPostgres({ version: 'embedded', hba: 'scram' });
  t.teardown(() => scram.stop());
  const login = { user: scram.superuser, password: scram.password, database: 'postgres' };
  const admin = await SqlClient.connect(scram, login);
  await admin.run(readFileSync(new URL('../../config/auth.sql', import.meta.url), 'utf8'));
  await admin.run(`ALTER ROLE pgkv_service PASSWORD 'service'`, `CREATE ROLE app LOGIN PASSWORD 'before'`);
  const place = await workerConfig(t, {
    servers: [scram],
    workers: 2,
    more: '[pool]\nsize_max = 8\n',
    auth: 'cache_ms = 600000\nfailure_delay_ms = 1\n[auth.service]\npassword_file = "password"\n',
  });
  writeFileSync(`${place.folder}/password`, 'service\n');
  const router = await startWorkerRouter(t, { program, servers: [scram], workers: 2 }, place);
  await router.connectToEach({ user: 'app', password: 'before' });
  await admin.run(`ALTER ROLE app PASSWORD 'after'`);
  await t.rejects(router.connect({ user: 'app', password: 'after' }), /28P01/, 'the old verifier was kept');
  for (let n = 0; n < 4; n++) await t.resolves(router.connect({ user: 'app', password: 'after' }));
  await admin.end();
});
