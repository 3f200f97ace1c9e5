// The usual case of routing, without an object made: a statement on one key whose tenant_id and key are parameters.
import type { HashSlot } from '../cluster/cluster-view.js';
import { hashSlotInBuffer, UNREAD } from '../cluster/key-hash.js';
import type { KvPlan } from '../sql/plan/kv-plan.js';
import { TEXT_TYPES } from './key-values.js';

/**
 * The slot of the only key of the Bind message whose count of parameter formats is at `formatsAt`, and which ends at `end`.
 * @param types of the parameters, from the Parse message
 * @returns UNREAD where `route` has to find out: other kinds of keys and values, and whatever is wrong with them
 */
export function slotOfBind(
  { keys, slots }: KvPlan,
  types: readonly number[],
  buffer: Buffer,
  formatsAt: number,
  end: number,
): HashSlot | typeof UNREAD {
  if (keys === null || keys.length !== 1 || slots.length > 0) return UNREAD;
  const { kind, tenant, key } = keys[0]!;
  if (kind !== 'one' || tenant.kind !== 'parameter' || key.kind !== 'parameter') return UNREAD;
  if (!TEXT_TYPES.has(types[tenant.number - 1] ?? 0) || !TEXT_TYPES.has(types[key.number - 1] ?? 0)) return UNREAD;
  if (formatsAt + 2 > end) return UNREAD;
  let at = formatsAt + 2 + 2 * buffer.readUInt16BE(formatsAt);
  const last = Math.max(tenant.number, key.number);
  if (at + 2 > end || last > buffer.readUInt16BE(at)) return UNREAD;
  at += 2;
  let tenantStart = 0;
  let tenantEnd = 0;
  let keyStart = 0;
  let keyEnd = 0;
  for (let number = 1; number <= last; number++) {
    if (at + 4 > end) return UNREAD;
    const length = buffer.readInt32BE(at);
    at += 4;
    if (length > end - at) return UNREAD;
    const valueEnd = at + Math.max(0, length);
    if (number === tenant.number || number === key.number) {
      if (length < 0) return UNREAD;
      if (number === tenant.number) {
        tenantStart = at;
        tenantEnd = valueEnd;
      }
      if (number === key.number) {
        keyStart = at;
        keyEnd = valueEnd;
      }
    }
    at = valueEnd;
  }
  return hashSlotInBuffer(buffer, tenantStart, tenantEnd, keyStart, keyEnd);
}
