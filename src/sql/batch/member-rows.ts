// The members of a merged statement as rows (D11): arrays of text, one per value, taken apart into columns whose names no
// client's statement has.
import { randomBytes } from 'node:crypto';
import type { KvPlan, ValueRef } from '../plan/kv-plan.js';
import type { Clauses } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import { renderText } from '../text/kv-text.js';
import { lexShape } from '../text/shape-lexer.js';
import { spliceTokens, type TextToken, type TokenEdit, type TokenSpan } from '../text/text-tokens.js';

/** What nobody can know beforehand; a statement that has it all the same is not merged. */
export const TOKEN = randomBytes(6).toString('hex');
export const quoted = (name: string): string => quoteName(`␟${TOKEN} ${name}`);
export const ROWS = quoted('r');
export const ORDINAL = quoted('o');
export const column = (index: number): string => quoted(String(index + 1));

/** The statement of a single member, and what is known of it. */
export interface Source {
  readonly plan: KvPlan;
  readonly refs: readonly ValueRef[];
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly clauses: Clauses;
  /** Names in SQL of the types of its parameters. */
  readonly types: readonly string[];
  /** Expressions of values alone that may fail (ahead-values.ts). */
  readonly ahead: readonly TokenSpan[];
}

/** Side by side. (`unnest` of several arrays, without its schema, is short for this.) */
export const unnested = (types: readonly string[]): string =>
  `ROWS FROM (${types.map((type, index) => `pg_catalog.unnest($${index + 1}::pg_catalog.${type}[])`).join(', ')})`;
export const texts = (count: number): string[] => Array.from({ length: count }, () => 'text');
export const columns = (count: number): string[] => Array.from({ length: count }, (_, index) => column(index));

const TEXT = 'pg_catalog.text';

/** The members as rows, numbered. */
export function numberedRows(source: Source): string {
  const { types, ahead } = source;
  const rows = `${unnested(texts(types.length))} WITH ORDINALITY AS ${ROWS}(${[...columns(types.length), ORDINAL].join(', ')})`;
  if (ahead.length === 0 && types.every((type) => type === TEXT)) return rows;
  // OFFSET 0 keeps it from being made part of the rest.
  return `(SELECT ${converted(source)}, ${ROWS}.${ORDINAL} FROM ${rows} OFFSET 0) AS ${ROWS}`;
}

/**
 * A member's values as columns of their types, and what is made of them alone: a value that is none of its type is an
 * error though no row of the table is found for it, as it is where it stands in a Bind or in a text. At 64 members of
 * three values that costs nothing that could be measured: they were converted for each row before.
 */
export function converted(source: Source): string {
  const values = source.types.map((type, index) => {
    const value = `${ROWS}.${column(index)}`;
    return type === TEXT ? value : `${value}::${type} AS ${column(index)}`;
  });
  return [...values, ...aheadTexts(source).map((text, index) => `${text} AS ${aheadColumn(index)}`)].join(', ');
}

const aheadColumn = (index: number): string => quoted(`v${index + 1}`);

/** Each once: what the client wrote twice is one value to GROUP BY and ORDER BY. */
const aheadTexts = (source: Source): string[] => [...new Set(source.ahead.map((span) => aheadText(source, span)))];

function aheadText(source: Source, span: TokenSpan): string {
  const edits = parameterEdits(source, span, (index) => {
    const type = source.types[index]!;
    return `(${ROWS}.${column(index)}${type === TEXT ? '' : `::${type}`})`;
  });
  return rendered(source, span, edits);
}

export const parameterIndex = ({ folded }: TextToken): number => Number(folded.slice(1)) - 1;

/** A member's value where its row is at hand. */
export const memberValue = (index: number): string => `(${ROWS}.${column(index)})`;

/** Each parameter, and what is worked out ahead, as the column of a member's row. */
export function carried(source: Source, span: TokenSpan, more: readonly TokenEdit[] = []): string {
  return withValues(source, span, (value) => value, more);
}

/**
 * The text of a span with something else for each value of the member that no other edit has taken.
 *
 * @param value gets the value where the member's row is at hand, and which parameter it is; -1: it is made of several
 */
export function withValues(
  source: Source,
  span: TokenSpan,
  value: (value: string, index: number) => string,
  more: readonly TokenEdit[] = [],
): string {
  const isFree = ({ start, end }: TokenSpan): boolean =>
    more.every((edit) => edit.end <= start || edit.start >= end || edit.start === edit.end);
  const texts = source.ahead.length === 0 ? [] : aheadTexts(source);
  const ahead = source.ahead
    .filter((one) => one.start >= span.start && one.end <= span.end && isFree(one))
    .map((one): TokenEdit => {
      const column = `(${ROWS}.${aheadColumn(texts.indexOf(aheadText(source, one)))})`;
      return { ...one, parts: [value(column, -1)] };
    });
  const taken = [...more, ...ahead];
  return rendered(source, span, [
    ...taken,
    ...parameterEdits(source, span, (index) => value(memberValue(index), index), taken),
  ]);
}

/** Something else for each parameter that is not in one of `taken`. */
function parameterEdits(
  { tokens }: Source,
  span: TokenSpan,
  value: (index: number) => string,
  taken: readonly TokenEdit[] = [],
): TokenEdit[] {
  const edits: TokenEdit[] = [];
  for (let at = span.start; at < span.end; at++) {
    if (tokens[at]!.kind !== 'parameter' || taken.some(({ start, end }) => at >= start && at < end)) continue;
    edits.push({ start: at, end: at + 1, parts: [value(parameterIndex(tokens[at]!))] });
  }
  return edits;
}

function rendered({ text, tokens }: Source, span: TokenSpan, edits: readonly TokenEdit[]): string {
  // Literals that were left in the text stay what they are.
  return renderText(spliceTokens(text, tokens, span, edits), text, lexShape(text, true)?.literals ?? []);
}

/** The text of a span with the parameters that it has. */
export const asWritten = (source: Source, { start, end }: TokenSpan): string => rendered(source, { start, end }, []);

export const textOf = (source: Source, { start, end }: TokenSpan): string =>
  source.text.slice(source.tokens[start]!.start, source.tokens[end - 1]!.end);

/** How the target is called in the rest of its statement. */
export function targetName(source: Source): string {
  const { name, alias } = source.clauses.target!;
  const at = alias.end > alias.start ? alias.end - 1 : name.end - 1;
  return textOf(source, { start: at, end: at + 1 });
}
