// The bounds of a node's pool, and what it counts.
import { createErrorCounts, type ErrorCounts } from '../../telemetry/counters.js';
import type { ConnectionLimits } from '../connection/connection-opener.js';

export interface PoolLimits extends ConnectionLimits {
  readonly sizeMax: number;
  /** Of the leases, what one role in one database gets while others wait. */
  readonly roleShare: number;
  readonly queueMax: number;
  readonly waitTimeoutMs: number;
  /** For what pgkv itself asks of a server. */
  readonly answerTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly lifetimeMaxMs: number;
}

export interface PoolCounters {
  connectsTotal: number;
  connectFailuresTotal: number;
  grantsTotal: number;
  /** Requests that found every connection in use; one that only has to be opened is no wait. */
  waitsTotal: number;
  waitTimeoutsTotal: number;
  waitsRefusedTotal: number;
  /** Closed because a session left them in a state nobody knows. */
  destroyedTotal: number;
  /** Closed because their server did not answer in time. */
  silentTotal: number;
  transactionsTotal: number;
  readonly errors: ErrorCounts;
}

export function createPoolCounters(): PoolCounters {
  return {
    connectsTotal: 0,
    connectFailuresTotal: 0,
    grantsTotal: 0,
    waitsTotal: 0,
    waitTimeoutsTotal: 0,
    waitsRefusedTotal: 0,
    destroyedTotal: 0,
    silentTotal: 0,
    transactionsTotal: 0,
    errors: createErrorCounts(),
  };
}
