// The data of COPY … FROM STDIN in text and CSV, cut into rows as Postgres cuts it, and two fields of each read: where a row goes
// depends on them. Rows come out as they came in, so that a server reads each again. Bytes below 128 have to be ASCII wherever
// they stand. What Postgres refuses for the whole of the data (line ends of two kinds) is refused here; the rest is the servers'.
// States, by where the last byte that was looked at stands: in a row (in quotes or not), or behind the end of the data (`\.`).
// Invariant: a row is handed out once, when its end has come; what is kept of one is at most `rowBytesMax`.
// src/backend/commands/copyfromparse.c: CopyReadLineText, CopyReadAttributesText, CopyReadAttributesCSV
import { PgkvError } from '../base/errors.js';
import { ByteBacklog } from './byte-backlog.js';
import { CopyDataError } from './copy-data-error.js';
import { escapeEnd, unescaped } from './copy-escapes.js';

export interface CopyLinesFormat {
  readonly kind: 'text' | 'csv';
  /** Bytes, all below 128. */
  readonly delimiter: number;
  readonly quote: number;
  readonly escape: number;
  /** What stands for NULL. */
  readonly none: Buffer;
  readonly hasHeader: boolean;
  /** In CSV `\.` on a line of its own ends the data: before Postgres 18. */
  readonly hasEndMark: boolean;
}

/** Which field, from 0 (-1: none), and whether CSV options let it be NULL as it is written. */
export interface CopyField {
  readonly index: number;
  readonly forceNotNull: boolean;
  readonly forceNull: boolean;
}

/** In which lines a row stands, as servers count them. */
export interface RowLines {
  /** Of the data, from 1: in which the row ends. */
  readonly last: number;
  /** How many it has: in quotes, CSV may have some. */
  readonly count: number;
  /** The same for a server that gets it first, and does not know yet how lines end. */
  readonly countAsFirst: number;
}

/** Gets `bytes[start, end)`, the row's own end of line included; they may be changed behind the call. */
export interface CopyRowTaker {
  row(bytes: Buffer, start: number, end: number, lines: RowLines, fields: readonly (Buffer | null)[]): void;
  /** What goes to all. */
  header(bytes: Buffer, start: number, end: number, lines: RowLines): void;
}

/** What cuts the data of a COPY into rows: CopyLines, CopyTuples. */
export interface CopyCutter {
  /** The line, or row, that is being read. */
  readonly line: number;
  /** Bytes of CopyData. @throws CopyDataError, PgkvError */
  push(chunk: Buffer): void;
  /** CopyDone. @throws CopyDataError */
  finish(): void;
}

const NEWLINE = 10;
const CARRIAGE_RETURN = 13;
const BACKSLASH = 92;
const DOT = 46;

type LineEnd = 'unknown' | 'lf' | 'cr' | 'crlf';

export class CopyLines implements CopyCutter {
  readonly #format: CopyLinesFormat;
  readonly #fields: readonly CopyField[];
  /** How many of them there are. */
  readonly #wanted: number;
  readonly #taker: CopyRowTaker;
  readonly #rowBytesMax: number;
  readonly #isCsv: boolean;
  /** Of CSV where it is another one than the quote, else -1. */
  readonly #escape: number;
  /** What has come and is not handed out, looked at up to `#at`. */
  readonly #backlog = new ByteBacklog();
  /** Its bytes up to the end. */
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  #lineEnd: LineEnd = 'unknown';
  #inQuotes = false;
  #lastWasEscape = false;
  #isHeader: boolean;
  #isOver = false;
  /** The number of the line that is being read. */
  #line = 1;
  /** Of the row: the number of its first line, and of \r in its quotes. */
  #firstLine = 1;
  #returns = 0;
  /** Where the next of them stands, at `#at` or behind; -1: not known. */
  #nextBackslash = -1;
  #nextReturn = -1;
  #nextQuote = -1;

  constructor(format: CopyLinesFormat, fields: readonly CopyField[], rowBytesMax: number, taker: CopyRowTaker) {
    this.#format = format;
    this.#fields = fields;
    this.#wanted = fields.filter(({ index }) => index >= 0).length;
    this.#taker = taker;
    this.#rowBytesMax = rowBytesMax;
    this.#isCsv = format.kind === 'csv';
    this.#escape = format.escape === format.quote ? -1 : format.escape;
    this.#isHeader = format.hasHeader;
  }

  get line(): number {
    return this.#line;
  }

  get #rowStart(): number {
    return this.#backlog.start;
  }

  get #end(): number {
    return this.#bytes.length;
  }

  push(chunk: Buffer): void {
    if (this.#isOver) return;
    const backlog = this.#backlog;
    this.#moved(backlog.push(chunk));
    this.#cut(false);
    if (backlog.end - backlog.start > this.#rowBytesMax) throw tooLong(this.#rowBytesMax);
    this.#moved(backlog.keep());
  }

  #moved(by: number): void {
    const { bytes, end } = this.#backlog;
    this.#bytes = bytes.subarray(0, end);
    this.#at -= by;
    this.#nextBackslash = this.#nextReturn = this.#nextQuote = -1;
  }

  /** The last row may have no end of line. */
  finish(): void {
    if (this.#isOver) return;
    this.#cut(true);
    const { start, end } = this.#backlog;
    if (!this.#isOver && start < end) this.#hand(end, end);
    this.#isOver = true;
  }

  /** @param isLast no more bytes come */
  #cut(isLast: boolean): void {
    while (this.#at < this.#end && !this.#isOver) {
      if (this.#at === this.#rowStart && this.#plainRow()) continue;
      if (!this.#step(isLast)) return;
    }
  }

  /** Hands out a row at once that has nothing special in it; false: it has, or is not whole. */
  #plainRow(): boolean {
    if (this.#lineEnd !== 'lf' || this.#inQuotes) return false;
    const bytes = this.#bytes;
    const start = this.#rowStart;
    const newline = this.#find(NEWLINE, start);
    if (newline >= this.#end) return false;
    if (this.#nextReturn < start) this.#nextReturn = this.#find(CARRIAGE_RETURN, start);
    if (this.#nextReturn < newline) return false;
    if (this.#isCsv) {
      if (this.#nextQuote < start) this.#nextQuote = this.#find(this.#format.quote, start);
      if (this.#nextQuote < newline || bytes[start] === BACKSLASH) return false;
    } else {
      if (this.#nextBackslash < start) this.#nextBackslash = this.#find(BACKSLASH, start);
      if (this.#nextBackslash < newline) return false;
    }
    this.#hand(newline, newline + 1);
    return true;
  }

  /** `#end` where there is none. */
  #find(byte: number, from: number): number {
    const found = this.#bytes.indexOf(byte, from);
    return found < 0 ? this.#end : found;
  }

  /** Looks at the next byte; false: more have to come first. */
  #step(isLast: boolean): boolean {
    const bytes = this.#bytes;
    const at = this.#at;
    const byte = bytes[at]!;
    if (this.#isCsv) {
      if (this.#inQuotes && byte === this.#escape) this.#lastWasEscape = !this.#lastWasEscape;
      else {
        if (byte === this.#format.quote && !this.#lastWasEscape) this.#inQuotes = !this.#inQuotes;
        this.#lastWasEscape = false;
      }
      if (this.#inQuotes) {
        if (byte === CARRIAGE_RETURN) this.#returns++;
        // Postgres cannot know better, either.
        if (byte === (this.#lineEnd === 'lf' ? NEWLINE : CARRIAGE_RETURN)) this.#line++;
        this.#at++;
        return true;
      }
    }
    if (byte === CARRIAGE_RETURN) return this.#carriageReturn(isLast);
    if (byte === NEWLINE) {
      if (this.#lineEnd === 'cr' || this.#lineEnd === 'crlf') throw this.#otherLineEnd('newline', '\\n');
      this.#lineEnd = 'lf';
      this.#hand(at, at + 1);
      return true;
    }
    if (byte === BACKSLASH && (!this.#isCsv || at === this.#rowStart)) return this.#backslash(isLast);
    this.#at++;
    return true;
  }

  #carriageReturn(isLast: boolean): boolean {
    const at = this.#at;
    if (this.#lineEnd === 'lf') throw this.#otherLineEnd('carriage return', '\\r');
    // In CSV Postgres looks at what follows in any case: the row is not there before that.
    if (this.#isCsv && at + 1 >= this.#end && !isLast) return false;
    if (this.#lineEnd === 'cr') {
      this.#hand(at, at + 1);
      return true;
    }
    if (at + 1 >= this.#end && !isLast) return false;
    const isPair = at + 1 < this.#end && this.#bytes[at + 1] === NEWLINE;
    if (!isPair && this.#lineEnd === 'crlf') throw this.#otherLineEnd('carriage return', '\\r');
    this.#lineEnd = isPair ? 'crlf' : 'cr';
    this.#hand(at, at + (isPair ? 2 : 1));
    return true;
  }

  #backslash(isLast: boolean): boolean {
    const bytes = this.#bytes;
    const at = this.#at;
    if (at + 1 >= this.#end) {
      if (isLast) this.#at++;
      return isLast;
    }
    if (bytes[at + 1] !== DOT) {
      // Outside of CSV it takes the next byte along, whatever that is.
      this.#at += this.#isCsv ? 1 : 2;
      return true;
    }
    if (this.#isCsv && !this.#format.hasEndMark) {
      this.#at++;
      return true;
    }
    const lengthOfEnd = this.#lineEnd === 'crlf' ? 2 : 1;
    if (at + 2 + lengthOfEnd > this.#end && !isLast) return false;
    if (this.#isCsv && !this.#endsLine(at + 2)) {
      this.#at++;
      return true;
    }
    this.#isOver = true;
    // In front of the mark, or where it is none, the server says what it thinks of it.
    if (at > this.#rowStart || !this.#endsLine(at + 2)) this.#hand(at, Math.min(this.#end, at + 2 + lengthOfEnd));
    return true;
  }

  #endsLine(at: number): boolean {
    const byte = this.#bytes[at];
    if (at >= this.#end) return false;
    if (this.#lineEnd === 'crlf')
      return byte === CARRIAGE_RETURN && at + 1 < this.#end && this.#bytes[at + 1] === NEWLINE;
    if (this.#lineEnd === 'lf') return byte === NEWLINE;
    if (this.#lineEnd === 'cr') return byte === CARRIAGE_RETURN;
    return byte === NEWLINE || byte === CARRIAGE_RETURN;
  }

  /** The row up to `textEnd`, which ends with its end of line at `end`. */
  #hand(textEnd: number, end: number): void {
    const bytes = this.#bytes;
    const start = this.#rowStart;
    const lines = { last: this.#line, count: this.#line - this.#firstLine + 1, countAsFirst: 1 + this.#returns };
    if (this.#isHeader) {
      this.#isHeader = false;
      this.#taker.header(bytes, start, end, lines);
    } else {
      const fields = this.#isCsv ? this.#csvFields(start, textEnd) : this.#textFields(start, textEnd);
      this.#taker.row(bytes, start, end, lines, fields);
    }
    this.#firstLine = ++this.#line;
    this.#returns = 0;
    this.#backlog.start = this.#at = end;
    this.#inQuotes = this.#lastWasEscape = false;
  }

  /** Those that are asked for; null: NULL, or not there. */
  #textFields(start: number, end: number): (Buffer | null)[] {
    const { delimiter, none } = this.#format;
    const bytes = this.#bytes;
    const found: (Buffer | null)[] = this.#fields.map(() => null);
    let left = this.#wanted;
    let index = 0;
    let fieldStart = start;
    let hasEscapes = false;
    for (let at = start; left > 0; at++) {
      let fieldEnd = Math.min(at, end);
      if (at < end && bytes[at] === BACKSLASH) {
        if (at + 1 < end) {
          hasEscapes = true;
          at = escapeEnd(bytes, at, end) - 1;
          continue;
        }
        // One that nothing follows stands for nothing.
        fieldEnd = at;
        at = end;
      }
      if (at < end && bytes[at] !== delimiter) continue;
      for (let wanted = 0; wanted < this.#fields.length; wanted++) {
        if (this.#fields[wanted]!.index !== index) continue;
        left--;
        const field = bytes.subarray(fieldStart, fieldEnd);
        if (!field.equals(none)) found[wanted] = hasEscapes ? unescaped(field) : field;
      }
      if (at >= end) break;
      index++;
      fieldStart = at + 1;
      hasEscapes = false;
    }
    return found;
  }

  #csvFields(start: number, end: number): (Buffer | null)[] {
    const { delimiter, quote, escape: escaper, none } = this.#format;
    const bytes = this.#bytes;
    const found: (Buffer | null)[] = this.#fields.map(() => null);
    let left = this.#wanted;
    let index = 0;
    for (let at = start; left > 0; at++, index++) {
      const fieldStart = at;
      const wanted = this.#fields.findIndex((field) => field.index === index);
      /** What stands for itself. */
      const parts: Buffer[] = [];
      let partStart = at;
      let sawQuote = false;
      let inQuotes = false;
      const skipSign = (): void => {
        if (wanted >= 0) parts.push(bytes.subarray(partStart, at));
        partStart = at + 1;
      };
      for (; at < end; at++) {
        const byte = bytes[at]!;
        if (!inQuotes) {
          if (byte === delimiter) break;
          if (byte !== quote) continue;
          skipSign();
          sawQuote = inQuotes = true;
        } else if (byte === escaper && at + 1 < end && (bytes[at + 1] === escaper || bytes[at + 1] === quote)) {
          skipSign();
          at++;
        } else if (byte === quote) {
          skipSign();
          inQuotes = false;
        }
      }
      if (wanted >= 0) {
        left--;
        parts.push(bytes.subarray(partStart, at));
        const value = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
        const { forceNotNull, forceNull } = this.#fields[wanted]!;
        const isWritten = !sawQuote && bytes.subarray(fieldStart, at).equals(none);
        const isNull = (isWritten && !forceNotNull) || (forceNull && sawQuote && value.equals(none));
        if (!isNull) found[wanted] = value;
      }
      if (at >= end) break;
    }
    return found;
  }

  #otherLineEnd(what: string, written: string): CopyDataError {
    const hint = this.#isCsv ? `Use quoted CSV field to represent ${what}.` : `Use "${written}" to represent ${what}.`;
    return new CopyDataError(`${this.#isCsv ? 'unquoted' : 'literal'} ${what} found in data`, this.#line, hint);
  }
}

const tooLong = (bytesMax: number): PgkvError =>
  new PgkvError('limit_exceeded', {
    message: `a limit of pgkv was exceeded: a row of COPY is longer than ${bytesMax} bytes`,
    hint: 'Write such a row with INSERT, or leave a quoted field closed.',
  });
