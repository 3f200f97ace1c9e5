// How many connections pgkv may hold to one server, set against what the server allows.
import type { Settings } from './settings.js';

/** To each server, beside those of clients, at one time: a look-up, a probe, a heartbeat in the database of the tables, a recovery. */
export const SERVICE_CONNECTIONS = 4;

export interface ServerLimits {
  /** max_connections */
  readonly connectionsMax: number;
  /** Kept back for superusers and, from 16 on, for members of pg_use_reserved_connections. */
  readonly connectionsReserved: number;
}

/** Whether they fit into the server, and the sum in words. */
export function connectionSum(
  { pool, workers }: Pick<Settings, 'pool' | 'workers'>,
  { connectionsMax, connectionsReserved }: ServerLimits,
): { readonly fits: boolean; readonly text: string } {
  const total = (pool.sizeMax + SERVICE_CONNECTIONS) * workers + connectionsReserved;
  const text =
    `(pool.size_max ${pool.sizeMax} + ${SERVICE_CONNECTIONS}) x workers ${workers} + reserved ${connectionsReserved}` +
    ` = ${total}, max_connections = ${connectionsMax}`;
  return { fits: total <= connectionsMax, text };
}
