// The statement a session last parsed without a name. A pipelining client may change it many times before the first
// change is answered, and a server that skips messages after an error leaves some of the changes undone: what is
// certain is kept apart from what is under way.
import type { ReplyQueue } from '../backend/replies/reply-queue.js';
import type { StatementSource } from '../backend/replies/statement-source.js';

/** One Parse or Close of the unnamed statement that has been sent. */
export interface UnnamedChange {
  source: StatementSource | null;
  readonly replies: ReplyQueue;
  readonly place: number;
}

export class UnnamedStatement {
  #certain: StatementSource | null = null;
  readonly #underWay: UnnamedChange[] = [];

  /** As it is if everything sent so far succeeds. */
  get source(): StatementSource | null {
    const last = this.#underWay.at(-1);
    return last === undefined ? this.#certain : last.source;
  }

  /** It is this now, whatever becomes of what was sent before. */
  set(source: StatementSource | null): void {
    this.#underWay.length = 0;
    this.#certain = source;
  }

  /** The same statement, read anew. */
  renew(source: StatementSource, renewed: StatementSource): void {
    if (this.#certain === source) this.#certain = renewed;
    for (const change of this.#underWay) if (change.source === source) change.source = renewed;
  }

  /** A message that changes it is about to be sent: the next one that `replies` gets. */
  change(source: StatementSource | null, replies: ReplyQueue): UnnamedChange {
    for (let first = this.#underWay[0]; first !== undefined; first = this.#underWay[0]) {
      if (first.replies === replies && !replies.isGone(first.place)) break;
      this.#certain = first.source;
      this.#underWay.shift();
    }
    const made = { source, replies, place: replies.nextPlace };
    this.#underWay.push(made);
    return made;
  }

  /** A Parse that fails has already dropped the statement before it; one that is skipped has not. */
  undo(change: UnnamedChange, refused: boolean): void {
    const index = this.#underWay.indexOf(change);
    if (index < 0) return;
    if (refused) change.source = null;
    else this.#underWay.splice(index, 1);
  }
}
