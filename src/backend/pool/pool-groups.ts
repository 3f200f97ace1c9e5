// The groups of one node's pool, by what their connections have logged in with, and what has been heard of their roles.
// Invariant: there is one group under a key, which is used or was given away a moment ago; one that is forgotten comes back under
// its key with whoever held on to it.
import type { Credential } from '../connection/credential.js';
import type { ServerConnection } from '../connection/server-connection.js';
import { PoolGroup, type RoleIdentity } from './pool-group.js';
import { RoleNews } from './role-news.js';

/** So long a server waits for others to leave a database. */
const LEAVING_MS = 5_000;

export class PoolGroups implements Iterable<PoolGroup> {
  readonly #byKey = new Map<string, PoolGroup>();
  readonly #roles = new RoleNews();
  /** The database that nobody is to stay in, and until when. */
  #left: { readonly database: string; readonly until: number } | null = null;

  [Symbol.iterator](): Iterator<PoolGroup> {
    return this.#byKey.values();
  }

  /** The group for these start-up parameters (user and database among them). A newer credential replaces the older. */
  of(startup: ReadonlyMap<string, string>, credential: Credential, role: RoleIdentity | null): PoolGroup {
    const parameters = [...startup].sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const key = JSON.stringify(role === null ? parameters : [role.oid, role.barred, ...parameters]);
    const user = startup.get('user') ?? '';
    let group = this.#byKey.get(key);
    if (group === undefined) {
      group = new PoolGroup(key, user, startup, credential, role);
      this.#byKey.set(key, group);
    }
    if (this.#roles.isNewest(user, role)) group.credential = credential;
    return group;
  }

  /** A group is forgotten when nobody uses it; a session that holds on to it uses the one that took its place. */
  current(group: PoolGroup): PoolGroup {
    const known = this.#byKey.get(group.key);
    if (known !== undefined) return known;
    this.#byKey.set(group.key, group);
    return group;
  }

  forgetIfUnused(group: PoolGroup): void {
    if (group.open > 0 || group.opening > 0) return;
    group.parameters = null;
    // By now another may stand under its key.
    if (group.waiting.size === 0 && this.#byKey.get(group.key) === group) this.#byKey.delete(group.key);
  }

  /** Withdraws a request from the group that stands under its group's key. Returns that, or null: nobody waited by it. */
  removeWaiting(request: Parameters<PoolGroup['remove']>[0]): PoolGroup | null {
    const group = this.#byKey.get(request.group.key) ?? request.group;
    return group.remove(request) ? group : null;
  }

  /**
   * A client is logging in as a role that the node has like this.
   * @returns the groups of a role that is another one, or has another password, than was known
   */
  heardOfRole(user: string, role: RoleIdentity, now: number): readonly PoolGroup[] {
    if (!this.#roles.heard(user, role, now)) return [];
    return [...this].filter((group) => group.user === user);
  }

  /** The role that the group's sessions have logged in as is no more. */
  isGone(group: PoolGroup): boolean {
    return this.#roles.isGone(group);
  }

  /** What was opened for a role that is another one by now serves nobody any more. */
  isOutdated(group: PoolGroup, { createdAt }: ServerConnection): boolean {
    return this.#roles.isOutdated(group, createdAt);
  }

  /** Nobody is to stay in the database for what is about to be sent. @returns who is idle there */
  leave(database: string, now: number): readonly ServerConnection[] {
    this.#left = { database, until: now + LEAVING_MS };
    return [...this].flatMap((group) => (group.database === database ? group.idle : []));
  }

  /** Who would be idle in it would be in the way. */
  isLeft({ database }: PoolGroup, now: number): boolean {
    return this.#left !== null && this.#left.database === database && now < this.#left.until;
  }

  get idleCount(): number {
    let count = 0;
    for (const group of this) count += group.idle.length;
    return count;
  }

  /** Those that somebody uses. */
  get databases(): ReadonlySet<string> {
    return new Set([...this].map(({ database }) => database));
  }
}
