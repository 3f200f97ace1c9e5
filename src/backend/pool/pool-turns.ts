// Whose turn it is in a pool: who gets a connection that has come back, for whom the next one is opened, and which idle one
// makes room for it. Decides and does nothing; oldest first, but for connections that would have to be opened anew.
import type { ServerConnection } from '../connection/server-connection.js';
import type { LeaseRequest, PoolGroup } from './pool-group.js';

type Groups = Iterable<PoolGroup>;
/** How many more leases a group may get. */
type RoomOf = (group: PoolGroup) => number;

/** Who has waited for longer goes before younger ones, though a connection has to be opened for that. */
const UNFAIRNESS_MAX_MS = 250;

/**
 * Who gets a connection of the group; null: nobody of its group, or somebody has waited out of proportion who cannot have it and
 * for whom none is being opened: of another group, or of this one with settings that do not fit.
 */
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
  const oldest = oldestInNeed(groups, roomOf);
  // Room is made for that one: the connection goes idle and is evicted.
  const isOvertaken = oldest !== null && oldest.queuedAt < Math.min(own.queuedAt, now - UNFAIRNESS_MAX_MS);
  return isOvertaken ? null : own;
}

/** The oldest of those for whom no connection is being opened. */
export function oldestInNeed(groups: Groups, roomOf: RoomOf): LeaseRequest | null {
  let oldest: LeaseRequest | null = null;
  for (const group of groups) {
    if (group.waiting.size === 0) continue;
    const first = group.firstInNeed(roomOf(group));
    if (first !== null && (oldest === null || first.queuedAt < oldest.queuedAt)) oldest = first;
  }
  return oldest;
}

export function longestIdle(groups: Groups): ServerConnection | null {
  let longest: ServerConnection | null = null;
  for (const { idle } of groups) {
    const first = idle[0];
    if (first !== undefined && (longest === null || first.idleSince < longest.idleSince)) longest = first;
  }
  return longest;
}
