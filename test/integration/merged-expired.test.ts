// INSERTs that meet rows which have expired, merged and alone: nothing of the old row is seen or kept (D9), the version is
// that of a new life (D3), and a load whose keys are all expired is merged all the same (R46).
import t, { type Test } from 'tap';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import {
  batchBytes,
  directClient,
  grants,
  type TickClient,
  tickClients,
  together,
  told,
} from '../support/merged-clients.js';
import { SeededRandom } from '../support/seeded-random.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const KEYS = 24;

const cluster = await kvServers(t, 1, { tables: [KV] });
const direct = await directClient(cluster.servers[0]!);
t.teardown(() => direct.sql.wire.destroy());
// As users have it.
await direct.run('alter table kv alter version set default pgkv.first_version()');

const COLUMNS = `value->>'n', ttl is null, updated_at > now() - interval '1 hour', version`;
const INSERT = 'insert into kv (tenant_id, key, value) values ($1, $2, $3)';
const UPSERTS = [
  `${INSERT} on conflict (tenant_id, key) do update set value = excluded.value returning ${COLUMNS}`,
  `insert into kv as k (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = k.value || $3 returning ${COLUMNS}`,
  `${INSERT} on conflict (tenant_id, key) do update set value = excluded.value where kv.version > 0 returning ${COLUMNS}`,
  `${INSERT} on conflict on constraint kv_pkey do update set value = excluded.value, version = kv.version + 1 returning ${COLUMNS}`,
];

/** Rows of lives that have ended: old marks, which a new life must not show. Versions of then are lower than any of now. */
const expire = (keys: readonly number[]): Promise<unknown> =>
  direct.run(`insert into kv (tenant_id, key, value, ttl, updated_at, version, slot)
    select 't', 'k' || n, '{"old": true}', now() - interval '1 minute', '2001-01-01', 5, pgkv.slot('t', 'k' || n)
    from unnest('{${keys.join()}}'::int[]) n
    on conflict (tenant_id, key, slot) do update set value = excluded.value, ttl = excluded.ttl,
      updated_at = excluded.updated_at, version = 5`);
const clear = (): Promise<unknown> => direct.run('truncate kv');

async function rowOf(key: number): Promise<readonly (string | null)[] | undefined> {
  const [row] = await direct.run(
    `select value::text, ttl is null, version > 1000000, slot = pgkv.slot(tenant_id, key) from kv where key = 'k${key}'`,
  );
  return row;
}

t.test(`new lives, in batches of any size (PGKV_SEED=${SEED})`, async (t) => {
  const random = new SeededRandom(SEED);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, KEYS);
  for (const sql of [INSERT, ...UPSERTS]) {
    for (let round = 0; round < 40; round++) {
      await clear();
      const dead = Array.from({ length: KEYS }, (_, key) => key).filter(() => random.chance(round % 4 === 0 ? 1 : 0.2));
      await expire(dead);
      const size = random.chance(0.3) ? 1 : 1 + random.integer(KEYS);
      const first = random.integer(KEYS - size + 1);
      const members = clients.slice(first, first + size);
      const answers = await together(members, (index) =>
        batchBytes(sql, ['t', `k${first + index}`, `{"n": ${round}}`]),
      );
      for (const [index, answer] of answers.entries()) {
        const { code, rows, tags } = told(answer);
        const key = first + index;
        const where = `${sql}, round ${round}, k${key}${dead.includes(key) ? ', expired' : ''}`;
        t.strictSame([code, tags], ['', ['INSERT 0 1']], where);
        if (sql !== INSERT) t.match(rows, [[String(round), 't', 't', /^\d{13,}$/]], where);
        t.strictSame(await rowOf(key), [`{"n": ${round}}`, 't', 't', 't'], where);
      }
    }
  }
});

t.test('a plain INSERT into a live key fails beside others that meet expired ones', async (t) => {
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, KEYS);
  for (let round = 0; round < 10; round++) {
    await clear();
    await expire([1, 3, 5]);
    await direct.run(
      `insert into kv (tenant_id, key, value) values ('t', 'k2', '0'), ('t', 'k3x', '0'), ('t', 'k7', '0')`,
    );
    const answers = await together(clients, (index) => batchBytes(INSERT, ['t', `k${index}`, '1']));
    const codes = answers.map((answer) => told(answer).code);
    const expected = codes.map((_, index) => (index === 2 || index === 7 ? '23505' : ''));
    t.strictSame(codes, expected, `round ${round}`);
  }
});

async function leasesFor(t: Test, clients: readonly TickClient[], live: Awaited<ReturnType<typeof kvRouter>>) {
  const before = grants(live);
  const answers = await together(clients, (index) => batchBytes(UPSERTS[0]!, ['t', `k${index}`, '1']));
  for (const answer of answers) t.equal(told(answer).code, '');
  return grants(live) - before;
}

t.test('keys that have all expired, again and again, are merged', async (t) => {
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, KEYS);
  await clear();
  const all = Array.from({ length: KEYS }, (_, key) => key);
  let leases = 0;
  for (let round = 0; round < 60; round++) {
    await expire(all);
    const granted = await leasesFor(t, clients, live);
    if (round >= 20) leases += granted;
  }
  // As many as there are members where each of them runs by itself.
  t.ok(leases < (40 * KEYS) / 3, `${leases} for ${40 * KEYS} statements`);
});
