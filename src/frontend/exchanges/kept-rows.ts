// Rows of a portal that is executed in portions, kept here because those who send them cannot wait. Invariant: no more than BYTES_MAX.
import { PgkvError } from '../../base/errors.js';

const BYTES_MAX = 16 * 1024 * 1024;

export class KeptRows {
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** All of them, once the first are taken; those before `#at` are gone. */
  #all: Buffer | null = null;
  #at = 0;
  isUsed = false;

  /** @param rows whole DataRow messages. @throws PgkvError 54000 */
  keep(rows: Buffer): true {
    this.isUsed = true;
    this.#chunks.push(rows);
    this.#bytes += rows.length;
    if (this.#bytes <= BYTES_MAX) return true;
    throw new PgkvError('limit_exceeded', {
      message: `a limit of pgkv was exceeded: a portal that reads several shards of its transaction has more than ${BYTES_MAX} bytes`,
      hint: 'Execute it without a limit of rows, or have it return less.',
    });
  }

  take(rowsMax: number): { readonly bytes: Buffer; readonly count: number } {
    this.isUsed = true;
    this.#all ??= Buffer.concat(this.#chunks);
    this.#chunks = [];
    const start = this.#at;
    let count = 0;
    while (count < rowsMax && this.#at < this.#all.length) {
      this.#at += 1 + this.#all.readInt32BE(this.#at + 1);
      count++;
    }
    return { bytes: this.#all.subarray(start, this.#at), count };
  }
}
