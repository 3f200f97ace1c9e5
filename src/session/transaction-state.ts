// What a client's transaction block can be (D27); what each state means is told in transaction.ts, which alone changes it.
import type { Template } from '../sql/plan/template.js';
import { TransactionStatus } from '../wire/protocol.js';
import { type BlockSettings, bothSettings, settingsOf } from './block-settings.js';
import type { BranchScript } from './branch-script.js';
import { isRead, type Prologue, type PrologueStatement, prologueOf, type Say } from './prologue.js';

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
      /** Those on further shards (D31): it has several branches. */
      readonly others: readonly Branch[];
      /** What a further one is opened with; null: while it can move, and where that is not known. */
      readonly script: BranchScript | null;
    }
  | { readonly kind: 'ending'; readonly branch: Branch; readonly how: 'commit' | 'rollback' }
  | {
      readonly kind: 'failed';
      readonly branch: Branch | null;
      readonly prologue: Prologue | null;
      /** As while it was open, for when it goes on from a savepoint. */
      readonly others: readonly Branch[];
      readonly script: BranchScript | null;
      readonly sets: BlockSettings;
      /**
       * Where no server has it any more: what was said in it. What AND CHAIN hands on hangs on its options and on its savepoints, behind
       * which servers still know them. Null: it is not known.
       */
      readonly begin: readonly PrologueStatement[] | null;
    }
  | { readonly kind: 'lost'; readonly begin: readonly PrologueStatement[] | null };

export type TransactionPhase = TransactionState<unknown>['kind'];

/** The command tag of one COMMIT or ROLLBACK behind which no block is open; null: it is something else. */
export function endTag({ kind, leavesBlock }: Template): 'COMMIT' | 'ROLLBACK' | null {
  if (leavesBlock !== 'closed' || (kind !== 'commit' && kind !== 'rollback')) return null;
  return kind === 'commit' ? 'COMMIT' : 'ROLLBACK';
}

export const STATUS: Readonly<Record<TransactionPhase, number>> = {
  none: TransactionStatus.idle,
  held: TransactionStatus.open,
  open: TransactionStatus.open,
  ending: TransactionStatus.open,
  failed: TransactionStatus.failed,
  // The client has not been told.
  lost: TransactionStatus.open,
};

export const NONE = { kind: 'none' } as const;
export const NOBODY: readonly never[] = [];
/** A block of which no more is known than that a server has it. */
export const UNKNOWN = {
  prologue: null,
  readCommitted: false,
  sets: 'anything',
  isSure: true,
  isImplicit: false,
  others: NOBODY,
  script: null,
} as const;
export const FAILED = {
  kind: 'failed',
  branch: null,
  prologue: null,
  others: NOBODY,
  script: null,
  sets: 'anything',
  begin: null,
} as const;

/**
 * A block of which no server is left.
 * @param isTold the client knows
 * @param done how much of its prologue is
 */
export function leftBehind<Branch>(
  state: TransactionState<Branch>,
  isTold: boolean,
  done = 0,
): TransactionState<Branch> & { kind: 'failed' | 'lost' } {
  const begin = saidIn(state, done);
  return isTold ? { ...FAILED, begin } : { kind: 'lost', begin };
}

function saidIn<Branch>(state: TransactionState<Branch>, done: number): readonly PrologueStatement[] | null {
  if (state.kind === 'lost') return state.begin;
  if (state.kind === 'failed') return state.begin ?? state.prologue ?? state.script?.statements ?? null;
  if (state.kind !== 'open') return null;
  if (state.prologue === null) return state.script?.statements ?? null;
  const said = state.prologue.slice(0, done).filter((one) => !isRead(one));
  return said.length === 0 ? null : said;
}

/** A block that is begun by what is sent on `branch`. @param before see Transaction.sent */
export function begunBy<Branch>(
  template: Template,
  text: string,
  branch: Branch,
  before: Prologue | null,
  say: Say,
): TransactionState<Branch> {
  const isSaid = template.movable && before !== null;
  const prologue = isSaid ? prologueOf(before, template, text, say(template, text)) : null;
  const isOther = template.setsOtherIsolation || before?.some((one) => one.template.setsOtherIsolation) === true;
  const readCommitted = prologue !== null && !isOther;
  const sets = [template, ...(before ?? []).map((one) => one.template)].map(settingsOf).reduce(bothSettings);
  const isSure = template.kind === 'begin';
  return {
    kind: 'open',
    branch,
    prologue,
    readCommitted,
    sets,
    isSure,
    isImplicit: false,
    others: NOBODY,
    script: null,
  };
}
