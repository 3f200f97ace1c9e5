// How a table is defined on one shard, as values that can be compared with those of another shard and with what a
// key-value table has to be (D4).
import type { KvTable, ValueType } from '../../cluster/kv-table.js';
import type { DriverClient } from '../connect.js';

/** Each property as a sorted list of texts, as Postgres writes them. */
export interface TableDefinition {
  readonly columns: readonly string[];
  readonly constraints: readonly string[];
  readonly indexes: readonly string[];
  readonly triggers: readonly string[];
}

const PARTS = ['columns', 'constraints', 'indexes', 'triggers'] as const;

// Names in the texts do not depend on the search_path of the session: it is emptied for the query.
const DEFINITION = `
  SELECT ARRAY(SELECT pg_catalog.format('%I %s%s%s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                        CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || pg_catalog.quote_ident(l.collname) END,
                        CASE WHEN a.attnotnull THEN ' NOT NULL' END,
                        ' DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid))
                 FROM pg_catalog.pg_attribute a
                 JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                 LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
                 LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                ORDER BY a.attnum) AS columns,
         ARRAY(SELECT k.conname || ' ' || pg_catalog.pg_get_constraintdef(k.oid)
                 FROM pg_catalog.pg_constraint k
                WHERE k.conrelid = c.oid AND k.contype <> 'n' ORDER BY 1) AS constraints,
         ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid)
                 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid ORDER BY 1) AS indexes,
         ARRAY(SELECT pg_catalog.pg_get_triggerdef(g.oid)
                 FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal ORDER BY 1) AS triggers
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2`;

/** Null where there is no relation of this name. */
export async function readTableDefinition(
  client: DriverClient,
  table: Pick<KvTable, 'schema' | 'name'>,
): Promise<TableDefinition | null> {
  const { rows } = await client.query<TableDefinition>(DEFINITION, [table.schema, table.name]);
  return rows[0] ?? null;
}

/** Why this is no key-value table of the given value type; null where it is one. Additional columns are allowed. */
export function kvFault(definition: TableDefinition, valueType: ValueType): string | null {
  const wanted: readonly (readonly [column: string, starts: string])[] = [
    ['tenant_id', 'tenant_id text COLLATE "C" NOT NULL'],
    ['key', 'key text COLLATE "C" NOT NULL'],
    ['version', 'version bigint NOT NULL'],
    ['value', `value ${valueType}`],
    ['ttl', 'ttl timestamp with time zone'],
    ['updated_at', 'updated_at timestamp with time zone NOT NULL'],
    ['slot', 'slot integer NOT NULL'],
  ];
  for (const [name, starts] of wanted) {
    const column = definition.columns.find((text) => text.startsWith(`${name} `));
    if (column === undefined) return `it has no column ${name}`;
    if (column !== starts && !column.startsWith(`${starts} `)) return `its column is "${column}", not "${starts}"`;
  }
  const hasKey = definition.constraints.some((text) => text.endsWith(' PRIMARY KEY (tenant_id, key, slot)'));
  return hasKey ? null : 'its primary key is not (tenant_id, key, slot)';
}

/** In which texts two definitions differ; empty where they are the same. */
export function definitionDifferences(left: TableDefinition, right: TableDefinition): string[] {
  return PARTS.flatMap((part) => [
    ...left[part].filter((text) => !right[part].includes(text)),
    ...right[part].filter((text) => !left[part].includes(text)),
  ]);
}
