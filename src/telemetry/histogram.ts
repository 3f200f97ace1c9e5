// Durations in microseconds, over perf_hooks' HDR histogram (21 ns a record). Count and sum are of all time, as
// Prometheus wants them; quantiles are of the recent past, since those of a week say nothing about now: two histograms
// take turns, and a reader turns them when the younger is old enough. Recording never looks at a clock.
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import type { Clock } from '../base/clock.js';

/** Longer durations are recorded as this: an hour. */
const MICROSECONDS_MAX = 3_600_000_000;

export interface DurationSummary {
  readonly count: number;
  readonly sumUs: number;
  /** Of the recent past; 0 where nothing was recorded in it. */
  readonly p50Us: number;
  readonly p95Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
}

export class DurationHistogram {
  readonly #clock: Clock;
  readonly #windowMs: number;
  #current: RecordableHistogram;
  #previous: RecordableHistogram;
  #startedAt: number;
  #count = 0;
  #sumUs = 0;

  /** Quantiles are over the last one to two times `windowMs` if read at least that often, else since the read before last. */
  constructor(clock: Clock, windowMs = 60_000) {
    this.#clock = clock;
    this.#windowMs = windowMs;
    this.#current = newHistogram();
    this.#previous = newHistogram();
    this.#startedAt = clock.now();
  }

  /** Fractions are rounded; less than a microsecond counts as one, since the histogram has no zero. */
  recordUs(durationUs: number): void {
    const whole = Math.min(Math.max(Math.round(durationUs), 1), MICROSECONDS_MAX);
    this.#current.record(whole);
    this.#count++;
    this.#sumUs += whole;
  }

  summary(): DurationSummary {
    this.#turn();
    const recent = newHistogram();
    recent.add(this.#previous);
    recent.add(this.#current);
    const isEmpty = recent.count === 0;
    const percentile = (rank: number) => (isEmpty ? 0 : recent.percentile(rank));
    return {
      count: this.#count,
      sumUs: this.#sumUs,
      p50Us: percentile(50),
      p95Us: percentile(95),
      p99Us: percentile(99),
      maxUs: isEmpty ? 0 : recent.max,
    };
  }

  #turn(): void {
    const now = this.#clock.now();
    const age = now - this.#startedAt;
    if (age < this.#windowMs) return;
    const outdated = this.#previous;
    outdated.reset();
    this.#previous = this.#current;
    this.#current = outdated;
    this.#startedAt = now;
  }
}

function newHistogram(): RecordableHistogram {
  return createHistogram({ lowest: 1, highest: MICROSECONDS_MAX, figures: 2 });
}
