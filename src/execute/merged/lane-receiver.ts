// What the merged lane's own statements have in common as receivers of replies: no client stands behind them, so that all
// that is only of interest to one is passed over.
import type { ReplyReceiver, ServerLoss } from '../../backend/connection/server-connection.js';

export abstract class LaneReceiver implements ReplyReceiver {
  readonly heldFor = 'merged statements';
  readonly holdsBytes = false;

  abstract serverBytes(bytes: Buffer): void;
  abstract serverReady(status: number): void;
  abstract serverLost(loss: ServerLoss): void;

  serverNotified(): void {
    // Nobody listens here.
  }

  serverPaused(): void {
    // Answers go out when all have come.
  }

  clientStatementName(): undefined {
    return undefined;
  }

  serverParameter(): void {
    // No client's: its parameters are those of its own connections.
  }

  serverTag(): void {
    // Not asked for.
  }

  guardedError(): boolean {
    return false;
  }

  guardedReady(): void {
    // Nothing is guarded.
  }
}
