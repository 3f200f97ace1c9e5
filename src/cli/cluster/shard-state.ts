// The row in which a shard says who it is: name, epoch, hash slots (D6). Lets a lost catalogue be rebuilt and swapped
// addresses be noticed.
import type { HashSlotRange } from '../../cluster/cluster-view.js';
import type { DriverClient } from '../connect.js';

export interface ShardState {
  readonly name: string;
  readonly epoch: number;
  readonly hashSlots: readonly HashSlotRange[];
  /** Undefined: set up by a pgkv that gave clusters no id. */
  readonly clusterId?: string | undefined;
}

/** Null where none was written yet. Reads what older versions of the extension have, too. */
export async function readShardState(client: DriverClient): Promise<ShardState | null> {
  const { rows } = await client.query<{
    name: string;
    epoch: string;
    cluster_id: string | null;
    ranges: [number, number][];
  }>(`
    SELECT shard_name AS name, epoch, pg_catalog.to_jsonb(s) ->> 'cluster_id' AS cluster_id,
           (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(lower(r), upper(r) - 1) ORDER BY r)
              FROM unnest(slots) AS r) AS ranges
      FROM pgkv.shard_state s`);
  const [row] = rows;
  if (row === undefined) return null;
  const { name, epoch, cluster_id: clusterId, ranges } = row;
  return { name, epoch: Number(epoch), hashSlots: ranges ?? [], clusterId: clusterId ?? undefined };
}

/** Refused by the shard where it is at a later epoch, or of another cluster. */
export async function writeShardState(
  client: DriverClient,
  { name, epoch, hashSlots, clusterId }: ShardState,
): Promise<void> {
  await client.query('SELECT pgkv.set_shard_state($1, $2, $3, $4)', [name, epoch, rangesText(hashSlots), clusterId]);
}

/** As Postgres reads an int4multirange. */
export const rangesText = (hashSlots: readonly HashSlotRange[]): string =>
  `{${hashSlots.map(([first, last]) => `[${first},${last}]`).join(',')}}`;

/** The same hash slots, however they are cut into ranges. */
export function sameRanges(left: readonly HashSlotRange[], right: readonly HashSlotRange[]): boolean {
  return JSON.stringify(joined(left)) === JSON.stringify(joined(right));
}

function joined(ranges: readonly HashSlotRange[]): [number, number][] {
  const result: [number, number][] = [];
  for (const [first, last] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const previous = result.at(-1);
    if (previous !== undefined && first <= previous[1] + 1) previous[1] = Math.max(previous[1], last);
    else result.push([first, last]);
  }
  return result;
}
