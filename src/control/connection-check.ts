// Holds the connections of all workers together against what each server allows, before clients are taken: else the
// last of them would find the server full, with errors that nobody can read the reason off.
import { messageOf } from '../base/errors.js';
import type { ShardView } from '../cluster/cluster-view.js';
import { connectionSum } from '../config/server-connections.js';
import type { Settings } from '../config/settings.js';
import type { Logger } from '../telemetry/log.js';

/** The connections do not fit: a person has to change a number. */
export class ConnectionsError extends Error {
  readonly hint = 'Lower workers or pool.size_max, or raise max_connections on the server.';

  constructor(faults: readonly string[]) {
    super(faults.join('\n'));
    this.name = 'ConnectionsError';
  }
}

/** Rows of a query that the shard's primary answers, values as text. */
export type AskPrimary = (shard: ShardView, sql: string) => Promise<(string | null)[][]>;

const LIMITS = `
  SELECT pg_catalog.current_setting('max_connections'),
         pg_catalog.current_setting('superuser_reserved_connections'),
         coalesce(pg_catalog.current_setting('reserved_connections', true), '0')`;

/**
 * Servers that cannot be asked now are left out, with a line in the log.
 * @throws ConnectionsError that names each shard whose server is too small
 */
export async function requireConnections(
  shards: readonly ShardView[],
  settings: Settings,
  ask: AskPrimary,
  log: Logger,
): Promise<void> {
  const faults = await Promise.all(
    shards.map(async (shard) => {
      try {
        return await connectionFault(shard, settings, ask);
      } catch (error) {
        const reason = messageOf(error);
        log.warn({ shard: shard.name, reason }, 'could not be asked whether the connections of all workers fit');
        return null;
      }
    }),
  );
  const found = faults.filter((fault) => fault !== null);
  if (found.length > 0) throw new ConnectionsError(found);
}

/** A server that was down at the start may turn out too small; by then others are being served. */
export function tellMisfit(shard: ShardView, settings: Settings, ask: AskPrimary, log: Logger): void {
  connectionFault(shard, settings, ask).then(
    (fault) => {
      if (fault !== null) log.error(fault);
    },
    // Asked again when it answers the next time.
    () => undefined,
  );
}

/** Null where they fit. Rejects where the server cannot be asked. */
async function connectionFault(shard: ShardView, settings: Settings, ask: AskPrimary): Promise<string | null> {
  const [row] = await ask(shard, LIMITS);
  const [connectionsMax, superuser, reserved] = (row ?? []).map(Number);
  const limits = { connectionsMax: connectionsMax!, connectionsReserved: superuser! + reserved! };
  const { fits, text } = connectionSum(settings, limits);
  return fits ? null : `shard ${shard.name}: the connections of pgkv do not fit: ${text}`;
}
