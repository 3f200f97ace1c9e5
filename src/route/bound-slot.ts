// The usual case of routing, without an object made: an extended statement on one key whose tenant_id and key stand in its
// Bind, or in its text. Where each of them is, is found once for a statement.
import type { HashSlot } from '../cluster/cluster-view.js';
import { hashPartBytes, hashSlotInBuffer, hashSlotOf, UNREAD } from '../cluster/key-hash.js';
import type { KvPlan, ValueRef } from '../sql/plan/kv-plan.js';
import type { BindMessage } from '../wire/bind-message.js';
import { type StatementValues, TEXT_TYPES } from './key-values.js';

/** Where the only key of an extended statement is. */
export interface KeyPlaces {
  /** Which parameters they are, from 0; -1: they are known. */
  readonly tenantAt: number;
  readonly keyAt: number;
  readonly tenant: Uint8Array | null;
  /** The part of it that is hashed. */
  readonly key: Uint8Array | null;
  /** Where both are known; else UNREAD. */
  readonly slot: HashSlot | typeof UNREAD;
}

/**
 * Null where `route` has to find out for each Bind: other kinds of keys and values.
 *
 * @param types of the parameters, from the Parse message
 * @param values of the text: its literals are all that is asked for
 */
export function keyPlaces(
  { keys, slots }: KvPlan,
  types: readonly number[],
  values: Pick<StatementValues, 'text'>,
): KeyPlaces | null {
  if (keys === null || keys.length !== 1 || slots.length > 0 || keys[0]!.kind !== 'one') return null;
  const tenant = placeOf(keys[0]!.tenant, types, values);
  const key = placeOf(keys[0]!.key, types, values);
  if (tenant === null || key === null) return null;
  const { text: tenantText } = tenant;
  const { text: keyText } = key;
  return {
    tenantAt: tenant.at,
    keyAt: key.at,
    tenant: tenantText === null ? null : Buffer.from(tenantText),
    key: keyText === null ? null : hashPartBytes(keyText),
    slot: tenantText === null || keyText === null ? UNREAD : hashSlotOf(tenantText, keyText),
  };
}

function placeOf(
  ref: ValueRef,
  types: readonly number[],
  values: Pick<StatementValues, 'text'>,
): { readonly at: number; readonly text: string | null } | null {
  if (ref.kind === 'parameter') {
    return TEXT_TYPES.has(types[ref.number - 1] ?? 0) ? { at: ref.number - 1, text: null } : null;
  }
  const text = values.text(ref);
  return typeof text === 'string' ? { at: -1, text } : null;
}

/**
 * The slot of the only key of the Bind message that was read.
 * @returns UNREAD where `route` has to find out: what is not short and plain, and whatever is wrong with it
 */
export function slotOfBind(
  { tenantAt, keyAt, tenant, key, slot }: KeyPlaces,
  { buffer, count, offsets }: BindMessage,
): HashSlot | typeof UNREAD {
  if (tenantAt >= count || keyAt >= count) return UNREAD;
  if (tenantAt < 0 && keyAt < 0) return slot;
  const tenantStart = tenantAt < 0 ? 0 : offsets[2 * tenantAt]!;
  const tenantBytes = tenantAt < 0 ? 0 : offsets[2 * tenantAt + 1]!;
  const keyStart = keyAt < 0 ? 0 : offsets[2 * keyAt]!;
  const keyBytes = keyAt < 0 ? 0 : offsets[2 * keyAt + 1]!;
  if (tenantBytes < 0 || keyBytes < 0) return UNREAD;
  return hashSlotInBuffer(buffer, tenantStart, tenantStart + tenantBytes, keyStart, keyStart + keyBytes, tenant, key);
}
