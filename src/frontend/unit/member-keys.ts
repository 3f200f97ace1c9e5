// The keys of a statement with parallel arrays (MemberPlan), and whether a plural function can begin with them at all: arrays of unlike
// lengths, NULL in place of one, and a key twice in a write fail before anything is done, on whatever shard.
import { PgkvError } from '../../base/errors.js';
import { type StatementValues, Unreadable } from '../../route/key-values.js';
import { isNullElement, writtenElement } from '../../route/text-array.js';
import type { MemberPlan, MemberValue } from '../../sql/plan/kv-plan.js';

/** Tenant and key as one text. */
export const keyText = (tenant: string | null, key: string | null): string => `${tenant}\0${key}`;

/** Of each member; NULL without quotes is the text (KeyValues.list). @param count of members */
export function memberTexts(value: MemberValue, count: number, values: StatementValues): readonly (string | null)[] {
  switch (value.kind) {
    case 'array':
      return known(values.list(value.array)) ?? [];
    case 'each':
      return value.values.map((ref) => known(values.text(ref)));
    case 'same': {
      const text = known(values.text(value.value));
      return Array.from({ length: count }, () => text);
    }
  }
}

function known<T>(read: T | Unreadable): T {
  if (read instanceof Unreadable) throw new PgkvError('internal', { detail: 'a key cannot be read again' });
  return read;
}

/** A server refuses it, in its own words. */
const isFault = (read: unknown): boolean => read instanceof Unreadable && read.isFault;

/** The keys are known to be readable. */
export function failsAtOnce(plan: MemberPlan, writes: boolean, values: StatementValues): boolean {
  if (plan.arrays.some(({ ref }) => isFault(values.array(ref)))) return true;
  if (plan.isPadded) return false;
  const counts = [...plan.written];
  for (const { ref, isOptional } of plan.arrays) {
    const array = values.array(ref);
    if (array === null && !isOptional) return true;
    if (array !== null && !(array instanceof Unreadable)) counts.push(array.count);
  }
  return counts.some((count) => count !== counts[0]) || (writes && hasKeyTwice(plan, counts[0] ?? 0, values));
}

function hasKeyTwice({ tenant, key }: MemberPlan, count: number, values: StatementValues): boolean {
  const tenants = memberTexts(tenant, count, values);
  const keys = memberTexts(key, count, values);
  const found = new Set<string>();
  for (let member = 0; member < count; member++) {
    if (mayBeNull(tenants, tenant, member, values) || mayBeNull(keys, key, member, values)) continue;
    const text = keyText(tenants[member]!, keys[member]!);
    if (found.has(text)) return true;
    found.add(text);
  }
  return false;
}

/** What NULL without quotes is, `array_nulls` says. */
function mayBeNull(
  texts: readonly (string | null)[],
  value: MemberValue,
  member: number,
  values: StatementValues,
): boolean {
  if (texts[member] == null) return true;
  if (value.kind !== 'array') return false;
  const array = values.array(value.array);
  return (
    array !== null &&
    !(array instanceof Unreadable) &&
    array.kind === 'text' &&
    isNullElement(writtenElement(array, member))
  );
}
