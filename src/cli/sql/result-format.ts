// A finished result in the format the user chose. JSON is one document per statement and line, so that a program can
// read the answers as they come.
import { alignedTable, expandedTable, type Table } from './aligned-table.js';

export type ResultFormat = 'aligned' | 'csv' | 'json';

/** A result as it came from the server: names, type OIDs, text values. */
export interface Result {
  readonly tag: string;
  readonly columns: readonly ResultColumn[];
  readonly rows: readonly (readonly (string | null)[])[];
  readonly title?: string;
  readonly footers?: readonly string[];
  /** `\x` does not apply. */
  readonly neverExpanded?: boolean;
}

export interface ResultColumn {
  readonly name: string;
  readonly typeOid: number;
}

const TEXT = 25;

/** Columns of a result the shell makes itself. */
export function textColumns(...names: string[]): ResultColumn[] {
  return names.map((name) => ({ name, typeOid: TEXT }));
}

// pg_type OIDs, stable across versions.
const BOOL = 16;
const JSON_OID = 114;
const JSONB = 3802;

const NUMBERS = new Set([20, 21, 23, 26, 700, 701, 1700]);
/** Besides numbers: xid, cid, money, xid8. */
const RIGHT_ALIGNED = new Set([...NUMBERS, 28, 29, 790, 5069]);

/** The lines of `result`, without line ends. */
export function formatResult(result: Result, format: ResultFormat, expanded: boolean): Iterable<string> {
  switch (format) {
    case 'json':
      return [resultAsJson(result)];
    case 'csv':
      return expanded ? csvExpanded(result) : csvLines(result);
    case 'aligned':
      return expanded ? expandedTable(asTable(result)) : alignedTable(asTable(result));
  }
}

function asTable({ columns, rows, title, footers }: Result): Table {
  return {
    columns: columns.map(({ name, typeOid }) => ({ name, align: RIGHT_ALIGNED.has(typeOid) ? 'right' : 'left' })),
    rows,
    ...(title !== undefined && { title }),
    ...(footers && { footers }),
  };
}

function* csvLines({ columns, rows }: Result): Generator<string> {
  yield columns.map((column) => csvField(column.name)).join(',');
  for (const row of rows) yield row.map(csvField).join(',');
}

function* csvExpanded({ columns, rows }: Result): Generator<string> {
  for (const row of rows) {
    for (const [index, value] of row.entries()) yield `${csvField(columns[index]!.name)},${csvField(value)}`;
  }
}

/** null and the empty text are both nothing, as in psql; `\.` is quoted since COPY would take it for the end. */
function csvField(value: string | null): string {
  if (value === null) return '';
  return /[",\r\n]/.test(value) || value === '\\.' ? `"${value.replaceAll('"', '""')}"` : value;
}

/** `{"command":"SELECT 1","rows":[{"a":1}]}`; numbers keep all their digits, json values are embedded. */
function resultAsJson({ tag, columns, rows }: Result): string {
  const names = uniqueNames(columns).map((name) => JSON.stringify(name));
  const objects = rows.map((row) => {
    const members = row.map((value, index) => `${names[index]}:${jsonValue(value, columns[index]!.typeOid)}`);
    return `{${members.join(',')}}`;
  });
  return `{"command":${JSON.stringify(tag)},"rows":[${objects.join(',')}]}`;
}

/** A statement without rows. */
export function tagAsJson(tag: string): string {
  return JSON.stringify({ command: tag });
}

/** A second column of the same name becomes `name_2`: an object would lose it. */
function uniqueNames(columns: readonly ResultColumn[]): string[] {
  const taken = new Set<string>();
  return columns.map(({ name }) => {
    let unique = name;
    for (let count = 2; taken.has(unique); count++) unique = `${name}_${count}`;
    taken.add(unique);
    return unique;
  });
}

function jsonValue(value: string | null, typeOid: number): string {
  if (value === null) return 'null';
  if (typeOid === BOOL) return value === 't' ? 'true' : 'false';
  // NaN and Infinity are no JSON numbers and stay texts.
  if (NUMBERS.has(typeOid) && /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?$/i.test(value)) return value;
  // Line ends in json stand only between its tokens.
  if (typeOid === JSON_OID || typeOid === JSONB) return value.replace(/[\r\n]+/g, ' ');
  return JSON.stringify(value);
}
