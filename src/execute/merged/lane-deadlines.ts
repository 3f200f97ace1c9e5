// How long a server may take over what goes over merged connections (D29): settings, look-ups and the statements themselves.
// A connection that swallows bytes without an end would hold up the reads of its shard for ever. One list for all lanes of
// a process, looked through at intervals while something is on it: no timer for a statement or a batch.
// Invariant: what was begun is ended, or has missed its deadline, within the limit and one interval.
import type { Clock } from '../../base/clock.js';

/** Something that waits for a server. */
export interface Awaited {
  /** The server has not answered in time; it is off the list. */
  missedDeadline(limitMs: number): void;
}

/** Closer than anybody would set the limit. */
const SWEEPS_PER_LIMIT = 4;
const SWEEP_MS_MAX = 500;

export class LaneDeadlines {
  readonly #clock: Clock;
  readonly #limitMs: number;
  /** In the order in which they began, with the time of that. */
  readonly #awaited = new Map<Awaited, number>();
  #isScheduled = false;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  begin(awaited: Awaited): void {
    this.#awaited.set(awaited, this.#clock.now());
    if (!this.#isScheduled) this.#schedule();
  }

  /** Idempotent. */
  end(awaited: Awaited): void {
    this.#awaited.delete(awaited);
  }

  #schedule(): void {
    this.#isScheduled = true;
    this.#clock.after(Math.min(SWEEP_MS_MAX, this.#limitMs / SWEEPS_PER_LIMIT), this.#sweep);
  }

  readonly #sweep = (): void => {
    this.#isScheduled = false;
    const due = this.#clock.now() - this.#limitMs;
    const late: Awaited[] = [];
    for (const [awaited, since] of this.#awaited) {
      if (since > due) break;
      late.push(awaited);
    }
    for (const awaited of late) {
      // One that was late may have ended others with it.
      if (this.#awaited.delete(awaited)) awaited.missedDeadline(this.#limitMs);
    }
    if (this.#awaited.size > 0 && !this.#isScheduled) this.#schedule();
  };
}
