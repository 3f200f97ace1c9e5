// Lanes whose part of the client's block over several shards is over: they are let go of, and may be asked what the block has left.
// Invariants: no message is taken before all that are to be let go of are so, which the first has messages taken for; nor while one
// of them is asked: the session's settings are the current lane's to tell.
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { ExchangeContext } from './exchange-context.js';

export class RestingLanes {
  readonly #context: Pick<ExchangeContext, 'lent' | 'resume'>;
  /** Those that are asked. */
  #leaving: readonly LeasedLane[] = [];
  #isLettingGo = false;

  constructor(context: Pick<ExchangeContext, 'lent' | 'resume'>) {
    this.#context = context;
  }

  get busy(): boolean {
    if (this.#isLettingGo) return true;
    if (this.#leaving.length === 0) return false;
    this.#leaving = this.#leaving.filter(({ mode }) => mode === 'preparing');
    return this.#leaving.length > 0;
  }

  /** Messages are taken behind it, not in it. */
  undisturbed(deed: () => void): void {
    const wasLettingGo = this.#isLettingGo;
    this.#isLettingGo = true;
    try {
      deed();
    } finally {
      this.#isLettingGo = wasLettingGo;
    }
    if (!wasLettingGo) this.#context.resume();
  }

  /** The lane's part of the block is over. */
  rest(lane: LeasedLane): void {
    if (this.#context.lent.keeps(lane)) return;
    if (lane.mode === 'leased' && lane.connection !== null) {
      if (lane.connection.atRest) lane.block.ended();
      else lane.block.leave();
    }
    this.awaitChecks([lane]);
  }

  restAll(lanes: readonly LeasedLane[]): void {
    this.undisturbed(() => {
      for (const lane of lanes) this.rest(lane);
    });
  }

  /** They are let go of by others. */
  awaitChecks(lanes: readonly LeasedLane[]): void {
    this.#leaving = [...this.#leaving, ...lanes.filter(({ mode }) => mode === 'preparing')];
  }
}
