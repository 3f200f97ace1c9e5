// Statements of pgkv's own service role: verifier look-ups, health probes. They run on a small pool beside that of the
// clients, so that neither can starve the other, with the same TLS and login code.
import type { Clock } from '../../base/clock.js';
import { type ErrorDetails, PgkvError } from '../../base/errors.js';
import { readErrorFields } from '../../wire/error-fields.js';
import type { NodePool } from './node-pool.js';
import type { PoolGroup } from './pool-group.js';

/** The server's own error, as the cause of one whose statement it has refused. */
export class StatementRefused extends Error {
  readonly sqlstate: string;

  constructor(sqlstate: string, message: string) {
    super(message);
    this.name = 'StatementRefused';
    this.sqlstate = sqlstate;
  }
}

/**
 * Rows of a simple query, all values as text. A server that takes longer than `servers.answer_timeout_ms` (its host is gone,
 * it was stopped) counts as one that cannot be reached. Rejects with `server_unreachable`,
 * `server_silent` or `wrong_server`, the cause in its detail.
 */
export function serviceQuery(
  pool: NodePool,
  group: PoolGroup,
  clock: Clock,
  sql: string,
): Promise<(string | null)[][]> {
  return new Promise((resolve, reject) => {
    const fail = (details: ErrorDetails): void => reject(new PgkvError('server_unreachable', details));
    pool.acquire({
      group,
      purpose: 'control',
      settings: pool.noSettings,
      queuedAt: 0,
      refused: (error) => {
        if (error.errorName === 'wrong_server') reject(error);
        else fail({ detail: error.detail ?? error.message, cause: error });
      },
      granted: (connection) => {
        const rows: (string | null)[][] = [];
        let failure: StatementRefused | null = null;
        const deadline = clock.after(pool.answerTimeoutMs, () => pool.missedDeadline(connection));
        // Statements of pgkv's own are answered to the query's handler; the lease itself only hears of a loss.
        connection.attach({
          heldFor: "pgkv's own questions",
          holdsBytes: false,
          serverBytes: () => undefined,
          serverNotified: () => undefined,
          serverPaused: () => undefined,
          serverReady: () => undefined,
          serverParameter: () => undefined,
          serverTag: () => undefined,
          clientStatementName: () => undefined,
          guardedError: () => false,
          guardedReady: () => undefined,
          serverLost: (loss) => {
            deadline.cancel();
            fail({ detail: loss.error.detail ?? loss.error.message });
          },
        });
        connection.runControl(sql, {
          row: (values) => rows.push(values),
          failed: (message) => {
            const { C: sqlstate = '', M: text = 'unknown error' } = readErrorFields(message, 0, message.length);
            failure = new StatementRefused(sqlstate, text);
          },
          ready: () => {
            deadline.cancel();
            pool.release(connection, group);
            if (failure === null) resolve(rows);
            else fail({ detail: failure.message, cause: failure });
          },
        });
      },
    });
  });
}
