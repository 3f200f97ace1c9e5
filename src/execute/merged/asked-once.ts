// Identical reads of one batch are asked once (D11): where many clients read the same key at the same time, the server looks
// it up for one of them.
import { HASH_SLOT_COUNT } from '../../config/slot-ranges.js';
import type { MergedRequest } from './merged-request.js';

/** By hash slot, 1 + the place of the last member of that slot; all 0 between calls. */
const lastOfSlot = new Int32Array(HASH_SLOT_COUNT);

/**
 * Points each member that asks exactly what one before it asks to that one.
 * @param values how many values each has
 * @returns the others, in their order
 */
export function askedOnce(members: readonly MergedRequest[], values: number): readonly MergedRequest[] {
  let asked: MergedRequest[] | null = null;
  for (let index = 0; index < members.length; index++) {
    const member = members[index]!;
    const before = lastOfSlot[member.slot]!;
    const other = before === 0 ? null : members[before - 1]!;
    member.twin = other !== null && asksTheSame(member, other, values) ? other : null;
    if (member.twin === null) {
      lastOfSlot[member.slot] = index + 1;
      asked?.push(member);
    } else asked ??= members.slice(0, index);
  }
  for (const { slot } of members) lastOfSlot[slot] = 0;
  return asked ?? members;
}

function asksTheSame(one: MergedRequest, other: MergedRequest, values: number): boolean {
  for (let value = 0; value < values; value++) {
    const length = one.offsets[2 * value + 1]!;
    if (length !== other.offsets[2 * value + 1]) return false;
    const start = one.offsets[2 * value]!;
    const otherStart = other.offsets[2 * value]!;
    const bytes = one.bufferOf(value);
    const others = other.bufferOf(value);
    for (let at = 0; at < length; at++) if (bytes[start + at] !== others[otherStart + at]) return false;
  }
  return true;
}
