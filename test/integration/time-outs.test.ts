// A session's time-outs are its own: they end its statements and nobody else's, and neither the change to another session's
// settings nor pgkv's question for what a session has left runs under them. On every lane, with one connection for all.
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { evenSpread, fixedCatalog, KV, prepareShard } from '../support/kv-cluster.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { SERVER_PID, SqlClient } from '../support/sql-client.js';

const servers = await Promise.all([startPostgres({ version: 'embedded' }), startPostgres({ version: 'embedded' })]);
t.teardown(() => Promise.all(servers.map((server) => server.stop())));
await Promise.all(servers.map((server) => prepareShard(server, [KV])));
const catalog = fixedCatalog(evenSpread(2, [KV]));
const router = (t: Test, sizeMax: number): Promise<LiveRouter> =>
  liveRouter(t, servers, { pool: { sizeMax } }, { catalog });

const TIME_OUTS = [
  'statement_timeout',
  'lock_timeout',
  'transaction_timeout',
  'idle_in_transaction_session_timeout',
  'idle_session_timeout',
];

/** One that ends idle sessions ends its own, too. */
const short = (name: string): string => (name === 'idle_session_timeout' ? '1s' : '1ms');

/** So many that reading the text which sets them takes the server longer than the time-out. */
const SETTINGS = 300;
const manySettings = (): string =>
  `SELECT ${Array.from({ length: SETTINGS }, (_, index) => `set_config('app.s${index}', '${'x'.repeat(80)}', false)`).join(', ')}`;

const LANES: readonly (readonly [lane: string, use: (client: SqlClient) => Promise<unknown>])[] = [
  ['leased', (client) => client.run('SELECT count(*) FROM pg_class')],
  ['merged', (client) => client.extended("SELECT value FROM kv WHERE tenant_id = 'a' AND key = $1", ['k'])],
  ['scattered', (client) => client.run('SELECT count(*) FROM kv')],
  [
    'transaction',
    (client) =>
      client.run(
        'BEGIN',
        "INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'k', '1') ON CONFLICT (tenant_id, key) DO UPDATE SET value = '2'",
        'COMMIT',
      ),
  ],
];

for (const name of TIME_OUTS) {
  t.test(`${name} of one session is not felt by the next on its connection`, async (t) => {
    const live = await router(t, 1);
    const hasty = await live.connect();
    const other = await live.connect();
    await other.run(manySettings());
    for (const [lane, use] of LANES) {
      for (let round = 0; round < 5; round++) {
        // Its own statement may be ended by it.
        await hasty.answers(`SET ${name} = '${short(name)}'`);
        await t.resolves(use(other), `${lane}, after ${name}`);
      }
    }
    t.equal(await other.value(`SHOW ${name}`), '0', 'it has not got it');
  });

  t.test(`a session that has set ${name} and is idle keeps no connection`, async (t) => {
    const live = await router(t, 2);
    const hasty = await Promise.all(Array.from({ length: 4 }, () => live.connect()));
    for (const client of hasty) await client.run(`SET ${name} = '${short(name)}'`);
    for (const client of hasty) t.equal(client.status, 'I');
    const other = await live.connect();
    for (let round = 0; round < 10; round++) t.equal(await other.value('SELECT 7'), '7');
    const { pool } = live.router;
    // The question for what is left goes on behind the answer; where it pins, this waits for ever.
    while (pool.idleCount < pool.openCount) await setTimeout(2);
    t.pass('nothing is leased');
  });

  t.test(`${name} holds for the session that has set it`, async (t) => {
    const live = await router(t, 2);
    const [own, other] = [await live.connect(), await live.connect()];
    await own.run(`SET ${name} = '7min'`, 'CREATE TEMP TABLE keeps (a int)');
    await other.run('SELECT 1');
    t.equal(await own.value(`SHOW ${name}`), '7min', 'on a connection that it keeps');
    await own.run('DROP TABLE keeps');
    await other.run('SELECT 1');
    t.equal(await own.value(`SHOW ${name}`), '7min', 'on any');
    await own.run(`RESET ${name}`);
    t.equal(await own.value(`SHOW ${name}`), '0');
    await own.run('BEGIN', `SET ${name} = '9min'`, 'ROLLBACK');
    t.equal(await own.value(`SHOW ${name}`), '0', 'undone with its transaction');
  });
}

t.test('idle_session_timeout does not end a connection that waits for its next session', async (t) => {
  const live = await router(t, 1);
  const [own, other] = [await live.connect(), await live.connect()];
  await own.run("SET idle_session_timeout = '30ms'");
  const pid = await other.value(SERVER_PID);
  await own.run('SELECT 1');
  await setTimeout(100);
  t.equal(await other.value(SERVER_PID), pid);
});

t.test('a statement_timeout ends the statements of its own session', async (t) => {
  const live = await router(t, 1);
  const client = await live.connect();
  await client.run("SET statement_timeout = '50ms'");
  t.equal(await client.fails('SELECT pg_sleep(30)'), '57014');
  t.equal(await client.fails('SELECT pg_sleep(30)'), '57014');
  const other = await live.connect();
  t.equal(await other.value('SELECT count(*) FROM (SELECT pg_sleep(0.2)) s'), '1');
});

t.test('a time-out of the role itself is no setting of the session', async (t) => {
  const live = await router(t, 1);
  const admin = await live.connect();
  for (const server of servers) {
    const direct = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
    await direct.run('CREATE ROLE hasty LOGIN SUPERUSER', "ALTER ROLE hasty SET statement_timeout = '1ms'");
    await direct.end();
  }
  const hasty = await live.connect({ user: 'hasty' });
  for (let round = 0; round < 20; round++) {
    await hasty.answers("SET work_mem = '1MB'");
    t.equal(await admin.value('SELECT 7'), '7', 'others get the connection');
  }
});
