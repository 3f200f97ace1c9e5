// The columns a SELECT over one key-value table answers with: their names, as Postgres gives them (FigureColname in
// parse_target.c), and where their expressions stand in the text.
import type { Node, SelectStmt, SQLValueFunctionOp } from 'libpg-query';
import { KV_COLUMNS, type KvColumn } from '../cluster/kv-table.js';
import { namePath } from './ast-survey.js';
import type { Clauses } from './clauses.js';
import { columnOf } from './scatter-expressions.js';
import { listItems, type TextToken, type TokenSpan } from './text-tokens.js';

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
  let end = item.end - 1;
  // U&"…" UESCAPE '…'
  if (tokens[end]!.kind === 'literal' && tokens[end - 1]!.folded === 'uescape') end -= 2;
  const isAs = tokens[end - 1]?.folded === 'as' && tokens[end - 2]?.folded !== '.';
  return { start: item.start, end: isAs ? end - 1 : end };
}

const NAMELESS = '?column?';

export const figureName = (node: Node): string => figure(node)?.name ?? NAMELESS;

/** `weak`: by a cast or a CASE, whose own name gives way to that of what is in it. */
function figure(node: Node): { readonly name: string; readonly weak: boolean } | null {
  const strong = (name: string) => ({ name, weak: false });
  if ('ColumnRef' in node) {
    const name = namePath((node.ColumnRef.fields ?? []).filter((field) => 'String' in field)).at(-1);
    return name === undefined ? null : strong(name);
  }
  if ('A_Indirection' in node) {
    const { indirection = [], arg } = node.A_Indirection;
    const name = namePath(indirection.filter((part) => 'String' in part)).at(-1);
    if (name !== undefined) return strong(name);
    return arg === undefined ? null : figure(arg);
  }
  if ('FuncCall' in node) return strong(namePath(node.FuncCall.funcname ?? []).at(-1) ?? NAMELESS);
  if ('A_Expr' in node) return node.A_Expr.kind === 'AEXPR_NULLIF' ? strong('nullif') : null;
  if ('CollateClause' in node) return node.CollateClause.arg === undefined ? null : figure(node.CollateClause.arg);
  if ('TypeCast' in node) {
    const { arg, typeName } = node.TypeCast;
    const inner = arg === undefined ? null : figure(arg);
    if (inner !== null && !inner.weak) return inner;
    const name = namePath(typeName?.names ?? []).at(-1);
    return name === undefined ? inner : { name, weak: true };
  }
  if ('CaseExpr' in node) {
    const inner = node.CaseExpr.defresult === undefined ? null : figure(node.CaseExpr.defresult);
    return inner !== null && !inner.weak ? inner : { name: 'case', weak: true };
  }
  if ('A_ArrayExpr' in node) return strong('array');
  if ('RowExpr' in node) return strong('row');
  if ('CoalesceExpr' in node) return strong('coalesce');
  if ('MinMaxExpr' in node) return strong(node.MinMaxExpr.op === 'IS_LEAST' ? 'least' : 'greatest');
  if ('SQLValueFunction' in node) return strong(valueFunctionName(node.SQLValueFunction.op));
  return null;
}

/** SVFOP_CURRENT_TIMESTAMP_N is current_timestamp(n). */
const valueFunctionName = (operation: SQLValueFunctionOp | undefined): string =>
  (operation ?? '').replace('SVFOP_', '').replace(/_N$/, '').toLowerCase();

/** A name that reads as itself. */
export const quoteName = (name: string): string => `"${name.replaceAll('"', '""')}"`;
