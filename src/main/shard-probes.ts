// Asks the shards whether they answer, on service connections, and tells the log when that changes.
import { serviceQuery } from '../backend/pool/service-query.js';
import type { Clock } from '../base/clock.js';
import { PgkvError } from '../base/errors.js';
import type { ShardView } from '../cluster/cluster-view.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import type { AskPrimary } from '../control/connection-check.js';
import { type ShardHealth, ShardHealthMonitor } from '../control/shard-health.js';
import type { ShardGauge } from '../http/metrics.js';
import type { Logger } from '../telemetry/log.js';
import type { ServiceNodes } from './node-pools.js';

/** @param changed is told behind the log */
export function shardProbes(
  views: ViewHolder,
  service: ServiceNodes,
  clock: Clock,
  log: Logger,
  changed: (shard: ShardView, state: ShardHealth) => void = () => undefined,
): ShardHealthMonitor {
  return new ShardHealthMonitor({
    shards: () => views.current.shards,
    clock,
    probe: async ({ primary }) => {
      const { database } = views.current;
      const { pool, group } = service.of(primary);
      await serviceQuery(pool, group, clock, 'SELECT 1');
      if (database !== null && group.startup.get('database') !== database)
        await asShard(service, clock, primary, database);
    },
    changed: (shard, health) => {
      if (health.state === 'answers') log.info({ shard: shard.name }, 'shard answers');
      else log.warn({ shard: shard.name, reason: health.reason }, TOLD[health.state]);
      changed(shard, health);
    },
  });
}

/** On service connections, which pgkv has in any case. */
export const askPrimary =
  (service: ServiceNodes, clock: Clock): AskPrimary =>
  ({ primary }, sql) => {
    const { pool, group } = service.of(primary);
    return serviceQuery(pool, group, clock, sql);
  };

const TOLD = {
  unknown: 'shard has not been asked',
  unreachable: 'shard does not answer',
  silent: 'shard takes statements and does not answer',
  other: 'the node of the shard is another server, and is not used',
} as const;

/**
 * Only the database with the key-value tables says which shard a server is. The service role need not be allowed there:
 * then it is the clients' own connections that find out.
 */
async function asShard(
  service: ServiceNodes,
  clock: Clock,
  node: ShardView['primary'],
  database: string,
): Promise<void> {
  const { pool, group } = service.inDatabase(node, database);
  try {
    await serviceQuery(pool, group, clock, 'SELECT 1');
  } catch (error) {
    const name = error instanceof PgkvError ? error.errorName : null;
    if (name === 'wrong_server' || name === 'server_silent') throw error;
  }
}

/** What does not keep the router from serving, one sentence each. */
export function unhealthyReasons(shards: readonly ShardView[], health: ShardHealthMonitor): string[] {
  return shards
    .filter((shard) => health.of(shard).state !== 'answers')
    .map((shard) => `shard ${shard.name}: ${health.of(shard).reason}`);
}

export const shardStates = (shards: readonly ShardView[], health: ShardHealthMonitor): ShardGauge[] =>
  shards.map((shard) => ({ shard: shard.name, state: health.of(shard).state }));
