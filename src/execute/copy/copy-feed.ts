// The rows of a COPY … FROM STDIN that go to one shard, as CopyData, each with its slot in front where the client gives none, so
// that no trigger has to compute it. It remembers from which line of the client's data each row of late comes, since servers
// count those they get. Invariant: what is gathered is at most `CHUNK_BYTES` and a row.
import type { RowLines } from '../../wire/copy-lines.js';
import { Frontend } from '../../wire/protocol.js';

/** Rows go out in messages of about so many bytes. */
const CHUNK_BYTES = 64 * 1024;
const FRAME_BYTES = 5;
/** Rows that are remembered; 2 MiB. A server is behind by what buffers hold: more rows only where they have less than 30 bytes. */
const REMEMBERED = 128 * 1024;

/** In a line of names. */
export const SLOT_NAME = 'slot';

/** What stands in front of each row. */
export type SlotForm =
  | { readonly kind: 'none' }
  | { readonly kind: 'text'; readonly delimiter: number; readonly none: Buffer }
  | { readonly kind: 'binary' };

export class CopyFeed {
  readonly #form: SlotForm;
  readonly #send: (bytes: Buffer) => void;
  #buffer: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Of each row of late the line that it ends in, of what this shard gets and of the client's. */
  #ownLines = new Uint32Array(0);
  #lines = new Uint32Array(0);
  #rows = 0;
  #ownLine = 0;
  #isFirst = true;

  /** @param send CopyData messages; they are the caller's from then on */
  constructor(form: SlotForm, send: (bytes: Buffer) => void) {
    this.#form = form;
    this.#send = send;
  }

  /** Text that stands in front of all rows, as it is: the header of the binary format, or a line of names behind `slot`. */
  header(bytes: Buffer, start: number, end: number, lines: RowLines): void {
    const form = this.#form;
    this.#room(end - start + 5);
    if (form.kind === 'text') {
      this.#at += this.#buffer.write(SLOT_NAME, this.#at, 'latin1');
      this.#buffer[this.#at++] = form.delimiter;
    }
    this.#copy(bytes, start, end);
    this.#count(lines);
    // The binary format has none, and its header is not told of by a line.
    if (lines.count > 0) this.#remember(lines.last);
  }

  /**
   * @param slot null: the server is to say what is wrong with the row, or to compute it
   */
  row(bytes: Buffer, start: number, end: number, slot: number | null, lines: RowLines): void {
    const form = this.#form;
    this.#room(end - start + 10 + (form.kind === 'text' ? form.none.length : 0));
    switch (form.kind) {
      case 'text':
        if (slot === null) this.#copy(form.none, 0, form.none.length);
        else this.#at += this.#buffer.write(String(slot), this.#at, 'latin1');
        this.#buffer[this.#at++] = form.delimiter;
        this.#copy(bytes, start, end);
        break;
      case 'binary':
        this.#at = this.#buffer.writeInt16BE(bytes.readInt16BE(start) + 1, this.#at);
        this.#at = this.#buffer.writeInt32BE(slot === null ? -1 : 4, this.#at);
        if (slot !== null) this.#at = this.#buffer.writeInt32BE(slot, this.#at);
        this.#copy(bytes, start + 2, end);
        break;
      case 'none':
        this.#copy(bytes, start, end);
    }
    this.#count(lines);
    this.#remember(lines.last);
    if (this.#at >= CHUNK_BYTES) this.flush();
  }

  flush(): void {
    if (this.#at <= FRAME_BYTES) return;
    const message = this.#buffer.subarray(0, this.#at);
    message[0] = Frontend.copyData;
    message.writeInt32BE(this.#at - 1, 1);
    this.#buffer = Buffer.alloc(0);
    this.#at = 0;
    this.#send(message);
  }

  /** The line of the client's data that is line `own` of what this shard got; null: it is not remembered. */
  lineOf(own: number): number | null {
    const oldest = Math.max(0, this.#rows - REMEMBERED);
    for (let row = this.#rows - 1; row >= oldest; row--) {
      const found = this.#ownLines[row % REMEMBERED]!;
      if (found === own) return this.#lines[row % REMEMBERED]!;
      if (found < own) break;
    }
    return null;
  }

  #count({ count, countAsFirst }: RowLines): void {
    this.#ownLine += this.#isFirst ? countAsFirst : count;
    this.#isFirst = false;
  }

  #remember(line: number): void {
    const { length } = this.#lines;
    if (this.#rows >= length && length < REMEMBERED) {
      const larger = Math.min(REMEMBERED, Math.max(1024, 4 * length));
      for (const name of ['own', 'client'] as const) {
        const grown = new Uint32Array(larger);
        grown.set(name === 'own' ? this.#ownLines : this.#lines);
        if (name === 'own') this.#ownLines = grown;
        else this.#lines = grown;
      }
    }
    const at = this.#rows++ % REMEMBERED;
    this.#ownLines[at] = this.#ownLine;
    this.#lines[at] = line;
  }

  #room(bytes: number): void {
    if (this.#at === 0) this.#at = FRAME_BYTES;
    const wanted = this.#at + bytes;
    if (wanted <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(wanted, CHUNK_BYTES + CHUNK_BYTES / 4));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }

  #copy(bytes: Buffer, start: number, end: number): void {
    this.#at += bytes.copy(this.#buffer, this.#at, start, end);
  }
}
