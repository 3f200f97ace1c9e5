// One client's socket from accept to close. Owns start-up (start-up packet, TLS, authentication, greeting) and hands the
// conversation over to Conversation; owns closing in every case. Stages, in order:
//   packets         start-up packets are awaited (SSLRequest and GSSENCRequest may precede StartupMessage)
//   authenticating  SASL messages are taken, nothing else
//   greeting        the parameters of the server are being fetched; what the client sends waits
//   session         the conversation runs
//   closed
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import type { Credential } from '../backend/credential.js';
import type { LeaseRequest, PoolGroup } from '../backend/node-pool.js';
import { type ReportedParameters, withParameter } from '../backend/parameter-status.js';
import type { Timer } from '../base/clock.js';
import { messageOf, PgkvError } from '../base/errors.js';
import { homeShard } from '../cluster/cluster-view.js';
import { LeasedLane } from '../execute/leased-lane.js';
import type { MergedLane } from '../execute/merged/merged-lane.js';
import { type MakeLane, SessionLanes } from '../execute/session-lanes.js';
import { Session } from '../session/session.js';
import { readErrorFields } from '../wire/error-fields.js';
import { Frame, FrameReader } from '../wire/frame-reader.js';
import { Output } from '../wire/output.js';
import { AUTH_MESSAGE_BYTES_MAX, Frontend, PROTOCOL_NEWEST, STARTUP_PACKET_BYTES_MAX } from '../wire/protocol.js';
import {
  AUTHENTICATION_OK,
  encodeBackendKeyData,
  encodeError,
  encodeNegotiateProtocolVersion,
  encodeParameterStatus,
  READY_IDLE,
} from '../wire/server-messages.js';
import { readStartupPacket, type StartupPacket } from '../wire/startup-packet.js';
import { Authentication } from './authentication.js';
import { Conversation, type ConversationHost } from './conversation.js';
import { reasonFor } from './failed-logins.js';
import type { FrontendServices } from './frontend-services.js';
import type { MergedServices } from './merged-statements.js';

const ACCEPT = Buffer.from('S');
const DECLINE = Buffer.from('N');
const TLS_HANDSHAKE_RECORD = 0x16;
const NOTHING = Buffer.alloc(0);
/** During start-up only SASL messages are read; a client that pipelines behind them is held back by this much. */
const EARLY_BYTES_MAX = 65_536;

/** Whoever is cut gets this long to take what was sent, before the process ends. */
const CUT_GRACE_MS = 250;

const AUTHENTICATION_LIMITS = new Int32Array(256);
AUTHENTICATION_LIMITS[Frontend.password] = AUTH_MESSAGE_BYTES_MAX;

/** What Postgres keeps as it is: printable ASCII, shorter than NAMEDATALEN. */
const PLAIN_APPLICATION_NAME = /^[ -~]{0,63}$/;

type StartupMessage = Extract<StartupPacket, { kind: 'startup' }>;

export class ClientConnection implements ConversationHost {
  readonly output: Output;
  conversation: Conversation | null = null;
  readonly #services: FrontendServices;
  readonly #socket: Socket;
  readonly #local: boolean;
  #stream: Duplex;
  #stage: 'packets' | 'authenticating' | 'greeting' | 'session' | 'closed' = 'packets';
  #early: Buffer = NOTHING;
  #reader: FrameReader | null = null;
  #secure = false;
  #endPointHash: Buffer | null = null;
  #gssRefused = false;
  #authentication: Authentication | null = null;
  #greetingRequest: LeaseRequest | null = null;
  #deadline: Timer | null;
  #ended = false;

  constructor(socket: Socket, services: FrontendServices) {
    this.#socket = socket;
    this.#services = services;
    this.#stream = socket;
    this.#local = isLocal(socket);
    this.output = new Output(socket);
    const { startupTimeoutMs } = services.limits;
    this.#deadline = services.clock.after(startupTimeoutMs, () => {
      services.counters.startupsTimedOut++;
      const hint = `the login has to be finished within ${startupTimeoutMs} ms (clients.startup_timeout_ms)`;
      this.#fatal(new PgkvError('startup_timeout', { hint }));
    });
    services.counters.startupsPending++;
    this.#listen(socket);
  }

  get inStartup(): boolean {
    return this.#stage !== 'session' && this.#stage !== 'closed';
  }

  close(): void {
    if (this.#stage === 'closed') return;
    this.output.flush();
    this.#closed();
    // A client that does not read its last bytes, or does not close its side in turn, is cut off.
    const stream = this.#stream;
    const { clock, limits } = this.#services;
    let cutOff = clock.after(limits.startupTimeoutMs, () => stream.destroy());
    stream.end(() => {
      cutOff.cancel();
      if (!stream.destroyed) cutOff = clock.after(limits.closeGraceMs, () => stream.destroy());
    });
    // Else the timers of clients that come and go would hold their streams for seconds.
    stream.once('close', () => cutOff.cancel());
  }

  destroy(): void {
    this.#closed();
    this.#stream.destroy();
  }

  /** Ends the connection now, whatever it is at: the client is told why, unless that fell into the middle of a message. */
  cut(error: PgkvError): void {
    if (this.#stage === 'closed') return;
    const stream = this.#stream;
    const midMessage = this.conversation?.lane.connection?.midMessage === true;
    if (!midMessage) this.output.push(encodeError(error, 'FATAL'));
    this.close();
    const timer = this.#services.clock.after(CUT_GRACE_MS, () => stream.destroy());
    stream.once('close', () => timer.cancel());
  }

  terminate(error: PgkvError): void {
    if (this.conversation !== null) this.conversation.terminate(error);
    else this.#fatal(error);
  }

  pauseReading(): void {
    this.#stream.pause();
  }

  resumeReading(): void {
    this.#stream.resume();
  }

  #listen(stream: Duplex): void {
    stream.on('data', this.#onData);
    stream.on('drain', this.#onDrain);
    stream.on('end', this.#onEnd);
    stream.on('error', this.#onGone);
    stream.on('close', this.#onGone);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#services.counters.clientBytesIn += chunk.length;
    if (this.#stage === 'session') this.conversation!.received(chunk);
    else this.#received(chunk);
  };

  readonly #onDrain = (): void => {
    this.output.drained();
    this.conversation?.clientDrained();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    if (this.conversation !== null) this.conversation.clientEnded();
    else this.destroy();
  };

  readonly #onGone = (): void => this.destroy();

  /** Bytes before the session: they must not throw out of the socket's event. */
  #received(chunk: Buffer): void {
    try {
      switch (this.#stage) {
        case 'packets':
          this.#early = this.#early.length === 0 ? chunk : Buffer.concat([this.#early, chunk]);
          this.#packets();
          return;
        case 'authenticating':
          this.#reader!.push(chunk);
          this.#authenticationMessages();
          return;
        case 'greeting':
          this.#reader!.push(chunk);
          if (this.#reader!.bufferedBytes > EARLY_BYTES_MAX) this.pauseReading();
          return;
      }
    } catch (error) {
      this.#services.counters.protocolViolations++;
      this.#fatal(error instanceof PgkvError ? error : new PgkvError('internal', { detail: messageOf(error) }));
    }
  }

  #packets(): void {
    while (this.#stage === 'packets' && this.#early.length > 0) {
      if (this.#early[0] === TLS_HANDSHAKE_RECORD && !this.#secure && this.#services.tls() !== null) {
        return this.#startTls(true);
      }
      const packet = readStartupPacket(this.#early);
      if (packet.kind === 'incomplete') {
        if (this.#early.length > STARTUP_PACKET_BYTES_MAX) throw new PgkvError('protocol_violation');
        return;
      }
      this.#early = this.#early.subarray(packet.bytes);
      switch (packet.kind) {
        case 'gssenc':
        case 'ssl':
          if (!this.#encryptionRequest(packet.kind)) return;
          break;
        case 'cancel':
          this.#cancelRequest(packet.pid, packet.secretKey);
          return;
        case 'startup':
          this.#startup(packet);
          return;
      }
    }
  }

  /** Closing tells the client that its request has arrived (drivers wait for it), and nothing else. */
  #cancelRequest(pid: number, secretKey: Buffer): void {
    const { counters, cancels } = this.#services;
    counters.cancelsReceived++;
    if (cancels.isElsewhere(pid)) {
      this.pauseReading();
      cancels.forward(pid, secretKey, () => {
        this.resumeReading();
        this.close();
      });
      return;
    }
    if (cancels.cancel(pid, secretKey)) counters.cancelsForwarded++;
    this.close();
  }

  /** Answers SSLRequest or GSSENCRequest. False: the stream is being wrapped, or the connection is over. */
  #encryptionRequest(kind: 'ssl' | 'gssenc'): boolean {
    const accepts = kind === 'ssl' && !this.#secure && this.#services.tls() !== null;
    if (this.#secure || (kind === 'gssenc' && this.#gssRefused)) {
      const code = kind === 'ssl' ? 5679 : 5680;
      throw new PgkvError('unsupported', {
        message: `unsupported frontend protocol 1234.${code}: server supports 3.0 to 3.2`,
      });
    }
    if (this.#early.length > 0) {
      // Sent in the clear before the answer: somebody may have put it there (CVE-2021-23214).
      throw new PgkvError('protocol_violation', {
        message: 'received unencrypted data after SSL request',
        detail: 'This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.',
      });
    }
    if (kind === 'gssenc') this.#gssRefused = true;
    this.output.push(accepts ? ACCEPT : DECLINE);
    this.output.flush();
    if (accepts) this.#startTls(false);
    return !accepts;
  }

  /** @param direct TLS was begun without SSLRequest: ALPN must then name the protocol */
  #startTls(direct: boolean): void {
    const material = this.#services.tls()!;
    const socket = this.#socket;
    for (const event of ['data', 'drain', 'end', 'error', 'close'] as const) socket.removeAllListeners(event);
    socket.pause();
    if (this.#early.length > 0) socket.unshift(this.#early);
    this.#early = NOTHING;
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: material.context,
      ALPNProtocols: ['postgresql'],
    });
    this.#secure = true;
    this.#endPointHash = material.endPointHash;
    this.#stream = secure;
    this.output.replaceStream(secure);
    this.#services.counters.tlsClients++;
    socket.on('error', this.#onGone);
    socket.on('close', this.#onGone);
    this.#listen(secure);
    if (direct) {
      secure.once('secure', () => {
        if (secure.alpnProtocol !== 'postgresql') this.destroy();
      });
    }
  }

  #startup(packet: StartupMessage): void {
    const services = this.#services;
    const { parameters, protocolOptions } = packet;
    // A Unix socket has no remote address and needs no TLS.
    if (services.tlsRequired && !this.#secure && this.#socket.remoteAddress !== undefined) {
      throw new PgkvError('invalid_authorization', { hint: 'this pgkv requires TLS (tls.required)' });
    }
    const user = parameters.get('user') ?? '';
    if (user === '') {
      throw new PgkvError('invalid_authorization', { message: 'no PostgreSQL user name specified in startup packet' });
    }
    const replication = (parameters.get('replication') ?? 'false').toLowerCase();
    parameters.delete('replication');
    if (!['false', 'off', 'no', '0'].includes(replication)) {
      throw new PgkvError('unsupported', {
        message: 'pgkv does not pass on replication connections',
        hint: 'connect to the shard itself',
      });
    }
    if ((parameters.get('database') ?? '') === '') parameters.set('database', user);
    if (packet.version > PROTOCOL_NEWEST || protocolOptions.length > 0) {
      this.output.push(encodeNegotiateProtocolVersion(Math.min(packet.version, PROTOCOL_NEWEST), protocolOptions));
    }
    this.#stage = 'authenticating';
    this.#reader = new FrameReader(AUTHENTICATION_LIMITS, 0, 'frontend');
    this.#reader.push(this.#early);
    this.#early = NOTHING;
    this.#authentication = new Authentication(
      services.authentication,
      {
        send: (bytes) => {
          this.output.push(bytes);
          this.output.flush();
        },
        accepted: (credential) => this.#greet(packet, credential),
        refused: (error) => {
          this.#loginFailed(user, error.sqlstate, reasonFor(error));
          this.#fatal(error);
        },
      },
      user,
    );
    this.#authentication.begin(this.#local, this.#endPointHash);
    if (this.#stage === 'authenticating') this.output.flush();
  }

  #authenticationMessages(): void {
    const reader = this.#reader!;
    while (this.#stage === 'authenticating' && reader.next() !== Frame.none) {
      this.#authentication!.message(reader.type, reader.buffer, reader.start, reader.end);
    }
  }

  /** The client is who it says: fetches what the greeting tells of the server, if no connection has told yet. */
  #greet(packet: StartupMessage, credential: Credential): void {
    if (this.#stage !== 'authenticating') return;
    this.#stage = 'greeting';
    this.output.push(AUTHENTICATION_OK);
    this.output.flush();
    const [pool] = this.#services.pools;
    const startup = new Map(packet.parameters);
    let applicationName = startup.get('application_name') ?? '';
    // A name that Postgres would shorten or clean is left to Postgres, at the price of a pool group of its own.
    if (PLAIN_APPLICATION_NAME.test(applicationName)) startup.delete('application_name');
    else applicationName = '';
    const { tables, database } = this.#services.view();
    if (tables.length > 0 && startup.get('database') === database)
      startup.set('options', withRouterSetting(startup.get('options')));
    const login: Login = { packet, startup, credential, applicationName };
    const group = pool!.group(startup, credential);
    if (group.parameters !== null) return this.#begin(login, group, group.parameters);
    this.#greetingRequest = {
      group,
      settings: this.#services.registry.empty,
      queuedAt: 0,
      granted: (connection) => {
        // The connection's own may be those of a session that has used it since.
        const parameters = group.parameters ?? connection.parameters;
        pool!.release(connection, group);
        if (this.#stage === 'greeting') this.#begin(login, group, parameters);
      },
      refused: (error, message) => {
        if (this.#stage !== 'greeting') return;
        const told = message === null ? null : readErrorFields(message, 0, message.length);
        this.#loginFailed(group.user, told?.['C'] ?? error.sqlstate, told?.['M'] ?? reasonFor(error));
        if (message === null) return this.#fatal(error);
        // The server's own words: no such database, no such role, not allowed.
        this.output.push(message);
        this.close();
      },
    };
    pool!.acquire(this.#greetingRequest);
  }

  #begin(login: Login, group: PoolGroup, reported: ReportedParameters): void {
    const { packet, startup, credential, applicationName } = login;
    const services = this.#services;
    const { registry } = services;
    const { pid, secretKey } = services.cancels.register(packet.version, () => this.conversation?.cancel());
    const named = applicationName !== '';
    const session = new Session({
      pid,
      secretKey,
      user: group.user,
      database: packet.parameters.get('database')!,
      settings: named ? registry.intern(new Map([['application_name', applicationName]])) : registry.empty,
      told: named ? withParameter(reported, 'application_name', applicationName) : reported,
    });
    const early = this.#reader!;
    const reader = new FrameReader(services.limits.frontendLimits, 0, 'frontend');
    reader.push(early.takeRest());
    this.#reader = null;
    this.#authentication = null;
    this.#startupOver();
    this.#stage = 'session';
    services.counters.loginsSucceeded++;
    services.counters.clientsConnected++;

    const conversation = new Conversation(
      this,
      services.conversation,
      session,
      reader,
      startup.get('search_path') ?? null,
    );
    this.conversation = conversation;
    const makeLane: MakeLane = (shard, client) => {
      const pool = services.pools[shard.id]!;
      return new LeasedLane({
        session,
        pool,
        group: shard.id === 0 ? group : pool.group(startup, credential),
        registry,
        client,
        clock: services.clock,
        cancelStatement: (connection, delivered) => services.cancelStatement(shard, connection, delivered),
        applicationName,
      });
    };
    const lanes = new SessionLanes(homeShard(services.view()), conversation, makeLane);
    conversation.useLanes(lanes, this.#mergedServices(startup, credential));
    for (const [name, value] of session.told) this.output.push(encodeParameterStatus(name, value));
    this.output.push(encodeBackendKeyData(pid, secretKey));
    this.output.push(READY_IDLE);
    this.resumeReading();
    conversation.resume();
    if (this.#ended) conversation.clientEnded();
  }

  #loginFailed(role: string, sqlstate: string, reason: string): void {
    const { counters, failedLogins } = this.#services;
    const { remoteAddress } = this.#socket;
    counters.loginsFailed++;
    failedLogins.note({ role, address: remoteAddress ?? 'Unix socket', sqlstate, reason });
  }

  #mergedServices(startup: ReadonlyMap<string, string>, credential: Credential): MergedServices | null {
    const { merged, pools, clock, conversation } = this.#services;
    if (merged === null) return null;
    const lanes: (MergedLane | undefined)[] = [];
    return {
      lane(shard) {
        let lane = lanes[shard.id];
        if (lane === undefined) {
          const pool = pools[shard.id]!;
          lane = merged.lane(pool, pool.group(startup, credential));
          lanes[shard.id] = lane;
        }
        return lane;
      },
      settings: (of) => merged.settings(of),
      clock,
      sources: conversation.sources,
    };
  }

  #startupOver(): void {
    if (this.#deadline === null) return;
    this.#deadline.cancel();
    this.#deadline = null;
    this.#services.counters.startupsPending--;
  }

  #fatal(error: PgkvError): void {
    if (this.#stage === 'closed') return;
    this.output.push(encodeError(error, 'FATAL'));
    this.close();
  }

  /** Runs once, whatever ended the connection. */
  #closed(): void {
    if (this.#stage === 'closed') return;
    const hadSession = this.#stage === 'session';
    this.#stage = 'closed';
    this.#startupOver();
    this.#authentication?.abandon();
    if (this.#greetingRequest !== null) this.#services.pools[0]!.withdraw(this.#greetingRequest);
    this.#reader = null;
    this.#early = NOTHING;
    if (hadSession) {
      const conversation = this.conversation!;
      this.#services.counters.clientsConnected--;
      this.#services.cancels.unregister(conversation.session.pid);
      conversation.clientGone();
    }
    this.#services.closed(this);
  }
}

/** What a client has logged in with. */
interface Login {
  readonly packet: StartupMessage;
  /** Start-up parameters for servers (R1). */
  readonly startup: ReadonlyMap<string, string>;
  readonly credential: Credential;
  readonly applicationName: string;
}

/** Tells the triggers of key-value tables that slots are pgkv's matter (D2). */
const withRouterSetting = (options: string | undefined): string =>
  options === undefined || options === '' ? '-c pgkv.router=on' : `${options} -c pgkv.router=on`;

/** Loopback or Unix socket: the peer is a process of this machine. */
function isLocal(socket: Socket): boolean {
  const address = socket.remoteAddress;
  if (address === undefined) return true;
  return address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
}
