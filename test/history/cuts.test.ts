// Many clients work on few keys of three shards while connections between pgkv and its servers are lost at random bytes, or
// fall silent; what they were told must be linearizable for each object (two keys of a shard), and nothing may hang.
//   PGKV_LONG=1   200 rounds instead of a few
//   PGKV_SEED=n   other rounds
import t from 'tap';
import { initialView } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { takeViolations } from '../oracle/watch.js';
import { evenSpread, fixedCatalog, KV, prepareShard } from '../support/kv-cluster.js';
import { liveRouter } from '../support/live-router.js';
import { type Loss, LossyProxy } from '../support/lossy-proxy.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';
import { SqlClient } from '../support/sql-client.js';
import { HistoryClient, type HistoryNotes, type HistoryObject } from './history-client.js';
import { type Cell, stateText } from './kv-object.js';
import { linearize, type Operation } from './linearizable.js';

// This test judges by itself what the loss of a connection may look like; PGKV_ORACLE=1: the protocol oracle does as well.
if (process.env['PGKV_ORACLE'] !== '1') process.prependOnceListener('exit', takeViolations);

const { env } = process;
const LONG = env['PGKV_LONG'] === '1';
const SEED = Number(env['PGKV_SEED'] ?? 1);
const ROUNDS = Number(env['PGKV_ROUNDS'] ?? (LONG ? 200 : 8));
const CLIENTS = LONG ? 32 : 16;
const OPERATIONS_EACH = 20;
const SHARDS = 3;
const OBJECTS = 9;
/** Of the operations that have no place in the order. */
const SHOWN_MAX = 15;
/** Rounds go on behind a failure, for other kinds. */
const FAILURES_MAX = 10;
const DATABASE = 'template1';
const REST_TIMEOUT_MS = 10_000;

/** Of the router: none is ever needed, since what is swallowed here is reset at once. */
const TIME_OUT_MS = 6_000;

/** Share of server connections that are lost, and the bytes of one side after which they are. */
const LOST_SHARE = 0.9;
const LOST_BYTES = [400, 1_000, 2_000, 4_000] as const;

function lossOf(random: SeededRandom): Loss | null {
  if (!random.chance(LOST_SHARE)) return null;
  const side = random.pick(['request', 'answer'] as const);
  const how = random.pick(['end', 'reset', 'reset', 'swallow'] as const);
  return { side, how, after: 100 + random.integer(random.pick(LOST_BYTES)) };
}

/** Keys in pairs, each pair on one shard; all shards have some. */
function makeObjects(): HistoryObject[] {
  const view = initialView(
    evenSpread(SHARDS, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
    [KV],
  );
  const objects: HistoryObject[] = [];
  for (let n = 0; objects.length < OBJECTS; n++) {
    if (view.shardOfSlot[hashSlotOf('t', `{${n}}`)] !== objects.length % SHARDS) continue;
    objects.push({ keys: [`{${n}}a`, `{${n}}b`], operations: [] });
  }
  return objects;
}

const showOperation = ({ what, call, end }: Operation): string =>
  `${call.toFixed(2)} … ${end === Number.POSITIVE_INFINITY ? '?' : end.toFixed(2)}  ${what}`;

t.test('what clients are told under losses is linearizable', async (t) => {
  await loadKeyHash();
  const servers = await Promise.all(Array.from({ length: SHARDS }, () => startPostgres({ version: 'embedded' })));
  t.teardown(() => Promise.all(servers.map((server) => server.stop())));
  await Promise.all(servers.map((server) => prepareShard(server, [KV], DATABASE)));
  const proxies = await Promise.all(servers.map((server) => LossyProxy.start(server, DATABASE)));
  t.teardown(() => Promise.all(proxies.map((proxy) => proxy.stop())));
  const live = await liveRouter(
    t,
    proxies.map((proxy, index) => proxy.standInFor(servers[index]!)),
    { pool: { sizeMax: 8, waitTimeoutMs: TIME_OUT_MS }, merged: { deadlineMs: TIME_OUT_MS } },
    { catalog: fixedCatalog(evenSpread(SHARDS, [KV], DATABASE)) },
  );
  const direct = await Promise.all(
    servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: DATABASE })),
  );
  t.teardown(() => Promise.all(direct.map((client) => client.end())));
  const connect = () => live.connect({ database: DATABASE });

  const atRest = async (): Promise<string[]> => {
    const sql = `SELECT state || ': ' || query FROM pg_stat_activity WHERE backend_type = 'client backend'
      AND pid <> pg_backend_pid() AND state <> 'idle' AND datname = '${DATABASE}'`;
    for (const end = performance.now() + REST_TIMEOUT_MS; ; ) {
      const left = (await Promise.all(direct.map((client) => client.rows(sql)))).flat().map(([text]) => text!);
      if (left.length === 0 || performance.now() > end) return left;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  /** What the servers hold of each object. */
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
  let operations = 0;
  let failures = 0;
  for (let round = 1; round <= ROUNDS && failures < FAILURES_MAX; round++) {
    const seed = SEED * 1_000 + round;
    const objects = makeObjects();
    const notes: HistoryNotes = { problems: [], codes };
    const initial = await statesOf(objects);
    const random = new SeededRandom(seed);
    for (const proxy of proxies) proxy.lossOf = () => lossOf(random);
    const clients = Array.from(
      { length: CLIENTS },
      (_, n) =>
        new HistoryClient(`c${n}`, seed * 100_000 + n * 1_000, new SeededRandom(seed, n + 1), objects, notes, connect),
    );
    await Promise.all(clients.map((client) => client.play(OPERATIONS_EACH)));
    for (const client of clients) client.leave();
    for (const proxy of proxies) proxy.disarm();
    const left = await atRest();
    const final = await statesOf(objects);
    const now = performance.now();
    for (const text of left) notes.problems.push(`left on a server: ${text}`);
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
      failures++;
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
    failures += notes.problems.length;
    for (const problem of [...new Set(notes.problems)]) t.fail(`round ${round}: ${problem}`);
  }
  const losses = proxies.reduce((sum, proxy) => sum + proxy.losses, 0);
  t.comment(`${operations} operations, ${losses} connections lost, answers ${JSON.stringify([...codes])}`);
  if (failures === 0) t.pass('every object has an order');
});
