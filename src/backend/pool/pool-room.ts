// Brings those who wait for a connection and what there is of connections together, whenever either has changed: a connection
// has gone idle or is gone, somebody has come or no longer waits, shares have shifted. Whose turn it is pool-turns.ts tells.
// Invariant: behind `make` nothing is idle that a waiter of its group may have, and nothing idle and no place free while
// somebody is in need of a connection.
import type { Clock } from '../../base/clock.js';
import type { ServerConnection } from '../connection/server-connection.js';
import type { LeaseRequest, PoolGroup } from './pool-group.js';
import { longestIdle, nextWaiter, oldestInNeed } from './pool-turns.js';

/** The pool, as far as it is of concern here. */
interface PoolRoomOptions {
  readonly groups: Iterable<PoolGroup>;
  /** How many more leases a group may get. */
  readonly roomOf: (group: PoolGroup) => number;
  readonly clock: Clock;
  /** Nobody waits, or nobody is served any more. */
  isAsleep(): boolean;
  /** One more connection may be opened. */
  hasPlace(): boolean;
  open(group: PoolGroup): void;
  serve(request: LeaseRequest, connection: ServerConnection): void;
}

export class PoolRoom {
  readonly #options: PoolRoomOptions;
  /** `outdated`: something has changed while it was made. */
  #state: 'made' | 'making' | 'outdated' = 'made';

  constructor(options: PoolRoomOptions) {
    this.#options = options;
  }

  /** Called while it is under way, as by who is granted a connection, it only asks for another round. */
  make(): void {
    if (this.#options.isAsleep()) return;
    if (this.#state !== 'made') {
      this.#state = 'outdated';
      return;
    }
    try {
      do {
        this.#state = 'making';
        this.#serveIdle();
        if (this.#openForOldest()) this.#state = 'outdated';
      } while ((this.#state as string) === 'outdated');
    } finally {
      this.#state = 'made';
    }
  }

  /** Closes the connection that has been idle for longest. Returns whether there was one. */
  evictIdle(): boolean {
    const victim = longestIdle(this.#options.groups);
    victim?.terminate();
    return victim !== null;
  }

  #serveIdle(): void {
    const { groups, roomOf, clock, serve } = this.#options;
    const now = clock.now();
    for (const group of groups) {
      for (let index = group.idle.length - 1; index >= 0 && group.waiting.size > 0; index--) {
        const connection = group.idle[index]!;
        const next = nextWaiter(group, connection, groups, roomOf, now);
        if (next === null) continue;
        group.idle.splice(index, 1);
        serve(next, connection);
        // Shares have shifted, and who was served may have changed what is idle.
        this.#state = 'outdated';
        index = Math.min(index, group.idle.length);
      }
    }
  }

  #openForOldest(): boolean {
    const { groups, roomOf, hasPlace, open } = this.#options;
    const oldest = oldestInNeed(groups, roomOf);
    if (oldest === null || !(hasPlace() || this.evictIdle())) return false;
    open(oldest.group);
    return true;
  }
}
