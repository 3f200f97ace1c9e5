// Which rows of a scattered read go to the client, in which order and when: merged by their sort keys, or in runs as they
// come, the shards taking turns; without those skipped, up to the limit, as many as the client has asked for, and only while
// it takes them. Knows of shards nothing but their queues of rows.
import type { RowMerge, SortedRows } from './row-merge.js';
import { RowOutput } from './row-output.js';
import type { ScatterClient, ScatterRequest } from './scatter-request.js';

/** The limit is reached; there are no rows for now; the client wants or takes no more of them. */
export type Delivered = 'all' | 'dry' | 'held';

export class RowDelivery {
  /** The client takes no more for now. */
  blocked = false;
  /** As many rows as were asked for have been sent. */
  suspended = false;
  /** Rows sent since they were last asked for. */
  sent = 0;
  readonly #client: ScatterClient;
  readonly #output = new RowOutput();
  #sources: readonly SortedRows[] = [];
  /** By sort keys; null: rows go out as they come. */
  #merge: RowMerge | null = null;
  /** How many of the last columns are sort keys. */
  #hidden = 0;
  #nextSource = 0;
  /** Rows of the whole answer still to be skipped and to be sent. */
  #skip: number;
  #remaining: number;
  /** Rows asked for that were not sent yet. */
  #wanted = Number.POSITIVE_INFINITY;
  #ended = false;

  constructor(client: ScatterClient, { offset, limit }: Pick<ScatterRequest, 'offset' | 'limit'>) {
    this.#client = client;
    // Beyond 2^53 rows none are left either way. Negative numbers are refused by the shards, in Postgres's words.
    this.#skip = Math.max(Number(offset), 0);
    this.#remaining = limit === null || limit < 0n ? Number.POSITIVE_INFINITY : Number(limit);
  }

  /** @param rowsMax rows after which `suspended` is called; 0: never */
  ask(rowsMax: number): void {
    this.#wanted = rowsMax === 0 ? Number.POSITIVE_INFINITY : rowsMax;
    this.sent = 0;
    this.suspended = false;
  }

  /** The client takes rows again. */
  resume(): void {
    this.blocked = false;
  }

  /** Once, before the first `deliver`. */
  take(sources: readonly SortedRows[], merge: RowMerge | null, hidden: number): void {
    this.#sources = sources;
    this.#merge = merge;
    this.#hidden = hidden;
  }

  /** No more rows go out. */
  end(): void {
    this.#ended = true;
  }

  /** Passes on what rows there are, as far as the client wants and takes them. */
  deliver(): Delivered {
    while (!this.blocked && !this.suspended && !this.#ended) {
      // Before the limit: a portal that was run for n rows and gave n is suspended, even if there are no more.
      if (this.#wanted === 0) {
        this.suspended = true;
        if (this.#flush()) this.#client.suspended();
        else this.suspended = false;
      } else if (this.#remaining === 0) {
        this.#flush();
        return 'all';
      } else if (!(this.#merge === null ? this.#passOn() : this.#mergeNext(this.#merge))) {
        this.#flush();
        return 'dry';
      }
    }
    return 'held';
  }

  /** Passes on a run of rows of some shard. False: there are none. */
  #passOn(): boolean {
    const sources = this.#sources;
    for (let tried = 0; tried < sources.length; tried++) {
      const source = sources[this.#nextSource]!;
      this.#nextSource = (this.#nextSource + 1) % sources.length;
      if (source.rows.empty) continue;
      if (this.#skip > 0) this.#skip -= source.rows.take(this.#skip).rows;
      else {
        const run = source.rows.take(Math.min(this.#remaining, this.#wanted));
        this.#count(run.rows);
        this.#emit(run.buffer.subarray(run.start, run.end));
      }
      source.taken();
      return true;
    }
    return false;
  }

  #mergeNext(merge: RowMerge): boolean {
    const row = merge.first();
    if (row === null) return false;
    if (this.#skip > 0) this.#skip--;
    else {
      const { buffer, start, visibleEnd } = row;
      // Rows taken so far go first; where the client takes no more, this one waits its turn.
      if (!this.#output.fits(visibleEnd - start) && !this.#flush()) return true;
      this.#output.append(buffer, start, visibleEnd, this.#hidden);
      this.#count(1);
    }
    merge.drop();
    return true;
  }

  #count(rows: number): void {
    this.sent += rows;
    this.#remaining -= rows;
    this.#wanted -= rows;
  }

  #emit(bytes: Buffer): void {
    if (!this.#client.rows(bytes)) this.blocked = true;
  }

  /** Sends the merged rows gathered. False: the client takes no more, or has ended the run. */
  #flush(): boolean {
    if (!this.#output.empty) this.#emit(this.#output.take());
    return !this.blocked && !this.#ended;
  }
}
