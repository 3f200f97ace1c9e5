// The server connections to one node, shared by all users of it. Owns how many there are and whose turn it is; knows
// nothing of statements. What is idle and who waits stands in groups (pool-group.ts); how a connection is opened is
// connection-opener.ts's. Invariant: open + opening ≤ sizeMax; the waiting queue is bounded; a connection that is not at
// rest is never handed on.
import type { Clock, Random } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { ConnectionOpener } from '../connection/connection-opener.js';
import type { Credential } from '../connection/credential.js';
import type { LoginFailure } from '../connection/handshake.js';
import type { ServerConnection } from '../connection/server-connection.js';
import type { ServerProof } from '../connection/server-proof.js';
import { addressText, type OpenStream, type ServerAddress } from '../connection/server-socket.js';
import { endsWhenIdle } from '../connection/settings-change.js';
import type { SettingsGroup } from '../connection/settings-group.js';
import { untilReady } from '../replies/control-answers.js';
import { AnswerDeadlines } from './answer-deadlines.js';
import { type LeaseRequest, PoolGroup, type RoleIdentity } from './pool-group.js';
import { createPoolCounters, type PoolLimits } from './pool-limits.js';
import { RoleNews } from './role-news.js';

export type { PoolLimits } from './pool-limits.js';

/** A waiter of another group that is this much older than the next of the own group goes first. */
const UNFAIRNESS_MAX_MS = 250;
const SWEEP_INTERVAL_MS = 500;
/** Short: others wait meanwhile, and closing one that would have answered later costs a login. */
const TEST_TIMEOUT_MS = 1_000;

/** What was expected and found stands in the message: drivers drop the detail. */
const wrongServer = (what: string): PgkvError => new PgkvError('wrong_server', { message: what, detail: what });

const roleGone = (user: string): PgkvError =>
  new PgkvError('invalid_authorization', { message: `role "${user}" was dropped or made anew: log in again` });

export class NodePool {
  readonly address: ServerAddress;
  /** For messages: the node, and its shard where there are several. */
  readonly label: string;
  readonly counters = createPoolCounters();
  readonly #limits: PoolLimits;
  readonly #clock: Clock;
  readonly #opener: ConnectionOpener;
  readonly #deadlines: AnswerDeadlines;
  /** The settings of a connection as it logs in. */
  readonly noSettings: SettingsGroup;
  /** For processes with connections of their own to the node. */
  onSchemaChanged: (() => void) | null = null;
  readonly #groups = new Map<string, PoolGroup>();
  readonly #roles = new RoleNews();
  readonly #connections = new Set<ServerConnection>();
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
    proof?: ServerProof | null;
  }) {
    this.address = options.address;
    const node = `node ${addressText(options.address)}`;
    this.label = (options.shardName ?? null) === null ? node : `shard ${options.shardName}, ${node}`;
    this.#limits = options.limits;
    this.#clock = options.clock;
    this.#opener = new ConnectionOpener({
      ...options,
      errorCounts: this.counters.errors,
      proof: options.proof ?? null,
    });
    this.#deadlines = new AnswerDeadlines(options.limits.answerTimeoutMs);
    this.noSettings = options.noSettings;
    this.#scheduleSweep();
  }

  get answerTimeoutMs(): number {
    return this.#limits.answerTimeoutMs;
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
  group(startup: ReadonlyMap<string, string>, credential: Credential, role: RoleIdentity | null = null): PoolGroup {
    const parameters = [...startup].sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const key = JSON.stringify(role === null ? parameters : [role.oid, role.barred, ...parameters]);
    const user = startup.get('user') ?? '';
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new PoolGroup(key, user, startup, credential, role);
      this.#groups.set(key, group);
    }
    if (this.#roles.isNewest(user, role)) group.credential = credential;
    return group;
  }

  /** A client is logging in as a role that the node has like this: what was opened for another one serves nobody any more. */
  heardOfRole(user: string, role: RoleIdentity): void {
    if (!this.#roles.heard(user, role, this.#clock.now())) return;
    for (const group of this.#groups.values()) {
      if (group.user !== user) continue;
      for (const connection of [...group.idle]) {
        if (this.#roles.isOutdated(group, connection.createdAt)) connection.terminate();
      }
      if (this.#roles.isGone(group)) this.#refuseAll(group, roleGone(user), null);
    }
  }

  /** Asks for a connection: `granted` or `refused` follows, perhaps before this returns. */
  acquire(request: LeaseRequest): void {
    if (this.#closed) {
      request.refused(new PgkvError('shutting_down'), null);
      return;
    }
    if (this.#roles.isGone(request.group)) {
      request.refused(roleGone(request.group.user), null);
      return;
    }
    const group = this.#current(request.group);
    if (group.waiting.size === 0) {
      const connection = group.takeIdle(request.settings);
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
    if (group.lacksConnections) this.counters.waitsTotal++;
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
    if (!this.#current(group).removeIdle(connection)) return false;
    this.counters.grantsTotal++;
    return true;
  }

  /** Gives a connection back. One that is not at rest is closed. */
  release(connection: ServerConnection, formerGroup: PoolGroup): void {
    if (connection.dead) return;
    const group = this.#current(formerGroup);
    connection.attach(null);
    const now = this.#clock.now();
    const wornOut =
      connection.retired ||
      now - connection.createdAt > this.#limits.lifetimeMaxMs ||
      this.#roles.isOutdated(group, connection.createdAt);
    // A cancel request that lands late must not hit the next user.
    if (!connection.atRest || connection.cancelsUnderWay > 0 || wornOut || this.#closed) {
      if (connection.atRest) connection.terminate();
      else this.destroyUnclean(connection, 'given back in the middle of a transaction');
      return;
    }
    if (endsWhenIdle(connection.settings)) {
      // The server would end it while it waits here, perhaps just when it is granted to another session.
      const rested = (failure: Buffer | null): void => {
        if (failure === null) this.release(connection, formerGroup);
        else this.destroyUnclean(connection, 'its settings could not be taken off');
      };
      if (!connection.bringTo(this.noSettings, rested)) return;
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

  /** The server has not answered in time: the connection is closed, and where it is not the only one, others are tested. */
  missedDeadline(connection: ServerConnection, waitedMs = this.#limits.answerTimeoutMs): void {
    if (connection.dead) return;
    this.counters.silentTotal++;
    connection.destroy(`${this.label}: no answer within ${waitedMs} ms`);
    if (!this.#deadlines.missed(this.#clock.now())) return;
    for (const group of this.#groups.values()) {
      for (const idle of group.idle.splice(0)) this.#test(idle, group);
    }
  }

  /** An idle connection goes back to the idle ones when its server has answered. */
  #test(connection: ServerConnection, group: PoolGroup): void {
    const timer = this.#clock.after(TEST_TIMEOUT_MS, () => {
      if (connection.dead) return;
      this.counters.silentTotal++;
      connection.destroy(`${this.label}: no answer to a test within ${TEST_TIMEOUT_MS} ms`);
    });
    const answered = untilReady(() => {
      timer.cancel();
      this.release(connection, group);
    });
    connection.runControl('', answered);
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
    this.#opener.giveUpAll();
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

  #nextWaiter(group: PoolGroup, connection: ServerConnection, now: number): LeaseRequest | null {
    const own = group.waiterFor(connection);
    if (this.#waitingCount === group.waiting.size) return own;
    for (const other of this.#groups.values()) {
      if (other === group) continue;
      const oldest = other.oldestWaiter;
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
      if (!group.lacksConnections) continue;
      const first = group.oldestWaiter;
      if (first !== undefined && (oldest === null || first.queuedAt < oldest.queuedAt)) oldest = first;
    }
    if (oldest !== null) this.#openFor(this.#current(oldest.group));
  }

  #openFor(group: PoolGroup): void {
    while (group.lacksConnections) {
      if (this.#connections.size + this.#opener.attemptCount < this.#limits.sizeMax) this.#open(group);
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
    this.counters.connectsTotal++;
    this.#opener.open(group, {
      opened: (connection) => {
        group.opening--;
        this.#opened(group, connection);
      },
      failed: (failure) => {
        group.opening--;
        this.#openFailed(group, failure);
      },
    });
  }

  #opened(group: PoolGroup, connection: ServerConnection): void {
    connection.schemaChanged(this.#schemaEpoch);
    this.#connections.add(connection);
    group.open++;
    group.parameters = connection.parameters;
    connection.onClosed = () => {
      this.#connections.delete(connection);
      this.#bytesInBefore += connection.bytesReceived;
      this.#bytesOutBefore += connection.output.bytesWritten;
      group.open--;
      group.removeIdle(connection);
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
      const error =
        failure.wrongServer === true ? wrongServer(detail) : new PgkvError('server_unreachable', { detail });
      this.#refuseAll(group, error, failure.message);
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
    for (const connection of this.#deadlines.overdue(this.#connections, now)) this.missedDeadline(connection);
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
