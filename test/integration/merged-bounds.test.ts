// How much is merged, and under what (D11 rules 3, 9 and 10): rows and bytes of a batch, bytes of its answer, groups of
// settings, the settings of shared connections, and the order in which those who write one key have their turn.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { KvTable } from '../../src/cluster/kv-table.js';
import { MERGED_LIMITS } from '../../src/execute/merged/merged-lane.js';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import type { LiveRouter } from '../support/live-router.js';
import { FILL, GET, UPSERT } from '../support/merged-cases.js';
import {
  batchBytes,
  becomesMerged,
  directClient,
  grants,
  queryBytes,
  type TickClient,
  tickClients,
  together,
  told,
  untilMerged,
} from '../support/merged-clients.js';

const KIB = 1024;
const PROBED: KvTable = { ...KV, name: 'probed' };
const cluster = await kvServers(t, 1, { tables: [KV, PROBED] });
const server = cluster.servers[0]!;
const direct = await directClient(server);
t.teardown(() => direct.sql.wire.destroy());

const onServer = (sql: string) => direct.run(sql);

const read = (i: number): Buffer => batchBytes(GET, ['t', `k${i}`]);
const longValue = (kib: number): string => `"${'x'.repeat(kib * KIB)}"`;
const succeeded = (answers: readonly Buffer[]): boolean => answers.every((answer) => told(answer).code === '');

/** One server connection for all: while one client keeps it, what the others send gathers. */
interface Narrow {
  readonly live: LiveRouter;
  readonly owner: TickClient;
  /** As many as have batches of their own under way, so that what comes behind them waits together. */
  readonly leaders: TickClient[];
  readonly clients: TickClient[];
}

async function narrow(t: Test, inFlight: number, count: number): Promise<Narrow> {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 1 } });
  const [owner, ...all] = await tickClients(live, 1 + inFlight + count);
  return { live, owner: owner!, leaders: all.slice(0, inFlight), clients: all.slice(inFlight) };
}

/** @returns batches by which the clients were answered, the leaders' not counted */
async function gathered(
  t: Test,
  { live, owner, leaders, clients }: Narrow,
  bytesOf: (index: number) => Buffer,
): Promise<number> {
  const { counters } = live.router;
  await owner.ask(queryBytes('BEGIN; SELECT 1'), 1);
  const before = counters.mergedBatches;
  for (const [index, leader] of leaders.entries()) {
    leader.send(bytesOf(clients.length + index));
    await sleep(5);
  }
  for (const [index, client] of clients.entries()) {
    // In two turns: there is no place for another batch in either.
    if (index === clients.length >> 1) await sleep(5);
    client.send(bytesOf(index));
  }
  await sleep(50);
  await owner.ask(queryBytes('COMMIT'));
  const answers = await Promise.all([...leaders, ...clients].map((client) => client.answer()));
  t.ok(succeeded(answers));
  return counters.mergedBatches - before - leaders.length;
}

/** Rows that each transaction has written, the most first. */
async function written(prefix: string): Promise<number[]> {
  const rows = await onServer(
    `select count(*) from kv where key like '${prefix}%' group by xmin::text order by 1 desc`,
  );
  return rows.map(([count]) => Number(count));
}

t.test('rows of a batch', async (t) => {
  await onServer(FILL);
  const { readMembersMax, writeMembersMax, readsInFlight, writesInFlight } = MERGED_LIMITS;
  const readers = await narrow(t, readsInFlight, 2 * readMembersMax + 10);
  await untilMerged(t, readers.live, readers.clients.slice(0, 8), read);
  t.equal(await gathered(t, readers, read), 3, 'batches of reads');
  for (const client of [readers.owner, ...readers.leaders, ...readers.clients]) client.sql.wire.destroy();

  const writers = await narrow(t, writesInFlight, writeMembersMax + 10);
  const write = (i: number): Buffer => batchBytes(UPSERT, ['t', `w${i}`, '1']);
  await untilMerged(t, writers.live, writers.clients.slice(0, 8), write);
  await onServer('truncate kv');
  await gathered(t, writers, write);
  t.same(
    await written('w'),
    // The first goes by itself; beside it a second one when it is full; what is left when one has ended.
    [writeMembersMax, 10 + writesInFlight - 1, 1],
    'rows of each batch of writes',
  );
});

t.test('bytes of a batch', async (t) => {
  await onServer('truncate kv');
  const all = await narrow(t, MERGED_LIMITS.writesInFlight, 20);
  const write = (i: number, kib: number): Buffer => batchBytes(UPSERT, ['t', `b${i}`, longValue(kib)]);
  await untilMerged(t, all.live, all.clients, (i) => write(i, 0));
  await onServer('truncate kv');
  await gathered(t, all, (i) => write(i, 60));
  // The one that goes over the bound is the last.
  t.equal((await written('b'))[0], Math.floor(MERGED_LIMITS.bytesMax / (60 * KIB)) + 1);
});

t.test('a long value is written by itself, in both protocols', async (t) => {
  await onServer('truncate kv');
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const forms = [
    (i: number, kib: number) => batchBytes(UPSERT, ['t', `l${i}`, longValue(kib)]),
    (i: number, kib: number) => queryBytes(UPSERT.replace('$1, $2, $3', () => `'t', 'l${i}', '${longValue(kib)}'`)),
  ];
  for (const form of forms) {
    await untilMerged(t, live, clients, (i) => form(i, 1));
    const { counters } = live.router;
    const before = counters.mergedStatements;
    t.ok(succeeded(await together(clients, (i) => form(i, 65))));
    t.equal(counters.mergedStatements, before);
    t.ok(succeeded(await together(clients, (i) => form(i, 60))));
    t.equal(counters.mergedStatements, before + clients.length);
  }
});

t.test('a write that returns rows of unknown length is sent with few others', async (t) => {
  await onServer(FILL);
  const all = await narrow(t, MERGED_LIMITS.writesInFlight, 60);
  const write = (i: number): Buffer =>
    batchBytes('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2 RETURNING value', ['t', `k${i}`, '1']);
  const { counters } = all.live.router;
  while (counters.mergedStatements === 0) await all.owner.ask(write(0));
  await gathered(t, all, write);
  t.equal(counters.mergedStatements, 1 + all.leaders.length + all.clients.length);
  const most = (await written('k'))[0]!;
  t.ok(most > 16 && most < 50, `${most} in one batch`);
});

t.test('bytes of the answers that are expected of a batch', async (t) => {
  await onServer(FILL);
  await onServer(`update kv set value = to_jsonb(repeat('x', ${100 * KIB})) where key like 'k%'`);
  const all = await narrow(t, MERGED_LIMITS.readsInFlight, 40);
  await untilMerged(t, all.live, all.clients.slice(0, 4), read);
  for (let round = 0; round < 20; round++) await together(all.clients.slice(0, 4), read);
  const batches = await gathered(t, all, read);
  t.ok(batches >= 4 && batches <= 10, `${batches} batches`);
});

t.test('answers that turn out too long are given up, and fetched one by one', async (t) => {
  await onServer(FILL);
  const all = await narrow(t, MERGED_LIMITS.readsInFlight, 60);
  const { counters } = all.live.router;
  for (const [name, bytesOf] of [
    ['of all keys', read],
    ['asked once, told to all', (i: number) => (i < 60 ? batchBytes(GET, ['t', 'k1']) : read(i))],
  ] as const) {
    await onServer(`update kv set value = '1'`);
    await untilMerged(t, all.live, all.clients, read);
    for (let round = 0; round < 80; round++) await together(all.clients.slice(0, 2), read);
    await onServer(
      `update kv set value = to_jsonb(repeat('x', ${200 * KIB})) where key like 'k%' and substr(key, 2)::int4 < 60`,
    );
    const before = counters.mergedReruns;
    await gathered(t, all, bytesOf);
    t.equal(counters.mergedReruns - before, 60, name);
  }
});

t.test('a statement whose answers are long leaves the lane', async (t) => {
  await onServer(FILL);
  await onServer(`update kv set value = to_jsonb(repeat('x', ${400 * KIB})) where key in ('k0', 'k1', 'k2', 'k3')`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 4);
  await untilMerged(t, live, clients, read);
  const { counters } = live.router;
  for (let round = 0; round < 20; round++) await together(clients, read);
  const before = counters.mergedBatches;
  t.ok(succeeded(await together(clients, read)));
  t.equal(counters.mergedBatches, before);
});

t.test('a few groups of settings are merged, further ones are not', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 4);
  const merged: boolean[] = [];
  for (let hours = 1; hours <= 10; hours++) {
    await together(clients, () => queryBytes(`SET timezone = '${hours}'`));
    merged.push(await becomesMerged(live, clients, read, hours <= 8 ? undefined : 12));
  }
  t.same(merged, [...new Array(8).fill(true), false, false]);
});

t.test('what a client calls itself keeps it from nobody', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  await together(clients, (i) => queryBytes(`SET application_name = 'client ${i}'`));
  await untilMerged(t, live, clients, read);
});

t.test('shared connections plan for any table, and wait for no lock for long', async (t) => {
  const names = ['plan_cache_mode', 'jit', 'max_parallel_workers_per_gather', 'lock_timeout'];
  for (const way of ['seqscan', 'hashjoin', 'mergejoin', 'bitmapscan', 'memoize', 'material'])
    names.push(`enable_${way}`);
  await onServer(`alter table probed add column settings text
    default concat_ws(' ', ${names.map((name) => `current_setting('${name}')`).join(', ')})`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 32);
  const write = (key: string) => (i: number) => batchBytes(UPSERT.replaceAll('kv', 'probed'), ['t', `${key}${i}`, '1']);
  await untilMerged(t, live, clients, write('first'));
  const before = grants(live);
  await together(clients, write('then'));
  t.ok(grants(live) - before <= 4);
  t.same(await onServer(`select distinct settings from probed where key like 'then%'`), [
    ['force_generic_plan off 0 100ms off off off off off off'],
  ]);
});

t.test('those who write a key that is held have their turn in the order in which they came', async (t) => {
  await onServer(`truncate kv; insert into kv (tenant_id, key, value) values ('t', 'held', '[]')`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 16);
  const append = (key: string, i: number): Buffer =>
    batchBytes('UPDATE kv SET value = value || $3 WHERE tenant_id = $1 AND key = $2', ['t', key, `${i}`]);
  await untilMerged(t, live, clients, (i) => append(`k${i}`, i));
  const { counters } = live.router;
  const writers = clients.slice(0, 6);
  const strangers = clients.slice(6);

  await onServer(`begin; select 1 from kv where key = 'held' for update`);
  writers[0]!.send(append('held', 0));
  await sleep(200);
  const before = counters.mergedReruns;
  // In the turn of strangers' writes, which it does not hold up.
  for (const [index, writer] of writers.entries()) {
    if (index === 0) continue;
    writer.send(append('held', index));
    t.ok(succeeded(await together(strangers, (i) => append(`k${i}`, i))));
  }
  t.equal(counters.mergedReruns, before, 'no further batch has met the lock');
  await onServer('commit');
  t.ok(succeeded(await Promise.all(writers.map((writer) => writer.answer()))));
  t.same(await onServer(`select value::text from kv where key = 'held'`), [['[0, 1, 2, 3, 4, 5]']]);
});

t.test('a statement that fails now and then, or meets locks, stays merged', async (t) => {
  await onServer('truncate kv');
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const write = (key: string, value: string): Buffer => batchBytes(UPSERT, ['t', key, value]);
  const good = (i: number): Buffer => write(`k${i}`, '1');
  await untilMerged(t, live, clients, good);
  for (let round = 0; round < 5; round++) {
    const answers = await together(clients, (i) => (i === 0 ? write('k0', '{"unfinished') : good(i)));
    t.same(
      answers.map((answer) => told(answer).code),
      ['22P02', ...new Array(7).fill('')],
    );
    const before = grants(live);
    t.ok(succeeded(await together(clients, good)));
    t.ok(grants(live) - before <= 2, `merged again: ${round}`);
  }
  for (let round = 0; round < 5; round++) {
    await onServer(`begin; select 1 from kv where key = 'k0' for update`);
    const answers = together(clients, good);
    await sleep(150);
    await onServer('commit');
    t.ok(succeeded(await answers));
  }
  const before = grants(live);
  t.ok(succeeded(await together(clients, good)));
  t.ok(grants(live) - before <= 2);
});

t.test('a statement is merged again behind a change of its table on the server', async (t) => {
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const all = (i: number): Buffer =>
    batchBytes('SELECT * FROM probed WHERE tenant_id = $1 AND key = $2', ['t', `then${i}`]);
  await untilMerged(t, live, clients, all);
  await onServer('alter table probed add column more text');
  t.ok(succeeded(await together(clients, all)));
  await untilMerged(t, live, clients, all);
});
