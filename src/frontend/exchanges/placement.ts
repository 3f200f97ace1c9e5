// Chooses the lane for each message of a conversation: by the keys of its statement, by the transaction block or batch
// that is open, and else the home shard. It moves the conversation from one lane to another when nothing is owed there,
// so that answers stay in the client's order; where a transaction would have to leave its shard, it refuses (D13).
// Invariant: while a block is open on a branch, that is the current lane.
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { ClientBatch } from '../../execute/exchange.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import {
  isReadToParse,
  NOTHING_SAID,
  onlyReads,
  type Prologue,
  readBehind,
  type Say,
  saidBehind,
} from '../../session/prologue.js';
import type { Session } from '../../session/session.js';
import type { Transaction } from '../../session/transaction.js';
import { leftBehind } from '../../session/transaction-state.js';
import { Effect, type StatementKind, type Template } from '../../sql/plan/template.js';
import { Frontend } from '../../wire/protocol.js';
import type { KvStatements } from '../unit/kv-statements.js';
import { beginsRun } from '../unit/single-batch.js';
import type { Unit } from '../unit/unit.js';
import type { BlockBranches } from './block-branches.js';
import { isUntold, readsSnapshots, seesCommitted, UNTOLD } from './block-snapshots.js';
import type { ExchangeContext } from './exchange-context.js';
import type { OwnPortals } from './own-portals.js';

/** The current lane is the right one; or the message has to wait until messages are taken again; or it cannot be served. */
export type Placement = 'ready' | 'wait' | PgkvError | Buffer;

const LEAVES_SHARD = (why: string): PgkvError => refusalError(refuse('leaves_shard', { why }));

/** Statements of the block itself: they go where it is. */
const ofBlock = ({ neutral, kinds }: Template): boolean => neutral || kinds.every((kind) => BLOCK_KINDS.has(kind));

const BLOCK_KINDS: ReadonlySet<StatementKind> = new Set(['begin', 'commit', 'rollback', 'savepoint', 'set', 'show']);

/** It is run, and all the same to it whether it is the first of its batch. */
const isAlikeIfFirst = ({ kind }: Template, { buffer, start }: Unit): boolean =>
  (kind === 'read' || kind === 'write') && beginsRun(buffer, start);

export class ShardPlacement {
  readonly #session: Session;
  readonly #lanes: SessionLanes;
  readonly #transaction: Transaction<LeasedLane>;
  readonly #batch: ClientBatch;
  readonly #portals: OwnPortals;
  readonly #kv: KvStatements;
  readonly #say: Say;
  readonly #branches: BlockBranches;
  /**
   * What statements of the open batch, outside a block, have done on the current lane, for a BEGIN behind them; null: something
   * that cannot be said again. With more than reads in it the batch's implicit transaction cannot be split.
   */
  #batchSaid: Prologue | null = NOTHING_SAID;
  /** What statements of the open batch have come to on the current lane: they were bound, or executed. */
  #batchCame: 'nowhere' | 'bound' | 'run' = 'nowhere';
  /** What was sent before the open batch, or the query at hand, has set something that the session does not know of. */
  #settingsAreUnknown = false;
  /** A simple query was sent in the midst of the open batch, and has not been answered, as far as anyone has asked. */
  #queryInBatch = false;

  /** @param say the statement at hand, once more */
  constructor(
    { session, lanes, transaction, batch, kv }: ExchangeContext,
    portals: OwnPortals,
    say: Say,
    branches: BlockBranches,
  ) {
    this.#say = say;
    this.#branches = branches;
    this.#session = session;
    this.#lanes = lanes;
    this.#transaction = transaction;
    this.#batch = batch;
    this.#kv = kv;
    this.#portals = portals;
  }

  /** Where a statement that names no key-value table belongs. */
  laneFor(template: Template): LeasedLane {
    const { current, home } = this.#lanes;
    if (!current.busy || template.readsCatalogue) return home;
    const isTextOfBlock = template.kind === 'multi' && template.movable;
    if (ofBlock(template) || (isTextOfBlock && (template.effects & Effect.state) === 0)) return current;
    // What the session holds is given up where it is held; control of the block may stand beside that.
    const mayStay = template.releases || isTextOfBlock;
    // What the block has left there is not asked for before its end.
    const isHeldAtHome = this.#transaction.branches.includes(home) ? home.holdsState : home.pins.length > 0;
    return mayStay && (home === current || !isHeldAtHome) ? current : home;
  }

  /** Whether messages of the extended protocol were sent on the current lane and no Sync behind them yet. */
  get batchOpen(): boolean {
    return this.#lanes.current.connection?.replies.unsynced() === true;
  }

  /** A server has said that the block has failed, and nothing that may end that is under way. */
  get blockFailed(): boolean {
    const { state } = this.#transaction;
    return state.kind === 'failed' && state.branch !== null;
  }

  /** A block has failed that no server had yet. */
  get failedUnopened(): boolean {
    const { state } = this.#transaction;
    return state.kind === 'failed' && state.branch === null && state.prologue !== null;
  }

  /**
   * The text ends the failed block and goes on behind that, which may belong anywhere: its server is left, and whoever gets
   * the text opens a failed block for it first. Messages are taken again.
   */
  leaveFailed(): 'wait' {
    const lane = this.#lanes.current;
    if (lane.connection !== null && lane.connection.replies.length > 0) return 'wait';
    this.#transaction.leftFailed();
    lane.block.leave();
    return 'wait';
  }

  /** The text ends a failed block that no server has, or is to have, and hands on what hangs on statements that are not known. */
  losesOptions({ template, text }: Unit): boolean {
    const { state } = this.#transaction;
    const hands = template.endsFailure && template.leavesBlock === 'open' && /(?<!\bno\s+)\bchain\b/i.test(text);
    const isFailed = state.kind === 'failed' || state.kind === 'lost';
    return hands && isFailed && leftBehind(state, true).begin === null;
  }

  /** A block is open on another shard than home. */
  get openElsewhere(): boolean {
    const { state } = this.#transaction;
    return state.kind === 'open' && state.branch !== this.#lanes.home && !state.others.includes(this.#lanes.home);
  }

  /**
   * Whether a read of home's catalogues may run beside the block that is open elsewhere, which cannot have changed them. It runs as
   * a session of its own, under what the block's server says is set in it, and without temporary tables, cursors and the like.
   */
  mayReadBeside(): PgkvError | null {
    const { home } = this.#lanes;
    const refused = (why: string): PgkvError =>
      LEAVES_SHARD(`the statement reads catalogues, which are those of the home shard, ${why}`);
    if (!this.#isReadCommitted) return refused('and would not see them as the transaction does');
    if (!this.#settingsCanBeHad) return refused('and would not run there under the settings of the transaction');
    return home.holdsState ? refused('and would not see what the session holds there') : null;
  }

  /** What is set in the block can be asked for; values that are not UTF-8 would be misread. */
  get #settingsCanBeHad(): boolean {
    const { settings } = this.#transaction;
    return settings === 'nothing' || (settings !== 'anything' && this.#kv.reading.encoding.isUtf8);
  }

  /** Each statement of the block sees what was committed before it. */
  get #isReadCommitted(): boolean {
    return seesCommitted(this.#transaction, this.#session);
  }

  /** One of each shard: it gets a branch on each that it reads. */
  get readsSnapshots(): boolean {
    return readsSnapshots(this.#transaction, this.#session);
  }

  /**
   * What follows the end of a block, or a text that may have begun one, in another batch waits for the answer: it decides
   * where that runs, and what the loss of what is owed means (of one block, see lost-answers.ts). So does what follows a simple
   * query in the midst of a batch, which may have ended the batch's transaction.
   */
  get edgeIsOpen(): boolean {
    const { connection } = this.#lanes.current;
    const { state } = this.#transaction;
    if (this.#queryInBatch) {
      const isAwaited = connection !== null && connection.replies.length > 0 && !connection.replies.skipping;
      if (isAwaited) return !connection.copyIn;
      this.#queryInBatch = false;
    }
    const isOpen = state.kind === 'ending' || (state.kind === 'open' && (!state.isSure || state.isImplicit));
    if (connection === null || !isOpen) return false;
    return connection.replies.length > 0 && this.#batch.begins;
  }

  /**
   * A block that is about to begin behind settings that are under way waits until they are known: its branches are opened under
   * the session's.
   */
  awaitsSettings({ template }: Unit): boolean {
    if (this.batchOpen || this.#transaction.inBlock) return false;
    const { connection, block } = this.#lanes.current;
    this.#settingsAreUnknown = connection !== null && block.settingsAreUnknown && this.#kv.view.shards.length > 1;
    return this.#settingsAreUnknown && template.leavesBlock === 'open' && connection!.replies.length > 0;
  }

  /** A statement is about to be sent on the current lane: opens there what block there is, and notes what becomes of it. */
  sending(template: Template, text: string): void {
    const transaction = this.#transaction;
    const lane = this.#lanes.current;
    const { state } = transaction;
    if (state.kind === 'held') lane.block.open(transaction.opened(lane));
    else if (state.kind === 'lost' || (state.kind === 'failed' && state.branch === null)) {
      const { begin } = leftBehind(state, true);
      if (state.kind === 'lost') transaction.lossTold();
      lane.block.openFailed(state.kind === 'failed' ? (state.prologue ?? begin) : begin);
      transaction.reopened(lane);
    }
    const comesBack = this.#comesBack(template);
    transaction.sent(template, text, lane, template.leavesBlock === 'open' ? this.#before() : null);
    // A block that begins has taken over what stands before it; what stands before the end of one is decided by that.
    if (template.leavesBlock !== null) this.#batchSaid = NOTHING_SAID;
    if (comesBack || this.#bindsSnapshot(template)) transaction.bound();
  }

  /** The block has a snapshot of the shard behind it, which is gone elsewhere. */
  #bindsSnapshot({ takesSnapshot }: Template): boolean {
    return takesSnapshot && this.#transaction.movable && this.readsSnapshots;
  }

  /** The statement is one of an extended batch. */
  sendingBound(template: Template, text: string): void {
    const ends = template.leavesBlock === 'closed';
    if (ends) this.#batchCame = 'nowhere';
    else if (this.#batchCame === 'nowhere') this.#batchCame = 'bound';
    if (ends) this.#batch.transactionEnded();
    else if (!this.#transaction.inBlock && this.#batchSaid !== null) {
      const isSaidAgain = template.readOnly || (template.movable && !this.#comesBack(template));
      this.#batchSaid = isSaidAgain ? saidBehind(this.#batchSaid, template, text, this.#say) : null;
    }
  }

  /** A portal that has a statement is about to be executed on the current lane. */
  sendingExecute(): void {
    this.#batchCame = 'run';
  }

  /** Something of the open batch was executed, here or elsewhere. */
  get batchHasRun(): boolean {
    return this.#batchCame === 'run' || this.#batch.hasRun;
  }

  /** A statement is about to be parsed on the current lane. */
  sendingParsed(template: Template): void {
    if (!isReadToParse(template)) return;
    if (this.#transaction.inBlock) {
      this.#transaction.noteRead();
      // To parse a read takes the snapshot, too.
      if (this.#bindsSnapshot(template)) this.#transaction.bound();
    } else if (this.#batchSaid !== null) this.#batchSaid = readBehind(this.#batchSaid);
  }

  /** What a block that begins now holds. What has run elsewhere in its batch were reads (D12). */
  #before(): Prologue | null {
    if (this.#portals.haveNamesThere || this.#settingsAreUnknown) return null;
    const said = this.#batchSaid;
    return said !== null && this.#batch.hasBegunElsewhere ? [...readBehind(NOTHING_SAID), ...said] : said;
  }

  /** It gives up what the session may hold here, up to the end of the transaction, which decides: that has to be here. */
  #comesBack({ releasesUntilEnd }: Template): boolean {
    return releasesUntilEnd && this.#lanes.current.holdsState;
  }

  /** A simple query or FunctionCall is about to be sent: its ReadyForQuery tells of its batch's transaction, too. */
  sendingQuery(): void {
    this.#tellOfBatch();
    this.#queryInBatch = !this.#batch.begins || this.#batch.hasBegunElsewhere;
  }

  /** The same of a message of the extended protocol. */
  sendingMessage(template: Template, unit: Unit): void {
    if (unit.type !== Frontend.execute && !isAlikeIfFirst(template, unit)) this.#tellOfBatch();
  }

  /** What is about to be sent is not the first of its batch: a server that cannot know is told. */
  #tellOfBatch(): void {
    if (!this.#batch.hasRunUntold || this.#transaction.inBlock || this.batchOpen) return;
    this.#lanes.current.connection!.beginPipeline();
    this.#batch.toldServer();
  }

  /** The transaction of the open batch ends: with its Sync, or with a simple query in the midst of it. */
  endBatch(): void {
    this.#batchSaid = NOTHING_SAID;
    this.#batchCame = 'nowhere';
    this.#queryInBatch = false;
  }

  /**
   * Makes `target` the current lane.
   * @param why it has to be that one
   */
  move(target: LeasedLane, why: string): Placement {
    const lane = this.#lanes.current;
    if (lane === target) return 'ready';
    const { connection } = lane;
    if (lane.mode === 'free' || connection === null) return this.#take(target);
    if (this.blockFailed) return LEAVES_SHARD(why);
    const { state } = this.#transaction;
    const isBound = state.kind === 'open' && state.prologue === null;
    const ended = this.endSegment(why, isBound && this.#kv.view.clusterId !== null);
    if (ended !== null) return ended;
    if (isBound) {
      const isBranch = state.others.includes(target);
      const obstacle = isBranch ? null : this.#branches.obstacle(why);
      if (obstacle !== null) return obstacle;
      return this.#branches.reach(target);
    }
    if (state.kind === 'open') {
      this.#portals.leave();
      this.#transaction.moved();
      lane.block.leave();
      return 'wait';
    }
    lane.restIfUnused();
    return lane.mode === 'preparing' ? 'wait' : this.#take(target);
  }

  /**
   * Ends the open batch here, so that what follows can run elsewhere; null: nothing is owed any more.
   * @param beside the block goes on here behind it: a Sync in a block ends nothing
   */
  endSegment(why: string, beside = false): 'wait' | PgkvError | null {
    const lane = this.#lanes.current;
    const { connection } = lane;
    if (connection === null) return null;
    if (!connection.replies.unsynced()) return connection.replies.length > 0 ? 'wait' : null;
    const { state } = this.#transaction;
    const inBlock = state.kind === 'open';
    const isBound = inBlock ? state.prologue === null : this.#batchSaid === null || !onlyReads(this.#batchSaid);
    const leaves = isBound && !(beside && inBlock && !state.isImplicit);
    if (leaves || connection.copyIn) return LEAVES_SHARD(why);
    if (!inBlock && !this.#portals.mayLeave) return LEAVES_SHARD('too many portals are open on it');
    if (!inBlock) this.#portals.leave();
    if (this.#batchCame !== 'nowhere' || this.#batch.hasBegunElsewhere)
      this.#batch.begunElsewhere(this.#batchCame === 'run');
    if (!inBlock) this.endBatch();
    lane.block.endSegment((errorTold) => {
      if (errorTold) this.#batch.failedOnServer();
      this.#transaction.answered(connection.status, lane);
    });
    return 'wait';
  }

  /**
   * Where a read over several shards runs: it must not miss anything the block has done. Where the block has no branch, `beside` it,
   * unless it has settings of its own, which are those of its branches alone.
   */
  scattered(): 'beside' | 'on branches' | PgkvError {
    const transaction = this.#transaction;
    // Behind the end of a block, in the same batch, there is none any more.
    if (!transaction.inBlock || transaction.phase === 'ending') return 'beside';
    // Where the client does not know yet that it is lost, that is what it is told.
    if (transaction.phase === 'failed' || transaction.phase === 'lost') return new PgkvError('transaction_failed');
    if (this.#isReadCommitted) return transaction.settings === 'nothing' ? 'beside' : 'on branches';
    if (this.readsSnapshots) return 'on branches';
    if (isUntold(transaction)) return LEAVES_SHARD(UNTOLD);
    return LEAVES_SHARD('a read over several shards has no common snapshot, as this isolation level would need');
  }

  #take(target: LeasedLane): Placement {
    this.#lanes.current = target;
    return target.takeUp() ? 'ready' : 'wait';
  }
}
