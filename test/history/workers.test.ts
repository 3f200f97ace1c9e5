// Workers that merge together (R50) are killed and stopped at random moments, while many clients work on few keys of two shards:
// what clients were told must be linearizable for each object (two keys of a shard), so no write that was acknowledged is lost,
// none that was refused is done, and nothing may hang.
//   PGKV_LONG=1   40 rounds instead of a few
//   PGKV_SEED=n   other rounds
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { initialView } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { allowSilentCloses } from '../oracle/watch.js';
import { evenSpread, KV, kvServers } from '../support/kv-cluster.js';
import { buildPackage } from '../support/router-process.js';
import { SeededRandom } from '../support/seeded-random.js';
import { handedOver, sharedWorkers } from '../support/shared-workers.js';
import { SqlClient } from '../support/sql-client.js';
import { HistoryClient, type HistoryNotes, type HistoryObject } from './history-client.js';
import { type Cell, stateText } from './kv-object.js';
import { linearize, type Operation } from './linearizable.js';

// Those of a worker that is killed.
allowSilentCloses();

const { env } = process;
const LONG = env['PGKV_LONG'] === '1';
const SEED = Number(env['PGKV_SEED'] ?? 1);
const ROUNDS = Number(env['PGKV_ROUNDS'] ?? (LONG ? 40 : 2));
/** Each worker is replaced later each time it dies. */
const ROUNDS_OF_ROUTER = 2;
const WORKERS = 4;
const CLIENTS = 20;
const OPERATIONS_EACH = 40;
const SHARDS = 2;
const OBJECTS = 8;
const SHOWN_MAX = 15;
const LOGIN_ATTEMPTS = 30;
const REST_TIMEOUT_MS = 10_000;
/** Of a round, at most. */
const FAULTS = 6;
const KILLED = 2;
/** Of what waits for an owner that stands still; some of them stand still for longer. */
const DEADLINE_MS = 1_500;
const STOPPED_MS = [150, 600, 2_500] as const;

t.setTimeout(LONG ? 3_600_000 : 600_000);

function makeObjects(): HistoryObject[] {
  const shards = evenSpread(SHARDS, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] }));
  const view = initialView(shards, [KV]);
  const objects: HistoryObject[] = [];
  for (let n = 0; objects.length < OBJECTS; n++) {
    if (view.shardOfSlot[hashSlotOf('t', `{${n}}`)] !== objects.length % SHARDS) continue;
    objects.push({ keys: [`{${n}}a`, `{${n}}b`], operations: [] });
  }
  return objects;
}

const showOperation = ({ what, call, end }: Operation): string =>
  `${call.toFixed(2)} … ${end === Number.POSITIVE_INFINITY ? '?' : end.toFixed(2)}  ${what}`;

/** Of the router's workers. */
const workersOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);

/** One that has just died is none of ours any more. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

async function strike(routerPid: number, random: SeededRandom, isOver: () => boolean): Promise<string[]> {
  const struck: string[] = [];
  let killed = 0;
  while (!isOver() && struck.length < FAULTS) {
    await sleep(20 + random.integer(300));
    const workers = workersOf(routerPid);
    if (workers.length === 0 || isOver()) continue;
    const worker = random.pick(workers);
    if (random.chance(0.3) && killed < KILLED) {
      killed++;
      struck.push('killed');
      signal(worker, 'SIGKILL');
      continue;
    }
    const forMs = random.pick(STOPPED_MS);
    struck.push(`stopped for ${forMs} ms`);
    signal(worker, 'SIGSTOP');
    await sleep(forMs);
    if (random.chance(0.3) && killed < KILLED) {
      killed++;
      struck.push('killed while it stood still');
      signal(worker, 'SIGKILL');
    }
    signal(worker, 'SIGCONT');
  }
  return struck;
}

t.test('what clients are told while workers die is linearizable', { skip: process.platform !== 'linux' }, async (t) => {
  await loadKeyHash();
  const { program } = buildPackage(t);
  const cluster = await kvServers(t, SHARDS, { tables: [KV] });
  const direct = await Promise.all(
    cluster.servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: 'postgres' })),
  );
  t.teardown(() => Promise.all(direct.map((client) => client.end())));
  const atRest = async (): Promise<string[]> => {
    const sql = `SELECT state || ': ' || query FROM pg_stat_activity WHERE backend_type = 'client backend'
      AND pid <> pg_backend_pid() AND state <> 'idle' AND query NOT LIKE '%pg_catalog.%'`;
    for (const end = performance.now() + REST_TIMEOUT_MS; ; ) {
      const left = (await Promise.all(direct.map((client) => client.rows(sql)))).flat().map(([text]) => text!);
      if (left.length === 0 || performance.now() > end) return left;
      await sleep(5);
    }
  };
  const statesOf = async (objects: readonly HistoryObject[]): Promise<string[]> => {
    const cells = new Map<string, Cell>();
    for (const client of direct) {
      for (const [key, value, version] of await client.rows('SELECT key, value, version FROM kv')) {
        cells.set(key!, [Number(value), Number(version)]);
      }
    }
    return objects.map(({ keys }) => stateText([cells.get(keys[0]) ?? null, cells.get(keys[1]) ?? null]));
  };

  const codes = new Map<string, number>();
  const faults = new Map<string, number>();
  let operations = 0;
  for (let first = 1; first <= ROUNDS; first += ROUNDS_OF_ROUTER) {
    const router = await sharedWorkers(t, cluster, {
      program,
      workers: WORKERS,
      merged: `deadline_ms = ${DEADLINE_MS}`,
    });
    const connect = async (): Promise<SqlClient> => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await router.connect();
        } catch (error) {
          // It was on its way to a worker that was killed.
          if (attempt === LOGIN_ATTEMPTS) throw error;
          await sleep(20);
        }
      }
    };
    for (let round = first; round < first + ROUNDS_OF_ROUTER && round <= ROUNDS; round++) {
      const seed = SEED * 1_000 + round;
      const objects = makeObjects();
      const notes: HistoryNotes = { problems: [], codes };
      const initial = await statesOf(objects);
      const clients = Array.from(
        { length: CLIENTS },
        (_, n) =>
          new HistoryClient(`c${n}`, seed * 1e6 + n * 1_000, new SeededRandom(seed, n + 1), objects, notes, connect),
      );
      let isOver = false;
      const struck = strike(router.pid, new SeededRandom(seed), () => isOver);
      await Promise.all(clients.map((client) => client.play(OPERATIONS_EACH)));
      isOver = true;
      for (const what of await struck) faults.set(what, (faults.get(what) ?? 0) + 1);
      for (const client of clients) client.leave();
      // One that stood still goes on with what it has read.
      await sleep(300);
      for (const text of await atRest()) notes.problems.push(`left on a server: ${text}`);
      const final = await statesOf(objects);
      const now = performance.now();
      for (const [index, object] of objects.entries()) {
        const last: Operation = {
          call: now,
          end: now + 1,
          step: (text) => (text === final[index] ? text : null),
          what: `found at the end: ${final[index]}`,
        };
        const all = [...object.operations, last];
        operations += all.length;
        const { kind, order } = linearize(initial[index]!, all);
        if (kind === 'linearizable') continue;
        const missing = all.filter((operation) => !order.includes(operation));
        t.fail(
          [
            `${kind}: round ${round} (PGKV_SEED=${SEED}), object ${object.keys[0]}, from ${initial[index]}; in order as far as it goes:`,
            ...order.map(showOperation),
            'and no place for any of:',
            ...missing.slice(0, SHOWN_MAX).map(showOperation),
          ].join('\n    '),
        );
      }
      // A worker that stood still for longer than the deadline gives up what its servers have answered meanwhile.
      const problems = notes.problems.filter((problem) => !problem.includes('(merged.deadline_ms)'));
      for (const problem of [...new Set(problems)]) t.fail(`round ${round}: ${problem}`);
    }
    const { handed, owned, takenBack } = await handedOver(router);
    t.comment(`${handed} handed over, ${owned} taken, ${takenBack} taken back`);
    t.ok(handed > 0, 'workers merge together');
    router.signal('SIGTERM');
    t.equal(await router.exited, 0);
  }
  t.comment(`${operations} operations, ${JSON.stringify([...faults])}, answers ${JSON.stringify([...codes])}`);
  t.ok(operations > ROUNDS * CLIENTS, 'every object has an order');
});
