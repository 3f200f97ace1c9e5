// Opens connections to one node: socket, TLS and login, within a deadline. Owns the attempts under way, each of which is
// answered exactly once; how many there may be, and whose a connection becomes, is the pool's.
import type { Duplex } from 'node:stream';
import type { Clock, Random } from '../../base/clock.js';
import type { ErrorCounts } from '../../telemetry/counters.js';
import { internParameters } from '../replies/parameter-status.js';
import type { Credential } from './credential.js';
import { Handshake, type LoggedIn, type LoginFailure } from './handshake.js';
import { ServerConnection } from './server-connection.js';
import type { ServerProof } from './server-proof.js';
import { addressText, type OpenStream, type ReadBuffer, type ServerAddress } from './server-socket.js';
import type { SettingsGroup } from './settings-group.js';

export interface ConnectionLimits {
  readonly connectTimeoutMs: number;
  readonly preparedStatementsMax: number;
  readonly serverMessageBytesMax: number;
}

/** Who a connection logs in as. Read when the socket is open: a newer credential may have come by then. */
export interface ServerLogin {
  readonly user: string;
  readonly startup: ReadonlyMap<string, string>;
  readonly credential: Credential;
}

/** One of the two is called, perhaps before `open` returns. */
export interface OpeningOutcome {
  opened(connection: ServerConnection): void;
  failed(failure: LoginFailure): void;
}

export interface OpenerOptions {
  readonly address: ServerAddress;
  readonly limits: ConnectionLimits;
  readonly openStream: OpenStream;
  readonly clock: Clock;
  readonly random: Random;
  readonly noSettings: SettingsGroup;
  readonly errorCounts: ErrorCounts;
  /** Null: any server will do. */
  readonly proof: ServerProof | null;
}

export class ConnectionOpener {
  readonly #options: OpenerOptions;
  /** What gives an attempt up, for each that is under way. */
  readonly #attempts = new Set<(reason: string) => void>();

  constructor(options: OpenerOptions) {
    this.#options = options;
  }

  /** How many attempts are under way. */
  get attemptCount(): number {
    return this.#attempts.size;
  }

  open(login: ServerLogin, outcome: OpeningOutcome): void {
    const { address, openStream, clock, random, limits } = this.#options;
    let handshake: Handshake | null = null;
    let unproven: ServerConnection | null = null;
    const settle = (): boolean => {
      if (!this.#attempts.delete(giveUp)) return false;
      timer.cancel();
      return true;
    };
    const failed = (failure: LoginFailure): void => {
      if (settle()) outcome.failed(failure);
    };
    const giveUp = (reason: string): void => {
      attempt.abort();
      handshake?.abort();
      unproven?.destroy(reason);
      failed({ reason, sqlstate: null, message: null });
    };
    const timer = clock.after(limits.connectTimeoutMs, () =>
      giveUp(`no answer within ${limits.connectTimeoutMs} ms (servers.connect_timeout_ms)`),
    );
    this.#attempts.add(giveUp);
    const attempt = openStream(
      address,
      ({ stream, certificate, readBuffer }) => {
        handshake = new Handshake({
          stream,
          certificate,
          startup: login.startup,
          user: login.user,
          credential: login.credential,
          random,
          failed,
          succeeded: (loggedIn) => {
            const connection = this.#connection(stream, readBuffer, loggedIn);
            unproven = connection;
            this.#prove(connection, login, (failure) => {
              unproven = null;
              if (failure !== null) failed(failure);
              else if (settle()) outcome.opened(connection);
            });
          },
        });
      },
      (error) => failed({ reason: error.message, sqlstate: null, message: null }),
    );
  }

  /** Nobody uses it before it has said who it is (D28). `done` hears null, or why it was closed; perhaps at once. */
  #prove(connection: ServerConnection, { startup }: ServerLogin, done: (failure: LoginFailure | null) => void): void {
    const { proof } = this.#options;
    connection.onClosed = () => done({ reason: connection.endedBy, sqlstate: null, message: null });
    const verdict = (fault: string | null): void => {
      connection.onClosed = null;
      if (fault === null) return done(null);
      connection.terminate();
      done({ reason: fault, sqlstate: null, message: null, wrongServer: true });
    };
    const database = startup.get('database') ?? startup.get('user') ?? '';
    if (proof === null || proof.ask(connection, database, verdict)) verdict(null);
  }

  /** Ends every attempt under way as a failure. */
  giveUpAll(): void {
    for (const giveUp of [...this.#attempts]) giveUp('the connection attempt was given up');
  }

  #connection(
    stream: Duplex,
    readBuffer: ReadBuffer | null,
    { pid, secretKey, parameters }: LoggedIn,
  ): ServerConnection {
    const { address, clock, limits, noSettings, errorCounts } = this.#options;
    return new ServerConnection({
      stream,
      readBuffer,
      address: addressText(address),
      pid,
      secretKey,
      parameters: internParameters(parameters),
      settings: noSettings,
      preparedMax: limits.preparedStatementsMax,
      messageBytesMax: limits.serverMessageBytesMax,
      createdAt: clock.now(),
      errorCounts,
    });
  }
}
