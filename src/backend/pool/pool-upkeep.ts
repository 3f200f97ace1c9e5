// What a pool does by the clock: waiters time out, connections that have been idle or open for too long are closed, servers that
// stay silent are noticed (answer-deadlines.ts), what nobody can name or uses any more is given up. Closes and tests; who may wait
// and what a refusal says is the pool's. Ends with the pool.
import type { Clock } from '../../base/clock.js';
import type { ServerConnection } from '../connection/server-connection.js';
import type { AnswerDeadlines } from './answer-deadlines.js';
import type { LeaseRequest } from './pool-group.js';
import type { PoolGroups } from './pool-groups.js';
import type { PoolLimits } from './pool-limits.js';

const SWEEP_INTERVAL_MS = 500;
/** How often idle connections are looked at for statements of clients that are gone. */
const TIDY_INTERVAL_MS = 10_000;

/** The pool, as far as it is of concern here. */
interface PoolUpkeepOptions {
  readonly clock: Clock;
  readonly limits: Pick<PoolLimits, 'waitTimeoutMs' | 'idleTimeoutMs' | 'lifetimeMaxMs'>;
  readonly groups: PoolGroups;
  readonly connections: Iterable<ServerConnection>;
  readonly deadlines: AnswerDeadlines;
  isClosed(): boolean;
  timedOut(request: LeaseRequest): void;
  /** What is known of other databases is of no use any more. */
  keepDatabases(used: ReadonlySet<string>): void;
  swept(): void;
}

export class PoolUpkeep {
  readonly #options: PoolUpkeepOptions;
  #tidiedAt = 0;

  constructor(options: PoolUpkeepOptions) {
    this.#options = options;
    this.#schedule();
  }

  #schedule(): void {
    const { clock, isClosed } = this.#options;
    clock.after(SWEEP_INTERVAL_MS, () => {
      if (isClosed()) return;
      this.#sweep(clock.now());
      this.#schedule();
    });
  }

  #sweep(now: number): void {
    const { groups, connections, deadlines, timedOut, swept } = this.#options;
    const { waitTimeoutMs, idleTimeoutMs, lifetimeMaxMs } = this.#options.limits;
    deadlines.sweep(connections, now);
    if (now - this.#tidiedAt >= TIDY_INTERVAL_MS) this.#tidy(now);
    for (const group of groups) {
      for (const request of group.waiting) {
        if (now - request.queuedAt < waitTimeoutMs) break;
        timedOut(request);
      }
      for (const connection of [...group.idle]) {
        if (now - connection.idleSince > idleTimeoutMs || now - connection.createdAt > lifetimeMaxMs) {
          connection.terminate();
        }
      }
    }
    swept();
  }

  /** Statements that nobody can name any more are closed on the servers; who has some is out of use until they are. */
  #tidy(now: number): void {
    const { groups, deadlines, keepDatabases } = this.#options;
    this.#tidiedAt = now;
    keepDatabases(groups.databases);
    for (const group of groups) {
      for (const connection of [...group.idle]) {
        if (connection.closeForsaken() && group.removeIdle(connection)) deadlines.test(connection, group);
      }
    }
  }
}
