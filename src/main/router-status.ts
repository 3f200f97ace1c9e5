// What `SHOW pgkv.status` answers; `pgkv status` reads it.

import type { ClusterView, ShardView } from '../cluster/cluster-view.js';
import type { WorkerState } from '../cluster/control-port.js';

export interface StatusSource {
  readonly view: ClusterView;
  readonly version: string;
  healthy(shard: ShardView): boolean;
  /** Null: one process does everything. */
  readonly workers: readonly WorkerState[] | null;
}

export function routerStatus({ view, version, healthy, workers }: StatusSource): Record<string, unknown> {
  return {
    epoch: view.epoch,
    version,
    tables: view.tables,
    shards: view.shards.map((shard) => ({
      id: shard.id,
      name: shard.name,
      primary: shard.primary,
      replicas: shard.replicas,
      slots: shard.hashSlots,
      healthy: healthy(shard),
    })),
    ...(workers === null ? {} : { workers }),
  };
}
