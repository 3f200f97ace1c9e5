// What has been heard of the roles on one node: a role that was dropped and made anew under its name is another one, with
// rights of its own, and a server connection of the old one must serve nobody who logs in as the new. Owns the newest
// word on each role; which connections it costs is decided here, and carried out by the pool.
import type { PoolGroup, RoleIdentity } from './pool-group.js';

interface News {
  readonly role: RoleIdentity;
  /** Connections made before it are not handed on. */
  readonly since: number;
}

/** Roles remembered at one time; the one heard of first is forgotten. */
const ROLES_MAX = 10_000;

export class RoleNews {
  readonly #news = new Map<string, News>();

  /** Returns whether the role is another one, or has another password, than was known. */
  heard(user: string, role: RoleIdentity, now: number): boolean {
    const known = this.#news.get(user);
    if (known !== undefined && known.role.oid === role.oid && known.role.verifier === role.verifier) return false;
    if (known === undefined && this.#news.size >= ROLES_MAX) {
      const [first] = this.#news.keys();
      this.#news.delete(first!);
    }
    this.#news.set(user, { role, since: known === undefined ? Number.NEGATIVE_INFINITY : now });
    return known !== undefined;
  }

  /** The role that the group's sessions have logged in as is no more. */
  isGone({ user, role }: PoolGroup): boolean {
    return role !== null && this.#isOther(user, role);
  }

  /** Whether a connection of that age may serve another session. */
  isOutdated({ user, role }: PoolGroup, createdAt: number): boolean {
    if (role === null) return false;
    const news = this.#news.get(user);
    return news !== undefined && (createdAt < news.since || news.role.oid !== role.oid);
  }

  /** Whether what a client has logged in with is the newest, so that connections may be opened with it. */
  isNewest(user: string, role: RoleIdentity | null): boolean {
    const news = this.#news.get(user);
    return role === null || news === undefined || news.role.verifier === role.verifier;
  }

  #isOther(user: string, role: RoleIdentity): boolean {
    const news = this.#news.get(user);
    return news !== undefined && news.role.oid !== role.oid;
  }
}
