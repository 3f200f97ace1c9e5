// The client's transaction block, as one state (D27). Generic over what a branch is: whoever holds a block open on a server.
// It says what the client has been told or will be once what was sent has succeeded; a server's ReadyForQuery behind which
// nothing is owed is the truth (`answered`). States:
//   none      no block
//   held      BEGIN was answered here, and no server knows of it (D13)
//   open      a server has the block; while `prologue` is kept, nothing was said in it that could not be said elsewhere again
//   ending    COMMIT or ROLLBACK was sent, and has not been answered
//   failed    an error was told: 25P02 until the client ends it. Without a branch no server has the block: because it was lost,
//             or, with a prologue, because it failed while it was held
//   lost      its connection broke while nothing was owed: the client is told with its next statement, then it has failed
// Invariant: a block never becomes `none` but by the client's own word or a server's (not by a loss), and never `held` but by
// a BEGIN, or from `open` with a prologue.
import type { Said } from '../backend/connection/server-connection.js';
import { assert } from '../base/assert.js';
import { Effect, type Template } from '../sql/plan/template.js';
import { TransactionStatus } from '../wire/protocol.js';
import { noteRead, noteSaid, type Prologue, type PrologueStatement, prologueOf, type Say } from './prologue.js';

/**
 * What a block may have set that ends with it: nothing; what its server can be asked for, pg_settings and custom settings of these
 * names; or anything.
 */
export type BlockSettings = 'nothing' | 'anything' | ReadonlySet<string>;

export type TransactionState<Branch> =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'held';
      readonly prologue: Prologue;
      readonly readCommitted: boolean;
      readonly sets: BlockSettings;
    }
  | {
      readonly kind: 'open';
      readonly branch: Branch;
      readonly prologue: Prologue | null;
      /** As far as is known, each statement sees what was committed before it. */
      readonly readCommitted: boolean;
      /** What is set in it, or may be, which nothing outside it runs under. */
      readonly sets: BlockSettings;
      /** False: what is to begin it, a text or what stands before it in its batch, may fail before it does, which its answer tells. */
      readonly isSure: boolean;
      /** It may be no more than the transaction of a batch, behind a simple query in its midst: a Sync ends it. */
      readonly isImplicit: boolean;
    }
  | { readonly kind: 'ending'; readonly branch: Branch; readonly how: 'commit' | 'rollback' }
  | { readonly kind: 'failed'; readonly branch: Branch | null; readonly prologue: Prologue | null }
  | { readonly kind: 'lost' };

export type TransactionPhase = TransactionState<unknown>['kind'];

/** The command tag of one COMMIT or ROLLBACK behind which no block is open; null: it is something else. */
export function endTag({ kind, leavesBlock }: Template): 'COMMIT' | 'ROLLBACK' | null {
  if (leavesBlock !== 'closed' || (kind !== 'commit' && kind !== 'rollback')) return null;
  return kind === 'commit' ? 'COMMIT' : 'ROLLBACK';
}

const STATUS: Readonly<Record<TransactionPhase, number>> = {
  none: TransactionStatus.idle,
  held: TransactionStatus.open,
  open: TransactionStatus.open,
  ending: TransactionStatus.open,
  failed: TransactionStatus.failed,
  // The client has not been told.
  lost: TransactionStatus.open,
};
/** What it may set beside the options of a BEGIN. A call of set_config makes a text depend on its literals. */
function settingsOf({ kinds, settingNames, effects, textDependent }: Template): BlockSettings {
  if ((effects & Effect.unknown) !== 0) return 'anything';
  if (settingNames.length === 0 && !textDependent && !kinds.includes('set')) return 'nothing';
  if ((effects & Effect.sticky) !== 0 || settingNames.includes('*')) return 'anything';
  return new Set(settingNames.filter((name) => name.includes('.')));
}

function both(one: BlockSettings, other: BlockSettings): BlockSettings {
  if (one === 'nothing' || other === 'anything') return other;
  if (other === 'nothing' || one === 'anything') return one;
  for (const name of other) if (!one.has(name)) return new Set([...one, ...other]);
  return one;
}

/** Open on a server that has said so, and nothing is known of what was said in it. */
const openAnyhow = <Branch>(branch: Branch, isImplicit: boolean): TransactionState<Branch> & { kind: 'open' } => ({
  kind: 'open',
  branch,
  prologue: null,
  readCommitted: false,
  sets: 'anything',
  isSure: true,
  isImplicit,
});

const NONE = { kind: 'none' } as const;
const FAILED_HERE = { kind: 'failed', branch: null, prologue: null } as const;
const LOST = { kind: 'lost' } as const;

export class Transaction<Branch extends object> {
  #state: TransactionState<Branch> = NONE;
  readonly #said: Say;

  /** @param said of the statement at hand, or of that whose portal is executed by it */
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
    if (state.kind === 'open' && state.prologue !== null) this.#state = { ...state, prologue: null };
  }

  /** It is open, and the Sync of its batch may end it. */
  get isImplicit(): boolean {
    return this.#state.kind === 'open' && this.#state.isImplicit;
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
    this.#state = { ...state, kind: 'open', branch, isSure: true, isImplicit: false };
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
    this.#state = FAILED_HERE;
  }

  /** A failed block that no server has was opened by `branch`, as a failed one. */
  reopened(branch: Branch): void {
    assert(this.#state.kind === 'failed' && this.#state.branch === null, 'only a block no server has is opened anew');
    this.#state = { kind: 'failed', branch, prologue: null };
  }

  /**
   * A statement is about to be sent on `branch`.
   * @param before what a block that it begins holds of what was sent before it; null: something that cannot be said again
   */
  sent(template: Template, text: string, branch: Branch, before: Prologue | null): void {
    const state = this.#state;
    switch (state.kind) {
      case 'none':
      case 'ending': {
        if (template.leavesBlock !== 'open') return;
        const prologue =
          template.movable && before !== null ? prologueOf(before, template, text, this.#said(template, text)) : null;
        const isOther = template.setsOtherIsolation || before?.some((one) => one.template.setsOtherIsolation) === true;
        const readCommitted = prologue !== null && !isOther;
        const sets = [template, ...(before ?? []).map((one) => one.template)].map(settingsOf).reduce(both);
        const isSure = template.kind === 'begin';
        this.#state = { kind: 'open', branch, prologue, readCommitted, sets, isSure, isImplicit: false };
        return;
      }
      case 'open':
        assert(state.branch === branch, 'a block is on one branch');
        return this.#sentInBlock(template, text, state);
      case 'failed':
        assert(state.branch === branch, 'a failed block is on one branch');
        // Every other statement is answered by 25P02.
        if (!template.endsFailure) return;
        // COMMIT of a failed block rolls it back.
        this.#state =
          template.leavesBlock === 'closed'
            ? { kind: 'ending', branch, how: template.kind === 'multi' ? 'commit' : 'rollback' }
            : openAnyhow(branch, false);
        return;
      case 'held':
      case 'lost':
        assert(false, `nothing is sent in a block that is ${state.kind}`);
    }
  }

  #sentInBlock(template: Template, text: string, state: TransactionState<Branch> & { kind: 'open' }): void {
    const { kind, leavesBlock } = template;
    const { branch, prologue } = state;
    if (leavesBlock === 'closed') {
      this.#state = { kind: 'ending', branch, how: kind === 'rollback' ? 'rollback' : 'commit' };
      return;
    }
    // AND CHAIN hands the block's isolation level on.
    const readCommitted = state.readCommitted && !template.setsOtherIsolation;
    // A BEGIN inside a block is a warning, and its options hold: it is said again.
    const isKept = prologue !== null && template.movable && noteSaid(prologue, template, text, this.#said);
    const kept = isKept ? prologue : null;
    const sets = kind === 'commit' || kind === 'rollback' ? 'nothing' : both(state.sets, settingsOf(template));
    const isImplicit = state.isImplicit && kind !== 'begin';
    if (
      kept !== prologue ||
      readCommitted !== state.readCommitted ||
      sets !== state.sets ||
      isImplicit !== state.isImplicit
    ) {
      this.#state = { ...state, prologue: kept, readCommitted, sets, isImplicit };
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
  }

  /** What was sent to begin it may be skipped, which its answer tells. */
  maySkip(): void {
    const state = this.#state;
    assert(state.kind === 'open', 'a block begins');
    this.#state = { ...state, isSure: false };
  }

  /** `branch` has said where it stands, and owes nothing behind that. */
  answered(status: number, branch: Branch): void {
    // No server can answer for it.
    if (this.isHere) return;
    const state = this.#state;
    if (status === TransactionStatus.idle) this.#state = NONE;
    else if (status === TransactionStatus.failed) this.#state = { kind: 'failed', branch, prologue: null };
    else if (state.kind !== 'open' || state.branch !== branch) {
      this.#state = openAnyhow(branch, state.kind !== 'failed');
    } else if (!state.isSure) this.#state = { ...state, isSure: true };
  }

  /** An error of pgkv's own is told without a server: a block that is open fails. */
  failHere(): void {
    const state = this.#state;
    assert(state.kind !== 'ending', 'an error of pgkv has its turn behind what was sent');
    if (state.kind === 'held') this.#state = { ...FAILED_HERE, prologue: state.prologue };
    else if (state.kind !== 'none' && !(state.kind === 'failed' && state.branch === null)) this.#state = FAILED_HERE;
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
    const state = this.#state;
    switch (state.kind) {
      case 'ending':
        // Its end was the client's own word.
        this.#state = ended ? NONE : FAILED_HERE;
        return;
      case 'open':
        this.#state = told ? FAILED_HERE : LOST;
        return;
      case 'failed':
        this.#state = FAILED_HERE;
        return;
      case 'none':
      case 'held':
      case 'lost':
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
    if (this.#state.kind === 'none') this.#state = FAILED_HERE;
  }

  /** A block that was lost: the client is told now. */
  lossTold(): void {
    assert(this.#state.kind === 'lost', 'a loss is told once');
    this.#state = FAILED_HERE;
  }
}
