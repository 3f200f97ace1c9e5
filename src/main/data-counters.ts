// Counters that others own, copied into the one set that is shown.
import type { NodePool } from '../backend/pool/node-pool.js';
import type { Listener } from '../frontend/door/listener.js';
import { type Counters, countError, type ErrorCounts, SQLSTATE_CLASSES } from '../telemetry/counters.js';
import { errorsWritten } from '../wire/server-messages.js';

/** Brings the gauges that others own up to date. */
export function refreshGauges(counters: Counters, pools: readonly NodePool[], listener: Listener): void {
  const sum = (of: (pool: NodePool) => number): number => pools.reduce((total, pool) => total + of(pool), 0);
  counters.serverConnections = sum((pool) => pool.openCount);
  counters.waits = sum((pool) => pool.waitingCount);
  counters.serverConnectionsOpened = sum((pool) => pool.counters.connectsTotal);
  counters.serverConnectionsFailed = sum((pool) => pool.counters.connectFailuresTotal);
  counters.serverConnectionsDestroyed = sum((pool) => pool.counters.destroyedTotal);
  counters.serverConnectionsSilent = sum((pool) => pool.counters.silentTotal);
  counters.waitsStarted = sum((pool) => pool.counters.waitsTotal);
  counters.waitsTimedOut = sum((pool) => pool.counters.waitTimeoutsTotal);
  counters.waitsRefused = sum((pool) => pool.counters.waitsRefusedTotal);
  counters.leasesGranted = sum((pool) => pool.counters.grantsTotal);
  counters.transactions = sum((pool) => pool.counters.transactionsTotal);
  counters.clientBytesOut = listener.bytesOut;
  counters.serverBytesIn = sum((pool) => pool.bytesIn);
  counters.serverBytesOut = sum((pool) => pool.bytesOut);
  for (const name of SQLSTATE_CLASSES) counters.serverErrors[name] = sum((pool) => pool.counters.errors[name]);
  counters.leases = sum((pool) => pool.openCount - pool.idleCount);
  counters.sessionsPinned = 0;
  for (const { conversation } of listener.connections) {
    if (conversation?.lanes.pinned === true) counters.sessionsPinned++;
  }
}

/** @param before how many had been written when this router started */
export function refreshOwnErrors(counts: ErrorCounts, before: ReadonlyMap<string, number>): void {
  for (const name of SQLSTATE_CLASSES) counts[name] = 0;
  for (const [sqlstate, total] of errorsWritten) countError(counts, sqlstate, total - (before.get(sqlstate) ?? 0));
}
