// A server that says nothing any more, without closing anything: whatever pgkv itself has asked it has a deadline, and when
// two connections of a node have missed theirs, none of the others is handed out untested (D29).
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { endingOf, FaultBench } from '../support/fault-bench.js';
import type { FaultProxy } from '../support/fault-proxy.js';
import type { LiveRouter } from '../support/live-router.js';
import type { SqlClient } from '../support/sql-client.js';

const bench = await FaultBench.start(t);
const ANSWER_MS = 300;
/** Far above deadline and sweep together, far below what a statement may take. */
const DEFINITE_MS = 15_000;

const behindProxy = (t: Test, sizeMax: number): Promise<{ live: LiveRouter; proxy: FaultProxy }> =>
  bench.behindProxy(t, { pool: { sizeMax }, servers: { connectTimeoutMs: 2_000, answerTimeoutMs: ANSWER_MS } });

const ask = async (client: SqlClient, query: string) =>
  endingOf(await client.wire.exchange([{ query }], 1, DEFINITE_MS));

/** As many clients in transactions as there are connections: from then on they are there, and idle. */
async function warm(live: LiveRouter, count: number): Promise<SqlClient[]> {
  const clients: SqlClient[] = [];
  for (let index = 0; index < count; index++) {
    const client = await bench.connect(live);
    await client.run('BEGIN', 'SELECT 1');
    clients.push(client);
  }
  for (const client of clients) await client.run('COMMIT');
  return clients;
}

const WAITS: readonly (readonly [what: string, prepare: string | null, statement: string])[] = [
  ['a change of settings', "SET work_mem = '1MB'", 'SELECT 1'],
  ['DISCARD SEQUENCES before lastval()', null, 'SELECT lastval()'],
];

for (const [what, prepare, statement] of WAITS) {
  t.test(`${what} that is never answered: the client hears of it, the connection is closed`, async (t) => {
    const { live, proxy } = await behindProxy(t, 1);
    const [client] = await warm(live, 1);
    const other = await bench.connect(live);
    if (prepare !== null) await client!.run(prepare);
    // The other session has the connection, with its own settings.
    await other.run("SET work_mem = '2MB'", "SELECT nextval('pg_catalog.pg_class'::regclass) WHERE false");
    proxy.arm({ kind: 'stall', side: 'answer', after: 0 });
    const ending = await ask(client!, statement);
    proxy.disarm();
    t.match(ending.code, /^(08006|55000)$/, JSON.stringify(ending));
    t.equal(await other.value('SELECT 7'), '7', 'the node is used again');
  });
}

t.test('a question for the state left that is never answered: the session is not left hanging', async (t) => {
  const { live, proxy } = await behindProxy(t, 1);
  const [client] = await warm(live, 1);
  // The answer to SET itself passes: 3 messages, CommandComplete, ParameterStatus none, ReadyForQuery.
  const tag = 1 + 4 + 'SET\0'.length;
  proxy.arm({ kind: 'stall', side: 'answer', after: tag + 6 });
  await ask(client!, "SET work_mem = '3MB'");
  t.ok(proxy.passed >= tag + 6, 'the statement was answered');
  const ending = await ask(client!, 'SELECT 1');
  proxy.disarm();
  t.not(ending.outcome, 'done');
  const next = await bench.goesOn(t, live, client!, ending);
  t.equal(await next.value('SELECT 7'), '7');
});

t.test('two connections that miss it: idle ones are tested before anybody gets them', async (t) => {
  // One is kept from leases.
  const { live, proxy } = await behindProxy(t, 7);
  const clients = await warm(live, 6);
  const { pool } = live.router;
  t.equal(pool.idleCount, 6);
  await clients[0]!.run("SET work_mem = '1MB'");
  await clients[1]!.run("SET work_mem = '1MB'");
  // None is left with their settings: both have to change some.
  while (pool.idleCount < 6) await sleep(5);
  for (const connection of [...pool.connections()]) if (connection.settings.values.size > 0) connection.destroy('test');
  proxy.arm({ kind: 'stall', side: 'answer', after: 0 });
  const missed = [clients[0]!, clients[1]!].map((client) => ask(client, 'SELECT 1'));
  for (const ending of await Promise.all(missed)) t.equal(ending.code, '08006');
  while (pool.openCount > 0) await sleep(20);
  t.pass('those that were idle have been closed, untouched by any client');
  proxy.disarm();
  for (const client of clients.slice(2)) t.equal(await client.value('SELECT 7'), '7');
  t.ok(pool.counters.silentTotal >= 4, `${pool.counters.silentTotal} were silent`);
});

t.test('a server that answers late, but answers, keeps its idle connections', async (t) => {
  const { live, proxy } = await behindProxy(t, 3);
  const clients = await warm(live, 3);
  await clients[0]!.run("SET work_mem = '1MB'");
  proxy.arm({ kind: 'drip', bytes: 1 });
  for (const client of clients) t.equal(await client.value('SELECT 7'), '7');
  t.equal(live.router.pool.openCount, 3);
  t.equal(live.router.pool.counters.silentTotal, 0);
});
