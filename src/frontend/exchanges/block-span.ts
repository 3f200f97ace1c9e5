// Where the client's last block stands among the ReadyForQuery messages that the server owes, and what of it may have been
// written or committed: what the client is told of a loss hangs on both (lost-answers.ts).
// Invariant: errs on the side of what may have happened.
import type { TransactionPhase } from '../../session/transaction.js';
import type { Template } from '../../sql/plan/template.js';
import { mayCommit, mayWrite } from './deeds-of.js';

/** What a loss is told by. */
export interface BlockPlace {
  /** Something sent in it may have committed it. */
  readonly mayHaveCommitted: boolean;
  /** Something sent in it may have written. */
  readonly mayHaveWritten: boolean;
  /** What was sent before it may commit what a block before has written. */
  readonly commitsBefore: boolean;
  /** How many belong to what was sent before it. */
  readonly outside: number;
  /** How many go up to its end, that one included. */
  readonly through: number;
}

/**
 * Between blocks everything that is owed is counted as the block's: `outside` is 0 and `through` has no end. A block that
 * begins leaves what is owed by then outside; one that ends ends with the answer to come.
 */
export class BlockSpan implements BlockPlace {
  mayHaveCommitted = false;
  mayHaveWritten = false;
  commitsBefore = false;
  outside = 0;
  through = Number.POSITIVE_INFINITY;
  /** Something sent in the batch at hand may have written: of a block that begins in it that is a part. */
  #batchMayHaveWritten = false;

  /** A block begins with what is about to be sent. @param owed how many are owed for what was sent before */
  begins(owed: number): void {
    const { mayHaveCommitted, mayHaveWritten, through } = this;
    // The end of the block before is not answered: what becomes of its writes is told with the batch that ends it.
    const isOpen = mayHaveCommitted && mayHaveWritten && through > 0;
    const inThisBatch = isOpen && through === owed + 1;
    this.outside = owed;
    this.through = Number.POSITIVE_INFINITY;
    this.mayHaveCommitted = inThisBatch;
    this.mayHaveWritten = inThisBatch || this.#batchMayHaveWritten;
    this.commitsBefore = isOpen && through <= owed;
  }

  /** It ends with what is about to be sent. */
  ends(owed: number): void {
    this.through = owed + 1;
  }

  /** A statement is about to be sent where the block is in that phase. */
  sending(template: Template, phase: TransactionPhase): void {
    if (mayWrite(template)) this.mayHaveWritten = this.#batchMayHaveWritten = true;
    if (mayCommit(template, phase)) this.mayHaveCommitted = true;
  }

  /** What ends a batch was sent. */
  batchEnds(): void {
    this.#batchMayHaveWritten = false;
  }

  /** One of those that were owed has come. */
  readied(): void {
    if (this.outside > 0) this.outside--;
    if (this.through > 0) this.through--;
  }

  /** All that was owed has come. */
  settled(inBlock: boolean): void {
    this.mayHaveCommitted = false;
    if (!inBlock) this.mayHaveWritten = false;
    // What was to end it may have failed before it did.
    this.outside = 0;
    this.through = Number.POSITIVE_INFINITY;
  }

  /** The connection is gone, and what was owed on it is told. */
  clear(): void {
    this.mayHaveCommitted = this.mayHaveWritten = this.commitsBefore = this.#batchMayHaveWritten = false;
    this.outside = 0;
    this.through = Number.POSITIVE_INFINITY;
  }
}
