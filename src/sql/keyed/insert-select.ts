// INSERT … SELECT into a key-value table, from unnest() of arrays, from VALUES or from no table at all: what each row's key is, is known before it is
// run. Rows of the same key that have expired are reaped first (D9), as by INSERT … VALUES; here the whole SELECT waits for that:
//
//   WITH "pgkv reaped" AS MATERIALIZED (DELETE FROM kv AS "pgkv old" USING (SELECT ($1)::text, (u.k)::text FROM unnest($2, $3) AS u(k, v))
//     AS "pgkv new"(tenant_id, key) WHERE …)
//   INSERT INTO kv (tenant_id, key, value) SELECT $1, u.k, u.v FROM unnest($2, $3) AS u(k, v)
//     WHERE (SELECT count(*) FROM "pgkv reaped") >= 0
import type { InsertStmt, Node, SelectStmt } from 'libpg-query';
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
  joinParts,
  listItems,
  spliceTokens,
  type TokenEdit,
  type TokenSpan,
  withoutParentheses,
} from '../text/text-tokens.js';
import { columnsOf, conflictEdits, takeReapingWith } from './insert-conflict.js';
import { memberValue } from './kv-members.js';
import { parameterTypes } from './kv-parameters.js';
import { spreadInstants } from './kv-rows.js';
import type { PlannedStatement, StatementSource } from './kv-statement.js';
import { type ListValue, ValueReader } from './kv-values.js';
import { type CutRows, type SelectedRows, selectedRows } from './selected-rows.js';

interface Query {
  readonly source: StatementSource;
  readonly statement: InsertStmt;
  readonly select: SelectStmt;
  /** Of the whole, and of the SELECT. */
  readonly clauses: Clauses;
  readonly inner: Clauses;
  /** Null: it reads nothing. */
  readonly rows: SelectedRows | null;
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
  const whereAt = (inner.from?.body ?? inner.selectList!).end;
  const edits = ({ edits: cut, list, condition }: Cut): TokenEdit[] => [
    insertion(clauses.statement.start, ...reaping(query, [tenant, key], cut)),
    ...(list === null ? [] : [{ ...inner.selectList!, parts: [list] }]),
    ...cut,
    ...filterEdits(inner, whereAt, condition === null ? HAS_REAPED : `${condition} AND ${HAS_REAPED}`),
    ...tail.edits,
  ];
  const spread = query.rows === null ? null : spreadOf(query, query.rows, tenant, key, edits);
  return {
    table,
    verb: 'insert',
    writes: true,
    keys,
    slots: [],
    edits: edits(UNCUT),
    undo: (node) => 'InsertStmt' in node && takeEdits(node.InsertStmt) && tail.undo(node.InsertStmt),
    scatter: refuse(query.rows === null || spread !== null ? 'several_shards_write' : 'several_shards_arrays'),
    spread: spread?.plan ?? null,
    members: spread?.members ?? null,
  };
}

/** Without names for the columns that are inserted. */
function givesMoreThan({ select, rows }: Query, count: number): boolean {
  const targets = select.targetList ?? [];
  return targets.length > count || (rows !== null && targets.length - 1 + rows.columns.length > count);
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
  if (from === undefined) return { source, statement, select, clauses, inner, rows: null };
  const rows = more.length > 0 ? null : selectedRows(source, from, inner);
  return rows === null || select.whereClause !== undefined ? null : { source, statement, select, clauses, inner, rows };
}

/** What the column at that place is given; null: it is not known before it is run. */
function keyItem(query: Query, at: number, values: ValueReader): KeyItem | null {
  const { select, source, inner, rows } = query;
  const targets = select.targetList ?? [];
  const spans = listItems(source.tokens, inner.selectList!);
  const nodes = targets.map((target) => ('ResTarget' in target ? target.ResTarget.val : undefined));
  const isStar = nodes.length === 1 && nodes[0] !== undefined && isStarOf(nodes[0], rows);
  if (isStar) {
    const column = rows?.columns[at];
    return column === undefined ? null : listed(query, at, null, values);
  }
  const [node, span] = [nodes[at], spans[at]];
  if (node === undefined || span === undefined || spans.length !== nodes.length) return null;
  if (nodes.some((one) => one !== undefined && isStarOf(one, rows))) return null;
  const target = targets[at]!;
  const isNamed = 'ResTarget' in target && target.ResTarget.name !== undefined;
  const own = isNamed ? withoutName(source, span) : span;
  if ('ColumnRef' in node) {
    const path = namePath(node.ColumnRef.fields ?? []);
    const place = rows?.columns.indexOf(path.at(-1) ?? '') ?? -1;
    const isOurs = path.length === 1 || (path.length === 2 && path[0] === rows?.alias);
    const isOnce = rows?.columns.lastIndexOf(path.at(-1) ?? '') === place;
    return place < 0 || !isOurs || !isOnce ? null : listed(query, place, own, values);
  }
  const value = values.scalar(node);
  return value === null ? null : { value: { kind: 'same', value }, span: own, column: '' };
}

const isStarOf = (node: Node, rows: SelectedRows | null): boolean => {
  if (!('ColumnRef' in node) || rows === null) return false;
  return (node.ColumnRef.fields ?? []).some((field) => 'A_Star' in field);
};

/** `expression [AS] name` without the name. */
function withoutName({ tokens }: StatementSource, { start, end }: TokenSpan): TokenSpan {
  const isAs = tokens[end - 2]?.folded === 'as';
  return { start, end: end - (isAs ? 2 : 1) };
}

function listed({ rows }: Query, place: number, span: TokenSpan | null, values: ValueReader): KeyItem | null {
  const list = rows!.list(place, values);
  if (list === null) return null;
  return { value: { kind: 'listed', list }, span, column: rows!.columns[place]! };
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
  { source, clauses, inner, rows }: Query,
  keys: readonly KeyItem[],
  cut: readonly TokenEdit[],
): TextParts {
  const { text, tokens } = source;
  const from =
    inner.from === null ? [] : spliceTokens(text, tokens, { start: inner.from.start, end: inner.from.body.end }, cut);
  const items = keys.map(({ span, column }) => {
    if (span !== null) return spliceTokens(text, tokens, span);
    return [`${quoteName(rows!.alias)}.${quoteName(column)}`];
  });
  const select = joinParts('SELECT (', items[0]!, ')::pg_catalog.text, (', items[1]!, ')::pg_catalog.text', from);
  return reapingOf(spliceTokens(text, tokens, clauses.target!.name), select);
}

/** What is changed where each shard gets its own rows. */
type Cut = Pick<CutRows, 'edits' | 'condition'> & {
  /** In place of a SELECT *. */
  readonly list: string | null;
};
const UNCUT: Cut = { edits: [], condition: null, list: null };

function spreadOf(
  { source, statement, select, clauses }: Query,
  rows: SelectedRows,
  tenant: KeyItem,
  key: KeyItem,
  edits: (cut: Cut) => TokenEdit[],
): { readonly plan: SpreadPlan; readonly members: MemberPlan } | null {
  const { tokens, text, isAlone } = source;
  const instants = isAlone ? spreadInstants(statement, clauses, tokens) : null;
  const cut = instants === null || !leavesNumbers(tokens) ? null : rows.cut();
  if (instants === null || cut === null) return null;
  const returns = clauses.returning !== null;
  const alias = quoteName(aliasOf(statement.relation!));
  const hidden = returns ? [insertion(clauses.statement.end, `, ${alias}.tenant_id, ${alias}.key`)] : [];
  const [only] = select.targetList ?? [];
  const isStar =
    only !== undefined && 'ResTarget' in only && only.ResTarget.val !== undefined && isStarOf(only.ResTarget.val, rows);
  const columns = rows.columns.map((column) => `${quoteName(rows.alias)}.${quoteName(column)}`).join(', ');
  const own = { ...cut, list: isStar && cut.condition !== null ? columns : null };
  return {
    plan: {
      returns,
      insert: null,
      hasInstant: instants.length > 0,
      text: spliceTokens(text, tokens, clauses.statement, [...edits(own), ...instants, ...hidden]),
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
