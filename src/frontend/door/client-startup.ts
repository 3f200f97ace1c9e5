// A client from its first byte until it is logged in: start-up packets, TLS, authentication, and the parameters of a server
// for the greeting. Owns the deadline of all that; what becomes of the socket is the connection's. Stages, in order:
//   packets         start-up packets are awaited (SSLRequest and GSSENCRequest may precede StartupMessage)
//   authenticating  SASL messages are taken, nothing else
//   greeting        the parameters of the server are being fetched; what the client sends waits
//   over            logged in, or gone
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP
import type { SecureContext, TLSSocket } from 'node:tls';
import type { Credential } from '../../backend/connection/credential.js';
import type { PoolGroup, RoleIdentity } from '../../backend/pool/pool-group.js';
import type { ReportedParameters } from '../../backend/replies/parameter-status.js';
import type { Timer } from '../../base/clock.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import { homeShard, type NodeId, type ShardView } from '../../cluster/cluster-view.js';
import { setsRouterSetting } from '../../cluster/router-setting.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { Frame, FrameReader } from '../../wire/frame-reader.js';
import type { Output } from '../../wire/output.js';
import { AUTH_MESSAGE_BYTES_MAX, Frontend, PROTOCOL_NEWEST } from '../../wire/protocol.js';
import { AUTHENTICATION_OK, encodeNegotiateProtocolVersion } from '../../wire/server-messages.js';
import { readStartupPacket, type StartupPacket } from '../../wire/startup-packet.js';
import { Authentication } from './authentication.js';
import { reasonFor } from './failed-logins.js';
import type { FrontendServices } from './frontend-services.js';
import { Greeting, type GreetingSource } from './greeting.js';
import { loginFault } from './login-rules.js';
import { identityOf } from './role-record.js';
import type { RoleAnswers } from './role-source.js';

/** What start-up needs of the connection it runs on. */
export interface StartupHost {
  readonly output: Output;
  /** Undefined for a Unix socket. */
  readonly remoteAddress: string | undefined;
  /** Goes on over TLS; `early` of its bytes have come already. */
  startTls(context: SecureContext, early: Buffer): TLSSocket;
  pauseReading(): void;
  resumeReading(): void;
  /** The session begins. `rest`: what the client has sent behind its login. */
  loggedIn(login: Login, rest: Buffer): void;
  /** Tells the client why and closes, whatever the connection is at. */
  fatal(error: PgkvError): void;
  close(): void;
  destroy(): void;
}

/** What a client has logged in with, and to. */
export interface Login {
  /** Of the protocol. */
  readonly version: number;
  /** Start-up parameters for servers (R1). */
  readonly startup: ReadonlyMap<string, string>;
  readonly credential: Credential;
  /** By node, where it is known. */
  readonly roles: ReadonlyMap<NodeId, RoleIdentity>;
  readonly applicationName: string;
  /** On the home shard. */
  readonly group: PoolGroup;
  /** What servers report at the login of that group, or of the like on another shard. */
  readonly reported: ReportedParameters;
}

const ACCEPT = Buffer.from('S');
const DECLINE = Buffer.from('N');
const TLS_HANDSHAKE_RECORD = 0x16;
const NOTHING = Buffer.alloc(0);
/** During start-up only SASL messages are read; a client that pipelines behind them is held back by this much. */
const EARLY_BYTES_MAX = 65_536;

const AUTHENTICATION_LIMITS = new Int32Array(256);
AUTHENTICATION_LIMITS[Frontend.password] = AUTH_MESSAGE_BYTES_MAX;

/** What Postgres keeps as it is: printable ASCII, shorter than NAMEDATALEN. */
const PLAIN_APPLICATION_NAME = /^[ -~]{0,63}$/;

type StartupMessage = Extract<StartupPacket, { kind: 'startup' }>;

export class ClientStartup {
  readonly #host: StartupHost;
  readonly #services: FrontendServices;
  /** A closed socket has none. */
  readonly #address: string | undefined;
  readonly #local: boolean;
  /** Null: it may log in. */
  readonly #refusal: PgkvError | null;
  readonly #deadline: Timer;
  #stage: 'packets' | 'authenticating' | 'greeting' | 'over' = 'packets';
  #early: Buffer = NOTHING;
  #reader: FrameReader | null = null;
  #secure = false;
  #endPointHash: Buffer | null = null;
  #gssRefused = false;
  #authentication: Authentication | null = null;
  #greeting: Greeting | null = null;
  #superusersAllowed = true;

  /** @param refusal what the client is told instead of being let in */
  constructor(host: StartupHost, services: FrontendServices, refusal: PgkvError | null) {
    this.#host = host;
    this.#services = services;
    this.#address = host.remoteAddress;
    this.#local = isLocal(this.#address);
    this.#refusal = refusal;
    const { startupTimeoutMs, closeGraceMs } = services.limits;
    if (refusal !== null) {
      this.#deadline = services.clock.after(Math.min(closeGraceMs, startupTimeoutMs), () => this.#turnAway(refusal));
      return;
    }
    this.#deadline = services.clock.after(startupTimeoutMs, () => {
      services.counters.startupsTimedOut++;
      const hint = `the login has to be finished within ${startupTimeoutMs} ms (clients.startup_timeout_ms)`;
      host.fatal(new PgkvError('startup_timeout', { hint }));
    });
    services.counters.startupsPending++;
    services.pending.entered(this.#address);
  }

  /** The client has sent more than its login, which is to be answered even if it closes its side behind it. */
  get owesAnswer(): boolean {
    return this.#stage === 'greeting' && this.#reader!.bufferedBytes > 0;
  }

  /** Bytes from the client. They must not throw out of the socket's event. */
  received(chunk: Buffer): void {
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
          if (this.#reader!.bufferedBytes > EARLY_BYTES_MAX) this.#host.pauseReading();
          return;
      }
    } catch (error) {
      this.#services.counters.protocolViolations++;
      this.#host.fatal(error instanceof PgkvError ? error : new PgkvError('internal', { detail: messageOf(error) }));
    }
  }

  /** The connection is over. */
  abandon(): void {
    if (!this.#end()) return;
    this.#authentication?.abandon();
    this.#greeting?.withdraw();
  }

  #packets(): void {
    while (this.#stage === 'packets' && this.#early.length > 0) {
      if (this.#early[0] === TLS_HANDSHAKE_RECORD && !this.#secure && this.#services.tls() !== null) {
        return this.#startTls(true);
      }
      const packet = readStartupPacket(this.#early);
      if (packet.kind === 'incomplete') return;
      if (packet.kind === 'none') {
        // As Postgres does: whoever it is, it does not speak the protocol.
        this.#services.counters.protocolViolations++;
        return this.#host.close();
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
      this.#host.pauseReading();
      cancels.forward(pid, secretKey, () => {
        this.#host.resumeReading();
        this.#host.close();
      });
      return;
    }
    if (cancels.cancel(pid, secretKey)) counters.cancelsForwarded++;
    this.#host.close();
  }

  /** Answers SSLRequest or GSSENCRequest. False: the stream is being wrapped, or the connection is over. */
  #encryptionRequest(kind: 'ssl' | 'gssenc'): boolean {
    const accepts = kind === 'ssl' && !this.#secure && this.#services.tls() !== null;
    if (this.#secure || (kind === 'gssenc' && this.#gssRefused)) {
      const code = kind === 'ssl' ? 5679 : 5680;
      throw new PgkvError('unsupported_protocol', {
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
    this.#host.output.push(accepts ? ACCEPT : DECLINE);
    this.#host.output.flush();
    if (accepts) this.#startTls(false);
    return !accepts;
  }

  /** @param direct TLS was begun without SSLRequest: ALPN must then name the protocol */
  #startTls(direct: boolean): void {
    const { context, endPointHash } = this.#services.tls()!;
    const early = this.#early;
    this.#early = NOTHING;
    this.#secure = true;
    this.#endPointHash = endPointHash;
    this.#services.counters.tlsClients++;
    const secure = this.#host.startTls(context, early);
    if (direct) {
      secure.once('secure', () => {
        if (secure.alpnProtocol !== 'postgresql') this.#host.destroy();
      });
    }
  }

  #startup(packet: StartupMessage): void {
    const services = this.#services;
    const host = this.#host;
    const { output } = host;
    const { parameters, protocolOptions } = packet;
    if (this.#refusal !== null) return this.#turnAway(this.#refusal);
    // A Unix socket has no remote address and needs no TLS.
    if (services.tlsRequired && !this.#secure && host.remoteAddress !== undefined) {
      throw new PgkvError('invalid_authorization', { hint: 'this pgkv requires TLS (tls.required)' });
    }
    const user = parameters.get('user') ?? '';
    if (user === '') {
      throw new PgkvError('invalid_authorization', { message: 'no PostgreSQL user name specified in startup packet' });
    }
    const replication = (parameters.get('replication') ?? 'false').toLowerCase();
    parameters.delete('replication');
    if (!['false', 'off', 'no', '0'].includes(replication)) {
      throw refusalError(refuse('replication'));
    }
    if (setsRouterSetting(parameters)) throw refusalError(refuse('routerSetting'));
    if ((parameters.get('database') ?? '') === '') parameters.set('database', user);
    if (!this.#isAdmitted(user, parameters.get('database')!)) return;
    if (packet.version > PROTOCOL_NEWEST || protocolOptions.length > 0) {
      output.push(encodeNegotiateProtocolVersion(Math.min(packet.version, PROTOCOL_NEWEST), protocolOptions));
    }
    this.#stage = 'authenticating';
    this.#reader = new FrameReader(AUTHENTICATION_LIMITS, 0, 'frontend');
    this.#reader.push(this.#early);
    this.#early = NOTHING;
    this.#authentication = new Authentication(
      services.authentication,
      {
        send: (bytes) => {
          output.push(bytes);
          output.flush();
        },
        accepted: (credential, answers) => this.#greet(packet, credential, answers),
        refused: (error) => this.#refuse(user, error, null),
      },
      user,
    );
    this.#authentication.begin(this.#local, this.#endPointHash);
    if (this.#stage === 'authenticating') output.flush();
  }

  /** Before roles and passwords are looked at, as Postgres does. */
  #turnAway(refusal: PgkvError): void {
    this.#services.refusedClients.note(this.#address, refusal);
    this.#host.fatal(refusal);
  }

  /** By auth.allow. */
  #isAdmitted(user: string, database: string): boolean {
    try {
      const { superusers } = this.#services.allowed().admit({ user, database, address: this.#host.remoteAddress });
      this.#superusersAllowed = superusers;
      return true;
    } catch (error) {
      if (!(error instanceof PgkvError)) throw error;
      this.#refuse(user, error, null);
      return false;
    }
  }

  #authenticationMessages(): void {
    const reader = this.#reader!;
    while (this.#stage === 'authenticating' && reader.next() !== Frame.none) {
      this.#authentication!.message(reader.type, reader.buffer, reader.start, reader.end);
    }
  }

  /** The client is who it says. Fetches what the greeting tells of the server, unless the role may not log in. */
  #greet({ version, parameters }: StartupMessage, credential: Credential, answers: RoleAnswers): void {
    if (this.#stage !== 'authenticating') return;
    this.#stage = 'greeting';
    const services = this.#services;
    const { output } = this.#host;
    output.push(AUTHENTICATION_OK);
    output.flush();
    const user = parameters.get('user')!;
    const database = parameters.get('database')!;
    const view = services.view();
    const usesAllShards = view.tables.length > 0 && database === view.database;
    const fault = loginFault(answers, { user, usesAllShards, superusersAllowed: this.#superusersAllowed });
    if (fault !== null) return this.#refuse(user, fault, null);
    const startup = new Map(parameters);
    let applicationName = startup.get('application_name') ?? '';
    // A name that Postgres would shorten or clean is left to Postgres, at the price of a pool group of its own.
    if (PLAIN_APPLICATION_NAME.test(applicationName)) startup.delete('application_name');
    else applicationName = '';
    const roles = this.#noteRoles(user, database, answers);
    const groupAt = (shard: ShardView): GreetingSource => {
      const pool = services.nodes.primary(shard);
      return { pool, group: pool.group(startup, credential, roles.get(shard.primary.id)) };
    };
    const { group } = groupAt(homeShard(view));
    this.#greeting = new Greeting(
      greetingOrder(usesAllShards ? view.shards : [homeShard(view)], answers).map(groupAt),
      services.registry.empty,
      {
        greeted: (reported) =>
          this.#loggedIn({ version, startup, credential, roles, applicationName, group, reported }),
        refused: (error, message) => this.#refuse(user, error, message),
      },
    );
    this.#greeting.begin();
  }

  /** Tells the pools what is known of the role by now. */
  #noteRoles(user: string, database: string, answers: RoleAnswers): Map<NodeId, RoleIdentity> {
    const roles = new Map<NodeId, RoleIdentity>();
    for (const { shard, record } of answers) {
      const role = record === null ? null : identityOf(record, database);
      if (role === null) continue;
      this.#services.nodes.primary(shard).heardOfRole(user, role);
      roles.set(shard.primary.id, role);
    }
    return roles;
  }

  /** @param message the server's own words: no such database, not permitted to log in … */
  #refuse(user: string, error: PgkvError, message: Buffer | null): void {
    const told = message === null ? null : readErrorFields(message, 0, message.length);
    this.#loginFailed(user, told?.['C'] ?? error.sqlstate, told?.['M'] ?? reasonFor(error));
    if (message === null) return this.#host.fatal(error);
    this.#host.output.push(message);
    this.#host.close();
  }

  #loggedIn(login: Login): void {
    const rest = this.#reader!.takeRest();
    this.#end();
    this.#host.loggedIn(login, rest);
  }

  #loginFailed(role: string, sqlstate: string, reason: string): void {
    const { counters, failedLogins } = this.#services;
    counters.loginsFailed++;
    failedLogins.note({ role, address: this.#host.remoteAddress ?? 'Unix socket', sqlstate, reason });
  }

  /** Returns whether it was not over yet. */
  #end(): boolean {
    if (this.#stage === 'over') return false;
    this.#stage = 'over';
    this.#deadline.cancel();
    if (this.#refusal !== null) return true;
    this.#services.counters.startupsPending--;
    this.#services.pending.left(this.#address);
    return true;
  }
}

/** Loopback or Unix socket: the peer is a process of this machine. */
const isLocal = (address: string | undefined): boolean =>
  address === undefined || address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');

/** The home shard first, unless it has just not answered while others did. */
function greetingOrder(shards: readonly ShardView[], answers: RoleAnswers): readonly ShardView[] {
  const answered = new Set(answers.map(({ shard }) => shard.primary.id));
  if (answered.size === 0) return shards;
  const isThere = (shard: ShardView): boolean => answered.has(shard.primary.id);
  return [...shards.filter(isThere), ...shards.filter((shard) => !isThere(shard))];
}
