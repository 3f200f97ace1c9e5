// The usual case of routing, without an object made: a statement on one key whose tenant_id and key are parameters.
import type { HashSlot } from '../cluster/cluster-view.js';
import { hashSlotInBuffer, UNREAD } from '../cluster/key-hash.js';
import type { KvPlan } from '../sql/plan/kv-plan.js';
import { BindMessage } from '../wire/bind-message.js';
import { TEXT_TYPES } from './key-values.js';

const message = new BindMessage();

/**
 * The slot of the only key of the Bind message whose count of parameter formats is at `formatsAt`, and which ends at `end`.
 * @param types of the parameters, from the Parse message
 * @returns UNREAD where `route` has to find out: other kinds of keys and values, and whatever is wrong with them
 */
export function slotOfBind(
  plan: KvPlan,
  types: readonly number[],
  buffer: Buffer,
  formatsAt: number,
  end: number,
): HashSlot | typeof UNREAD {
  return message.readBehindNames(buffer, formatsAt, end) ? slotOfMessage(plan, types, message) : UNREAD;
}

/** The same of a message that was read already. */
export function slotOfMessage(
  { keys, slots }: KvPlan,
  types: readonly number[],
  { buffer, offsets, count }: BindMessage,
): HashSlot | typeof UNREAD {
  if (keys === null || keys.length !== 1 || slots.length > 0) return UNREAD;
  const { kind, tenant, key } = keys[0]!;
  if (kind !== 'one' || tenant.kind !== 'parameter' || key.kind !== 'parameter') return UNREAD;
  if (!TEXT_TYPES.has(types[tenant.number - 1] ?? 0) || !TEXT_TYPES.has(types[key.number - 1] ?? 0)) return UNREAD;
  if (Math.max(tenant.number, key.number) > count) return UNREAD;
  const tenantAt = 2 * (tenant.number - 1);
  const keyAt = 2 * (key.number - 1);
  const tenantBytes = offsets[tenantAt + 1]!;
  const keyBytes = offsets[keyAt + 1]!;
  if (tenantBytes < 0 || keyBytes < 0) return UNREAD;
  const tenantStart = offsets[tenantAt]!;
  const keyStart = offsets[keyAt]!;
  return hashSlotInBuffer(buffer, tenantStart, tenantStart + tenantBytes, keyStart, keyStart + keyBytes);
}
