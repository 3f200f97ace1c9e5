// Servers that are restarted, killed from within, or not there yet: sessions without state go on, those with state hear
// of it in words, and the pool recovers by itself.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { eventually } from '../support/bystander.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { stretched } from '../support/machine-speed.js';
import { findPostgres, serverAccount } from '../support/postgres-binaries.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { errorOf, type ServerError, SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const loginTo = (server: PostgresServer) => ({ user: server.superuser, database: 'postgres' });
const connectTo = (server: PostgresServer) => SqlClient.connect(server, loginTo(server));

async function pgCtl(server: PostgresServer, ...args: readonly string[]): Promise<void> {
  const program = join(findPostgres('15')!.binDir, 'pg_ctl');
  const child = spawn(program, ['-D', server.dataDir, '-w', ...args], {
    ...serverAccount(),
    cwd: server.dataDir,
    stdio: 'ignore',
    env: { ...process.env, LC_ALL: 'C' },
  });
  const [status] = await once(child, 'exit');
  if (status !== 0) throw new Error(`pg_ctl ${args.join(' ')} failed: ${status}`);
}

/** The error of the answer that is under way, or of the end of the connection. */
async function failureOf(client: SqlClient): Promise<ServerError | null> {
  const { messages, outcome } = await client.wire.wait(1);
  t.not(outcome, 'timeout', 'there is a definite answer');
  return errorOf(messages);
}

/** Asks until it works: the pool may have to find out first that its connections are gone. */
async function recovers(t: Test, live: LiveRouter): Promise<void> {
  await eventually(t, 'new clients are served', async () => {
    try {
      const client = await live.connect();
      await client.value('SELECT 1');
      await client.end();
      return true;
    } catch {
      return false;
    }
  });
}

for (const mode of ['fast', 'immediate'] as const) {
  t.test(`the server is restarted: pg_ctl restart -m ${mode}`, async (t) => {
    const server = await startPostgres({ version: '15' });
    let restarted = false;
    t.teardown(async () => {
      // pg_ctl's server is not the one that startPostgres knows.
      if (restarted) await pgCtl(server, 'stop', '-m', 'immediate');
      await server.stop();
    });
    const live = await liveRouter(t, [server], { pool: { sizeMax: 8 } });
    const setup = await live.connect();
    await setup.run('CREATE TABLE written (id int)');
    await setup.end();
    const clients = await Promise.all(Array.from({ length: 7 }, () => live.connect()));
    const [idle, withSettings, withStatement, inTransaction, inFailed, pinned, active] = clients as [
      SqlClient,
      SqlClient,
      SqlClient,
      SqlClient,
      SqlClient,
      SqlClient,
      SqlClient,
    ];
    await idle.value('SELECT 1');
    await withSettings.run(`SET work_mem = '7MB'`);
    await withStatement.send([{ parse: 'SELECT $1::int4 + 1', name: 'plus' }, 'sync']);
    await inTransaction.run('BEGIN', 'INSERT INTO written VALUES (1)');
    await inFailed.run('BEGIN', 'INSERT INTO written VALUES (2)');
    await inFailed.fails('SELECT 1/0');
    await pinned.run('CREATE TEMP TABLE mine (a int)');
    active.wire.send({ query: 'INSERT INTO written SELECT 3 FROM (SELECT pg_sleep(30)) wait' });
    const direct = await connectTo(server);
    await eventually(t, 'the write runs', async () => {
      const sql = `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT%pg_sleep(30)%'`;
      return (await direct.value(sql)) === '1';
    });
    direct.wire.destroy();

    await pgCtl(server, 'restart', '-m', mode);
    restarted = true;
    const activeError = await failureOf(active);
    t.match(activeError?.code, mode === 'fast' ? /^57P01$/ : /^08007$/, 'in flight');

    await eventually(t, 'the pool has noticed', () => [...live.router.pool.connections()].length === 0);
    t.equal(await idle.value('SELECT 1'), '1', 'an idle session goes on');
    t.equal(await withSettings.value('SHOW work_mem'), '7MB', 'with its settings');
    const answers = await withStatement.send([{ bind: ['41'], statement: 'plus' }, { execute: '' }, 'sync']);
    t.match(answers, [
      { type: 'BindComplete' },
      { type: 'DataRow' },
      { type: 'CommandComplete' },
      { type: 'ReadyForQuery' },
    ]);

    for (const [client, name] of [
      [inTransaction, 'open'],
      [inFailed, 'failed'],
    ] as const) {
      client.wire.send({ query: 'COMMIT' });
      const error = await failureOf(client);
      // The server's own farewell ends the session, as there; without one the transaction is reported lost.
      if (client.wire.closed) t.equal(error?.code, '57P01', `${name} transaction`);
      else
        t.match(error?.code ?? 'ROLLBACK', name === 'open' ? /^40001$/ : /^(40001|ROLLBACK)$/, `${name} transaction`);
    }
    pinned.wire.send({ query: 'SELECT * FROM mine' });
    t.match((await failureOf(pinned))?.code, /^(57P01|0800[67])$/, 'the session with a temporary table');
    await eventually(t, 'it is closed', () => pinned.wire.closed);

    await recovers(t, live);
    t.equal(await idle.value('SELECT count(*) FROM written'), '0', 'nothing of what was lost was written');
    for (const client of clients) client.wire.destroy();
    await live.quiet();
  });
}

t.test('pooled connections are terminated by an administrator', async (t) => {
  const server = await startPostgres({ version: '15' });
  t.teardown(() => server.stop());
  const live = await liveRouter(t, [server], { pool: { sizeMax: 3 } });
  const direct = await connectTo(server);
  const terminate = (where: string) =>
    direct.run(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = 'postgres' AND ${where}`);
  const client = await live.connect();
  for (let round = 0; round < 20; round++) {
    t.equal(await client.value('SELECT 1'), '1');
    const before = [...live.router.pool.connections()];
    await terminate(`state = 'idle'`);
    await eventually(t, 'they are gone from the pool', () =>
      before.every((connection) => ![...live.router.pool.connections()].includes(connection)),
    );
  }
  t.equal(await client.value('SELECT 1'), '1', 'an idle one is replaced without a word');

  const active = await live.connect();
  active.wire.send({ query: 'SELECT pg_sleep(30)' });
  await eventually(t, 'it runs', async () => {
    await terminate(`query LIKE '%pg_sleep(30)%'`);
    return active.wire.closed || active.wire.received.some(({ type }) => type === 'ErrorResponse');
  });
  t.equal((await failureOf(active))?.code, '57P01', "the server's own words");
  t.ok(active.wire.closed);
  t.equal(await client.value('SELECT 1'), '1', 'the other session is not touched');
  await client.end();
  await direct.end();
  await live.quiet();
});

t.test('a server that is down when the router starts, comes up, goes down and comes up again', async (t) => {
  const server = await startPostgres({ version: '15' });
  t.teardown(() => server.stop());
  const proxy = await FaultProxy.start(server, 'postgres');
  t.teardown(() => proxy.down());
  await proxy.down();
  const live = await liveRouter(t, [proxy.standInFor(server)], { servers: { connectTimeoutMs: 500 } });
  const refused = async (): Promise<void> => {
    const began = performance.now();
    const wire = await WireClient.open(live);
    const { messages, outcome } = await wire.startUp(loginTo(server));
    wire.destroy();
    t.equal(outcome, 'closed');
    t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '08006', D: /127.0.0.1/ });
    const elapsed = performance.now() - began;
    t.ok(elapsed < (await stretched(2_000)), 'at once');
  };
  await refused();
  await proxy.up();
  const client = await live.connect();
  t.equal(await client.value('SELECT 1'), '1');
  await proxy.down();
  await eventually(t, 'the pool has noticed', () => live.router.pool.openCount === 0);
  t.equal(await client.fails('SELECT 1'), '08006', 'a session that is there is told, and stays');
  await refused();
  await proxy.up();
  t.equal(await client.value('SELECT 1'), '1');
  await client.end();
});
