// SELECT without aggregates: every shard sends its rows sorted, with the sort keys behind the client's columns, and at
// most as many as LIMIT and OFFSET together leave room for. ORDER BY names the appended columns, so that what is sorted
// by is what is sent, whatever the expressions do.

import type { Node } from 'libpg-query';
import { isRefusal, type Refusal } from '../../base/refusals.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { SortedPlan, SortedText, SortKey, ValueRef } from '../plan/kv-plan.js';
import { quoteName } from '../text/identifiers.js';
import type { TextParts } from '../text/text-parts.js';
import { joinParts, listItems, spliceTokens, type TokenSpan, tokenAtByte } from '../text/text-tokens.js';
import { type OutputColumn, outputColumns } from './output-columns.js';
import { expressionFacts, refuse, textOrderOf } from './scatter-expressions.js';
import { type ScatterSource, shardRows, sortItems } from './scatter-source.js';

interface SortColumn {
  readonly parts: TextParts;
  readonly key: SortKey;
  /** A column of the table and nothing else. */
  readonly isColumn: boolean;
}

/** @param isVolatile a function that gives another value each time stands in the select list or in ORDER BY */
export function sortedPlan(source: ScatterSource, isVolatile: boolean): SortedPlan | Refusal {
  const columns = sortColumns(source, isVolatile);
  if (isRefusal(columns)) return columns;
  const limits = limitsOf(source);
  if (isRefusal(limits)) return limits;
  return {
    kind: 'sorted',
    ...sortedText(source, limits.shardText, columns.map(asItIs)),
    recoded: columns.length === 0 ? null : sortedText(source, limits.shardText, columns.map(recoded)),
    limit: limits.limit,
    offset: limits.offset,
  };
}

/** What of a key is sent behind the client's columns, and how a shard sorts by it. */
interface SentKey {
  readonly columns: readonly TextParts[];
  readonly order: TextParts;
  readonly keys: readonly SortKey[];
}

function sortedText(source: ScatterSource, limit: TextParts, sent: readonly SentKey[]): SortedText {
  const { text, tokens, clauses } = source;
  const listed = spliceTokens(text, tokens, clauses.selectList ?? { start: 0, end: 0 });
  const list = [listed, ...sent.flatMap(({ columns }) => columns)].filter((parts) => parts.length > 0);
  const order = sent.map((one) => one.order);
  return {
    shardText: joinParts(
      'SELECT',
      separated(list),
      shardRows(source),
      ...(order.length === 0 ? [] : ['ORDER BY', separated(order)]),
      limit,
    ),
    sortKeys: sent.flatMap(({ keys }) => keys),
  };
}

const asItIs = ({ parts, key }: SortColumn, index: number): SentKey => ({
  columns: [joinParts('(', parts, ') AS', sortName(index))],
  order: [sortName(index) + directionOf(key)],
  keys: [key],
});

/** Types whose values are sent in the client's encoding, which need not have their characters, and sorted by their bytes. */
const TEXTS = [TypeOid.text, TypeOid.varchar, TypeOid.name].join(', ');

/** No server converts a bytea. Only one of the two columns has the value, so that it is computed once for each row. */
function recoded({ parts, key, isColumn }: SortColumn, index: number): SentKey {
  const isText = joinParts('pg_catalog.pg_typeof(', parts, `)::pg_catalog.oid IN (${TEXTS})`);
  const value = joinParts('CASE WHEN', isText, 'THEN NULL ELSE (', parts, ') END AS', sortName(index));
  const bytes = joinParts(
    'CASE WHEN',
    isText,
    'THEN pg_catalog.convert_to((',
    parts,
    ")::pg_catalog.text, 'UTF8') END AS",
    bytesName(index),
  );
  const direction = directionOf(key);
  return {
    columns: [value, bytes],
    // An index is of use for the column itself alone.
    order: isColumn ? joinParts(parts, direction) : [`${sortName(index)}${direction}, ${bytesName(index)}${direction}`],
    keys: [key, { ...key, needsByteOrder: false }],
  };
}

/** As an output column's name it is what ORDER BY means, before any column of the table. */
export const sortName = (index: number): string => quoteName(`pgkv sort ${index}`);
const bytesName = (index: number): string => quoteName(`pgkv sort ${index} bytes`);

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
    const { parts, needsByteOrder, isColumn } = column;
    columns.push({ parts, key: { descending, nullsFirst, needsByteOrder }, isColumn });
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

interface ColumnSortedBy extends Pick<SortColumn, 'parts' | 'isColumn'> {
  readonly needsByteOrder: boolean;
  readonly isVolatile: boolean;
}

function columnSortedBy(
  source: ScatterSource,
  meant: OutputColumn | null,
  written: { readonly node: Node; readonly span: TokenSpan },
): ColumnSortedBy | Refusal {
  if (meant !== null && meant.expression === null) {
    return {
      parts: [`${quoteName(source.alias)}.${quoteName(meant.name)}`],
      needsByteOrder: false,
      isVolatile: false,
      isColumn: true,
    };
  }
  const { node, span } = meant?.expression ?? written;
  const order = textOrderOf(node, source);
  if (typeof order === 'object') return order;
  return {
    parts: spliceTokens(source.text, source.tokens, span),
    needsByteOrder: order === 'database' || order === 'mixed',
    isVolatile: expressionFacts(node, source).isVolatile,
    // One of that name in the select list is another, or none.
    isColumn: meant === null && 'ColumnRef' in node,
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

export function limitsOf(source: ScatterSource): Limits | Refusal {
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
