// Reads on several servers that become one answer: order, limits, errors, cancel, back-pressure, and nothing left behind.
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { systemClock } from '../../src/base/clock.js';
import { RecordingClient, ScatterBench, sourceOf, textParameters } from '../support/scatter-bench.js';

const ASCENDING = { descending: false, nullsFirst: false, needsByteOrder: false };

const bench = await ScatterBench.start(t, 3);
for (const [index, { query }] of bench.shards.entries()) {
  await query(`create table kv (tenant_id text collate "C", key text collate "C", n int8, value jsonb)`);
  await query(`insert into kv select 't', 'k' || lpad(i::text, 6, '0'), i, jsonb_build_object('i', i)
    from generate_series(1, 3000) i where i % 3 = ${index}`);
}

const names = (client: RecordingClient): (string | null)[] => client.values.map(([name]) => name!);
const keys = (first: number, last: number): string[] =>
  Array.from({ length: last - first + 1 }, (_, index) => `k${String(first + index).padStart(6, '0')}`);

t.afterEach(() => {
  // No connection is held: the answer was told last.
  if (bench.held().length > 0) throw new Error(bench.held().join('; '));
});

t.test('rows without an order come from every shard once', async (t) => {
  const client = await bench.answer({ text: 'select key, value from kv' });
  t.equal(client.tag, 'SELECT 3000');
  t.same(names(client).sort(), keys(1, 3000));
  t.same(client.events, ['described', 'rows', 'completed']);
});

t.test(
  'rows are merged by hidden sort keys, in text and in binary, and the hidden columns are not shown',
  async (t) => {
    const source = sourceOf('select key, n, key from kv order by key');
    for (const resultFormats of [[], [0], [1], [0, 1], [1, 0]]) {
      const client = await bench.answer({ text: '', source, sortKeys: [ASCENDING], resultFormats });
      t.equal(client.tag, 'SELECT 3000');
      t.same(names(client), keys(1, 3000), `formats ${resultFormats}`);
      t.equal(client.rowDescription!.readUInt16BE(5), 2);
      t.equal(client.values[0]!.length, 2);
      const binary = resultFormats.length === 1 ? resultFormats[0] === 1 : resultFormats[1] === 1;
      t.equal(client.values[4]![1], binary ? '\0\0\0\0\0\0\0\u0005' : '5');
    }
  },
);

t.test('a wrong number of result formats is told in the words of Postgres', async (t) => {
  const client = await bench.answer({
    text: 'select key, n, key from kv order by key',
    sortKeys: [ASCENDING],
    resultFormats: [0, 0, 0],
  });
  t.match(client.error, { C: '08P01', M: 'bind message has 3 result formats but query has 2 columns' });
});

t.test('OFFSET and LIMIT count rows of the merged answer', async (t) => {
  const text = 'select key, key from kv order by key limit 30';
  const client = await bench.answer({ text, sortKeys: [ASCENDING], limit: 20n, offset: 10n });
  t.same(names(client), keys(11, 30));
  t.equal(client.tag, 'SELECT 20');
  const none = await bench.answer({ text, sortKeys: [ASCENDING], limit: 0n });
  t.same(none.events, ['described', 'completed']);
  const beyond = await bench.answer({ text: 'select key from kv', offset: 5000n });
  t.equal(beyond.tag, 'SELECT 0');
  const unordered = await bench.answer({ text: 'select key from kv', limit: 7n, offset: 2990n });
  t.equal(unordered.tag, 'SELECT 7');
  const huge = await bench.answer({ text: 'select key from kv', limit: 9223372036854775807n });
  t.equal(huge.tag, 'SELECT 3000');
});

t.test('once the limit is reached, shards that are at work are cancelled and their errors are not told', async (t) => {
  const began = Date.now();
  const client = await bench.answer({
    text: `select case when n = 3 then pg_sleep(20)::text else key end from kv where n <= 3`,
    limit: 2n,
  });
  t.equal(client.tag, 'SELECT 2');
  t.ok(Date.now() - began < 20_000, 'it did not wait for the slow shard');
});

t.test('an error of one shard is the answer, as that shard put it, and the others are cancelled', async (t) => {
  const began = Date.now();
  const client = await bench.answer({
    text: `select case when n = 2 then 1 / (n - 2) else length(pg_sleep(20)::text) end from kv where n in (2, 3, 4)`,
  });
  t.match(client.error, { C: '22012', M: 'division by zero', R: 'int48div' });
  t.equal(client.tag, null);
  t.ok(Date.now() - began < 20_000, 'it did not wait for the others');
});

t.test('an error behind rows that were told ends the answer', async (t) => {
  const client = await bench.answer({ text: 'select 1 / (n - 2990) from kv' });
  t.equal(client.error?.['C'], '22012');
});

t.test('a text that cannot be parsed gives one error', async (t) => {
  for (const sortKeys of [[], [ASCENDING]]) {
    const client = await bench.answer({ text: 'select nothing from kv order by 1', sortKeys });
    t.match(client.error, { C: '42703', P: '8' });
    t.same(client.events, ['failed']);
  }
});

t.test('parameters go to every shard', async (t) => {
  const client = await bench.answer({
    text: 'select key, key from kv where n <= $1 and key <> $2 order by key',
    sortKeys: [ASCENDING],
    parameters: textParameters('4', 'k000002'),
  });
  t.same(names(client), ['k000001', 'k000003', 'k000004']);
});

t.test('a statement that is run again is prepared once per connection', async (t) => {
  const source = sourceOf('select key, key from kv where n < 4 order by key /* again */');
  for (let run = 0; run < 4; run++) {
    const client = await bench.answer({ text: '', source, sortKeys: [ASCENDING] });
    t.same(names(client), keys(1, 3));
  }
  for (const { pool } of bench.shards) {
    const prepared = [...pool.connections()].filter((connection) => connection.prepared.has(source));
    t.equal(prepared.length, 1);
  }
});

t.test('a statement whose columns have changed behind our back is prepared anew', async (t) => {
  const all = (sql: string) => Promise.all(bench.shards.map(({ query }) => query(sql)));
  await all('create table changing (key text collate "C"); insert into changing values (inet_server_port()::text)');
  const source = sourceOf('select *, key from changing order by key');
  for (let run = 0; run < 3; run++) await bench.answer({ text: '', source, sortKeys: [ASCENDING] });
  await all('alter table changing add more int default 7');
  const client = await bench.answer({ text: '', source, sortKeys: [ASCENDING] });
  t.same(client.error, null);
  t.equal(client.values.length, 3);
  t.equal(client.values[0]!.length, 2);
  t.equal(client.values[0]![1], '7');
  t.same(names(client), names(client).slice().sort());
  // Unnamed, the count alone is remembered.
  await all('alter table changing add yet_more int default 8');
  for (const { pool } of bench.shards) for (const connection of pool.connections()) connection.forgetAllPrepared();
  const again = await bench.answer({ text: '', source, sortKeys: [ASCENDING] });
  t.equal(again.values[0]?.[2], '8');
});

t.test('shards that describe the result differently give no answer', async (t) => {
  for (const [index, { query }] of bench.shards.entries()) {
    await query(`create table uneven (a ${index === 1 ? 'int4' : 'int8'}); insert into uneven values (1)`);
  }
  const client = await bench.answer({ text: 'select a from uneven' });
  t.match(client.error, { C: '0A000', M: /"s1" and "s2"/ });
});

t.test('sort keys whose order is not known are refused', async (t) => {
  const interval = await bench.answer({ text: `select 1, interval '1 day'`, sortKeys: [ASCENDING] });
  t.match(interval.error, { C: '0A000', M: /type interval/ });
  const text = { text: `select 1, 'a'::text`, sortKeys: [{ ...ASCENDING, needsByteOrder: true }] };
  t.match((await bench.answer({ ...text, byteOrder: false })).error, { C: '0A000', H: /COLLATE "C"/ });
  t.equal((await bench.answer(text)).tag, 'SELECT 3');
});

t.test('a row limit suspends the answer, which goes on where it stopped', async (t) => {
  const { run, client } = bench.read({
    text: 'select key, key from kv order by key',
    sortKeys: [ASCENDING],
    limit: 12n,
  });
  run.start(5);
  await client.until(() => client.events.at(-1) === 'suspended');
  t.same(names(client), keys(1, 5));
  run.cancel();
  run.continue(7);
  await client.until(() => client.events.filter((event) => event === 'suspended').length === 2);
  t.same(names(client), keys(1, 12));
  run.continue(5);
  await client.ended();
  t.equal(client.tag, 'SELECT 0', 'the tag counts the rows since it went on');
  t.same(client.events, ['described', 'rows', 'suspended', 'rows', 'suspended', 'completed']);
});

t.test('cancel ends a read with the error of a shard', async (t) => {
  const { run, client } = bench.read({ text: 'select pg_sleep(20)' });
  run.start();
  await sleep(100);
  run.cancel();
  await client.ended();
  t.match(client.error, { C: '57014', R: 'ProcessInterrupts' });
});

t.test('cancel before any connection was had, and behind rows that nobody takes', async (t) => {
  const early = bench.read({ text: 'select pg_sleep(20)' });
  early.run.start();
  early.run.cancel();
  await early.client.ended();
  t.equal(early.client.error?.['C'], '57014');
  const late = bench.read({ text: 'select n from kv' });
  late.client.slow = true;
  late.run.start();
  await late.client.until(() => late.client.rowCount > 0);
  late.run.cancel();
  late.run.resume();
  await late.client.ended();
  t.equal(late.client.error?.['C'], '57014');
});

t.test('an abandoned read tells nothing more and lets go of its connections', async (t) => {
  const { run, client } = bench.read({
    text: `select repeat('x', 10000), pg_sleep(0.001) from generate_series(1, 20000)`,
  });
  run.start();
  await client.until(() => client.rowCount > 0);
  run.abandon();
  const told = client.events.length;
  await bench.quiet();
  t.equal(client.events.length, told);
  const asleep = bench.read({ text: 'select pg_sleep(20)' });
  asleep.run.start();
  await sleep(50);
  asleep.run.abandon();
  await bench.quiet();
  t.same(asleep.client.events, ['described']);
});

t.test('the client may end the read from within a call', async (t) => {
  for (const sortKeys of [[], [ASCENDING]]) {
    for (const end of ['abandon', 'cancel'] as const) {
      const { run, client } = bench.read({ text: `select repeat(key, 100), key from kv order by key`, sortKeys });
      client.onRows = () => run[end]();
      run.start();
      await client.until(() => client.rowCount > 0);
      if (end === 'cancel') await client.ended();
      await bench.quiet();
      t.equal(client.tag, null);
    }
  }
});

t.test('a slow client holds the shards back: 100 MB pass through a few', { timeout: 120_000 }, async (t) => {
  setFlagsFromString('--expose_gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const memory = async (): Promise<number> => {
    collectGarbage();
    await sleep(10); // what is collected is freed by another thread
    return process.memoryUsage().arrayBuffers;
  };
  for (const sortKeys of [[], [ASCENDING]]) {
    const client = new RecordingClient();
    client.keep = false;
    client.slow = true;
    const { run } = bench.read(
      { text: `select repeat('x', 10000), i from generate_series(1, 3400) i order by i`, sortKeys },
      client,
    );
    const before = await memory();
    run.start();
    await client.until(() => client.rowCount > 0);
    await sleep(300);
    const most = [(await memory()) - before];
    const { bytes } = client;
    t.ok(bytes < 1e6, 'nothing is told until the client asks');
    for (let rounds = 0; client.tag === null && client.error === null; rounds++) {
      const told = client.bytes;
      run.resume();
      if (client.bytes === told) await sleep(1);
      if (rounds % 200 === 0) most.push((await memory()) - before);
    }
    t.equal(client.tag, 'SELECT 10200');
    t.ok(client.bytes > 100e6);
    // Per shard 256 KiB of rows, a chunk on top, and the buffers the sockets read into; all of it were 50 MB.
    const usual = most.toSorted((a, b) => a - b)[most.length >> 1]!;
    t.ok(most[0]! < 8e6 && usual < 8e6, `${most.join(' ')} bytes`);
  }
});

t.test('a row larger than what is kept per shard passes', async (t) => {
  for (const sortKeys of [[], [ASCENDING]]) {
    const client = await bench.answer({
      text: `select repeat('x', 3000000 * i), i from generate_series(1, 2) i order by i`,
      sortKeys,
    });
    t.equal(client.tag, 'SELECT 6');
    t.same(
      client.values
        .splice(0)
        .map(([x]) => x!.length)
        .sort(),
      [3e6, 3e6, 3e6, 6e6, 6e6, 6e6],
    );
  }
  const tooLong = await bench.answer({ text: `select repeat('x', 100000)`, limits: { rowBytesMax: 50_000 } });
  t.match(tooLong.error, { C: '54000', D: /50000 bytes/ });
  await bench.quiet();
});

t.test('partial rows become one answer in the arithmetic of Postgres', async (t) => {
  const client = await bench.answer({
    text: `select tenant_id, n % 2, count(*), sum(n), max(n) from kv group by 1, 2`,
    partials: ['group', 'group', 'count', 'sum', 'max'],
    finalText: `select {0}, {1} as odd, sum({2})::int8 as count, sum({3}), sum({3}) / sum({2}) as avg, max({4})::{type:4}
      from {rows} group by {0}, {1} order by 2`,
  });
  t.same(client.values, [
    ['t', '0', '1500', '2251500', '1501.0000000000000000', '3000'],
    ['t', '1', '1500', '2250000', '1500.0000000000000000', '2999'],
  ]);
  t.equal(client.tag, 'SELECT 2');
  t.match(client.rowDescription!.toString('latin1'), 'odd');
});

t.test('partial values survive whatever the settings make of their text', async (t) => {
  const { session, registry } = bench;
  session.settings = registry.intern(
    new Map([
      ['extra_float_digits', '-15'],
      ['datestyle', 'SQL, DMY'],
    ]),
  );
  const partial = `('{"a":"\\"{}"}'::jsonb, '\\xff00'::bytea, 0.1::float8 + 0.2, timestamptz 'infinity', null::int, 'NaN'::numeric, 'a'',"\\', ''::text)`;
  const client = await bench.answer({
    text: `select * from (values ${partial}) x where inet_server_port() = ${bench.shards[1]!.server.port}`,
    partials: Array(8).fill('group'),
    finalText: `select {0}, {1}, {2} = 0.1::float8 + 0.2, {3}, {4}, {5}, {6}, {7} from {rows}`,
  });
  session.settings = registry.empty;
  t.same(client.error, null);
  t.same(client.values, [['{"a": "\\"{}"}', '\\xff00', 't', 'infinity', null, 'NaN', `a',"\\`, '']]);
  const none = await bench.answer({
    text: 'select tenant_id, count(*) from kv where false group by 1',
    partials: ['group', 'count'],
    finalText: 'select {0}, sum({1}) from {rows} group by 1',
  });
  t.equal(none.tag, 'SELECT 0');
});

t.test('parameters of the client keep their numbers in the final statement', async (t) => {
  const parameters = textParameters('100', '1');
  for (let run = 0; run < 3; run++) {
    const client = await bench.answer({
      text: 'select n % 3, count(*) from kv where n <= $1 and n > $2 group by 1',
      source: sourceOf('select n % 3, count(*) from kv where n <= $1 and n > $2 group by 1'),
      partials: ['group', 'count'],
      parameters,
      resultFormats: [0, 1],
      finalText: 'select {0}, sum({1})::int8 from {rows} group by 1 order by 1 offset $2',
    });
    t.same(client.error, null);
    t.same(client.values, [
      ['1', '\0\0\0\0\0\0\0!'],
      ['2', '\0\0\0\0\0\0\0!'],
    ]);
  }
});

t.test('what cannot be combined is refused, and an error of the final statement is told', async (t) => {
  const array = await bench.answer({
    text: 'select array_agg(n) from kv',
    partials: ['array_agg'],
    finalText: 'select {0} from {rows}',
  });
  t.match(array.error, { C: '0A000', M: /array_agg of type with OID 1016/ });
  const final = await bench.answer({
    text: 'select count(*) from kv',
    partials: ['count'],
    finalText: 'select 1 / (sum({0}) - 3000) from {rows}',
  });
  t.equal(final.error?.['C'], '22012');
  const large = await bench.answer({
    text: 'select key from kv',
    partials: ['group'],
    finalText: 'select {0} from {rows}',
    limits: { partialBytesMax: 10_000 },
  });
  t.match(large.error, { C: '54000', D: /10000 bytes/ });
});

t.test('the client is not told of settings of other shards', async (t) => {
  const { session } = bench;
  const told = new Map(session.told).set('TimeZone', 'as the client was told');
  session.told = told;
  await bench.answer({ text: 'select 1' });
  t.equal(session.told, told);
});

t.test('a connection whose server does not even react to a cancel is closed', async (t) => {
  const hasty = { ...systemClock, after: (ms: number, act: () => void) => systemClock.after(ms / 50, act) };
  const { run, client } = bench.read({ text: 'select pg_sleep(20)', clock: hasty });
  run.start();
  await sleep(100);
  const stuck = [...bench.shards[1]!.pool.connections()].find(({ replies }) => replies.length > 0)!;
  process.kill(stuck.pid, 'SIGSTOP');
  try {
    run.cancel();
    await client.ended();
    t.equal(client.error?.['C'], '57014');
    t.ok(stuck.dead);
  } finally {
    process.kill(stuck.pid, 'SIGCONT');
  }
});

t.test('a read that waits for a connection can be cancelled and abandoned', async (t) => {
  const hogs = Array.from({ length: 4 }, () => bench.read({ text: 'select pg_sleep(20)' }));
  for (const { run } of hogs) run.start();
  await sleep(200);
  const cancelled = bench.read({ text: 'select 1' });
  cancelled.run.start();
  cancelled.run.cancel();
  t.match(cancelled.client.error, { C: '57014', M: 'canceling statement due to user request' });
  const abandoned = bench.read({ text: 'select 1' });
  abandoned.run.start();
  abandoned.run.abandon();
  for (const { pool } of bench.shards) t.equal(pool.waitingCount, 0);
  for (const { run } of hogs) run.cancel();
  await Promise.all(hogs.map(({ client }) => client.ended()));
  await bench.quiet();
  t.same(abandoned.client.events, []);
});

t.test(
  'a connection that breaks during a read, and a server that is down, are told with the name of the shard',
  async (t) => {
    const { run, client } = bench.read({ text: `select n from kv, pg_sleep(0.3)` });
    run.start();
    await sleep(100);
    await bench.shards[1]!.query(`select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(0.3)%'
    and pid <> pg_backend_pid()`);
    await client.ended();
    t.match(client.error, { C: '08006', S: 'ERROR', D: /shard "s2" is missing from the answer.*administrator/ });
    await bench.quiet();

    await bench.shards[2]!.server.stop();
    const count = { text: 'select count(*) from kv', partials: ['count'], finalText: 'select sum({0}) from {rows}' };
    for (let attempt = 0; attempt < 2; attempt++) {
      const down = await bench.answer(count);
      t.match(down.error, { C: '08006', D: /shard "s3" is missing from the answer: / });
      t.same(down.events, ['failed']);
    }
    await bench.quiet();
  },
);
