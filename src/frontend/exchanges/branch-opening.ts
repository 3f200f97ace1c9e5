// Opens a branch of the client's block, the first one or a further one (D31): waits for a connection to its shard, and has its server begin what the block
// has come to. Stages: nothing; waiting for a connection, or for it to be got ready; then its server is asked, as is that of the
// first branch, which gets the same bounds. Invariant: a lane that got its connection for a block that is lost gives it back.
import type { Timer } from '../../base/clock.js';
import type { BlockQuestion } from '../../execute/leased/lane-block.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { failureOf } from '../../execute/two-phase/branch-failure.js';
import { CONNECTION_WAIT_MS, NO_CONNECTION } from '../../execute/two-phase/connection-wait.js';
import type { Told } from '../../execute/two-phase/lane-branch.js';
import { BEGIN_BRANCH } from '../../execute/two-phase/write-branch.js';
import { NEUTRAL_TEMPLATE } from '../../sql/plan/template.js';
import type { AskedLanes } from './asked-lanes.js';
import type { BlockMark } from './block-mark.js';
import type { ExchangeContext } from './exchange-context.js';

/** `asked`: a lane is asked for a connection right now; bytes: it has refused. */
type Refusal = 'none' | 'asked' | Buffer;

export interface OpeningTold {
  /** A further branch. @param error null: it is open */
  opened(target: LeasedLane, error: Buffer | null): void;
  /** The first branch is, or was lost. */
  begun(): void;
}

const ANYTHING = 'SELECT';

export class BranchOpening {
  readonly #context: ExchangeContext;
  readonly #asked: AskedLanes;
  readonly #told: OpeningTold;
  readonly #mark: BlockMark;
  /** Waits for a connection. */
  #lane: LeasedLane | null = null;
  #deadline: Timer | null = null;
  #refusal: Refusal = 'none';

  constructor(context: ExchangeContext, asked: AskedLanes, mark: BlockMark, told: OpeningTold) {
    this.#context = context;
    this.#asked = asked;
    this.#mark = mark;
    this.#told = told;
  }

  get isWaiting(): boolean {
    const mode = this.#lane?.mode;
    return mode === 'waiting' || mode === 'preparing';
  }

  /** Whether a lane got its connection, or waits for it. */
  get isOpen(): boolean {
    return this.#lane !== null;
  }

  /** @returns why it cannot be had */
  open(target: LeasedLane): 'wait' | Buffer {
    const { services, transaction } = this.#context;
    this.#lane = target;
    const isFurther = transaction.phase === 'open';
    if (isFurther) this.#deadline ??= services.clock.after(CONNECTION_WAIT_MS, () => this.#lane?.giveUp(NO_CONNECTION));
    this.#refusal = 'asked';
    const isThere = target.ensure(NEUTRAL_TEMPLATE) && target.takeUp();
    const refusal = this.#refusal as Refusal;
    this.#refusal = 'none';
    if (typeof refusal !== 'string') return refusal;
    if (!isThere) return 'wait';
    this.#forget();
    this.#begin(target);
    return 'wait';
  }

  /** A connection cannot be had. @returns it is asked for by the message at hand, which is answered with this */
  refused(bytes: Buffer): boolean {
    this.#forget();
    if (this.#refusal === 'none') return false;
    this.#refusal = bytes;
    return true;
  }

  cancel(): void {
    if (this.isWaiting) this.#lane!.cancel();
  }

  /** The block is lost. A connection that is being got ready is given back when it is ready: whoever hears of that asks again. */
  stop(): void {
    const lane = this.#lane;
    this.#deadline?.cancel();
    this.#deadline = null;
    if (lane === null) return;
    lane.withdraw();
    if (lane.mode === 'preparing') return;
    this.#lane = null;
    lane.restIfUnused();
  }

  /** The session is over, and its lanes with it. */
  abandon(): void {
    this.#forget();
  }

  #forget(): void {
    this.#deadline?.cancel();
    this.#deadline = this.#lane = null;
  }

  /** The first branch, of a block that is held here. Whether it can be begun is known by what its server says next. */
  #beginHeld(target: LeasedLane): void {
    const { transaction } = this.#context;
    target.block.open(transaction.opened(target));
    transaction.bound();
    this.#asked.ask(target, [ANYTHING], (answers) => {
      if (answers !== null) transaction.answered(target.connection!.status, target);
      this.#told.begun();
    });
  }

  #begin(target: LeasedLane): void {
    const { transaction, lanes } = this.#context;
    if (transaction.phase === 'held') return this.#beginHeld(target);
    const script = transaction.script!;
    const first = script.findIndex(({ template }) => template.kinds.includes('savepoint'));
    const [before, behind] = first < 0 ? [script, []] : [script.slice(0, first), script.slice(first)];
    this.#mark.begin();
    const bounds = [this.#mark.settings, BEGIN_BRANCH];
    const questions: BlockQuestion[] = [...before, ...bounds, ...behind];
    const isFirst = !transaction.isSpread;
    const current = lanes.current;
    let failure: Buffer | null = null;
    let left = isFirst ? 2 : 1;
    const told = (lane: LeasedLane, asked: readonly BlockQuestion[]): Told => {
      return (answers) => {
        failure ??= failureOf(asked, answers);
        if (lane === current && answers !== null) transaction.answered(lane.connection!.status, lane);
        if (--left === 0) this.#told.opened(target, failure);
      };
    };
    if (isFirst) this.#asked.ask(current, bounds, told(current, bounds));
    this.#asked.askToBegin(target, questions, told(target, questions));
  }
}
