// The client's transaction block, as one state (D27). Generic over what a branch is: whoever holds a block open on a server.
// It says what the client has been told or will be once what was sent has succeeded; a server's ReadyForQuery behind which
// nothing is owed is the truth (`answered`). States:
//   none      no block
//   held      BEGIN was answered here, and no server knows of it (D13)
//   open      a server has the block; while `prologue` is kept, nothing was said in it that could not be said elsewhere again.
//             With `others`, it has branches on several (D31), and `branch` is the one that gets what comes
//   ending    COMMIT or ROLLBACK was sent, and has not been answered
//   failed    an error was told: 25P02 until the client ends it. Without a branch no server has the block: because it was lost,
//             or, with a prologue, because it failed while it was held
//   lost      its connection broke while nothing was owed: the client is told with its next statement, then it has failed
// Invariant: a block never becomes `none` but by the client's own word or a server's (not by a loss), and never `held` but by
// a BEGIN, or from `open` with a prologue.
import type { Said } from '../backend/connection/server-connection.js';
import { assert } from '../base/assert.js';
import { NEUTRAL_TEMPLATE, type Template } from '../sql/plan/template.js';
import { TransactionStatus } from '../wire/protocol.js';
import { type BlockSettings, bothSettings, settingsOf } from './block-settings.js';
import { BranchScript } from './branch-script.js';
import { noteRead, noteSaid, type Prologue, type PrologueStatement, prologueOf, type Say } from './prologue.js';
import {
  begunBy,
  FAILED,
  leftBehind,
  NOBODY,
  NONE,
  STATUS,
  type TransactionPhase,
  type TransactionState,
  UNKNOWN,
} from './transaction-state.js';

export { endTag, type TransactionPhase } from './transaction-state.js';

export class Transaction<Branch extends object> {
  #state: TransactionState<Branch> = NONE;
  /** Branches of a block that has none any more: they are to be rolled back. */
  #orphans: readonly Branch[] = NOBODY;
  /** Statements that were sent and are not known to be answered. */
  #unanswered = 0;
  /** A server has said that the block has failed while it owed more. */
  #sawFailure = false;
  /** How much of the prologue servers have said to be done. */
  #done = 0;
  /** Of the statement at hand, or of that whose portal is executed by it. */
  readonly #said: Say;

  constructor(said: Say) {
    this.#said = said;
  }

  get state(): TransactionState<Branch> {
    return this.#state;
  }

  get phase(): TransactionPhase {
    return this.#state.kind;
  }

  /** What ReadyForQuery says where no server is asked. */
  get status(): number {
    return STATUS[this.#state.kind];
  }

  /** A block is open for the client, failed or not, whether or not a server knows of it. */
  get inBlock(): boolean {
    return this.#state.kind !== 'none';
  }

  /** A block is open for the client, and no server knows of it. */
  get isHere(): boolean {
    return this.#state.kind === 'held' || this.isLeft;
  }

  /** What stands for a block that is held here and in order: no other block has it. */
  get heldBlock(): object | null {
    return this.#state.kind === 'held' ? this.#state.prologue : null;
  }

  /** A failed block that no server has: whoever gets its end opens it anew, as a failed one. */
  get isLeft(): boolean {
    const state = this.#state;
    return state.kind === 'lost' || (state.kind === 'failed' && state.branch === null);
  }

  /** A block in which every statement sees what was committed before the statement, as far as is known. */
  get isReadCommitted(): boolean {
    const state = this.#state;
    return (state.kind === 'held' || state.kind === 'open') && state.readCommitted;
  }

  /** What is set in it, or may be, that may end with it: nothing outside it runs under that. */
  get settings(): BlockSettings {
    const state = this.#state;
    return state.kind === 'held' || state.kind === 'open' ? state.sets : 'nothing';
  }

  /** Whether the block can still go to any shard. */
  get movable(): boolean {
    return this.#prologue !== null;
  }

  /** Something is done in it that could not be said again elsewhere, or would be gone there, as a portal with a name is. */
  bound(): void {
    const state = this.#state;
    if (state.kind === 'open' && state.prologue !== null) {
      this.#state = { ...state, prologue: null, script: this.#scriptOf(state) };
    }
  }

  /** What a branch is opened with from now on, where the block does not move any more. */
  #scriptOf({ prologue, readCommitted, script }: TransactionState<Branch> & { kind: 'open' }): BranchScript | null {
    return prologue === null ? script : new BranchScript(prologue, readCommitted, this.#done);
  }

  get #prologue(): Prologue | null {
    const state = this.#state;
    return state.kind === 'held' || state.kind === 'open' ? state.prologue : null;
  }

  /** A BEGIN was answered here. */
  hold(template: Template, text: string, said: Said): void {
    assert(this.#state.kind === 'none', 'a BEGIN is held where there is no block');
    const prologue = prologueOf([], template, text, said);
    const readCommitted = !template.setsOtherIsolation;
    this.#state = { kind: 'held', prologue, readCommitted, sets: settingsOf(template) };
  }

  /** The held block is about to be opened by `branch`. @returns what opens it */
  opened(branch: Branch): readonly PrologueStatement[] {
    const state = this.#state;
    assert(state.kind === 'held', 'only a block that is held is opened');
    this.#state = { ...state, kind: 'open', branch, isSure: true, isImplicit: false, others: NOBODY, script: null };
    this.#done = state.prologue.length;
    return state.prologue;
  }

  /** Its branch is left, to be opened elsewhere. */
  moved(): void {
    const state = this.#state;
    assert(state.kind === 'open' && state.prologue !== null, 'a block that is bound does not move');
    const { prologue, readCommitted, sets } = state;
    this.#state = { kind: 'held', prologue, readCommitted, sets };
  }

  /** The branch of a failed block is left: the client ends it elsewhere. */
  leftFailed(): void {
    assert(
      this.#state.kind === 'failed' && this.#state.branch !== null,
      'only a failed block that a server has is left',
    );
    this.#state = leftBehind(this.#state, true);
  }

  /** A failed block that no server has was opened by `branch`, as a failed one. */
  reopened(branch: Branch): void {
    assert(this.#state.kind === 'failed' && this.#state.branch === null, 'only a block no server has is opened anew');
    this.#state = { ...FAILED, branch, begin: leftBehind(this.#state, true).begin };
  }

  /**
   * A statement is about to be sent on `branch`.
   * @param before what a block that it begins holds of what was sent before it; null: something that cannot be said again
   */
  sent(template: Template, text: string, branch: Branch, before: Prologue | null): void {
    const state = this.#state;
    if (template !== NEUTRAL_TEMPLATE) this.#unanswered++;
    switch (state.kind) {
      case 'none':
      case 'ending': {
        if (template.leavesBlock !== 'open') return;
        this.#done = 0;
        this.#state = begunBy(template, text, branch, before, this.#said);
        return;
      }
      case 'open':
        assert(state.branch === branch, 'a block is on one branch');
        return this.#sentInBlock(template, text, state);
      case 'failed':
        assert(state.branch === branch, 'a failed block is on one branch');
        // Every other statement is answered by 25P02.
        if (!template.endsFailure) return;
        if (template.leavesBlock !== 'closed') return this.#goesOn(template, text, state, branch);
        assert(state.others.length === 0, 'a block of several branches is ended on all of them');
        // COMMIT of a failed block rolls it back.
        this.#state = { kind: 'ending', branch, how: template.kind === 'multi' ? 'commit' : 'rollback' };
        return;
      case 'held':
      case 'lost':
        assert(false, `nothing is sent in a block that is ${state.kind}`);
    }
  }

  /** From a savepoint, or anew. */
  #goesOn(
    template: Template,
    text: string,
    state: TransactionState<Branch> & { kind: 'failed' },
    branch: Branch,
  ): void {
    const { others, script } = state;
    this.#state = { ...UNKNOWN, kind: 'open', branch, others };
    if (script === null || template.kind === 'multi') return;
    script.sent(template, text, this.#said);
    this.#state = { ...this.#state, script, readCommitted: script.isReadCommitted, sets: state.sets };
  }

  #sentInBlock(template: Template, text: string, state: TransactionState<Branch> & { kind: 'open' }): void {
    const { kind, leavesBlock } = template;
    const { branch, prologue } = state;
    if (leavesBlock === 'closed') {
      assert(state.others.length === 0, 'a block of several branches is ended on all of them');
      this.#state = { kind: 'ending', branch, how: kind === 'rollback' ? 'rollback' : 'commit' };
      return;
    }
    // AND CHAIN hands the block's isolation level on.
    const readCommitted = state.readCommitted && !template.setsOtherIsolation;
    // A BEGIN inside a block is a warning, and its options hold: it is said again.
    const isKept = prologue !== null && template.movable && noteSaid(prologue, template, text, this.#said);
    const kept = isKept ? prologue : null;
    const isImplicit = state.isImplicit && kind !== 'begin';
    const sets = kind === 'commit' || kind === 'rollback' ? 'nothing' : bothSettings(state.sets, settingsOf(template));
    let { script } = state;
    if (kept === null) {
      if (prologue !== null) script = new BranchScript(prologue, state.readCommitted, this.#done);
      script?.sent(template, text, this.#said);
    }
    const isSame = kept === prologue && readCommitted === state.readCommitted && sets === state.sets;
    if (!isSame || isImplicit !== state.isImplicit) {
      this.#state = { ...state, prologue: kept, readCommitted, sets, script, isImplicit };
    }
  }

  /**
   * Something is read in the block, or beside it.
   * @returns its server does not know that yet, if it is beside
   */
  noteRead(): boolean {
    const prologue = this.#prologue;
    return prologue !== null && noteRead(prologue) && this.#state.kind === 'open';
  }

  /** Its server has said that the block has failed, and owes more of it: what it has refused would fail again elsewhere. */
  failedMeanwhile(): void {
    this.bound();
    this.#sawFailure = true;
  }

  /** What was sent to begin it may be skipped, which its answer tells. */
  maySkip(): void {
    const state = this.#state;
    assert(state.kind === 'open', 'a block begins');
    this.#state = { ...state, isSure: false };
  }

  /** `branch` has said where it stands, and owes nothing behind that. */
  answered(status: number, branch: Branch): void {
    const isAlone = this.#unanswered <= 1;
    const sawFailure = this.#sawFailure;
    this.#unanswered = 0;
    this.#sawFailure = false;
    // No server can answer for it.
    if (this.isHere) return;
    const state = this.#state;
    const { others, script, sets } = state.kind === 'open' || state.kind === 'failed' ? state : UNKNOWN;
    if (sawFailure && !isAlone) script?.failed(false);
    if (status === TransactionStatus.failed) {
      const known = state.kind === 'open' ? this.#scriptOf(state) : script;
      known?.failed(isAlone);
      this.#state = { kind: 'failed', branch, prologue: null, others, script: known, sets, begin: null };
    } else if (status === TransactionStatus.idle) this.#end(NONE, others);
    else if (state.kind !== 'open' || state.branch !== branch) {
      this.#state = { ...UNKNOWN, kind: 'open', branch, others, isImplicit: state.kind !== 'failed' };
    } else {
      script?.done();
      this.#done = state.prologue?.length ?? 0;
      if (!state.isSure) this.#state = { ...state, isSure: true };
    }
  }

  #end(state: TransactionState<Branch>, orphans: readonly Branch[]): void {
    if (orphans.length > 0) this.#orphans = orphans;
    this.#state = state;
  }

  /** The branches of the block, that of the statements at hand first. */
  get branches(): readonly Branch[] {
    const state = this.#state;
    if ((state.kind !== 'open' && state.kind !== 'failed') || state.branch === null) return NOBODY;
    return [state.branch, ...state.others];
  }

  /** The block has branches on several shards. */
  get isSpread(): boolean {
    const state = this.#state;
    return (state.kind === 'open' || state.kind === 'failed') && state.others.length > 0;
  }

  /** What opens a further branch; null: the block is to have none. */
  get script(): readonly PrologueStatement[] | null {
    const state = this.#state;
    return state.kind === 'open' ? (state.script?.statements ?? null) : null;
  }

  /** A further branch of the block is open, and gets what comes next. */
  spread(branch: Branch): void {
    const state = this.#state;
    assert(state.kind === 'open' && state.prologue === null, 'a block that can move has one branch');
    assert(!this.branches.includes(branch), 'a branch is opened once');
    this.#state = { ...state, branch, others: [...state.others, state.branch] };
  }

  /** What comes next is for that branch. */
  turned(branch: Branch): void {
    const state = this.#state;
    assert(state.kind === 'open' && state.others.includes(branch), 'a block turns to a branch that it has');
    this.#state = { ...state, branch, others: [state.branch, ...state.others.filter((other) => other !== branch)] };
  }

  /** All branches but that of the statements at hand are rolled back. */
  gathered(): void {
    const state = this.#state;
    assert(state.kind === 'open' || state.kind === 'failed', 'a block of several branches');
    this.#state = { ...state, others: NOBODY };
  }

  /** All branches have ended. */
  endedTogether(): void {
    assert(this.isSpread, 'a block of several branches');
    this.#state = NONE;
  }

  /** The connection of a branch broke while the block was at another one, and nothing is owed: the client is to be told. */
  loseFurther(lost: Branch): void {
    assert(this.isSpread && this.branches.includes(lost), 'a branch of the block');
    const orphans = this.branches.filter((branch) => branch !== lost);
    this.#end(leftBehind(this.#state, this.#state.kind === 'failed', this.#done), orphans);
  }

  /** Those of a block that is lost: whoever asks ends them. */
  takeOrphans(): readonly Branch[] {
    const orphans = this.#orphans;
    this.#orphans = NOBODY;
    return orphans;
  }

  /** An error of pgkv's own is told without a server: a block that is open fails. */
  failHere(): void {
    const state = this.#state;
    assert(state.kind !== 'ending', 'an error of pgkv has its turn behind what was sent');
    if (state.kind === 'held') this.#state = { ...FAILED, prologue: state.prologue };
    else if (state.kind !== 'none' && !(state.kind === 'failed' && state.branch === null))
      this.#state = leftBehind(state, true);
  }

  /** The client has ended a block that no server has. */
  endedHere(): void {
    assert(this.isHere, 'a block that a server has is ended there');
    this.#state = NONE;
  }

  /**
   * The connection of the block's branch broke.
   * @param told the client is told by an error
   * @param ended the statement that ends it, where one was sent, was to be executed
   */
  lose(told: boolean, ended = true): void {
    this.#unanswered = 0;
    const state = this.#state;
    switch (state.kind) {
      case 'ending':
        // Its end was the client's own word.
        this.#state = ended ? NONE : FAILED;
        return;
      case 'open':
      case 'failed':
        return this.#end(leftBehind(state, told || state.kind === 'failed', this.#done), state.others);
      default:
        return;
    }
  }

  /** The same, where the BEGIN that was sent was skipped by the server, behind an error that the client was told. */
  loseUnbegun(): void {
    const { kind } = this.#state;
    if (kind === 'open' || kind === 'ending') this.#state = NONE;
  }

  /** A text that had begun a block was answered by an error in it, and nobody has the block any more. */
  failedInText(): void {
    if (this.#state.kind === 'none') this.#state = FAILED;
  }

  /** A block that was lost: the client is told now. */
  lossTold(): void {
    assert(this.#state.kind === 'lost', 'a loss is told once');
    this.#state = leftBehind(this.#state, true);
  }
}
