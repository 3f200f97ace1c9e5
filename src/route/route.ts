// Where a statement on a key-value table goes (D8). Pure: a plan, its values and a view give a frozen Route, and nothing
// behind it reads SQL again.
import { isRefusal, type Refusal, refuse } from '../base/refusals.js';
import type { ClusterView, HashSlot, ShardView } from '../cluster/cluster-view.js';
import { homeShard, shardOf } from '../cluster/cluster-view.js';
import { hashSlotOf } from '../cluster/key-hash.js';
import type { BackendCall } from '../sql/plan/backend-call.js';
import type { KeyRef, KvPlan, ValueRef } from '../sql/plan/kv-plan.js';
import { type KeyValues, Unreadable } from './key-values.js';

/** Where a statement on a key-value table goes. */
export type KvRoute =
  /** One shard holds every key; `slots` in the order of the keys, without those that are NULL. */
  | { readonly kind: 'keyed'; readonly shard: ShardView; readonly slots: readonly HashSlot[] }
  /** The shards that hold the keys, by id. */
  | { readonly kind: 'multi-keyed'; readonly shards: readonly ShardView[]; readonly slots: readonly HashSlot[] }
  /** The same, or all: a statement that writes, on each of them what it has. */
  | { readonly kind: 'spread'; readonly shards: readonly ShardView[]; readonly slots: readonly HashSlot[] }
  /** All shards: rows may be anywhere. */
  | { readonly kind: 'scattered'; readonly shards: readonly ShardView[] }
  | Refusal;

export type Route =
  | KvRoute
  /** Concerns no key-value table: the home shard. */
  | { readonly kind: 'home' }
  /** BEGIN, COMMIT, ROLLBACK and savepoints: where the block is. */
  | { readonly kind: 'control' }
  /** `SHOW pgkv.<name>`, which pgkv answers. */
  | { readonly kind: 'show' }
  /** EXPLAIN (ROUTE), which runs nothing. */
  | { readonly kind: 'explain' }
  /** Asks for a session by its pid: pgkv's where the pid is one of pgkv's, else the home shard's. */
  | { readonly kind: 'backend'; readonly call: BackendCall };

export const HOME_ROUTE: Route = { kind: 'home' };
export const CONTROL_ROUTE: Route = { kind: 'control' };
export const SHOW_ROUTE: Route = { kind: 'show' };
export const EXPLAIN_ROUTE: Route = { kind: 'explain' };

export interface RouteValues extends KeyValues {
  integer(ref: KeyRef['key']): bigint | null | Unreadable;
}

export function route(plan: KvPlan, values: RouteValues, view: ClusterView): KvRoute {
  const { keys } = plan;
  if (keys === null) {
    if (view.shards.length === 1) return { kind: 'keyed', shard: homeShard(view), slots: [] };
    if (maySpread(plan, view)) return { kind: 'spread', shards: view.shards, slots: [] };
    return isRefusal(plan.scatter) ? plan.scatter : { kind: 'scattered', shards: view.shards };
  }
  const slots: HashSlot[] = [];
  const { slots: stated } = plan;
  // In the order of the keys, as planned.
  let next = 0;
  for (let index = 0; index < keys.length; index++) {
    const before = slots.length;
    const failure = addSlots(keys[index]!, values, slots);
    if (failure !== null) {
      if (failure.isFault) return { kind: 'keyed', shard: homeShard(view), slots: [] };
      // Where all rows are in one place their keys need not be known.
      if (failure.isTooLong && view.shards.length === 1) return { kind: 'keyed', shard: homeShard(view), slots: [] };
      return failure.isTooLong
        ? refuse('array_too_long', { why: failure.reason })
        : refuse('key_unreadable', { why: failure.reason });
    }
    for (; stated[next]?.keyIndex === index; next++) {
      const wrong = wrongSlot(stated[next]!.value, slots.length > before ? slots[before]! : null, values);
      if (wrong !== null) return wrong;
    }
  }
  return routeSlots(plan, slots, view);
}

function routeSlots(plan: KvPlan, slots: readonly HashSlot[], view: ClusterView): KvRoute {
  // Nothing can match NULL, and every shard says so alike.
  if (slots.length === 0) return { kind: 'keyed', shard: homeShard(view), slots };
  const first = shardOf(view, slots[0]!);
  if (slots.every((slot) => view.shardOfSlot[slot] === first.id)) return { kind: 'keyed', shard: first, slots };
  const isSpread = maySpread(plan, view);
  if (isRefusal(plan.scatter) && !isSpread) return plan.scatter;
  const ids = [...new Set(slots.map((slot) => view.shardOfSlot[slot]!))].sort((a, b) => a - b);
  return { kind: isSpread ? 'spread' : 'multi-keyed', shards: ids.map((id) => view.shards[id]!), slots };
}

/** Without an id of the cluster nobody could find what is left behind. */
const maySpread = ({ spread }: KvPlan, { clusterId }: ClusterView): boolean => spread !== null && clusterId !== null;

/** Adds the slots of the keys that a reference stands for; NULLs have none. */
function addSlots(ref: KeyRef, values: KeyValues, slots: HashSlot[]): Unreadable | null {
  if (ref.kind === 'lists') return addPairs(ref, values, slots);
  const tenant = values.text(ref.tenant);
  if (tenant instanceof Unreadable) return tenant;
  if (ref.kind === 'one') {
    const key = values.text(ref.key);
    if (key instanceof Unreadable) return key;
    if (tenant !== null && key !== null) slots.push(hashSlotOf(tenant, key));
    return null;
  }
  const keys = values.list(ref.key);
  if (keys instanceof Unreadable) return keys;
  if (tenant === null || keys === null) return null;
  for (const key of keys) if (key !== null) slots.push(hashSlotOf(tenant, key));
  return null;
}

function addPairs(ref: KeyRef, values: KeyValues, slots: HashSlot[]): Unreadable | null {
  const tenants = values.list(ref.tenant);
  const keys = values.list(ref.key);
  if (tenants instanceof Unreadable) return tenants;
  if (keys instanceof Unreadable) return keys;
  if (tenants === null || keys === null) return null;
  for (let index = 0; index < Math.min(tenants.length, keys.length); index++) {
    const tenant = tenants[index]!;
    const key = keys[index]!;
    if (tenant !== null && key !== null) slots.push(hashSlotOf(tenant, key));
  }
  return null;
}

/** A slot that an INSERT states has to be the key's own (D2). */
function wrongSlot(stated: ValueRef, slot: HashSlot | null, values: RouteValues): KvRoute | null {
  const value = values.integer(stated);
  if (value instanceof Unreadable) return refuse('slot_unreadable', { why: value.reason });
  if (value === null || slot === null || value === BigInt(slot)) return null;
  return refuse('slot_wrong', { stated: value, slot });
}
