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
}

/** Side by side. (`unnest` of several arrays, without its schema, is short for this.) */
export const unnested = (types: readonly string[]): string =>
  `ROWS FROM (${types.map((type, index) => `pg_catalog.unnest($${index + 1}::pg_catalog.${type}[])`).join(', ')})`;
export const texts = (count: number): string[] => Array.from({ length: count }, () => 'text');
export const columns = (count: number): string[] => Array.from({ length: count }, (_, index) => column(index));

/** The members as rows, numbered. */
export const numberedRows = (count: number): string =>
  `${unnested(texts(count))} WITH ORDINALITY AS ${ROWS}(${[...columns(count), ORDINAL].join(', ')})`;

export const parameterIndex = ({ folded }: TextToken): number => Number(folded.slice(1)) - 1;

/** A member's value where its row is at hand. */
export function memberValue({ types }: Source, index: number): string {
  const type = types[index]!;
  return `(${ROWS}.${column(index)}${type === 'pg_catalog.text' ? '' : `::${type}`})`;
}

/** Each parameter as the column of a member's row. */
export function carried(source: Source, span: TokenSpan, more: readonly TokenEdit[] = []): string {
  return withValues(source, span, (index) => memberValue(source, index), more);
}

/** The text of a span with something else for each parameter that no other edit has taken. */
export function withValues(
  { text, tokens }: Source,
  span: TokenSpan,
  value: (index: number) => string,
  more: readonly TokenEdit[] = [],
): string {
  const edits: TokenEdit[] = [...more];
  for (let at = span.start; at < span.end; at++) {
    if (tokens[at]!.kind !== 'parameter' || more.some(({ start, end }) => at >= start && at < end)) continue;
    edits.push({ start: at, end: at + 1, parts: [value(parameterIndex(tokens[at]!))] });
  }
  // Literals that were left in the text stay what they are.
  return renderText(spliceTokens(text, tokens, span, edits), text, lexShape(text, true)?.literals ?? []);
}

export const textOf = (source: Source, { start, end }: TokenSpan): string =>
  source.text.slice(source.tokens[start]!.start, source.tokens[end - 1]!.end);

/** How the target is called in the rest of its statement. */
export function targetName(source: Source): string {
  const { name, alias } = source.clauses.target!;
  const at = alias.end > alias.start ? alias.end - 1 : name.end - 1;
  return textOf(source, { start: at, end: at + 1 });
}
