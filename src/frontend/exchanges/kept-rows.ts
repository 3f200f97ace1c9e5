// Rows of portals that are executed in portions, kept here because those who send them cannot wait. Invariant: no more than BYTES_MAX of all
// portals of a session; what is told, or is a portal's that is gone, is not kept.
import { PgkvError } from '../../base/errors.js';

const BYTES_MAX = 16 * 1024 * 1024;

/** Of one session. */
export class KeptBytes {
  #bytes = 0;

  /** @throws PgkvError 54000, with nothing taken */
  take(bytes: number): void {
    if (this.#bytes + bytes > BYTES_MAX) {
      throw new PgkvError('limit_exceeded', {
        message: `a limit of pgkv was exceeded: rows of portals over several shards that are read in portions have more than ${BYTES_MAX} bytes`,
        hint: 'Execute them without a limit of rows, read each to its end before the next, or have them return less.',
      });
    }
    this.#bytes += bytes;
  }

  free(bytes: number): void {
    this.#bytes -= bytes;
  }
}

export class KeptRows {
  readonly #budget: KeptBytes;
  #chunks: Buffer[] = [];
  /** Taken of the budget. */
  #bytes = 0;
  /** All of them, once the first are taken; those before `#at` are gone. */
  #all: Buffer | null = null;
  #at = 0;
  isUsed = false;

  constructor(budget: KeptBytes) {
    this.#budget = budget;
  }

  /** @param rows whole DataRow messages. @throws PgkvError 54000 */
  keep(rows: Buffer): true {
    this.isUsed = true;
    this.#budget.take(rows.length);
    this.#bytes += rows.length;
    this.#chunks.push(rows);
    return true;
  }

  take(rowsMax: number): { readonly bytes: Buffer; readonly count: number } {
    this.isUsed = true;
    this.#all ??= Buffer.concat(this.#chunks);
    this.#chunks = [];
    const all = this.#all;
    const start = this.#at;
    let count = 0;
    while (count < rowsMax && this.#at < all.length) {
      this.#at += 1 + all.readInt32BE(this.#at + 1);
      count++;
    }
    const bytes = all.subarray(start, this.#at);
    // As long as some are left, all are in memory.
    if (this.#at === all.length) this.drop();
    return { bytes, count };
  }

  /** Its portal is gone, or has been read to its end. */
  drop(): void {
    this.#budget.free(this.#bytes);
    this.#bytes = this.#at = 0;
    this.#chunks = [];
    this.#all = null;
  }
}
