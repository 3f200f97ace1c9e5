// Cancel requests of one lane on their way to its server. They go beside the connection and may land late: the connection
// must not have another user by then. Invariant: `whenLanded` holds back whoever would give it away until none is under way.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { ReplyReceiver } from '../../backend/replies/reply-receiver.js';
import type { CancelStatement } from './lane-options.js';

/** How many are under way is the connection's own count; at most one deed waits, and none once the connection is gone. */
export class LaneCancels {
  readonly #lane: ReplyReceiver;
  readonly #cancelStatement: CancelStatement;
  /** What waits for those under way to have landed. */
  #waiting: (() => void) | null = null;

  constructor(lane: ReplyReceiver, cancelStatement: CancelStatement) {
    this.#lane = lane;
    this.#cancelStatement = cancelStatement;
  }

  /** Cancels what the server is at for the client. */
  send(connection: ServerConnection): void {
    connection.cancelsUnderWay++;
    this.#cancelStatement(connection, () => {
      connection.cancelsUnderWay--;
      // It came too late: see MatchedConnection.deadlock.
      if (connection.cancelsUnderWay === 0 && connection.replies.length === 0) connection.deadlock = null;
      if (connection.cancelsUnderWay > 0 || connection.dead || connection.receiver !== this.#lane) return;
      const waiting = this.#waiting;
      this.#waiting = null;
      waiting?.();
    });
  }

  /** The same where the connection is closed behind it, so that nobody waits for it to land. */
  sendLast(connection: ServerConnection): void {
    this.#cancelStatement(connection, () => undefined);
  }

  /** Does `deed` once those under way have landed, unless the lane loses the connection before. There is one at least. */
  whenLanded(deed: () => void): void {
    this.#waiting = deed;
  }

  /** The connection is gone. */
  clear(): void {
    this.#waiting = null;
  }
}
