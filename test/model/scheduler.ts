// Virtual time. Everything that happens in a simulated run is an event in one queue: time-outs, chunks of bytes on their
// way, a server's pause for thought. Delays come from a seeded generator, so that one seed gives one order of events.
import type { Clock, Random, Timer } from '../../src/base/clock.js';

/** sfc32: small, fast, and good enough to tell runs apart. */
export class SeededRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = (seed / 0x1_0000_0000) | 0;
    this.#c = stream | 0;
    for (let round = 0; round < 12; round++) this.#next();
  }

  fraction(): number {
    return this.#next() / 0x1_0000_0000;
  }

  bytes(count: number): Buffer {
    return Buffer.from(Array.from({ length: count }, () => this.#next() & 0xff));
  }

  /** Uniform in 0 … below - 1. */
  integer(below: number): number {
    return Math.floor(this.fraction() * below);
  }

  between(low: number, high: number): number {
    return low + this.integer(high - low + 1);
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.integer(items.length)]!;
  }

  #next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    this.#c |= 0;
    return sum >>> 0;
  }
}

interface Event {
  readonly at: number;
  /** Events of one instant run in the order in which they were scheduled. */
  readonly order: number;
  run: (() => void) | null;
}

const isBefore = (one: Event, other: Event): boolean =>
  one.at < other.at || (one.at === other.at && one.order < other.order);

/** A binary heap of events, and the clock that their times make. */
export class Scheduler implements Clock {
  readonly #heap: Event[] = [];
  #now = 0;
  #order = 0;
  #cancelled = 0;

  now(): number {
    return this.#now;
  }

  wallTime(): number {
    return 1_700_000_000_000 + this.#now;
  }

  /** Events that are still to come. */
  get size(): number {
    return this.#heap.length - this.#cancelled;
  }

  after(delayMs: number, callback: () => void): Timer {
    const event: Event = { at: this.#now + Math.max(0, delayMs), order: this.#order++, run: callback };
    this.#push(event);
    return {
      cancel: () => {
        if (event.run === null) return;
        event.run = null;
        this.#cancelled++;
      },
    };
  }

  /** Runs the next event if it is due by `deadline`. Returns whether there was one. */
  step(deadline: number): boolean {
    for (let next = this.#heap[0]; next !== undefined && next.at <= deadline; next = this.#heap[0]) {
      this.#pop();
      const { run } = next;
      if (run === null) {
        this.#cancelled--;
        continue;
      }
      next.run = null;
      this.#now = next.at;
      run();
      return true;
    }
    return false;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}
