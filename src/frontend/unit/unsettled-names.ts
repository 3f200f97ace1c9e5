// Names of prepared statements whose fate hangs on an answer: what was sent has made or dropped the statement, and the
// server may still skip that after an error. Messages of one batch are skipped together: only earlier batches count.
import type { ReplyQueue } from '../../backend/replies/reply-queue.js';

/** Stands for every name but the empty one; no name has a NUL. */
const ALL_NAMES = '\0';
/** Names at which those are looked for whose answers have come. */
const SWEEP_MIN = 256;

export class UnsettledNames {
  /** By name, where the answer stands in the queue to the last message that changed it. */
  readonly #changes = new Map<string, { readonly replies: ReplyQueue; readonly place: number }>();
  #sweepAt = SWEEP_MIN;

  /** Names kept; not more than twice as many as answers are owed, beyond a few. */
  get size(): number {
    return this.#changes.size;
  }

  get empty(): boolean {
    return this.#changes.size === 0;
  }

  /** Everything sent has been answered. */
  clear(): void {
    this.#changes.clear();
  }

  /** The message at `place`, else the one that `replies` was given last, makes or drops the statement of that name. */
  changed(name: string, replies: ReplyQueue, place = replies.nextPlace - 1): void {
    if (this.#changes.size >= this.#sweepAt) this.#sweep();
    this.#changes.set(name, { replies, place });
  }

  /** What `replies` was given last may drop statements of any name. */
  allChanged(replies: ReplyQueue): void {
    this.changed(ALL_NAMES, replies);
  }

  /** Whether an answer to come decides what the name stands for where `replies` are the connection's. */
  isOpen(name: string, replies: ReplyQueue): boolean {
    return this.#isOwed(name, replies) || (name !== '' && this.#isOwed(ALL_NAMES, replies));
  }

  /** Whether an answer to come decides what some name stands for where `replies` are the connection's. */
  isAnyOpen(replies: ReplyQueue): boolean {
    for (const name of this.#changes.keys()) if (name !== '' && this.#isOwed(name, replies)) return true;
    return false;
  }

  /** Who never waits for all answers is told apart by those that have come: what is left is what is owed, and no more. */
  #sweep(): void {
    for (const [name, { replies, place }] of this.#changes) if (replies.isGone(place)) this.#changes.delete(name);
    this.#sweepAt = Math.max(SWEEP_MIN, 2 * this.#changes.size);
  }

  #isOwed(name: string, replies: ReplyQueue): boolean {
    const change = this.#changes.get(name);
    return change !== undefined && change.replies === replies && replies.owesEarlierBatch(change.place);
  }
}
