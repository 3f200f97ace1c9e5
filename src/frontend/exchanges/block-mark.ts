// By what the locks of a block over several shards are known as one transaction's (R66): its branches get one mark, from the first
// further one on, and its lanes are watched while it has several.

import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { markedSettings } from '../../execute/two-phase/lock-mark.js';
import type { LockWatch, WatchedTransaction } from '../../execute/two-phase/lock-watch.js';
import type { Transaction } from '../../session/transaction.js';

export class BlockMark {
  readonly #watch: LockWatch;
  readonly #transaction: Transaction<LeasedLane>;
  #mark = '';
  /** Of the block, once it has several branches. */
  #watched: WatchedTransaction | null = null;

  constructor(watch: LockWatch, transaction: Transaction<LeasedLane>) {
    this.#watch = watch;
    this.#transaction = transaction;
  }

  /** A branch is being opened: the first further one of a block is, where it has no others. */
  begin(): void {
    if (!this.#transaction.isSpread) this.#mark = this.#watch.newMark();
  }

  /** What each branch sets. */
  get settings(): string {
    return markedSettings(this.#mark);
  }

  /** A further branch is open. */
  spread(): void {
    if (this.#watched?.mark === this.#mark) return;
    const mark = this.#mark;
    const transaction = this.#transaction;
    const isCurrent = (): boolean => this.#mark === mark && transaction.isSpread;
    this.#watched = {
      mark,
      get isOver() {
        return !isCurrent();
      },
      get parts() {
        return transaction.branches;
      },
    };
    this.#watch.watch(this.#watched);
  }
}
