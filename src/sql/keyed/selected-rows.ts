// What INSERT … SELECT reads: unnest() of arrays, or VALUES; and how each shard gets the rows of it that are its own. Arrays are cut
// (kv-members.ts). VALUES stay whole, since each row has a say in the types of all: behind each stands its number, by which the shard
// picks its rows.
import type { FuncCall, Node, RangeFunction, RangeSubselect } from 'libpg-query';
import { namePath } from '../meaning/name-path.js';
import { insertion } from '../rewrite/kv-rewrites.js';
import { MEMBER_NUMBERS } from '../scatter/member-parameters.js';
import type { Clauses } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import { closingIndex, listItems, type TokenEdit, type TokenSpan } from '../text/text-tokens.js';
import { type CutArrays, cutArray, isCutWherever } from './kv-members.js';
import type { StatementSource } from './kv-statement.js';
import type { ListValue, ValueReader } from './kv-values.js';

export interface CutRows extends CutArrays {
  /** Which rows are the shard's, in the WHERE; null: it has no others. */
  readonly condition: string | null;
}

export interface SelectedRows {
  readonly alias: string;
  readonly columns: readonly string[];
  /** The values of a column; null: they are not known before it is run. */
  list(column: number, values: ValueReader): ListValue | null;
  /** Null: it cannot be cut. */
  cut(): CutRows | null;
}

const ROW = quoteName('pgkv row');

/** Null: it is something else. @param from the only item of FROM */
export function selectedRows(source: StatementSource, from: Node, { from: clause }: Clauses): SelectedRows | null {
  if (clause === null) return null;
  if ('RangeFunction' in from) return unnestedRows(source, from.RangeFunction, clause.body);
  return 'RangeSubselect' in from ? valuesRows(source, from.RangeSubselect, clause.body) : null;
}

function unnestedRows(source: StatementSource, from: RangeFunction, body: TokenSpan): SelectedRows | null {
  const { tokens } = source;
  const { functions, alias, lateral, ordinality, is_rowsfrom: isRowsFrom, coldeflist } = from;
  if (lateral === true || ordinality === true || isRowsFrom === true || coldeflist !== undefined) return null;
  const [list] = functions ?? [];
  const [found] = list !== undefined && 'List' in list ? (list.List.items ?? []) : [];
  if (found === undefined || !('FuncCall' in found) || !isUnnest(found.FuncCall)) return null;
  const { args = [], func_variadic: isVariadic } = found.FuncCall;
  let opening = body.start + 1;
  while (tokens[opening]?.folded === '.') opening += 2;
  const spans = listItems(tokens, { start: opening + 1, end: closingIndex(tokens, opening) });
  if (tokens[opening]?.folded !== '(' || spans.length !== args.length || args.length === 0 || isVariadic === true)
    return null;
  const named = namePath(alias?.colnames ?? []);
  // A single column has the name of its table.
  const name = alias?.aliasname ?? 'unnest';
  const columns = named.length === 0 && args.length === 1 ? [name] : named;
  if (columns.length !== args.length) return null;
  return {
    alias: name,
    columns,
    list: (column, values) => values.list(args[column]),
    cut() {
      const cut = { arrays: [], written: [], edits: [] };
      const kinds = { isOptional: true, isSubscripted: false };
      const isCut = args.every((arg, index) => cutArray(source, arg, spans[index]!, false, kinds, cut));
      return isCut && isCutWherever(cut.arrays, tokens) ? { ...cut, condition: null } : null;
    },
  };
}

function isUnnest({ funcname }: FuncCall): boolean {
  const path = namePath(funcname ?? []);
  return path.at(-1) === 'unnest' && (path.length === 1 || (path.length === 2 && path[0] === 'pg_catalog'));
}

/** (VALUES (…), …) AS name (…) */
function valuesRows({ tokens }: StatementSource, from: RangeSubselect, body: TokenSpan): SelectedRows | null {
  const { subquery, alias, lateral } = from;
  if (lateral === true || alias?.aliasname === undefined || subquery === undefined || !('SelectStmt' in subquery))
    return null;
  const { valuesLists, withClause, sortClause, limitCount, limitOffset } = subquery.SelectStmt;
  if (valuesLists === undefined || [withClause, sortClause, limitCount, limitOffset].some((one) => one !== undefined))
    return null;
  const rows = valuesLists.map((row) => ('List' in row ? (row.List.items ?? []) : []));
  const closing = closingIndex(tokens, body.start);
  if (tokens[body.start]?.folded !== '(' || tokens[body.start + 1]?.folded !== 'values') return null;
  const spans = listItems(tokens, { start: body.start + 2, end: closing });
  const width = rows[0]?.length ?? 0;
  const named = namePath(alias.colnames ?? []);
  const columns = named.length === 0 ? rows[0]!.map((_, index) => `column${index + 1}`) : named;
  const isEven = rows.every((row) => row.length === width) && spans.every(({ start }) => tokens[start]?.folded === '(');
  if (!isEven || columns.length !== width || spans.length !== rows.length || columns.includes('pgkv row')) return null;
  const name = quoteName(alias.aliasname);
  const last = body.end - 1;
  return {
    alias: alias.aliasname,
    columns,
    list: (column, values) => values.elements(rows.map((row) => row[column]!)),
    cut() {
      const numbered = spans.map(({ end }, index) => insertion(end - 1, `, ${index + 1}`));
      const isNamed = named.length > 0;
      const column: TokenEdit[] = isNamed ? [insertion(last, `, ${ROW}`)] : [];
      const number = isNamed ? ROW : quoteName(`column${width + 1}`);
      return {
        arrays: [],
        written: [rows.length],
        edits: [...numbered, ...column],
        condition: `${name}.${number} OPERATOR(pg_catalog.=) ANY (${MEMBER_NUMBERS})`,
      };
    },
  };
}
