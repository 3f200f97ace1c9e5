// What `SHOW pgkv.status` answers; `pgkv status` reads it.

import type { ClusterView, NodeAddress, ShardView } from '../cluster/cluster-view.js';
import type { ShardHealth, WorkerState } from '../cluster/control-port.js';

export interface StatusSource {
  readonly view: ClusterView;
  readonly version: string;
  health(shard: ShardView): ShardHealth;
  /** Null: one process does everything. */
  readonly workers: readonly WorkerState[] | null;
}

const addressOf = ({ host, port }: NodeAddress): NodeAddress => ({ host, port });

export function routerStatus({ view, version, health, workers }: StatusSource): Record<string, unknown> {
  return {
    epoch: view.epoch,
    version,
    tables: view.tables,
    shards: view.shards.map((shard) => {
      const { state, reason } = health(shard);
      return {
        id: shard.id,
        name: shard.name,
        primary: addressOf(shard.primary),
        replicas: shard.replicas.map(addressOf),
        slots: shard.hashSlots,
        healthy: state === 'answers',
        ...(reason === null ? {} : { state, reason }),
      };
    }),
    ...(workers === null ? {} : { workers }),
  };
}
