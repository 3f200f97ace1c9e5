// One member's own statement with its values as parameters. By the extended protocol as the client has it, but for literals
// that say which key: they become parameters behind the client's own, so that texts which differ in nothing else (the tenant
// written out) are one statement; any other literal stays where it is, and what it is. By the simple protocol all literals
// become parameters. That the new text means the same is proven on the syntax trees.

import { TypeOid } from '../../wire/type-oids.js';
import { parse } from '../meaning/parse.js';
import type { KvPlan, ValueRef } from '../plan/kv-plan.js';
import { PLACES } from '../rewrite/kv-proof.js';
import { renderText } from '../text/kv-text.js';
import { LITERAL_STRIDE, LiteralKind, lexShape } from '../text/shape-lexer.js';
import { highestParameter } from '../text/text-parts.js';
import { spliceTokens, type TextToken, type TokenEdit, tokensOf } from '../text/text-tokens.js';

export interface SingleStatement {
  readonly text: string;
  /** What stands for $1, $2 … */
  readonly refs: readonly ValueRef[];
  /** Types to declare for them; 0: the server's choice. */
  readonly types: readonly number[];
}

const INT8_MAX = 2n ** 63n - 1n;
const VALUES_MAX = 16;

/**
 * Null where it cannot be said so.
 *
 * @param literals of `text`, the client's own; see Shape.literals
 */
export function singleStatement(
  plan: KvPlan,
  text: string,
  literals: readonly number[],
  parameterTypes: readonly number[],
  fromText: boolean,
): SingleStatement | null {
  if (fromText) return fromLiterals(plan, text, literals, renderText(plan.text, text, literals));
  return ofLifted(plan, text, literals, liftKeys(plan, text, literals), parameterTypes);
}

/** A text for a shard with the literals of its keys lifted out. */
export interface LiftedText {
  readonly text: string;
  /** The client's own parameters, and the literals behind them. */
  readonly refs: readonly ValueRef[];
  readonly lifted: readonly LiteralRef[];
  /** Literals were left in it. */
  readonly keepsLiterals: boolean;
}

export type LiteralRef = ValueRef & { readonly kind: 'literal' };

/** Costs no parse: what it makes is looked up before it is proven to mean the same. */
export function liftKeys(plan: KvPlan, text: string, literals: readonly number[]): LiftedText {
  const own = highestParameter(plan.text);
  const refs: ValueRef[] = Array.from({ length: own }, (_, index) => ({ kind: 'parameter', number: index + 1 }));
  const lifted: LiteralRef[] = [];
  const places = new Map<number, number>();
  for (const { tenant, key } of plan.keys ?? []) {
    for (const ref of [tenant, key]) {
      if (ref.kind !== 'literal' || places.has(ref.index)) continue;
      lifted.push(ref);
      places.set(ref.index, own + lifted.length);
    }
  }
  // Of a long list of keys none is.
  if (own + lifted.length > VALUES_MAX) {
    lifted.length = 0;
    places.clear();
  }
  let rendered = '';
  let keepsLiterals = false;
  for (const part of plan.text) {
    const place = typeof part === 'number' ? places.get(part) : undefined;
    if (typeof part === 'string') rendered += part;
    else if (place !== undefined) rendered += ` $${place} `;
    else {
      keepsLiterals = true;
      rendered += standardLiteral(text, literals, part);
    }
  }
  return { text: rendered, refs: [...refs, ...lifted], lifted, keepsLiterals };
}

/** As it reads under standard_conforming_strings, whatever the client's setting is. */
function standardLiteral(text: string, literals: readonly number[], index: number): string {
  const at = index * LITERAL_STRIDE;
  const source = text.slice(literals[at], literals[at + 1]);
  return literals[at + 2] === LiteralKind.escape && source.startsWith("'") ? ` E${source}` : source;
}

/** Null where the text with lifted literals does not mean the same, or cannot be run for many. */
export function ofLifted(
  plan: KvPlan,
  text: string,
  literals: readonly number[],
  { text: rendered, refs, lifted }: LiftedText,
  parameterTypes: readonly number[],
): SingleStatement | null {
  if (refs.length === 0 || refs.length > VALUES_MAX) return null;
  const own = refs.length - lifted.length;
  // Every Bind has to bring values for those, too, and a server may not take their types.
  if (parameterTypes.length > own) return null;
  const tokens = tokensIn(rendered);
  if (tokens === null) return null;
  const made = lifted.length === 0 ? rendered : withCasts(rendered, tokens, own);
  if (lifted.length > 0) {
    const original = plan.text
      .map((part) => (typeof part === 'string' ? part : standardLiteral(text, literals, part)))
      .join('');
    if (!isSameButValues(original, made)) return null;
  }
  const used = new Set(tokens.filter(({ kind }) => kind === 'parameter').map(({ folded }) => folded));
  if (used.size !== refs.length) return null;
  return { text: made, refs, types: refs.map((_, index) => (index < own ? (parameterTypes[index] ?? 0) : 0)) };
}

/** Tokens of a text that is read with standard_conforming_strings on. */
export function tokensIn(text: string): readonly TextToken[] | null {
  const shape = lexShape(text, true);
  return shape === null ? null : tokensOf(text, shape.literals);
}

function fromLiterals(
  plan: KvPlan,
  text: string,
  literals: readonly number[],
  original: string,
): SingleStatement | null {
  const refs: ValueRef[] = [];
  const types: number[] = [];
  const places = new Map<number, number>();
  let rendered = '';
  let used = 0;
  for (const part of plan.text) {
    if (typeof part === 'string') {
      rendered += part;
      continue;
    }
    let place = places.get(part);
    if (place === undefined) {
      const type = typeOfLiteral(text, literals, part);
      if (type === null) return null;
      types.push(type);
      refs.push({ kind: 'literal', index: part });
      place = refs.length;
      places.set(part, place);
    }
    rendered += ` $${place} `;
    used++;
  }
  if (refs.length === 0 || refs.length > VALUES_MAX) return null;
  const tokens = tokensIn(rendered);
  // More of them would be the client's own, for which it has no values.
  if (tokens === null || tokens.filter(({ kind }) => kind === 'parameter').length !== used) return null;
  const made = withCasts(rendered, tokens, 0);
  return isSameButValues(original, made) ? { text: made, refs, types } : null;
}

/**
 * To declare for the parameter that takes a literal's place: a literal keeps its type. Other texts of the shape may have
 * 1.5 where this has a bigint (a version); they fail when they are cast, and run by themselves.
 */
function typeOfLiteral(text: string, literals: readonly number[], index: number): number | null {
  const at = index * LITERAL_STRIDE;
  switch (literals[at + 2]) {
    case LiteralKind.string:
    case LiteralKind.escape:
    case LiteralKind.dollar:
      return 0;
    case LiteralKind.integer:
      return TypeOid.int4;
    case LiteralKind.numeric: {
      const source = text.slice(literals[at], literals[at + 1]);
      return /^[0-9]+$/.test(source) && BigInt(source) <= INT8_MAX ? TypeOid.int8 : null;
    }
    default:
      return null;
  }
}

const TYPES_BEFORE_LITERALS: ReadonlySet<string> = new Set(
  'bytea date interval json jsonb text time timestamp timestamptz uuid varchar'.split(' '),
);

/**
 * `interval '1 hour'` is `$1::interval`: a parameter has no type in front of it. Nor has it UESCAPE behind it.
 *
 * @param own parameters up to this number are the client's
 */
function withCasts(text: string, tokens: readonly TextToken[], own: number): string {
  const edits: TokenEdit[] = [];
  for (const [index, { kind, folded }] of tokens.entries()) {
    if (kind !== 'parameter' || Number(folded.slice(1)) <= own) continue;
    const start = typeStart(tokens, index);
    const end = tokens[index + 1]?.folded === 'uescape' ? index + 3 : index + 1;
    if (start === index && end === index + 1) continue;
    const type = start === index ? '' : `::${text.slice(tokens[start]!.start, tokens[index - 1]!.end)}`;
    edits.push({ start, end, parts: [`${folded}${type}`] });
  }
  if (edits.length === 0) return text;
  const parts = spliceTokens(text, tokens, { start: 0, end: tokens.length }, edits);
  return renderText(parts, text, lexShape(text, true)?.literals ?? []);
}

/** Where the name of a type begins that stands in front of the token at `index`; `index`: none does. */
function typeStart(tokens: readonly TextToken[], index: number): number {
  const word = (at: number): string => (tokens[at]?.kind === 'word' ? tokens[at]!.folded : '');
  if (word(index - 1) === 'varying') return ['character', 'char'].includes(word(index - 2)) ? index - 2 : index;
  if (!TYPES_BEFORE_LITERALS.has(word(index - 1))) return index;
  if (tokens[index - 2]?.folded !== '.') return index - 1;
  return word(index - 3) === 'pg_catalog' ? index - 3 : index;
}

/** Here a number is no value: it is a column's place, or part of a type. */
const NO_VALUES: ReadonlySet<string> = new Set(['typmods', 'node', 'groupClause', 'distinctClause']);

/** Whether two texts are one statement each, which differ only in that the second has parameters for constants. */
function isSameButValues(original: string, made: string): boolean {
  const [one, other] = [parse(original), parse(made)];
  if (one.kind === 'failed' || other.kind === 'failed') return false;
  if (one.statements.length !== 1 || other.statements.length !== 1) return false;
  const stack: [unknown, unknown, string][] = [[one.statements[0]!.node, other.statements[0]!.node, '']];
  while (stack.length > 0) {
    const [left, right, field] = stack.pop()!;
    if (typeof left !== 'object' || left === null || typeof right !== 'object' || right === null) {
      if (left !== right) return false;
      continue;
    }
    if ('A_Const' in left && 'ParamRef' in right) {
      if (NO_VALUES.has(field)) return false;
      continue;
    }
    const names = namesIn(left);
    if (Array.isArray(left) !== Array.isArray(right) || names.length !== namesIn(right).length) return false;
    for (const name of names) {
      if (!Object.hasOwn(right, name)) return false;
      stack.push([left[name as never], right[name as never], Array.isArray(left) ? field : name]);
    }
  }
  return true;
}

const namesIn = (node: object): string[] => Object.keys(node).filter((name) => !PLACES.has(name));
