// Wires the merged lanes of a worker to those of the others.
import type { ClusterView } from '../cluster/cluster-view.js';
import type { ControlPort } from '../cluster/control-port.js';
import type { PidRange } from '../cluster/session-pids.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import type { MergedLanes } from '../execute/merged/merged-lanes.js';
import { LaneSharing } from '../execute/shared/lane-sharing.js';
import type { Counters } from '../telemetry/counters.js';
import type { LaneSockets } from './lane-sockets.js';
import type { PoolServices } from './node-pools.js';

/** So long what others have handed over may take behind the order to end. */
const END_MS = 2_000;

/** The other data processes, and what this one has to reach them. */
export interface Siblings {
  readonly port: ControlPort;
  readonly pids: PidRange;
  readonly worker: number;
  /** Null: each merges for itself. */
  readonly sockets: LaneSockets | null;
}

interface SharingPlane extends Pick<PoolServices, 'settings' | 'registry' | 'clock'> {
  readonly siblings: Siblings | null;
  readonly views: ViewHolder;
}

export interface SharedLanes {
  /** Resolves when nothing is awaited of this worker any more, or takes too long. */
  end(): Promise<void>;
  destroy(): void;
}

/** Null where each worker merges for itself. */
export function shareLanes(
  lanes: MergedLanes,
  counters: Counters,
  { settings, siblings, registry, clock, views }: SharingPlane,
): SharedLanes | null {
  if (siblings === null || siblings.sockets === null) return null;
  const { sockets, worker } = siblings;
  const { merged, workers } = settings;
  const sharing = new LaneSharing(lanes, {
    ...{ worker, workers, clock, registry, counters },
    always: merged.shareAcrossWorkers === 'on',
    deadlineMs: merged.deadlineMs,
    connect: (owner) => sockets.connect(owner),
    stamp: () => Number(process.hrtime.bigint() / 1_000n) / 1_000,
    epoch: () => views.current.epoch,
    shardOf: (node) => shardOf(views.current, node),
    later: setImmediate,
  });
  lanes.shareBy((own) => sharing.queue(own));
  sockets.listen((socket) => sharing.accept(socket));
  return {
    end() {
      sockets.close();
      const late = new Promise<void>((resolve) => void clock.after(END_MS, resolve));
      return Promise.race([sharing.end(), late]);
    },
    destroy() {
      sockets.close();
      sharing.destroy();
    },
  };
}

const shardOf = ({ shards }: ClusterView, node: string): number =>
  shards.findIndex(({ primary }) => primary.id === node);
