// A merged connection that swallows bytes without an end (D29): after the deadline it is closed, reads are refused with 08006,
// writes that were sent get 08007, what was not sent is done by other means; and the shard is not held up by it.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { eventually } from '../support/bystander.js';
import type { Fault, FaultProxy } from '../support/fault-proxy.js';
import { DATABASE, faultyShard } from '../support/faulty-shard.js';
import { GET, INCR } from '../support/merged-cases.js';
import {
  batchBytes,
  becomesMerged,
  directClient,
  queryBytes,
  type TickClient,
  tickClients,
  together,
  told,
  untilMerged,
} from '../support/merged-clients.js';

const DEADLINE_MS = 400;
/** Of the start-up packets of merged connections. */
const MERGED = 'plan_cache_mode';

const { server, routerBehindProxy } = await faultyShard(t);
const direct = await directClient(server, DATABASE);
t.teardown(() => direct.sql.wire.destroy());

const onServer = (sql: string) => direct.run(sql);
const incr = (i: number): Buffer => batchBytes(INCR, ['t', `c${i}`]);
const read = (i: number): Buffer => batchBytes(GET, ['t', `c${i}`]);
const pipeline = (i: number): Buffer => {
  const one = batchBytes(GET, ['t', `c${i}`], { describes: false });
  return Buffer.concat([one.subarray(0, one.length - 5), one]);
};
const codesOf = (answers: readonly Buffer[]): string[] => [...new Set(answers.map((answer) => told(answer).code))];

async function counts(): Promise<Record<string, number>> {
  const rows = await onServer('select key, value::text from kv');
  return Object.fromEntries(rows.map(([key, value]) => [key!, Number(value)]));
}

/** Clients whose statements are merged, leases that no fault touches. */
async function clientsOf(t: Test, sizeMax: number) {
  await onServer(
    `truncate kv; insert into kv (tenant_id, key, value) select 't', 'c' || g, '0' from generate_series(0, 7) g`,
  );
  const { live, proxy } = await routerBehindProxy(t, { pool: { sizeMax }, merged: { deadlineMs: DEADLINE_MS } });
  proxy.only = MERGED;
  const clients = await tickClients(live, 8, { database: DATABASE });
  return { live, proxy, clients };
}

/** What is sent first over merged connections meets the fault, nothing behind it. */
async function into(proxy: FaultProxy, fault: Fault, ask: () => Promise<Buffer[]>): Promise<Buffer[]> {
  proxy.arm(fault);
  const answers = ask();
  while (!proxy.struck) await turn();
  proxy.disarm();
  return answers;
}

const SWALLOWED: Fault = { kind: 'stall', side: 'request', after: 0 };

for (const [what, question, code] of [
  ['reads', read, '08006'],
  ['pipelines of reads', pipeline, '08006'],
  ['writes', incr, '08007'],
] as const) {
  t.test(`${what} whose bytes are swallowed get ${code} after the deadline, and the next ones go on`, async (t) => {
    const { live, proxy, clients } = await clientsOf(t, 8);
    await untilMerged(t, live, clients, question, what);
    const before = await counts();
    const began = performance.now();
    const answers = await into(proxy, SWALLOWED, () => together(clients, question));
    const waited = performance.now() - began;
    t.same(codesOf(answers), [code]);
    t.match(told(answers[0]!).error?.['M'], /merged\.deadline_ms/, 'the message says why');
    t.ok(waited >= DEADLINE_MS, `not before: ${waited.toFixed()} ms`);
    t.same(await counts(), before, 'the server has seen nothing of it');
    t.same(codesOf(await together(clients, question)), [''], 'the keys are free, and the connection is not used again');
    await untilMerged(t, live, clients, question, `${what}, again`);
  });
}

t.test('writes whose answer is swallowed get 08007, and are done once', async (t) => {
  const { live, proxy, clients } = await clientsOf(t, 8);
  await untilMerged(t, live, clients, incr);
  const before = await counts();
  t.same(codesOf(await into(proxy, { kind: 'stall', side: 'answer', after: 0 }, () => together(clients, incr))), [
    '08007',
  ]);
  const after = Object.fromEntries(Object.entries(before).map(([key, count]) => [key, count + 1]));
  t.same(await counts(), after);
  t.same(codesOf(await together(clients, incr)), ['']);
});

t.test('a change of settings that is swallowed: nothing was sent, so that all is done on leases', async (t) => {
  const { live, proxy, clients } = await clientsOf(t, 8);
  await untilMerged(t, live, clients, incr);
  for (const client of clients) await client.ask(queryBytes(`SET timezone = 'Asia/Tokyo'`));
  // The statement is known under these settings, and the connection that is idle has others.
  const [other] = await tickClients(live, 1, { database: DATABASE });
  await other!.ask(incr(0));
  const before = await counts();
  const { counters } = live.router;
  const { mergedBatches } = counters;
  t.same(codesOf(await into(proxy, SWALLOWED, () => together(clients, incr))), ['']);
  // Clients that were heard a moment later may make a batch of their own, which the fault does not meet.
  t.ok(counters.mergedBatches <= mergedBatches + 1, `it was the change that met the fault: ${counters.mergedBatches}`);
  const after = Object.fromEntries(Object.entries(before).map(([key, count]) => [key, count + 1]));
  t.same(await counts(), after, 'each once');
});

t.test('a look-up that is swallowed is given up, and made again', async (t) => {
  const { live, proxy, clients } = await clientsOf(t, 8);
  await untilMerged(t, live, clients, incr);
  const other = (i: number): Buffer =>
    batchBytes('SELECT key, value FROM kv WHERE tenant_id = $1 AND key = $2', ['t', `c${i}`]);
  const swallowed = async (client: TickClient): Promise<Buffer> => {
    // Twice: the text has to be known before it is asked about.
    await client.ask(other(0));
    return client.ask(other(0));
  };
  const [answer] = await into(proxy, SWALLOWED, async () => [await swallowed(clients[0]!)]);
  t.equal(told(answer!).code, '', 'on a lease');
  await eventually(t, 'it is merged in the end', async () => {
    await sleep(50);
    return becomesMerged(live, clients, other, 5);
  });
});
