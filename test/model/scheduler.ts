// Virtual time. Everything that happens in a simulated run is an event in one queue: time-outs, chunks of bytes on their
// way, a server's pause for thought. Delays come from a seeded generator, so that one seed gives one order of events.
import type { Clock, Timer } from '../../src/base/clock.js';

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
