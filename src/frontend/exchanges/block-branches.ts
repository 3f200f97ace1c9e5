// The client's block on several shards (D31): opens a further branch where a statement needs one, has all branches do what is for the
// block as a whole (savepoints, settings, its end), and ends those of a block that is lost. What the block is stands in the
// Transaction; what each branch is at, in its lane. No message is taken while a branch other than the current lane's is at work.
// Invariants: what is for all branches is done on the others first, and by the current lane's server for the client; nothing is
// sent on a branch unless all of them are there: what follows would be committed by itself.
import type { ServerLoss } from '../../backend/replies/reply-receiver.js';
import type { Timer } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import type { BlockAnswer, BlockQuestion } from '../../execute/leased/lane-block.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { BlockCommit } from '../../execute/two-phase/block-commit.js';
import type { LaneAsker, Told } from '../../execute/two-phase/lane-branch.js';
import { BEGIN_BRANCH, BRANCH_SETTINGS } from '../../execute/two-phase/write-branch.js';
import type { PrologueStatement, Say } from '../../session/prologue.js';
import { NEUTRAL_TEMPLATE } from '../../sql/plan/template.js';
import { TransactionStatus } from '../../wire/protocol.js';
import { encodeError } from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import { roleInBlock } from './block-role.js';
import { failureOf, unable } from './branch-failure.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';
import { laneBranch } from './lane-branches.js';
import type { OwnAnswers } from './own-answers.js';
import type { OwnPortals } from './own-portals.js';

/**
 * How long a further branch waits for a connection: others may wait for those that this block holds. As long as it waits for a lock
 * (BRANCH_SETTINGS), for the same reason.
 */
const CONNECTION_WAIT_MS = 5_000;
const NO_CONNECTION = new PgkvError('pool_wait_timeout', {
  detail: 'a transaction that has a connection to one shard waits 5 s for one to another: both may be needed by others',
});
const { idle, failed } = TransactionStatus;
const LOST = new PgkvError('transaction_lost');

/** `asked`: a lane is asked for a connection right now; bytes: it has refused. */
type Refusal = 'none' | 'asked' | Buffer;
/** What a unit waited for. */
type Awaited = { readonly kind: 'done' } | { readonly kind: 'failed'; readonly error: Buffer };

export class BlockBranches implements Exchange<Unit> {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  readonly #say: Say;
  /** Lanes that were asked something, and who hears of the answers. */
  readonly #asked = new Map<LeasedLane, Told>();
  /** Waits for a connection, or for its server to begin. */
  #opening: LeasedLane | null = null;
  #deadline: Timer | null = null;
  /** What became of it, up to when the unit is taken again. */
  #awaited: Awaited | null = null;
  #commit: BlockCommit | null = null;
  #refusal: Refusal = 'none';
  /** What bounds its waiting for locks is to be set again: the lane had it set behind the savepoint that it went back to. */
  #unbounded: LeasedLane | null = null;

  constructor(context: ExchangeContext, answers: OwnAnswers, portals: OwnPortals, say: Say) {
    this.#context = context;
    this.#answers = answers;
    this.#portals = portals;
    this.#say = say;
  }

  get busy(): boolean {
    return this.#asked.size > 0 || this.#commit !== null || this.#isWaiting;
  }

  get #isWaiting(): boolean {
    const mode = this.#opening?.mode;
    return mode === 'waiting' || mode === 'preparing';
  }

  take(unit: Unit): Handling {
    return this.before(unit) ?? 'wait';
  }

  cancel(): void {
    if (this.#commit !== null) return this.#commit.cancel();
    if (this.#isWaiting) this.#opening!.cancel();
    for (const lane of this.#asked.keys()) lane.cancel();
  }

  drained(): void {
    // It sends no rows.
  }

  /** Of a lane whose losses it hears of. */
  lost(_loss: ServerLoss, lane: LeasedLane): void {
    const { transaction } = this.#context;
    if (this.#commit === null && transaction.branches.includes(lane)) {
      if (lane === transaction.branches[0]) transaction.lose(false);
      else transaction.loseFurther(lane);
      this.endOrphans();
    }
    this.#answer(lane, null);
  }

  abandon(): void {
    this.#deadline?.cancel();
    // What is being committed goes on: as lost where its connections are closed.
    for (const lane of [...this.#asked.keys()]) this.#context.services.clock.after(0, () => this.#answer(lane, null));
  }

  /** Whether it hears of the lane's loss in place of whoever has the current one. */
  hearsOf(lane: LeasedLane): boolean {
    return this.#asked.has(lane) || (this.#commit !== null && this.#context.transaction.branches.includes(lane));
  }

  /** Those of a block that is lost are rolled back. */
  endOrphans(): void {
    for (const lane of this.#context.transaction.takeOrphans()) {
      if (lane.mode === 'leased' && lane.connection !== null) lane.block.leave();
      this.#answer(lane, null);
    }
  }

  /** What all branches have to do before the unit is handled; null: nothing. */
  before(unit: Unit): Handling | null {
    const { transaction, lanes } = this.#context;
    const awaited = this.#awaited;
    this.#awaited = null;
    if (awaited?.kind === 'failed') return this.#refuse(unit, awaited.error);
    if (!transaction.isSpread || awaited !== null) return null;
    const role = roleInBlock(unit, transaction.phase === 'failed');
    if (role.kind === 'own') {
      if (!this.#isUnbounded() || lanes.current.connection!.replies.unsynced()) return null;
      this.#bound(lanes.current);
      return 'wait';
    }
    if (role.kind === 'refused')
      return this.#answers.refuse(unit, refusalError(refuse('leaves_shard', { why: role.why })));
    return this.#settled() ? this.#onAll(unit, role.kind) : 'wait';
  }

  /** The current lane waits for locks without a bound: it had that behind the savepoint that it went back to. */
  #isUnbounded(): boolean {
    const { lanes, transaction } = this.#context;
    const lane = lanes.current;
    return this.#unbounded === lane && transaction.phase === 'open' && lane.connection?.replies.length === 0;
  }

  #bound(lane: LeasedLane): void {
    this.#unbounded = null;
    this.#ask(lane, [BRANCH_SETTINGS], () => this.#goOn(null));
  }

  /** Ends what is open of the batch, so that it is known where the block stands. @returns nothing is owed */
  #settled(): boolean {
    const { lanes, batch, transaction } = this.#context;
    const lane = lanes.current;
    const connection = lane.connection!;
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
    if (!transaction.isSpread || (lanes.current.connection?.replies.length ?? 1) > 0) return false;
    const isOpen = transaction.phase === 'open' && this.#awaited === null;
    const lost = transaction.branches.slice(1).find(({ connection }) => {
      return connection === null || connection.status === idle || (isOpen && connection.status === failed);
    });
    if (lost === undefined) return false;
    transaction.loseFurther(lost);
    if (lost.connection !== null) this.#leave(lost);
    this.endOrphans();
    return true;
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
    const { transaction, lanes } = this.#context;
    const others = transaction.branches.slice(1);
    if (role === 'rolls back') {
      this.#askAll(others, ['ROLLBACK'], () => {
        // Lost meanwhile, it is ended already.
        if (transaction.isSpread) {
          transaction.gathered();
          for (const lane of others) if (lane.mode === 'leased') lane.block.ended();
        }
        this.#goOn(null);
      });
      return 'wait';
    }
    const { template, text } = unit;
    const said: PrologueStatement = { template, text, said: this.#say(template, text) };
    const isBack = template.kinds.includes('savepoint');
    // What fails here fails on the current lane's server as well, which tells the client.
    this.#askAll(others, isBack ? [said, BRANCH_SETTINGS] : [said], () => {
      if (isBack) this.#unbounded = lanes.current;
      this.#goOn({ kind: 'done' });
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
    const { transaction, session, kv } = this.#context;
    const leaves = refusalError(refuse('leaves_shard', { why }));
    if (kv.view.clusterId === null) return leaves;
    const setting = crossShard(session);
    if (setting.kind !== '2pc') return setting.why === null ? leaves : unable(setting.why);
    const usual = session.settings.values.get('default_transaction_isolation');
    if (!transaction.isReadCommitted || !(usual === undefined || usual.startsWith('read '))) {
      return refusalError(refuse('leaves_shard', { why: `${why}, and its isolation level needs one snapshot` }));
    }
    return transaction.script === null ? leaves : null;
  }

  /** The block goes on on `target`, of which nothing stands in the way, and nothing is owed. @returns it can do so at once */
  reach(target: LeasedLane): 'ready' | 'wait' | Buffer {
    const { transaction, lanes } = this.#context;
    if (transaction.branches.includes(target)) {
      transaction.turned(target);
      this.#portals.leave();
      lanes.current = target;
      target.block.tell();
      if (!this.#isUnbounded()) return 'ready';
      this.#bound(target);
      return 'wait';
    }
    return this.#open(target);
  }

  #open(target: LeasedLane): 'ready' | 'wait' | Buffer {
    const { services } = this.#context;
    this.#opening = target;
    this.#deadline ??= services.clock.after(CONNECTION_WAIT_MS, () => this.#opening?.giveUp(NO_CONNECTION));
    this.#refusal = 'asked';
    const isThere = target.ensure(NEUTRAL_TEMPLATE) && target.takeUp();
    const refusal = this.#refusal as Refusal;
    this.#refusal = 'none';
    if (typeof refusal !== 'string') return refusal;
    if (!isThere) return 'wait';
    this.#stopWaiting();
    this.#begin(target);
    return 'wait';
  }

  #stopWaiting(): void {
    this.#deadline?.cancel();
    this.#deadline = this.#opening = null;
  }

  /** A connection cannot be had. @returns it is asked for by the message at hand, which is answered with this */
  refused(bytes: Buffer): boolean {
    if (this.#opening !== null) this.#stopWaiting();
    if (this.#refusal === 'none') return false;
    this.#refusal = bytes;
    return true;
  }

  #begin(target: LeasedLane): void {
    const { transaction, lanes } = this.#context;
    const script = transaction.script!;
    const first = script.findIndex(({ template }) => template.kinds.includes('savepoint'));
    const [before, behind] = first < 0 ? [script, []] : [script.slice(0, first), script.slice(first)];
    const questions: BlockQuestion[] = [...before, BRANCH_SETTINGS, BEGIN_BRANCH, ...behind];
    const isFirst = !transaction.isSpread;
    const current = lanes.current;
    let failure: Buffer | null = null;
    let left = isFirst ? 2 : 1;
    const told = (lane: LeasedLane, asked: readonly BlockQuestion[]): Told => {
      return (answers) => {
        failure ??= failureOf(asked, answers);
        if (lane === current && answers !== null) transaction.answered(lane.connection!.status, lane);
        if (--left > 0) return;
        if (failure === null) this.#opened(target);
        else this.#notOpened(target, failure);
      };
    };
    if (isFirst) {
      const bounds = [BRANCH_SETTINGS, BEGIN_BRANCH];
      this.#ask(current, bounds, told(current, bounds));
    }
    this.#asked.set(target, told(target, questions));
    target.block.askToBegin(questions, (answers) => this.#answer(target, answers));
  }

  #opened(target: LeasedLane): void {
    const { transaction, lanes } = this.#context;
    // The current one may have been lost meanwhile.
    if (transaction.phase !== 'open' || transaction.script === null) {
      this.#leave(target);
      return this.#goOn(null);
    }
    transaction.spread(target);
    this.#portals.leave();
    lanes.current = target;
    target.block.tell();
    this.#goOn(null);
  }

  #notOpened(target: LeasedLane, error: Buffer): void {
    // Where its BEGIN has failed, as by a cancel, what was said behind it was said by itself.
    if (target.connection?.status === idle) target.block.discard('a block could not be begun on it');
    else this.#leave(target);
    const isKnown = this.#context.transaction.phase === 'open' || this.#context.transaction.phase === 'failed';
    this.#goOn(isKnown ? { kind: 'failed', error } : null);
  }

  #leave(lane: LeasedLane): void {
    if (lane.mode === 'leased' && lane.connection !== null) lane.block.leave();
  }

  /** COMMIT of a block that has several branches. @param done hears of the error; null: it is committed */
  commit(done: (error: Buffer | null) => void): void {
    const { transaction, lanes, services, session, kv } = this.#context;
    const { branches, settings } = transaction;
    const { clusterId } = kv.view;
    if (this.checkLoss()) {
      transaction.lossTold();
      transaction.endedHere();
      return done(encodeError(LOST, 'ERROR'));
    }
    // What cannot be prepared is on the home shard, where all is that names no key.
    const ordered = [
      ...branches.filter((lane) => lane !== lanes.home),
      ...branches.filter((lane) => lane === lanes.home),
    ];
    const asker: LaneAsker = {
      ask: (lane, questions, told) => this.#ask(lane, questions, told),
      drop: (lane, why) => {
        lane.block.discard(why);
        this.#answer(lane, null);
      },
    };
    const parts = ordered.map((lane) => laneBranch(lane, asker, this.#context));
    this.#commit = new BlockCommit({
      branches: parts,
      lastHoldsMore: ordered.at(-1) === lanes.home && lanes.home.holdsState,
      clusterId: clusterId ?? '',
      role: session.user,
      clock: services.clock,
      random: services.random,
      over: (error) => {
        this.#commit = null;
        transaction.endedTogether();
        for (const part of parts) part.end(error === null || settings === 'nothing');
        done(error);
      },
    });
    this.#commit.start();
  }

  #askAll(lanes: readonly LeasedLane[], questions: readonly BlockQuestion[], told: () => void): void {
    let left = lanes.length;
    for (const lane of lanes) {
      this.#ask(lane, questions, () => {
        if (--left === 0) told();
      });
    }
  }

  #ask(lane: LeasedLane, questions: readonly BlockQuestion[], told: Told): void {
    this.#asked.set(lane, told);
    lane.block.ask(questions, (answers) => this.#answer(lane, answers));
  }

  #answer(lane: LeasedLane, answers: readonly BlockAnswer[] | null): void {
    const told = this.#asked.get(lane);
    this.#asked.delete(lane);
    told?.(answers);
  }
}
