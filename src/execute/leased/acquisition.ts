// From a session's wish for a connection to one that is as the session needs it: waits in the pool's queue, learns what the
// routines of the database may do (once per schema epoch), carries the session's settings over, and tells the client what
// its server now reports. Owns the request in the queue; modes are the lane's.

import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { hasTimedOut } from '../../backend/connection/settings-change.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { LeaseRequest, PoolGroup } from '../../backend/pool/pool-group.js';
import { type Routines, readRoutines } from '../../backend/pool/routines.js';
import { ROUTINES_SQL } from '../../backend/pool/routines-sql.js';
import { parameterChanges } from '../../backend/replies/parameter-status.js';
import { refusedSetting } from '../../backend/replies/refused-setting.js';
import type { ReplyReceiver } from '../../backend/replies/reply-receiver.js';
import { PgkvError } from '../../base/errors.js';
import type { Session } from '../../session/session.js';
import { readErrorFields } from '../../wire/error-fields.js';
import type { LaneParts } from './lane-options.js';

/** The lane that a connection is acquired for. */
export interface AcquiringLane extends ReplyReceiver {
  /** Something of the session would be lost with the connection. */
  readonly holdsState: boolean;
  /** A connection is the lane's; no client message may be sent yet. */
  connectionHeld(connection: ServerConnection): void;
  /** It is as the session needs it. Not called where `begin` or `carryOver` has returned that already. */
  connectionReady(): void;
  /** There is no connection, or the one held is gone. `message`: the server's own ErrorResponse. */
  connectionRefused(error: PgkvError, message: Buffer | null): void;
}

const TOO_BUSY = 'the server ended each attempt to apply the settings of the session by a time-out';

export class Acquisition {
  readonly #lane: AcquiringLane;
  readonly #session: Session;
  readonly #pool: NodePool;
  readonly #group: PoolGroup;
  #request: LeaseRequest | null = null;
  /** The connection that the lane had last. */
  #former: ServerConnection | null = null;
  /** lastval() is asked for, and the next connection would answer it for another session. */
  #discardSequences = false;

  constructor({ session, pool, group }: LaneParts, lane: AcquiringLane) {
    this.#lane = lane;
    this.#session = session;
    this.#pool = pool;
    this.#group = group;
  }

  /**
   * Asks for a connection. True: it is held and ready. False: `connectionReady` or `connectionRefused` follows, the latter
   * perhaps before this returns.
   * @param forLastval the statement asks for what this session drew last from a sequence (R4)
   */
  begin(forLastval: boolean): boolean {
    if (forLastval) {
      if (this.#takeFormer()) return true;
      this.#discardSequences = true;
    }
    let begun = false;
    let ready = false;
    const request: LeaseRequest = {
      group: this.#group,
      settings: this.#session.settings,
      queuedAt: 0,
      granted: (connection) => {
        this.#request = null;
        this.#lane.connectionHeld(connection);
        ready = this.#makeReady(connection);
        if (ready && begun) this.#lane.connectionReady();
      },
      refused: (error, message) => {
        this.#request = null;
        this.#lane.connectionRefused(error, message);
      },
    };
    this.#request = request;
    this.#pool.acquire(request);
    begun = true;
    return ready;
  }

  /** Takes the request out of the queue; false where none stands in it. */
  withdraw(): boolean {
    if (this.#request === null || !this.#pool.withdraw(this.#request)) return false;
    this.#request = null;
    return true;
  }

  /** The lane has given its connection back to the pool. */
  gaveBack(connection: ServerConnection): void {
    this.#former = connection;
  }

  /** Brings a connection to the session's settings. True when nothing has to be waited for. */
  carryOver(connection: ServerConnection): boolean {
    const first = this.#discardSequences ? 'DISCARD SEQUENCES' : '';
    this.#discardSequences = false;
    const { settings } = this.#session;
    if (connection.settings !== settings || first !== '') {
      const brought = (failure: Buffer | null): void => {
        if (failure !== null) return this.#notBrought(connection, failure);
        this.tellParameters(connection);
        this.#lane.connectionReady();
      };
      if (!connection.bringTo(settings, brought, first)) return false;
    }
    this.tellParameters(connection);
    return true;
  }

  /** Whatever could not be set before cannot be trusted to be as it was. */
  #notBrought(connection: ServerConnection, failure: Buffer): void {
    if (this.#lane.holdsState) {
      // What the session has on it is lost with it, of which the lane hears.
      const { M: why } = readErrorFields(failure, 0, failure.length);
      this.#pool.destroyUnclean(connection, `the session settings could not be applied (${why})`);
      return;
    }
    connection.attach(null);
    this.#pool.destroyUnclean(connection, 'the session settings could not be applied');
    // What a time-out cut off, twenty times, is not the session's fault: the server has no time for anything.
    if (hasTimedOut(failure))
      this.#lane.connectionRefused(new PgkvError('server_unreachable', { detail: TOO_BUSY }), null);
    else this.#lane.connectionRefused(new PgkvError('internal'), refusedSetting(failure, this.#pool.shardName));
  }

  /** The lane's former connection, if it is free and still as this session left it, so that it answers lastval(). */
  #takeFormer(): boolean {
    const former = this.#former;
    const untouched =
      former !== null &&
      !former.dead &&
      former.sequenceOwner === this.#lane &&
      former.settings === this.#session.settings &&
      this.#pool.acquireExactly(former, this.#group);
    if (untouched) this.#lane.connectionHeld(former);
    return untouched;
  }

  /** Asks for what has to be known, then carries the session over. True when nothing has to be waited for. */
  #makeReady(connection: ServerConnection): boolean {
    const epoch = this.#pool.schemaEpoch;
    if (this.#group.routines?.epoch === epoch) return this.carryOver(connection);
    const known = (): void => {
      // The client may have gone meanwhile, or the connection.
      if (connection.receiver === this.#lane && this.carryOver(connection)) this.#lane.connectionReady();
    };
    switch (this.#pool.ensureRoutines(this.#group, known)) {
      case true:
        return this.carryOver(connection);
      case false:
        return false;
      case null: {
        const read = (routines: Routines): void => {
          this.#group.routines = routines;
          known();
        };
        connection.runControl(ROUTINES_SQL, readRoutines(epoch, read));
        return false;
      }
    }
  }

  /** Tells the client of settings that it does not know of: what pgkv itself has said is kept from it. */
  tellParameters({ parameters }: ServerConnection): void {
    const session = this.#session;
    if (session.told === parameters) return;
    for (const message of parameterChanges(session.told, parameters)) this.#lane.serverBytes(message);
    session.told = parameters;
  }
}
