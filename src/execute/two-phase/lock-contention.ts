// On which tables writes over several shards have met locks of others of late (R72). There they lock shard by shard, in one order for all;
// elsewhere all shards at once. One for a process; what other processes meet they find out for themselves.
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../base/clock.js';

const TABLES_MAX = 1_024;
const FIRST_MS = 500;
const LAST_MS = 16_000;

interface Met {
  /** Up to when they lock in order. */
  readonly until: number;
  readonly ms: number;
}

export class LockContention {
  readonly #clock: Clock;
  readonly #tables = new LRUCache<string, Met>({ max: TABLES_MAX });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  isMet(table: string): boolean {
    const met = this.#tables.get(table);
    return met !== undefined && this.#clock.now() < met.until;
  }

  /** Twice as long each time that it is so again when it was thought to be over. */
  met(table: string): void {
    const before = this.#tables.get(table);
    const now = this.#clock.now();
    if (before !== undefined && now < before.until) return;
    const ms = before === undefined ? FIRST_MS : Math.min(2 * before.ms, LAST_MS);
    this.#tables.set(table, { until: now + ms, ms });
  }

  /** All shards were locked at once, and nobody was in the way. */
  passed(table: string): void {
    const before = this.#tables.get(table);
    if (before === undefined || this.#clock.now() < before.until) return;
    if (before.ms <= FIRST_MS) this.#tables.delete(table);
    else this.#tables.set(table, { until: before.until, ms: before.ms / 2 });
  }
}
