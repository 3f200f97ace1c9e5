// The statement that does the work of many (D11): the members' values travel as arrays of text, and the client's
// statement runs over their rows. Built from the text for a shard (KvPlan.text), so that expiry, versions and reaping are
// in it. What is not certain to mean the same for many as for one is not built: null, and its clients use leases.
//
// The plan of such a statement must look keys up one by one, in the order of the members, whatever the table's size is
// when it is made. With plain equalities it did not on tables of up to 20 rows that had been analysed: the whole index
// outside, the members inside, and that plan stayed while the table grew. A whole index is considered only where its
// order is of use, and for an equality with its first column it is (they could be merged by it). So
// – a SELECT stands behind OFFSET 0, which keeps it from being made part of the join;
// – UPDATE and DELETE look their tenant up by `= ANY (ARRAY[…])`, by which nothing can be merged. Not the key, too: on a
//   later column Postgres 15 may take such a condition for a filter.
// test/integration/batch-statement-plans.test.ts holds this on Postgres 15 and 18.

import type { KvPlan, ValueRef } from '../plan/kv-plan.js';
import { findClauses } from '../text/clauses.js';
import { listItems, type TextToken, type TokenEdit, type TokenSpan } from '../text/text-tokens.js';
import { aheadSpans } from './ahead-values.js';
import { batchCall } from './batch-calls.js';
import { batchInsert } from './batch-insert.js';
import { batchListRead, hasList } from './batch-lists.js';
import { isBatchableType, nameOf, usesOnlyBatchable } from './batchable.js';
import {
  carried,
  memberValue,
  numberedRows,
  ORDINAL,
  parameterIndex,
  quoted,
  ROWS,
  type Source,
  TOKEN,
  targetName,
} from './member-rows.js';
import { type SingleStatement, tokensIn } from './single-statement.js';

export {
  type LiftedText,
  type LiteralRef,
  liftKeys,
  ofLifted,
  type SingleStatement,
  singleStatement,
} from './single-statement.js';

/** How a merged statement is sent and its rows are read. */
export interface BatchStatement {
  /** The statement for many. Its parameters are text[] arrays, one per entry of `refs`, then int4[] of slots. */
  readonly text: string;
  /** A member's values, in the order of the arrays. */
  readonly refs: readonly ValueRef[];
  /** Places of tenant_id and key in `refs`; -1 for reads of several keys, or of one that is not among the values. */
  readonly keyValues: readonly [number, number];
  readonly withSlots: boolean;
  readonly writes: boolean;
  /** Columns at the front of the result that say whose row it is: the member's number (int8), or tenant_id and key. */
  readonly hidden: 1 | 2;
  readonly identifies: 'ordinal' | 'key';
  /** Of a command tag, the words before the row count. */
  readonly tag: 'SELECT' | 'INSERT 0' | 'UPDATE' | 'DELETE';
  /** A member without a row has met a conflict, which it finds out by running by itself. */
  readonly insertsPlainly: boolean;
  /**
   * INSERTs: the same without reaping rows that have expired, for many and, with a slot behind its values, for one. A member
   * that has no row behind it met one that stands in its way, and runs by itself.
   */
  readonly optimistic: { readonly text: string; readonly one: string } | null;
  /** A single member runs its own statement. Else this one, too: Postgres plans it once, and would not notice bad values. */
  readonly ownForOne: boolean;
}

/** @param types names in SQL of the types that the server has found for the parameters: pg_catalog.int8 */
export function batchStatement(plan: KvPlan, single: SingleStatement, types: readonly string[]): BatchStatement | null {
  const { text, refs } = single;
  const keyValues = keyValuesOf(plan, refs);
  const tokens = tokensIn(text);
  if (keyValues === null || tokens === null || plan.slots.length > 0) return null;
  if (text.includes(TOKEN) || types.length !== refs.length || !types.every(isBatchableType)) return null;
  const clauses = findClauses(tokens);
  if (clauses === null || !isAlone(tokens, clauses.statement)) return null;
  const ahead = aheadSpans(tokens, clauses.statement, types);
  const source: Source = { plan, refs, text, tokens, clauses, types, ahead };
  const common = { refs, keyValues, ownForOne: ahead.length === 0 };
  if (clauses.verb === 'insert') {
    const inserted = batchInsert(source, keyValues);
    return inserted === null
      ? null
      : { ...inserted, ...common, withSlots: true, writes: true, hidden: 2, identifies: 'key', tag: 'INSERT 0' };
  }
  const selects = clauses.verb === 'select' ? 1 : 0;
  if (clauses.with.start !== clauses.with.end || !usesOnlyBatchable(tokens, [clauses.statement], plan, selects)) {
    return null;
  }
  const { verb } = clauses;
  const made = verb === 'select' ? batchSelect(source) : batchChange(source, keyValues, verb);
  if (made === null) return null;
  return {
    text: made,
    ...common,
    withSlots: false,
    writes: plan.writes,
    hidden: 1,
    identifies: 'ordinal',
    tag: TAGS[verb],
    insertsPlainly: false,
    optimistic: null,
  };
}

const TAGS = { select: 'SELECT', update: 'UPDATE', delete: 'DELETE' } as const;

/** Without EXPLAIN in front, and with nothing behind it but a semicolon. */
const isAlone = (tokens: readonly TextToken[], { start, end }: TokenSpan): boolean =>
  start === 0 && tokens.slice(end).every(({ folded }) => folded === ';');

const NO_KEY_VALUES = [-1, -1] as const;

/** Where the key of a statement stands among its values; null: it is not to be merged. */
function keyValuesOf({ keys, writes, verb }: KvPlan, refs: readonly ValueRef[]): readonly [number, number] | null {
  const [only] = keys ?? [];
  if (only === undefined) return null;
  const otherwise = writes || verb !== 'select' ? null : NO_KEY_VALUES;
  if (keys!.length > 1 || only.kind !== 'one') return otherwise;
  const tenant = refs.findIndex((ref) => sameRef(ref, only.tenant));
  const key = refs.findIndex((ref) => sameRef(ref, only.key));
  return tenant < 0 || key < 0 ? otherwise : [tenant, key];
}

function sameRef(one: ValueRef, other: ValueRef): boolean {
  if (one.kind === 'literal') return other.kind === 'literal' && one.index === other.index;
  return one.kind === 'parameter' && other.kind === 'parameter' && one.number === other.number;
}

/** Conditions on ttl that pgkv has added: IS NULL, and the comparison. */
const OWN_TTL_CONDITIONS = 2;

/** The partial index on ttl, which the client's own conditions may open, could be read as a whole for each member. */
function mayUseTtlIndex({ tokens, clauses }: Source): boolean {
  const { where } = clauses;
  if (where === null) return false;
  return tokens.slice(where.body.start, where.body.end).filter(isTtl).length > OWN_TTL_CONDITIONS;
}

const isTtl = (token: TextToken): boolean => nameOf(token) === 'ttl';

function batchSelect(source: Source): string | null {
  const { clauses, plan } = source;
  if (clauses.into !== null || clauses.locking.length > 0) return null;
  // Rows without columns could not be distinguished from none.
  if (clauses.selectList === null || clauses.selectList.start === clauses.selectList.end) return null;
  if (plan.verb === 'function') {
    const call = batchCall(source);
    if (call !== null) return call;
  } else if (mayUseTtlIndex(source)) return null;
  else if (hasList(source)) return batchListRead(source);
  const isApart = clauses.limit !== null || clauses.offset !== null || clauses.fetch !== null;
  const inner = carried(source, clauses.statement) + (isApart ? '' : ' OFFSET 0');
  const rows = numberedRows(source);
  return `SELECT ${ROWS}.${ORDINAL}, ${quoted('q')}.* FROM ${rows}, LATERAL (${inner}) AS ${quoted('q')}`;
}

function batchChange(source: Source, keyValues: readonly [number, number], verb: 'update' | 'delete'): string | null {
  const { clauses } = source;
  if (clauses.where === null || clauses.from !== null || clauses.using !== null || mayUseTtlIndex(source)) return null;
  const returning = returningEdits(source);
  const lookups = lookupEdits(source, keyValues[0]);
  if (returning === null || lookups === null) return null;
  const { start } = clauses.where;
  const joined = `${verb === 'update' ? 'FROM' : 'USING'} ${numberedRows(source)}`;
  return carried(source, clauses.statement, [{ start, end: start, parts: [joined] }, ...lookups, ...returning]);
}

/** The member's number in front; `*` means the target's columns, though there is another relation now. */
function returningEdits(source: Source): TokenEdit[] | null {
  const { tokens, clauses } = source;
  const { returning } = clauses;
  const number = `${ROWS}.${ORDINAL}`;
  if (returning === null) {
    const { end } = clauses.statement;
    return [{ start: end, end, parts: [`RETURNING ${number}`] }];
  }
  const { body } = returning;
  // RETURNING WITH (OLD AS …)
  if (tokens[body.start]!.folded === 'with') return null;
  const edits: TokenEdit[] = [{ start: body.start, end: body.start, parts: [`${number},`] }];
  for (const { start, end } of listItems(tokens, body)) {
    if (end - start === 1 && tokens[start]!.folded === '*') {
      edits.push({ start, end, parts: [`${targetName(source)}.*`] });
    }
  }
  return edits;
}

/** `tenant_id = $1` to `tenant_id = ANY (ARRAY[…])`. Null where it is compared in a way that is not known here. */
function lookupEdits(source: Source, tenant: number): TokenEdit[] | null {
  const { tokens, clauses } = source;
  const { start, end } = clauses.where!.body;
  const edits: TokenEdit[] = [];
  for (let at = start; at < end; at++) {
    const token = tokens[at]!;
    if (token.kind !== 'parameter' || parameterIndex(token) !== tenant) continue;
    const { start: first, end: behind } = operandAround(tokens, at);
    const column = tokens[first - 2];
    if (column === undefined || nameOf(column) !== 'tenant_id' || tokens[first - 1]!.folded !== '=') return null;
    if (!['(', '.', 'and', 'or', 'where', 'not'].includes(tokens[first - 3]!.folded)) return null;
    if (!endsComparison(tokens[behind], behind === end)) return null;
    edits.push({ start: first, end: behind, parts: [`ANY (ARRAY[${memberValue(tenant)}])`] });
  }
  return edits.length > 0 ? edits : null;
}

/**
 * The parameter with what may stand around it without changing its bytes: brackets, casts to text, the collation of keys. What
 * it is cast to was looked at when it was found to be a key (kv-values.ts).
 */
function operandAround(tokens: readonly TextToken[], at: number): TokenSpan {
  let [start, end] = [at, at + 1];
  for (;;) {
    const behind = tokens[end]?.folded;
    if (behind === '::' || behind === 'collate') end = nameEnd(tokens, end + 1);
    else if (behind === 'as' && tokens[start - 2]?.folded === 'cast' && tokens[start - 1]!.folded === '(') {
      end = nameEnd(tokens, end + 1);
    } else if (behind === ')' && tokens[start - 1]?.folded === '(') {
      start -= tokens[start - 2]?.folded === 'cast' ? 2 : 1;
      end++;
    } else return { start, end };
  }
}

/** Behind the name of a type or collation, which may have a schema or two words. */
function nameEnd(tokens: readonly TextToken[], start: number): number {
  const at = tokens[start + 1]?.folded === '.' ? start + 2 : start;
  return tokens[at + 1]?.folded === 'varying' ? at + 2 : at + 1;
}

const endsComparison = (token: TextToken | undefined, isEnd: boolean): boolean =>
  isEnd || (token !== undefined && [')', 'and', 'or'].includes(token.folded));
