// SELECT without aggregates: every shard sends its rows sorted, with the sort keys behind the client's columns, and at
// most as many as LIMIT and OFFSET together leave room for. ORDER BY names the appended columns, so that what is sorted
// by is what is sent, whatever the expressions do.

import type { Node } from 'libpg-query';
import { isRefusal, type Refusal } from '../../base/refusals.js';
import type { SortedPlan, SortKey, ValueRef } from '../plan/kv-plan.js';
import { quoteName } from '../text/identifiers.js';
import type { TextParts } from '../text/text-parts.js';
import { joinParts, listItems, spliceTokens, type TokenSpan, tokenAtByte } from '../text/text-tokens.js';
import { type OutputColumn, outputColumns } from './output-columns.js';
import { expressionFacts, refuse, textOrderOf } from './scatter-expressions.js';
import { type ScatterSource, shardRows, sortItems } from './scatter-source.js';

interface SortColumn {
  readonly parts: TextParts;
  readonly key: SortKey;
}

/** @param isVolatile a function that gives another value each time stands in the select list or in ORDER BY */
export function sortedPlan(source: ScatterSource, isVolatile: boolean): SortedPlan | Refusal {
  const { text, tokens, clauses } = source;
  const sorted = sortColumns(source, isVolatile);
  if (isRefusal(sorted)) return sorted;
  const columns = sorted;
  const limits = limitsOf(source);
  if (isRefusal(limits)) return limits;
  const appended = columns.map(({ parts }, index) => joinParts('(', parts, ') AS', sortName(index)));
  const listed = spliceTokens(text, tokens, clauses.selectList ?? { start: 0, end: 0 });
  const list = [listed, ...appended].filter((parts) => parts.length > 0);
  const order = columns.map(({ key }, index) => sortName(index) + directionOf(key)).join(', ');
  return {
    kind: 'sorted',
    shardText: joinParts(
      'SELECT',
      separated(list),
      shardRows(source),
      order === '' ? '' : `ORDER BY ${order}`,
      limits.shardText,
    ),
    sortKeys: columns.map(({ key }) => key),
    limit: limits.limit,
    offset: limits.offset,
  };
}

/** As an output column's name it is what ORDER BY means, before any column of the table. */
const sortName = (index: number): string => quoteName(`pgkv sort ${index}`);

const directionOf = ({ descending, nullsFirst }: SortKey): string =>
  `${descending ? ' DESC' : ''}${nullsFirst === descending ? '' : nullsFirst ? ' NULLS FIRST' : ' NULLS LAST'}`;

const separated = (items: readonly TextParts[]): TextParts =>
  joinParts(...items.flatMap((item, index) => (index === 0 ? [item] : [',', item])));

function sortColumns(source: ScatterSource, isVolatile: boolean): readonly SortColumn[] | Refusal {
  const { tokens, clauses, select, alias } = source;
  const spans = listItems(tokens, clauses.orderBy?.body ?? { start: 0, end: 0 });
  const outputs = outputColumns(select, clauses, tokens, alias);
  const listIsVolatile = isVolatile && expressionFacts(select.targetList ?? [], source).isVolatile;
  const columns: SortColumn[] = [];
  for (const [index, item] of sortItems(source).entries()) {
    const span = spans[index];
    if (item.node === undefined || span === undefined) return refuse('ORDER BY in this form', 'Write it out.');
    if (item.sortby_dir === 'SORTBY_USING') return refuse('ORDER BY … USING', 'Use ASC or DESC.');
    const descending = item.sortby_dir === 'SORTBY_DESC';
    const expression = withoutDirection(span, item.sortby_dir !== 'SORTBY_DEFAULT', item.sortby_nulls);
    const meant = outputMeant(item.node, outputs);
    if (meant !== null && isRefusal(meant)) return meant;
    const column = columnSortedBy(source, meant, { node: item.node, span: expression });
    if (isRefusal(column)) return column;
    // Evaluated a second time it would be another value than the one the client sees.
    if (column.isVolatile && (meant !== null || listIsVolatile)) {
      return refuse('An order by a volatile expression of the select list', 'Leave it out of the select list.');
    }
    const nullsFirst =
      item.sortby_nulls === 'SORTBY_NULLS_DEFAULT' ? descending : item.sortby_nulls === 'SORTBY_NULLS_FIRST';
    columns.push({ parts: column.parts, key: { descending, nullsFirst, needsByteOrder: column.needsByteOrder } });
  }
  return columns;
}

const withoutDirection = (span: TokenSpan, hasDirection: boolean, nulls: string | undefined): TokenSpan => ({
  start: span.start,
  end: span.end - (hasDirection ? 1 : 0) - (nulls === 'SORTBY_NULLS_DEFAULT' ? 0 : 2),
});

/** Postgres looks among the output columns first, by number or bare name; null: an expression over the table. */
function outputMeant(node: Node, outputs: readonly OutputColumn[]): OutputColumn | Refusal | null {
  if ('A_Const' in node) {
    const position = node.A_Const.ival?.ival ?? 0;
    const column = outputs[position - 1];
    if (column?.hasKnownPosition === true) return column;
    return refuse('ORDER BY a constant that is no number of a column before *', 'Order by the name of a column.');
  }
  if (!('ColumnRef' in node)) return null;
  const [field, ...more] = node.ColumnRef.fields ?? [];
  if (field === undefined || more.length > 0 || !('String' in field)) return null;
  const [first, ...same] = outputs.filter(({ name }) => name === field.String.sval);
  if (first === undefined) return null;
  if (same.some(({ column }) => column === null || column !== first.column)) {
    return refuse(`ORDER BY ${field.String.sval}, a name of several output columns,`, 'Give each its own name.');
  }
  return first;
}

function columnSortedBy(
  source: ScatterSource,
  meant: OutputColumn | null,
  written: { readonly node: Node; readonly span: TokenSpan },
): { readonly parts: TextParts; readonly needsByteOrder: boolean; readonly isVolatile: boolean } | Refusal {
  if (meant !== null && meant.expression === null) {
    return {
      parts: [`${quoteName(source.alias)}.${quoteName(meant.name)}`],
      needsByteOrder: false,
      isVolatile: false,
    };
  }
  const { node, span } = meant?.expression ?? written;
  const order = textOrderOf(node, source);
  if (typeof order === 'object') return order;
  return {
    parts: spliceTokens(source.text, source.tokens, span),
    needsByteOrder: order === 'database' || order === 'mixed',
    isVolatile: expressionFacts(node, source).isVolatile,
  };
}

interface Limits {
  readonly shardText: TextParts;
  readonly limit: ValueRef | null;
  readonly offset: ValueRef | null;
}

const LIMIT_HINT = 'Use a plain number or a parameter in LIMIT and OFFSET.';
/** More rows than there can be, and twice it still fits bigint. */
const ROWS_MAX = '4611686018427387904';

function limitsOf(source: ScatterSource): Limits | Refusal {
  const { select } = source;
  if (select.limitOption === 'LIMIT_OPTION_WITH_TIES') {
    return refuse('FETCH … WITH TIES', 'Use LIMIT, or FETCH … ROWS ONLY.');
  }
  const limit = limitValue(source, select.limitCount);
  const offset = limitValue(source, select.limitOffset);
  if (limit === 'unknown' || offset === 'unknown') return refuse('LIMIT or OFFSET by an expression', LIMIT_HINT);
  return { limit: limit?.value ?? null, offset: offset?.value ?? null, shardText: widened(limit, offset) };
}

interface LimitValue {
  readonly value: ValueRef;
  readonly parts: TextParts;
  /** A literal cannot be negative or NULL, and fits int4. */
  readonly isLiteral: boolean;
}

/**
 * A shard sends what LIMIT and OFFSET together may need. Parameters may be NULL, which is none, or negative, which has to
 * give Postgres's own error.
 */
function widened(limit: LimitValue | null, offset: LimitValue | null): TextParts {
  const l = limit?.parts ?? [];
  const o = offset?.parts ?? [];
  const check =
    offset === null || offset.isLiteral ? [] : joinParts('OFFSET CASE WHEN', o, '< 0 THEN', o, 'ELSE 0 END');
  if (limit === null) return check;
  if (offset === null) return joinParts('LIMIT', l);
  if (limit.isLiteral && offset.isLiteral) return joinParts('LIMIT', l, '+', o);
  const skipped = joinParts('LEAST( COALESCE(', o, ', 0),', ROWS_MAX, ')');
  const sum = joinParts('CASE WHEN', l, '< 0 THEN', l, 'WHEN', l, '<', ROWS_MAX, 'THEN', l, '+', skipped, 'END');
  return joinParts('LIMIT', sum, check);
}

/** Null: none. */
function limitValue({ tokens }: ScatterSource, node: Node | undefined): LimitValue | null | 'unknown' {
  if (node === undefined) return null;
  if ('A_Const' in node) {
    const { ival, isnull, location } = node.A_Const;
    if (isnull === true) return null;
    const token = tokens[tokenAtByte(tokens, location ?? -1)];
    if (ival === undefined || token === undefined || token.literal < 0) return 'unknown';
    return {
      value: { kind: 'literal', index: token.literal },
      parts: joinParts('(', [token.literal], ')::bigint'),
      isLiteral: true,
    };
  }
  const cast = 'TypeCast' in node ? node.TypeCast : null;
  const inner = cast === null ? node : cast.arg;
  if (inner === undefined || !('ParamRef' in inner)) return 'unknown';
  const number = inner.ParamRef.number ?? 0;
  const type = cast === null ? 'int8' : integerType(cast.typeName?.names ?? []);
  if (type === null) return 'unknown';
  const parts = type === 'int8' ? `$${number}::bigint` : `$${number}::${type}::bigint`;
  const uses = tokens.filter(({ kind, folded }) => kind === 'parameter' && folded === `$${number}`).length;
  const value: ValueRef = uses > 1 ? { kind: 'parameter', number, usedElsewhere: true } : { kind: 'parameter', number };
  return { value, parts: [`(${parts})`], isLiteral: false };
}

function integerType(names: readonly Node[]): string | null {
  const last = names.at(-1);
  const name = last !== undefined && 'String' in last ? (last.String.sval ?? '') : '';
  return ['int2', 'int4', 'int8'].includes(name) ? name : null;
}
