// Accepts clients and knows all of them: admission limits, idle time-outs, graceful drain.
import { createServer, type Server, type Socket } from 'node:net';
import type { Timer } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
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

export class Listener {
  readonly connections = new Set<ClientConnection>();
  readonly #services: FrontendServices;
  readonly #servers: Server[] = [];
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
    this.#services.refusedClients.destroy();
    return sessions;
  }

  /** A client has come, here or by way of another process. */
  accept(socket: Socket): void {
    this.#services.counters.clientsAccepted++;
    const refusal = this.#refusalOf(socket.remoteAddress);
    if (refusal === null) {
      this.connections.add(
        new ClientConnection(socket, this.#services, null, (connection) => this.#forget(connection)),
      );
    } else if (this.#services.refusedClients.admit(socket, refusal)) {
      new ClientConnection(socket, this.#services, refusal, (connection) => this.#countBytes(connection));
    }
  }

  #refusalOf(address: string | undefined): PgkvError | null {
    if (this.#draining) return new PgkvError('shutting_down');
    const limit = this.#limitReached(address);
    return limit === null ? null : new PgkvError('too_many_connections', { detail: `the limit ${limit} is reached` });
  }

  /** The setting that keeps another client from `address` out; null: none does. */
  #limitReached(address: string | undefined): string | null {
    const { limits, counters, pending } = this.#services;
    if (this.connections.size >= limits.connectionsMax) return 'clients.connections_max';
    if (counters.startupsPending >= limits.startupPendingMax) return 'clients.startup_pending_max';
    if (pending.of(address) >= limits.startupPendingPerAddressMax) return 'clients.startup_pending_per_address_max';
    return null;
  }

  #forget(connection: ClientConnection): void {
    if (this.connections.delete(connection)) this.#countBytes(connection);
    if (this.#draining && this.connections.size === 0) this.#drained?.();
  }

  #countBytes({ output }: ClientConnection): void {
    this.#bytesOutBefore += output.bytesWritten;
  }

  #scheduleSweep(): void {
    this.#sweepTimer = this.#services.clock.after(SWEEP_INTERVAL_MS, () => {
      this.#sweep();
      this.#services.failedLogins.tellRest();
      this.#services.refusedClients.tellRest();
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
