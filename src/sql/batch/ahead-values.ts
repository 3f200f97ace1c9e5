// Expressions over a member's own values that may fail: `$3::text::int8`, `($3 || '')::jsonb`, `$3 / $4`. Postgres works
// out what does not depend on a row when it plans, so that a bad value is an error whether or not its row is there; a
// merged statement has to work it out for each member before it looks for rows (member-rows.ts). Read off the tokens of a
// statement that uses nothing but what batchable.ts lets pass. What is found without need costs an evaluation; what is
// not found (values joined by operators in the middle of an expression on a row: `version + $3 / $4`) is worked out for
// rows that are there.
import { closingIndex, type TextToken, type TokenSpan } from '../text/text-tokens.js';
import { isListedFunction, isTypeWord, nameOf } from './batchable.js';

const words = (list: string): ReadonlySet<string> => new Set(list.trim().split(/\s+/));

/** Functions that do not fail, or that Postgres leaves for when there is a row, as they are not immutable. */
const HARMLESS = words(`age array_to_json btrim char_length character_length coalesce concat concat_ws greatest
  json_build_array json_build_object jsonb_build_array jsonb_build_object least length lower ltrim md5 now nullif
  octet_length quote_literal replace reverse row_to_json rtrim starts_with statement_timestamp strpos to_char to_json
  to_jsonb transaction_timestamp trim upper`);
/** Any text is one. */
const TEXT_TYPES = words('text varchar bpchar char character');
/** Names of types that the server calls otherwise. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['int', 'int4'],
  ['integer', 'int4'],
  ['smallint', 'int2'],
  ['bigint', 'int8'],
  ['boolean', 'bool'],
  ['decimal', 'numeric'],
  ['real', 'float4'],
]);
/** Between values: these bind closer than what may stand around the whole. */
const INNER_OPERATORS = words('+ - * / % ^ || -> ->> #> #>> & | # << >> #-');
/** Of them, those that cannot fail where their operands have not. */
const SAFE_OPERATORS = words('|| -> ->> #> #>>');
/** An expression begins behind one of these, or at the front. */
const BEFORE_EXPRESSIONS =
  words(`( , [ = < > <= >= <> != @> <@ ? ?| ?& @? @@ ~ ~* !~ !~* select returning where and or not when
  then else case limit offset by set like ilike between on distinct having`);
/** And ends in front of one of these, or at the end. */
const BEHIND_EXPRESSIONS =
  words(`) , ] = < > <= >= <> != @> <@ ? ?| ?& @? @@ ~ ~* !~ !~* and or is in not when then else end from
  where limit offset order group having returning as like ilike between ; asc desc nulls on`);
interface Found {
  readonly end: number;
  readonly hasParameter: boolean;
  readonly mayFail: boolean;
}

/**
 * The longest expressions of values alone that may fail, in order; they do not overlap.
 *
 * @param types names in SQL of the parameters' types, to which values are converted anyway
 */
export function aheadSpans(tokens: readonly TextToken[], span: TokenSpan, types: readonly string[]): TokenSpan[] {
  const scan = new ValueScan(tokens, span.end, types);
  const found: TokenSpan[] = [];
  for (let at = span.start; at < span.end; ) {
    const one = scan.run(at, at === span.start ? null : tokens[at - 1]!) ?? scan.operand(at);
    if (one?.hasParameter && one.mayFail) found.push({ start: at, end: one.end });
    // Brackets that are left are gone through: only what is found as a whole is skipped.
    at = one?.mayFail || (one !== null && one.end === at + 1) ? one.end : at + 1;
  }
  return found;
}

class ValueScan {
  readonly #tokens: readonly TextToken[];
  readonly #end: number;
  readonly #types: readonly string[];

  constructor(tokens: readonly TextToken[], end: number, types: readonly string[]) {
    this.#tokens = tokens;
    this.#end = end;
    this.#types = types;
  }

  /** Operands joined by operators, where they are all that stands there; null where they are not. */
  run(start: number, before: TextToken | null): Found | null {
    if (before !== null && !BEFORE_EXPRESSIONS.has(before.folded)) return null;
    const all = this.#joined(start);
    if (all === null) return null;
    const behind = this.#at(all.end);
    return behind === null || BEHIND_EXPRESSIONS.has(behind.folded) ? all : null;
  }

  #at(index: number): TextToken | null {
    return index < this.#end ? this.#tokens[index]! : null;
  }

  #joined(start: number): Found | null {
    let at = start;
    let hasParameter = false;
    let mayFail = false;
    // A sign in front.
    if (this.#at(at)?.kind === 'symbol' && ['-', '+'].includes(this.#at(at)!.folded)) {
      mayFail = true;
      at++;
    }
    for (;;) {
      const operand = this.operand(at);
      if (operand === null) return null;
      hasParameter ||= operand.hasParameter;
      mayFail ||= operand.mayFail;
      at = operand.end;
      const operator = this.#at(at);
      if (operator === null || operator.kind !== 'symbol' || !INNER_OPERATORS.has(operator.folded)) break;
      mayFail ||= !SAFE_OPERATORS.has(operator.folded);
      at++;
    }
    return { end: at, hasParameter, mayFail };
  }

  /** A value, a bracket or a call of values only, with the casts behind it. */
  operand(start: number): Found | null {
    const first = this.#primary(start);
    if (first === null) return null;
    let { end, mayFail } = first;
    for (let isBare = first.end === start + 1; this.#at(end)?.folded === '::'; isBare = false) {
      const type = this.#typeAt(end + 1);
      if (type === null) return null;
      mayFail ||= !(isBare ? this.#isOwn(start, type.name) : TEXT_TYPES.has(type.name));
      end = type.end;
    }
    // An element or a field of it is wanted.
    if (['[', '.'].includes(this.#at(end)?.folded ?? '')) return null;
    return { end, hasParameter: first.hasParameter, mayFail };
  }

  #primary(at: number): Found | null {
    const token = this.#at(at);
    if (token === null) return null;
    if (token.kind === 'parameter' || token.kind === 'literal') {
      return { end: at + 1, hasParameter: token.kind === 'parameter', mayFail: false };
    }
    const before = this.#tokens[at - 1] ?? null;
    if (token.folded === '(' && token.kind === 'symbol') {
      if (before !== null && (before.kind === 'quoted' || (before.kind === 'word' && !isOpening(before)))) return null;
      const close = closingIndex(this.#tokens, at);
      const inner = this.#joined(at + 1);
      return inner !== null && inner.end === close ? { ...inner, end: close + 1 } : null;
    }
    if (token.kind !== 'word') return null;
    if (token.folded === 'pg_catalog' && this.#at(at + 1)?.folded === '.') return this.#call(at + 2);
    return this.#call(at);
  }

  #call(at: number): Found | null {
    const open = this.#at(at + 1);
    if (this.#at(at)?.kind !== 'word' || open?.folded !== '(' || open.kind !== 'symbol') return null;
    const name = this.#at(at)!.folded;
    const close = closingIndex(this.#tokens, at + 1);
    if (name === 'cast') return this.#cast(at + 2, close);
    if (name === 'row' || !isListedFunction(name)) return null;
    let mayFail = !HARMLESS.has(name);
    let hasParameter = false;
    let next = at + 2;
    while (next < close) {
      const argument = this.#joined(next);
      if (argument === null) return null;
      hasParameter ||= argument.hasParameter;
      mayFail ||= argument.mayFail;
      next = argument.end;
      if (next < close && this.#tokens[next]!.folded !== ',') return null;
      next++;
    }
    return { end: close + 1, hasParameter, mayFail };
  }

  /** What is between the brackets of CAST (… AS type). */
  #cast(start: number, close: number): Found | null {
    const operand = this.#joined(start);
    if (operand === null || this.#tokens[operand.end]?.folded !== 'as') return null;
    const type = this.#typeAt(operand.end + 1);
    if (type === null || type.end !== close) return null;
    const isBare = operand.end === start + 1;
    const fails = !(isBare ? this.#isOwn(start, type.name) : TEXT_TYPES.has(type.name));
    return { end: close + 1, hasParameter: operand.hasParameter, mayFail: operand.mayFail || fails };
  }

  /** Whether the value at `at` is converted to that type before anything else is done with it. */
  #isOwn(at: number, type: string): boolean {
    const token = this.#tokens[at]!;
    // A constant of the text is the server's own business when it plans.
    if (token.kind !== 'parameter') return true;
    return TEXT_TYPES.has(type) || this.#types[Number(token.folded.slice(1)) - 1] === `pg_catalog.${type}`;
  }

  /** The type's name as the server has it, '' where it takes fewer values than that type, and where it ends. */
  #typeAt(start: number): { readonly name: string; readonly end: number } | null {
    const isQualified = this.#at(start)?.folded === 'pg_catalog';
    let at = isQualified ? start + 2 : start;
    const first = this.#at(at);
    if (first === null || first.kind !== 'word') return null;
    let name = ALIASES.get(nameOf(first)) ?? nameOf(first);
    at++;
    const takes = (...wanted: string[]): boolean => {
      if (!wanted.every((word, index) => this.#at(at + index)?.folded === word)) return false;
      at += wanted.length;
      return true;
    };
    if (name === 'double' && takes('precision')) name = 'float8';
    if (name === 'character') takes('varying');
    if (this.#at(at)?.folded === '(') {
      at = closingIndex(this.#tokens, at) + 1;
      // A length or scale that a value may not fit.
      if (!TEXT_TYPES.has(name)) name = '';
    }
    if (name === 'timestamp' || name === 'time') {
      if (takes('with', 'time', 'zone')) name += 'tz';
      else takes('without', 'time', 'zone');
    }
    while (takes('[', ']')) name = `_${name}`;
    // interval day to second and the like.
    if (this.#at(at)?.kind === 'word' && isTypeWord(this.#at(at)!.folded)) return null;
    return { name, end: at };
  }
}

/** A keyword behind which a bracket is an expression's own. */
const isOpening = ({ kind, folded }: TextToken): boolean =>
  kind === 'word' && BEFORE_EXPRESSIONS.has(folded) && folded !== 'by' && folded !== 'on';
