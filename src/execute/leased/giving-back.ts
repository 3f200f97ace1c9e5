// From a server that is outside a transaction and owes nothing to a connection that is the pool's again: waits for cancel
// requests to land, has the server asked what is left if anything may be, and gives the connection back or keeps it (pinned).
// The other way is acquisition.ts's, the modes are the lane's. Also what becomes of a connection whose client is gone.
// Invariant: a connection goes back only at rest, with nothing of the session on it.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import { untilReady } from '../../backend/replies/control-answers.js';
import { TransactionStatus } from '../../wire/protocol.js';
import type { Acquisition } from './acquisition.js';
import type { LaneCancels } from './lane-cancels.js';
import type { LaneParts } from './lane-options.js';
import type { CheckOutcome, StateBehindLease } from './state-behind-lease.js';
import { askTemporary } from './state-check.js';

/** The lane whose connection is given back. */
export interface GivingLane {
  /** Statements of pgkv's own are about to be sent: no client message may be. */
  connectionChecked(): void;
  /** It stays with the session, and takes client messages. */
  connectionKept(): void;
  /** It is not the lane's any more. */
  connectionGivenUp(): void;
  /** Client messages are taken again. */
  goesOn(): void;
  /** The session keeps its connection for less than it did: what may be left on it is asked anew. */
  judgedAnew(): void;
}

/** What `GivingBack` goes by: who has it, and what may be left. */
interface GivingParts extends Pick<LaneParts, 'pool' | 'group'> {
  readonly left: StateBehindLease;
  readonly cancels: LaneCancels;
  readonly acquisition: Acquisition;
}

/** Holds nothing of its own: what is under way is the lane's mode, what may be left is `StateBehindLease`'s. */
export class GivingBack {
  readonly #lane: GivingLane;
  readonly #pool: NodePool;
  readonly #group: PoolGroup;
  readonly #left: StateBehindLease;
  readonly #cancels: LaneCancels;
  readonly #acquisition: Acquisition;

  constructor({ pool, group, left, cancels, acquisition }: GivingParts, lane: GivingLane) {
    this.#lane = lane;
    this.#pool = pool;
    this.#group = group;
    this.#left = left;
    this.#cancels = cancels;
    this.#acquisition = acquisition;
  }

  /**
   * The server is outside a transaction and owes nothing: asks what is left if anything may be, then gives it back.
   * @param mayLinger the session may keep it for a moment before the server is asked
   */
  begin(connection: ServerConnection, mayLinger: boolean): void {
    // A cancel that lands late must not hit the next user of the connection.
    if (connection.cancelsUnderWay > 0) return this.#awaitCancels(connection);
    this.#left.announceSchema();
    this.#left.judge();
    if (this.#left.mustAsk) {
      if (mayLinger && this.#left.lingers(connection)) {
        connection.settled();
        this.#lane.connectionKept();
        return this.#lane.goesOn();
      }
      this.#lane.connectionChecked();
      this.#left.ask(connection, (outcome) => this.#checked(connection, outcome));
      return;
    }
    this.#left.nothingLeft();
    this.#giveBack(connection);
  }

  #awaitCancels(connection: ServerConnection): void {
    this.#lane.connectionChecked();
    const landed = untilReady(() => this.begin(connection, true));
    this.#cancels.whenLanded(() => connection.runControl('', landed));
  }

  /** What the statements of the lease have left is known, or cannot be. */
  #checked(connection: ServerConnection, outcome: CheckOutcome): void {
    if (outcome === 'unanswered') {
      this.#lane.connectionKept();
      return this.#lane.goesOn();
    }
    // It goes on, if need be, when what RESET ALL took away has been put back.
    if (outcome === 'reset' && !this.#acquisition.carryOver(connection)) return;
    this.#giveBack(connection);
  }

  #giveBack(connection: ServerConnection): void {
    connection.settled();
    if (this.#left.pinned) {
      this.#lane.connectionKept();
      this.#left.awaitRoutines(() => this.#lane.judgedAnew());
    } else {
      this.#lane.connectionGivenUp();
      this.#left.gaveBack();
      this.#acquisition.gaveBack(connection);
      connection.resume();
      this.#pool.release(connection, this.#group);
    }
    this.#lane.goesOn();
  }

  /**
   * The client is gone, and the lane with it. What it had begun ends as it would if the server had seen it go.
   * @param isLeased client messages could be sent, and none has been passed on in part
   */
  orphaned(connection: ServerConnection, isLeased: boolean): void {
    const quiet = connection.replies.length === 0 && !connection.replies.skipping && !connection.copyIn;
    connection.attach(null);
    const { mayHoldState, mayBeClean } = this.#left;
    this.#left.clear();
    const release = (): void => this.#pool.release(connection, this.#group);
    const isAtRest = isLeased && quiet;
    // Not in a batch that is open: PostgreSQL 15 would commit that with the question.
    if (isAtRest && mayBeClean && connection.atRest) {
      return askTemporary(connection, (exist) => {
        if (exist === false) release();
        else this.#pool.destroyUnclean(connection, 'the client is gone, and its temporary objects are not');
      });
    }
    if (!isAtRest || mayHoldState) {
      // Closing the socket is exactly what the server would have seen: it aborts what is open, and finishes or
      // refuses what it is at.
      this.#pool.destroyUnclean(connection, 'the client is gone');
      return;
    }
    if (connection.status === TransactionStatus.idle) release();
    else connection.runControl('ROLLBACK', untilReady(release));
  }
}
