// One statement of one client on its way through the merged lane (D11). A client has at most one, so that its object is
// made once and used again; nothing else is allocated per statement but the answer.
import type { MergedQueue } from './merged-lane.js';
import type { MergedForm, MergedStatement } from './merged-statement.js';

/** Whoever sent the statement. Exactly one call follows an `offer` that was taken, synchronously with what caused it. */
export interface MergedClient {
  /** The answer is there, to be taken by `wholeAnswer` or `pipelineAnswer`. */
  settled(request: MergedRequest): void;
  /** Nothing of it was done: it is to be run by itself, on a lease. */
  rerun(): void;
  /** It was sent, and whether it was done cannot be known: 08007. `detail` says why. */
  unknown(detail: string): void;
}

export class MergedRequest {
  readonly client: MergedClient;
  statement!: MergedStatement;
  /** Where it is to wait. */
  queue!: MergedQueue;
  /** What was known of the statement when it was offered: its answer begins accordingly. */
  form: MergedForm | null = null;
  /** Holds the values; a view that is not changed while the request is under way. */
  buffer: Buffer = EMPTY;
  /** Start and length of each value of the statement; length -1: NULL. Values are in text format. */
  readonly offsets = new Int32Array(2 * VALUES_MAX);
  /** Hash slot of its key, or of the first of them. */
  slot = 0;
  /** For statements that write: the key with its table. */
  key = '';
  /** Other batches do not write its key while it runs by itself. */
  holdsKey = false;
  /** What the answer begins with: ParseComplete, BindComplete, RowDescription, as far as they are owed. */
  prefix: Buffer = EMPTY;
  /** Values, in bytes. */
  bytes = 0;
  /** Requests of one group see one snapshot: they go in one batch. */
  group: object | null = null;
  /** Handed to a socket. */
  sent = false;
  /** The client is gone, or has cancelled it before it was sent: no call follows. */
  dropped = false;
  /** The one that is asked in its place. */
  twin: MergedRequest | null = null;
  /** Rows so far, and where they are in the batch's answer. */
  rows = 0;
  start = -1;
  end = 0;
  answers: Buffer = EMPTY;
  /** CommandComplete and ReadyForQuery. */
  ending: Buffer = EMPTY;

  constructor(client: MergedClient) {
    this.client = client;
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
    this.answers = this.buffer = EMPTY;
  }

  /** It has run by itself, or will not. */
  releaseKey(): void {
    if (this.holdsKey) this.queue.lane.release(this);
  }

  /** Drops it if it was not handed to a socket yet. Returns whether it was dropped. */
  withdraw(): boolean {
    if (this.sent) return false;
    this.dropped = true;
    return true;
  }
}

const EMPTY = Buffer.alloc(0);
export const VALUES_MAX = 16;
