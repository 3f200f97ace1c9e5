// What a node's pool has for one role, database and set of start-up parameters, which a connection cannot change after its
// login: the connections that are idle, and who waits for one. Knows which of them fit each other; how many connections the
// node may have, and which group's turn it is, is the pool's.
import type { PgkvError } from '../../base/errors.js';
import type { ServerLogin } from '../connection/connection-opener.js';
import type { Credential } from '../connection/credential.js';
import type { ServerConnection } from '../connection/server-connection.js';
import { placeholdersFit, type SettingsGroup } from '../connection/settings-group.js';
import type { ReportedParameters } from '../replies/parameter-status.js';
import type { Routines } from './routines.js';

/** One wish for a connection. The callbacks are called at most once, synchronously with what made it possible. */
export interface LeaseRequest {
  readonly group: PoolGroup;
  /** What ends by itself, soon, and is not held up by leases; without one: a lease, for as long as its client likes. */
  readonly purpose?: 'merged' | 'login' | 'control';
  readonly settings: SettingsGroup;
  granted(connection: ServerConnection): void;
  /** `message` is the server's own ErrorResponse when it refused the login. */
  refused(error: PgkvError, message: Buffer | null): void;
  /** Set by the pool. */
  queuedAt: number;
}

/** A role as a node has it. */
export interface RoleIdentity {
  /** Every node has its own for the same name. */
  readonly oid: string;
  /** What its password was checked against. */
  readonly verifier: string;
  /** It may not log in, or not to this database, as far as is known: nobody shares its connections, and the server itself refuses it. */
  readonly barred: boolean;
  /** It has a CONNECTION LIMIT: connections of pgkv's own would be taken from its clients. */
  readonly isLimited: boolean;
}

/** Made by `NodePool.group`. */
export class PoolGroup implements ServerLogin {
  readonly key: string;
  readonly user: string;
  readonly database: string;
  readonly startup: ReadonlyMap<string, string>;
  /** Null: not known, as where clients are trusted. */
  readonly role: RoleIdentity | null;
  credential: Credential;
  /** Most recently used last. */
  readonly idle: ServerConnection[] = [];
  readonly waiting = new Set<LeaseRequest>();
  /** How many of them want a lease. */
  leaseWaiting = 0;
  /** Role and database. */
  readonly roleKey: string;
  open = 0;
  opening = 0;
  /** Parameters reported by the last login, for greeting clients; dropped with the last connection. */
  parameters: ReportedParameters | null = null;
  /** What is known of the routines of its database; out of date where its epoch is not the pool's `schemaEpoch`. */
  routines: Routines | null = null;

  constructor(
    key: string,
    user: string,
    startup: ReadonlyMap<string, string>,
    credential: Credential,
    role: RoleIdentity | null = null,
  ) {
    this.key = key;
    this.user = user;
    this.startup = startup;
    this.database = startup.get('database') ?? user;
    this.roleKey = JSON.stringify([user, this.database]);
    this.credential = credential;
    this.role = role;
  }

  add(request: LeaseRequest): void {
    this.waiting.add(request);
    if (request.purpose === undefined) this.leaseWaiting++;
  }

  /** Returns whether it stood among the waiting. */
  remove(request: LeaseRequest): boolean {
    if (!this.waiting.delete(request)) return false;
    if (request.purpose === undefined) this.leaseWaiting--;
    return true;
  }

  /**
   * More requests wait than connections are being opened for them.
   * @param room leases that the group may get
   */
  lacksConnections(room: number): boolean {
    return this.opening < this.waiting.size - this.leaseWaiting + Math.min(this.leaseWaiting, room);
  }

  /**
   * The oldest request for which no connection is being opened; those that are being opened are for the ones before it.
   * @param room leases that the group may get
   */
  firstInNeed(room: number): LeaseRequest | null {
    if (!this.lacksConnections(room)) return null;
    let ahead = this.opening;
    let leases = room;
    for (const request of this.waiting) {
      if (request.purpose === undefined && leases-- <= 0) continue;
      if (ahead-- <= 0) return request;
    }
    return null;
  }

  /** The first request that may have the connection, and can take it as it is. */
  waiterFor({ placeholders }: ServerConnection, room: number): LeaseRequest | null {
    if (room === 0 && this.leaseWaiting === this.waiting.size) return null;
    for (const request of this.waiting) {
      if ((room > 0 || request.purpose !== undefined) && placeholdersFit(placeholders, request.settings))
        return request;
    }
    return null;
  }

  /** Takes the warmest idle connection with the same settings; failing that, the warmest that can take them. */
  takeIdle(settings: SettingsGroup): ServerConnection | null {
    const { idle } = this;
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

  /** Returns whether the connection was idle. */
  removeIdle(connection: ServerConnection): boolean {
    const index = this.idle.indexOf(connection);
    if (index < 0) return false;
    this.idle.splice(index, 1);
    return true;
  }
}
