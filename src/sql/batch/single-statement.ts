// One member's own statement with its values as parameters: as the client has it, or, where it sends values in the text,
// with the text's literals turned into parameters. That the latter means the same is proven on the syntax trees.

import { TypeOid } from '../../wire/type-oids.js';
import { parse } from '../meaning/parse.js';
import type { KvPlan, ValueRef } from '../plan/kv-plan.js';
import { PLACES } from '../rewrite/kv-proof.js';
import { renderText } from '../text/kv-text.js';
import { LITERAL_STRIDE, LiteralKind, lexShape } from '../text/shape-lexer.js';
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
  const rendered = renderText(plan.text, text, literals);
  if (fromText) return fromLiterals(plan, text, literals, rendered);
  if (hasPlainEscapes(text, literals)) return null;
  const count = parameterCount(rendered);
  if (count === null || count === 0 || count > VALUES_MAX) return null;
  const refs = Array.from({ length: count }, (_, index): ValueRef => ({ kind: 'parameter', number: index + 1 }));
  return { text: rendered, refs, types: refs.map((_, index) => parameterTypes[index] ?? 0) };
}

/** '…' with backslashes that escape, which what is built here would be read without. */
function hasPlainEscapes(text: string, literals: readonly number[]): boolean {
  for (let at = 0; at < literals.length; at += LITERAL_STRIDE) {
    if (literals[at + 2] === LiteralKind.escape && text[literals[at]!] === "'") return true;
  }
  return false;
}

/** The highest number of a parameter; null where one of them is not used. */
function parameterCount(text: string): number | null {
  const used = new Set<number>();
  for (const token of tokensIn(text) ?? []) if (token.kind === 'parameter') used.add(Number(token.folded.slice(1)));
  const highest = Math.max(0, ...used);
  return used.size === highest ? highest : null;
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
  const made = withCasts(rendered, tokens);
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
  'bytea date interval json jsonb text time timestamp timestamptz uuid'.split(' '),
);

/** `interval '1 hour'` is `$1::interval`: a parameter has no type in front of it. */
function withCasts(text: string, tokens: readonly TextToken[]): string {
  const edits: TokenEdit[] = [];
  for (const [index, { kind, folded }] of tokens.entries()) {
    const type = tokens[index - 1];
    if (kind !== 'parameter' || type?.kind !== 'word' || !TYPES_BEFORE_LITERALS.has(type.folded)) continue;
    if (tokens[index - 2]?.folded === '.') continue;
    edits.push({ start: index - 1, end: index + 1, parts: [`${folded}::${type.folded}`] });
  }
  if (edits.length === 0) return text;
  const parts = spliceTokens(text, tokens, { start: 0, end: tokens.length }, edits);
  return renderText(parts, text, lexShape(text, true)?.literals ?? []);
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
