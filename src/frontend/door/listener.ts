// Accepts clients and knows all of them: admission limits, idle time-outs, graceful drain.
import { createServer, type Server, type Socket } from 'node:net';
import type { Timer } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { encodeError } from '../../wire/server-messages.js';
import { ClientConnection } from './client-connection.js';
import type { FrontendServices } from './frontend-services.js';

export interface ListenAddress {
  /** TCP address, or null for a Unix socket. */
  readonly host: string | null;
  /** 0 takes a free port. */
  readonly port: number;
  readonly socketPath: string | null;
  readonly backlog: number;
  readonly keepaliveMs: number;
}

/** Starts listening. Resolves with the port too; rejects with what the system says (EADDRINUSE …). */
export async function listenAt(
  address: ListenAddress,
  options: { readonly pauseOnConnect?: boolean },
  accepted: (socket: Socket) => void,
): Promise<{ readonly server: Server; readonly port: number }> {
  const { keepaliveMs } = address;
  const keepAlive = keepaliveMs > 0 ? { keepAlive: true, keepAliveInitialDelay: keepaliveMs } : {};
  const server = createServer({ allowHalfOpen: true, noDelay: true, ...keepAlive, ...options }, accepted);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    const target =
      address.socketPath === null
        ? { host: address.host ?? undefined, port: address.port, backlog: address.backlog }
        : { path: address.socketPath, backlog: address.backlog };
    server.listen(target, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const bound = server.address();
  return { server, port: bound !== null && typeof bound === 'object' ? bound.port : address.port };
}

const SWEEP_INTERVAL_MS = 250;
/** Refused clients that may take their time to close; beyond this number they are cut off without a word. */
const REFUSED_OPEN_MAX = 1_000;

export class Listener {
  readonly connections = new Set<ClientConnection>();
  readonly #services: FrontendServices;
  readonly #servers: Server[] = [];
  /** Clients that were refused and have not closed their side yet. */
  readonly #refused = new Set<Socket>();
  /** To clients that are gone by now. */
  #bytesOutBefore = 0;
  #draining = false;
  #drained: (() => void) | null = null;
  #sweepTimer: Timer | null = null;

  constructor(services: FrontendServices) {
    this.#services = services;
    this.#scheduleSweep();
  }

  /** Starts listening. Resolves with the port; rejects with what the system says. */
  async listen(address: ListenAddress): Promise<number> {
    const { server, port } = await listenAt(address, {}, (socket) => this.accept(socket));
    this.#servers.push(server);
    return port;
  }

  /** Bytes sent to clients in all. */
  get bytesOut(): number {
    let bytes = this.#bytesOutBefore;
    for (const { output } of this.connections) bytes += output.bytesWritten;
    return bytes;
  }

  /**
   * Stops accepting, ends idle sessions now and busy ones when their transaction ends, all after `timeoutMs`.
   * @returns how many sessions had to be cut then
   */
  async drain(timeoutMs: number): Promise<number> {
    this.#draining = true;
    for (const server of this.#servers) server.close();
    let cut = 0;
    await new Promise<void>((resolve) => {
      const deadline = this.#services.clock.after(timeoutMs, () => {
        cut = this.destroy();
      });
      this.#drained = () => {
        deadline.cancel();
        resolve();
      };
      this.#sweep();
      if (this.connections.size === 0) this.#drained();
    });
    return cut;
  }

  /** Cuts every connection now. Returns how many of them were sessions. */
  destroy(): number {
    this.#draining = true;
    this.#sweepTimer?.cancel();
    for (const server of this.#servers) server.close();
    let sessions = 0;
    for (const connection of [...this.connections]) {
      if (!connection.inStartup) sessions++;
      connection.cut(new PgkvError('shutting_down'));
    }
    for (const socket of this.#refused) socket.destroy();
    return sessions;
  }

  /** A client has come, here or by way of another process. */
  accept(socket: Socket): void {
    const { counters } = this.#services;
    counters.clientsAccepted++;
    const limit = this.#limitReached(socket.remoteAddress);
    if (limit !== null || this.#draining) {
      counters.clientsRefused++;
      const error = this.#draining
        ? new PgkvError('shutting_down')
        : new PgkvError('too_many_connections', { detail: `the limit ${limit} is reached` });
      this.#refuse(socket, error);
      return;
    }
    this.connections.add(new ClientConnection(socket, this.#services, (connection) => this.#forget(connection)));
  }

  /** The setting that keeps another client from `address` out; null: none does. */
  #limitReached(address: string | undefined): string | null {
    const { limits, counters, pending } = this.#services;
    if (this.connections.size >= limits.connectionsMax) return 'clients.connections_max';
    if (counters.startupsPending >= limits.startupPendingMax) return 'clients.startup_pending_max';
    if (pending.of(address) >= limits.startupPendingPerAddressMax) return 'clients.startup_pending_per_address_max';
    return null;
  }

  #refuse(socket: Socket, error: PgkvError): void {
    socket.on('error', () => socket.destroy());
    if (this.#refused.size >= REFUSED_OPEN_MAX) {
      socket.destroy();
      return;
    }
    this.#refused.add(socket);
    const timer = this.#services.clock.after(this.#services.limits.closeGraceMs, () => socket.destroy());
    socket.on('close', () => {
      timer.cancel();
      this.#refused.delete(socket);
    });
    // Read to its end: closing on unread bytes would reset the connection, and the error would be lost with it.
    socket.on('end', () => socket.destroy());
    socket.resume();
    const message = encodeError(error, 'FATAL');
    this.#bytesOutBefore += message.length;
    socket.end(message);
  }

  #forget(connection: ClientConnection): void {
    if (this.connections.delete(connection)) this.#bytesOutBefore += connection.output.bytesWritten;
    if (this.#draining && this.connections.size === 0) this.#drained?.();
  }

  #scheduleSweep(): void {
    this.#sweepTimer = this.#services.clock.after(SWEEP_INTERVAL_MS, () => {
      this.#sweep();
      this.#services.failedLogins.tellRest();
      this.#scheduleSweep();
    });
  }

  /** Ends sessions that were idle for too long, and while draining those that are between transactions. */
  #sweep(): void {
    const { limits, clock } = this.#services;
    const { idleTimeoutMs, idleInTransactionTimeoutMs } = limits;
    if (!this.#draining && idleTimeoutMs === 0 && idleInTransactionTimeoutMs === 0) return;
    const now = clock.now();
    for (const connection of [...this.connections]) {
      const { conversation } = connection;
      if (conversation === null) {
        if (this.#draining) connection.terminate(new PgkvError('shutting_down'));
        continue;
      }
      const idleInBlockSince = conversation.idleInTransactionSince;
      if (!conversation.busy) {
        if (this.#draining) connection.terminate(new PgkvError('shutting_down'));
        else if (idleTimeoutMs > 0 && now - conversation.lastActivity > idleTimeoutMs) {
          connection.terminate(new PgkvError('idle_timeout'));
        }
      }
      if (idleInTransactionTimeoutMs > 0 && idleInBlockSince !== null) {
        if (now - idleInBlockSince > idleInTransactionTimeoutMs) {
          connection.terminate(new PgkvError('idle_in_transaction_timeout'));
        }
      }
    }
  }
}
