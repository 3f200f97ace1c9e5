// Reads of a list of keys for many members: the client's statement runs once for each key. As one condition on a list,
// which is a condition on the second column of the index, Postgres 15 took it for a filter over all rows of the tenant, on
// small tables and on large ones that had not been analysed.

import { closingIndex, type TextToken, type TokenEdit, type TokenSpan } from '../text/text-tokens.js';
import { nameOf } from './batchable.js';
import { carried, numberedRows, ORDINAL, quoted, ROWS, type Source } from './member-rows.js';

const LISTED = quoted('l');
const KEY = quoted('k');
const RESULT = quoted('q');

/** The list, what is between its brackets, and the tokens from IN or the equals sign to the closing one. */
interface KeyList {
  readonly span: TokenSpan;
  readonly items: TokenSpan;
  readonly isArray: boolean;
}

export const hasList = ({ plan }: Source): boolean => plan.keys!.length > 1 || plan.keys![0]!.kind !== 'one';

/** Null where the rows of all keys have to be seen together, or the condition is not as it is known here. */
export function batchListRead(source: Source): string | null {
  const { clauses, plan } = source;
  const { distinct, groupBy, having, orderBy, limit, offset, fetch } = clauses;
  if ([distinct, groupBy, having, orderBy, limit, offset, fetch].some((clause) => clause !== null)) return null;
  const [first] = plan.keys!;
  if (plan.keys!.some(({ tenant }) => JSON.stringify(tenant) !== JSON.stringify(first!.tenant))) return null;
  const list = keyList(source);
  if (list === null) return null;
  const items = carried(source, list.items);
  const array = list.isArray ? `(${items})::pg_catalog.text[]` : `ARRAY[${items}]::pg_catalog.text[]`;
  const condition: TokenEdit = { ...list.span, parts: [`= ${LISTED}.${KEY}`] };
  // Each key once, and in the order in which an index has them.
  const keys = `SELECT DISTINCT ${KEY} COLLATE pg_catalog."C" FROM pg_catalog.unnest(${array}) AS ${LISTED}(${KEY}) ORDER BY 1`;
  return [
    `SELECT ${ROWS}.${ORDINAL}, ${RESULT}.* FROM ${numberedRows(source)}, LATERAL (${keys}) AS ${LISTED}(${KEY}),`,
    `LATERAL (${carried(source, clauses.statement, [condition])} OFFSET 0) AS ${RESULT}`,
  ].join(' ');
}

/** The only condition on a list of keys in a WHERE that is a conjunction. */
function keyList({ tokens, clauses }: Source): KeyList | null {
  if (clauses.where === null) return null;
  const { start, end } = clauses.where.body;
  let found: KeyList | null = null;
  let alternatives = 0;
  for (let at = start; at < end; at++) {
    const { folded } = tokens[at]!;
    if (folded === 'not' || folded === 'case') return null;
    if (folded === 'or') alternatives++;
    const list = nameOf(tokens[at]!) === 'key' ? listBehind(tokens, at) : null;
    if (list === null) continue;
    if (found !== null) return null;
    found = list;
  }
  // One is pgkv's own: of the filter that leaves out what has expired.
  return alternatives === 1 ? found : null;
}

/** IN (…) or = ANY (…) */
function listBehind(tokens: readonly TextToken[], at: number): KeyList | null {
  const word = tokens[at + 1]?.folded;
  const isArray = word === '=' && ['any', 'some'].includes(tokens[at + 2]?.folded ?? '');
  const open = isArray ? at + 3 : at + 2;
  if ((!isArray && word !== 'in') || tokens[open]?.folded !== '(') return null;
  const close = closingIndex(tokens, open);
  return { span: { start: at + 1, end: close + 1 }, items: { start: open + 1, end: close }, isArray };
}
