// All connections to one node, those under way among them: opened for a group, counted with it, and forgotten when they are
// gone. Owns the set, the schema epoch that each of them is told, and the bytes of those that are gone; who gets one is the
// pool's. Invariant: a group's `open` and `opening` are what stands here for it.
import type { ConnectionOpener } from '../connection/connection-opener.js';
import type { LoginFailure } from '../connection/handshake.js';
import type { ServerConnection } from '../connection/server-connection.js';
import type { PoolGroup } from './pool-group.js';
import type { PoolGroups } from './pool-groups.js';

/** The pool, as far as it is of concern here. */
interface PoolConnectionsOptions {
  readonly opener: ConnectionOpener;
  readonly groups: PoolGroups;
  /** One is there, at rest, for whoever waits. */
  opened(group: PoolGroup, connection: ServerConnection): void;
  failed(group: PoolGroup, failure: LoginFailure): void;
  /** One is gone, and no group has it any more. */
  closed(connection: ServerConnection): void;
}

/** A connection is opening (counted by its group and the opener), then open up to `onClosed`, then gone. */
export class PoolConnections implements Iterable<ServerConnection> {
  readonly #options: PoolConnectionsOptions;
  readonly #open = new Set<ServerConnection>();
  #schemaEpoch = 0;
  /** Bytes of connections that are closed by now. */
  #bytesInBefore = 0;
  #bytesOutBefore = 0;

  constructor(options: PoolConnectionsOptions) {
    this.#options = options;
  }

  [Symbol.iterator](): Iterator<ServerConnection> {
    return this.#open.values();
  }

  get openCount(): number {
    return this.#open.size;
  }

  /** Open and opening. */
  get placesTaken(): number {
    return this.#open.size + this.#options.opener.attemptCount;
  }

  /** Counts the times DDL went through. */
  get schemaEpoch(): number {
    return this.#schemaEpoch;
  }

  get bytesIn(): number {
    let bytes = this.#bytesInBefore;
    for (const connection of this.#open) bytes += connection.bytesReceived;
    return bytes;
  }

  get bytesOut(): number {
    let bytes = this.#bytesOutBefore;
    for (const connection of this.#open) bytes += connection.output.bytesWritten;
    return bytes;
  }

  /** Opens one for the group: `opened` or `failed` follows, perhaps before this returns. */
  open(group: PoolGroup): void {
    const { opener, failed } = this.#options;
    group.opening++;
    opener.open(group, {
      opened: (connection) => {
        group.opening--;
        this.#opened(group, connection);
      },
      failed: (failure) => {
        group.opening--;
        failed(group, failure);
      },
    });
  }

  /** Every connection prepares its statements anew before their next use. */
  schemaChanged(): void {
    this.#schemaEpoch++;
    for (const connection of this.#open) connection.schemaChanged(this.#schemaEpoch);
  }

  giveUpOpening(): void {
    this.#options.opener.giveUpAll();
  }

  destroyAll(reason: string): void {
    for (const connection of [...this.#open]) connection.destroy(reason);
  }

  #opened(group: PoolGroup, connection: ServerConnection): void {
    connection.schemaChanged(this.#schemaEpoch);
    this.#open.add(connection);
    group.open++;
    group.parameters = connection.parameters;
    connection.onClosed = () => this.#closed(group, connection);
    this.#options.opened(group, connection);
  }

  #closed(group: PoolGroup, connection: ServerConnection): void {
    this.#open.delete(connection);
    this.#bytesInBefore += connection.bytesReceived;
    this.#bytesOutBefore += connection.output.bytesWritten;
    group.open--;
    group.removeIdle(connection);
    this.#options.groups.forgetIfUnused(group);
    this.#options.closed(connection);
  }
}
