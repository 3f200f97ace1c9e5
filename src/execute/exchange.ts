// What is under way for one client (D26). An Exchange answers the units it takes; a conversation has one under way at a time,
// and hands everything that happens to it. A batch may be answered by several in turn (its Parse by a server, its rows by
// several), so what the client is owed is counted in one Ledger that they share, and nowhere else.
import type { ServerLoss } from '../backend/replies/reply-receiver.js';
import { Frontend } from '../wire/protocol.js';
import type { LeasedLane } from './leased/leased-lane.js';

/** What has become of a unit: it was taken, or it is to be put back until messages are taken again. */
export type Handling = 'taken' | 'wait';

export interface Exchange<Unit> {
  /** Messages wait: none is taken before its answer has gone out. */
  readonly busy: boolean;
  /** They do not: what it takes while it is busy, as the data of a COPY. */
  readonly takesData?: boolean;
  take(unit: Unit): Handling;
  /** CancelRequest of the client. */
  cancel(): void;
  /** The client's socket takes bytes again. */
  drained(): void;
  /** A connection under the session broke, and the session goes on: answers what is owed for it. */
  lost(loss: ServerLoss, lane: LeasedLane): void;
  /** The client is gone: nothing is answered any more. */
  abandon(): void;
}

/**
 * `none`: no message was taken behind the last Sync. `open`: some were. `refused`: one of them is answered by an error of
 * pgkv's own in its turn, behind what the server still owes. `failed`: the client has its error.
 */
export type BatchState = 'none' | 'open' | 'refused' | 'failed';

/**
 * What the batch's implicit transaction has done where the current lane's server does not see it. `nothing`. `begun`: it began,
 * with a Parse or Bind, and nothing was executed. `run`: something was executed, so that a server takes a simple query for a part
 * of the batch. `told`: the same, and the current lane's server was told.
 */
type DoneElsewhere = 'nothing' | 'begun' | 'run' | 'told';

/**
 * The batch of the extended protocol that the client is sending. Invariant: where it was refused or has failed, nothing more of
 * it is taken before its Sync, so that it has one error.
 */
export class ClientBatch {
  #state: BatchState = 'none';
  /** As it was before the message at hand. */
  #before: BatchState = 'none';
  #elsewhere: DoneElsewhere = 'nothing';

  get state(): BatchState {
    return this.#state;
  }

  /** Its messages are skipped. */
  get skipping(): boolean {
    return this.#state === 'refused' || this.#state === 'failed';
  }

  /** The client waits for an answer to what it has sent of it, or will with its Sync. */
  get isOwed(): boolean {
    return this.#state === 'open' || this.#state === 'refused';
  }

  /** The message at hand is the first behind a Sync. */
  get begins(): boolean {
    return this.#before === 'none';
  }

  /** Its transaction has begun where the current lane's server does not see that. */
  get hasBegunElsewhere(): boolean {
    return this.#elsewhere !== 'nothing';
  }

  /** Something of it was executed elsewhere. */
  get hasRun(): boolean {
    return this.#elsewhere === 'run' || this.#elsewhere === 'told';
  }

  /** Something of it was executed of which the current lane's server does not know. */
  get hasRunUntold(): boolean {
    return this.#elsewhere === 'run';
  }

  /** @param executed more than Parse and Bind */
  begunElsewhere(executed: boolean): void {
    if (executed || this.#elsewhere === 'told') this.#elsewhere = 'run';
    else if (this.#elsewhere === 'nothing') this.#elsewhere = 'begun';
  }

  /** The current lane's server takes what comes for no longer the first of its batch. */
  toldServer(): void {
    this.#elsewhere = 'told';
  }

  /** Its implicit transaction is over, though its Sync has not come: a simple query has failed, or ended it. */
  transactionEnded(): void {
    this.#elsewhere = 'nothing';
  }

  /** A message of that type is about to be handled. */
  take(type: number): void {
    this.#before = this.#state;
    if (type === Frontend.sync) this.#elsewhere = 'nothing';
    if (type === Frontend.sync || type === Frontend.query || type === Frontend.functionCall) this.#state = 'none';
    else if (type !== Frontend.flush && this.#state === 'none') this.#state = 'open';
  }

  /** It is put back: nothing has been answered. */
  putBack(): void {
    // The batch may have failed meanwhile.
    if (!this.skipping) this.#state = this.#before;
  }

  /** All messages of a batch, Sync included, were handled at once. */
  takeWhole(): void {
    this.#state = 'none';
    this.#elsewhere = 'nothing';
  }

  /** An error will go out for it. */
  refused(): void {
    if (this.#state !== 'none') this.#state = 'refused';
  }

  /** An error has gone out for it. */
  failed(): void {
    if (this.#state !== 'none') this.#state = 'failed';
  }

  /** A server has told its error: with all else up to its Sync it skips simple queries that were sent behind what failed. */
  failedOnServer(): void {
    this.#state = 'failed';
  }
}
