// The map of the cluster as one immutable value: shards, their nodes, which hash slots they own. A statement takes one
// view and keeps it; only control/ makes new ones (D5).

import { coverageFaults, HASH_SLOT_COUNT } from '../config/slot-ranges.js';
import type { KvTable } from './kv-table.js';

/** A shard's number, its place in the map; not a hash slot. */
export type ShardId = number & { readonly brand: 'ShardId' };
/** 0 to 16,383; see key-hash.ts. */
export type HashSlot = number & { readonly brand: 'HashSlot' };
export type Epoch = number & { readonly brand: 'Epoch' };
/** Inclusive range of the 16,384 hash slots. */
export type HashSlotRange = readonly [first: number, last: number];

/** A server, whatever shard it is part of and whatever role it has: its address in one text. */
export type NodeId = string & { readonly brand: 'NodeId' };
export type NodeRole = 'auto' | 'primary' | 'replica';

export interface NodeAddress {
  readonly host: string;
  readonly port: number;
}

export interface NodeView extends NodeAddress {
  readonly id: NodeId;
  /** As the configuration states it; "auto" states nothing. */
  readonly role: NodeRole;
}

export interface ShardView {
  readonly id: ShardId;
  readonly name: string;
  readonly primary: NodeView;
  readonly replicas: readonly NodeView[];
  /** Of all its nodes, as the catalogue knows it (D28); null where it does not. */
  readonly systemIdentifier: string | null;
  readonly hashSlots: readonly HashSlotRange[];
}

export interface ClusterView {
  readonly epoch: Epoch;
  readonly shards: readonly ShardView[];
  /** Key-value tables, the same on every shard; none where pgkv only pools one server. */
  readonly tables: readonly KvTable[];
  /** The database in which they are, on every shard; sessions of other databases have none. */
  readonly database: string | null;
  /** What each shard says it belongs to (D28); null where the catalogue has no name for it. */
  readonly clusterId: string | null;
  /** Index of the shard in `shards` by hash slot. */
  readonly shardOfSlot: Uint16Array;
}

export interface ShardDescription {
  readonly name: string;
  readonly hashSlots: readonly HashSlotRange[];
  /** The primary first. */
  readonly nodes: readonly (NodeAddress & { readonly role?: NodeRole })[];
  readonly systemIdentifier?: string | undefined;
}

export const nodeId = ({ host, port }: NodeAddress): NodeId => `${host}:${port}` as NodeId;

/**
 * A view of shards whose nodes are described by configuration.
 * @throws RangeError where a shard has no node, or where there are tables and a hash slot has no owner or two
 */
export function initialView(
  shards: readonly ShardDescription[],
  tables: readonly KvTable[] = [],
  epoch: number = 1,
  database: string | null = null,
  clusterId: string | null = null,
): ClusterView {
  return {
    epoch: epoch as Epoch,
    tables,
    database,
    clusterId,
    shardOfSlot: slotOwners(shards, tables.length > 0),
    shards: shards.map(({ name, hashSlots, nodes, systemIdentifier = null }, index) => {
      const [primary, ...replicas] = nodes.map(
        ({ host, port, role = 'auto' }): NodeView => ({ host, port, id: nodeId({ host, port }), role }),
      );
      if (primary === undefined) throw new RangeError(`shard ${name} has no node`);
      return { id: index as ShardId, name, primary, replicas, systemIdentifier, hashSlots };
    }),
  };
}

/** Without tables nothing is asked of it, and a configuration that only pools one server need not state slots. */
function slotOwners(shards: readonly ShardDescription[], areNeeded: boolean): Uint16Array {
  const nameOf = (index: number) => shards[index]?.name ?? '?';
  const owners = new Uint16Array(HASH_SLOT_COUNT);
  const owned = shards.flatMap(({ hashSlots }, owner) => hashSlots.map((range) => ({ owner, range })));
  const [fault] = areNeeded ? coverageFaults(owned) : [];
  if (fault !== undefined) {
    const [first, last] = fault.range;
    const slots = `hash slots ${first} to ${last}`;
    switch (fault.kind) {
      case 'gap':
        throw new RangeError(`no shard holds ${slots}`);
      case 'overlap':
        throw new RangeError(`${slots} belong to shard ${nameOf(fault.other)} and to shard ${nameOf(fault.owner)}`);
      case 'reversed':
        throw new RangeError(`shard ${nameOf(fault.owner)}: the range [${first}, ${last}] ends before it begins`);
    }
  }
  for (const { owner, range } of owned) owners.fill(owner, range[0], range[1] + 1);
  return owners;
}

export function shardOf(view: ClusterView, slot: HashSlot): ShardView {
  return view.shards[view.shardOfSlot[slot]!]!;
}

/** Where catalogue reads, settings and tables of no shard in particular live. */
export function homeShard(view: ClusterView): ShardView {
  const [home] = view.shards;
  if (home === undefined) throw new RangeError('a cluster has at least one shard');
  return home;
}
