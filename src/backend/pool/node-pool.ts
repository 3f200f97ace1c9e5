// The server connections to one node, shared by all users of it: who gets one, at once or in turn, and what becomes of it when
// it comes back. Knows nothing of statements. What is idle and who waits stands in groups (pool-group.ts); all there are are
// pool-connections.ts's, all who wait pool-queue.ts's. Invariant: open + opening ≤ sizeMax; the waiting queue is bounded; a
// connection that is not at rest is never handed on.
import type { Clock, Random } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { ConnectionOpener } from '../connection/connection-opener.js';
import type { Credential } from '../connection/credential.js';
import { type LoginFailure, loginError, refusesRole } from '../connection/handshake.js';
import type { ServerConnection } from '../connection/server-connection.js';
import type { ServerProof } from '../connection/server-proof.js';
import { addressText, type OpenStream, type ServerAddress } from '../connection/server-socket.js';
import { endsWhenIdle } from '../connection/settings-change.js';
import type { SettingsGroup } from '../connection/settings-group.js';
import { AnswerDeadlines } from './answer-deadlines.js';
import { PoolConnections } from './pool-connections.js';
import type { LeaseRequest, PoolGroup, RoleIdentity } from './pool-group.js';
import { PoolGroups } from './pool-groups.js';
import { createPoolCounters, type PoolLimits } from './pool-limits.js';
import { PoolQueue } from './pool-queue.js';
import { PoolRoom } from './pool-room.js';
import { nextWaiter } from './pool-turns.js';
import { PoolUpkeep } from './pool-upkeep.js';
import { type AskControl, assumedRoutines, type Judge, RoutineLookup } from './routine-lookup.js';
import { Shares } from './shares.js';

export type { PoolLimits } from './pool-limits.js';

const roleGone = (user: string): PgkvError =>
  new PgkvError('invalid_authorization', { message: `role "${user}" was dropped or made anew: log in again` });

/**
 * A connection here is opening, idle in its group, leased (granted, and not yet released) or gone; a request waits or has had
 * its one answer. Behind every change of either, PoolRoom brings the two together. Closed, it grants and opens nothing.
 */
export class NodePool {
  readonly address: ServerAddress;
  /** For messages: the node, and its shard where there are several. */
  readonly label: string;
  /** Null where there is one shard. */
  readonly shardName: string | null;
  readonly counters = createPoolCounters();
  readonly #limits: PoolLimits;
  readonly #clock: Clock;
  readonly #deadlines: AnswerDeadlines;
  readonly #shares: Shares;
  readonly #room: PoolRoom;
  readonly #routines: RoutineLookup | null;
  /** The settings of a connection as it logs in. */
  readonly noSettings: SettingsGroup;
  /** For processes with connections of their own to the node. */
  onSchemaChanged: (() => void) | null = null;
  /** Ends the moment for which a session keeps its connection though it need not (lingering.ts): somebody waits for one. */
  readonly lingering = new Set<() => void>();
  /** Nobody may be connected to that database for what is about to be sent; idle connections everywhere are closed. */
  onDatabaseLeft: ((database: string) => void) | null = null;
  /** The node does not let a role in: what is known of it is out of date. */
  onRoleRefused: ((user: string) => void) | null = null;
  readonly #groups = new PoolGroups();
  readonly #queue = new PoolQueue(this.#groups);
  readonly #connections: PoolConnections;
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
    /** For pgkv's own questions; none: what routines do is asked on the connection that is leased. */
    control?: AskControl | null;
  }) {
    this.address = options.address;
    const node = `node ${addressText(options.address)}`;
    this.shardName = options.shardName ?? null;
    this.label = this.shardName === null ? node : `shard ${this.shardName}, ${node}`;
    this.#limits = options.limits;
    this.#clock = options.clock;
    this.#connections = new PoolConnections({
      opener: new ConnectionOpener({ ...options, errorCounts: this.counters.errors, proof: options.proof ?? null }),
      groups: this.#groups,
      opened: (group, connection) => this.release(connection, group),
      failed: (group, failure) => this.#openFailed(group, failure),
      closed: (connection) => {
        this.#shares.ended(connection);
        this.#room.make();
      },
    });
    this.#shares = new Shares(options.limits.sizeMax, options.limits.roleShare);
    this.#room = new PoolRoom({
      groups: this.#groups,
      roomOf: this.#roomOf,
      clock: options.clock,
      isAsleep: () => this.#queue.count === 0 || this.#closed,
      hasPlace: () => this.#connections.placesTaken < options.limits.sizeMax,
      open: (group) => {
        this.counters.connectsTotal++;
        this.#connections.open(this.#groups.current(group));
      },
      serve: (request, connection) => {
        this.#queue.leave(request);
        this.#grant(request, connection);
      },
    });
    this.#deadlines = new AnswerDeadlines({
      limitMs: options.limits.answerTimeoutMs,
      clock: options.clock,
      counters: this.counters,
      label: this.label,
      groups: () => this.#groups,
      release: (connection, group) => this.release(connection, group),
    });
    this.noSettings = options.noSettings;
    const { clock, control = null } = options;
    this.#routines = control === null ? null : new RoutineLookup(clock, control, () => this.schemaEpoch);
    new PoolUpkeep({
      clock,
      limits: options.limits,
      groups: this.#groups,
      connections: this.#connections,
      deadlines: this.#deadlines,
      isClosed: () => this.#closed,
      timedOut: (request) => this.#timedOut(request),
      keepDatabases: (used) => this.#routines?.keep(used),
      swept: () => this.#room.make(),
    });
  }

  get answerTimeoutMs(): number {
    return this.#limits.answerTimeoutMs;
  }

  get openCount(): number {
    return this.#connections.openCount;
  }

  /** Open and opening. */
  get placesTaken(): number {
    return this.#connections.placesTaken;
  }

  /** Who asks for a lease now has to wait until one comes back, however long that is held. */
  get leasesAreTaken(): boolean {
    return this.#shares.held >= this.#shares.leasesMax;
  }

  /** How many leases are held for what; '' if none is. */
  get heldFor(): string {
    return this.#shares.heldFor();
  }

  get waitingCount(): number {
    return this.#queue.count;
  }

  get idleCount(): number {
    return this.#groups.idleCount;
  }

  /** Bytes received from the node in all, logins not counted. */
  get bytesIn(): number {
    return this.#connections.bytesIn;
  }

  /** Bytes sent to the node in all, logins not counted. */
  get bytesOut(): number {
    return this.#connections.bytesOut;
  }

  connections(): Iterable<ServerConnection> {
    return this.#connections;
  }

  /** The group for these start-up parameters (user and database among them). A newer credential replaces the older. */
  group(startup: ReadonlyMap<string, string>, credential: Credential, role: RoleIdentity | null = null): PoolGroup {
    return this.#groups.of(startup, credential, role);
  }

  /** A client is logging in as a role that the node has like this: what was opened for another one serves nobody any more. */
  heardOfRole(user: string, role: RoleIdentity): void {
    const concerned = this.#groups.heardOfRole(user, role, this.#clock.now());
    for (const group of concerned) {
      for (const connection of [...group.idle]) {
        if (this.#groups.isOutdated(group, connection)) connection.terminate();
      }
      if (this.#groups.isGone(group)) this.#queue.refuseAll(group, roleGone(user), null);
    }
    if (concerned.length > 0) this.#room.make();
  }

  /** Asks for a connection: `granted` or `refused` follows, perhaps before this returns. */
  acquire(request: LeaseRequest): void {
    if (this.#closed) {
      request.refused(new PgkvError('shutting_down'), null);
      return;
    }
    if (this.#groups.isGone(request.group)) {
      request.refused(roleGone(request.group.user), null);
      return;
    }
    const group = this.#groups.current(request.group);
    const isLease = request.purpose === undefined;
    // What needs no lease does not stand behind those that may have none.
    const isNext = isLease ? group.waiting.size === 0 : group.leaseWaiting === group.waiting.size;
    if (isNext && (!isLease || this.#roomOf(group) > 0)) {
      const connection = group.takeIdle(request.settings);
      if (connection !== null) return this.#grant(request, connection);
    }
    if (this.#queue.count >= this.#limits.queueMax) {
      this.counters.waitsRefusedTotal++;
      this.#groups.forgetIfUnused(group);
      const detail = `${this.#queue.count} statements wait for ${this.label} (pool.queue_max)`;
      request.refused(new PgkvError('pool_queue_full', { detail }), null);
      return;
    }
    this.#queue.add(group, request, this.#clock.now());
    this.#room.make();
    if (group.waiting.has(request)) for (const stop of [...this.lingering]) stop();
    if (group.waiting.has(request) && group.lacksConnections(Number.POSITIVE_INFINITY)) this.counters.waitsTotal++;
  }

  /** An idle connection for what needs no lease, where nobody is before it. Null: it has to be asked for. */
  takeIdle(asking: PoolGroup, settings: SettingsGroup): ServerConnection | null {
    if (this.#closed || this.#groups.isGone(asking)) return null;
    const group = this.#groups.current(asking);
    if (group.leaseWaiting !== group.waiting.size) return null;
    const connection = group.takeIdle(settings);
    if (connection !== null) this.counters.grantsTotal++;
    return connection;
  }

  /** Withdraws a request that is still waiting. Returns whether it was. */
  withdraw(request: LeaseRequest): boolean {
    const wasWaiting = this.#queue.leave(request);
    // Others may have a larger share now.
    if (wasWaiting) this.#room.make();
    return wasWaiting;
  }

  /** Takes a particular connection if it is idle: for a session that needs the one it used last. */
  acquireExactly(connection: ServerConnection, group: PoolGroup): boolean {
    const current = this.#groups.current(group);
    if (this.#roomOf(current) === 0 || !current.removeIdle(connection)) return false;
    this.counters.grantsTotal++;
    this.#shares.leased(current, connection);
    return true;
  }

  #grant(request: LeaseRequest, connection: ServerConnection): void {
    this.counters.grantsTotal++;
    this.#shares.granted(request, connection);
    request.granted(connection);
  }

  /** How many more leases a group may get. */
  readonly #roomOf = (group: PoolGroup): number => this.#shares.room(group, this.#groups);

  /** Gives a connection back. One that is not at rest is closed. */
  release(connection: ServerConnection, formerGroup: PoolGroup): void {
    if (connection.dead) return;
    const group = this.#groups.current(formerGroup);
    this.#shares.ended(connection);
    connection.attach(null);
    const now = this.#clock.now();
    const wornOut =
      connection.retired ||
      now - connection.createdAt > this.#limits.lifetimeMaxMs ||
      this.#groups.isOutdated(group, connection);
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
    const next = nextWaiter(group, connection, this.#groups, this.#roomOf, now);
    if (next !== null) {
      this.#queue.leave(next);
      this.#grant(next, connection);
    } else {
      if (this.#groups.isLeft(group, now)) return connection.terminate();
      connection.idleSince = now;
      group.idle.push(connection);
    }
    // Shares are others' now: of what has come back, and of those who no longer wait.
    this.#room.make();
  }

  /** Closes a connection that its session has left in a state nobody knows. */
  destroyUnclean(connection: ServerConnection, reason: string): void {
    this.counters.destroyedTotal++;
    connection.destroy(reason);
  }

  /** The server has not answered in time: the connection is closed, and others are tested if it is not the only one. */
  missedDeadline(connection: ServerConnection, waitedMs = this.#limits.answerTimeoutMs): void {
    this.#deadlines.missed(connection, waitedMs);
  }

  /** Makes `group.routines` good to go by. True: they are; False: `done` follows. Null: there is no pool to ask in. */
  ensureRoutines(group: PoolGroup, done: () => void): boolean | null {
    if (this.#routines === null || group.role?.isLimited === true) return null;
    return this.#routines.ensure(group, done);
  }

  /** Makes `group.routines` what is known at this moment, if that is all there is to know. */
  adoptRoutines(group: PoolGroup): boolean {
    return this.#routines !== null && group.role?.isLimited !== true && this.#routines.adopt(group);
  }

  /** Makes `group.routines` what is known at this moment; where DDL has gone through since they were read, the worst. */
  refreshRoutines(group: PoolGroup): void {
    if (this.#routines === null || group.role?.isLimited === true) {
      if (group.routines?.isAssumed !== true) group.routines = assumedRoutines(group.routines);
    } else this.#routines.refresh(group);
  }

  /** Calls `known` once the routines that `ensureRoutines` has assumed are known. Returns what calls it off. */
  whenRoutinesKnown(group: PoolGroup, known: Judge): () => void {
    return this.#routines?.whenKnown(group, known) ?? (() => undefined);
  }

  /** Counts the times DDL went through. */
  get schemaEpoch(): number {
    return this.#connections.schemaEpoch;
  }

  /** DDL went through: every connection prepares its statements anew before their next use. */
  schemaChanged(): void {
    this.schemaChangedElsewhere();
    this.onSchemaChanged?.();
  }

  /** The same for DDL that another process passed on. */
  schemaChangedElsewhere(): void {
    this.#connections.schemaChanged();
    this.#routines?.schemaChanged(() => this.#groups);
  }

  /** Closes those that are idle in the database, and those that would be in the next moment. */
  closeIdle(database: string): void {
    for (const connection of this.#groups.leave(database, this.#clock.now())) connection.terminate();
  }

  /** Closes idle connections now and leased ones as they come back. Waiters are refused. */
  close(): void {
    this.#closed = true;
    for (const group of this.#groups) {
      for (const connection of [...group.idle]) connection.terminate();
      this.#queue.refuseAll(group, new PgkvError('shutting_down'), null);
    }
    this.#connections.giveUpOpening();
  }

  /** Ends every connection at once. */
  destroy(): void {
    this.close();
    this.#connections.destroyAll('pgkv is stopping');
  }

  #openFailed(group: PoolGroup, failure: LoginFailure): void {
    this.counters.connectFailuresTotal++;
    if (refusesRole(failure)) this.onRoleRefused?.(group.user);
    // 53300 from the server while others are open: they will come back, so the waiters wait on. Idle ones will not, since
    // no waiter could use them: one makes room.
    const serverFull = failure.sqlstate === '53300' && group.open > 0;
    if (!serverFull) {
      const error = loginError(this.label, failure);
      this.#queue.refuseAll(group, error, failure.message);
    } else if (group.waiting.size > 0) this.#room.evictIdle();
    this.#groups.forgetIfUnused(group);
    // The place is free for those who wait for another group's connection.
    if (!serverFull) this.#room.make();
  }

  #timedOut(request: LeaseRequest): void {
    const { waitTimeoutMs } = this.#limits;
    this.counters.waitTimeoutsTotal++;
    this.#queue.leave(request);
    const detail = `${this.label}: waited ${waitTimeoutMs} ms (pool.wait_timeout_ms), ${this.#shares.held} of ${this.#shares.leasesMax} leases are held: ${this.heldFor}`;
    request.refused(new PgkvError('pool_wait_timeout', { detail }), null);
  }
}
