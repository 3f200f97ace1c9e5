// Transactions through a pool are those of the server: the same statements there and here, answers compared message by
// message. And what a pool adds: who waits for a connection gets one in order, or is told why not.
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { encodeCancel } from '../support/frontend-message.js';
import { liveRouter } from '../support/live-router.js';
import { stretched } from '../support/machine-speed.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

// Deadlocks are part of it: they must be found quickly.
const server = await startPostgres({ version: '15', parameters: { deadlock_timeout: '20ms' } });
t.teardown(() => server.stop());
const direct = () => SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
const setup = await direct();
await setup.run(`
  create table accounts (id int primary key, balance int not null);
  insert into accounts select n, 100 from generate_series(1, 20) n;
  create table parents (id int primary key);
  create table children (id int, parent int references parents deferrable initially deferred);
  create table arrivals (id serial, who int);
`);
await setup.end();

const SHOW = ['show transaction_isolation', 'show transaction_read_only', 'show transaction_deferrable'];
const RESTORE = 'update accounts set balance = 100';

/** Each is run statement by statement on the server and through pgkv. */
const SAME: Readonly<Record<string, readonly string[]>> = {
  'BEGIN with its options': [
    'begin isolation level serializable read only deferrable',
    ...SHOW,
    'commit',
    ...SHOW,
    'start transaction isolation level repeatable read, read write, not deferrable',
    ...SHOW,
    'rollback',
    ...SHOW,
  ],
  'SET TRANSACTION': [
    'begin',
    'set transaction isolation level serializable, read only',
    ...SHOW,
    'insert into accounts values (900, 0)',
    'select 1',
    'rollback',
    ...SHOW,
    'begin',
    'select 1',
    'set transaction isolation level serializable',
    'rollback',
    'set transaction isolation level serializable',
    'set local work_mem = 999',
  ],
  'READ ONLY refuses writes, and the transaction stays failed': [
    'begin read only',
    'update accounts set balance = 0',
    'select 1',
    'commit',
    'select sum(balance) from accounts',
  ],
  savepoints: [
    'begin',
    'update accounts set balance = 1 where id = 1',
    'savepoint a',
    'update accounts set balance = 2 where id = 1',
    'savepoint b',
    'select 1/0',
    'select 1',
    'savepoint c',
    'release b',
    'rollback to b',
    'select balance from accounts where id = 1',
    'rollback to a',
    'select balance from accounts where id = 1',
    'release a',
    'rollback to a',
    'rollback to savepoint nowhere',
    'rollback',
    'savepoint outside',
    'rollback to outside',
    'release outside',
  ],
  'everything but the end is 25P02 in a failed transaction': [
    'begin',
    'select no_such_column',
    'select 1',
    'show work_mem',
    'set work_mem = 999',
    'begin',
    'insert into accounts values (901, 1)',
    'savepoint x',
    'listen y',
    'prepare z as select 1',
    'declare c cursor for select 1',
    'copy accounts to stdout',
    'select 1; select 2',
    '',
    'no sql at all',
    'rollback',
    'show work_mem',
  ],
  'COMMIT of a failed transaction is a ROLLBACK': [
    'begin',
    'insert into accounts values (902, 1)',
    'select 1/0',
    'commit',
    'select count(*) from accounts where id = 902',
  ],
  'END, ABORT, COMMIT WORK, and ends without a transaction': [
    'begin work',
    'end',
    'begin transaction',
    'abort',
    'begin',
    'commit work',
    'commit',
    'rollback',
    'abort',
    'begin',
    'begin',
    'rollback',
  ],
  'AND CHAIN': [
    'begin isolation level serializable read only',
    'commit and chain',
    ...SHOW,
    'select 1/0',
    'rollback and chain',
    ...SHOW,
    'rollback and no chain',
    ...SHOW,
    'commit and chain',
    'begin',
    'select 1/0',
    'commit and chain',
    'select 1',
    'commit',
  ],
  'a deferred constraint fails at COMMIT': [
    'begin',
    'insert into children values (1, 4711)',
    'commit',
    'select count(*) from children',
    'begin',
    'insert into children values (1, 4712)',
    'set constraints all immediate',
    'rollback',
    'insert into children values (2, 4713)',
    'select count(*) from children',
  ],
  'several statements in one simple query are one transaction': [
    'insert into accounts values (903, 1); select 1/0; insert into accounts values (904, 1)',
    'select count(*) from accounts where id > 900',
    'insert into accounts values (905, 1); begin; insert into accounts values (906, 1)',
    'select 1/0',
    'rollback',
    'select count(*) from accounts where id > 900',
    'begin; insert into accounts values (907, 1); commit; insert into accounts values (908, 1); select 1/0',
    'select id from accounts where id > 900',
    'insert into accounts values (909, 1); rollback; insert into accounts values (910, 1)',
    'select id from accounts where id > 900 order by id',
    'delete from accounts where id > 900',
  ],
  'two-phase commit': [
    'begin',
    'insert into accounts values (920, 1)',
    `prepare transaction 'one'`,
    'select count(*) from accounts where id = 920',
    'select gid from pg_prepared_xacts',
    `begin`,
    `commit prepared 'one'`,
    'rollback',
    `commit prepared 'one'`,
    'select count(*) from accounts where id = 920',
    'begin',
    'delete from accounts where id = 920',
    `prepare transaction 'two'`,
    `rollback prepared 'two'`,
    `rollback prepared 'two'`,
    'delete from accounts where id = 920',
    'begin',
    'select 1/0',
    `prepare transaction 'three'`,
    `prepare transaction 'four'`,
  ],
  'an exported snapshot': [
    'begin',
    `select length(pg_export_snapshot()) > 0`,
    'rollback',
    `set transaction snapshot 'x'`,
  ],
  'cursors of a transaction': [
    'begin',
    'declare c scroll cursor for select generate_series(1, 5)',
    'fetch 2 from c',
    'fetch last from c',
    'move absolute 1 in c',
    'fetch next from c',
    'savepoint s',
    'close c',
    'rollback to s',
    'fetch next from c',
    'commit',
    'fetch next from c',
  ],
};

t.test('transactions are answered as by the server', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  for (const [name, statements] of Object.entries(SAME)) {
    await t.test(name, async (t) => {
      const there = await direct();
      const expected: (readonly BackendMessage[])[] = [];
      for (const sql of statements) expected.push(await there.answers(sql));
      await there.end();
      const here = await live.connect();
      for (const [index, sql] of statements.entries()) {
        t.strictSame(await here.answers(sql), expected[index], `${index + 1}: ${sql}`);
      }
      await here.end();
      await live.quiet();
    });
  }

  await t.test('25P02 exactly, and the words of the server', async (t) => {
    const client = await live.connect();
    await client.run('begin');
    t.equal(await client.fails('select 1/0'), '22012');
    t.equal(client.status, 'E');
    const error = await client.failsWith('select 1');
    t.equal(error.code, '25P02');
    t.equal(error.fields['M'], 'current transaction is aborted, commands ignored until end of transaction block');
    t.strictSame(await client.run('commit'), ['ROLLBACK']);
    t.equal(client.status, 'I');
    await client.end();
  });

  await t.test('a transaction holds its connection, its end gives it back', async (t) => {
    const [a, b] = [await live.connect(), await live.connect()];
    await a.run('begin', 'update accounts set balance = balance + 1 where id = 1');
    const waiting = b.value('select balance from accounts where id = 1');
    t.equal(await a.value('select balance from accounts where id = 1'), '101');
    t.equal(live.router.pool.idleCount, 0);
    await a.run('rollback');
    t.equal(await waiting, '100');
    await a.end();
    await b.end();
    await live.quiet();
  });
});

t.test('isolation holds between clients of one pool', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
  const [a, b] = [await live.connect(), await live.connect()];
  const BALANCE = 'select balance from accounts where id = 1';

  await a.run('begin', 'update accounts set balance = 55 where id = 1');
  t.equal(await b.value(BALANCE), '100', 'nothing uncommitted is read');
  await a.run('commit');
  t.equal(await b.value(BALANCE), '55');

  await a.run('begin isolation level repeatable read');
  t.equal(await a.value(BALANCE), '55');
  await b.run('update accounts set balance = 66 where id = 1');
  t.equal(await a.value(BALANCE), '55', 'repeatable read');
  t.equal(await a.fails('update accounts set balance = 77 where id = 1'), '40001');
  await a.run('rollback');

  await a.run('begin isolation level serializable', 'select sum(balance) from accounts');
  await b.run('begin isolation level serializable', 'select sum(balance) from accounts');
  await a.run('update accounts set balance = 1 where id = 2');
  await b.run('update accounts set balance = 1 where id = 3');
  await a.run('commit');
  t.equal(await b.fails('commit'), '40001', 'serializable');
  t.equal(b.status, 'I');

  await a.run('begin', 'update accounts set balance = 0 where id = 4');
  await b.run('begin', 'update accounts set balance = 0 where id = 5');
  const outcomes = await Promise.allSettled([
    a.run('update accounts set balance = 0 where id = 5'),
    b.run('update accounts set balance = 0 where id = 4'),
  ]);
  const codes = outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason.code : 'done'));
  t.strictSame(codes.toSorted(), ['40P01', 'done'], 'a deadlock is found, one gives way');
  await a.answers('rollback');
  await b.answers('rollback');
  await a.run(RESTORE);
});

t.test('batches of the extended protocol are implicit transactions', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const a = await live.connect();
  const step = (sql: string) => [{ parse: sql }, { bind: [] }, { execute: '' }] as const;

  const failed = await a.send([...step('insert into accounts values (930, 1)'), ...step('select 1/0'), 'sync']);
  t.equal(errorOf(failed)?.code, '22012');
  t.equal(await a.value('select count(*) from accounts where id = 930'), '0', 'an error undoes the batch');

  const skipped = await a.send([
    ...step('select 1/0'),
    ...step('insert into accounts values (931, 1)'),
    'sync',
    ...step('select 5'),
    'sync',
  ]);
  t.strictSame(rowsOf(skipped), [['5']], 'all up to Sync is skipped, then it goes on');
  t.equal(await a.value('select count(*) from accounts where id = 931'), '0');

  await a.send([...step('begin'), ...step('insert into accounts values (932, 1)'), 'sync']);
  t.equal(a.status, 'T');
  t.equal(errorOf(await a.send([...step('select 1/0'), 'sync']))?.code, '22012');
  t.equal(a.status, 'E');
  t.equal(errorOf(await a.send([...step('select 1'), 'sync']))?.code, '25P02');
  await a.send([...step('rollback'), 'sync']);
  t.equal(a.status, 'I');

  await a.send([...step('insert into accounts values (933, 1)'), 'flush'], { type: 'CommandComplete' });
  const b = await live.connect();
  const seen = b.value('select count(*) from accounts where id = 933');
  await sleep(30);
  t.equal(live.router.pool.waitingCount, 1, 'a batch without its Sync keeps the connection');
  await a.send([...step('select 1/0'), 'sync']);
  t.equal(await seen, '0', 'an error after the flush undoes what was flushed');
  t.strictSame(
    rowsOf(
      await a.send([
        ...step('insert into accounts values (934, 1) returning id'),
        'flush',
        ...step('select 2'),
        'sync',
      ]),
    ),
    [['934'], ['2']],
  );
  await a.run('delete from accounts where id > 900');
});

t.test('idle in a transaction for too long', async (t) => {
  const live = await liveRouter(t, [server], {
    pool: { sizeMax: 1 },
    clients: { idleInTransactionTimeoutMs: 300 },
  });
  const [a, b] = [await live.connect(), await live.connect()];
  await a.run('begin', 'update accounts set balance = 0');
  const waiting = b.value('select min(balance) from accounts');
  const { messages } = await a.wire.wait('closed', 5_000);
  t.equal(errorOf(messages)?.code, '25P03');
  t.equal(errorOf(messages)?.fields['S'], 'FATAL');
  t.equal(await waiting, '100', 'its work is undone, the connection goes on');
  await sleep(600);
  t.equal(await b.value('select 1'), '1', 'outside a transaction a client may idle');
  await b.run('begin');
  for (let round = 0; round < 4; round++) {
    await sleep(150);
    await b.run('select 1');
  }
  t.equal(b.status, 'T', 'one that is not idle is left alone');
  await b.run('select pg_sleep(0.8)', 'commit');
});

t.test("the server's own time-out inside a transaction", async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const [a, b] = [await live.connect(), await live.connect()];
  await a.run(`set idle_in_transaction_session_timeout = '150ms'`, 'begin', 'select 1');
  const { messages } = await a.wire.wait('closed', 5_000);
  t.equal(errorOf(messages)?.code, '25P03');
  t.equal(await b.value('select 1'), '1');
});

t.test('waiters get connections in the order in which they came', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
  const holders = [await live.connect(), await live.connect()];
  for (const holder of holders) await holder.run('begin', 'select 1');
  const waiters = await Promise.all(Array.from({ length: 12 }, () => live.connect()));
  const done: Promise<unknown>[] = [];
  for (const [index, waiter] of waiters.entries()) {
    done.push(waiter.run(`insert into arrivals (who) values (${index})`));
    while (live.router.pool.waitingCount <= index) await sleep(1);
  }
  await holders[0]!.run('commit');
  await Promise.all(done);
  const order = (await holders[0]!.rows('select who from arrivals order by id')).map(([who]) => Number(who));
  t.strictSame(
    order,
    waiters.map((_, index) => index),
  );
  await holders[1]!.run('commit');
});

t.test('53300 after the time to wait, and when too many wait', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1, queueMax: 2, waitTimeoutMs: 1_500 } });
  const holder = await live.connect();
  const [first, second, third, fourth] = await Promise.all(Array.from({ length: 4 }, () => live.connect()));
  await holder.run('begin', 'select 1');
  const start = performance.now();
  const slow = [first!.failsWith('select 1'), second!.failsWith('select 2')];
  let slowOnesTold = 0;
  for (const one of slow) void one.then(() => slowOnesTold++);
  while (live.router.pool.waitingCount < 2) await sleep(1);
  const refused = await third!.failsWith('select 3');
  t.equal(refused.code, '53300');
  t.match(refused.fields['D'], /pool\.queue_max/);
  t.equal(slowOnesTold, 0, 'refused at once, before those that may wait');
  t.equal(errorOf(await fourth!.send([{ parse: 'select 4' }, { bind: [] }, { execute: '' }, 'sync']))?.code, '53300');
  for (const error of await Promise.all(slow)) {
    t.equal(error.code, '53300');
    t.match(error.fields['D'], /pool\.wait_timeout_ms\), 1 of 1 leases are held: 1 for idle transactions$/);
  }
  const waited = performance.now() - start;
  t.ok(waited >= 1_490 && waited < (await stretched(3_500)), `waited ${Math.round(waited)} ms`);
  t.equal(live.router.pool.waitingCount, 0);
  await holder.run('commit');
  for (const client of [first, second, third, fourth]) {
    t.equal(await client!.value('select 1'), '1', 'the session goes on');
    t.equal(client!.status, 'I');
  }
});

t.test('a cancelled waiter leaves the queue', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const [holder, waiter] = [await live.connect(), await live.connect()];
  await holder.run('begin', 'select 1');
  const waiting = waiter.fails('select 1');
  while (live.router.pool.waitingCount < 1) await sleep(1);
  const gone = await live.connect();
  gone.wire.send({ query: 'select 1' });
  while (live.router.pool.waitingCount < 2) await sleep(1);
  (gone.wire.socket as Socket).resetAndDestroy();
  while (live.router.pool.waitingCount > 1) await sleep(1);
  const key = waiter.wire.received.find((message) => message.type === 'BackendKeyData');
  if (key?.type !== 'BackendKeyData') throw new Error('no key');
  const canceller = await WireClient.open({ host: live.host, port: live.port });
  canceller.sendBytes(encodeCancel(key.pid, key.key));
  t.equal(await waiting, '57014');
  await canceller.wait('closed');
  while (live.router.pool.waitingCount > 0) await sleep(1);
  await holder.run('commit');
  t.equal(await waiter.value('select 1'), '1');
});

t.test('two hundred clients on four connections keep the sum', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 4 } });
  const seed = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
  t.comment(`PGKV_SEED=${seed}`);
  const clients = await Promise.all(Array.from({ length: 200 }, () => live.connect()));
  let random = seed;
  const below = (limit: number): number => {
    random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((random / 2_147_483_648) * limit);
  };
  const transfer = async (client: SqlClient): Promise<void> => {
    const from = 1 + below(20);
    const to = 1 + below(20);
    const amount = below(50);
    const [first, second] = [
      `update accounts set balance = balance - ${amount} where id = ${from}`,
      `update accounts set balance = balance + ${amount} where id = ${to}`,
    ];
    const serializable = below(4) === 0;
    await client.answers(serializable ? 'begin isolation level repeatable read' : 'begin');
    switch (below(6)) {
      case 0:
        await client.answers(first, second, 'rollback');
        break;
      case 1:
        await client.answers(
          first,
          'savepoint s',
          'update accounts set balance = 0',
          'rollback to s',
          second,
          'commit',
        );
        break;
      case 2:
        await client.answers(first, 'select 1/0', second, 'commit');
        break;
      case 3:
        await client.send([
          ...[first, second].flatMap((sql) => [{ parse: sql }, { bind: [] }, { execute: '' }] as const),
          'sync',
          { query: 'commit' },
        ]);
        break;
      case 4:
        await client.answers(`${first}; ${second}; commit`, 'rollback');
        break;
      default:
        await client.answers(first, second, 'commit');
    }
    if (client.status !== 'I') throw new Error(`left in status ${client.status}`);
    if (below(8) === 0) {
      const sum = await client.value('select sum(balance) from accounts');
      if (sum !== '2000') throw new Error(`the sum is ${sum}`);
    }
  };
  await Promise.all(
    clients.map(async (client) => {
      for (let round = 0; round < 4; round++) await transfer(client);
    }),
  );
  const [witness] = clients;
  t.equal(await witness!.value('select sum(balance) from accounts'), '2000');
  t.not(await witness!.value('select count(*) from accounts where balance <> 100'), '0', 'something was moved');
  t.ok(live.router.pool.openCount <= 4);
  t.ok(live.router.pool.counters.waitsTotal > 0, 'there was a queue');
  await witness!.run(RESTORE);
});

t.test('clients that vanish in transactions leave nothing and keep nobody waiting', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
  const steady = await live.connect();
  for (let round = 0; round < 15; round++) {
    const leaving = await live.connect();
    await leaving.run('begin', 'update accounts set balance = 0 where id = 1', 'savepoint s');
    if (round % 3 === 0) await leaving.fails('select 1/0');
    if (round % 3 === 1) leaving.wire.send({ query: 'update accounts set balance = 0 where id = 2' });
    leaving.wire.destroy();
    t.equal(await steady.value('update accounts set balance = balance where id = 1 returning balance'), '100');
  }
  t.equal(await steady.value('select sum(balance) from accounts'), '2000');
});
