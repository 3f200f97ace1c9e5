// INSERT … SELECT into a key-value table, from unnest() of arrays or from no table at all: what each row's key is, is known before it is
// run. Rows of the same key that have expired are reaped first (D9), as by INSERT … VALUES; here the whole SELECT waits for that:
//
//   WITH "pgkv reaped" AS MATERIALIZED (DELETE FROM kv AS "pgkv old" USING (SELECT ($1)::text, (u.k)::text FROM unnest($2, $3) AS u(k, v))
//     AS "pgkv new"(tenant_id, key) WHERE …)
//   INSERT INTO kv (tenant_id, key, value) SELECT $1, u.k, u.v FROM unnest($2, $3) AS u(k, v)
//     WHERE (SELECT count(*) FROM "pgkv reaped") >= 0
import type { FuncCall, InsertStmt, Node, SelectStmt } from 'libpg-query';
import { type Refusal, refuse } from '../../base/refusals.js';
import type { KvTable } from '../../cluster/kv-table.js';
import { namePath } from '../meaning/name-path.js';
import type { KeyRef, MemberPlan, MemberValue, SpreadPlan, ValueRef } from '../plan/kv-plan.js';
import { HAS_REAPED, reapingOf } from '../rewrite/insert-text.js';
import { aliasOf, filterEdits, insertion, takeFilter } from '../rewrite/kv-rewrites.js';
import { leavesNumbers } from '../scatter/member-parameters.js';
import { type Clauses, findClauses } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import type { TextParts } from '../text/text-parts.js';
import {
  closingIndex,
  joinParts,
  listItems,
  spliceTokens,
  type TokenEdit,
  type TokenSpan,
  withoutParentheses,
} from '../text/text-tokens.js';
import { columnsOf, conflictEdits, takeReapingWith } from './insert-conflict.js';
import { cutArray, isCutWherever, memberValue } from './kv-members.js';
import { parameterTypes } from './kv-parameters.js';
import { spreadInstants } from './kv-rows.js';
import type { PlannedStatement, StatementSource } from './kv-statement.js';
import { type ListValue, ValueReader } from './kv-values.js';

/** What the SELECT reads: unnest() of arrays, with a name for each column. */
interface Unnested {
  readonly call: FuncCall;
  readonly alias: string;
  readonly columns: readonly string[];
  /** Of its arguments. */
  readonly spans: readonly TokenSpan[];
}

interface Query {
  readonly source: StatementSource;
  readonly statement: InsertStmt;
  readonly select: SelectStmt;
  /** Of the whole, and of the SELECT. */
  readonly clauses: Clauses;
  readonly inner: Clauses;
  /** Null: it reads nothing. */
  readonly unnested: Unnested | null;
}

/** One of tenant_id and key. */
interface KeyItem {
  readonly value:
    | { readonly kind: 'same'; readonly value: ValueRef }
    | { readonly kind: 'listed'; readonly list: ListValue };
  /** As it stands in the text. */
  readonly span: TokenSpan | null;
  /** In a SELECT *: the column. */
  readonly column: string;
}

export function planInsertSelect(
  source: StatementSource,
  statement: InsertStmt,
  select: SelectStmt,
  table: KvTable,
): PlannedStatement | Refusal {
  const query = queryOf(source, statement, select);
  if (query === null) return refuse('insert_select');
  const { clauses, inner } = query;
  const columns = columnsOf(statement);
  if (columns.tenantAt < 0 || columns.keyAt < 0) return refuse('key_missing');
  if (columns.slotAt >= 0 && (statement.cols !== undefined || givesMoreThan(query, columns.slotAt)))
    return refuse('slot_computed');
  const types = parameterTypes({ InsertStmt: statement }, source.keyArguments, columns.names);
  const values = new ValueReader(source, types);
  const tenant = keyItem(query, columns.tenantAt, values);
  const key = keyItem(query, columns.keyAt, values);
  const keys = tenant === null || key === null ? null : keysOf(tenant, key);
  if (tenant === null || key === null || keys === null) return refuse('key_computed');
  const tail = conflictEdits(statement, statement.relation!, clauses);
  const filter = filterEdits(inner, (inner.from?.body ?? inner.selectList!).end, HAS_REAPED);
  const edits = (cut: readonly TokenEdit[]): TokenEdit[] => [
    insertion(clauses.statement.start, ...reaping(query, [tenant, key], cut)),
    ...cut,
    ...filter,
    ...tail.edits,
  ];
  const spread = query.unnested === null ? null : spreadOf(query, query.unnested, tenant, key, edits);
  return {
    table,
    verb: 'insert',
    writes: true,
    keys,
    slots: [],
    edits: edits([]),
    undo: (node) => 'InsertStmt' in node && takeEdits(node.InsertStmt) && tail.undo(node.InsertStmt),
    scatter: refuse(query.unnested === null ? 'several_shards_write' : 'several_shards_arrays'),
    spread: spread?.plan ?? null,
    members: spread?.members ?? null,
  };
}

/** Without names for the columns that are inserted. */
function givesMoreThan({ select, unnested }: Query, count: number): boolean {
  const targets = select.targetList ?? [];
  return targets.length > count || (unnested !== null && targets.length - 1 + unnested.columns.length > count);
}

function takeEdits(statement: InsertStmt): boolean {
  const { selectStmt: query } = statement;
  if (!takeReapingWith(statement) || query === undefined || !('SelectStmt' in query)) return false;
  return takeFilter(query.SelectStmt, HAS_REAPED);
}

/** Null: it is in a form that is not known. */
function queryOf(source: StatementSource, statement: InsertStmt, select: SelectStmt): Query | null {
  const { clauses, tokens } = source;
  if (clauses?.source == null || clauses.target === null || statement.relation === undefined) return null;
  if (select.op !== 'SETOP_NONE' || select.withClause !== undefined || select.intoClause !== undefined) return null;
  const isPlain =
    select.distinctClause === undefined &&
    select.groupClause === undefined &&
    select.havingClause === undefined &&
    select.windowClause === undefined &&
    select.sortClause === undefined &&
    select.limitCount === undefined &&
    select.limitOffset === undefined &&
    select.lockingClause === undefined;
  const inner = findClauses(tokens, withoutParentheses(tokens, clauses.source));
  if (!isPlain || inner?.verb !== 'select' || inner.selectList === null) return null;
  const [from, ...more] = select.fromClause ?? [];
  if (from === undefined) return { source, statement, select, clauses, inner, unnested: null };
  const unnested = more.length > 0 ? null : unnestedOf(source, from, inner);
  return unnested === null || select.whereClause !== undefined
    ? null
    : { source, statement, select, clauses, inner, unnested };
}

function unnestedOf({ tokens }: StatementSource, from: Node, { from: clause }: Clauses): Unnested | null {
  if (!('RangeFunction' in from) || clause === null) return null;
  const { functions, alias, lateral, ordinality, is_rowsfrom: isRowsFrom, coldeflist } = from.RangeFunction;
  if (lateral === true || ordinality === true || isRowsFrom === true || coldeflist !== undefined) return null;
  const [list] = functions ?? [];
  const [found] = list !== undefined && 'List' in list ? (list.List.items ?? []) : [];
  if (found === undefined || !('FuncCall' in found) || !isUnnest(found.FuncCall)) return null;
  const call = found.FuncCall;
  let opening = clause.body.start + 1;
  while (tokens[opening]?.folded === '.') opening += 2;
  const spans = listItems(tokens, { start: opening + 1, end: closingIndex(tokens, opening) });
  const count = (call.args ?? []).length;
  if (tokens[opening]?.folded !== '(' || spans.length !== count || count === 0 || call.func_variadic === true)
    return null;
  const named = namePath(alias?.colnames ?? []);
  // A single column has the name of its table.
  const only = alias?.aliasname ?? 'unnest';
  const columns = named.length === 0 && count === 1 ? [only] : named;
  return columns.length === count ? { call, alias: only, columns, spans } : null;
}

function isUnnest({ funcname }: FuncCall): boolean {
  const path = namePath(funcname ?? []);
  return path.at(-1) === 'unnest' && (path.length === 1 || (path.length === 2 && path[0] === 'pg_catalog'));
}

/** What the column at that place is given; null: it is not known before it is run. */
function keyItem(query: Query, at: number, values: ValueReader): KeyItem | null {
  const { select, source, inner, unnested } = query;
  const targets = select.targetList ?? [];
  const spans = listItems(source.tokens, inner.selectList!);
  const nodes = targets.map((target) => ('ResTarget' in target ? target.ResTarget.val : undefined));
  const isStar = nodes.length === 1 && nodes[0] !== undefined && isStarOf(nodes[0], unnested);
  if (isStar) {
    const column = unnested?.columns[at];
    return column === undefined ? null : listed(query, at, null, values);
  }
  const [node, span] = [nodes[at], spans[at]];
  if (node === undefined || span === undefined || spans.length !== nodes.length) return null;
  if (nodes.some((one) => one !== undefined && isStarOf(one, unnested))) return null;
  const target = targets[at]!;
  const isNamed = 'ResTarget' in target && target.ResTarget.name !== undefined;
  const own = isNamed ? withoutName(source, span) : span;
  if ('ColumnRef' in node) {
    const path = namePath(node.ColumnRef.fields ?? []);
    const place = unnested?.columns.indexOf(path.at(-1) ?? '') ?? -1;
    const isOurs = path.length === 1 || (path.length === 2 && path[0] === unnested?.alias);
    const isOnce = unnested?.columns.lastIndexOf(path.at(-1) ?? '') === place;
    return place < 0 || !isOurs || !isOnce ? null : listed(query, place, own, values);
  }
  const value = values.scalar(node);
  return value === null ? null : { value: { kind: 'same', value }, span: own, column: '' };
}

const isStarOf = (node: Node, unnested: Unnested | null): boolean => {
  if (!('ColumnRef' in node) || unnested === null) return false;
  return (node.ColumnRef.fields ?? []).some((field) => 'A_Star' in field);
};

/** `expression [AS] name` without the name. */
function withoutName({ tokens }: StatementSource, { start, end }: TokenSpan): TokenSpan {
  const isAs = tokens[end - 2]?.folded === 'as';
  return { start, end: end - (isAs ? 2 : 1) };
}

function listed({ unnested }: Query, place: number, span: TokenSpan | null, values: ValueReader): KeyItem | null {
  const list = values.list(unnested!.call.args?.[place]);
  if (list === null) return null;
  return { value: { kind: 'listed', list }, span, column: unnested!.columns[place]! };
}

/** Null: not in this form. */
function keysOf({ value: tenant }: KeyItem, { value: key }: KeyItem): readonly KeyRef[] | null {
  if (tenant.kind === 'same') {
    if (key.kind === 'same') return isNull(tenant.value) || isNull(key.value) ? [] : [one(tenant.value, key.value)];
    if (key.list.kind === 'array') return [{ kind: 'list', tenant: tenant.value, key: key.list.array }];
    return key.list.elements.filter((element) => !isNull(element)).map((element) => one(tenant.value, element));
  }
  if (key.kind === 'same') return null;
  if (tenant.list.kind === 'array' && key.list.kind === 'array')
    return [{ kind: 'lists', tenant: tenant.list.array, key: key.list.array }];
  if (tenant.list.kind === 'array' || key.list.kind === 'array') return null;
  const { elements } = key.list;
  return tenant.list.elements
    .slice(0, elements.length)
    .map((element, index) => one(element, elements[index]!))
    .filter((ref) => !isNull(ref.tenant) && !isNull(ref.key));
}

const one = (tenant: ValueRef, key: ValueRef): KeyRef => ({ kind: 'one', tenant, key });
const isNull = ({ kind }: ValueRef): boolean => kind === 'null';

/** The WITH in front. */
function reaping(
  { source, clauses, inner, unnested }: Query,
  keys: readonly KeyItem[],
  cut: readonly TokenEdit[],
): TextParts {
  const { text, tokens } = source;
  const from =
    inner.from === null ? [] : spliceTokens(text, tokens, { start: inner.from.start, end: inner.from.body.end }, cut);
  const items = keys.map(({ span, column }) => {
    if (span !== null) return spliceTokens(text, tokens, span);
    return [`${quoteName(unnested!.alias)}.${quoteName(column)}`];
  });
  const select = joinParts('SELECT (', items[0]!, ')::pg_catalog.text, (', items[1]!, ')::pg_catalog.text', from);
  return reapingOf(spliceTokens(text, tokens, clauses.target!.name), select);
}

function spreadOf(
  { source, statement, clauses }: Query,
  { call, spans }: Unnested,
  tenant: KeyItem,
  key: KeyItem,
  edits: (cut: readonly TokenEdit[]) => TokenEdit[],
): { readonly plan: SpreadPlan; readonly members: MemberPlan } | null {
  const { tokens, text, isAlone } = source;
  const instants = isAlone ? spreadInstants(statement, clauses, tokens) : null;
  if (instants === null || !leavesNumbers(tokens)) return null;
  const cut = { arrays: [] as MemberPlan['arrays'][number][], written: [] as number[], edits: [] as TokenEdit[] };
  const kinds = { isOptional: true, isSubscripted: false };
  const isCut = (call.args ?? []).every((arg, index) => cutArray(source, arg, spans[index]!, false, kinds, cut));
  if (!isCut || !isCutWherever(cut.arrays, tokens)) return null;
  const returns = clauses.returning !== null;
  const alias = quoteName(aliasOf(statement.relation!));
  const hidden = returns ? [insertion(clauses.statement.end, `, ${alias}.tenant_id, ${alias}.key`)] : [];
  return {
    plan: {
      returns,
      insert: null,
      hasInstant: instants.length > 0,
      text: spliceTokens(text, tokens, clauses.statement, [...edits(cut.edits), ...instants, ...hidden]),
    },
    members: {
      tenant: memberOf(tenant),
      key: memberOf(key),
      arrays: cut.arrays,
      written: cut.written,
      isPadded: true,
      order: 'key',
      descending: false,
    },
  };
}

const memberOf = ({ value }: KeyItem): MemberValue => (value.kind === 'same' ? value : memberValue(value.list));
