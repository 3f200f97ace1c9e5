// The map of the cluster as one immutable value: shards, their nodes, which hash slots they own. A statement takes one
// view and keeps it; only control/ makes new ones (D5).

/** A shard's number, its place in the map; not a hash slot. */
export type ShardId = number & { readonly brand: 'ShardId' };
export type Epoch = number & { readonly brand: 'Epoch' };
/** Inclusive range of the 16,384 hash slots. */
export type HashSlotRange = readonly [first: number, last: number];

export interface NodeAddress {
  readonly host: string;
  readonly port: number;
}

export interface ShardView {
  readonly id: ShardId;
  readonly name: string;
  readonly primary: NodeAddress;
  readonly replicas: readonly NodeAddress[];
  readonly hashSlots: readonly HashSlotRange[];
}

export interface ClusterView {
  readonly epoch: Epoch;
  readonly shards: readonly ShardView[];
}

export interface ShardDescription {
  readonly name: string;
  readonly hashSlots: readonly HashSlotRange[];
  /** The primary first. */
  readonly nodes: readonly NodeAddress[];
}

/** The first view of a cluster whose shards are described by configuration. */
export function initialView(shards: readonly ShardDescription[]): ClusterView {
  return {
    epoch: 1 as Epoch,
    shards: shards.map(({ name, hashSlots, nodes }, index) => {
      const [primary, ...replicas] = nodes;
      if (primary === undefined) throw new RangeError(`shard ${name} has no node`);
      return { id: index as ShardId, name, primary, replicas, hashSlots };
    }),
  };
}

/** Where catalogue reads, settings and tables of no shard in particular live. */
export function homeShard(view: ClusterView): ShardView {
  const [home] = view.shards;
  if (home === undefined) throw new RangeError('a cluster has at least one shard');
  return home;
}
