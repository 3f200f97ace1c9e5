// COPY … FROM … WHERE: which conditions mean the same on each shard, of the rows that it gets: those that name columns of the row,
// constants, and operators of Postgres's own, and call nothing. Columns of times are none of them: 'now' would be each shard's own.
import type { Node } from 'libpg-query';

const COLUMNS: ReadonlySet<string> = new Set(['tenant_id', 'key', 'version', 'value']);
const OPERATORS: ReadonlySet<string> = new Set(
  '= <> < > <= >= + - * / % || ~~ !~~ ~~* !~~* ~ !~ ~* !~* -> ->> #> #>> @> <@ ? ?| ?&'.split(' '),
);
const KINDS: ReadonlySet<string> = new Set([
  'AEXPR_OP',
  'AEXPR_IN',
  'AEXPR_LIKE',
  'AEXPR_ILIKE',
  'AEXPR_BETWEEN',
  'AEXPR_NOT_BETWEEN',
  'AEXPR_DISTINCT',
  'AEXPR_NOT_DISTINCT',
]);

export function isOfItsRow(node: Node | undefined): boolean {
  if (node === undefined) return true;
  if ('A_Const' in node) return true;
  if ('ColumnRef' in node) {
    const [only, ...more] = node.ColumnRef.fields ?? [];
    return more.length === 0 && only !== undefined && 'String' in only && COLUMNS.has(only.String.sval ?? '');
  }
  if ('BoolExpr' in node) return (node.BoolExpr.args ?? []).every(isOfItsRow);
  if ('NullTest' in node) return isOfItsRow(node.NullTest.arg);
  if ('List' in node) return (node.List.items ?? []).every(isOfItsRow);
  if (!('A_Expr' in node)) return false;
  const { kind = '', name = [], lexpr, rexpr } = node.A_Expr;
  const isKnown = KINDS.has(kind) && name.every((part) => 'String' in part && isOperator(part.String.sval ?? ''));
  // A name of two parts is OPERATOR(schema.…).
  return isKnown && name.length === 1 && isOfItsRow(lexpr) && isOfItsRow(rexpr);
}

const isOperator = (name: string): boolean => OPERATORS.has(name) || name === 'BETWEEN' || name === 'NOT BETWEEN';
