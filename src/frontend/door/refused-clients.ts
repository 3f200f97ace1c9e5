// Clients that come beyond a limit, or while pgkv shuts down. They are heard up to their StartupMessage, over TLS where they
// ask for it, because drivers read an error before that as a failed handshake; then they are told why. Owns the bounds of
// that: so many sockets at one time, a short deadline for each, and at most one line in the log a second for all of them.
import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.js';
import type { PgkvError } from '../../base/errors.js';
import type { Counters } from '../../telemetry/counters.js';

/** Refused clients that may be heard and may take their time to close; beyond this number they are cut off without a word. */
const OPEN_MAX = 1_000;
const TELL_INTERVAL_MS = 1_000;

type Tell = (fields: { readonly clients: number; readonly reason: string; readonly address: string }) => void;

export class RefusedClients {
  readonly #clock: Clock;
  readonly #counters: Counters;
  readonly #tell: Tell;
  /** Until they are closed, TLS or not. */
  readonly #open = new Set<Socket>();
  /** Since the last line. */
  #untold = 0;
  #toldAt = Number.NEGATIVE_INFINITY;
  #last = { reason: '', address: '' };

  constructor(clock: Clock, counters: Counters, tell: Tell) {
    this.#clock = clock;
    this.#counters = counters;
    this.#tell = tell;
  }

  /** Whether the client may be heard; else it has been cut off. */
  admit(socket: Socket, error: PgkvError): boolean {
    if (this.#open.size >= OPEN_MAX) {
      socket.on('error', () => socket.destroy());
      this.note(socket.remoteAddress, error);
      socket.destroy();
      return false;
    }
    this.#open.add(socket);
    socket.once('close', () => this.#open.delete(socket));
    return true;
  }

  /** A client has been told, or cut off. */
  note(address: string | undefined, error: PgkvError): void {
    this.#counters.clientsRefused++;
    this.#untold++;
    this.#last = { reason: error.detail ?? error.message, address: address ?? 'Unix socket' };
    this.tellRest();
  }

  /** To be called now and then: those that came within a second of the last line are in the next. */
  tellRest(): void {
    const now = this.#clock.now();
    if (this.#untold === 0 || now - this.#toldAt < TELL_INTERVAL_MS) return;
    this.#toldAt = now;
    this.#tell({ clients: this.#untold, ...this.#last });
    this.#untold = 0;
  }

  destroy(): void {
    for (const socket of this.#open) socket.destroy();
  }
}
