// How servers run merged statements: one index lookup by the whole key for each member, whatever the size of the table when
// the plan was made, and so whatever it has grown to since. Plain equalities were planned as a scan of the whole index with
// the members inside on small analysed tables, and the reaping by the index on ttl.
import type pg from 'pg';
import t, { type Test } from 'tap';
import { batchServer, type Pair, pairOf } from '../support/batch-bench.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';

const BY_KEY = 'tenant_id = $1 and key = $2';
const STATEMENTS: readonly string[] = [
  `select value, version from kv where ${BY_KEY}`,
  `select key from kv where ${BY_KEY}`,
  `select * from kv where ${BY_KEY} order by version limit 1`,
  `select value from kv where tenant_id = $1 and key in ($2, $3)`,
  `select value from kv where tenant_id = $1 and key = any ($2)`,
  'select * from kv_get($1, $2)',
  `update kv set value = $3 where ${BY_KEY}`,
  `update kv set value = $3 where ${BY_KEY} and version = $4 returning *`,
  `select value, $3::text::int8 from kv where ${BY_KEY} and version > $4`,
  `update kv set value = $3::text::jsonb where ${BY_KEY} and version = $4 + 1 returning $5::text::int`,
  `delete from kv where ${BY_KEY} returning value`,
  `delete from kv where ${BY_KEY} and version = $3 and updated_at < $4`,
  'insert into kv (tenant_id, key, value) values ($1, $2, $3)',
  'insert into kv (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = kv.value || $3, ttl = $4',
];

const fill = (from: number, to: number, ttl: string): string =>
  `insert into kv (tenant_id, key, value, ttl, slot) select 't', 'k' || n, '1', ${ttl}, 1 from generate_series(${from}, ${to}) n`;
const SIZES: readonly (readonly [string, readonly string[]])[] = [
  ['fresh', ['truncate kv']],
  ['empty and analysed', ['truncate kv', 'vacuum analyze kv']],
  ...[1, 2, 5, 20, 60].map(
    (rows) => [`${rows} rows`, ['truncate kv', fill(1, rows, 'null'), 'vacuum analyze kv']] as const,
  ),
  ['5 rows that expire', ['truncate kv', fill(1, 5, `now() + interval '1 hour'`), 'vacuum analyze kv']],
  ['5 rows that have expired', ['truncate kv', fill(1, 5, `now() - interval '1 hour'`), 'vacuum analyze kv']],
];

for (const name of PLAYED_VERSIONS) {
  const skip = findPostgres(name) === undefined ? { skip: `Postgres ${name} is not installed` } : {};
  t.test(`Postgres ${name}`, skip, async (t) => {
    const { server, client } = await batchServer(name);
    t.teardown(() => server.stop());
    t.teardown(() => client.end());
    const pairs: Pair[] = [];
    for (const sql of STATEMENTS) pairs.push(await pairOf(client, sql, false));
    for (const [size, statements] of SIZES) {
      for (const sql of statements) await client.query(sql);
      await plansOf(t, client, pairs, size);
    }
    // Plans made on a tiny table, and new ones on the grown table, before and after it was analysed.
    await client.query(
      fill(
        1_000,
        101_000,
        `case n % 3 when 0 then now() - interval '1 hour' when 1 then now() + interval '1 hour' end`,
      ),
    );
    await plansOf(t, client, pairs, 'grown, not analysed');
    await client.query('vacuum analyze kv');
    await plansOf(t, client, pairs, 'grown and analysed');
  });
}

async function plansOf(t: Test, client: pg.Client, pairs: readonly Pair[], size: string): Promise<void> {
  for (const [index, { merged }] of pairs.entries()) {
    await client.query(`prepare merged as ${merged.text}`);
    const arrays = Array.from({ length: merged.refs.length + (merged.withSlots ? 1 : 0) }, () => `'{1}'`);
    const { rows } = await client.query(`explain (format json) execute merged (${arrays.join(', ')})`);
    await client.query('deallocate merged');
    const scans = scansIn(JSON.parse(rows[0]['QUERY PLAN'])[0].Plan);
    t.ok(scans.length > 0 && scans.every(isLookup), `${size}: ${STATEMENTS[index]}`, { scans });
  }
}

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Name'?: string;
  readonly 'Index Cond'?: string;
  readonly Plans?: readonly PlanNode[];
}

/** The nodes that read rows of the table. */
function scansIn(node: PlanNode): PlanNode[] {
  const own = node['Relation Name'] === 'kv' && node['Node Type'] !== 'ModifyTable' ? [node] : [];
  return [...own, ...(node.Plans ?? []).flatMap(scansIn)];
}

function isLookup(node: PlanNode): boolean {
  const condition = node['Index Cond'] ?? '';
  if (!/^Index (Only )?Scan$/.test(node['Node Type']) || node['Index Name'] !== 'kv_pkey') return false;
  return condition.includes('tenant_id = ') && condition.includes('key = ');
}
