// A session that has run DDL keeps its connection for a moment before the server is asked what that has left: migrations run one
// statement after the other, each of which would wait for the answer. Whoever waits for a connection ends it at once.
// States: off; on, with a timer under way or one that is over and has not been noticed.
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { Clock, Timer } from '../../base/clock.js';

/** Since the last statement that left something: longer than a client on the same network takes to send the next one. */
const LINGER_MS = 20;

export class Lingering {
  readonly #clock: Clock;
  readonly #pool: NodePool;
  readonly #isOver: () => void;
  #until = 0;
  #timer: Timer | null = null;

  /** @param isOver is called when it has ended by itself, or for somebody else's sake; not by `end` */
  constructor(clock: Clock, pool: NodePool, isOver: () => void) {
    this.#clock = clock;
    this.#pool = pool;
    this.#isOver = isOver;
  }

  get on(): boolean {
    return this.#until !== 0;
  }

  /** False where others wait for connections. */
  begin(): boolean {
    if (this.#pool.waitingCount > 0) return false;
    this.#until = this.#clock.now() + LINGER_MS;
    this.#pool.lingering.add(this.#stop);
    this.#timer ??= this.#clock.after(LINGER_MS, this.#tick);
    return true;
  }

  end(): void {
    this.#until = 0;
    this.#pool.lingering.delete(this.#stop);
    this.#timer?.cancel();
    this.#timer = null;
  }

  readonly #stop = (): void => {
    this.end();
    this.#isOver();
  };

  /** One timer for many statements: it goes on for what is left of the last one's time. */
  readonly #tick = (): void => {
    this.#timer = null;
    const left = this.#until - this.#clock.now();
    if (left > 0) this.#timer = this.#clock.after(left, this.#tick);
    else this.#stop();
  };
}
