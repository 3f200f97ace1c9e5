// The columns a SELECT over one key-value table answers with: their names, as Postgres gives them (FigureColname in
// parse_target.c), and where their expressions stand in the text.
import type { Node, SelectStmt, SQLValueFunctionOp } from 'libpg-query';
import { KV_COLUMNS, type KvColumn } from '../../cluster/kv-table.js';
import { namePath } from '../meaning/name-path.js';
import type { Clauses } from '../text/clauses.js';
import { listItems, type TextToken, type TokenSpan } from '../text/text-tokens.js';
import { columnOf } from './scatter-expressions.js';

export interface OutputColumn {
  readonly name: string;
  /** The column of the table it is, if it is just that. */
  readonly column: KvColumn | null;
  /** Null for one of the columns a star stands for. */
  readonly expression: { readonly node: Node; readonly span: TokenSpan } | null;
  /** Its place among the columns is certain: no star stands before it, whose columns may be more than we know. */
  readonly hasKnownPosition: boolean;
}

export function outputColumns(
  select: SelectStmt,
  clauses: Clauses,
  tokens: readonly TextToken[],
  alias: string,
): readonly OutputColumn[] {
  const items = listItems(tokens, clauses.selectList ?? { start: 0, end: 0 });
  const columns: OutputColumn[] = [];
  let hasKnownPosition = true;
  (select.targetList ?? []).forEach((target, index) => {
    if (!('ResTarget' in target)) return;
    const { val: node, name } = target.ResTarget;
    const item = items[index];
    if (node === undefined || item === undefined) return;
    if (isStar(node)) {
      for (const column of KV_COLUMNS) columns.push({ name: column, column, expression: null, hasKnownPosition });
      hasKnownPosition = false;
      return;
    }
    columns.push({
      name: name ?? figureName(node),
      column: 'ColumnRef' in node ? columnOf(node.ColumnRef, alias) : null,
      expression: { node, span: name === undefined ? item : withoutLabel(tokens, item) },
      hasKnownPosition,
    });
  });
  return columns;
}

const isStar = (node: Node): boolean =>
  'ColumnRef' in node && (node.ColumnRef.fields ?? []).some((field) => 'A_Star' in field);

/** `expression [AS] label` without the label. */
function withoutLabel(tokens: readonly TextToken[], item: TokenSpan): TokenSpan {
  const end = item.end - 1;
  const isAs = tokens[end - 1]?.folded === 'as' && tokens[end - 2]?.folded !== '.';
  return { start: item.start, end: isAs ? end - 1 : end };
}

const NAMELESS = '?column?';

/**
 * The name of a column without a label. A cast and a CASE give way to the name of what is in them; of several the
 * outermost counts.
 */
export function figureName(expression: Node): string {
  let weak: string | null = null;
  let node: Node | undefined = expression;
  while (node !== undefined) {
    if ('TypeCast' in node) {
      weak ??= namePath(node.TypeCast.typeName?.names ?? []).at(-1) ?? null;
      node = node.TypeCast.arg;
    } else if ('CaseExpr' in node) {
      weak ??= 'case';
      node = node.CaseExpr.defresult;
    } else if ('CollateClause' in node) node = node.CollateClause.arg;
    else if ('A_Indirection' in node) {
      const field = lastName(node.A_Indirection.indirection ?? []);
      if (field !== undefined) return field;
      node = node.A_Indirection.arg;
    } else return ownName(node) ?? weak ?? NAMELESS;
  }
  return weak ?? NAMELESS;
}

const lastName = (parts: readonly Node[]): string | undefined =>
  namePath(parts.filter((part) => 'String' in part)).at(-1);

function ownName(node: Node): string | undefined {
  if ('ColumnRef' in node) return lastName(node.ColumnRef.fields ?? []);
  if ('FuncCall' in node) return lastName(node.FuncCall.funcname ?? []);
  if ('A_Expr' in node) return node.A_Expr.kind === 'AEXPR_NULLIF' ? 'nullif' : undefined;
  if ('A_ArrayExpr' in node) return 'array';
  if ('RowExpr' in node) return 'row';
  if ('CoalesceExpr' in node) return 'coalesce';
  if ('MinMaxExpr' in node) return node.MinMaxExpr.op === 'IS_LEAST' ? 'least' : 'greatest';
  return 'SQLValueFunction' in node ? valueFunctionName(node.SQLValueFunction.op) : undefined;
}

/** SVFOP_CURRENT_TIMESTAMP_N is current_timestamp(n). */
const valueFunctionName = (operation: SQLValueFunctionOp | undefined): string =>
  (operation ?? '').replace('SVFOP_', '').replace(/_N$/, '').toLowerCase();
