// Statements of a batch that are to be run side by side (R69), with what the client is told between them, in its order: gathered while
// its messages are taken, and run when there are no more, when one comes that cannot be among them, or when these are enough. Where
// they cannot be run so, each is run by itself. Invariant: at most STATEMENTS_MAX, and BYTES_MAX but for the last one.
import type { SpreadWrite } from '../../execute/two-phase/spread-write.js';
import type { SpreadRequest, SpreadResult } from '../../execute/two-phase/write-request.js';

const STATEMENTS_MAX = 256;
const BYTES_MAX = 1024 * 1024;
/** Statements that are run by themselves behind what was undone: the first time, and at most. */
const FIRST_PAUSE = 16;
const PAUSE_MAX = 1024;

export interface GatheredStatement {
  readonly request: SpreadRequest;
  /** Tells what it has given. @returns the error where that cannot be told */
  tell(result: SpreadResult): Buffer | null;
  /** Runs it by itself, behind what that has written; null: it is the first. */
  alone(behind: SpreadWrite | null): void;
}

/** A message of pgkv's, or a statement. */
export type Gathered = Buffer | GatheredStatement;

export class GatheredWindow {
  readonly entries: Gathered[] = [];
  readonly statements: GatheredStatement[] = [];
  #bytes = 0;

  get isFull(): boolean {
    return this.statements.length >= STATEMENTS_MAX || this.#bytes >= BYTES_MAX;
  }

  tell(message: Buffer): void {
    this.entries.push(message);
  }

  add(statement: GatheredStatement): void {
    this.entries.push(statement);
    this.statements.push(statement);
    for (const part of statement.request.branches[0]!.statement.parameters) this.#bytes += part.length;
  }
}

/** Of statements that are run by themselves for what failed side by side: those behind as well, twice as many each time. */
export class GatheringPause {
  #left = 0;
  #next = FIRST_PAUSE;

  /** A statement is at hand. @returns it is to be run by itself */
  counts(): boolean {
    if (this.#left === 0) return false;
    this.#left--;
    return true;
  }

  begins(): void {
    this.#left = this.#next;
    this.#next = Math.min(2 * this.#next, PAUSE_MAX);
  }

  /** With the batch. */
  ends(): void {
    this.#left = 0;
    this.#next = FIRST_PAUSE;
  }
}
