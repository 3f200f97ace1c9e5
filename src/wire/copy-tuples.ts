// The data of COPY … FROM STDIN in Postgres's binary format, cut into rows, and two fields of each read; see copy-lines.ts.
// https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"; src/backend/commands/copyfromparse.c
import { PgkvError } from '../base/errors.js';
import { ByteBacklog } from './byte-backlog.js';
import { CopyDataError } from './copy-data-error.js';
import type { CopyCutter, CopyField, CopyRowTaker } from './copy-lines.js';

/** Signature, flags, length of what follows of the header. */
const HEADER_BYTES = 19;
const FLAGS_BYTES = 4;
const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
const COUNT_BYTES = 2;
const LENGTH_BYTES = 4;
const EXTENSION_AT = 15;
const TRAILER = -1;

/** `whole`: that of a row is at hand. */
type Found =
  | { readonly kind: 'more' }
  | { readonly kind: 'trailer' }
  | { readonly kind: 'whole'; readonly end: number };

const MORE: Found = { kind: 'more' };
const END: Found = { kind: 'trailer' };

export class CopyTuples implements CopyCutter {
  readonly #columns: number;
  readonly #fields: readonly CopyField[];
  readonly #rowBytesMax: number;
  readonly #taker: CopyRowTaker;
  readonly #backlog = new ByteBacklog();
  /** Not before so many bytes is there anything whole. */
  #wanted = HEADER_BYTES;
  #at = 0;
  #hasHeader = false;
  #isOver = false;
  #row = 0;

  constructor(columns: number, fields: readonly CopyField[], rowBytesMax: number, taker: CopyRowTaker) {
    this.#columns = columns;
    this.#fields = fields;
    this.#rowBytesMax = rowBytesMax;
    this.#taker = taker;
  }

  get line(): number {
    return this.#row + 1;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    if (this.#isOver) throw new CopyDataError('received copy data after EOF marker', this.#row + 1);
    const backlog = this.#backlog;
    backlog.push(chunk);
    if (backlog.end < this.#wanted) return void backlog.keep();
    this.#at = 0;
    this.#cut();
    backlog.start = this.#at;
    const isMore = backlog.start < backlog.end;
    if (this.#isOver && isMore) throw new CopyDataError('received copy data after EOF marker', this.#row + 1);
    backlog.keep();
    if (this.#wanted > this.#rowBytesMax) throw this.#tooLong();
  }

  /** What is not whole is told as Postgres does. */
  finish(): void {
    if (!this.#hasHeader) {
      const bytes = this.#left;
      const isOne = bytes.length >= SIGNATURE.length && bytes.subarray(0, SIGNATURE.length).equals(SIGNATURE);
      const missing = bytes.length < SIGNATURE.length + FLAGS_BYTES ? 'flags' : 'length';
      throw new CopyDataError(
        isOne ? `invalid COPY file header (missing ${missing})` : 'COPY file signature not recognized',
        0,
      );
    }
    // Half a count is as good as none to Postgres.
    const isWhole = this.#isOver || this.#left.length < COUNT_BYTES;
    this.#isOver = true;
    if (isWhole) return;
    // A server says which column it ends in.
    const bytes = this.#left;
    const lines = { last: this.#row + 1, count: 1, countAsFirst: 1 };
    this.#taker.row(
      bytes,
      0,
      bytes.length,
      lines,
      this.#fields.map(() => null),
    );
  }

  get #left(): Buffer {
    const { bytes, start, end } = this.#backlog;
    return bytes.subarray(start, end);
  }

  get #bytes(): Buffer {
    const { bytes, end } = this.#backlog;
    return bytes.subarray(0, end);
  }

  #cut(): void {
    if (!this.#hasHeader && !this.#header()) return;
    for (;;) {
      const found = this.#find();
      if (found.kind === 'more') return;
      if (found.kind === 'trailer') {
        this.#isOver = true;
        return;
      }
      this.#row++;
      const start = this.#at;
      this.#at = found.end;
      const lines = { last: this.#row, count: 1, countAsFirst: 1 };
      this.#taker.row(this.#bytes, start, found.end, lines, this.#valuesOf(start));
    }
  }

  #header(): boolean {
    const bytes = this.#bytes;
    if (!bytes.subarray(0, SIGNATURE.length).equals(SIGNATURE)) {
      throw new CopyDataError('COPY file signature not recognized', 0);
    }
    const extension = bytes.readInt32BE(EXTENSION_AT);
    if (extension < 0) throw new CopyDataError('invalid COPY file header (missing length)', 0);
    this.#wanted = HEADER_BYTES + extension;
    if (bytes.length < this.#wanted) return false;
    this.#hasHeader = true;
    this.#at = this.#wanted;
    // Flags that a server does not know are refused by each.
    this.#taker.header(bytes, 0, this.#at, { last: 0, count: 0, countAsFirst: 0 });
    return true;
  }

  #find(): Found {
    const bytes = this.#bytes;
    const start = this.#at;
    let at = start;
    const lacks = (count: number): boolean => {
      this.#wanted = at - start + count;
      return bytes.length - at < count;
    };
    if (lacks(COUNT_BYTES)) return MORE;
    const columns = bytes.readInt16BE(at);
    at += COUNT_BYTES;
    if (columns === TRAILER) {
      this.#at = at;
      return END;
    }
    if (columns !== this.#columns) {
      throw new CopyDataError(`row field count is ${columns}, expected ${this.#columns}`, this.#row + 1);
    }
    for (let column = 0; column < columns; column++) {
      if (lacks(LENGTH_BYTES)) return MORE;
      const length = bytes.readInt32BE(at);
      at += LENGTH_BYTES;
      if (length < -1) throw new CopyDataError('invalid field size', this.#row + 1);
      if (length <= 0) continue;
      if (lacks(length)) return MORE;
      at += length;
    }
    this.#wanted = COUNT_BYTES;
    return { kind: 'whole', end: at };
  }

  #valuesOf(start: number): (Buffer | null)[] {
    const bytes = this.#bytes;
    const found: (Buffer | null)[] = this.#fields.map(() => null);
    let at = start + COUNT_BYTES;
    for (let column = 0; column < this.#columns; column++) {
      const length = bytes.readInt32BE(at);
      at += LENGTH_BYTES;
      const wanted = this.#fields.findIndex(({ index }) => index === column);
      if (wanted >= 0 && length >= 0) found[wanted] = bytes.subarray(at, at + length);
      at += Math.max(0, length);
    }
    return found;
  }

  #tooLong(): PgkvError {
    return new PgkvError('limit_exceeded', {
      message: `a limit of pgkv was exceeded: a row of COPY is longer than ${this.#rowBytesMax} bytes`,
      hint: 'Write such a row with INSERT.',
    });
  }
}
