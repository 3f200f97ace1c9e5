// Who may hold how many of a node's connections (D30), so that nobody starves others. Clients' leases last as long as clients
// like: a part of the pool is kept from them for merged statements, log-ins and pgkv's own questions, which end by
// themselves; and while others wait, one role in one database gets its share of the leases and no more.
// Invariant: `held` is exactly what was granted as a lease and has not come back.
import type { ServerConnection } from '../connection/server-connection.js';
import type { LeaseRequest, PoolGroup } from './pool-group.js';

/** One connection in five, so none in a pool below five: there is nothing to share. */
const KEPT_FROM_LEASES = 5;

export class Shares {
  readonly leasesMax: number;
  readonly #perRoleMax: number;
  readonly #held = new Map<ServerConnection, string>();
  readonly #byRole = new Map<string, number>();

  /** @param roleShare of the leases, above 0 and at most 1 */
  constructor(sizeMax: number, roleShare: number) {
    this.leasesMax = sizeMax - Math.floor(sizeMax / KEPT_FROM_LEASES);
    this.#perRoleMax = Math.max(1, Math.floor(this.leasesMax * roleShare));
  }

  get held(): number {
    return this.#held.size;
  }

  /** How many leases are held for what, for those who wait for one. */
  heldFor(): string {
    const counts = new Map<string, number>();
    for (const { receiver } of this.#held.keys()) {
      const reason = receiver?.heldFor ?? 'clients that have gone';
      counts.set(reason, (counts.get(reason) ?? 0) + 1);
    }
    return [...counts].map(([reason, count]) => `${count} for ${reason}`).join(', ');
  }

  /** A request was granted. */
  granted({ purpose, group }: LeaseRequest, connection: ServerConnection): void {
    if (purpose === undefined) this.leased(group, connection);
  }

  leased({ roleKey }: PoolGroup, connection: ServerConnection): void {
    this.#held.set(connection, roleKey);
    this.#byRole.set(roleKey, (this.#byRole.get(roleKey) ?? 0) + 1);
  }

  /** The connection has come back, or is gone. */
  ended(connection: ServerConnection): void {
    const roleKey = this.#held.get(connection);
    if (roleKey === undefined) return;
    this.#held.delete(connection);
    const left = this.#byRole.get(roleKey)! - 1;
    if (left > 0) this.#byRole.set(roleKey, left);
    else this.#byRole.delete(roleKey);
  }

  /**
   * How many more leases the group may get now.
   * @param groups all of the pool: those that wait for leases, too
   */
  room({ roleKey }: PoolGroup, groups: Iterable<PoolGroup>): number {
    const left = this.leasesMax - this.#held.size;
    const leftOfRole = this.#perRoleMax - (this.#byRole.get(roleKey) ?? 0);
    if (left <= 0 || leftOfRole >= left) return Math.max(left, 0);
    for (const other of groups) {
      if (other.roleKey !== roleKey && other.leaseWaiting > 0) return Math.max(leftOfRole, 0);
    }
    return left;
  }
}
