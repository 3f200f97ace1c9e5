// Asks the shards whether they answer, on service connections, and tells the log when that changes.
import { serviceQuery } from '../backend/pool/service-query.js';
import type { Clock } from '../base/clock.js';
import type { ShardView } from '../cluster/cluster-view.js';
import { type ShardHealth, ShardHealthMonitor } from '../control/shard-health.js';
import type { Logger } from '../telemetry/log.js';
import type { ServicePools } from './node-pools.js';

/** @param changed is told behind the log */
export function shardProbes(
  shards: readonly ShardView[],
  service: ServicePools,
  clock: Clock,
  log: Logger,
  changed: (shard: ShardView, state: ShardHealth) => void = () => undefined,
): ShardHealthMonitor {
  return new ShardHealthMonitor({
    shards,
    clock,
    probe: async (node) => {
      const { pool, group } = service.get(node)!;
      await serviceQuery(pool, group, clock, 'SELECT 1');
    },
    changed: (shard, state) => {
      if (state.healthy) log.info({ shard: shard.name }, 'shard answers');
      else log.warn({ shard: shard.name, reason: state.reason }, 'shard does not answer');
      changed(shard, state);
    },
  });
}

/** Why requests should not be sent here, one sentence each. */
export function unhealthyReasons(shards: readonly ShardView[], health: ShardHealthMonitor): string[] {
  return shards
    .filter((shard) => !health.of(shard).healthy)
    .map((shard) => `shard ${shard.name}: ${health.of(shard).reason}`);
}
