// The row in which a shard says who it is: name, epoch, hash slots (D6). Lets a lost catalogue be rebuilt and swapped
// addresses be noticed.
import type { HashSlotRange } from '../../cluster/cluster-view.js';
import type { DriverClient } from '../connect.js';

export interface ShardState {
  readonly name: string;
  readonly epoch: number;
  readonly hashSlots: readonly HashSlotRange[];
}

/** Null where none was written yet. */
export async function readShardState(client: DriverClient): Promise<ShardState | null> {
  const { rows } = await client.query<{ name: string; epoch: string; ranges: [number, number][] }>(`
    SELECT shard_name AS name, epoch,
           (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(lower(r), upper(r) - 1) ORDER BY r)
              FROM unnest(slots) AS r) AS ranges
      FROM pgkv.shard_state`);
  const [row] = rows;
  return row === undefined ? null : { name: row.name, epoch: Number(row.epoch), hashSlots: row.ranges ?? [] };
}

/** Refused by the shard where it is at a later epoch. */
export async function writeShardState(client: DriverClient, { name, epoch, hashSlots }: ShardState): Promise<void> {
  const ranges = hashSlots.map(([first, last]) => `[${first},${last}]`).join(',');
  await client.query('SELECT pgkv.set_shard_state($1, $2, $3)', [name, epoch, `{${ranges}}`]);
}

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
