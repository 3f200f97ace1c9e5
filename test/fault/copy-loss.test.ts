// Connections to servers are lost at any byte of a COPY into key-value tables: what the client was told is true of all shards, and
// nothing stays prepared. PGKV_SEED=n plays that seed, PGKV_RUNS=n so many losses.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, valueFrom } from '../support/kv-extension.js';
import { type How, LossyProxy } from '../support/lossy-proxy.js';
import { timeLimit } from '../support/machine-speed.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';
import { SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const RUNS = Number(process.env['PGKV_RUNS'] ?? (process.env['PGKV_LONG'] === '1' ? 600 : 40));
const ROWS = 60;
const SETTLED_MS = 12_000;
t.comment(`PGKV_SEED=${SEED}`);

t.test('all rows or none, and never otherwise than was told', async (t) => {
  const cluster = await kvServers(t, 3, { stated: true });
  const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
  for (const admin of admins) await admin.query(GRANTS);
  const proxies = await Promise.all(cluster.servers.map((server) => LossyProxy.start(server, 'postgres')));
  t.teardown(() => Promise.all(proxies.map((proxy) => proxy.stop())));
  const servers = proxies.map((proxy, index) => proxy.standInFor(cluster.servers[index]!));
  const live = await kvRouter(t, { ...cluster, servers });
  const connect = (): Promise<SqlClient> => SqlClient.connect(live, { user: 'app', database: 'postgres' });

  /** @returns the last answer before ReadyForQuery */
  const copied = async (client: SqlClient, tenant: string): Promise<string> => {
    const lines = Array.from({ length: ROWS }, (_, n) => `${tenant}\tk${n}\t{"n": ${n}}\n`);
    const half = lines.splice(0, ROWS / 2).join('');
    const answers = await client.send([
      { query: 'copy kv (tenant_id, key, value) from stdin' },
      { copyData: half },
      { copyData: lines.join('') },
      'copyDone',
    ]);
    return outcomeOf(answers);
  };
  const counted = async (tenant: string): Promise<number> => {
    let count = 0;
    for (const admin of admins)
      count += Number(await valueFrom(admin, 'SELECT count(*) FROM kv WHERE tenant_id = $1', [tenant]));
    return count;
  };
  const prepared = async (): Promise<number> => {
    let count = 0;
    for (const admin of admins) count += Number(await valueFrom(admin, 'SELECT count(*) FROM pg_prepared_xacts'));
    return count;
  };
  let client = await connect();
  t.equal(await copied(client, 'nothing lost'), `COPY ${ROWS}`);
  const most = proxies.map(({ passed }) => ({ ...passed }));
  for (const proxy of proxies) proxy.arm(null);
  t.equal(await copied(client, 'nothing lost again'), `COPY ${ROWS}`);
  for (const [index, proxy] of proxies.entries()) most[index] = { ...proxy.passed };
  const told = new Map<string, number>();
  for (let run = 0; run < RUNS; run++) {
    const random = new SeededRandom(SEED, run);
    const index = random.integer(3);
    const side = random.pick(['request', 'answer'] as const);
    const how = random.pick<How>(['end', 'reset', 'reset', 'swallow']);
    // The end, where it is committed, has few bytes.
    const all = most[index]![side];
    const after = random.oneIn(2) ? random.integer(all) : Math.max(0, all - 1 - random.integer(500));
    const tenant = `run ${run}`;
    proxies[index]!.arm({ side, after, how });
    const outcome = await copied(client, tenant);
    proxies[index]!.disarm();
    const seen = `PGKV_SEED=${SEED}, run ${run}: ${how} after ${after} bytes of ${side} at ${index}: ${outcome}`;
    const code = outcome.startsWith('COPY') ? outcome : outcome.slice(0, 5);
    told.set(code, (told.get(code) ?? 0) + 1);
    if (outcome === `COPY ${ROWS}`) t.equal(await counted(tenant), ROWS, seen);
    else await settled(t, code, () => counted(tenant), seen);
    if (outcome === 'closed') client = await connect();
  }
  t.comment(JSON.stringify([...told]));
  const isOver = timeLimit(SETTLED_MS);
  while ((await prepared()) > 0 && !(await isOver())) await sleep(50);
  t.equal(await prepared(), 0, 'nothing stays prepared');
  await client.end();
});

/** What was told to have failed has left nothing; of what nobody knows all is there in the end, or nothing. */
async function settled(t: Test, code: string, counted: () => Promise<number>, seen: string): Promise<void> {
  if (code !== '08007' && code !== 'close') {
    t.equal(await counted(), 0, seen);
    return;
  }
  const isOver = timeLimit(SETTLED_MS);
  for (;;) {
    const count = await counted();
    if (count === 0 || count === ROWS) break;
    if (await isOver()) return void t.fail(`${seen}: ${count} rows`);
    await sleep(50);
  }
  t.pass(seen);
}

function outcomeOf(answers: readonly BackendMessage[]): string {
  const last = answers.findLast(({ type }) => type === 'CommandComplete' || type === 'ErrorResponse');
  if (last?.type === 'CommandComplete') return last.tag;
  return last?.type === 'ErrorResponse' ? `${last.fields['C']} ${last.fields['M']}` : 'closed';
}
