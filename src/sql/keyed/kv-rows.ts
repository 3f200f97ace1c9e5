// SELECT, UPDATE and DELETE on one key-value table: their keys, and how they read with expired rows left out (D9) and the
// version counted up (D3).
import type { DeleteStmt, InsertStmt, Node, RangeVar, SelectStmt, UpdateStmt } from 'libpg-query';
import { type Refusal, refuse } from '../../base/refusals.js';
import type { KvTable } from '../../cluster/kv-table.js';
import type { KeyRef, SpreadPlan } from '../plan/kv-plan.js';
import {
  aliasOf,
  assignedColumns,
  expiryFilter,
  filterEdits,
  stampEdits,
  stampFor,
  takeFilter,
  takeStamp,
} from '../rewrite/kv-rewrites.js';
import { instantEdits } from '../scatter/one-instant.js';
import { planScatter } from '../scatter/scatter-plan.js';
import type { Clauses } from '../text/clauses.js';
import { spliceTokens, type TextToken, type TokenEdit } from '../text/text-tokens.js';
import { keysOfWhere } from './kv-keys.js';
import { parameterTypes } from './kv-parameters.js';
import type { PlannedStatement, StatementSource } from './kv-statement.js';
import { ValueReader } from './kv-values.js';

export function planSelect(source: StatementSource, statement: SelectStmt, table: KvTable): PlannedStatement | Refusal {
  const refusal = refusalOfSelect(statement);
  if (refusal !== null) return refusal;
  const [from] = statement.fromClause ?? [];
  const clauses = source.clauses;
  if (from === undefined || !('RangeVar' in from)) return refuse('not_understood');
  if (clauses?.from == null) return refuse('table_command');
  const relation = from.RangeVar;
  const filter = expiryFilter(relation);
  return {
    table,
    verb: 'select',
    writes: statement.lockingClause !== undefined,
    keys: keysIn(source, { SelectStmt: statement }, statement.whereClause, relation, table),
    slots: [],
    edits: filterEdits(clauses, clauses.from.body.end, filter),
    undo: (node) => 'SelectStmt' in node && takeFilter(node.SelectStmt, filter),
    scatter: source.isAlone
      ? planScatter({ ...source, clauses, select: statement, table, alias: aliasOf(relation) })
      : refuse('several_shards_text'),
    spread: null,
  };
}

function refusalOfSelect(statement: SelectStmt): Refusal | null {
  if (statement.withClause !== undefined) return refuse('with_clause');
  if (statement.op !== undefined && statement.op !== 'SETOP_NONE') {
    return refuse('set_operation');
  }
  if (statement.intoClause !== undefined) {
    return refuse('select_into');
  }
  const from = statement.fromClause ?? [];
  if (from.length > 1 || (from[0] !== undefined && 'JoinExpr' in from[0])) return refuse('join');
  const [only] = from;
  if (only === undefined || 'RangeSubselect' in only || 'RangeFunction' in only) return refuse('subquery');
  if ('RangeTableSample' in only) {
    return refuse('table_sample');
  }
  return 'RangeVar' in only ? refusalOfRelation(only.RangeVar) : refuse('not_understood');
}

function refusalOfRelation(relation: RangeVar): Refusal | null {
  if (relation.inh !== true) {
    return refuse('only');
  }
  if (relation.alias?.colnames !== undefined) {
    return refuse('column_aliases');
  }
  return null;
}

export function planUpdate(source: StatementSource, statement: UpdateStmt, table: KvTable): PlannedStatement | Refusal {
  const { relation, fromClause, whereClause, targetList } = statement;
  if (fromClause !== undefined) {
    return refuse('update_from');
  }
  const refusal = refusalOfChange(statement) ?? refusalOfAssignments(targetList);
  if (refusal !== null) return refusal;
  const { clauses } = source;
  if (relation === undefined || clauses?.set == null) return refuse('not_understood');
  const filter = expiryFilter(relation);
  const stamp = stampFor(relation, targetList);
  const edits = [...stampEdits(clauses.set.body.start, stamp), ...filterEdits(clauses, clauses.set.body.end, filter)];
  return {
    table,
    verb: 'update',
    writes: true,
    keys: keysIn(source, { UpdateStmt: statement }, whereClause, relation, table),
    slots: [],
    edits,
    undo: (node) =>
      'UpdateStmt' in node && takeFilter(node.UpdateStmt, filter) && takeStamp(node.UpdateStmt.targetList, stamp),
    scatter: refuse('several_shards_write'),
    spread: spreadOf(source, statement, edits),
  };
}

export function planDelete(source: StatementSource, statement: DeleteStmt, table: KvTable): PlannedStatement | Refusal {
  const { relation, usingClause, whereClause } = statement;
  if (usingClause !== undefined) {
    return refuse('delete_using');
  }
  const refusal = refusalOfChange(statement);
  if (refusal !== null) return refusal;
  const { clauses } = source;
  if (relation === undefined || clauses === null) return refuse('not_understood');
  const filter = expiryFilter(relation);
  const edits = filterEdits(clauses, clauses.returning?.start ?? clauses.statement.end, filter);
  return {
    table,
    verb: 'delete',
    writes: true,
    keys: keysIn(source, { DeleteStmt: statement }, whereClause, relation, table),
    slots: [],
    edits,
    undo: (node) => 'DeleteStmt' in node && takeFilter(node.DeleteStmt, filter),
    scatter: refuse('several_shards_write'),
    spread: spreadOf(source, statement, edits),
  };
}

/** What each shard can do for itself, by one clock for all. */
function spreadOf(
  { isAlone, clauses, text, tokens }: StatementSource,
  statement: UpdateStmt | DeleteStmt,
  edits: readonly TokenEdit[],
): SpreadPlan | null {
  const instants = isAlone && clauses !== null ? spreadInstants(statement, clauses, tokens) : null;
  if (instants === null || clauses === null) return null;
  const hasInstant = instants.length > 0;
  const timed = hasInstant ? spliceTokens(text, tokens, clauses.statement, [...edits, ...instants]) : null;
  return { returns: clauses.returning !== null, insert: null, hasInstant, text: timed };
}

/** What is to be put in place of now() and its kin; null: it cannot be, as what is returned would be called otherwise. */
export function spreadInstants(
  statement: UpdateStmt | DeleteStmt | InsertStmt,
  { returning }: Clauses,
  tokens: readonly TextToken[],
): TokenEdit[] | null {
  const edits = instantEdits(statement, tokens);
  const isReturned = edits?.some(({ start }) => returning !== null && start >= returning.start) === true;
  return isReturned ? null : edits;
}

function refusalOfChange({ withClause, relation, whereClause }: UpdateStmt | DeleteStmt): Refusal | null {
  if (withClause !== undefined) return refuse('with_clause');
  if (whereClause !== undefined && 'CurrentOfExpr' in whereClause) {
    return refuse('current_of');
  }
  return relation === undefined ? refuse('not_understood') : refusalOfRelation(relation);
}

/** What hashes to a slot, and the slot, belong to the row for good: another key is another row (D2). */
export function refusalOfAssignments(assignments: readonly Node[] | undefined): Refusal | null {
  const fixed = assignedColumns(assignments).find((column) => ['tenant_id', 'key', 'slot'].includes(column));
  if (fixed === undefined) return null;
  return refuse('fixed_column', { column: fixed });
}

function keysIn(
  source: StatementSource,
  statement: Node,
  where: Node | undefined,
  relation: RangeVar,
  table: KvTable,
): readonly KeyRef[] | null {
  const types = parameterTypes(statement, source.keyArguments);
  return keysOfWhere(where, relation, table, new ValueReader(source, types));
}
