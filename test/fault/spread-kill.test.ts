// kill -9 of the router at any byte of a statement that writes on several shards, either way, on either shard (D14): within ten
// seconds of the next start all shards show it or none does, nothing is left prepared, and what the client was told is true.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ask } from '../support/cluster-folder.js';
import { timeLimit } from '../support/machine-speed.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { proxiedCluster } from '../support/proxied-cluster.js';
import { startProcess } from '../support/router-process.js';
import { SeededRandom } from '../support/seeded-random.js';
import { SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const ROUNDS = Number(process.env['PGKV_ROUNDS'] ?? (process.env['PGKV_LONG'] === '1' ? 20 : 3));
const WITHIN_MS = 10_000;
/** Start-up and log-in of a server connection, the statement and its end: some 700 bytes there and 1,400 back. */
const BYTES_MAX = { request: 1_200, answer: 2_200 } as const;
const KEYS = Array.from({ length: 20 }, (_, n) => `k${n}`);
const TENANTS = KEYS.map(() => 't');
/** Each sets all values. */
const WRITES: readonly ((round: number) => string)[] = [
  (round) => `UPDATE kv SET value = '${round}'`,
  (round) => `SELECT ord FROM kv_put_many('{${TENANTS}}', '{${KEYS}}', '{${KEYS.map(() => round)}}')`,
  (round) => `INSERT INTO kv (tenant_id, key, value) SELECT 't', k, '${round}' FROM unnest('{${KEYS}}'::text[]) AS u (k)
    ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`,
];

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test(`seed ${SEED}`, { ...skip, timeout: 300_000 }, async (t) => {
  const random = new SeededRandom(SEED);
  const { servers, proxies, configFile, program } = await proxiedCluster(t, 2);
  const found = async (sql: string) =>
    (await Promise.all(servers.map((server) => ask(server, 'postgres', sql)))).flat();
  const value = async (): Promise<string[]> => {
    const rows = await found(`SELECT DISTINCT value::text AS value FROM kv`);
    return [...new Set(rows.map((row) => String(row['value'])))];
  };
  const untilSettled = async () => {
    const isOver = timeLimit(WITHIN_MS);
    while ((await found('SELECT FROM pg_prepared_xacts')).length > 0) {
      if (await isOver()) return t.fail('something is still prepared');
      await sleep(50);
    }
  };

  let router = await startProcess(t, program, configFile);
  const connect = () =>
    SqlClient.connect({ host: '127.0.0.1', port: router.port }, { user: 'app', database: 'postgres' });
  let client = await connect();
  for (const key of KEYS) await client.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('t', '${key}', '0')`);
  t.ok((await found('SELECT FROM kv LIMIT 1')).length === 2, 'both shards have keys');
  let before = '0';
  let committed = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    const side = random.pick(['request', 'answer'] as const);
    const [proxy, after] = [random.pick(proxies), random.integer(BYTES_MAX[side])];
    const about = `round ${round}: ${side} ${after} of shard ${proxies.indexOf(proxy) + 1}`;
    proxy.arm({ kind: 'stall', side, after });
    const told = client.run(random.pick(WRITES)(round)).then(
      () => 'committed',
      (error: Error) => error.message,
    );
    const first = await Promise.race([told, sleep(300, 'nothing')]);
    router.signal('SIGKILL');
    await router.exited;
    proxy.disarm();
    // What hangs in the proxy is gone with the router's machine.
    await proxy.down();
    await proxy.up();
    router = await startProcess(t, program, configFile);
    await untilSettled();
    const now = await value();
    t.equal(now.length, 1, `${about}: all or nothing (${now})`);
    if (first === 'committed') t.equal(now[0], String(round), `${about}: what was told is true`);
    else t.ok(now[0] === String(round) || now[0] === before, about);
    if (now[0] === String(round)) committed++;
    before = now[0]!;
    client.wire.destroy();
    client = await connect();
  }
  t.comment(`${committed} of ${ROUNDS} were committed`);
  client.wire.destroy();
});
