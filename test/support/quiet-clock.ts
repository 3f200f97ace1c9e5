// A clock that stands still while anything can happen without it.
import type { Clock } from '../../src/base/clock.js';

/** Time goes on when everything that could happen at this moment has happened. */
export class QuietClock implements Clock {
  #now = 0;
  readonly #timers = new Map<object, { at: number; run: () => void }>();
  readonly now = (): number => this.#now;
  readonly wallTime = (): number => this.#now;

  after(delayMs: number, run: () => void): { cancel(): void } {
    const key = {};
    this.#timers.set(key, { at: this.#now + delayMs, run });
    return { cancel: () => this.#timers.delete(key) };
  }

  get pending(): number {
    return this.#timers.size;
  }

  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await this.runUntil(() => [...this.#timers.values()].every(({ at }) => at > end));
    this.#now = end;
  }

  async runUntil(isOver: () => boolean): Promise<void> {
    for (;;) {
      for (let turn = 0; turn < 20; turn++) await Promise.resolve();
      if (isOver()) return;
      const [next] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at);
      if (next === undefined) throw new Error('nothing will happen any more');
      this.#timers.delete(next[0]);
      this.#now = next[1].at;
      next[1].run();
    }
  }
}
