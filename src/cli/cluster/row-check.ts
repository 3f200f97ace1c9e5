// Rows that are not where pgkv looks for them: of a wrong hash slot, so that one key may be two rows, and of hash slots
// that the shard does not own, so that nobody finds them. Triggers keep them out; older versions and superusers did not.
import type { HashSlotRange } from '../../cluster/cluster-view.js';
import type { KvTable } from '../../cluster/kv-table.js';
import type { DriverClient } from '../connect.js';
import { rangesText } from './shard-state.js';

export interface RowCounts {
  readonly examined: number;
  /** Else a sample. */
  readonly isWhole: boolean;
  readonly wrongSlot: number;
  readonly notOwned: number;
}

/** Some seconds: hashing a key takes 4 µs and more. */
const ROWS_EXAMINED_MAX = 1_000_000;
/** Where Postgres has not counted yet. */
const ROW_BYTES_LEAST = 64;

export async function countRows(
  client: DriverClient,
  { schema, name }: Pick<KvTable, 'schema' | 'name'>,
  hashSlots: readonly HashSlotRange[],
): Promise<RowCounts> {
  const table = `${client.escapeIdentifier(schema)}.${client.escapeIdentifier(name)}`;
  const estimate = await client.query<{ rows: number }>(
    `SELECT CASE WHEN reltuples < 0 THEN pg_catalog.pg_relation_size(oid) / $2::float8 ELSE reltuples END AS rows
       FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.regclass`,
    [table, ROW_BYTES_LEAST],
  );
  const share = Math.min(1, ROWS_EXAMINED_MAX / Math.max(1, estimate.rows[0]!.rows));
  const { rows } = await client.query<{ examined: string; wrong: string; foreign: string }>(
    `SELECT count(*) AS examined, count(*) FILTER (WHERE slot <> pgkv.slot(tenant_id, key)) AS wrong,
            count(*) FILTER (WHERE NOT slot <@ $1::int4multirange) AS foreign
       FROM ${table} ${share < 1 ? `TABLESAMPLE SYSTEM (${share * 100})` : ''}`,
    [rangesText(hashSlots)],
  );
  const { examined, wrong, foreign } = rows[0]!;
  return { examined: Number(examined), isWhole: share === 1, wrongSlot: Number(wrong), notOwned: Number(foreign) };
}
