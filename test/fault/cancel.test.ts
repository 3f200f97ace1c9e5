// Cancel requests reach the statement of the session whose key they carry, wherever it runs at that moment, and nobody
// else's: a connection does not change hands while one is on its way.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { eventually } from '../support/bystander.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { encodeCancel, type FrontendMessage } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { seeded } from '../support/seeded-random.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import { PROTOCOL_3_2, WireClient } from '../support/wire-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
const direct = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
t.teardown(() => direct.end());
const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);

function keyOf(client: SqlClient): { pid: number; key: Buffer } {
  const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  return data;
}

/** Resolves when the router has closed the connection of the request, as libpq waits for. */
async function cancel(live: LiveRouter, pid: number, key: Buffer): Promise<void> {
  const wire = await WireClient.open(live);
  wire.sendBytes(encodeCancel(pid, key));
  const { outcome, messages } = await wire.wait('closed');
  wire.destroy();
  t.same([outcome, messages.length], ['reached', 0], 'nothing is ever answered');
}

const cancelOf = (live: LiveRouter, client: SqlClient) => cancel(live, keyOf(client).pid, keyOf(client).key);

/** Waits until the server runs it. */
async function runs(text: string): Promise<void> {
  const sql = `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND strpos(query, '${text}') > 0`;
  for (let attempt = 0; (await direct.value(sql)) === '0'; attempt++) {
    if (attempt === 1_000) throw new Error(`the server never ran ${text}`);
  }
}

t.test('a running statement is cancelled, with keys of protocol 3.0 and 3.2, simple and extended', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
  for (const protocol of [undefined, PROTOCOL_3_2]) {
    const client = await live.connect(protocol === undefined ? {} : { protocol });
    t.equal(keyOf(client).key.length, protocol === undefined ? 4 : 32);
    for (const messages of [
      [{ query: 'SELECT pg_sleep(20)' }],
      [{ parse: 'SELECT pg_sleep(20)' }, { bind: [] }, { execute: '' }, 'sync'] as const,
    ]) {
      client.wire.send(...messages);
      await runs('pg_sleep(20)');
      await cancelOf(live, client);
      const { messages: answers } = await client.wire.wait(1, 3_000);
      t.equal(errorOf(answers)?.code, '57014');
      t.equal(await client.value('SELECT 1'), '1');
    }
    await client.run('BEGIN');
    client.wire.send({ query: 'SELECT pg_sleep(20)' });
    await runs('pg_sleep(20)');
    await cancelOf(live, client);
    t.equal(errorOf((await client.wire.wait(1, 3_000)).messages)?.code, '57014');
    t.equal(client.status, 'E', 'in a transaction that has failed by it');
    await client.run('ROLLBACK');
    await client.end();
  }
});

t.test('a wrong key, or a pid nobody has, cancels nothing', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
  const client = await live.connect();
  const { pid, key } = keyOf(client);
  client.wire.send({ query: 'SELECT pg_sleep(0.3)' });
  await runs('pg_sleep(0.3)');
  const wrong = Buffer.from(key);
  wrong[0]! ^= 1;
  for (const [who, what] of [
    [pid, wrong],
    [pid, Buffer.concat([key, Buffer.alloc(4)])],
    [pid + 1, key],
    [0, key],
    [-1, key],
  ] as const) {
    await cancel(live, who, what);
  }
  // Neither do the pid and key of the server's own process mean anything here.
  for (const connection of live.router.pool.connections()) await cancel(live, connection.pid, connection.secretKey);
  t.equal(errorOf((await client.wire.wait(1)).messages), null);
  t.equal(live.router.counters.cancelsForwarded, 0);
  await client.end();
});

t.test('a statement that waits for a connection is cancelled without one', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const [holder, waiter, third] = [await live.connect(), await live.connect(), await live.connect()];
  await holder.run('BEGIN', 'SELECT 1');
  for (const messages of [
    [{ query: 'SELECT 2' }],
    [{ parse: 'SELECT 2' }, { bind: [] }, { execute: '' }, 'sync'] as const,
  ]) {
    waiter.wire.send(...messages);
    await eventually(t, 'it waits', () => live.router.pool.waitingCount === 1);
    await cancelOf(live, waiter);
    const { messages: answers } = await waiter.wire.wait(1, 2_000);
    t.equal(errorOf(answers)?.code, '57014');
    t.equal(live.router.pool.waitingCount, 0);
  }
  third.wire.send({ query: 'SELECT 3' });
  await eventually(t, 'another waits', () => live.router.pool.waitingCount === 1);
  await cancelOf(live, waiter);
  t.equal(await holder.value('SELECT 1'), '1', 'the holder was not hit');
  await holder.run('COMMIT');
  t.equal(errorOf((await third.wire.wait(1)).messages), null, 'nor who waits beside');
  t.equal(await waiter.value('SELECT 2'), '2');
  for (const client of [holder, waiter, third]) await client.end();
});

t.test('200 random cancels among sessions on a pool of three: only their targets are hit', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 3 } });
  const random = seeded(SEED);
  const clients = await Promise.all(Array.from({ length: 8 }, () => live.connect()));
  const targets = clients.slice(0, 4);
  const sent = new Map(clients.map((client) => [client, 0]));
  const hits = new Map(clients.map((client) => [client, 0]));
  let running = true;
  let answered = 0;
  const wrong: string[] = [];
  const work = clients.map(async (client, index) => {
    const run = async (messages: readonly FrontendMessage[]): Promise<void> => {
      const code = errorOf(await client.send(messages))?.code;
      if (code === undefined) answered++;
      else if (code === '57014') hits.set(client, hits.get(client)! + 1);
      // Behind a BEGIN that was hit.
      else if (code !== '25P02') wrong.push(`session ${index} got ${code}`);
    };
    while (running) {
      const seconds = (random() * 0.012).toFixed(4);
      const sql = `SELECT ${index} FROM (SELECT pg_sleep(${seconds})) wait`;
      const inBlock = random() < 0.3;
      if (inBlock) await run([{ query: 'BEGIN' }]);
      await run(random() < 0.5 ? [{ query: sql }] : [{ parse: sql }, { bind: [] }, { execute: '' }, 'sync']);
      if (inBlock) await run([{ query: 'ROLLBACK' }]);
    }
  });
  for (let round = 0; round < 200; round++) {
    const target = targets[Math.floor(random() * targets.length)]!;
    sent.set(target, sent.get(target)! + 1);
    await Promise.all([cancelOf(live, target), sleep(random() * 6)]);
  }
  running = false;
  await Promise.all(work);
  t.same(wrong, [], `seed ${SEED}`);
  for (const [index, client] of clients.entries()) {
    const [got, asked] = [hits.get(client)!, sent.get(client)!];
    t.ok(got <= asked, `session ${index} was hit ${got} times by ${asked} requests, seed ${SEED}`);
  }
  const total = [...hits.values()].reduce((sum, count) => sum + count);
  t.ok(total >= 20, `${total} cancels hit, ${answered} statements were answered`);
  t.ok(live.router.pool.openCount <= 3);
  for (const client of clients) await client.end();
  await live.quiet();
});

t.test('a cancel that is late on its way hits nobody: the connection waits for it', async (t) => {
  const proxy = await FaultProxy.start(server, 'postgres');
  t.teardown(() => proxy.down());
  const live = await liveRouter(t, [proxy.standInFor(server)], { pool: { sizeMax: 1 } });
  const [target, other] = [await live.connect(), await live.connect()];
  for (let round = 0; round < 5; round++) {
    proxy.cancelDelayMs = 200;
    target.wire.send({ query: 'SELECT pg_sleep(0.1)' });
    await runs('pg_sleep(0.1)');
    await cancelOf(live, target);
    t.equal(errorOf((await target.wire.wait(1)).messages), null, 'it came too late for its statement');
    // Longer than the request takes: had it been given the connection at once, it would be hit.
    other.wire.send({ query: 'SELECT pg_sleep(0.3)' });
    t.equal(errorOf((await other.wire.wait(1)).messages), null, 'and does not hit the next session');
  }
  for (const end of ['FIN', 'RST'] as const) {
    const leaver = await live.connect();
    await leaver.run('BEGIN');
    leaver.wire.send({ query: 'SELECT pg_sleep(0.1)' });
    await runs('pg_sleep(0.1)');
    await cancelOf(live, leaver);
    await leaver.wire.wait(1);
    if (end === 'FIN') leaver.wire.socket.end();
    else leaver.wire.destroy();
    other.wire.send({ query: 'SELECT pg_sleep(0.3)' });
    t.equal(errorOf((await other.wire.wait(1)).messages), null, `nor where the session has gone (${end})`);
    leaver.wire.destroy();
  }
  await Promise.all([target.end(), other.end()]);
});
