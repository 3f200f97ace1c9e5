// Tables as psql prints them by default (aligned, border 1, ASCII) and expanded (`\x`). Everything is a stream of
// lines without line ends, so that a large result is never one string. Oracle: psql 15, byte for byte
// (test/integration/cli-sql.test.ts).
import { type DisplayLine, displayLines } from './display-width.js';

export interface Column {
  readonly name: string;
  /** Numbers stand on the right. */
  readonly align: 'left' | 'right';
}

export interface Table {
  readonly columns: readonly Column[];
  /** One text per column; null shows as nothing. */
  readonly rows: readonly (readonly (string | null)[])[];
  readonly title?: string;
  /** Lines below the rows. Without them the count of rows stands there. */
  readonly footers?: readonly string[];
}

/** The lines of `table` in psql's default format. */
export function* alignedTable(table: Table): Generator<string> {
  const headers = table.columns.map((column) => displayLines(column.name));
  const widths = headers.map(widestOf);
  for (const row of table.rows) {
    for (const [index, value] of row.entries()) {
      const width = widestOf(displayLines(value ?? ''));
      if (width > widths[index]!) widths[index] = width;
    }
  }
  if (table.title !== undefined) yield centredTitle(table.title, widths);
  yield* headerLines(headers, widths);
  yield `-${widths.map((width) => '-'.repeat(width)).join('-+-')}-`;
  if (table.columns.length > 0) {
    for (const row of table.rows) yield* rowLines(row, table.columns, widths);
  }
  yield* table.footers ?? [rowCount(table.rows.length)];
  yield '';
}

function widestOf(lines: readonly DisplayLine[]): number {
  let widest = 0;
  for (const line of lines) if (line.width > widest) widest = line.width;
  return widest;
}

function rowCount(count: number): string {
  return count === 1 ? '(1 row)' : `(${count} rows)`;
}

/** Over the middle of the table, or at its left edge where the title is the wider one. */
function centredTitle(title: string, widths: readonly number[]): string {
  const tableWidth = widths.reduce((sum, width) => sum + width, 0) + Math.max(widths.length * 3 - 1, 0);
  const spare = tableWidth - widestOf(displayLines(title));
  return spare > 0 ? ' '.repeat(Math.floor(spare / 2)) + title : title;
}

function* headerLines(headers: readonly (readonly DisplayLine[])[], widths: readonly number[]): Generator<string> {
  const height = Math.max(0, ...headers.map((lines) => lines.length));
  for (let lineIndex = 0; lineIndex < height; lineIndex++) {
    const cells = headers.map((lines, index) => {
      const width = widths[index]!;
      const line = lines[lineIndex];
      if (!line) return ` ${' '.repeat(width)} `;
      const spare = width - line.width;
      const continues = lineIndex + 1 < lines.length;
      return ` ${' '.repeat(spare >> 1)}${line.text}${' '.repeat((spare + 1) >> 1)}${continues ? '+' : ' '}`;
    });
    yield cells.join('|');
  }
}

function* rowLines(
  row: readonly (string | null)[],
  columns: readonly Column[],
  widths: readonly number[],
): Generator<string> {
  const cells = row.map((value) => displayLines(value ?? ''));
  let height = 1;
  for (const cell of cells) if (cell.length > height) height = cell.length;
  const last = columns.length - 1;
  for (let lineIndex = 0; lineIndex < height; lineIndex++) {
    let text = '';
    for (let index = 0; index <= last; index++) {
      const cell = cells[index]!;
      const line = cell[lineIndex] ?? EMPTY_LINE;
      const continues = lineIndex + 1 < cell.length;
      const spare = ' '.repeat(widths[index]! - line.width);
      text += ' ';
      if (columns[index]!.align === 'right' && lineIndex < cell.length) text += spare + line.text;
      else text += index < last || continues ? line.text + spare : line.text;
      if (continues) text += '+';
      else if (index < last) text += ' ';
      if (index < last) text += '|';
    }
    yield text;
  }
}

const EMPTY_LINE: DisplayLine = { text: '', width: 0 };

/** The lines of `table` with one line per value (`\x`). */
export function* expandedTable(table: Table): Generator<string> {
  if (table.rows.length === 0 || table.columns.length === 0) {
    // Without cells psql shows the count alone, title and header dropped.
    yield* table.footers ?? [rowCount(table.rows.length)];
    yield '';
    return;
  }
  const headers = table.columns.map((column) => displayLines(column.name));
  const headerWidth = Math.max(0, ...headers.map(widestOf));
  let dataWidth = 0;
  for (const row of table.rows) {
    for (const value of row) dataWidth = Math.max(dataWidth, widestOf(displayLines(value ?? '')));
  }
  if (table.title !== undefined) yield table.title;
  for (const [index, row] of table.rows.entries()) {
    yield recordLine(index + 1, headerWidth, dataWidth);
    for (const [column, value] of row.entries()) {
      yield* fieldLines(headers[column]!, headerWidth, displayLines(value ?? ''), dataWidth);
    }
  }
  if (table.footers) yield* ['', ...table.footers];
  yield '';
}

/** `-[ RECORD 1 ]-+----`: the cross stands where the columns part, unless the label covers that place. */
function recordLine(record: number, headerWidth: number, dataWidth: number): string {
  const label = `-[ RECORD ${record} ]`;
  const rule = `${'-'.repeat(headerWidth + 1)}+${'-'.repeat(dataWidth + 1)}`;
  return label + rule.slice(label.length);
}

function* fieldLines(
  header: readonly DisplayLine[],
  headerWidth: number,
  data: readonly DisplayLine[],
  dataWidth: number,
): Generator<string> {
  for (let index = 0; index < Math.max(header.length, data.length); index++) {
    const name = header[index];
    const value = data[index];
    let text = name
      ? name.text + ' '.repeat(headerWidth - name.width) + (index + 1 < header.length ? '+' : ' ')
      : ' '.repeat(headerWidth + 1);
    text += '|';
    if (value) {
      text += ` ${value.text}`;
      if (index + 1 < data.length) text += `${' '.repeat(dataWidth - value.width)}+`;
    }
    yield text;
  }
}
