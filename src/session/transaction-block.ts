// A transaction block that no server knows of yet, or could do without (D13): BEGIN is held back until a statement says
// which shard it is for, and as long as nothing but what can be said again has been said in it, the block can move.
import type { Template } from '../sql/plan/template.js';

/** Plain forms that cannot fail and give no warnings. https://www.postgresql.org/docs/current/sql-begin.html */
const OPTIONS =
  '(?:[\\s,]+(?:isolation\\s+level\\s+(?:serializable|repeatable\\s+read|read\\s+committed|read\\s+uncommitted)|read\\s+write|read\\s+only|(?:not\\s+)?deferrable))*';
const BEGIN = new RegExp(
  `^\\s*(?:begin(?:\\s+(?:work|transaction))?|(start)\\s+transaction)${OPTIONS}\\s*;?\\s*$`,
  'i',
);
const END = /^\s*(?:(commit|end)|rollback|abort)(?:\s+(?:work|transaction))?\s*;?\s*$/i;
const OTHER_ISOLATION = /serializable|repeatable\s+read/i;
/** Statements kept for being said again. */
const PROLOGUE_MAX = 100;

/** The command tag of a BEGIN that may be held back, or null. */
export function heldBeginTag(text: string): 'BEGIN' | 'START TRANSACTION' | null {
  const found = BEGIN.exec(text);
  if (found === null) return null;
  return found[1] === undefined ? 'BEGIN' : 'START TRANSACTION';
}

/** The command tag of a plain COMMIT or ROLLBACK, or null. */
export function plainEndTag(text: string): 'COMMIT' | 'ROLLBACK' | null {
  const found = END.exec(text);
  if (found === null) return null;
  return found[1] === undefined ? 'ROLLBACK' : 'COMMIT';
}

export interface PrologueStatement {
  readonly template: Template;
  readonly text: string;
}

export class TransactionBlock {
  /** BEGIN was answered here, and no server has heard of it. */
  held = false;
  /** What opens the block again elsewhere: its BEGIN, settings and savepoints; null where it cannot move any more. */
  #prologue: PrologueStatement[] | null = null;

  /** Whether the block, if there is one, can still go to any shard. */
  get movable(): boolean {
    return this.#prologue !== null;
  }

  /** Statements that open the block. */
  get prologue(): readonly PrologueStatement[] {
    return this.#prologue ?? [];
  }

  /** Every statement in it sees what was committed before the statement. */
  get isReadCommitted(): boolean {
    return this.#prologue !== null && !this.#prologue.some(({ text }) => OTHER_ISOLATION.test(text));
  }

  /** BEGIN was sent, or is held. */
  begin(template: Template, text: string, held: boolean): void {
    this.held = held;
    this.#prologue = [{ template, text }];
  }

  /** A statement inside the block is about to be sent. */
  note(template: Template, text: string): void {
    const prologue = this.#prologue;
    if (prologue === null) return;
    if (!template.neutral || prologue.length >= PROLOGUE_MAX) this.#prologue = null;
    else if (!template.readOnly) prologue.push({ template, text });
  }

  /** The block has ended, or is bound to where it is. */
  bind(): void {
    this.held = false;
    this.#prologue = null;
  }
}
