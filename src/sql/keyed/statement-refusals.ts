// Kinds of statements that are never run on a key-value table, by the type of their node, and the rule that refuses each.
import { type Refusal, type RefusalName, refuse } from '../../base/refusals.js';

const BY_STATEMENT: Readonly<Record<string, RefusalName>> = {
  MergeStmt: 'merge',
  CopyStmt: 'copy',
  TruncateStmt: 'truncate',
  LockStmt: 'lock',
  DeclareCursorStmt: 'cursor',
  PrepareStmt: 'prepare',
  ExecuteStmt: 'execute_argument',
  ViewStmt: 'view',
  CreateTableAsStmt: 'table_from_rows',
  DoStmt: 'do_block',
  CallStmt: 'call',
  CreateFunctionStmt: 'function_body',
  VacuumStmt: 'vacuum',
  DropStmt: 'drop',
  GrantStmt: 'schema_change',
  AlterTableStmt: 'schema_change',
  IndexStmt: 'schema_change',
  RenameStmt: 'schema_change',
  CommentStmt: 'schema_change',
};

export const refusalOfStatement = (nodeType: string): Refusal => refuse(BY_STATEMENT[nodeType] ?? 'other_statement');
