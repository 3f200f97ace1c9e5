// The client's block on several shards (D31): turns to the branch that a statement needs, has all branches do what is for the
// block as a whole (savepoints, settings, its end), and ends those of a block that is lost. What the block is stands in the
// Transaction; what each branch is at, in its lane. No message is taken while a branch other than the current lane's is at work.
// Invariants: what is for all branches is done on the others first, and by the current lane's server for the client; nothing is
// sent on a branch unless all of them are there: what follows would be committed by itself.
import type { ServerLoss } from '../../backend/replies/reply-receiver.js';
import { assert } from '../../base/assert.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { BlockCommit } from '../../execute/two-phase/block-commit.js';
import type { PrologueStatement, Say } from '../../session/prologue.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import { encodeError } from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import { AskedLanes } from './asked-lanes.js';
import { BlockMark } from './block-mark.js';
import { roleInBlock } from './block-role.js';
import { branchObstacle } from './branch-obstacle.js';
import { BranchOpening } from './branch-opening.js';
import type { ExchangeContext } from './exchange-context.js';
import { commitOf } from './lane-branches.js';
import type { OwnAnswers } from './own-answers.js';
import type { OwnPortals } from './own-portals.js';
import { RestingLanes } from './resting-lanes.js';

const { idle, failed, open } = TransactionStatus;
const LOST = new PgkvError('transaction_lost');

/** What became of what a unit waited for. */
type Awaited =
  /** Done on all others; `lane` is to do it for the client. */
  | { readonly kind: 'said' | 'rolled back'; readonly lane: LeasedLane }
  | { readonly kind: 'failed'; readonly error: Buffer };

/** Behind what was said on all branches they wait for the answer, which tells whether all stand alike. */
const AWAIT_ANSWER: ReadonlySet<number> = new Set([Frontend.query, Frontend.parse, Frontend.bind]);

export class BlockBranches implements Exchange<Unit> {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  readonly #say: Say;
  readonly #asked = new AskedLanes();
  readonly #opening: BranchOpening;
  readonly #mark: BlockMark;
  /** Up to when the unit is taken again, and done with. */
  #awaited: Awaited | null = null;
  /** What was done on all others was sent on this one, whose answer tells whether it has done the same. */
  #unjudged: Exclude<Awaited, { kind: 'failed' }> | null = null;
  readonly #resting: RestingLanes;
  #commit: BlockCommit | null = null;
  /** Is to be set and marked again: the lane had that behind the savepoint that it went back to. */
  #unmarked: LeasedLane | null = null;

  constructor(context: ExchangeContext, answers: OwnAnswers, portals: OwnPortals, say: Say) {
    this.#context = context;
    this.#answers = answers;
    this.#portals = portals;
    this.#say = say;
    this.#mark = new BlockMark(context, this.#asked);
    this.#resting = new RestingLanes(context);
    this.#opening = new BranchOpening(context, this.#asked, this.#mark, {
      opened: (target, error) => this.#opened(target, error),
      begun: () => this.#goOn(null),
    });
    context.lent.onLost = (lane) => this.#loseBranch(lane);
    context.lent.onReleased = (lanes) => this.#resting.restAll(lanes);
  }

  get busy(): boolean {
    const isAtWork = this.#asked.busy || this.#commit !== null || this.#opening.isWaiting;
    return isAtWork || this.#resting.busy || this.#context.lent.areLanding;
  }

  get isCommitting(): boolean {
    return this.#commit !== null;
  }

  take(): Handling {
    return 'wait';
  }

  cancel(): void {
    if (this.#commit !== null) return this.#commit.cancel();
    this.#opening.cancel();
    this.#asked.cancel();
  }

  drained(): void {
    // It sends no rows.
  }

  /** Of a lane whose losses it hears of. */
  lost(_loss: ServerLoss, lane: LeasedLane): void {
    if (this.#commit === null) this.#loseBranch(lane);
    this.#asked.answer(lane, null);
    this.#context.lent.landed();
  }

  #loseBranch(lane: LeasedLane): void {
    const { transaction } = this.#context;
    if (!transaction.branches.includes(lane)) return;
    if (lane === transaction.branches[0]) transaction.lose(false);
    else transaction.loseFurther(lane);
    this.endOrphans();
  }

  abandon(): void {
    this.#mark.abandon();
    this.#opening.abandon();
    this.#asked.abandon(this.#context.services.clock);
  }

  /** Whether it hears of the lane's loss in place of whoever has the current one. */
  hearsOf(lane: LeasedLane): boolean {
    if (this.#asked.has(lane) || this.#context.lent.has(lane)) return true;
    return this.#commit !== null && this.#context.transaction.branches.includes(lane);
  }

  /** Those of a block that is lost are rolled back. */
  endOrphans(): void {
    const { transaction } = this.#context;
    if (this.#opening.isOpen && transaction.phase !== 'open' && transaction.phase !== 'held') this.#opening.stop();
    const orphans = transaction.takeOrphans();
    if (orphans.length === 0) return;
    this.#resting.undisturbed(() => {
      for (const lane of orphans) {
        this.#resting.rest(lane);
        this.#asked.answer(lane, null);
      }
    });
  }

  /** The message at hand is done with. */
  taken(): void {
    const awaited = this.#awaited;
    if (awaited === null) return;
    this.#awaited = null;
    if (awaited.kind === 'failed') return;
    this.#unjudged = awaited;
    // What stands behind the end of the block, in its text, may fail by itself.
    const { connection } = awaited.lane;
    if (awaited.kind === 'rolled back' && connection !== null) connection.watchTags = true;
  }

  /** The current lane's server has executed something: the end of the block, if it is that which was sent. */
  executed(): void {
    if (this.#unjudged?.kind === 'rolled back') this.#unjudged = null;
  }

  /**
   * What all branches have to do before the unit is handled; null: nothing.
   * @returns `said`: all but the current one have done it; an error: its server is to word what is wrong with the text, if anything is
   */
  before(unit: Unit): Handling | 'said' | PgkvError | null {
    const { transaction, lanes, reader } = this.#context;
    const awaited = this.#awaited;
    if (awaited?.kind === 'failed') return this.#refuse(unit, awaited.error);
    const isAwaited = this.#unjudged !== null && AWAIT_ANSWER.has(unit.type) && transaction.phase !== 'ending';
    if (isAwaited && !this.#settled()) return 'wait';
    if (!transaction.isSpread) return null;
    if (awaited !== null) {
      assert(
        lanes.current === awaited.lane,
        'what was said on all other branches is said on the one that was left out',
      );
      return 'said';
    }
    const role = roleInBlock(unit, transaction.phase === 'failed', !reader.ended);
    switch (role.kind) {
      case 'wait':
        return 'wait';
      case 'own':
        if (!this.#isUnmarked() || lanes.current.connection!.replies.unsynced()) return null;
        this.#markAgain(lanes.current);
        return 'wait';
      case 'refused': {
        const error = refusalError(refuse('leaves_shard', { why: role.why }));
        if (unit.type !== Frontend.query || unit.template.kind !== 'unparsed') return this.#answers.refuse(unit, error);
        return this.#settled() ? error : 'wait';
      }
      default:
        return this.#settled() ? this.#onAll(unit, role.kind) : 'wait';
    }
  }

  /** The current lane has no mark: it had that behind the savepoint that it went back to. */
  #isUnmarked(): boolean {
    const { lanes, transaction } = this.#context;
    const lane = lanes.current;
    return this.#unmarked === lane && transaction.phase === 'open' && lane.connection?.replies.length === 0;
  }

  #markAgain(lane: LeasedLane): void {
    this.#unmarked = null;
    this.#asked.ask(lane, [this.#mark.settings], () => this.#goOn(null));
  }

  /** Ends what is open of the batch, so that it is known where the block stands. @returns nothing is owed */
  #settled(): boolean {
    const { lanes, batch, transaction } = this.#context;
    const lane = lanes.current;
    const { connection } = lane;
    if (connection === null) return true;
    if (connection.replies.unsynced()) {
      batch.begunElsewhere(true);
      lane.block.endSegment((errorTold) => {
        if (errorTold) batch.failedOnServer();
        transaction.answered(connection.status, lane);
      });
      return false;
    }
    return connection.replies.length === 0;
  }

  /** A branch was lost while the block was at another one, or has failed where that has not. @returns the block is lost */
  checkLoss(): boolean {
    const { transaction, lanes } = this.#context;
    if (this.#opening.isOpen) this.endOrphans();
    if (this.#unjudged !== null && this.#standsApart()) {
      const lane = lanes.current;
      // The client was told the error.
      transaction.lose(true);
      this.#resting.rest(lane);
      this.endOrphans();
      return true;
    }
    if (!transaction.isSpread || (lanes.current.connection?.replies.length ?? 1) > 0) return false;
    // In an open batch the current one may have failed as well, which is known behind the Sync.
    const isKnown = this.#awaited === null && lanes.current.connection?.replies.unsynced() === false;
    const isOpen = transaction.phase === 'open' && isKnown;
    const lost = transaction.branches.slice(1).find(({ connection }) => {
      return connection === null || connection.status === idle || (isOpen && connection.status === failed);
    });
    if (lost === undefined) return false;
    transaction.loseFurther(lost);
    this.#resting.rest(lost);
    this.endOrphans();
    return true;
  }

  /** What is done on all other branches has failed on the current one, as by a cancel. */
  #standsApart(): boolean {
    const { transaction } = this.#context;
    const { kind, lane } = this.#unjudged!;
    const { connection } = lane;
    if (connection !== null && (connection.replies.length > 0 || connection.replies.unsynced())) return false;
    this.#unjudged = null;
    const [current, ...others] = transaction.branches;
    if (transaction.phase !== 'failed' || current !== lane) return false;
    return kind === 'rolled back' || others.some((other) => other.connection?.status === open);
  }

  #refuse(unit: Unit, error: Buffer): Handling {
    const { transaction, lanes } = this.#context;
    // Its server has told what failed there to pgkv, not to the client.
    if (transaction.phase === 'failed' && lanes.current.connection?.replies.length === 0) {
      this.#answers.error(unit.type, error);
      return 'taken';
    }
    return this.#answers.refuse(unit, error);
  }

  #onAll(unit: Unit, role: 'on all' | 'rolls back'): Handling {
    const { transaction } = this.#context;
    const [lane, ...others] = transaction.branches as [LeasedLane, ...LeasedLane[]];
    if (role === 'rolls back') {
      this.#asked.rollBack(others, () => {
        // Lost meanwhile, it is ended already.
        if (!transaction.isSpread) return this.#goOn(null);
        transaction.gathered();
        this.#awaited = { kind: 'rolled back', lane };
        this.#resting.restAll(others);
      });
      return 'wait';
    }
    const { template, text } = unit;
    assert(template.leavesBlock !== 'closed', 'each branch would end by itself');
    const said: PrologueStatement = { template, text, said: this.#say(template, text) };
    // What fails here fails on the current lane's server as well, which tells the client. Settings and mark are had again behind it.
    this.#asked.askAll(others, [said, this.#mark.settings], () => {
      this.#unmarked = lane;
      this.#goOn({ kind: 'said', lane });
    });
    return 'wait';
  }

  /** Messages are taken again. */
  #goOn(awaited: Awaited | null): void {
    this.#awaited = awaited;
    this.#context.resume();
  }

  /** Why the block can have no branch there; null: it can. Nothing is owed. */
  obstacle(why: string): PgkvError | null {
    return branchObstacle(this.#context, why);
  }

  /** A block that could still go to any shard is begun on the current lane, and stays there. @returns it is */
  begin(): 'ready' | 'wait' | Buffer {
    const { transaction, lanes } = this.#context;
    if (transaction.phase === 'held') return this.#opening.open(lanes.current);
    transaction.bound();
    return 'ready';
  }

  /** The block goes on on `target`, of which nothing stands in the way, and nothing is owed. @returns it can do so at once */
  reach(target: LeasedLane): 'ready' | 'wait' | Buffer {
    const { transaction, lanes } = this.#context;
    if (transaction.branches.includes(target)) {
      transaction.turned(target);
      this.#portals.leave();
      lanes.current = target;
      target.block.tell();
      if (!this.#isUnmarked()) return 'ready';
      this.#markAgain(target);
      return 'wait';
    }
    return this.#opening.open(target);
  }

  /** A connection cannot be had. @returns it is asked for by the message at hand, which is answered with this */
  refused(bytes: Buffer): boolean {
    return this.#opening.refused(bytes);
  }

  #opened(target: LeasedLane, error: Buffer | null): void {
    const { transaction, lanes } = this.#context;
    if (error !== null) return this.#notOpened(target, error);
    // The current one may have been lost meanwhile.
    if (transaction.phase !== 'open' || transaction.script === null) return this.#resting.restAll([target]);
    transaction.spread(target);
    this.#mark.spread();
    this.#portals.leave();
    lanes.current = target;
    target.block.tell();
    this.#goOn(null);
  }

  #notOpened(target: LeasedLane, error: Buffer): void {
    const { phase } = this.#context.transaction;
    this.#awaited = phase === 'open' || phase === 'failed' ? { kind: 'failed', error } : null;
    this.#resting.undisturbed(() => {
      // Where its BEGIN has failed, as by a cancel, what was said behind it was said by itself.
      if (target.connection?.status === idle) target.block.discard('a block could not be begun on it');
      else this.#resting.rest(target);
    });
  }

  /** COMMIT of a block that has several branches. @param done hears of the error; null: it is committed */
  commit(done: (error: Buffer | null) => void): void {
    const { transaction } = this.#context;
    if (this.checkLoss()) {
      transaction.lossTold();
      transaction.endedHere();
      return done(encodeError(LOST, 'ERROR'));
    }
    const lanes = transaction.branches;
    this.#commit = commitOf(this.#context, this.#asked, (error) => {
      this.#commit = null;
      this.#resting.awaitChecks(lanes);
      done(error);
    });
    this.#commit.start();
  }
}
