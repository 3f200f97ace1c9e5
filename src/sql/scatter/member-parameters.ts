// The pseudo-parameters of statements whose arrays are cut (MemberPlan): while one is planned, the numbers of the members that a shard
// gets have a number beyond any that a client's text has; when it is run, the number behind the client's own, and arrays that stand in
// the text as literals the ones behind that.
import type { MemberPlan } from '../plan/kv-plan.js';
import type { TextParts } from '../text/text-parts.js';
import type { TextToken } from '../text/text-tokens.js';

/** Postgres allows 65535 at most; the last two are instant-parameters.ts's. */
const NUMBERS = 65_533;
const IN_TEXT = /\$65533(?!\d)/g;

/** From 1, of all members, those that the shard has. */
export const MEMBER_NUMBERS = `$${NUMBERS}::pg_catalog.int4[]`;

/** Whether the client's own parameters leave it free. */
export const leavesNumbers = (tokens: readonly TextToken[]): boolean =>
  tokens.every(({ kind, folded }) => kind !== 'parameter' || Number(folded.slice(1)) < NUMBERS);

/** By index of the literal: the number of the parameter in its place. @param count of the client's own parameters */
export function literalParameters({ arrays }: MemberPlan, count: number): ReadonlyMap<number, number> {
  const numbers = new Map<number, number>();
  for (const { ref } of arrays) if (ref.kind === 'literal') numbers.set(ref.index, count + 2 + numbers.size);
  return numbers;
}

/** @param count of the client's own parameters */
export function numberedMembers(parts: TextParts, plan: MemberPlan, count: number): TextParts {
  const literals = literalParameters(plan, count);
  return parts.map((part) => {
    if (typeof part === 'string') return part.replace(IN_TEXT, () => `$${count + 1}`);
    const number = literals.get(part);
    return number === undefined ? part : `$${number}`;
  });
}
