// Merged statements that were never handed to a server (D11 rule 6): they are run again or refused, and never called
// unknown; and whatever becomes of them, or of their clients, the keys they would have written are free again.
import type { Socket } from 'node:net';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { reset } from '../support/bystander.js';
import { DATABASE, faultyShard } from '../support/faulty-shard.js';
import { GET, INCR } from '../support/merged-cases.js';
import {
  batchBytes,
  directClient,
  queryBytes,
  type TickClient,
  tickClients,
  together,
  told,
  untilMerged,
} from '../support/merged-clients.js';

const WAIT_MS = 200;

const { server, routerBehindProxy } = await faultyShard(t);
const direct = await directClient(server, DATABASE);
t.teardown(() => direct.sql.wire.destroy());

const onServer = (sql: string) => direct.run(sql);

const incr = (i: number): Buffer => batchBytes(INCR, ['t', `c${i}`]);
const read = (i: number): Buffer => batchBytes(GET, ['t', `c${i}`]);
const counts = () => onServer('select key, value::text from kv order by 1');
const codesOf = (answers: readonly Buffer[]): string[] => [...new Set(answers.map((answer) => told(answer).code))];

/** One server connection for 8 clients, through a proxy. */
async function narrow(t: Test) {
  await onServer('truncate kv');
  const { live, proxy } = await routerBehindProxy(t, { pool: { sizeMax: 1, waitTimeoutMs: WAIT_MS } });
  const [owner, ...clients] = await tickClients(live, 9, { database: DATABASE });
  await untilMerged(t, live, clients, incr);
  return { live, proxy, owner: owner!, clients };
}

t.test('writes for which there is no connection are refused, and not done', async (t) => {
  const { owner, clients } = await narrow(t);
  const before = await counts();
  await owner.ask(queryBytes('BEGIN; SELECT 1'));
  t.same(codesOf(await together(clients, incr)), ['53300']);
  await owner.ask(queryBytes('COMMIT'));
  t.same(await counts(), before);
  t.same(codesOf(await together(clients, incr)), [''], 'their keys are free');
});

t.test('a connection that is lost before the writes went out: they are done once, elsewhere', async (t) => {
  const { live, proxy, clients } = await narrow(t);
  await untilMerged(t, live, clients, read);
  await onServer(`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = '${DATABASE}' and pid <> pg_backend_pid() and backend_type = 'client backend'`);
  await sleep(50);
  // It knows the read, and has to be asked about the write first.
  t.same(codesOf(await together(clients, read)), ['']);
  const before = await counts();
  proxy.arm({ kind: 'cut', side: 'request', after: 1 });
  const answers = together(clients, incr);
  while (!proxy.struck) await turn();
  proxy.disarm();
  t.same(codesOf(await answers), ['']);
  t.same(
    await counts(),
    before.map(([key, value]) => [key, String(Number(value) + 1)]),
  );
});

t.test('a key is free again whose write met a lock, and was then refused', async (t) => {
  const { live, owner, clients } = await narrow(t);
  const [writer, stranger] = clients as [TickClient, TickClient];
  const query = (key: string): Buffer => queryBytes(`SELECT kv_incr('t', '${key}')`);
  await untilMerged(t, live, clients, (i) => query(`c${i}`));
  await onServer(`begin; update kv set value = '1' where key = 'c0'`);
  // The second one is taken up in the same turn in which the first one is refused.
  writer.send(Buffer.concat([query('c0'), query('c1')]));
  await sleep(20);
  const owned = owner.ask(queryBytes('BEGIN; SELECT 1'));
  t.equal(told(await writer.answer()).code, '53300');
  await owned;
  await onServer('commit');
  await owner.ask(queryBytes('COMMIT'));
  await writer.answer();
  const late = sleep(3_000).then(() => null);
  const answer = await Promise.race([stranger.ask(query('c0')), late]);
  t.same(answer === null ? 'nothing came' : told(answer).rows, [['2']]);
});

for (const [when, waitMs] of [
  ['in a batch', 30],
  ['by itself', 200],
] as const) {
  t.test(`a key is free again whose writer has gone while it waited for a lock ${when}`, async (t) => {
    const { clients } = await narrow(t);
    const [writer, stranger] = clients as [TickClient, TickClient];
    await onServer(`begin; update kv set value = '1' where key = 'c0'`);
    writer.send(incr(0));
    await sleep(waitMs);
    reset(writer.sql.wire.socket as Socket);
    await sleep(150);
    await onServer('commit');
    const late = sleep(3_000).then(() => null);
    const answer = await Promise.race([stranger.ask(incr(0)), late]);
    t.equal(answer === null ? 'nothing came' : told(answer).code, '');
  });
}
