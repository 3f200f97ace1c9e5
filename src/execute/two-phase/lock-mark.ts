// By what servers show which of their sessions belong to one transaction over several shards (R66): each of its branches holds
// an advisory lock, shared, whose number is the transaction's. Whoever looks at the locks of all shards, in whatever process, can
// put the branches together. Of 64 bits 24 say that it is such a number, 16 when it was drawn, in seconds, 24 are the process's own count.
import type { Clock, Random } from '../../base/clock.js';
import { BRANCH_SETTINGS } from './write-branch.js';

/** A decimal number, as servers write it. */
export type LockMark = string;

/** "pkv": a client's own advisory lock is one of these by accident only. */
const TAG = 0x706b76n;
/** The upper half of a mark without what comes behind the tag. */
export const MARK_TAG = Number(TAG);
const SECONDS = 0xffffn;
const COUNT = 0xffffffn;

export class LockMarks {
  readonly #clock: Clock;
  readonly #random: Random;
  #count: bigint | null = null;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  next(): LockMark {
    this.#count = ((this.#count ?? BigInt(this.#random.bytes(3).readUIntBE(0, 3))) + 1n) & COUNT;
    const seconds = BigInt(Math.floor(this.#clock.wallTime() / 1000)) & SECONDS;
    return String((TAG << 40n) | (seconds << 24n) | this.#count);
  }
}

/** What a branch sets when it begins, with the lock that says whose it is. */
export const markedSettings = (mark: LockMark): string =>
  `${BRANCH_SETTINGS}, pg_catalog.pg_advisory_xact_lock_shared(${mark})`;

/** Whether it was drawn later, as seen within nine hours. */
export function isYounger(one: LockMark, other: LockMark): boolean {
  const bits = (BigInt(one) - BigInt(other)) & ((1n << 40n) - 1n);
  return bits !== 0n && bits < 1n << 39n;
}
