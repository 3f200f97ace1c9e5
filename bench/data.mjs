// What the workloads find on a server: an ordinary table; the extension as plain SQL, table kv and its rows. Two tenants have the
// same keys. Tenant "bench" is what pgkv is asked for: its slots are the real ones. Tenant "direct" is for statements that go to
// Postgres without pgkv: they state a slot as pgkv's do, and pgbench can only compute a made-up one.

import { readFileSync } from 'node:fs';
import pg from 'pg';
import { KEY_COUNT } from './keys.mjs';

const HASH_SLOTS = 16_384;
/** What writes put in: as long as what is there. */
export const DOCUMENT = JSON.stringify({ n: 123_456, text: 'v'.repeat(100) });

/** The whole script of the version that the program comes with. */
const extensions = new URL('../extensions/pgkv/', import.meta.url);
const [, version] = /default_version = '([^']+)'/.exec(readFileSync(new URL('pgkv.control', extensions), 'utf8'));
const extensionSql = new URL(`pgkv--${version}.sql`, extensions);
const INSERT = 'INSERT INTO kv (tenant_id, key, value, slot)';
const columns = (tenant, slot) =>
  `'${tenant}', i::text, jsonb_build_object('n', i, 'text', rpad(md5(i::text), 100, 'x')), ${slot}`;
const rows = (tenant, slot) => `${INSERT} SELECT ${columns(tenant, slot)} FROM generate_series(1, ${KEY_COUNT}) AS i`;
const REAL_SLOT = "pgkv.slot('bench', i::text)";

export async function withClient({ host, port, user, database }, use) {
  const client = new pg.Client({ host, port, user, database });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** The extension and an empty table kv. */
export function createKvTable(postgres) {
  return withClient(postgres, async (client) => {
    await client.query(readFileSync(extensionSql, 'utf8'));
    await client.query("SELECT pgkv.create_table('kv')");
    // No session on this server has its slots checked, as none that pgkv opens: they are known to be right, or made up.
    await client.query(`ALTER ROLE ${client.escapeIdentifier(postgres.user)} SET "pgkv.router" = 'on'`);
  });
}

/** Both tenants' rows, on the only shard. */
export async function loadKvTable(postgres) {
  await withClient(postgres, async (client) => {
    await client.query(rows('bench', REAL_SLOT));
    await client.query(rows('direct', `i % ${HASH_SLOTS}`));
    await client.query('VACUUM (ANALYZE) kv');
  });
}

/** After a run: every upsert has to have met its row, whatever way it took. */
export async function checkKvTable(postgres) {
  await withClient(postgres, async (client) => {
    const { rows: tenants } = await client.query('SELECT tenant_id, count(*)::int FROM kv GROUP BY 1');
    const wrong = tenants.find(({ count }) => count !== KEY_COUNT);
    if (wrong !== undefined) throw new Error(`tenant ${wrong.tenant_id} has ${wrong.count} rows, not ${KEY_COUNT}`);
  });
}

export async function loadOrdinaryTable(postgres) {
  await withClient(postgres, async (client) => {
    await client.query('CREATE TABLE bench_ordinary (id int PRIMARY KEY, value text NOT NULL)');
    await client.query(
      `INSERT INTO bench_ordinary SELECT i, rpad(md5(i::text), 100, 'x') FROM generate_series(1, ${KEY_COUNT}) AS i`,
    );
    await client.query('VACUUM (ANALYZE) bench_ordinary');
  });
}

/** The slots of tenant "bench"'s keys 1 to KEY_COUNT; asked for once, since each takes 5 µs and every shard wants to know. */
export function slotsOfKeys(postgres) {
  return withClient(postgres, async (client) => {
    const text = `SELECT ${REAL_SLOT} AS slot FROM generate_series(1, ${KEY_COUNT}) AS i ORDER BY i`;
    return (await client.query(text)).rows.map(({ slot }) => slot);
  });
}

/**
 * Of the keys of tenant "bench" those that one of several shards holds.
 * @param {number[]} slots of all keys
 * @param {[number, number][]} hashSlots the shard's, as inclusive ranges
 */
export async function loadShard(postgres, slots, hashSlots) {
  const isOwned = (slot) => hashSlots.some(([first, last]) => slot >= first && slot <= last);
  const owned = slots.flatMap((slot, index) => (isOwned(slot) ? [{ slot, id: index + 1 }] : []));
  await withClient(postgres, async (client) => {
    await client.query(`${INSERT} SELECT ${columns('bench', 's')} FROM unnest($1::int[], $2::int[]) AS r (i, s)`, [
      owned.map(({ id }) => id),
      owned.map(({ slot }) => slot),
    ]);
    await client.query('VACUUM (ANALYZE) kv');
  });
}
