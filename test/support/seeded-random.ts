// The generator of all tests that draw: the same numbers from the same seed on every machine. A test prints its seed, and takes
// it back by PGKV_SEED.
import type { Random } from '../../src/base/clock.js';

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

  oneIn(count: number): boolean {
    return this.integer(count) === 0;
  }

  /** So many different ones, in any order. */
  some<Item>(items: readonly Item[], count: number): Item[] {
    const rest = [...items];
    return Array.from(
      { length: Math.min(count, rest.length) },
      () => rest.splice(this.integer(rest.length), 1)[0] as Item,
    );
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

/** Numbers in [0, 1), where no more is needed. */
export function seeded(seed: number, stream = 0): () => number {
  const random = new SeededRandom(seed, stream);
  return () => random.fraction();
}
