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
/** Where it could not say. */
const ASKED_AGAIN_SOON_MS = 1_000;
/** Of what may be prepared still: recovery has ended it by then, or it is among what is left for it. */
const KEPT_MS = 60_000;

export class PreparedSlots {
  readonly #options: PreparedSlotsOptions;
  readonly #taken = new Map<string, number>();
  readonly #limits = new Map<string, { limit: number; askAgainAt: number }>();
  /** Given back when their time is over, the first first. */
  readonly #kept: { readonly shardNames: readonly string[]; readonly until: number }[] = [];
  /** In the order in which they came: nobody gets what an earlier one waits for. */
  #waiting: Waiter[] = [];

  constructor(options: PreparedSlotsOptions) {
    this.#options = options;
  }

  /** One on each shard, or none. @param told full: the shard that has none left; null: they are taken */
  take(shardNames: readonly string[], told: (full: string | null) => void): void {
    this.#giveKept();
    for (const name of shardNames) this.#know(name);
    const isWanted = this.#waiting.some((one) => one.shardNames.some((name) => shardNames.includes(name)));
    if (!isWanted && this.#tryTake(shardNames)) return told(null);
    const waiter: Waiter = {
      shardNames,
      told,
      deadline: this.#options.clock.after(WAIT_MS, () => this.#missed(waiter)),
    };
    this.#waiting.push(waiter);
  }

  /** @param left what was prepared may be so still */
  give(shardNames: readonly string[], left = false): void {
    if (left) this.#kept.push({ shardNames, until: this.#options.clock.now() + KEPT_MS });
    else this.#giveBack(shardNames);
    this.#serve();
  }

  #giveBack(shardNames: readonly string[]): void {
    for (const name of shardNames) this.#taken.set(name, (this.#taken.get(name) ?? 0) - 1);
  }

  /** No timer: who needs them looks. */
  #giveKept(): void {
    const now = this.#options.clock.now();
    while (this.#kept.length > 0 && this.#kept[0]!.until <= now) this.#giveBack(this.#kept.shift()!.shardNames);
  }

  #missed(waiter: Waiter): void {
    this.#serve();
    if (!this.#waiting.includes(waiter)) return;
    this.#waiting = this.#waiting.filter((one) => one !== waiter);
    const { shardNames, told } = waiter;
    told(shardNames.find((name) => this.#isFull(name)) ?? shardNames[0]!);
    // Others may have waited for this one alone.
    this.#serve();
  }

  #serve(): void {
    this.#giveKept();
    const wanted = new Set<string>();
    const served: Waiter[] = [];
    for (const waiter of this.#waiting) {
      const { shardNames } = waiter;
      if (!shardNames.some((name) => wanted.has(name)) && this.#tryTake(shardNames)) served.push(waiter);
      else for (const name of shardNames) wanted.add(name);
    }
    if (served.length === 0) return;
    this.#waiting = this.#waiting.filter((one) => !served.includes(one));
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
    const { clock, processes, ask } = this.#options;
    const now = clock.now();
    const known = this.#limits.get(name);
    if (known !== undefined && now < known.askAgainAt) return;
    const asked = { limit: known?.limit ?? Number.POSITIVE_INFINITY, askAgainAt: now + ASKED_AGAIN_MS };
    this.#limits.set(name, asked);
    ask(name).then(
      (allowed) => {
        asked.limit = Math.max(1, Math.floor((allowed - Math.ceil(allowed / 10)) / processes));
        this.#serve();
      },
      // Whatever is wrong there, a PREPARE will say.
      () => {
        asked.askAgainAt = clock.now() + ASKED_AGAIN_SOON_MS;
      },
    );
  }
}
