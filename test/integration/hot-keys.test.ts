// Statements on several shards that stand alone and want the same few keys (R72): none is told of a deadlock, all take effect, and they get
// on. Beside them the same on one plain server.
//   PGKV_SEED=n       what the clients ask for
//   PGKV_SECONDS=10   how long, for a measurement
import t from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo } from '../support/kv-extension.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';
import { errorOf, SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const MS = 1000 * Number(process.env['PGKV_SECONDS'] ?? 2);
const CLIENTS = 8;
const KEYS = 12;
const TENANT = 'hot';
const all = Array.from({ length: KEYS }, (_, key) => `k${String(key).padStart(2, '0')}`);

const cluster = await kvServers(t, 3, { stated: true });
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of admins) await admin.query(GRANTS);
const live = await kvRouter(t, cluster);

const list = (keys: readonly string[]): string => keys.map((key) => `'${key}'`).join(', ');
const rows = (keys: readonly string[]): string => keys.map((key) => `('${TENANT}', '${key}', '1')`).join(', ');
const adds = (table: string) =>
  `ON CONFLICT (tenant_id, key) DO UPDATE SET value = to_jsonb(${table}.value::text::int + 1)`;
const KINDS: Record<string, (table: string, keys: readonly string[]) => string> = {
  upserts: (table, keys) => `INSERT INTO ${table} (tenant_id, key, value) VALUES ${rows(keys)} ${adds(table)}`,
  'upserts from arrays': (table, keys) =>
    `INSERT INTO ${table} (tenant_id, key, value) SELECT '${TENANT}', k, '1' FROM unnest(ARRAY[${list(keys)}]) AS k ${adds(table)}`,
  updates: (table, keys) =>
    `UPDATE ${table} SET value = to_jsonb(value::text::int + 1) WHERE tenant_id = '${TENANT}' AND key IN (${list(keys)})`,
};

interface Outcome {
  readonly done: number;
  readonly codes: Record<string, number>;
  /** Keys that were to be raised by one, in all statements that were acknowledged. */
  readonly raised: number;
}

async function play(connect: () => Promise<SqlClient>, table: string, kind: string): Promise<Outcome> {
  const codes: Record<string, number> = {};
  let done = 0;
  let raised = 0;
  const end = performance.now() + MS;
  const converse = async (number: number): Promise<void> => {
    const random = new SeededRandom(SEED, number);
    const client = await connect();
    while (performance.now() < end) {
      // In one order: what a server locks in another one for each is its own affair.
      const own = all.filter(() => random.oneIn(2));
      if (own.length === 0) continue;
      const failure = errorOf(await client.send([{ query: KINDS[kind]!(table, own) }]));
      if (failure === null) {
        done++;
        raised += own.length;
      } else codes[failure.code] = (codes[failure.code] ?? 0) + 1;
    }
    await client.end();
  };
  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => converse(number)));
  return { done, codes, raised };
}

const PLAIN = `CREATE TABLE plain (tenant_id text, key text, value jsonb, PRIMARY KEY (tenant_id, key)); GRANT ALL ON plain TO app;
  INSERT INTO plain VALUES ${rows(all)}`;

for (const kind of Object.keys(KINDS))
  t.test(kind, { timeout: 60_000 }, async (t) => {
    const sum = `SELECT coalesce(sum(value::text::int), 0) FROM kv WHERE tenant_id = '${TENANT}'`;
    const connect = (): Promise<SqlClient> => live.connect({ user: 'app' });
    const setup = await connect();
    await setup.run(`DELETE FROM kv WHERE tenant_id = '${TENANT}'`, KINDS['upserts']!('kv', all));
    const before = Number(await setup.value(sum));
    const pgkv = await play(connect, 'kv', kind);
    t.strictSame(pgkv.codes, {}, `PGKV_SEED=${SEED}`);
    t.equal(Number(await setup.value(sum)) - before, pgkv.raised, 'what was acknowledged is there, once');
    await setup.end();

    await admins[0]!.query(PLAIN);
    const direct = await play(
      () => SqlClient.connect(cluster.servers[0]!, { user: 'app', database: 'postgres' }),
      'plain',
      kind,
    );
    await admins[0]!.query('DROP TABLE plain');
    t.comment(`${kind}: ${pgkv.done} of ${direct.done} of one server`);
    // One a second for each client. With a circle in each, which somebody has to find, there would be a few in all.
    t.ok(pgkv.done > (CLIENTS * MS) / 1_000, `${pgkv.done} of ${direct.done}`);
  });
