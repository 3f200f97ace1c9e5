// Whose turn it is in a pool: who gets a connection that has come back, for whom the next one is opened, and which idle one
// makes room for it. Decides and does nothing; oldest first, but for connections that would have to be opened anew.
import type { ServerConnection } from '../connection/server-connection.js';
import type { LeaseRequest, PoolGroup } from './pool-group.js';

type Groups = ReadonlyMap<string, PoolGroup>;
/** How many more leases a group may get. */
type RoomOf = (group: PoolGroup) => number;

/** A waiter of another group that is this much older than the next of the own group goes first. */
const UNFAIRNESS_MAX_MS = 250;

/** Who gets a connection of the group; null: nobody of its group, or somebody of another has waited out of proportion. */
export function nextWaiter(
  group: PoolGroup,
  connection: ServerConnection,
  groups: Groups,
  roomOf: RoomOf,
  now: number,
): LeaseRequest | null {
  if (group.waiting.size === 0) return null;
  const own = group.waiterFor(connection, roomOf(group));
  if (own === null) return null;
  for (const other of groups.values()) {
    if (other === group || other.waiting.size === 0) continue;
    const oldest = other.oldestWaiter(roomOf(other));
    // Room is made for that stranger: the connection goes idle and is evicted.
    if (oldest !== undefined && now - oldest.queuedAt > UNFAIRNESS_MAX_MS && oldest.queuedAt < own.queuedAt)
      return null;
  }
  return own;
}

/** The oldest of those for whom no connection is being opened. */
export function oldestInNeed(groups: Groups, roomOf: RoomOf): LeaseRequest | null {
  let oldest: LeaseRequest | null = null;
  for (const group of groups.values()) {
    if (group.waiting.size === 0) continue;
    const room = roomOf(group);
    if (!group.lacksConnections(room)) continue;
    const first = group.oldestWaiter(room);
    if (first !== undefined && (oldest === null || first.queuedAt < oldest.queuedAt)) oldest = first;
  }
  return oldest;
}

export function longestIdle(groups: Groups): ServerConnection | null {
  let longest: ServerConnection | null = null;
  for (const { idle } of groups.values()) {
    const first = idle[0];
    if (first !== undefined && (longest === null || first.idleSince < longest.idleSince)) longest = first;
  }
  return longest;
}
