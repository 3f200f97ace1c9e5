// Names of prepared statements whose fate hangs on an answer: what was sent has made or dropped the statement, and the
// server may still skip that after an error. Messages of one batch are skipped together: only earlier batches count.
import type { ReplyQueue } from '../../backend/replies/reply-queue.js';

/** Stands for every name but the empty one; no name has a NUL. */
const ALL_NAMES = '\0';

export class UnsettledNames {
  /** By name, where the answer stands in the queue to the last message that changed it. */
  readonly #changes = new Map<string, { readonly replies: ReplyQueue; readonly place: number }>();

  get empty(): boolean {
    return this.#changes.size === 0;
  }

  /** Everything sent has been answered. */
  clear(): void {
    this.#changes.clear();
  }

  /** The message at `place`, else the one that `replies` was given last, makes or drops the statement of that name. */
  changed(name: string, replies: ReplyQueue, place = replies.nextPlace - 1): void {
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

  #isOwed(name: string, replies: ReplyQueue): boolean {
    const change = this.#changes.get(name);
    return change !== undefined && change.replies === replies && replies.owesEarlierBatch(change.place);
  }
}
