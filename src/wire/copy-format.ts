// Rows as COPY … TO STDOUT writes them: DataRow messages to CopyData, in Postgres's text, CSV and binary formats. Values are
// taken as servers send them: COPY uses the same output functions as a result in text, and in binary the same bytes.
// https://www.postgresql.org/docs/current/sql-copy.html, "File Formats"; src/backend/commands/copyto.c
import { encodeErrorResponse } from './error-fields.js';
import { Backend } from './protocol.js';
import { readColumns } from './row-description.js';

/** Options of COPY TO; what is not said has Postgres's default. */
export type CopyFormat =
  | { readonly kind: 'text'; readonly delimiter: string; readonly none: string; readonly header: boolean }
  | {
      readonly kind: 'csv';
      readonly delimiter: string;
      /** What stands for NULL. */
      readonly none: string;
      readonly header: boolean;
      readonly quote: string;
      readonly escape: string;
      /** Columns whose values are always quoted. */
      readonly forceQuote: 'all' | readonly string[];
    }
  | { readonly kind: 'binary' };

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const BACKSLASH = 0x5c;
const DOT = 0x2e;
/** Signature, flags, length of the header's extension. */
const BINARY_HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1');
const BINARY_END = Buffer.from([0xff, 0xff]);
const COPY_DONE = Buffer.from([Backend.copyDone, 0, 0, 0, 4]);
export const FRAME_BYTES = 5;
/** Room for the first rows of a chunk. */
const SPARE_BYTES = 1024;

/** By the letter behind the backslash: \b \t \n \v \f \r. */
const CONTROLS = new Map([...'btnvfr'].map((letter, index) => [8 + index, letter.charCodeAt(0)]));

function messageOf(type: number, ...body: readonly Uint8Array[]): Buffer {
  const length = body.reduce((sum, { length }) => sum + length, 0);
  const head = Buffer.allocUnsafe(FRAME_BYTES);
  head[0] = type;
  head.writeInt32BE(length + 4, 1);
  return Buffer.concat([head, ...body]);
}

/** In the client's encoding. */
const namesOf = (rowDescription: Buffer): Buffer[] =>
  readColumns(rowDescription).map(({ name }) => Buffer.from(name, 'latin1'));

export class CopyWriter {
  readonly #format: CopyFormat;
  readonly #bytesOf: (text: string) => Buffer;
  readonly #delimiter: number;
  readonly #none: Buffer;
  readonly #quote: number;
  readonly #escape: number;
  /** In text: what stands behind a backslash for a byte, 0: the byte stands for itself. In CSV: 1 where a byte makes quotes necessary. */
  readonly #marks = new Uint8Array(256);
  #columns = 0;
  #forced: boolean[] = [];
  #isBegun = false;
  #rows = 0;
  #out: Buffer = Buffer.alloc(0);
  #at = 0;

  /** @param bytesOf a text in the client's encoding, in which bytes below 128 are always ASCII */
  constructor(format: CopyFormat, bytesOf: (text: string) => Buffer) {
    this.#format = format;
    this.#bytesOf = bytesOf;
    const { kind } = format;
    this.#none = kind === 'binary' ? Buffer.alloc(0) : bytesOf(format.none);
    this.#delimiter = kind === 'binary' ? 0 : format.delimiter.charCodeAt(0);
    this.#quote = kind === 'csv' ? format.quote.charCodeAt(0) : 0;
    this.#escape = kind === 'csv' ? format.escape.charCodeAt(0) : 0;
    if (kind === 'text') {
      this.#marks[this.#delimiter] = this.#delimiter;
      this.#marks[BACKSLASH] = BACKSLASH;
      for (const [byte, letter] of CONTROLS) this.#marks[byte] = letter;
    } else if (kind === 'csv') {
      for (const byte of [this.#delimiter, this.#quote, NEWLINE, CARRIAGE_RETURN]) this.#marks[byte] = 1;
    }
  }

  /** What `resultFormats` of the rows have to be. */
  get resultFormats(): readonly number[] {
    return this.#format.kind === 'binary' ? [1] : [];
  }

  /** The error that COPY answers where an option names a column that is not there. */
  fault(rowDescription: Buffer): Buffer | null {
    const format = this.#format;
    if (format.kind !== 'csv' || format.forceQuote === 'all') return null;
    const names = namesOf(rowDescription);
    const missing = format.forceQuote.find((name) => !names.some((one) => one.equals(this.#bytesOf(name))));
    if (missing === undefined) return null;
    return encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '42703', M: `column "${missing}" does not exist` });
  }

  /** CopyOutResponse and, where it is wanted, the line of names. */
  begin(rowDescription: Buffer): Buffer {
    const format = this.#format;
    const names = namesOf(rowDescription);
    this.#columns = names.length;
    if (format.kind === 'csv' && format.forceQuote !== 'all') {
      // Of columns with the same name Postgres means the first.
      const forced = format.forceQuote.map((name) => names.findIndex((one) => one.equals(this.#bytesOf(name))));
      this.#forced = names.map((_, column) => forced.includes(column));
    } else this.#forced = names.map(() => format.kind === 'csv');
    const body = Buffer.alloc(3 + 2 * names.length);
    const isBinary = format.kind === 'binary' ? 1 : 0;
    body[0] = isBinary;
    body.writeUInt16BE(names.length, 1);
    for (let column = 0; column < names.length; column++) body.writeUInt16BE(isBinary, 3 + 2 * column);
    const response = messageOf(Backend.copyOutResponse, body);
    if (format.kind === 'binary' || !format.header) return response;
    this.#start(2 * rowDescription.length + SPARE_BYTES);
    this.#lineOf(names);
    return Buffer.concat([response, this.#taken()]);
  }

  /** Whole DataRow messages, which may be changed, as CopyData. */
  rows(bytes: Buffer): Buffer {
    if (this.#format.kind === 'binary') return this.#binary(bytes);
    this.#start(bytes.length + SPARE_BYTES);
    for (let at = 0; at < bytes.length; ) {
      const end = at + 1 + bytes.readInt32BE(at + 1);
      this.#row(bytes, at + 5);
      this.#rows++;
      at = end;
    }
    return this.#taken();
  }

  /** So many have been written. */
  get rowsWritten(): number {
    return this.#rows;
  }

  /** Behind the last row. */
  end(): Buffer {
    if (this.#format.kind !== 'binary') return COPY_DONE;
    const header = this.#isBegun ? [] : [BINARY_HEADER];
    return Buffer.concat([messageOf(Backend.copyData, ...header, BINARY_END), COPY_DONE]);
  }

  /** A row in COPY's binary format is the body of its DataRow; the first has the header in front. */
  #binary(bytes: Buffer): Buffer {
    for (let at = 0; at < bytes.length; at += 1 + bytes.readInt32BE(at + 1)) {
      bytes[at] = Backend.copyData;
      this.#rows++;
    }
    if (this.#isBegun || bytes.length === 0) return bytes;
    this.#isBegun = true;
    const first = 1 + bytes.readInt32BE(1);
    return Buffer.concat([
      messageOf(Backend.copyData, BINARY_HEADER, bytes.subarray(FRAME_BYTES, first)),
      bytes.subarray(first),
    ]);
  }

  #start(room: number): void {
    this.#out = Buffer.allocUnsafeSlow(room);
    this.#at = 0;
  }

  #taken(): Buffer {
    return this.#out.subarray(0, this.#at);
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#out.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#at + bytes, this.#out.length + (this.#out.length >> 1)));
    this.#out.copy(larger, 0, 0, this.#at);
    this.#out = larger;
  }

  /** @param start behind the frame of the DataRow */
  #row(row: Buffer, start: number): void {
    const frame = this.#frame();
    let at = start + 2;
    for (let column = 0; column < this.#columns; column++) {
      const length = row.readInt32BE(at);
      at += 4;
      if (column > 0) this.#separate();
      if (length < 0) this.#write(this.#none, 0, this.#none.length);
      else {
        this.#value(row, at, at + length, this.#forced[column]!);
        at += length;
      }
    }
    this.#endFrame(frame);
  }

  #lineOf(names: readonly Buffer[]): void {
    const frame = this.#frame();
    for (const [column, name] of names.entries()) {
      if (column > 0) this.#separate();
      this.#value(name, 0, name.length, false);
    }
    this.#endFrame(frame);
  }

  #frame(): number {
    const start = this.#at;
    this.#room(FRAME_BYTES + 1);
    this.#at += FRAME_BYTES;
    return start;
  }

  #endFrame(start: number): void {
    this.#room(1);
    this.#out[this.#at++] = NEWLINE;
    this.#out[start] = Backend.copyData;
    this.#out.writeInt32BE(this.#at - start - 1, start + 1);
  }

  #separate(): void {
    this.#room(1);
    this.#out[this.#at++] = this.#delimiter;
  }

  #value(from: Buffer, start: number, end: number, isForced: boolean): void {
    if (this.#format.kind === 'text') this.#escaped(from, start, end);
    else if (isForced || this.#needsQuotes(from, start, end)) this.#quoted(from, start, end);
    else this.#write(from, start, end);
  }

  #write(from: Buffer, start: number, end: number): void {
    this.#room(end - start);
    this.#at += from.copy(this.#out, this.#at, start, end);
  }

  #escaped(from: Buffer, start: number, end: number): void {
    const marks = this.#marks;
    let marked = 0;
    for (let at = start; at < end; at++) if (marks[from[at]!] !== 0) marked++;
    if (marked === 0) return this.#write(from, start, end);
    this.#room(end - start + marked);
    const out = this.#out;
    let to = this.#at;
    for (let at = start; at < end; at++) {
      const byte = from[at]!;
      const mark = marks[byte]!;
      if (mark !== 0) out[to++] = BACKSLASH;
      out[to++] = mark === 0 ? byte : mark;
    }
    this.#at = to;
  }

  #needsQuotes(from: Buffer, start: number, end: number): boolean {
    const none = this.#none;
    if (end - start === none.length && from.compare(none, 0, none.length, start, end) === 0) return true;
    // Alone on a line it would end the data.
    const isEnd = this.#columns === 1 && end - start === 2 && from[start] === BACKSLASH && from[start + 1] === DOT;
    if (isEnd) return true;
    const marks = this.#marks;
    for (let at = start; at < end; at++) if (marks[from[at]!] !== 0) return true;
    return false;
  }

  #quoted(from: Buffer, start: number, end: number): void {
    const quote = this.#quote;
    const escaper = this.#escape;
    let marked = 0;
    for (let at = start; at < end; at++) if (from[at] === quote || from[at] === escaper) marked++;
    this.#room(end - start + marked + 2);
    const out = this.#out;
    let to = this.#at;
    out[to++] = quote;
    for (let at = start; at < end; at++) {
      const byte = from[at]!;
      if (byte === quote || byte === escaper) out[to++] = escaper;
      out[to++] = byte;
    }
    out[to++] = quote;
    this.#at = to;
  }
}
