// A client that goes away without a goodbye, by FIN or by RST, in every state a session can be in: nothing of it stays
// in the router or on the server, what it had not committed is undone, what it had left running is finished.
import type { Socket } from 'node:net';
import t, { type Test } from 'tap';
import { Bystander, eventually, reset, serverAtRest } from '../support/bystander.js';
import { encodeAll, encodeStartup, type FrontendMessage } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import { PROTOCOL_3_0, WireClient } from '../support/wire-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
const LOGIN = { user: server.superuser, database: 'postgres' };
const direct = await SqlClient.connect(server, LOGIN);
t.teardown(() => direct.end());
await direct.run('CREATE TABLE written (who text, n int)');

const VANISHES = {
  FIN: (socket: Socket) => socket.end(),
  RST: reset,
} as const;
type Way = keyof typeof VANISHES;

interface Victim {
  /** Also the name under which it writes. */
  readonly who: string;
  readonly client: SqlClient;
  readonly live: LiveRouter;
}

interface State {
  readonly name: string;
  /** Brings the victim to the moment it vanishes. */
  readonly reach: (victim: Victim) => Promise<unknown>;
  /** Rows of it that must be there afterwards; by default none may be. */
  readonly rows?: number;
  /** For RST, where that differs: the kernel throws away what was not read yet. */
  readonly rowsAtReset?: { readonly atMost: number };
}

const insert = (who: string): string => `INSERT INTO written VALUES ('${who}', 1)`;
const insertBatch = (who: string): readonly FrontendMessage[] => [
  { parse: 'INSERT INTO written VALUES ($1, 1)', types: [25] },
  { bind: [who] },
  { execute: '' },
];
const sent = async (client: SqlClient, messages: readonly FrontendMessage[]): Promise<void> =>
  client.wire.send(...messages);

const STATES: readonly State[] = [
  { name: 'idle', reach: ({ client }) => client.run('SELECT 1') },
  {
    name: 'half a Query',
    reach: ({ client, who }) => sentRaw(client, encodeAll([{ query: insert(who) }]).subarray(0, -1)),
  },
  { name: 'half a header', reach: ({ client }) => sentRaw(client, Buffer.from('51000000', 'hex')) },
  {
    name: 'an autocommit write in flight',
    reach: async ({ client, who }) => {
      await sent(client, [{ query: `${insert(who)}; SELECT pg_sleep(0.2)` }]);
      await running(who);
    },
    rows: 1,
  },
  {
    name: 'an extended write in flight',
    reach: async ({ client, who }) => {
      const sql = `INSERT INTO written SELECT $1, 1 FROM (SELECT pg_sleep(0.2)) wait /* '${who}' */`;
      await sent(client, [{ parse: sql, types: [25] }, { bind: [who] }, { execute: '' }, 'sync']);
      await running(who);
    },
    rows: 1,
  },
  {
    name: '40 writes sent in one go',
    reach: ({ client, who }) =>
      sent(
        client,
        Array.from({ length: 40 }, () => ({ query: insert(who) })),
      ),
    rows: 40,
    rowsAtReset: { atMost: 40 },
  },
  { name: 'a transaction', reach: ({ client, who }) => client.run('BEGIN', insert(who)) },
  {
    name: 'a transaction whose write runs',
    reach: async ({ client, who }) => {
      await client.run('BEGIN');
      await sent(client, [{ query: `${insert(who)}; SELECT pg_sleep(0.2)` }]);
      await running(who);
    },
  },
  {
    name: 'a failed transaction',
    reach: async ({ client, who }) => {
      await client.run('BEGIN', insert(who));
      t.equal(await client.fails('SELECT 1/0'), '22012');
    },
  },
  { name: 'a savepoint', reach: ({ client, who }) => client.run('BEGIN', 'SAVEPOINT s', insert(who)) },
  {
    name: 'a big result it does not read',
    reach: async ({ client }) => {
      client.wire.socket.pause();
      await sent(client, [{ query: "SELECT repeat('x', 1000) FROM generate_series(1, 100000)" }]);
      await running('generate_series');
    },
  },
  {
    name: 'COPY in, rows sent',
    reach: async ({ client, who }) => {
      await client.send([{ query: 'COPY written FROM STDIN' }], { type: 'CopyInResponse' });
      await sent(client, [{ copyData: `${who}\t1\n` }]);
    },
  },
  {
    name: 'COPY in, half a message sent',
    reach: async ({ client, who }) => {
      await client.send([{ query: 'COPY written FROM STDIN' }], { type: 'CopyInResponse' });
      await sentRaw(client, encodeAll([{ copyData: `${who}\t1\n`.repeat(100) }]).subarray(0, -7));
    },
  },
  {
    name: 'COPY in, asked for and not yet answered',
    reach: ({ client }) => sent(client, [{ query: 'COPY written FROM STDIN' }]),
  },
  {
    name: 'a whole COPY sent in one go',
    reach: ({ client, who }) =>
      sent(client, [{ query: 'COPY written FROM STDIN' }, { copyData: `${who}\t1\n` }, 'copyDone']),
    rows: 1,
    rowsAtReset: { atMost: 1 },
  },
  {
    name: 'COPY in by the extended protocol',
    reach: async ({ client, who }) => {
      const messages: FrontendMessage[] = [{ parse: 'COPY written FROM STDIN' }, { bind: [] }, { execute: '' }, 'sync'];
      await client.send(messages, { type: 'CopyInResponse' });
      await sent(client, [{ copyData: `${who}\t1\n` }]);
    },
  },
  {
    name: 'COPY out it does not read',
    reach: async ({ client }) => {
      client.wire.socket.pause();
      await sent(client, [{ query: "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT" }]);
      await running('generate_series');
    },
  },
  { name: 'a batch without Sync, unanswered', reach: ({ client, who }) => sent(client, insertBatch(who)) },
  {
    name: 'a batch without Sync, answered',
    reach: ({ client, who }) => client.send([...insertBatch(who), 'flush'], { type: 'CommandComplete' }),
  },
  { name: 'Parse without Sync', reach: ({ client }) => sent(client, [{ parse: 'SELECT 1' }]) },
  {
    name: 'Parse and Flush without Sync',
    reach: ({ client }) => client.send([{ parse: 'SELECT 1', name: 's' }, 'flush'], { type: 'ParseComplete' }),
  },
  {
    name: 'a portal half read',
    reach: ({ client, who }) =>
      client.send(
        [
          ...insertBatch(who),
          { parse: 'SELECT * FROM generate_series(1, 9)' },
          { bind: [] },
          { execute: '', rows: 2 },
          'flush',
        ],
        { type: 'PortalSuspended' },
      ),
  },
  {
    name: 'an error before Sync',
    reach: ({ client }) => client.send([{ parse: 'SELEC' }, 'flush'], { type: 'ErrorResponse' }),
  },
  { name: 'a temporary table', reach: ({ client }) => client.run('CREATE TEMP TABLE mine (a int)') },
  {
    name: 'a temporary table inside a transaction',
    reach: ({ client, who }) => client.run('BEGIN', 'CREATE TEMP TABLE mine (a int)', insert(who)),
  },
  { name: 'an advisory lock', reach: ({ client }) => client.run('SELECT pg_advisory_lock(4711)') },
  { name: 'LISTEN', reach: ({ client }) => client.run('LISTEN here') },
  {
    name: 'a cursor WITH HOLD',
    reach: ({ client }) => client.run('BEGIN', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'COMMIT'),
  },
  { name: 'changed settings', reach: ({ client }) => client.run(`SET work_mem = '7MB'`, `SET app.who = 'me'`) },
  {
    name: 'a lock somebody waits for',
    reach: async ({ client, live, who }) => {
      await client.run('BEGIN', insert(who), 'LOCK TABLE written IN ACCESS EXCLUSIVE MODE');
      const waiter = await live.connect();
      waiter.wire.send({ query: 'SELECT count(*) FROM written' });
      await running('count(*) FROM written');
      released.push(waiter);
    },
  },
];
/** Clients that must get their answer once the victim is gone. */
const released: SqlClient[] = [];

async function sentRaw(client: SqlClient, bytes: Buffer): Promise<void> {
  client.wire.sendBytes(bytes);
}

/** Waits until the server runs a statement that contains `text`. */
async function running(text: string): Promise<void> {
  const sql = `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%' || $1 || '%'`;
  for (let attempt = 0; attempt < 1_000; attempt++) {
    const [row] = await direct.extended(sql, [text]);
    if (row![0] !== '0') return;
  }
  throw new Error(`the server never ran ${text}`);
}

const rowsOf = async (who: string): Promise<number> =>
  Number((await direct.extended('SELECT count(*) FROM written WHERE who = $1', [who]))[0]![0]);

for (const way of Object.keys(VANISHES) as Way[]) {
  t.test(`${way} in every state of a session`, async (t) => {
    const live = await liveRouter(t, [server], { pool: { sizeMax: 3 } });
    const bystander = await Bystander.start(live);
    for (const [index, { name, reach, rows = 0, rowsAtReset }] of STATES.entries()) {
      const who = `${way} ${index}`;
      const client = await live.connect();
      await reach({ who, client, live });
      const socket = client.wire.socket as Socket;
      VANISHES[way](socket);
      // A half-closed socket is told nothing more unless it reads; the process behind it is gone.
      if (way === 'FIN') setTimeout(() => socket.destroy(), 50);
      await onlyTheBystanderIsLeft(t, live, name);
      await nothingRuns(t, name);
      if (way === 'RST' && rowsAtReset !== undefined) t.ok((await rowsOf(who)) <= rowsAtReset.atMost, name);
      else t.equal(await rowsOf(who), rows, `${name}: rows`);
      for (const waiter of released.splice(0)) {
        const { messages, outcome } = await waiter.wire.wait(1);
        t.same([outcome, errorOf(messages)], ['reached', null], `${name}: who waited for it goes on`);
        await waiter.end();
      }
    }
    await bystander.stop(t);
    await live.quiet();
    await serverAtRest(t, server, { direct });
    t.ok(live.router.pool.openCount <= 3);
    const next = await live.connect();
    t.equal(await next.value('SHOW work_mem'), await direct.value('SHOW work_mem'), 'its settings are gone');
    t.equal(await next.value("SELECT count(*) FROM pg_class WHERE relpersistence = 't'"), '0', 'its tables too');
    await next.end();
  });
}

/** What the victim had begun has come to its end on the server, one way or the other. */
async function nothingRuns(t: Test, name: string): Promise<void> {
  const sql = `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle'
     AND pid <> pg_backend_pid() AND query !~ '^SELECT ([0-9]+|.1::int4)$'`;
  await eventually(
    t,
    `${name}: nothing runs on the server`,
    async () => Number(await direct.value(sql)) <= released.length,
  );
}

async function onlyTheBystanderIsLeft(t: Test, live: LiveRouter, name: string): Promise<void> {
  const { pool, listener, counters } = live.router;
  const others = released.length;
  const left = () => ({
    clients: listener.connections.size - 1 - others,
    // The bystander has a lease now and then.
    leases: Math.max(0, pool.openCount - pool.idleCount - 1 - others),
    waiting: Math.max(0, pool.waitingCount - others),
    startups: counters.startupsPending,
  });
  await eventually(
    t,
    `${name}: nothing of it is left`,
    () => Object.values(left()).every((count) => count === 0),
    3_000,
  );
  const state = left();
  if (Object.values(state).some((count) => count !== 0))
    t.same(state, { clients: 0, leases: 0, waiting: 0, startups: 0 }, name);
}

t.test('a client that vanishes while it waits for a connection', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  for (const way of Object.keys(VANISHES) as Way[]) {
    const holder = await live.connect();
    await holder.run('BEGIN', 'SELECT 1');
    const waiter = await live.connect();
    await sent(waiter, [{ query: insert(`waiting ${way}`) }]);
    await eventually(t, 'it waits', () => live.router.pool.waitingCount === 1);
    VANISHES[way](waiter.wire.socket as Socket);
    if (way === 'RST') await eventually(t, 'it does not wait any more', () => live.router.pool.waitingCount === 0);
    await holder.run('COMMIT');
    await holder.end();
    await live.quiet();
    t.equal(
      await rowsOf(`waiting ${way}`),
      way === 'FIN' ? 1 : 0,
      'what was sent before a FIN is done, as by Postgres',
    );
    waiter.wire.destroy();
  }
});

t.test('a client that vanishes before its greeting gives up its place in the queue', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const holder = await live.connect();
  await holder.run('BEGIN', 'SELECT 1');
  for (const way of Object.keys(VANISHES) as Way[]) {
    const newcomer = await WireClient.open(live);
    newcomer.sendBytes(encodeStartup(PROTOCOL_3_0, { ...LOGIN, database: 'template1' }));
    await eventually(t, 'it waits', () => live.router.pool.waitingCount === 1);
    VANISHES[way](newcomer.socket as Socket);
    await eventually(t, 'it does not wait any more', () => live.router.pool.waitingCount === 0);
    newcomer.destroy();
  }
  await holder.run('COMMIT');
  await holder.end();
  await live.quiet();
});

t.test('a server connection that a cancel is on its way to is not handed on', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  for (const way of Object.keys(VANISHES) as Way[]) {
    const client = await live.connect();
    await client.run('BEGIN', 'SELECT 1');
    await sent(client, [{ query: 'SELECT pg_sleep(0.05)' }]);
    const [connection] = [...live.router.pool.connections()];
    connection!.cancelsUnderWay++;
    await client.wire.wait(1);
    VANISHES[way](client.wire.socket as Socket);
    const next = await live.connect();
    t.equal(await next.value('SELECT 1'), '1');
    t.notOk([...live.router.pool.connections()].includes(connection!), 'the next client got another one');
    await next.end();
    client.wire.destroy();
  }
});

t.test('a client that asks, closes its side behind that and reads is answered, before its greeting, too', async (t) => {
  const live = await liveRouter(t, [server]);
  const bytes = Buffer.concat([
    encodeStartup(PROTOCOL_3_0, LOGIN),
    encodeAll([{ query: `INSERT INTO written VALUES ('half', 1) RETURNING n` }, 'terminate']),
  ]);
  // The first one's login to the server is still to come.
  for (const pool of ['cold', 'warm']) {
    const client = await WireClient.open(live);
    client.sendBytes(bytes);
    client.socket.end();
    await client.wait('closed');
    const rows = client.received.filter(({ type }) => type === 'DataRow');
    t.equal(rows.length, 1, `the pool is ${pool}`);
  }
  await direct.run(`DELETE FROM written WHERE who = 'half'`);
  await live.quiet();
});

t.test('half-open start-ups', async (t) => {
  const open = async (live: LiveRouter, count: number): Promise<WireClient[]> => {
    const clients: WireClient[] = [];
    while (clients.length < count) {
      const batch = Array.from({ length: 250 }, () => WireClient.open(live, 30_000));
      clients.push(...(await Promise.all(batch)));
    }
    for (const [index, client] of clients.entries()) {
      if (index % 2 === 0 && !client.closed)
        client.sendBytes(encodeStartup(PROTOCOL_3_0, LOGIN).subarray(0, index % 20));
    }
    return clients;
  };
  const codeOf = ({ received }: WireClient): string | undefined => errorOf(received)?.code;

  await t.test('5,000 within the limit cost little, are timed out, and others are served', async (t) => {
    const count = 5_000;
    const startupTimeoutMs = 2_500;
    const live = await liveRouter(t, [server], {
      clients: { startupPendingMax: 6_000, startupPendingPerAddressMax: 6_000, startupTimeoutMs },
    });
    const { counters, listener } = live.router;
    const bystander = await Bystander.start(live);
    const before = process.memoryUsage().rss;
    const clients = await open(live, count);
    const cost = (process.memoryUsage().rss - before) / count;
    t.equal(counters.clientsRefused, 0);
    t.ok(counters.startupsPending > 0, `${counters.startupsPending} are pending`);
    // Both ends of the sockets live in this process.
    t.ok(cost < 40_000, `${Math.round(cost)} bytes for both ends of one`);
    await eventually(t, 'all are timed out', () => counters.startupsPending === 0, startupTimeoutMs + 4_000);
    t.equal(counters.startupsTimedOut, count);
    t.equal(listener.connections.size, 1);
    await eventually(t, 'all are told', () => clients.every((client) => codeOf(client) === '08P01'));
    await eventually(t, 'all are closed', () => clients.every(({ closed }) => closed));
    for (const client of clients) client.destroy();
    await bystander.stop(t);
    await live.quiet();
  });

  await t.test('those over the limit are refused in words', async (t) => {
    const startupPendingMax = 100;
    const live = await liveRouter(t, [server], { clients: { startupPendingMax, startupTimeoutMs: 1_500 } });
    const { counters, listener } = live.router;
    const bystander = await Bystander.start(live);
    const clients = await open(live, 500);
    t.ok(counters.startupsPending <= startupPendingMax);
    t.ok(listener.connections.size <= startupPendingMax + 1);
    await eventually(t, 'all are told', () => clients.every((client) => codeOf(client) !== undefined));
    const refused = clients.filter((client) => codeOf(client) === '53300');
    t.ok(refused.length >= 250, `${refused.length} were refused`);
    t.match(errorOf(refused[0]!.received)!.fields, { S: 'FATAL', D: /clients.startup_pending_max/ });
    t.ok(clients.every((client) => codeOf(client) === '53300' || codeOf(client) === '08P01'));
    const welcome = await live.connect();
    t.equal(await welcome.value('SELECT 1'), '1', 'then there is room again');
    await welcome.end();
    for (const client of clients) client.destroy();
    await bystander.stop(t);
    await live.quiet();
  });
});
