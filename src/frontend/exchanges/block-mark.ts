// By what the locks of a block over several shards are known as one transaction's (R66): its branches get one mark, from the first
// further one on, and its lanes are watched while it has several. Where one of them is ended for the sake of others, all its
// branches fail with that one, as one transaction does, and let go of what they have locked since the last savepoint.
import type { Clock } from '../../base/clock.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { type LockMark, markedSettings } from '../../execute/two-phase/lock-mark.js';
import type { WatchedTransaction } from '../../execute/two-phase/lock-watch.js';
import { TransactionStatus } from '../../wire/protocol.js';
import type { AskedLanes } from './asked-lanes.js';
import type { ExchangeContext } from './exchange-context.js';

/** Fails, in words that the server's log shows. */
const FAILING = `SELECT 'a deadlock over several shards ends this transaction'::pg_catalog.int4`;

const NO_MARK: LockMark = '';
const TRY_AGAIN_MS = 10;
const TRIES_MAX = 20;

export class BlockMark {
  readonly #context: ExchangeContext;
  readonly #asked: AskedLanes;
  readonly #clock: Clock;
  #mark: LockMark = NO_MARK;
  /** Of the block, once it has several branches. */
  #watched: WatchedTransaction | null = null;
  /** The block was ended while its lanes are lent. */
  #isFailing = false;

  constructor(context: ExchangeContext, asked: AskedLanes) {
    this.#context = context;
    this.#asked = asked;
    this.#clock = context.services.clock;
    context.lent.onBack = () => {
      if (this.#isFailing) this.#failAll();
    };
  }

  /** A branch is being opened: the first further one of a block is, where it has no others. */
  begin(): void {
    if (this.#context.transaction.isSpread) return;
    this.#isFailing = false;
    this.#mark = this.#context.services.lockWatch.newMark();
  }

  /** What each branch sets. */
  get settings(): string {
    return markedSettings(this.#mark);
  }

  /** A further branch is open. */
  spread(): void {
    if (this.#mark === NO_MARK || this.#watched?.mark === this.#mark) return;
    const mark = this.#mark;
    const { transaction, services } = this.#context;
    const isCurrent = (): boolean => this.#mark === mark && transaction.isSpread;
    this.#watched = {
      mark,
      get isOver() {
        return !isCurrent();
      },
      get parts() {
        return transaction.branches;
      },
      ended: () => this.#failSoon(isCurrent, TRIES_MAX),
    };
    services.lockWatch.watch(this.#watched);
  }

  /** The session is over, its block with it, which nobody will end. */
  abandon(): void {
    this.#mark = NO_MARK;
    if (this.#watched !== null) this.#context.services.lockWatch.forget(this.#watched);
    this.#watched = null;
  }

  /** Its server is to tell first where the block stands. */
  #failSoon(isCurrent: () => boolean, tries: number): void {
    const { transaction, lent } = this.#context;
    this.#clock.after(tries === TRIES_MAX ? 0 : TRY_AGAIN_MS, () => {
      if (!isCurrent()) return;
      if (transaction.phase === 'open' && !lent.areOut && tries > 0) this.#failSoon(isCurrent, tries - 1);
      else this.#failAll();
    });
  }

  #failAll(): void {
    const { transaction, lent, lanes } = this.#context;
    this.#isFailing = lent.areOut;
    if (this.#isFailing || transaction.phase !== 'failed') return;
    const others = transaction.branches.filter((lane) => lane !== lanes.current && this.#isFree(lane));
    for (const lane of others) this.#asked.ask(lane, [FAILING], () => this.#context.resume());
  }

  #isFree(lane: LeasedLane): boolean {
    const { connection } = lane;
    if (lane.mode !== 'leased' || connection === null || this.#asked.has(lane)) return false;
    const owesNothing = connection.replies.length === 0 && !connection.replies.unsynced();
    return owesNothing && connection.status === TransactionStatus.open;
  }
}
