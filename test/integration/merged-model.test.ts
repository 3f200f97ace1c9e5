// Everything at once: 64 clients with a random mix of statements on few keys of two shards, whose every answer is checked
// against what must be true of a database: one order of all writes of a key, each done once or not at all, as its client
// was told, and no read behind the times.
//   PGKV_SEED=123  plays that seed (what the clients do; when they meet is chance)
//   PGKV_LONG=1    a million statements
//   PGKV_KEEP=dir  writes what was seen of a key there, as JSON, where that cannot be true
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { Counters } from '../../src/telemetry/counters.js';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { SqlClient } from '../support/sql-client.js';
import type { Asked } from './merged-model/asked.js';
import { BYSTANDER, ModelClient } from './merged-model/model-client.js';
import type { Answer } from './merged-model/wire-forms.js';
import { BORN_LATE, World } from './merged-model/world.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const LONG = process.env['PGKV_LONG'] === '1';
const STATEMENTS = LONG ? 1_000_000 : 8_000;
/** All that a round saw is judged behind it, and forgotten. */
const ROUND_STATEMENTS = LONG ? 20_000 : STATEMENTS;
const SHORT_STATEMENTS = LONG ? 3_000 : 2_000;
/** Of a round; deadlock_timeout is far below its default of 1 s here. */
const BYSTANDERS_MAX = 3;
/** Keys of a round; see key-history.ts. */
const BORN_LATE_MAX = 1;
const CLIENTS = 64;
const WITH_TRANSACTIONS = 6;

t.setTimeout(STATEMENTS > ROUND_STATEMENTS ? 3_600_000 : 240_000);
const cluster = await kvServers(t, 2, { tables: [KV] });
const direct = await Promise.all(
  cluster.servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: 'postgres' })),
);
t.teardown(() => Promise.all(direct.map((client) => client.end())));
for (const client of direct) {
  await client.run(
    // As users have them: what is reborn has a higher version.
    'alter table kv alter column version set default pgkv.first_version()',
    `alter table kv add constraint sane check (value::text not like '"forbidden%')`,
    // Found before the merged lane's patience ends, too.
    "alter system set deadlock_timeout = '60 ms'",
    'select pg_reload_conf()',
  );
}
t.comment(`PGKV_SEED=${SEED}`);

interface Played {
  readonly world: World;
  /** Transactions that the servers have done for a statement. */
  readonly transactionsPerStatement: number;
  readonly counters: Counters;
}

async function play(
  t: Test,
  round: number,
  statements: number,
  isMerged: boolean,
  tamper?: World['tamper'],
): Promise<Played> {
  const live = await kvRouter(t, cluster, { merged: { disabled: !isMerged } });
  const user = { user: cluster.servers[0]!.superuser, database: 'postgres' };
  const world = new World(SEED, round, statements, tamper);
  const before = await transactions();
  const clients = Array.from({ length: CLIENTS }, (_, number) => new ModelClient(world, number, live, user));
  await Promise.all(clients.map((client, number) => client.run(number < WITH_TRANSACTIONS)));
  const done = (await transactions()) - before;
  // What vanished clients have asked for is done, or will never be.
  while (live.router.pools.some((pool) => pool.openCount !== pool.idleCount)) await sleep(10);
  await new ModelClient(world, CLIENTS, live, user).readAll(world.known);
  world.judge();
  for (const client of direct) await client.run('truncate kv');
  return { world, transactionsPerStatement: done / world.taken, counters: live.router.counters };
}

const transactions = (): Promise<number> =>
  sumOf("select xact_commit + xact_rollback from pg_stat_database where datname = 'postgres'");

/** Of a number that each server answers. */
async function sumOf(sql: string): Promise<number> {
  let sum = 0;
  for (const client of direct) sum += Number(await client.value(sql));
  return sum;
}

for (let round = 0; round < STATEMENTS / ROUND_STATEMENTS; round++) {
  t.test(`every answer of a random mix is true, round ${round}`, async (t) => {
    const began = performance.now();
    const { world, transactionsPerStatement, counters } = await play(t, round, ROUND_STATEMENTS, true);
    t.same(world.problems, [], `PGKV_SEED=${SEED}`);
    t.ok((world.counts.get(BYSTANDER) ?? 0) <= BYSTANDERS_MAX, 'deadlocks hardly ever meet strangers');
    t.ok((world.counts.get(BORN_LATE) ?? 0) <= BORN_LATE_MAX, 'lives go by their versions');
    const { mergedBatches, mergedStatements, mergedReruns } = counters;
    t.ok(mergedStatements > 1.2 * mergedBatches, `${mergedStatements} statements in ${mergedBatches} batches`);
    if (round === 0)
      t.comment(
        [...world.counts]
          .map(([what, count]) => `${what} ${count}`)
          .sort()
          .join(', '),
      );
    const ms = Math.round(performance.now() - began);
    t.comment(
      `${ms} ms, ${transactionsPerStatement.toFixed(2)} transactions a statement, ${mergedStatements} in ${mergedBatches} batches, ${mergedReruns} ran by themselves`,
    );
  });
}

t.test('so it is where statements are not merged', async (t) => {
  const { world, transactionsPerStatement, counters } = await play(t, 1_000, SHORT_STATEMENTS, false);
  t.same(world.problems, [], `PGKV_SEED=${SEED}`);
  t.equal(counters.mergedStatements, 0);
  t.comment(`${transactionsPerStatement.toFixed(2)} transactions a statement`);
});

t.test('two clients that get each other’s answer are noticed', async (t) => {
  let first: { readonly asked: Asked; readonly answer: Answer } | null = null;
  let isDone = false;
  const { world } = await play(t, 1_001, SHORT_STATEMENTS, false, (asked, answer) => {
    if (isDone || asked.kind !== 'read' || answer.rows.length === 0) return answer;
    first ??= { asked, answer };
    if (first.asked.key.name === asked.key.name) return answer;
    isDone = true;
    return first.answer;
  });
  t.not(world.problems.length, 0);
  t.comment(world.problems[0] ?? '');
});
