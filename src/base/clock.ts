// Time and randomness as values that are passed in, so that a seeded simulation can replace both.
import { randomBytes } from 'node:crypto';

export interface Timer {
  /** Idempotent; a cancelled timer never calls back. */
  cancel(): void;
}

export interface Clock {
  /** Monotonic milliseconds, fractional. */
  now(): number;
  /** Milliseconds since 1970. */
  wallTime(): number;
  /**
   * Calls `callback` once after `delayMs`, behind the events that have come in by then. Does not keep the process alive.
   */
  after(delayMs: number, callback: () => void): Timer;
}

export interface Random {
  /** Uniform in [0, 1). */
  fraction(): number;
  /** Unpredictable bytes (seeded under simulation). */
  bytes(count: number): Buffer;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wallTime: () => Date.now(),
  after(delayMs, callback) {
    let immediate: NodeJS.Immediate | null = null;
    // Behind a time in which the process stood still timers come before sockets are read: an answer that has arrived is not late.
    const timeout = setTimeout(() => {
      immediate = setImmediate(callback);
    }, delayMs);
    timeout.unref();
    return {
      cancel() {
        clearTimeout(timeout);
        if (immediate !== null) clearImmediate(immediate);
      },
    };
  },
};

export const systemRandom: Random = {
  fraction: () => Math.random(),
  bytes: (count) => randomBytes(count),
};
