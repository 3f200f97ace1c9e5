// The statement that does the work of many (D11): the members' values travel as arrays of text, and the client's
// statement runs over their rows. Built from the text for a shard (KvPlan.text), so that expiry, versions and reaping are
// in it. What is not certain to mean the same for many as for one is not built: null, and its clients use leases.
import { KV_COLUMNS } from '../cluster/kv-table.js';
import { type Clauses, findClauses } from './clauses.js';
import type { KeyRef, KvPlan, ValueRef } from './kv-plan.js';
import { renderText } from './kv-text.js';
import { callsOnlyMergeable } from './mergeable-calls.js';
import { LITERAL_STRIDE, LiteralKind, lexShape } from './shape-lexer.js';
import { listItems, spliceTokens, type TextToken, type TokenEdit, type TokenSpan, tokensOf } from './text-tokens.js';

/** How a merged statement is sent and its rows are read. */
export interface MergeStatement {
  /** The statement for many. Its parameters are text[] arrays, one per entry of `refs`, then int4[] of slots. */
  readonly text: string;
  /** A member's values, in the order of the arrays. */
  readonly refs: readonly ValueRef[];
  /** Places of tenant_id and key in `refs`. */
  readonly keyValues: readonly [number, number];
  readonly withSlots: boolean;
  readonly writes: boolean;
  /** Columns at the front of the result that say whose row it is: the member's number (int8), or tenant_id and key. */
  readonly hidden: 1 | 2;
  readonly identifies: 'ordinal' | 'key';
  /** Of a command tag, the words before the row count. */
  readonly tag: 'SELECT' | 'INSERT 0' | 'UPDATE' | 'DELETE';
  /** A member without a row has met a conflict, which it has to be told by running by itself. */
  readonly insertsPlainly: boolean;
}

/** A member's own statement with all its values as parameters. */
export interface SingleStatement {
  readonly text: string;
  /** What stands for $1, $2 … */
  readonly refs: readonly ValueRef[];
  /** Types to declare for them; 0: the server's choice. */
  readonly types: readonly number[];
}

const INT4 = 23;
/** Names that no client's statement has by accident, and that nobody can know beforehand. */
const TOKEN = Math.random().toString(36).slice(2, 10);
const quoted = (name: string): string => `"␟${TOKEN} ${name}"`;
const ROWS = quoted('r');
const ORDINAL = quoted('o');
const SLOT = quoted('s');
const REAPED = quoted('x');
const DEAD = quoted('d');
const column = (index: number): string => quoted(String(index + 1));
const NOW = 'pg_catalog.statement_timestamp()';
const VALUES_MAX = 16;

/**
 * The statement with parameters for what its members give: those the client has as parameters, or, where it sends values
 * in the text, the text's literals. Null where it cannot be said so.
 *
 * @param literals of `text`, the client's own; see Shape.literals
 */
export function singleStatement(
  plan: KvPlan,
  text: string,
  literals: readonly number[],
  parameterTypes: readonly number[],
  fromText: boolean,
): SingleStatement | null {
  if (fromText) return fromLiterals(plan, literals);
  const rendered = renderText(plan.text, text, literals);
  const count = parameterCount(rendered);
  if (count === null || count === 0 || count > VALUES_MAX) return null;
  const refs = Array.from({ length: count }, (_, index): ValueRef => ({ kind: 'parameter', number: index + 1 }));
  return { text: rendered, refs, types: refs.map((_, index) => parameterTypes[index] ?? 0) };
}

function fromLiterals({ text }: KvPlan, literals: readonly number[]): SingleStatement | null {
  const refs: ValueRef[] = [];
  const types: number[] = [];
  const places = new Map<number, number>();
  let rendered = '';
  for (const part of text) {
    if (typeof part === 'string') {
      rendered += part;
      continue;
    }
    let place = places.get(part);
    if (place === undefined) {
      const kind = literals[part * LITERAL_STRIDE + 2];
      // A literal keeps its type: what is no string says so.
      if (kind === LiteralKind.integer) types.push(INT4);
      else if (kind === LiteralKind.string || kind === LiteralKind.dollar) types.push(0);
      else return null;
      refs.push({ kind: 'literal', index: part });
      place = refs.length;
      places.set(part, place);
    }
    rendered += ` $${place} `;
  }
  return refs.length === 0 || refs.length > VALUES_MAX ? null : { text: rendered, refs, types };
}

/** The highest number of a parameter; null where one of them is not used. */
function parameterCount(text: string): number | null {
  const used = new Set<number>();
  for (const token of tokensIn(text) ?? []) if (token.kind === 'parameter') used.add(Number(token.folded.slice(1)));
  const highest = Math.max(0, ...used);
  return used.size === highest ? highest : null;
}

function tokensIn(text: string): readonly TextToken[] | null {
  const shape = lexShape(text, true);
  return shape === null ? null : tokensOf(text, shape.literals);
}

/** @param types names in SQL of the types that the server has found for the parameters */
export function mergeStatement(plan: KvPlan, single: SingleStatement, types: readonly string[]): MergeStatement | null {
  const keyValues = keyValuesOf(plan.keys, single.refs);
  const tokens = tokensIn(single.text);
  if (keyValues === null || tokens === null || plan.slots.length > 0) return null;
  const clauses = findClauses(tokens);
  if (clauses === null || !callsOnlyMergeable(tokens, clauses, plan)) return null;
  const statement: Statement = { plan, text: single.text, tokens, clauses, types, keyValues };
  const made = MAKERS[clauses.verb](statement);
  if (made === null) return null;
  return { refs: single.refs, keyValues, writes: plan.writes, ...made };
}

interface Statement {
  readonly plan: KvPlan;
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly clauses: Clauses;
  readonly types: readonly string[];
  readonly keyValues: readonly [number, number];
}

type Made = Omit<MergeStatement, 'refs' | 'keyValues' | 'writes'>;

const MAKERS: Readonly<Record<Clauses['verb'], (statement: Statement) => Made | null>> = {
  select: mergeSelect,
  update: mergeUpdate,
  delete: mergeDelete,
  insert: mergeInsert,
};

/** Where the one key of a statement stands among its values. */
function keyValuesOf(keys: readonly KeyRef[] | null, refs: readonly ValueRef[]): [number, number] | null {
  const [only] = keys ?? [];
  if (only === undefined || keys!.length !== 1 || only.kind !== 'one') return null;
  const tenant = refs.findIndex((ref) => sameRef(ref, only.tenant));
  const key = refs.findIndex((ref) => sameRef(ref, only.key));
  return tenant < 0 || key < 0 ? null : [tenant, key];
}

function sameRef(one: ValueRef, other: ValueRef): boolean {
  if (one.kind === 'literal') return other.kind === 'literal' && one.index === other.index;
  return one.kind === 'parameter' && other.kind === 'parameter' && one.number === other.number;
}

/** Only an unqualified unnest() takes several arrays, and that one is found by search_path: one call for each. */
const arrays = (count: number): string =>
  Array.from({ length: count }, (_, index) => `pg_catalog.unnest($${index + 1}::pg_catalog.text[])`).join(', ');
const columns = (count: number): string[] => Array.from({ length: count }, (_, index) => column(index));

/** The members as rows, numbered. */
const numberedRows = (count: number): string =>
  `ROWS FROM (${arrays(count)}) WITH ORDINALITY AS ${ROWS}(${[...columns(count), ORDINAL].join(', ')})`;

/** Each parameter as the column of a member's row. */
function carried({ text, tokens, types }: Statement, span: TokenSpan, more: readonly TokenEdit[] = []): string {
  const edits: TokenEdit[] = [...more];
  for (let at = span.start; at < span.end; at++) {
    const token = tokens[at]!;
    if (token.kind !== 'parameter') continue;
    const index = Number(token.folded.slice(1)) - 1;
    const type = types[index]!;
    const cast = type === 'pg_catalog.text' ? '' : `::${type}`;
    edits.push({ start: at, end: at + 1, parts: [`(${ROWS}.${column(index)}${cast})`] });
  }
  return renderInPlace(spliceTokens(text, tokens, span, edits), text);
}

/** Literals that were left in the text stay what they are. */
function renderInPlace(parts: readonly (string | number)[], text: string): string {
  return renderText(parts, text, lexShape(text, true)?.literals ?? []);
}

function mergeSelect(statement: Statement): Made | null {
  const { clauses, types } = statement;
  if (clauses.into !== null || clauses.locking.length > 0 || clauses.with.start !== clauses.with.end) return null;
  const inner = carried(statement, clauses.statement);
  return {
    text: `SELECT ${ROWS}.${ORDINAL}, ${quoted('q')}.* FROM ${numberedRows(types.length)}, LATERAL (${inner}) AS ${quoted('q')}`,
    withSlots: false,
    hidden: 1,
    identifies: 'ordinal',
    tag: 'SELECT',
    insertsPlainly: false,
  };
}

/** How the target is called in the rest of its statement. */
function targetName({ text, tokens, clauses }: Statement): string {
  const { name, alias } = clauses.target!;
  const at = alias.end > alias.start ? alias.end - 1 : name.end - 1;
  return text.slice(tokens[at]!.start, tokens[at]!.end);
}

/** `*` means the target's columns, though there is another relation now. */
function returningEdits(statement: Statement, front: string): TokenEdit[] | null {
  const { tokens, clauses } = statement;
  const { returning } = clauses;
  if (returning === null) {
    const { end } = clauses.statement;
    return [{ start: end, end, parts: [`RETURNING ${front}`] }];
  }
  if (tokens[returning.body.start]!.folded === 'with') return null;
  const edits: TokenEdit[] = [{ start: returning.body.start, end: returning.body.start, parts: [`${front},`] }];
  for (const { start, end } of listItems(tokens, returning.body)) {
    if (end - start === 1 && tokens[start]!.folded === '*') {
      edits.push({ start, end, parts: [`${targetName(statement)}.*`] });
    }
  }
  return edits;
}

const byOrdinal = (text: string, tag: Made['tag']): Made => ({
  text,
  withSlots: false,
  hidden: 1,
  identifies: 'ordinal',
  tag,
  insertsPlainly: false,
});

function mergeUpdate(statement: Statement): Made | null {
  const { clauses, types } = statement;
  if (clauses.from !== null || clauses.where === null || clauses.with.start !== clauses.with.end) return null;
  const returning = returningEdits(statement, `${ROWS}.${ORDINAL}`);
  if (returning === null) return null;
  const { start } = clauses.where;
  const from: TokenEdit = { start, end: start, parts: [`FROM ${numberedRows(types.length)}`] };
  return byOrdinal(carried(statement, clauses.statement, [from, ...returning]), 'UPDATE');
}

function mergeDelete(statement: Statement): Made | null {
  const { clauses, types } = statement;
  if (clauses.using !== null || clauses.where === null || clauses.with.start !== clauses.with.end) return null;
  const returning = returningEdits(statement, `${ROWS}.${ORDINAL}`);
  if (returning === null) return null;
  const { start } = clauses.where;
  const using: TokenEdit = { start, end: start, parts: [`USING ${numberedRows(types.length)}`] };
  return byOrdinal(carried(statement, clauses.statement, [using, ...returning]), 'DELETE');
}

const COLUMN_TYPES: Readonly<Record<string, string>> = {
  tenant_id: 'pg_catalog.text',
  key: 'pg_catalog.text',
  version: 'pg_catalog.int8',
  ttl: 'pg_catalog.timestamptz',
  updated_at: 'pg_catalog.timestamptz',
};

/**
 * Put together anew: the members' rows, the DELETE that reaps expired ones (D9), and the INSERT, whose slot column waits
 * for that and comes from the router, so that no trigger has to compute it.
 */
function mergeInsert(statement: Statement): Made | null {
  const { plan, text, tokens, clauses, types, keyValues } = statement;
  if (clauses.values === null || clauses.target === null || clauses.overriding !== null) return null;
  const rows = listItems(tokens, clauses.values.body);
  if (rows.length !== 1) return null;
  const names = insertedColumns(statement);
  const values = listItems(tokens, { start: rows[0]!.start + 1, end: rows[0]!.end - 1 });
  if (names === null || names.includes('slot') || values.length > names.length) return null;
  const [tenant, key] = keyValues;
  const expressions: string[] = [];
  for (const [index, span] of values.entries()) {
    // The first is wrapped for the reaping of a single statement.
    if (names[index] === 'tenant_id') expressions.push(`${ROWS}.${column(tenant)}`);
    else if (isDefault(tokens, span)) return null;
    else expressions.push(carried(statement, span));
  }
  const conflict = conflictText(statement, names, values);
  if (conflict === null) return null;
  const target = text.slice(tokens[clauses.target.name.start]!.start, tokens[clauses.target.name.end - 1]!.end);
  const name = targetName(statement);
  const alias = clauses.target.alias.end > clauses.target.alias.start ? `AS ${name}` : '';
  const list = names.slice(0, values.length).map((one) => `"${one}"`);
  const insertsPlainly = clauses.onConflict === null;
  const returning =
    clauses.returning === null ? '' : `, ${renderInPlace(spliceTokens(text, tokens, clauses.returning.body), text)}`;
  if (clauses.returning !== null && hasParameter(tokens, clauses.returning.body)) return null;
  const made = [
    `WITH ${ROWS} AS MATERIALIZED (SELECT * FROM ROWS FROM (${arrays(types.length)}, pg_catalog.unnest($${types.length + 1}::pg_catalog.int4[]))`,
    `AS ${ROWS}(${[...columns(types.length), SLOT].join(', ')})),`,
    `${REAPED} AS MATERIALIZED (DELETE FROM ${target} AS ${DEAD} USING ${ROWS} WHERE ${DEAD}.tenant_id = ${ROWS}.${column(tenant)}`,
    `AND ${DEAD}.key = ${ROWS}.${column(key)} AND ${DEAD}.ttl <= ${NOW} RETURNING 1)`,
    `INSERT INTO ${target} ${alias} (${[...list, 'slot'].join(', ')})`,
    `SELECT ${expressions.join(', ')}, ${ROWS}.${SLOT} + (SELECT 0 * pg_catalog.count(*)::pg_catalog.int4 FROM ${REAPED}) FROM ${ROWS}`,
    insertsPlainly ? 'ON CONFLICT DO NOTHING' : conflict,
    `RETURNING ${name}.tenant_id, ${name}.key${returning}`,
  ].join(' ');
  return plan.table === undefined
    ? null
    : { text: made, withSlots: true, hidden: 2, identifies: 'key', tag: 'INSERT 0', insertsPlainly };
}

function insertedColumns({ tokens, clauses }: Statement): string[] | null {
  if (clauses.columns === null) return [...KV_COLUMNS];
  const names: string[] = [];
  for (const { start, end } of listItems(tokens, clauses.columns)) {
    const name = tokens[start]!.folded.replace(/^"(.*)"$/s, '$1');
    if (end - start !== 1 || !(KV_COLUMNS as readonly string[]).includes(name)) return null;
    names.push(name);
  }
  return names;
}

const isDefault = (tokens: readonly TextToken[], { start, end }: TokenSpan): boolean =>
  end - start === 1 && tokens[start]!.folded === 'default';

const hasParameter = (tokens: readonly TextToken[], { start, end }: TokenSpan): boolean =>
  tokens.slice(start, end).some(({ kind }) => kind === 'parameter');

/**
 * ON CONFLICT … for all members: its expressions cannot see the members' rows, so that a value they use has to be one
 * that is inserted, and goes by `excluded`. Empty where there is none; null where that is not so.
 */
function conflictText(
  { text, tokens, clauses, types, plan }: Statement,
  names: readonly string[],
  values: readonly TokenSpan[],
): string | null {
  const { onConflict } = clauses;
  if (onConflict === null) return '';
  const edits: TokenEdit[] = [];
  for (let at = onConflict.start; at < onConflict.end; at++) {
    const token = tokens[at]!;
    if (token.kind !== 'parameter') continue;
    const from = values.findIndex(({ start, end }) => end - start === 1 && tokens[start]!.folded === token.folded);
    const name = names[from];
    const type = name === 'value' ? `pg_catalog.${plan.table.valueType}` : COLUMN_TYPES[name ?? ''];
    if (type === undefined || types[Number(token.folded.slice(1)) - 1] !== type) return null;
    edits.push({ start: at, end: at + 1, parts: [`excluded."${name}"`] });
  }
  return renderInPlace(spliceTokens(text, tokens, { start: onConflict.start, end: onConflict.end }, edits), text);
}
