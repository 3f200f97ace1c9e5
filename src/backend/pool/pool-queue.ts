// Who waits for a connection to one node, all groups together: how many there are, and what they are told who wait no more.
// In which order they stand is their group's (pool-group.ts), whose turn it is pool-turns.ts's.
// Invariant: `count` is what stands in the groups; whoever has left gets one answer, from whom it left for.
import type { PgkvError } from '../../base/errors.js';
import type { LeaseRequest, PoolGroup } from './pool-group.js';
import type { PoolGroups } from './pool-groups.js';

/** A request stands in it from `add` to `leave`, and in one group only. */
export class PoolQueue {
  readonly #groups: PoolGroups;
  #count = 0;

  constructor(groups: PoolGroups) {
    this.#groups = groups;
  }

  get count(): number {
    return this.#count;
  }

  add(group: PoolGroup, request: LeaseRequest, now: number): void {
    request.queuedAt = now;
    group.add(request);
    this.#count++;
  }

  /** Returns whether it stood there. */
  leave(request: LeaseRequest): boolean {
    const group = this.#groups.removeWaiting(request);
    if (group === null) return false;
    this.#count--;
    this.#groups.forgetIfUnused(group);
    return true;
  }

  /** Nobody of the group will get a connection. @param message the server's own ErrorResponse */
  refuseAll(group: PoolGroup, error: PgkvError, message: Buffer | null): void {
    const waiting = [...group.waiting];
    for (const request of waiting) {
      if (this.leave(request)) request.refused(error, message);
    }
  }
}
