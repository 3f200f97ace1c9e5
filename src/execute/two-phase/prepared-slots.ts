// How many branches this process has prepared at one time on each shard (R68): no more than its share of what the server allows, so
// that a PREPARE is not refused in the midst of a commit. Who finds none left waits a little, then is told. A tenth is left for
// what waits for recovery. As long as a shard has not said how many it allows, nobody waits. Invariant: what is taken is given back once.
import type { Clock, Timer } from '../../base/clock.js';

export interface PreparedSlotsOptions {
  readonly clock: Clock;
  /** Processes that share them. */
  readonly processes: number;
  /** max_prepared_transactions there. */
  ask(shardName: string): Promise<number>;
}

interface Waiter {
  readonly shardNames: readonly string[];
  readonly told: (full: string | null) => void;
  readonly deadline: Timer;
}

/** They hold locks meanwhile. */
const WAIT_MS = 2_000;
/** A server that was restarted may allow others. */
const ASKED_AGAIN_MS = 60_000;

export class PreparedSlots {
  readonly #options: PreparedSlotsOptions;
  readonly #taken = new Map<string, number>();
  readonly #limits = new Map<string, { limit: number; askedAt: number }>();
  #waiting: Waiter[] = [];

  constructor(options: PreparedSlotsOptions) {
    this.#options = options;
  }

  /** One on each shard, or none. @param told full: the shard that has none left; null: they are taken */
  take(shardNames: readonly string[], told: (full: string | null) => void): void {
    for (const name of shardNames) this.#know(name);
    if (this.#tryTake(shardNames)) return told(null);
    const waiter: Waiter = {
      shardNames,
      told,
      deadline: this.#options.clock.after(WAIT_MS, () => {
        this.#waiting = this.#waiting.filter((one) => one !== waiter);
        told(shardNames.find((name) => this.#isFull(name)) ?? shardNames[0]!);
      }),
    };
    this.#waiting.push(waiter);
  }

  give(shardNames: readonly string[]): void {
    for (const name of shardNames) this.#taken.set(name, (this.#taken.get(name) ?? 0) - 1);
    this.#serve();
  }

  #serve(): void {
    const served = new Set(this.#waiting.filter(({ shardNames }) => this.#tryTake(shardNames)));
    if (served.size === 0) return;
    this.#waiting = this.#waiting.filter((one) => !served.has(one));
    for (const { told, deadline } of served) {
      deadline.cancel();
      told(null);
    }
  }

  #tryTake(shardNames: readonly string[]): boolean {
    if (shardNames.some((name) => this.#isFull(name))) return false;
    for (const name of shardNames) this.#taken.set(name, (this.#taken.get(name) ?? 0) + 1);
    return true;
  }

  #isFull(name: string): boolean {
    return (this.#taken.get(name) ?? 0) >= (this.#limits.get(name)?.limit ?? Number.POSITIVE_INFINITY);
  }

  #know(name: string): void {
    const now = this.#options.clock.now();
    const known = this.#limits.get(name);
    if (known !== undefined && now - known.askedAt < ASKED_AGAIN_MS) return;
    this.#limits.set(name, { limit: known?.limit ?? Number.POSITIVE_INFINITY, askedAt: now });
    this.#options.ask(name).then(
      (allowed) => {
        const limit = Math.max(1, Math.floor((allowed - Math.ceil(allowed / 10)) / this.#options.processes));
        this.#limits.set(name, { limit, askedAt: now });
        this.#serve();
      },
      // Whatever is wrong there, a PREPARE will say.
      () => undefined,
    );
  }
}
