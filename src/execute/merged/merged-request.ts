// One statement on its way through the merged lane (D11): its values, and a sink that hears how it ended. What a sink
// makes of that (messages for a client, the result of an operation) is its own affair. A client has one statement under way at
// a time, so that its request is made once and used again; nothing else is allocated per statement.
// A request is free; `offer` puts it in its queue; it is `sent` when its batch is handed to a socket; then exactly one call
// of its sink makes it free again. One that is `dropped` on its way gets none, and is not used again.
import type { PgkvError } from '../../base/errors.js';
import type { MergedForm } from './merged-form.js';

/** Whoever sent the statement. Exactly one call follows an `offer`, synchronously with what caused it. */
export interface BatchSink {
  /** It was done: `request.rows` rows were found or changed; those that it gives are in `request.answers`. */
  completed(request: MergedRequest): void;
  /** Nothing of it was done: it is to be run by itself, on a lease. */
  rerun(request: MergedRequest): void;
  /** It is not run again: it may have been done (`outcome_unknown`), or no server answers it in time. */
  failed(error: PgkvError, request: MergedRequest): void;
}

/** Where requests for one statement wait (merged-queue.ts). */
export interface RequestQueue {
  /** Takes a request; its sink hears of it later, never from within this call. */
  offer(request: MergedRequest): void;
  /** A member that ran by itself is done with its key. */
  release(request: MergedRequest): void;
  /** The client of one that has left the queue does not want it any more: where it was not sent, its sink is asked to run it. */
  withdraw(request: MergedRequest): void;
  /** Nobody is in it, and nothing of it is under way. */
  readonly isIdle: boolean;
}

export const VALUES_MAX = 16;
const EMPTY = Buffer.alloc(0);

export class MergedRequest {
  readonly sink: BatchSink;
  /** Where it is to wait. */
  queue!: RequestQueue;
  /** What was known of the statement when it was offered: its rows look so. */
  form: MergedForm | null = null;
  /** Holds the values; a view that is not changed while the request is under way. */
  buffer: Buffer = EMPTY;
  /** Holds those from `constantsFrom` on: what stands in the statement's text. */
  constants: Buffer = EMPTY;
  constantsFrom = VALUES_MAX;
  /** Start and length of each value of the statement; length -1: NULL. Values are in text format. */
  readonly offsets = new Int32Array(2 * VALUES_MAX);
  /** Hash slot of its key, or of the first of them. */
  slot = 0;
  /** For statements that write: the key with its table. */
  key = '';
  /** Other batches do not write its key while it runs by itself. */
  holdsKey = false;
  /** Values, in bytes. */
  bytes = 0;
  /** Requests of one group see one snapshot: they go in one batch. */
  group: object | null = null;
  /** By the lane's clock. It is not sent later: whoever has handed it over may have told its client that it was lost. */
  sendBefore = Number.POSITIVE_INFINITY;
  /** Handed to a socket. */
  sent = false;
  /** The client is gone, or has cancelled it before it was sent: no call follows. */
  dropped = false;
  /** The one that is asked in its place. */
  twin: MergedRequest | null = null;
  /** Rows found or changed, so far. */
  rows = 0;
  /** Where in `answers` its rows are, as DataRow messages in the format of its queue; `start` below 0: it gives none. */
  start = -1;
  end = 0;
  answers: Buffer = EMPTY;

  constructor(sink: BatchSink) {
    this.sink = sink;
  }

  /** What holds a value. */
  bufferOf(value: number): Buffer {
    return value < this.constantsFrom ? this.buffer : this.constants;
  }

  /** The answer to the one that was asked in its place is its own. */
  takeFromTwin(): void {
    const { twin } = this;
    if (twin === null) return;
    this.rows = twin.rows;
    this.start = twin.start;
    this.end = twin.end;
    this.twin = null;
  }

  /** What it points to is not kept for its sake. */
  forgetAnswer(): void {
    this.twin = null;
    this.answers = this.buffer = this.constants = EMPTY;
  }

  /** It has run by itself, or will not. */
  releaseKey(): void {
    if (this.holdsKey) this.queue.release(this);
  }

  /** Drops it if it was not handed to a socket yet. Returns whether it was dropped. */
  withdraw(): boolean {
    if (this.sent) {
      this.queue.withdraw(this);
      return false;
    }
    this.dropped = true;
    return true;
  }
}
