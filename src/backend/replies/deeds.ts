// What statements do, as far as that bears on what the loss of their answer means, and what is known of it from the answers
// that came: how far the batch that is being answered has got. A server that says COMMIT has committed, in both protocols
// (exec_simple_query, exec_execute_message: the transaction is finished before the tag is sent).

/**
 * `rolls back`, `commits`: the open block, which ends with it. `recovers`: writes nothing, and a block that had failed may go on
 * behind it. `anything`: it may have written.
 */
export type Deed = 'reads' | 'begins' | 'commits' | 'rolls back' | 'recovers' | 'anything';

/** Of each statement of a message, in order. Null: nobody knows how many there are. */
export type Deeds = readonly Deed[] | null;

/** Of the batch at hand, what is answered. */
export interface Done {
  /** Statements of a simple query, or Executes of a batch. */
  readonly statements: number;
  readonly wrote: boolean;
  /** A block has ended, and none has begun behind that. */
  readonly ended: boolean;
  readonly wroteSinceEnd: boolean;
  /** A block has begun, and not ended. */
  readonly begun: boolean;
  /** One has been committed. */
  readonly committed: boolean;
}

export const NOTHING_DONE: Done = {
  statements: 0,
  wrote: false,
  ended: false,
  wroteSinceEnd: false,
  begun: false,
  committed: false,
};

/** Kept by the reply queue: nothing is allocated for an answer. */
export class DoneSoFar implements Done {
  statements = 0;
  wrote = false;
  ended = false;
  wroteSinceEnd = false;
  begun = false;
  committed = false;

  /** The next statement of a message has been answered. @param at its place in the message */
  answered(deeds: Deeds, at: number): void {
    this.statements++;
    const deed = deeds?.[at] ?? 'anything';
    switch (deed) {
      case 'begins':
        this.begun = true;
        this.ended = false;
        return;
      case 'commits':
      case 'rolls back':
        this.committed ||= deed === 'commits';
        this.ended = true;
        this.begun = this.wroteSinceEnd = false;
        return;
      case 'anything':
        this.wrote = this.wroteSinceEnd = true;
    }
  }

  /** The batch is over. */
  clear(): void {
    if (this.statements === 0) return;
    this.statements = 0;
    this.wrote = this.ended = this.wroteSinceEnd = this.begun = this.committed = false;
  }
}
