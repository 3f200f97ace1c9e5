// The server connections to one node, shared by all users of it. Owns how many there are and who waits for one; knows
// nothing of statements. Connections are grouped by what cannot be changed after login (role, database, start-up
// parameters). Invariant: open + opening ≤ sizeMax; the waiting queue is bounded; a connection that is not at rest is
// never handed on.
import type { Duplex } from 'node:stream';
import type { Clock, Random } from '../base/clock.js';
import { PgkvError } from '../base/errors.js';
import { createErrorCounts, type ErrorCounts } from '../telemetry/counters.js';
import type { Credential } from './credential.js';
import { Handshake, type LoggedIn, type LoginFailure } from './handshake.js';
import { internParameters, type ReportedParameters } from './parameter-status.js';
import type { Routines } from './routines.js';
import { ServerConnection } from './server-connection.js';
import { addressText, type OpenStream, type ReadBuffer, type ServerAddress } from './server-socket.js';
import { placeholdersFit, type SettingsGroup } from './settings-group.js';

export interface PoolLimits {
  readonly sizeMax: number;
  readonly queueMax: number;
  readonly waitTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly lifetimeMaxMs: number;
  readonly connectTimeoutMs: number;
  readonly preparedStatementsMax: number;
  readonly serverMessageBytesMax: number;
}

/** Who a connection logs in as, and with which start-up parameters. Made by `group()`. */
export class PoolGroup {
  readonly key: string;
  readonly user: string;
  readonly startup: ReadonlyMap<string, string>;
  credential: Credential;
  /** Most recently used last. */
  readonly idle: ServerConnection[] = [];
  readonly waiting = new Set<LeaseRequest>();
  open = 0;
  opening = 0;
  /** Parameters reported by the last login, for greeting clients; dropped with the last connection. */
  parameters: ReportedParameters | null = null;
  /** What is known of the routines of its database; out of date where its epoch is not the pool's `schemaEpoch`. */
  routines: Routines | null = null;

  constructor(key: string, user: string, startup: ReadonlyMap<string, string>, credential: Credential) {
    this.key = key;
    this.user = user;
    this.startup = startup;
    this.credential = credential;
  }
}

/** One wish for a connection. The callbacks are called at most once, synchronously with what made it possible. */
export interface LeaseRequest {
  readonly group: PoolGroup;
  readonly settings: SettingsGroup;
  granted(connection: ServerConnection): void;
  /** `message` is the server's own ErrorResponse when it refused the login. */
  refused(error: PgkvError, message: Buffer | null): void;
  /** Set by the pool. */
  queuedAt: number;
}

export interface PoolCounters {
  connectsTotal: number;
  connectFailuresTotal: number;
  grantsTotal: number;
  /** Requests that found every connection in use; one that only has to be opened is no wait. */
  waitsTotal: number;
  waitTimeoutsTotal: number;
  waitsRefusedTotal: number;
  /** Closed because a session left them in a state nobody knows. */
  destroyedTotal: number;
  transactionsTotal: number;
  readonly errors: ErrorCounts;
}

/** A waiter of another group that is this much older than the next of the own group goes first. */
const UNFAIRNESS_MAX_MS = 250;
const SWEEP_INTERVAL_MS = 500;

export class NodePool {
  readonly address: ServerAddress;
  /** For messages: the node, and its shard where there are several. */
  readonly label: string;
  readonly counters: PoolCounters = {
    connectsTotal: 0,
    connectFailuresTotal: 0,
    grantsTotal: 0,
    waitsTotal: 0,
    waitTimeoutsTotal: 0,
    waitsRefusedTotal: 0,
    destroyedTotal: 0,
    transactionsTotal: 0,
    errors: createErrorCounts(),
  };
  readonly #limits: PoolLimits;
  readonly #openStream: OpenStream;
  readonly #clock: Clock;
  readonly #random: Random;
  /** The settings of a connection as it logs in. */
  readonly noSettings: SettingsGroup;
  /** For processes with connections of their own to the node. */
  onSchemaChanged: (() => void) | null = null;
  readonly #groups = new Map<string, PoolGroup>();
  readonly #connections = new Set<ServerConnection>();
  readonly #aborts = new Set<() => void>();
  #opening = 0;
  #waitingCount = 0;
  #schemaEpoch = 0;
  /** Bytes of connections that are closed by now. */
  #bytesInBefore = 0;
  #bytesOutBefore = 0;
  #closed = false;

  constructor(options: {
    address: ServerAddress;
    shardName?: string | null;
    limits: PoolLimits;
    openStream: OpenStream;
    clock: Clock;
    random: Random;
    noSettings: SettingsGroup;
  }) {
    this.address = options.address;
    const node = `node ${addressText(options.address)}`;
    this.label = (options.shardName ?? null) === null ? node : `shard ${options.shardName}, ${node}`;
    this.#limits = options.limits;
    this.#openStream = options.openStream;
    this.#clock = options.clock;
    this.#random = options.random;
    this.noSettings = options.noSettings;
    this.#scheduleSweep();
  }

  get openCount(): number {
    return this.#connections.size;
  }

  get waitingCount(): number {
    return this.#waitingCount;
  }

  get idleCount(): number {
    let count = 0;
    for (const group of this.#groups.values()) count += group.idle.length;
    return count;
  }

  /** Bytes received from the node in all, logins not counted. */
  get bytesIn(): number {
    let bytes = this.#bytesInBefore;
    for (const connection of this.#connections) bytes += connection.bytesReceived;
    return bytes;
  }

  /** Bytes sent to the node in all, logins not counted. */
  get bytesOut(): number {
    let bytes = this.#bytesOutBefore;
    for (const connection of this.#connections) bytes += connection.output.bytesWritten;
    return bytes;
  }

  connections(): Iterable<ServerConnection> {
    return this.#connections;
  }

  /** The group for these start-up parameters (user and database among them). A newer credential replaces the older. */
  group(startup: ReadonlyMap<string, string>, credential: Credential): PoolGroup {
    const key = JSON.stringify([...startup].sort((a, b) => (a[0] < b[0] ? -1 : 1)));
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new PoolGroup(key, startup.get('user') ?? '', startup, credential);
      this.#groups.set(key, group);
    }
    group.credential = credential;
    return group;
  }

  /** Asks for a connection: `granted` or `refused` follows, perhaps before this returns. */
  acquire(request: LeaseRequest): void {
    if (this.#closed) {
      request.refused(new PgkvError('shutting_down'), null);
      return;
    }
    const group = this.#current(request.group);
    if (group.waiting.size === 0) {
      const connection = this.#takeIdle(group, request.settings);
      if (connection !== null) {
        this.counters.grantsTotal++;
        request.granted(connection);
        return;
      }
    }
    if (this.#waitingCount >= this.#limits.queueMax) {
      this.counters.waitsRefusedTotal++;
      this.#forgetIfUnused(group);
      const detail = `${this.#waitingCount} statements wait for ${this.label} (pool.queue_max)`;
      request.refused(new PgkvError('pool_queue_full', { detail }), null);
      return;
    }
    request.queuedAt = this.#clock.now();
    group.waiting.add(request);
    this.#waitingCount++;
    this.#openFor(group);
    if (group.opening < group.waiting.size) this.counters.waitsTotal++;
  }

  /** Withdraws a request that is still waiting. Returns whether it was. */
  withdraw(request: LeaseRequest): boolean {
    const group = this.#groups.get(request.group.key) ?? request.group;
    if (!group.waiting.delete(request)) return false;
    this.#waitingCount--;
    this.#forgetIfUnused(group);
    return true;
  }

  /** Takes a particular connection if it is idle: for a session that needs the one it used last. */
  acquireExactly(connection: ServerConnection, group: PoolGroup): boolean {
    const { idle } = this.#current(group);
    const index = idle.indexOf(connection);
    if (index < 0) return false;
    idle.splice(index, 1);
    this.counters.grantsTotal++;
    return true;
  }

  /** Gives a connection back. One that is not at rest is closed. */
  release(connection: ServerConnection, formerGroup: PoolGroup): void {
    if (connection.dead) return;
    const group = this.#current(formerGroup);
    connection.attach(null);
    const now = this.#clock.now();
    const wornOut = connection.retired || now - connection.createdAt > this.#limits.lifetimeMaxMs;
    // A cancel request that lands late must not hit the next user.
    if (!connection.atRest || connection.cancelsUnderWay > 0 || wornOut || this.#closed) {
      if (connection.atRest) connection.terminate();
      else this.destroyUnclean(connection, 'given back in the middle of a transaction');
      return;
    }
    const next = this.#nextWaiter(group, connection, now);
    if (next !== null) {
      this.withdraw(next);
      this.counters.grantsTotal++;
      next.granted(connection);
      return;
    }
    connection.idleSince = now;
    group.idle.push(connection);
    if (this.#waitingCount > 0) this.#makeRoom();
  }

  /** Closes a connection that its session has left in a state nobody knows. */
  destroyUnclean(connection: ServerConnection, reason: string): void {
    this.counters.destroyedTotal++;
    connection.destroy(reason);
  }

  /** Counts the times DDL went through. */
  get schemaEpoch(): number {
    return this.#schemaEpoch;
  }

  /** DDL went through: every connection prepares its statements anew before their next use. */
  schemaChanged(): void {
    this.schemaChangedElsewhere();
    this.onSchemaChanged?.();
  }

  /** The same for DDL that another process passed on. */
  schemaChangedElsewhere(): void {
    this.#schemaEpoch++;
    for (const connection of this.#connections) connection.schemaChanged(this.#schemaEpoch);
  }

  /** Closes idle connections now and leased ones as they come back. Waiters are refused. */
  close(): void {
    this.#closed = true;
    for (const group of this.#groups.values()) {
      for (const connection of [...group.idle]) connection.terminate();
      this.#refuseAll(group, new PgkvError('shutting_down'), null);
    }
    for (const abort of [...this.#aborts]) abort();
  }

  /** Ends every connection at once. */
  destroy(): void {
    this.close();
    for (const connection of [...this.#connections]) connection.destroy('pgkv is stopping');
  }

  /** A group is forgotten when nobody uses it; a session that holds on to it uses the one that took its place. */
  #current(group: PoolGroup): PoolGroup {
    const known = this.#groups.get(group.key);
    if (known !== undefined) return known;
    this.#groups.set(group.key, group);
    return group;
  }

  #takeIdle(group: PoolGroup, settings: SettingsGroup): ServerConnection | null {
    const { idle } = group;
    // The warmest one with the same settings; failing that, the warmest that can take them.
    let fitting = -1;
    for (let index = idle.length - 1; index >= 0; index--) {
      const connection = idle[index]!;
      if (!placeholdersFit(connection.placeholders, settings)) continue;
      if (connection.settings === settings) {
        if (index === idle.length - 1) idle.pop();
        else idle.splice(index, 1);
        return connection;
      }
      if (fitting < 0) fitting = index;
    }
    return fitting < 0 ? null : idle.splice(fitting, 1)[0]!;
  }

  #nextWaiter(group: PoolGroup, connection: ServerConnection, now: number): LeaseRequest | null {
    let own: LeaseRequest | null = null;
    for (const request of group.waiting) {
      if (placeholdersFit(connection.placeholders, request.settings)) {
        own = request;
        break;
      }
    }
    if (this.#waitingCount === group.waiting.size) return own;
    for (const other of this.#groups.values()) {
      if (other === group) continue;
      const [oldest] = other.waiting;
      // Room is made for a stranger who has waited out of proportion: this connection goes idle and is evicted.
      if (
        oldest !== undefined &&
        now - oldest.queuedAt > UNFAIRNESS_MAX_MS &&
        (own === null || oldest.queuedAt < own.queuedAt)
      ) {
        return null;
      }
    }
    return own;
  }

  /** Idle connections that no waiter can use make room for new ones, oldest waiter first. */
  #makeRoom(): void {
    let oldest: LeaseRequest | null = null;
    for (const group of this.#groups.values()) {
      // Those for whom connections are being opened already need no room.
      if (group.opening >= group.waiting.size) continue;
      const [first] = group.waiting;
      if (first !== undefined && (oldest === null || first.queuedAt < oldest.queuedAt)) oldest = first;
    }
    if (oldest !== null) this.#openFor(this.#current(oldest.group));
  }

  #openFor(group: PoolGroup): void {
    while (group.opening < group.waiting.size) {
      if (this.#connections.size + this.#opening < this.#limits.sizeMax) this.#open(group);
      // The place that is freed may be taken at once by an older waiter, so both limits are looked at again.
      else if (!this.#evictIdle()) return;
    }
  }

  #evictIdle(): boolean {
    let victim: ServerConnection | null = null;
    for (const group of this.#groups.values()) {
      const oldest = group.idle[0];
      if (oldest !== undefined && (victim === null || oldest.idleSince < victim.idleSince)) victim = oldest;
    }
    victim?.terminate();
    return victim !== null;
  }

  #open(group: PoolGroup): void {
    group.opening++;
    this.#opening++;
    let handshake: Handshake | null = null;
    let settled = false;
    const settle = (): boolean => {
      if (settled) return false;
      settled = true;
      group.opening--;
      this.#opening--;
      timer.cancel();
      this.#aborts.delete(giveUp);
      return true;
    };
    const failed = (failure: LoginFailure): void => {
      if (settle()) this.#openFailed(group, failure);
    };
    const giveUp = (): void => {
      attempt.abort();
      handshake?.abort();
      failed({ reason: 'the connection attempt was given up', sqlstate: null, message: null });
    };
    const timer = this.#clock.after(this.#limits.connectTimeoutMs, () => {
      attempt.abort();
      handshake?.abort();
      const reason = `no answer within ${this.#limits.connectTimeoutMs} ms (servers.connect_timeout_ms)`;
      failed({ reason, sqlstate: null, message: null });
    });
    this.#aborts.add(giveUp);
    this.counters.connectsTotal++;
    const attempt = this.#openStream(
      this.address,
      ({ stream, certificate, readBuffer }) => {
        handshake = new Handshake({
          stream,
          certificate,
          startup: group.startup,
          user: group.user,
          credential: group.credential,
          random: this.#random,
          failed,
          succeeded: (login) => {
            if (settle()) this.#opened(group, stream, readBuffer, login);
          },
        });
      },
      (error) => failed({ reason: error.message, sqlstate: null, message: null }),
    );
  }

  #opened(group: PoolGroup, stream: Duplex, readBuffer: ReadBuffer | null, login: LoggedIn): void {
    const connection = new ServerConnection({
      stream,
      readBuffer,
      address: addressText(this.address),
      pid: login.pid,
      secretKey: login.secretKey,
      parameters: internParameters(login.parameters),
      settings: this.noSettings,
      preparedMax: this.#limits.preparedStatementsMax,
      messageBytesMax: this.#limits.serverMessageBytesMax,
      createdAt: this.#clock.now(),
      errorCounts: this.counters.errors,
    });
    connection.schemaChanged(this.#schemaEpoch);
    this.#connections.add(connection);
    group.open++;
    group.parameters = connection.parameters;
    connection.onClosed = () => {
      this.#connections.delete(connection);
      this.#bytesInBefore += connection.bytesReceived;
      this.#bytesOutBefore += connection.output.bytesWritten;
      group.open--;
      const index = group.idle.indexOf(connection);
      if (index >= 0) group.idle.splice(index, 1);
      this.#forgetIfUnused(group);
      if (!this.#closed && this.#waitingCount > 0) this.#makeRoom();
    };
    this.release(connection, group);
  }

  #openFailed(group: PoolGroup, failure: LoginFailure): void {
    this.counters.connectFailuresTotal++;
    // 53300 from the server while others are open: they will come back, so the waiters wait on. Idle ones will not, since
    // no waiter could use them: one makes room.
    const serverFull = failure.sqlstate === '53300' && group.open > 0;
    if (!serverFull) {
      const detail = `${this.label}: ${failure.reason}`;
      this.#refuseAll(group, new PgkvError('server_unreachable', { detail }), failure.message);
    } else if (group.waiting.size > 0) this.#evictIdle();
    this.#forgetIfUnused(group);
    // The place is free for those who wait for another group's connection.
    if (!serverFull && !this.#closed && this.#waitingCount > 0) this.#makeRoom();
  }

  #refuseAll(group: PoolGroup, error: PgkvError, message: Buffer | null): void {
    const waiting = [...group.waiting];
    for (const request of waiting) {
      if (this.withdraw(request)) request.refused(error, message);
    }
  }

  #forgetIfUnused(group: PoolGroup): void {
    if (group.open > 0 || group.opening > 0) return;
    group.parameters = null;
    // By now another may stand under its key.
    if (group.waiting.size === 0 && this.#groups.get(group.key) === group) this.#groups.delete(group.key);
  }

  #scheduleSweep(): void {
    this.#clock.after(SWEEP_INTERVAL_MS, () => {
      if (this.#closed) return;
      this.#sweep(this.#clock.now());
      this.#scheduleSweep();
    });
  }

  /** Times out waiters and closes what has been idle or open for too long. */
  #sweep(now: number): void {
    const { waitTimeoutMs, idleTimeoutMs, lifetimeMaxMs } = this.#limits;
    for (const group of this.#groups.values()) {
      for (const request of group.waiting) {
        if (now - request.queuedAt < waitTimeoutMs) break;
        this.counters.waitTimeoutsTotal++;
        this.withdraw(request);
        const detail = `${this.label}: waited ${waitTimeoutMs} ms (pool.wait_timeout_ms), all ${this.#connections.size} connections are in use`;
        request.refused(new PgkvError('pool_wait_timeout', { detail }), null);
      }
      for (const connection of [...group.idle]) {
        if (now - connection.idleSince > idleTimeoutMs || now - connection.createdAt > lifetimeMaxMs) {
          connection.terminate();
        }
      }
    }
  }
}
