// A client that is alone in the merged lane: its statements are sent at once and not behind the turn of the event loop, as long as
// nobody else comes. The rules of the lane (D11, D12) hold for them as for any: one snapshot for the reads of a pipeline, one
// write of a key at a time, each client its own answer.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { encodeAll, type FrontendMessage } from '../support/frontend-message.js';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { FILL, GET, INCR, UPSERT } from '../support/merged-cases.js';
import {
  batchBytes,
  directClient,
  queryBytes,
  type TickClient,
  tickClients,
  told,
  untilMerged,
} from '../support/merged-clients.js';
import { SeededRandom } from '../support/seeded-random.js';

/** More than it takes to count as alone. */
const ALONE = 20;

const cluster = await kvServers(t, 1, { tables: [KV] });
const direct = await directClient(cluster.servers[0]!);
t.teardown(() => direct.sql.wire.destroy());

async function lonely(client: TickClient, bytesOf: (index: number) => Buffer): Promise<void> {
  for (let index = 0; index < ALONE; index++) await client.ask(bytesOf(index));
}

async function start(t: Test, count: number) {
  await direct.ask(queryBytes(FILL));
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, count);
  await untilMerged(t, live, clients, (i) => batchBytes(GET, ['t', `k${i}`]));
  await untilMerged(t, live, clients, (i) => batchBytes(UPSERT, ['t', `k${i}`, `{"n": ${i}}`]));
  await untilMerged(t, live, clients, (i) => batchBytes(INCR, ['t', `n${i}`]));
  return { live, clients, counters: live.router.counters };
}

t.test('the reads of a pipeline are asked at one time behind lone ones, too', async (t) => {
  const { clients, counters } = await start(t, 8);
  const [client] = clients;
  await lonely(client!, (i) => batchBytes(GET, ['t', `k${i}`]));
  const before = counters.mergedBatches;
  const keys = [1, 2, 3, 4, 5];
  const units = keys.flatMap((key): FrontendMessage[] => [
    { parse: GET },
    { bind: ['t', `k${key}`] },
    { describe: 'portal' },
    { execute: '' },
  ]);
  const { rows } = told(await client!.ask(encodeAll([...units, 'sync'])));
  t.same(
    rows,
    keys.map((key) => [`{"n": ${key}}`]),
  );
  t.equal(counters.mergedBatches - before, 1);
});

t.test('a lone write of a key that somebody else is writing by himself waits for him', async (t) => {
  const { clients, counters } = await start(t, 8);
  const [client, other] = clients;
  await client!.ask(batchBytes(INCR, ['t', 'held']));
  await direct.run(`begin; update kv set value = '1' where key = 'held'`);
  // Its batch meets the lock, and it goes on on a lease.
  const reruns = counters.mergedReruns;
  other!.send(batchBytes(INCR, ['t', 'held']));
  while (counters.mergedReruns === reruns) await sleep(5);
  await lonely(client!, (i) => batchBytes(INCR, ['t', `n${i}`]));
  const before = counters.mergedBatches;
  client!.send(batchBytes(INCR, ['t', 'held']));
  await clients[2]!.ask(batchBytes(GET, ['t', 'k1']));
  await sleep(50);
  t.equal(counters.mergedBatches - before, 1, 'only the read was sent');
  await direct.run('commit');
  const answers = [await other!.answer(), await client!.answer()];
  t.same(
    answers.map((answer) => told(answer).rows),
    [[['2']], [['3']]],
  );
});

t.test('clients that come and go get what is theirs, alone and together', async (t) => {
  const seed = Number(process.env['PGKV_SEED'] ?? Date.now() % 1e9);
  t.comment(`PGKV_SEED=${seed}`);
  const random = new SeededRandom(seed);
  const { clients } = await start(t, 8);
  const model = new Map<string, string>();
  for (let i = 0; i < 64; i++) model.set(`k${i}`, `{"n": ${i}}`);
  let wrong = 0;
  for (let round = 0; round < 400; round++) {
    const who = random.chance(0.8) ? clients.slice(0, 1) : clients.slice(0, random.between(1, 8));
    const keys = who.map(() => `k${random.integer(64)}`);
    const writes = random.chance(0.3);
    // Of two that write one key nobody knows who is the last.
    if (writes && new Set(keys).size < keys.length) continue;
    const values = keys.map(() => `{"n": "${'x'.repeat(random.integer(random.chance(0.1) ? 70_000 : 200))}${round}"}`);
    const answers = await Promise.all(
      who.map((client, i) =>
        client.ask(writes ? batchBytes(UPSERT, ['t', keys[i]!, values[i]!]) : batchBytes(GET, ['t', keys[i]!])),
      ),
    );
    for (const [i, answer] of answers.entries()) {
      const { rows, tags, code } = told(answer);
      const expected = writes ? ['', 'INSERT 0 1'] : ['', model.get(keys[i]!)];
      const found = writes ? [code, tags[0]] : [code, rows[0]?.[0]];
      if (found.join() !== expected.join()) wrong++;
      if (writes) model.set(keys[i]!, values[i]!);
    }
  }
  t.equal(wrong, 0);
  const { rows } = told(await direct.ask(queryBytes(`select key, value from kv where tenant_id = 't' and key ~ '^k'`)));
  t.same(new Map(rows.filter(([key]) => model.has(key!)) as [string, string][]), model);
});
