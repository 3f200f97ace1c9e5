// Options of COPY, read as Postgres does. Null where one is unknown, or is refused by Postgres.
// https://www.postgresql.org/docs/current/sql-copy.html; src/backend/commands/copy.c, ProcessCopyOptions
import type { DefElem, Node } from 'libpg-query';
import type { CopyFormat } from '../../wire/copy-format.js';
import { quoteName } from '../text/identifiers.js';
import { quoteLiteral } from '../text/quote-literal.js';

/** By which no column may be separated in text format: what stands behind a backslash. */
const NO_DELIMITER = /^[\\.a-z0-9]$/;
const LINE_END = /[\r\n]/;
const KNOWN: ReadonlySet<string> = new Set(['format', 'delimiter', 'null', 'header', 'quote', 'escape', 'force_quote']);

export function copyFormat(options: readonly Node[]): CopyFormat | null {
  const given = new Map<string, Node | undefined>();
  for (const node of options) {
    if (!('DefElem' in node)) return null;
    const { defname = '', arg } = node.DefElem as DefElem;
    if (!KNOWN.has(defname) || given.has(defname)) return null;
    given.set(defname, arg);
  }
  const format = given.has('format') ? stringOf(given.get('format')) : 'text';
  const header = given.has('header') ? truthOf(given.get('header')) : false;
  if (header === null) return null;
  if (format === 'binary') return given.size === 1 ? { kind: 'binary' } : null;
  if (format !== 'text' && format !== 'csv') return null;
  const isCsv = format === 'csv';
  if (!isCsv && ['quote', 'escape', 'force_quote'].some((name) => given.has(name))) return null;
  const text = (name: string, usual: string): string | null => (given.has(name) ? stringOf(given.get(name)) : usual);
  const delimiter = text('delimiter', isCsv ? ',' : '\t');
  const none = text('null', isCsv ? '' : '\\N');
  if (delimiter === null || none === null || !isOneByte(delimiter)) return null;
  if (LINE_END.test(delimiter) || LINE_END.test(none) || none.includes(delimiter)) return null;
  if (!isCsv) return NO_DELIMITER.test(delimiter) ? null : { kind: 'text', delimiter, none, header };
  const quote = text('quote', '"');
  const escaper = text('escape', quote ?? '');
  const forceQuote = given.has('force_quote') ? columnsOf(given.get('force_quote')) : [];
  if (quote === null || escaper === null || forceQuote === null) return null;
  if (!isOneByte(quote) || !isOneByte(escaper)) return null;
  if (quote === delimiter || none.includes(quote) || LINE_END.test(quote)) return null;
  return { kind: 'csv', delimiter, none, header, quote, escape: escaper, forceQuote };
}

/** The options of a format, as a list in brackets. */
export function optionsText(format: CopyFormat): string {
  if (format.kind === 'binary') return '(FORMAT binary)';
  const options = [`FORMAT ${format.kind}`, `HEADER ${format.header}`];
  options.push(`DELIMITER ${quoteLiteral(format.delimiter)}`, `NULL ${quoteLiteral(format.none)}`);
  if (format.kind === 'csv') {
    options.push(`QUOTE ${quoteLiteral(format.quote)}`, `ESCAPE ${quoteLiteral(format.escape)}`);
    const { forceQuote } = format;
    if (forceQuote === 'all') options.push('FORCE_QUOTE *');
    else if (forceQuote.length > 0) options.push(`FORCE_QUOTE (${forceQuote.map(quoteName).join(', ')})`);
  }
  return `(${options.join(', ')})`;
}

/** In every encoding. */
const isOneByte = (text: string): boolean => text.length === 1 && text.charCodeAt(0) < 128;

export function stringOf(node: Node | undefined): string | null {
  return node !== undefined && 'String' in node ? (node.String.sval ?? '') : null;
}

/** As defGetBoolean reads it; HEADER MATCH is for COPY FROM. */
export function truthOf(node: Node | undefined): boolean | null {
  if (node === undefined) return true;
  if ('Boolean' in node) return node.Boolean.boolval === true;
  if ('Integer' in node) {
    const { ival = 0 } = node.Integer;
    return ival === 0 || ival === 1 ? ival === 1 : null;
  }
  const word = stringOf(node)?.toLowerCase();
  if (word === 'true' || word === 'on') return true;
  return word === 'false' || word === 'off' ? false : null;
}

export function columnsOf(node: Node | undefined): 'all' | string[] | null {
  if (node === undefined) return null;
  if ('A_Star' in node) return 'all';
  if (!('List' in node)) return null;
  const names = (node.List.items ?? []).map(stringOf);
  return names.includes(null) || new Set(names).size < names.length ? null : (names as string[]);
}
