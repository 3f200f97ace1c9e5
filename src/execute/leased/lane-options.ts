// What a leased lane is made with, and asks of those around it: the client's side of it, and who delivers cancel requests.

import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { SettingsRegistry } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import type { ServerLoss } from '../../backend/replies/reply-receiver.js';
import type { Clock } from '../../base/clock.js';
import type { PgkvError } from '../../base/errors.js';
import type { Session } from '../../session/session.js';

/** The client's side of a `Lane`, which a session may have several of. All calls are synchronous. */
export interface ClientPort<Lane> {
  send(bytes: Buffer, lane: Lane): void;
  /** A notification; see ReplyReceiver.serverNotified. */
  notified(message: Buffer, lane: Lane, isBeside: boolean): void;
  flush(): void;
  /** The client's socket takes no more for now. */
  readonly clogged: boolean;
  /** Bytes sent are still to be read from where they were. */
  readonly holdsBytes: boolean;
  /** A server's ReadyForQuery has gone out. */
  ready(status: number, lane: Lane): void;
  /** The lane takes messages again. */
  resume(): void;
  /** The statement that asked for a connection cannot have one. `message`: the server's own ErrorResponse. */
  refused(error: PgkvError, message: Buffer | null): void;
  /** The connection under the session broke. `hadState`: state was lost that cannot be had back. */
  lost(loss: ServerLoss, hadState: boolean, lane: Lane): void;
  /** A statement whose plan had gone stale was held back from the client and has to be sent again. */
  repeat(): void;
  tag(tag: string): void;
}

/** Cancels what a connection is doing; calls back when the request has been delivered or has failed. */
export type CancelStatement = (connection: ServerConnection, delivered: () => void) => void;

/** What the parts of a lane are made with. */
export interface LaneParts {
  readonly session: Session;
  readonly pool: NodePool;
  readonly group: PoolGroup;
  readonly registry: SettingsRegistry;
  /** From the client's start-up packet: what RESET takes it back to. */
  readonly applicationName: string;
}

export interface LaneOptions<Lane> extends LaneParts {
  readonly client: ClientPort<Lane>;
  readonly clock: Clock;
  readonly cancelStatement: CancelStatement;
}
