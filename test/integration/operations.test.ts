// What an operator sees: health endpoints, status, drain, and the limits that keep a router standing.
import { once } from 'node:events';
import { connect as connectSocket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { encodeStartup } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter, routerSettings } from '../support/live-router.js';
import { stretched } from '../support/machine-speed.js';
import { freePort, type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { errorOf, rowsOf, SERVER_PID, SqlClient } from '../support/sql-client.js';
import { PROTOCOL_3_0, WireClient } from '../support/wire-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());

const HTTP = { disabled: false, port: 0 } as const;

async function get(live: LiveRouter, path: string): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await fetch(`http://127.0.0.1:${live.router.httpPort}${path}`, { headers: { connection: 'close' } });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

/** What /ready says beside being ready, once it is as wanted: shards are asked every two seconds. */
async function reasonsBecome(live: LiveRouter, wanted: (reasons: string[]) => boolean): Promise<string[]> {
  for (;;) {
    const answer = await get(live, '/ready');
    if (answer.status !== 200) throw new Error(`/ready is ${answer.status}: ${JSON.stringify(answer.body)}`);
    const reasons = answer.body['reasons'] as string[];
    if (wanted(reasons)) return reasons;
    await sleep(20);
  }
}

const errorAfter = async (wire: WireClient, timeoutMs = 5_000) => {
  const { messages, outcome } = await wire.wait('closed', timeoutMs);
  if (outcome !== 'reached') throw new Error('the connection was not closed');
  return errorOf(messages);
};

t.test('/live and /ready', async (t) => {
  const second = await startPostgres({ version: '15' });
  t.teardown(() => second.stop());
  const live = await liveRouter(t, [server, second], { http: HTTP });
  t.strictSame(await get(live, '/live'), { status: 200, body: { status: 'live' } });
  await reasonsBecome(live, (reasons) => reasons.length === 0);
  const client = await live.connect();
  const healthy = async () => {
    const status = JSON.parse((await client.value('show pgkv.status'))!) as { shards: { healthy: boolean }[] };
    return status.shards.map((shard) => shard.healthy);
  };
  t.strictSame(await healthy(), [true, true]);

  await second.stop();
  // The router itself is sound, and serves what the other shard has.
  const down = await reasonsBecome(live, (reasons) => reasons.length > 0);
  t.match(down, [/^shard s2: node 127\.0\.0\.1:\d+/], 'names the shard and its node');
  t.strictSame(await healthy(), [true, false]);
  const metrics = await (await fetch(`http://127.0.0.1:${live.router.httpPort}/metrics`)).text();
  t.match(metrics, /pgkv_shard_state\{shard="s1",state="answers"\} 1/);
  t.match(metrics, /pgkv_shard_state\{shard="s2",state="unreachable"\} 1/);
  t.equal((await get(live, '/live')).status, 200, 'the process is sound');
  t.equal(await client.value('select 1'), '1', 'the other shard serves');
  t.equal((await get(live, '/nothing')).status, 404);
  await client.end();
});

t.test('a home shard that is down at start', async (t) => {
  const port = await freePort();
  const absent = { ...server, port } as PostgresServer;
  const live = await liveRouter(t, [absent], { http: HTTP });
  t.match(
    await reasonsBecome(live, (reasons) => /refused/i.test(reasons[0] ?? '')),
    [/^shard s1: /],
    'ready all the same',
  );
  await t.rejects(live.connect(), /08006/);
  const late = await startPostgres({ version: '15', parameters: { port: String(port) } });
  t.teardown(() => late.stop());
  await reasonsBecome(live, (reasons) => reasons.length === 0);
  const client = await live.connect();
  t.equal(await client.value('select 1'), '1', 'served as soon as it is there');
  await late.stop();
  t.equal(await client.fails('select 2'), '08006', 'nothing was sent');
  t.equal(client.status, 'I', 'the session lives on');
  await client.end();
});

const NOBODY = { roles: ['nobody'], databases: ['all'], hosts: ['all'], refuse: false, superusers: false };

t.test('SHOW pgkv.status is for the roles of admin.roles, which can change while it runs', async (t) => {
  const live = await liveRouter(t, [server], { admin: { roles: ['somebody'] } });
  const client = await live.connect();
  const refused = await client.failsWith('SHOW pgkv.status');
  t.equal(refused.code, '42501');
  t.match(refused.message, /admin\.roles/);
  t.equal(await client.value('SHOW pgkv.version'), '0.0.0-test', 'the version is no secret');
  const settings = routerSettings([server]);
  live.router.reload({
    ...settings,
    admin: { roles: [server.superuser] },
    auth: { ...settings.auth, allow: [NOBODY] },
  });
  t.match(await client.value('SHOW pgkv.status'), /"epoch"/);
  t.match(
    await live.connect().then(() => 'in', String),
    /no entry of auth\.allow/,
    'the list for those who come is another one',
  );
  live.router.reload(settings);
  await (await live.connect()).end();
  await client.end();
  await live.quiet();
});

t.test('SHOW pgkv.status and pgkv.version', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 }, http: HTTP });
  await reasonsBecome(live, (reasons) => reasons.length === 0);
  const client = await live.connect();
  const status = JSON.parse((await client.value('SHOW pgkv.status'))!);
  t.strictSame(status, {
    epoch: 1,
    version: '0.0.0-test',
    tables: [],
    shards: [
      {
        id: 0,
        name: 's1',
        primary: { host: server.host, port: server.port },
        replicas: [],
        slots: [[0, 16383]],
        healthy: true,
      },
    ],
  });
  const messages = await client.answers('show pgkv.version');
  t.strictSame(
    messages.map((message) => message.type),
    ['RowDescription', 'DataRow', 'CommandComplete', 'ReadyForQuery'],
  );
  t.strictSame(rowsOf(messages), [['0.0.0-test']]);
  t.equal(await client.fails('show pgkv.nothing'), '42704');
  const holder = await live.connect();
  await holder.run('begin', 'select 1');
  t.equal(await client.value('show pgkv.version'), '0.0.0-test', 'needs no server connection');
  await holder.run('commit');
  await holder.end();
  await client.end();
});

/** Metrics by name, `{…}` included. */
async function metricsOf(live: LiveRouter): Promise<Map<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${live.router.httpPort}/metrics`)).text();
  return new Map([...text.matchAll(/^(pgkv_\S+) (\S+)$/gm)].map(([, name, value]) => [name!, Number(value)]));
}

t.test('/metrics counts what was done', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1, queueMax: 1 }, http: HTTP });
  const a = await live.connect();
  const before = await metricsOf(live);
  const grown = async () => {
    const now = await metricsOf(live);
    return (name: string) => now.get(`pgkv_${name}`)! - before.get(`pgkv_${name}`)!;
  };
  t.equal(before.get('pgkv_waits_started_total'), 0, 'a connection was opened, nobody waited');
  await a.run('select 1', 'begin', 'select 2', 'commit');
  await a.extended('select 3');
  t.equal(await a.fails('select 1 / 0'), '22012');
  t.equal(await a.fails('show pgkv.nothing'), '42704');
  const first = await grown();
  t.equal(first('transactions_total'), 5, 'one block, four single statements');
  t.equal(first('leases_granted_total'), 5);
  t.equal(first('waits_started_total'), 0);
  t.equal(first('errors_total{origin="server",sqlstate_class="22"}'), 1);
  t.equal(first('errors_total{origin="pgkv",sqlstate_class="22"}'), 0);
  t.ok(first('client_bytes_out_total') > 50 && first('client_bytes_out_total') < 5_000);
  t.ok(first('server_bytes_in_total') > 50 && first('server_bytes_in_total') < 20_000);
  t.ok(first('server_bytes_out_total') > 50 && first('server_bytes_out_total') < 20_000);

  const [b, c] = [await live.connect(), await live.connect()];
  await a.run('begin', 'select 1');
  const waiting = b.value('select 4');
  await sleep(50);
  t.equal(await c.fails('select 5'), '53300', 'there is a place for one to wait');
  await a.run('commit');
  t.equal(await waiting, '4');
  const second = await grown();
  t.equal(second('waits_started_total'), 1);
  t.equal(second('waits_refused_total'), 1);
  t.equal(second('errors_total{origin="pgkv",sqlstate_class="53"}'), 1);
  t.equal(second('server_connections_destroyed_total'), 0);

  const bytesOut = second('client_bytes_out_total');
  await b.end();
  await c.end();
  await a.run('select pg_advisory_lock(7)');
  a.wire.destroy();
  await retried(async () => {
    if ((await grown())('server_connections_destroyed_total') !== 1) throw new Error('not seen yet');
  });
  const last = await grown();
  t.ok(last('client_bytes_out_total') > bytesOut, 'those of clients that are gone stay counted');
  t.ok(last('server_bytes_in_total') > second('server_bytes_in_total'));
});

t.test('/metrics counts what is there', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 }, http: HTTP });
  const [a, b] = [await live.connect(), await live.connect()];
  await a.run('begin', 'select 1');
  await b.run('listen x');
  await sleep(50);
  const text = await (await fetch(`http://127.0.0.1:${live.router.httpPort}/metrics`)).text();
  const value = (name: RegExp) => new RegExp(`^(pgkv_\\w*${name.source}\\w*)(?:{[^}]*})? (\\S+)$`, 'm').exec(text)?.[2];
  t.equal(value(/clients_connected/), '2');
  t.equal(value(/sessions_pinned/), '1');
  t.equal(value(/server_connections/), '2');
  await a.run('commit');
  await a.end();
  await b.end();
});

t.test('drain lets open transactions end', async (t) => {
  const live = await liveRouter(t, [server], { http: HTTP, drain: { timeoutMs: 10_000 } });
  const address = { host: live.host, port: live.port };
  const [busy, idle, pinned] = [await live.connect(), await live.connect(), await live.connect()];
  await busy.run('create table drained (x int)', 'begin', 'insert into drained values (1)');
  await pinned.run('select pg_advisory_lock(1)');
  const starting = await WireClient.open(address);
  const half = await WireClient.open(address);
  half.sendBytes(encodeStartup(PROTOCOL_3_0, { user: 'postgres', database: 'postgres' }).subarray(0, 10));
  const running = live.connect().then((client) => client.value(`select 'done' from pg_sleep(0.6)`));
  await sleep(150);

  const drained = live.router.drain();
  for (const [name, client] of [
    ['idle', idle],
    ['pinned, but idle', pinned],
  ] as const) {
    const error = await errorAfter(client.wire);
    t.equal(error?.code, '57P01', name);
    t.equal(error?.fields['S'], 'FATAL');
  }
  t.equal((await errorAfter(starting))?.code, '57P01', 'not yet logged in');
  t.equal((await errorAfter(half))?.code, '57P01', 'in the middle of its start-up packet');
  const late = connectSocket(address);
  const outcome = await Promise.race([
    once(late, 'error').then(([error]) => (error as NodeJS.ErrnoException).code),
    once(late, 'data').then(([bytes]) => (bytes as Buffer).toString('latin1')),
  ]);
  late.destroy();
  t.match(outcome, /ECONNREFUSED|57P01/, 'new clients are turned away');
  t.equal((await readinessNow(live)).status, 503);
  t.match((await readinessNow(live)).body['reasons'], [/draining/]);
  t.equal(await running, 'done', 'a statement under way is answered');

  t.strictSame(await busy.run('insert into drained values (2)'), ['INSERT 0 1'], 'the transaction goes on');
  t.strictSame(await busy.run('commit'), ['COMMIT']);
  t.equal((await errorAfter(busy.wire))?.code, '57P01', 'and ends the session');
  await drained;
  const direct = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
  t.equal(await direct.value('select count(*) from drained'), '2');
  await direct.end();
});

const readinessNow = (live: LiveRouter) => get(live, '/ready');

t.test('drain cuts what has not ended in time', async (t) => {
  const live = await liveRouter(t, [server], { drain: { timeoutMs: 400 } });
  const busy = await live.connect();
  await busy.run('create table cut (x int)', 'begin', 'insert into cut values (1)');
  const start = performance.now();
  await live.router.drain();
  const elapsed = performance.now() - start;
  t.ok(elapsed >= 390 && elapsed < (await stretched(2_500)), `${Math.round(elapsed)} ms`);
  t.equal((await errorAfter(busy.wire, 2_000))?.code, '57P01');
  t.strictSame(live.logged('warn'), [{ sessions: 1, msg: 'sessions were cut' }]);
  const direct = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
  t.equal(await direct.value('select count(*) from cut'), '0', 'its work is undone');
  await direct.end();
});

t.test('a stop during a drain ends at once', async (t) => {
  const live = await liveRouter(t, [server], { drain: { timeoutMs: 60_000 } });
  const busy = await live.connect();
  await busy.run('begin', 'select 1');
  const drained = live.router.drain();
  await sleep(100);
  t.notOk(busy.wire.closed);
  const start = performance.now();
  await live.router.stop();
  t.equal((await errorAfter(busy.wire, 2_000))?.code, '57P01');
  t.strictSame(live.logged('warn'), [{ sessions: 1, msg: 'sessions were cut' }]);
  await drained;
  const elapsed = performance.now() - start;
  t.ok(elapsed < (await stretched(2_000)), 'the drain is over, too');
});

t.test('who is cut is told so, unless a message was on its way', async (t) => {
  const live = await liveRouter(t, [server]);
  const [running, reading] = [await live.connect(), await live.connect()];
  running.wire.send({ query: 'select pg_sleep(60)' });
  // A row of 40 MB, of which nobody reads more than the first bytes.
  reading.wire.socket.pause();
  reading.wire.send({ query: `select repeat('x', 40000000)` });
  await sleep(200);
  const isMidRow = (): boolean =>
    [...live.router.listener.connections].some(
      ({ conversation }) => conversation?.lane.connection?.midMessage === true,
    );
  for (let tries = 0; tries < 200 && !isMidRow(); tries++) await sleep(50);
  await sleep(500);
  const start = performance.now();
  await live.router.stop();
  t.equal((await errorAfter(running.wire))?.code, '57P01', 'in the middle of a statement');
  let tail = '';
  reading.wire.socket.on('data', (chunk: Buffer) => {
    tail = chunk.subarray(-20).toString('latin1');
  });
  reading.wire.socket.resume();
  t.equal((await reading.wire.wait('closed', 3_000)).outcome, 'reached');
  t.match(tail, /^x+$/, 'in the middle of a row');
  const elapsed = performance.now() - start;
  t.ok(elapsed < (await stretched(2_000)), 'and nobody holds it up');
});

t.test('failed logins are in the log, with what the client is not told', async (t) => {
  const live = await liveRouter(t, [server]);
  await t.rejects(live.connect({ database: 'not_there' }), /3D000/);
  t.strictSame(
    live.logged('info').filter(({ msg }) => msg === 'login failed'),
    [
      {
        role: server.superuser,
        address: '127.0.0.1',
        sqlstate: '3D000',
        reason: 'database "not_there" does not exist',
        msg: 'login failed',
      },
    ],
  );
  t.equal(live.router.counters.loginsFailed, 1);
});

t.test('a pool that does not fit into its server keeps it from starting, in one process, too', async (t) => {
  await t.rejects(liveRouter(t, [server], { pool: { sizeMax: 500 } }), {
    name: 'ConnectionsError',
    message:
      'shard s1: the connections of pgkv do not fit: (pool.size_max 500 + 4) x workers 1 + reserved 3 = 507, max_connections = 60',
    hint: /Lower workers or pool\.size_max/,
  });
  const port = await freePort();
  const absent = { ...server, port } as PostgresServer;
  const live = await liveRouter(t, [server, absent], { pool: { sizeMax: 40 } });
  t.match(live.logged('warn'), [{ shard: 's2', msg: /could not be asked whether the connections/ }]);
  const late = await startPostgres({ version: '15', parameters: { port: String(port), max_connections: '30' } });
  t.teardown(() => late.stop());
  while (!live.logged('error').some(({ msg }) => /^shard s2: the connections of pgkv do not fit/.test(`${msg}`))) {
    await sleep(50);
  }
});

t.test('clients.connections_max', async (t) => {
  const live = await liveRouter(t, [server], { clients: { connectionsMax: 2 } });
  const [first, second] = [await live.connect(), await live.connect()];
  const third = await WireClient.open({ host: live.host, port: live.port });
  third.sendBytes(encodeStartup(PROTOCOL_3_0, { user: 'postgres', database: 'postgres' }));
  const error = await errorAfter(third);
  t.equal(error?.code, '53300');
  t.equal(error?.fields['S'], 'FATAL');
  t.match(error?.fields['D'], /clients\.connections_max/);
  t.equal(await first.value('select 1'), '1', 'the others are not touched');
  await second.end();
  const again = await retried(() => live.connect());
  t.equal(await again.value('select 1'), '1', 'there is room again');
  await first.end();
  await again.end();
});

t.test('clients.startup_pending_max and startup_timeout_ms', async (t) => {
  const live = await liveRouter(t, [server], { clients: { startupPendingMax: 3, startupTimeoutMs: 500 } });
  const address = { host: live.host, port: live.port };
  const steady = await live.connect();
  const silent = await Promise.all(Array.from({ length: 3 }, () => WireClient.open(address)));
  await sleep(30);
  const refused = await errorAfter(await WireClient.open(address));
  t.equal(refused?.code, '53300');
  t.match(refused?.fields['D'], /clients\.startup_pending_max/);
  t.equal(await steady.value('select 1'), '1');
  for (const wire of silent) {
    const error = await errorAfter(wire);
    t.equal(error?.code, '08P01');
    t.match(error?.fields['H'], /startup_timeout_ms/);
  }
  const dripping = await WireClient.open(address);
  const bytes = encodeStartup(PROTOCOL_3_0, { user: 'postgres', database: 'postgres' });
  const end = performance.now() + 1_500;
  for (let index = 0; index < bytes.length && !dripping.closed && performance.now() < end; index++) {
    dripping.sendBytes(bytes.subarray(index, index + 1));
    await sleep(60);
  }
  t.equal((await errorAfter(dripping))?.code, '08P01', 'a byte now and then does not prolong it');
  t.equal(live.router.counters.startupsPending, 0);
  await steady.end();
});

t.test('clients.idle_timeout_ms', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 }, clients: { idleTimeoutMs: 500 } });
  const [idle, pinned, inTransaction, busy, active] = await Promise.all(
    Array.from({ length: 5 }, (_, index) => (index === 0 ? live.connect() : sleep(100).then(() => live.connect()))),
  );
  await pinned!.run('listen x');
  await inTransaction!.run('begin', 'select 1');
  busy!.wire.destroy();
  const keepActive = (async () => {
    for (let round = 0; round < 8; round++) {
      await active!.value('show pgkv.version');
      await sleep(150);
    }
  })();
  for (const client of [idle!, pinned!]) {
    const error = await errorAfter(client.wire);
    t.equal(error?.code, '57P05');
    t.equal(error?.fields['S'], 'FATAL');
  }
  await keepActive;
  t.equal(await active!.value('select 1'), '1', 'one that talks stays');
  t.strictSame(await inTransaction!.run('commit'), ['COMMIT'], 'inside a transaction another limit holds');
  const long = await live.connect();
  t.equal(await long.value(`select 'done' from pg_sleep(1.2)`), 'done', 'waiting for an answer is not idling');
  await long.end();
});

t.test('pool.idle_timeout_ms and lifetime_max_ms', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2, idleTimeoutMs: 300, lifetimeMaxMs: 1_500 } });
  const client = await live.connect();
  const pid = () => client.value(SERVER_PID);
  const first = await pid();
  t.equal(await pid(), first, 'used again');
  await sleep(1_000);
  t.equal(live.router.pool.openCount, 0, 'an unused connection is closed');
  const second = await pid();
  t.not(second, first);
  const end = performance.now() + 4_000;
  let last = second;
  while (last === second && performance.now() < end) {
    await sleep(100);
    last = await pid();
  }
  t.not(last, second, 'one in use is replaced at the end of its life');
  await client.end();
});

/** Runs `attempt` until it succeeds: a connection that ends is gone a moment later. */
async function retried<Result>(attempt: () => Promise<Result>): Promise<Result> {
  for (let round = 0; ; round++) {
    try {
      return await attempt();
    } catch (error) {
      if (round === 50) throw error;
      await sleep(10);
    }
  }
}
