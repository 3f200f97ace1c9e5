// Calls of a table's functions for many members, by their plural forms: one statement inside the function instead of one
// per member. At 64 members of 20,000 keys (µs a member, lateral to plural, on 18): put 41 to 26, cas 42 to 25, incr 34 to
// 24, touch 24 to 14, delete 15 to 12; get and ttl gain nothing and are left to the lateral form, as is all that is not
// exactly `SELECT f(…)` or `SELECT * FROM f(…)`.

import { qualifiedName } from '../text/identifiers.js';
import { closingIndex, listItems, type TokenSpan } from '../text/text-tokens.js';
import { nameOf } from './batchable.js';
import { carried, numberedRows, ORDINAL, quoted, ROWS, type Source, textOf } from './member-rows.js';

interface Plural {
  /** Types of the arguments, in order; `value` is the table's. The plural form takes arrays of them. */
  readonly arguments: readonly string[];
  /** How many there must be; the plural form does without the others, too. */
  readonly required: number;
  /** Columns of the plural form's result, behind `ord`. */
  readonly results: readonly string[];
}

const KEY = ['text', 'text'];
const PLURALS: ReadonlyMap<string, Plural> = new Map([
  ['put', { arguments: [...KEY, 'value', 'interval'], required: 3, results: ['version'] }],
  ['cas', { arguments: [...KEY, 'int8', 'value', 'interval'], required: 4, results: ['applied', 'version', 'value'] }],
  ['delete', { arguments: KEY, required: 2, results: ['deleted'] }],
  ['incr', { arguments: [...KEY, 'numeric'], required: 2, results: ['value'] }],
  ['merge', { arguments: [...KEY, 'jsonb'], required: 3, results: ['value', 'version'] }],
  ['expire', { arguments: [...KEY, 'interval'], required: 3, results: ['applied'] }],
  ['expire_at', { arguments: [...KEY, 'timestamptz'], required: 3, results: ['applied'] }],
  ['persist', { arguments: KEY, required: 2, results: ['applied'] }],
  ['touch', { arguments: KEY, required: 2, results: ['applied'] }],
]);
/** Added where it is left out, as the plural form has no default for it. */
const DEFAULT_DELTA = '1';
const GIVEN = quoted('a');
const RESULT = quoted('q');

/** Null where there is no plural form of it. */
export function batchCall(source: Source): string | null {
  const { tokens, clauses, plan } = source;
  const call = onlyCall(source);
  if (call === null) return null;
  const nameAt = callNameAt(source, call);
  if (nameAt === null) return null;
  const name = nameOf(tokens[nameAt]!);
  const operation = name.slice(plan.table.name.length + 1);
  const plural = name.startsWith(`${plan.table.name}_`) ? PLURALS.get(operation) : undefined;
  if (plural === undefined) return null;
  // SELECT f(…) of several columns is one row value.
  if (clauses.from === null && plural.results.length > 1) return null;
  const open = nameAt + 1;
  const items = listItems(tokens, { start: open + 1, end: closingIndex(tokens, open) });
  if (items.length < plural.required || items.length > plural.arguments.length) return null;
  if (items.some((item) => isNamed(source, item))) return null;
  const expressions = items.map((item) => carried(source, item));
  if (operation === 'incr' && expressions.length === 2) expressions.push(DEFAULT_DELTA);

  const given = expressions.map((expression, index) => {
    const type = plural.arguments[index] === 'value' ? plan.table.valueType : plural.arguments[index]!;
    return `pg_catalog.array_agg((${expression})::pg_catalog.${type} ORDER BY ${ROWS}.${ORDINAL}) AS ${quoted(`a${index + 1}`)}`;
  });
  const passed = expressions.map((_, index) => `${GIVEN}.${quoted(`a${index + 1}`)}`);
  const many = qualifiedName(plan.table.schema, `${name}_many`);
  return [
    `SELECT ${['ord', ...plural.results].map((result) => `${RESULT}.${result}`).join(', ')}`,
    `FROM (SELECT ${given.join(', ')} FROM ${numberedRows(source)}) AS ${GIVEN}, LATERAL ${many}(${passed.join(', ')}) AS ${RESULT}`,
  ].join(' ');
}

/** The tokens of the call, name included, where the statement is nothing else. */
function onlyCall(source: Source): TokenSpan | null {
  const { tokens, clauses } = source;
  const { selectList, from, statement } = clauses;
  if (selectList === null || clauses.distinct !== null) return null;
  const list = textOfList(source, selectList);
  if (from === null) return selectList.end === statement.end ? selectList : null;
  if (list !== '*' || from.body.end !== statement.end) return null;
  return tokens[from.body.start] === undefined ? null : from.body;
}

const textOfList = (source: Source, span: TokenSpan): string => (span.start === span.end ? '' : textOf(source, span));

/** Of `f(…)` or `schema.f(…)` and nothing behind it. */
function callNameAt({ tokens }: Source, { start, end }: TokenSpan): number | null {
  const at = tokens[start + 1]?.folded === '.' ? start + 2 : start;
  return tokens[at + 1]?.folded === '(' && closingIndex(tokens, at + 1) === end - 1 ? at : null;
}

const isNamed = ({ tokens }: Source, { start }: TokenSpan): boolean =>
  ['=>', ':='].includes(tokens[start + 1]?.folded ?? '');
