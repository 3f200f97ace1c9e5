// What of a key-value table's functions a shard lacks, and whether pgkv's own role may write heartbeats there: both made by
// init, and both may get lost behind it (DROP, REVOKE, a dump without grants).
import type { KvTable } from '../../cluster/kv-table.js';
import type { DriverClient } from '../connect.js';

// As install_functions compares them, with its search_path: the session's is the same.
const MISSING = `
  SELECT pg_catalog.format('%s_%s(%s)', $2::text, f.suffix, f.arguments) AS signature
    FROM pgkv.table_functions($3) f
   WHERE NOT EXISTS (
           SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = $1 AND p.proname = $2::text || '_' || f.suffix
              AND pg_catalog.pg_get_function_arguments(p.oid) = f.arguments
              AND pg_catalog.pg_get_function_result(p.oid) = f.result)
   ORDER BY 1`;

/** Signatures; those of another shape count as missing. */
export async function missingFunctions(
  client: DriverClient,
  { schema, name, valueType }: KvTable,
): Promise<readonly string[]> {
  const { rows } = await client.query<{ signature: string }>(MISSING, [schema, name, valueType]);
  return rows.map(({ signature }) => signature);
}

const MAY_BEAT = `
  SELECT pg_catalog.has_schema_privilege(r.oid, 'pgkv', 'USAGE')
         AND coalesce(pg_catalog.has_function_privilege(r.oid, pg_catalog.to_regprocedure('pgkv.beat()'), 'EXECUTE'), false)
         AS may
    FROM pg_catalog.pg_roles r WHERE r.rolname = $1`;

/** Null: there is no such role. */
export async function mayBeat(client: DriverClient, service: string): Promise<boolean | null> {
  const { rows } = await client.query<{ may: boolean }>(MAY_BEAT, [service]);
  return rows[0]?.may ?? null;
}
