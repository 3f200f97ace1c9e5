// What pgkv adds to statements on key-value tables: the filter that leaves expired rows out (D9) and the assignments that
// count the version up (D3); as edits of the text, and the way to take them out of a syntax tree again (kv-proof.ts).
// Names of functions are qualified; names of tables are what the statement itself calls them.
import type { Node, RangeVar } from 'libpg-query';
import type { Clauses } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import type { TextParts } from '../text/text-parts.js';
import type { TokenEdit } from '../text/text-tokens.js';
import { isExpression } from './kv-proof.js';

const NOW = 'pg_catalog.statement_timestamp()';

/** What a relation's columns can be qualified by. */
export const aliasOf = (relation: RangeVar): string => relation.alias?.aliasname ?? relation.relname ?? '';

/** @param now when it is */
export function expiryFilter(relation: RangeVar, now = NOW): string {
  const ttl = `${quoteName(aliasOf(relation))}.ttl`;
  return hasNotExpired(ttl, now);
}

export const hasNotExpired = (ttl: string, now = NOW): string => `(${ttl} IS NULL OR ${ttl} > ${now})`;

/** Of a column without qualification, where there is no other table: rows that have expired. */
export const hasExpired = (ttl: string): string => `${ttl} <= ${NOW}`;

export const insertion = (at: number, ...parts: TextParts): TokenEdit => ({ start: at, end: at, parts });

/** @param bodyEnd behind the last token before the place of a WHERE */
export function filterEdits(clauses: Clauses, bodyEnd: number, filter: string): TokenEdit[] {
  const { where } = clauses;
  if (where === null) return [insertion(bodyEnd, `WHERE ${filter}`)];
  return [insertion(where.body.start, '('), insertion(where.body.end, `) AND ${filter}`)];
}

/** The last member of the WHERE (the parser makes one conjunction of `(a AND b) AND filter`), or all there is. */
export function takeFilter(statement: { whereClause?: Node }, filter: string): boolean {
  const { whereClause } = statement;
  if (whereClause === undefined || !('BoolExpr' in whereClause) || whereClause.BoolExpr.boolop !== 'AND_EXPR') {
    delete statement.whereClause;
    return isExpression(whereClause, filter);
  }
  const members = whereClause.BoolExpr.args ?? [];
  if (!isExpression(members.pop(), filter)) return false;
  if (members.length === 1) statement.whereClause = members[0]!;
  return true;
}

/** Assignments in front of a statement's own. */
export interface Stamp {
  readonly columns: readonly string[];
  readonly expressions: readonly string[];
}

/** None where the statement sets the version itself: then what it does to the row is its own matter. */
export function stampFor(relation: RangeVar, assignments: readonly Node[] | undefined): Stamp {
  const assigned = new Set(assignedColumns(assignments));
  if (assigned.has('version')) return { columns: [], expressions: [] };
  const version = `${quoteName(aliasOf(relation))}.version + 1`;
  if (assigned.has('updated_at')) return { columns: ['version'], expressions: [version] };
  return { columns: ['version', 'updated_at'], expressions: [version, NOW] };
}

export const assignedColumns = (assignments: readonly Node[] | undefined): string[] =>
  (assignments ?? []).map((node) => ('ResTarget' in node ? (node.ResTarget.name ?? '') : ''));

/** @param setStart behind SET */
export function stampEdits(setStart: number, { columns, expressions }: Stamp): TokenEdit[] {
  if (columns.length === 0) return [];
  return [insertion(setStart, columns.map((column, index) => `${column} = ${expressions[index]},`).join(' '))];
}

export function takeStamp(assignments: Node[] | undefined, { columns, expressions }: Stamp): boolean {
  return columns.every((column, index) => {
    const target = assignments?.shift();
    if (target === undefined || !('ResTarget' in target) || target.ResTarget.name !== column) return false;
    return target.ResTarget.indirection === undefined && isExpression(target.ResTarget.val, expressions[index]!);
  });
}
