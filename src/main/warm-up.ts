// Before the first client comes, its way through the parts that start slowly: Postgres's parser (WebAssembly, compiled when it is first
// used), the lexer, the planner of statements on keys. Nothing of it is kept but what V8 has compiled: the first statements of a
// new router took 0.4 s (node bench/first-statements.mjs).
import type { ClusterView } from '../cluster/cluster-view.js';
import { hashSlotOf } from '../cluster/key-hash.js';
import type { KvTable } from '../cluster/kv-table.js';
import { tableScope } from '../cluster/table-scope.js';
import { batchStatement, singleStatement } from '../sql/batch/batch-statement.js';
import { TemplateCache } from '../sql/template-cache.js';

/** No longer than that, however slow the machine is. */
const WARM_UP_MS = 500;
/** Rounds after which V8 has compiled what they run. */
const ROUNDS = 40;
const CACHE_BYTES = 1024 * 1024;
/** Stands for tables to come, where there are none yet. */
const PRETENDED: KvTable = { schema: 'public', name: 'kv', valueType: 'jsonb' };

/** What applications begin with; each round is of a shape of its own, by its column's name. */
const statementsOn = ({ schema, name }: KvTable, column: string): readonly string[] => [
  `SELECT value AS ${column} FROM ${schema}.${name} WHERE tenant_id = $1 AND key = $2`,
  `SELECT value AS ${column} FROM ${schema}.${name} WHERE tenant_id = 't' AND key = 'k'`,
  `INSERT INTO ${schema}.${name} (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING version AS ${column}`,
  `UPDATE ${schema}.${name} SET value = $3 WHERE tenant_id = $1 AND key = $2 RETURNING version AS ${column}`,
  `DELETE FROM ${schema}.${name} WHERE tenant_id = $1 AND key = $2 RETURNING key AS ${column}`,
  `SELECT count(*) AS ${column} FROM ${schema}.${name} WHERE tenant_id = $1`,
  `SELECT a.id AS ${column}, lower(b.name) FROM accounts a JOIN names b USING (id) WHERE a.id = $1 ORDER BY 2 LIMIT 10`,
  `UPDATE accounts SET balance = balance + 1 WHERE ${column} = 7`,
  'BEGIN',
  'COMMIT',
  `SET application_name = '${column}'`,
];

/** The parser and the hash must be loaded. */
export function warmUp(view: ClusterView): void {
  const until = performance.now() + WARM_UP_MS;
  const [table = PRETENDED] = view.tables;
  const scope = tableScope(view.tables.length > 0 ? view : { ...view, tables: [PRETENDED] }, null);
  const templates = new TemplateCache({ bytesMax: CACHE_BYTES });
  for (let round = 0; round < ROUNDS && performance.now() < until; round++) {
    hashSlotOf('tenant', `key ${round}`);
    for (const text of statementsOn(table, `c${round}`)) {
      const { kv } = templates.get(text, true, scope);
      if (kv?.kind !== 'kv') continue;
      const single = singleStatement(kv, text, templates.literalsOf(text, true), [], false);
      const types = single?.refs.map(() => 'pg_catalog.text');
      if (single !== null && types !== undefined) batchStatement(kv, single, types);
    }
  }
}
