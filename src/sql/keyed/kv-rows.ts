// SELECT, UPDATE and DELETE on one key-value table: their keys, and how they read with expired rows left out (D9) and the
// version counted up (D3).
import type { DeleteStmt, Node, RangeVar, SelectStmt, UpdateStmt } from 'libpg-query';
import type { KvTable } from '../../cluster/kv-table.js';
import type { KeyRef, KvRefused } from '../plan/kv-plan.js';
import { NOT_UNDERSTOOD, refused, SEVERAL_SHARDS_WRITE } from '../plan/kv-refusals.js';
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
import { planScatter } from '../scatter/scatter-plan.js';
import { keysOfWhere } from './kv-keys.js';
import { parameterTypes } from './kv-parameters.js';
import type { PlannedStatement, StatementSource } from './kv-statement.js';
import { ValueReader } from './kv-values.js';

export function planSelect(
  source: StatementSource,
  statement: SelectStmt,
  table: KvTable,
): PlannedStatement | KvRefused {
  const refusal = refusalOfSelect(statement);
  if (refusal !== null) return refusal;
  const [from] = statement.fromClause ?? [];
  const clauses = source.clauses;
  if (from === undefined || !('RangeVar' in from)) return NOT_UNDERSTOOD;
  if (clauses?.from == null) return TABLE_COMMAND;
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
    scatter: planScatter({ ...source, clauses, select: statement, table, alias: aliasOf(relation) }),
  };
}

function refusalOfSelect(statement: SelectStmt): KvRefused | null {
  if (statement.withClause !== undefined) return WITH_CLAUSE;
  if (statement.op !== undefined && statement.op !== 'SETOP_NONE') {
    return refused(
      'UNION, INTERSECT and EXCEPT over key-value tables are not supported.',
      'Send the SELECTs one by one and put their rows together in the client.',
    );
  }
  if (statement.intoClause !== undefined) {
    return refused(
      'SELECT INTO from a key-value table is not supported.',
      'Read the rows with SELECT and insert them.',
    );
  }
  const from = statement.fromClause ?? [];
  if (from.length > 1 || (from[0] !== undefined && 'JoinExpr' in from[0])) return JOINED;
  const [only] = from;
  if (only === undefined || 'RangeSubselect' in only || 'RangeFunction' in only) return IN_SUBQUERY;
  if ('RangeTableSample' in only) {
    return refused('TABLESAMPLE of a key-value table is not supported.', 'Use WHERE random() < … instead.');
  }
  return 'RangeVar' in only ? refusalOfRelation(only.RangeVar) : NOT_UNDERSTOOD;
}

export const WITH_CLAUSE = refused(
  'WITH beside a key-value table is not supported.',
  'Write the statement without WITH.',
);
const JOINED = refused(
  'A key-value table cannot be joined with anything.',
  'Read its rows with a SELECT of their own and join in the client.',
);
const TABLE_COMMAND = refused(
  'TABLE, or a query partly in parentheses, is not supported on a key-value table.',
  'Write SELECT … FROM without parentheses around it.',
);
const IN_SUBQUERY = refused(
  'A key-value table cannot stand in a subquery.',
  'Send the inner query as a statement of its own and pass on its result.',
);

function refusalOfRelation(relation: RangeVar): KvRefused | null {
  if (relation.inh !== true) {
    return refused('ONLY before a key-value table is not supported.', 'Leave ONLY out: the table has no children.');
  }
  if (relation.alias?.colnames !== undefined) {
    return refused(
      'New names for the columns of a key-value table are not supported in FROM.',
      'Name them in the select list (tenant_id AS …).',
    );
  }
  return null;
}

export function planUpdate(
  source: StatementSource,
  statement: UpdateStmt,
  table: KvTable,
): PlannedStatement | KvRefused {
  const { relation, fromClause, whereClause, targetList } = statement;
  if (fromClause !== undefined) {
    return refused(
      'UPDATE … FROM on a key-value table is not supported.',
      'Give the values as parameters or literals.',
    );
  }
  const refusal = refusalOfChange(statement) ?? refusalOfAssignments(targetList);
  if (refusal !== null) return refusal;
  const { clauses } = source;
  if (relation === undefined || clauses?.set == null) return NOT_UNDERSTOOD;
  const filter = expiryFilter(relation);
  const stamp = stampFor(relation, targetList);
  return {
    table,
    verb: 'update',
    writes: true,
    keys: keysIn(source, { UpdateStmt: statement }, whereClause, relation, table),
    slots: [],
    edits: [...stampEdits(clauses.set.body.start, stamp), ...filterEdits(clauses, clauses.set.body.end, filter)],
    undo: (node) =>
      'UpdateStmt' in node && takeFilter(node.UpdateStmt, filter) && takeStamp(node.UpdateStmt.targetList, stamp),
    scatter: SEVERAL_SHARDS_WRITE,
  };
}

export function planDelete(
  source: StatementSource,
  statement: DeleteStmt,
  table: KvTable,
): PlannedStatement | KvRefused {
  const { relation, usingClause, whereClause } = statement;
  if (usingClause !== undefined) {
    return refused('DELETE … USING on a key-value table is not supported.', 'Name the keys with key IN (…).');
  }
  const refusal = refusalOfChange(statement);
  if (refusal !== null) return refusal;
  const { clauses } = source;
  if (relation === undefined || clauses === null) return NOT_UNDERSTOOD;
  const filter = expiryFilter(relation);
  return {
    table,
    verb: 'delete',
    writes: true,
    keys: keysIn(source, { DeleteStmt: statement }, whereClause, relation, table),
    slots: [],
    edits: filterEdits(clauses, clauses.returning?.start ?? clauses.statement.end, filter),
    undo: (node) => 'DeleteStmt' in node && takeFilter(node.DeleteStmt, filter),
    scatter: SEVERAL_SHARDS_WRITE,
  };
}

function refusalOfChange({ withClause, relation, whereClause }: UpdateStmt | DeleteStmt): KvRefused | null {
  if (withClause !== undefined) return WITH_CLAUSE;
  if (whereClause !== undefined && 'CurrentOfExpr' in whereClause) {
    return refused('WHERE CURRENT OF on a key-value table is not supported.', 'Name the key in the WHERE.');
  }
  return relation === undefined ? NOT_UNDERSTOOD : refusalOfRelation(relation);
}

/** What hashes to a slot, and the slot, belong to the row for good: another key is another row (D2). */
export function refusalOfAssignments(assignments: readonly Node[] | undefined): KvRefused | null {
  const fixed = assignedColumns(assignments).find((column) => ['tenant_id', 'key', 'slot'].includes(column));
  if (fixed === undefined) return null;
  return refused(
    `The column ${fixed} of a row cannot be changed.`,
    'Insert a row with the new key and delete the old one.',
  );
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
