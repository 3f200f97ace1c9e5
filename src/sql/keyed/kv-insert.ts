// INSERT … VALUES into a key-value table. Where a row of the same key has expired it must not stand in the way, so that it
// is reaped first (D9):
//
//   WITH "pgkv reaped" AS MATERIALIZED (DELETE FROM kv WHERE … AND ttl <= statement_timestamp() RETURNING 1)
//   INSERT INTO kv (tenant_id, key, value) VALUES (CASE WHEN (SELECT count(*) FROM "pgkv reaped") >= 0 THEN $1 END, $2, $3)
//
// Data-modifying CTEs run at no certain time beside the main query; counting their rows inside the first row's tenant_id
// makes the whole DELETE run before a row is inserted. A value wrapped in CASE keeps its type: unknown becomes text, as it
// would in a column of type text. The CTE is read only there: the statement cannot name it, since it may name no table.
import type { InsertStmt, Node, SelectStmt } from 'libpg-query';
import { isRefusal, type Refusal, refuse } from '../../base/refusals.js';
import type { KvTable } from '../../cluster/kv-table.js';
import type { InsertRows, KeyRef, KvPlan, SpreadPlan } from '../plan/kv-plan.js';
import { allRows, CARRIER, insertText, REAPED, reapingText } from '../rewrite/insert-text.js';
import { hasExpired, insertion } from '../rewrite/kv-rewrites.js';
import type { Clauses } from '../text/clauses.js';
import type { TextParts } from '../text/text-parts.js';
import {
  closingIndex,
  joinParts,
  listItems,
  spliceTokens,
  type TokenEdit,
  type TokenSpan,
} from '../text/text-tokens.js';
import { type Columns, columnsOf, conflictEdits, refusalOfConflict, takeReapingWith } from './insert-conflict.js';
import { type InsertParts, insertRows } from './insert-rows.js';
import { planInsertSelect } from './insert-select.js';
import { parameterTypes } from './kv-parameters.js';
import { spreadInstants } from './kv-rows.js';
import type { PlannedStatement, StatementSource } from './kv-statement.js';
import { ValueReader } from './kv-values.js';

export function planInsert(source: StatementSource, statement: InsertStmt, table: KvTable): PlannedStatement | Refusal {
  const refusal = refusalOfInsert(statement) ?? refusalOfConflict(statement.onConflictClause);
  if (refusal !== null) return refusal;
  const { clauses } = source;
  const { selectStmt: query } = statement;
  if (query !== undefined && 'SelectStmt' in query && query.SelectStmt.valuesLists === undefined)
    return planInsertSelect(source, statement, query.SelectStmt, table);
  const rows = rowsOf(statement);
  if (rows === null || clauses?.values == null || clauses.target === null || statement.relation === undefined) {
    return refuse('not_understood');
  }
  const columns = columnsOf(statement);
  if (columns.tenantAt < 0 || columns.keyAt < 0) return refuse('key_missing');
  const types = parameterTypes({ InsertStmt: statement }, source.keyArguments, columns.names);
  const named = keysOfRows(rows, columns, new ValueReader(source, types));
  if (isRefusal(named)) return named;
  const spans = valueSpans(source, clauses);
  if (spans.length !== rows.length || spans.some((row, index) => row.length !== rows[index]!.length)) {
    return refuse('not_understood');
  }

  const { edits: tailEdits, undo: undoTail } = conflictEdits(statement, statement.relation, clauses);
  const { keyIndexes, ...keysAndSlots } = named;
  const texts = new Set([...types].filter(([, type]) => type === 'text').map(([number]) => number));
  const parts = { ...source, clauses, statement, columns, rows, spans, keyIndexes, texts };
  const insert = rows.length === 1 ? null : insertRows({ ...parts, edits: tailEdits });
  const reaps = insert === null ? reaping(source, clauses, columns, spans[0]!) : reapingText(insert);
  const edits = [
    insertion(clauses.statement.start, ...reaps),
    ...carrierEdits(spans[0]![columns.tenantAt]!),
    ...tailEdits,
  ];
  return {
    table,
    verb: 'insert',
    writes: true,
    ...keysAndSlots,
    edits,
    undo: (node) => 'InsertStmt' in node && takeReaping(node.InsertStmt, columns) && undoTail(node.InsertStmt),
    scatter: refuse('several_shards_write'),
    spread: insert === null ? null : spreadOf({ ...parts, edits: tailEdits }, source.isAlone, insert, edits),
  };
}

/** Null where the pieces do not make the text that is proven (kv-proof.ts). */
function spreadOf(
  parts: InsertParts,
  isAlone: boolean,
  insert: InsertRows,
  edits: readonly TokenEdit[],
): SpreadPlan | null {
  const { text, tokens, clauses, statement } = parts;
  const instants = isAlone ? spreadInstants(statement, clauses, tokens) : null;
  if (instants === null) return null;
  const proven = spliceTokens(text, tokens, clauses.statement, edits);
  if (withoutBlanks(insertText(insert, allRows(insert), false)) !== withoutBlanks(proven)) return null;
  const hasInstant = instants.length > 0;
  const timed = hasInstant ? insertRows({ ...parts, edits: [...parts.edits, ...instants] }) : insert;
  return { returns: clauses.returning !== null, insert: timed, hasInstant, text: null };
}

const withoutBlanks = (parts: TextParts): string =>
  parts.map((part) => (typeof part === 'string' ? part.replace(/\s+/g, '') : `\0${part}\0`)).join('');

function refusalOfInsert(statement: InsertStmt): Refusal | null {
  const { withClause, selectStmt, override } = statement;
  if (withClause !== undefined) return refuse('with_clause');
  if (selectStmt === undefined) return refuse('default_values');
  if (override !== undefined && override !== 'OVERRIDING_NOT_SET') {
    return refuse('overriding');
  }
  if (!('SelectStmt' in selectStmt)) return refuse('insert_select');
  if (selectStmt.SelectStmt.valuesLists === undefined) return null;
  return hasOnlyValues(selectStmt.SelectStmt) ? null : refuse('values_form');
}

const hasOnlyValues = (values: SelectStmt): boolean =>
  values.withClause === undefined &&
  values.sortClause === undefined &&
  values.limitCount === undefined &&
  values.limitOffset === undefined &&
  values.lockingClause === undefined &&
  (values.op ?? 'SETOP_NONE') === 'SETOP_NONE';

function rowsOf({ selectStmt }: InsertStmt): (readonly Node[])[] | null {
  if (selectStmt === undefined || !('SelectStmt' in selectStmt)) return null;
  const rows: (readonly Node[])[] = [];
  for (const row of selectStmt.SelectStmt.valuesLists ?? []) {
    if (!('List' in row) || row.List.items === undefined) return null;
    rows.push(row.List.items);
  }
  return rows;
}

/** A row whose tenant_id or key is NULL has no key; the server says so. */
function keysOfRows(
  rows: readonly (readonly Node[])[],
  { tenantAt, keyAt, slotAt }: Columns,
  values: ValueReader,
): (Pick<KvPlan, 'keys' | 'slots'> & { readonly keyIndexes: readonly number[] }) | Refusal {
  const keys: KeyRef[] = [];
  const keyIndexes: number[] = [];
  const slots: KvPlan['slots'][number][] = [];
  for (const row of rows) {
    if (row[tenantAt] === undefined || row[keyAt] === undefined) return refuse('key_missing');
    const tenant = values.scalar(row[tenantAt]);
    const key = values.scalar(row[keyAt]);
    if (tenant === null || key === null) return refuse('key_computed');
    const slot = slotAt < 0 ? null : values.slot(row[slotAt]);
    if (slotAt >= 0 && slot === null) return refuse('slot_computed');
    const hasKey = tenant.kind !== 'null' && key.kind !== 'null';
    keyIndexes.push(hasKey ? keys.length : -1);
    if (!hasKey) continue;
    if (slot !== null && slot.kind !== 'null') slots.push({ value: slot, keyIndex: keys.length });
    keys.push({ kind: 'one', tenant, key });
  }
  return { keys, slots, keyIndexes };
}

/** The tokens of each row's values. */
function valueSpans({ tokens }: StatementSource, clauses: Clauses): (readonly TokenSpan[])[] {
  return listItems(tokens, clauses.values!.body).map(({ start }) =>
    listItems(tokens, { start: start + 1, end: closingIndex(tokens, start) }),
  );
}

/** Of a statement with one row; of more, all of the text is made of its pieces. */
function reaping(
  { text, tokens }: StatementSource,
  clauses: Clauses,
  { tenantAt, keyAt }: Columns,
  row: readonly TokenSpan[],
): TextParts {
  const table = spliceTokens(text, tokens, clauses.target!.name);
  // The value as it stands, casts included: what it is cast to here decides a parameter's type.
  const asText = (span: TokenSpan): TextParts => ['(', ...spliceTokens(text, tokens, span), ')::pg_catalog.text'];
  const deletion = joinParts(
    'DELETE FROM',
    table,
    'WHERE tenant_id =',
    asText(row[tenantAt]!),
    'AND key =',
    asText(row[keyAt]!),
    `AND ${hasExpired('ttl')}`,
  );
  return joinParts(`WITH ${REAPED} AS MATERIALIZED (`, deletion, 'RETURNING 1)');
}

function carrierEdits(tenant: TokenSpan): TokenEdit[] {
  return [insertion(tenant.start, CARRIER[0]), insertion(tenant.end, CARRIER[1])];
}

/** Of carrierEdits() and the WITH in front; false where the tree is not as those make it. */
function takeReaping(statement: InsertStmt, { tenantAt }: Columns): boolean {
  if (!takeReapingWith(statement)) return false;
  const items = rowsOf(statement)?.[0] as Node[] | undefined;
  const carrier = items?.[tenantAt];
  if (items === undefined || carrier === undefined || !('CaseExpr' in carrier)) return false;
  const [branch] = carrier.CaseExpr.args ?? [];
  if (branch === undefined || !('CaseWhen' in branch) || branch.CaseWhen.result === undefined) return false;
  items[tenantAt] = branch.CaseWhen.result;
  return true;
}
