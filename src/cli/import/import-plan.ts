// What is to be imported, checked against both sides before anything is moved: the expressions of each column, the key that the
// source is read by, and the table it goes into.
import { CommandFailure } from '../command-failure.js';
import { type ConnectionTarget, placeOf } from '../connection-target.js';
import type { ImportOptions } from '../options.js';
import type { SqlSession } from '../sql/sql-session.js';
import { literal } from './copy-text.js';

export interface ImportPlan {
  /** The import in one line: a state is of this one only. */
  readonly what: string;
  /** COPY … TO STDOUT of the rows behind a position. */
  rowsBehind(position: readonly string[] | null): string;
  readonly count: string;
  /** A guess of the planner's, where it has one. */
  readonly estimate: string | null;
  /** Quoted. */
  readonly into: string;
  readonly isJson: boolean;
  /** The source has JSON as somebody has written it. */
  readonly valuesAreTexts: boolean;
  readonly keyColumns: readonly string[];
}

export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

interface SourceKey {
  readonly columns: readonly { readonly name: string; readonly type: string }[];
}

/** Texts that are read as JSON; json keeps what was written. */
const TEXTS = new Set(['text', 'character varying', 'character', 'name', 'json']);

/** @throws CommandFailure for what cannot be imported so */
export async function importPlan(options: ImportOptions, source: SqlSession, target: SqlSession): Promise<ImportPlan> {
  const isJson = (await valueTypeOf(options, target)) === 'jsonb';
  const { schema, name } = options.table;
  const [found] = await source.rows(
    `SELECT c.oid, n.nspname, c.relname, c.reltuples::bigint FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = pg_catalog.to_regclass(${literal(schema === null ? quoted(name) : `${quoted(schema)}.${quoted(name)}`)})`,
  );
  if (found === undefined) {
    throw new CommandFailure(
      1,
      `the source has no table ${schema === null ? '' : `${schema}.`}${name}, or it is not in its search_path`,
    );
  }
  const [oid, foundSchema, relation, rows] = found as [string, string, string, string];
  const table = `${quoted(foundSchema)}.${quoted(relation)}`;
  const columns = await expressions(options, source, table, isJson);
  const { columns: key } = await sourceKey(source, oid, table);
  const inTable = key.map((column) => `${quoted(relation)}.${quoted(column.name)}`);
  const where = options.where === undefined ? null : `(${options.where}\n)`;
  const into = `${quoted(options.into.schema)}.${quoted(options.into.name)}`;
  return {
    what: describe(options, source.target, target.target, table),
    rowsBehind: (position) => {
      const behind =
        position === null
          ? null
          : `(${inTable.join(', ')}) > (${key.map(({ type }, at) => `${literal(position[at]!)}::${type}`).join(', ')})`;
      const conditions = [where, behind].filter((each) => each !== null);
      const filter = conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`;
      const order = inTable.join(', ');
      return `COPY (SELECT ${[...columns.texts, ...inTable].join(', ')} FROM ${table}${filter} ORDER BY ${order}) TO STDOUT`;
    },
    count: `SELECT count(*) FROM ${table}${where === null ? '' : ` WHERE ${where}`}`,
    estimate: where === null && Number(rows) > 0 ? rows : null,
    into,
    isJson,
    valuesAreTexts: columns.valuesAreTexts,
    keyColumns: key.map((column) => column.name),
  };
}

async function valueTypeOf({ into }: ImportOptions, target: SqlSession): Promise<string> {
  const name = literal(`${quoted(into.schema)}.${quoted(into.name)}`);
  try {
    await target.rows('SHOW pgkv.version');
  } catch (error) {
    const where = placeOf(target.target);
    throw new CommandFailure(1, `what answers at ${where} is not a pgkv router`, 'Name one by --to.', error);
  }
  const [column] = await target.rows(
    `SELECT pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
     WHERE attrelid = pg_catalog.to_regclass(${name}) AND attname = 'value' AND attnum > 0 AND NOT attisdropped`,
  );
  const type = column?.[0];
  if (type === 'jsonb' || type === 'bytea') return type;
  throw new CommandFailure(
    1,
    `there is no key-value table ${into.schema}.${into.name} behind pgkv`,
    'Name one by --into, or make it with "pgkv table create".',
  );
}

async function expressions(
  { tenant, key, value, ttl }: ImportOptions,
  source: SqlSession,
  table: string,
  isJson: boolean,
): Promise<{ readonly texts: readonly string[]; readonly valuesAreTexts: boolean }> {
  const type = await typeOf(source, table, 'value', value);
  if (isJson ? type === 'bytea' : type !== 'bytea') {
    const other = isJson ? 'bytea' : type;
    const convert = isJson ? 'convert_from' : 'convert_to';
    const texts = isJson ? '' : '::text';
    throw new CommandFailure(
      1,
      `--value is of type ${other}, the values of the table are ${isJson ? 'jsonb' : 'bytea'}`,
      `Say how one becomes the other, for example --value "${convert}((${value})${texts}, 'UTF8')".`,
    );
  }
  await typeOf(source, table, 'tenant', tenant);
  await typeOf(source, table, 'key', key);
  const expiry = ttl === undefined ? 'NULL::timestamptz' : `(${ttl}\n)::timestamptz`;
  if (ttl !== undefined) await typeOf(source, table, 'ttl', ttl, '::timestamptz');
  const areTexts = TEXTS.has(type.replace(/\(.*/, ''));
  const asJson = areTexts || type === 'jsonb' || !isJson ? `(${value}\n)` : `pg_catalog.to_jsonb((${value}\n))`;
  return {
    texts: [
      `(${tenant}\n)::text`,
      `(${key}\n)::text`,
      `${asJson}::text`,
      expiry,
      `COALESCE(${expiry} <= pg_catalog.clock_timestamp(), false)`,
    ],
    valuesAreTexts: areTexts,
  };
}

/** @throws CommandFailure where the expression is none, in the server's words */
async function typeOf(
  source: SqlSession,
  table: string,
  option: string,
  expression: string,
  cast = '',
): Promise<string> {
  try {
    const one = `SELECT (${expression}\n)${cast} AS it FROM ${table} LIMIT 0`;
    const [row] = await source.rows(
      `SELECT pg_catalog.format_type(pg_catalog.pg_typeof(it)::oid, NULL) FROM (SELECT NULL) AS none(x) LEFT JOIN (${one}\n) AS one ON true`,
    );
    const type = row![0]!;
    return type === 'unknown' ? 'text' : type;
  } catch (error) {
    const { message, hint } = error as { readonly message: string; readonly hint?: string };
    throw new CommandFailure(1, `--${option}: the source says: ${message}`, hint ?? hintFor(option), error);
  }
}

function hintFor(option: string): string | undefined {
  if (option === 'ttl') return 'It has to be a point in time; to_timestamp(…) makes one of seconds.';
  return option === 'tenant' ? 'It is SQL: a column, or a text in quotes, as in --tenant "\'web\'".' : undefined;
}

/** The primary key, or else the shortest unique index over columns that are never NULL. */
async function sourceKey(source: SqlSession, oid: string, table: string): Promise<SourceKey> {
  const rows = await source.rows(
    `SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM (
       SELECT i.indrelid, i.indkey, i.indnkeyatts FROM pg_catalog.pg_index i WHERE i.indrelid = ${oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
         AND i.indexprs IS NULL AND i.indimmediate AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid
           AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND NOT a.attnotnull)
       ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1) i,
       pg_catalog.generate_series(0, i.indnkeyatts - 1) AS at(place),
       pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[at.place] ORDER BY at.place`,
  );
  if (rows.length === 0) {
    throw new CommandFailure(
      1,
      `${table} has no primary key, and no unique index over columns that are NOT NULL: an import could not go on where it was stopped`,
      'Make one, or load the rows with \\copy.',
    );
  }
  return { columns: rows.map(([name, type]) => ({ name: name!, type: type! })) };
}

function describe(
  { tenant, key, value, ttl, where, into }: ImportOptions,
  from: ConnectionTarget,
  to: ConnectionTarget,
  table: string,
): string {
  const place = ({ host, port, database }: ConnectionTarget): string => `${host}:${port}/${database}`;
  const columns = [`tenant ${tenant}`, `key ${key}`, `value ${value}`, ...(ttl === undefined ? [] : [`ttl ${ttl}`])];
  const filter = where === undefined ? '' : ` where ${where}`;
  return `${place(from)} ${table} (${columns.join(', ')})${filter} into ${place(to)} ${into.schema}.${into.name}`;
}
