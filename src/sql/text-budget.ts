// Bytes that the caches of texts and templates hold together, with one bound for all of them. What several entries share (the
// Template of a shape) is counted once, for as long as one of them is there. Where the bound is passed, the least recently used
// entries go, of the cache that has most in relation to its share. Invariant: `bytes` is what the entries weigh, and never above
// `bytesMax` between calls.
import { LRUCache } from 'lru-cache';

/** An LRUCache's own bookkeeping for an entry, map and lists: 107 bytes of heap, seen over 30,000 entries. */
const ENTRY_BYTES = 112;
/** The same for what entries share: 88 bytes. */
const SHARED_BYTES = 88;
/** Of the bound, where the caches are told to be filling up. */
const FILLING_SHARE = 1 / 4;
/** An entry larger than this part of the bound would push out too many others. */
const ENTRY_SHARE = 1 / 4;

/** Bytes of a string in V8's heap: one a character, or two where one of them is beyond latin1. */
export const stringBytes = (text: string): number => 16 + (isLatin1(text) ? text.length : 2 * text.length);

// biome-ignore lint/suspicious/noControlCharactersInRegex: all of latin1, from NUL on
export const isLatin1 = (text: string): boolean => /^[\u0000-\u00ff]*$/.test(text);

/** What an entry holds: bytes of its own, its key left out, and what it may share with other entries. */
export interface Weight {
  readonly own: number;
  readonly shared: object;
  readonly sharedBytes: number;
}

interface SharedPart {
  holders: number;
  bytes: number;
}

export class TextBudget {
  readonly bytesMax: number;
  readonly #shared = new Map<object, SharedPart>();
  readonly #caches: TextCache<object>[] = [];
  #bytes = 0;
  #filling: (() => void) | null;

  /** @param filling called once, when a good part of the bound is used: see main/heap-growth.ts */
  constructor(bytesMax: number, filling: (() => void) | null = null) {
    this.bytesMax = bytesMax;
    this.#filling = filling;
  }

  /** Upper estimate of the memory held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @param share of the bound, in relation to the other caches' */
  cache<Value extends object>(share: number, weigh: (value: Value) => Weight): TextCache<Value> {
    const cache = new TextCache<Value>(this, share, weigh);
    this.#caches.push(cache as unknown as TextCache<object>);
    return cache;
  }

  /** `part`, which entries may share, holds so much more (or less) from now on. Nothing is counted for what no entry has. */
  grew(part: object, bytes: number): void {
    const known = this.#shared.get(part);
    if (known === undefined) return;
    known.bytes += bytes;
    this.#bytes += bytes;
    this.trim();
  }

  /** For TextCache: an entry was added. */
  hold({ own, shared, sharedBytes }: Weight): void {
    this.#bytes += own;
    const known = this.#shared.get(shared);
    if (known !== undefined) {
      known.holders++;
      return;
    }
    this.#shared.set(shared, { holders: 1, bytes: SHARED_BYTES + sharedBytes });
    this.#bytes += SHARED_BYTES + sharedBytes;
    if (this.#filling === null || this.#bytes < this.bytesMax * FILLING_SHARE) return;
    this.#filling();
    this.#filling = null;
  }

  /** For TextCache: an entry has gone. */
  release(own: number, shared: object): void {
    this.#bytes -= own;
    const known = this.#shared.get(shared)!;
    if (--known.holders > 0) return;
    this.#shared.delete(shared);
    this.#bytes -= known.bytes;
  }

  /** For TextCache. */
  trim(): void {
    while (this.#bytes > this.bytesMax) {
      let fullest: TextCache<object> | null = null;
      for (const cache of this.#caches) if (fullest === null || cache.fullness > fullest.fullness) fullest = cache;
      if (fullest === null || fullest.size === 0) return;
      fullest.evict();
    }
  }
}

export class TextCache<Value extends object> {
  readonly #budget: TextBudget;
  readonly #share: number;
  readonly #weigh: (value: Value) => Weight;
  readonly #entries: LRUCache<string, Value>;

  constructor(budget: TextBudget, share: number, weigh: (value: Value) => Weight) {
    this.#budget = budget;
    this.#share = share;
    this.#weigh = weigh;
    this.#entries = new LRUCache<string, Value>({
      // Never reached: the budget is trimmed behind each entry.
      maxSize: 2 * budget.bytesMax,
      dispose: (value, key) => budget.release(this.#ownBytes(key, value), weigh(value).shared),
    });
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Bytes of its entries, without what they may share, in relation to its share. */
  get fullness(): number {
    return this.#entries.calculatedSize / this.#share;
  }

  get(key: string): Value | undefined {
    return this.#entries.get(key);
  }

  /** An entry that is too large for the bound is not kept. */
  set(key: string, value: Value): void {
    const weight = this.#weigh(value);
    const own = this.#ownBytes(key, value);
    if (own + weight.sharedBytes > this.#budget.bytesMax * ENTRY_SHARE) return;
    this.#entries.delete(key);
    this.#entries.set(key, value, { size: own });
    this.#budget.hold({ ...weight, own });
    this.#budget.trim();
  }

  evict(): void {
    this.#entries.pop();
  }

  #ownBytes(key: string, value: Value): number {
    return ENTRY_BYTES + stringBytes(key) + this.#weigh(value).own;
  }
}
