// INSERT for many members, put together anew: the members' rows, the DELETE that reaps expired ones (D9), and the INSERT,
// whose slot column waits for that and comes from the router, so that no trigger has to compute it. RETURNING cannot see
// the members' rows, so that tenant_id and key say whose a row is.
//
// Reaping is a quarter of a server's work, and a row that has expired seldom stands in the way. So there are texts without
// it, for many and for one (R46): a row that has expired is left as it is, and who has no row behind that runs by itself.
// Where no row may as well mean something else (DO NOTHING, a condition of the client's) there are none.
//
// The reaping DELETE looks its keys up like UPDATE and DELETE do (batch-statement.ts). `IS TRUE` keeps the index on ttl
// out of it: with it every batch read all rows that had expired and were not swept yet.
import { KV_COLUMNS } from '../../cluster/kv-table.js';
import { hasExpired, hasNotExpired } from '../rewrite/kv-rewrites.js';
import { listItems, type TextToken, type TokenSpan } from '../text/text-tokens.js';
import { nameOf, usesOnlyBatchable } from './batchable.js';
import {
  asWritten,
  carried,
  column,
  columns,
  converted,
  parameterIndex,
  quoted,
  ROWS,
  type Source,
  targetName,
  textOf,
  texts,
  unnested,
  withValues,
} from './member-rows.js';

const SLOT = quoted('s');
const REAPED = quoted('x');
const DEAD = quoted('d');

const COLUMN_TYPES: Readonly<Record<string, string>> = {
  tenant_id: 'pg_catalog.text',
  key: 'pg_catalog.text',
  version: 'pg_catalog.int8',
  ttl: 'pg_catalog.timestamptz',
  updated_at: 'pg_catalog.timestamptz',
};

/** A column and the tokens of its value. */
interface Given {
  readonly name: string;
  /** As the client wrote it. */
  readonly text: string;
  readonly span: TokenSpan;
}

export interface BatchInsert {
  readonly text: string;
  readonly insertsPlainly: boolean;
  /** Without reaping; `one` has a slot behind its values, and no columns in front of its result. */
  readonly optimistic: { readonly text: string; readonly one: string } | null;
}

export function batchInsert(source: Source, [tenant, key]: readonly [number, number]): BatchInsert | null {
  const { tokens, clauses, types, plan } = source;
  const { target, onConflict, returning } = clauses;
  const given = givenValues(source);
  if (given === null || target === null || clauses.overriding !== null) return null;
  if (returning !== null && tokens[returning.body.start]!.folded === 'with') return null;
  const own = given.filter(({ name }) => name !== 'tenant_id').map(({ span }) => span);
  const spans = [...own, ...(onConflict === null ? [] : [onConflict]), ...(returning === null ? [] : [returning.body])];
  if (!usesOnlyBatchable(tokens, spans, plan, 0)) return null;

  const table = textOf(source, target.name);
  const name = targetName(source);
  const alias = target.alias.end > target.alias.start ? `AS ${name}` : '';
  // In a single statement the tenant is wrapped for the reaping.
  const values = given.map((one) =>
    one.name === 'tenant_id' ? `${ROWS}.${column(tenant)}` : carried(source, one.span),
  );
  const isMember = (row: string): string =>
    `${row}.tenant_id = ANY (ARRAY[${ROWS}.${column(tenant)}]) AND ${row}.key = ${ROWS}.${column(key)}`;
  const fromMember = (row: string) => (value: string) =>
    `(SELECT ${value} FROM ${ROWS} WHERE ${ROWS}.${column(tenant)} = ${row}.tenant_id AND ${ROWS}.${column(key)} = ${row}.key LIMIT 1)`;
  const visible = returning === null ? '' : `, ${withValues(source, returning.body, fromMember(name))}`;
  const conflict =
    onConflict === null ? 'ON CONFLICT DO NOTHING' : conflictText(source, given, onConflict, fromMember('excluded'));
  const rows = `SELECT ${converted(source)}, ${ROWS}.${SLOT} FROM ${unnested([...texts(types.length), 'int4'])} AS ${ROWS}(${[...columns(types.length), SLOT].join(', ')})`;
  const insert = `INSERT INTO ${table} ${alias} (${[...given.map((one) => one.text), 'slot'].join(', ')})`;
  const selected = `SELECT ${values.join(', ')}, ${ROWS}.${SLOT}`;
  const whose = `RETURNING ${name}.tenant_id, ${name}.key${visible}`;
  const text = [
    `WITH ${ROWS} AS MATERIALIZED (${rows}),`,
    `${REAPED} AS MATERIALIZED (DELETE FROM ${table} AS ${DEAD} USING ${ROWS} WHERE ${isMember(DEAD)}`,
    `AND (${hasExpired(`${DEAD}.ttl`)}) IS TRUE RETURNING 1)`,
    `${insert} ${selected} + (SELECT 0 * pg_catalog.count(*)::pg_catalog.int4 FROM ${REAPED}) FROM ${ROWS}`,
    `${conflict} ${whose}`,
  ].join(' ');
  const insertsPlainly = onConflict === null;
  if (onConflict !== null && (onConflict.action !== 'update' || onConflict.where !== null)) {
    return { text, insertsPlainly, optimistic: null };
  }
  const unlessExpired = onConflict === null ? '' : `WHERE ${hasNotExpired(`${name}.ttl`)}`;
  // Looked up beside the INSERT, the members' rows have to be a query of their own.
  const looksUp = `${conflict} ${visible}`.includes(ROWS);
  const from = looksUp ? `FROM ${ROWS}` : `FROM (${rows}) AS ${ROWS}`;
  return {
    text,
    insertsPlainly,
    optimistic: {
      text: `${looksUp ? `WITH ${ROWS} AS MATERIALIZED (${rows}) ` : ''}${insert} ${selected} ${from} ${conflict} ${unlessExpired} ${whose}`,
      one: [
        `${insert} VALUES (${given.map((one) => (one.name === 'tenant_id' ? `$${tenant + 1}` : asWritten(source, one.span))).join(', ')}, $${types.length + 1})`,
        onConflict === null ? conflict : asWritten(source, onConflict),
        unlessExpired,
        ...(returning === null ? [] : [`RETURNING ${asWritten(source, returning.body)}`]),
      ].join(' '),
    },
  };
}

/** What is inserted, without columns that get their default or, as the slot does, nothing. */
function givenValues(source: Source): Given[] | null {
  const { tokens, clauses } = source;
  if (clauses.values === null) return null;
  const [row, ...more] = listItems(tokens, clauses.values.body);
  if (row === undefined || more.length > 0) return null;
  const spans = listItems(tokens, { start: row.start + 1, end: row.end - 1 });
  const names = insertedColumns(source);
  if (names === null || spans.length > names.length) return null;
  return spans
    .map((span, index) => ({ ...names[index]!, span }))
    .filter(({ name, span }) => name !== 'slot' && !isWord(tokens, span, 'default'));
}

function insertedColumns(source: Source): Pick<Given, 'name' | 'text'>[] | null {
  const { tokens, clauses } = source;
  if (clauses.columns === null) return KV_COLUMNS.map((name) => ({ name, text: name }));
  const names: Pick<Given, 'name' | 'text'>[] = [];
  for (const span of listItems(tokens, clauses.columns)) {
    if (span.end - span.start !== 1) return null;
    names.push({ name: nameOf(tokens[span.start]!), text: textOf(source, span) });
  }
  return names;
}

const isWord = (tokens: readonly TextToken[], { start, end }: TokenSpan, word: string): boolean =>
  end - start === 1 && tokens[start]!.kind === 'word' && tokens[start]!.folded === word;

/**
 * ON CONFLICT … for all members: its expressions cannot see the members' rows. A value that is inserted as it is goes by
 * `excluded`; any other is looked up in the members' rows, which takes 30 µs for each of 200 members.
 */
function conflictText(
  source: Source,
  given: readonly Given[],
  span: TokenSpan,
  fromMember: (value: string) => string,
): string {
  const { tokens, types, plan } = source;
  return withValues(source, { start: span.start, end: span.end }, (value, index) => {
    const inserted = given.find(
      ({ span: { start, end } }) =>
        end - start === 1 && tokens[start]!.kind === 'parameter' && parameterIndex(tokens[start]!) === index,
    );
    const type = inserted?.name === 'value' ? `pg_catalog.${plan.table.valueType}` : COLUMN_TYPES[inserted?.name ?? ''];
    return inserted !== undefined && types[index] === type ? `excluded.${inserted.text}` : fromMember(value);
  });
}
