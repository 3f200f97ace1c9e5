// Where the client's block begins and is left on the server of a lane: pgkv opens there what the client has begun here or
// elsewhere, says again what was said in it, and ends it where it goes on elsewhere. What the block is stands in
// session/transaction.ts. Invariant: a block that cannot be said again is never gone on with: what follows would be
// committed by itself.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import { untilReady } from '../../backend/replies/control-answers.js';
import { refusedSetting } from '../../backend/replies/refused-setting.js';
import type { ControlQuery } from '../../backend/replies/reply-queue.js';
import type { PrologueStatement } from '../../session/prologue.js';
import type { Template } from '../../sql/plan/template.js';
import type { Acquisition } from './acquisition.js';
import type { GivingBack, GivingLane } from './giving-back.js';
import type { StateBehindLease } from './state-behind-lease.js';

const NOT_SAID = 'what was said in a block before it was moved could not be said again';
/** Fails before it has a portal, which would stay there in a failed block. */
const FAIL = 'SELECT "pgkv lost"';
/** Takes a snapshot, behind which it is too late for options of the transaction. */
const READ = 'SELECT';

/** The lane that has the block. */
export interface BlockLane extends GivingLane {
  readonly connection: ServerConnection | null;
  /** A statement is about to be sent: remembers what it may leave behind. */
  note(template: Template, text: string): void;
}

interface BlockParts {
  readonly pool: Pick<NodePool, 'shardName'>;
  readonly left: StateBehindLease;
  readonly acquisition: Acquisition;
  readonly givingBack: GivingBack;
}

/** The lane holds a connection whenever one of these is called, but for `lost`. */
export class LaneBlock {
  readonly #lane: BlockLane;
  readonly #parts: BlockParts;
  /** A block is being left in which nothing has happened: nothing is lost with the connection. */
  #leaving = false;

  constructor(lane: BlockLane, parts: BlockParts) {
    this.#lane = lane;
    this.#parts = parts;
  }

  /** Opens a transaction block as the client asked for it, in front of the statement that is about to be sent. */
  open(prologue: readonly PrologueStatement[]): void {
    this.begins();
    for (const { template, text } of prologue) this.#lane.note(template, text);
    const connection = this.#lane.connection!;
    const told: ControlQuery = {
      row: () => undefined,
      // Without its block, what follows would be committed by itself; nor may savepoints behind it be those of before.
      failed: (message) => connection.destroy(NOT_SAID, undefined, refusedSetting(message, this.#parts.pool.shardName)),
      ready: () => this.#parts.acquisition.tellParameters(connection),
    };
    for (const { said } of prologue) connection.sayAgain(said, told);
  }

  /** A block begins with what is about to be sent: what was set before is not undone with it. */
  begins(): void {
    this.#parts.left.blockBegins();
  }

  /**
   * Opens one that has failed, which the client may end here.
   * @param prologue null where it was lost with its connection, and what was said in it
   */
  openFailed(prologue: readonly PrologueStatement[] | null): void {
    if (prologue !== null) this.open(prologue);
    const connection = this.#lane.connection!;
    const failed = untilReady(() => this.#parts.acquisition.tellParameters(connection));
    connection.sendControl(prologue === null ? `BEGIN; ${FAIL}` : FAIL, failed);
  }

  /**
   * A query of the block runs beside its server, which is to know that it has had one. `resume` follows.
   * @param answered hears of the server's status: a time-out that the block has set may end even this
   */
  readBeside(answered: (status: number) => void): void {
    const connection = this.#lane.connection!;
    const read = untilReady(() => {
      answered(connection.status);
      this.#lane.goesOn();
    });
    connection.runControl(READ, read);
  }

  /** Ends a block in which nothing has happened that could not be done again elsewhere. `resume` follows. */
  leave(): void {
    this.#lane.connectionChecked();
    this.#leaving = true;
    const connection = this.#lane.connection!;
    const ended = untilReady(() => {
      this.#leaving = false;
      this.#lane.connectionKept();
      this.#parts.givingBack.begin(connection, true);
    });
    connection.runControl('ROLLBACK', ended);
  }

  /**
   * Ends the implicit transaction of a batch that the client has not ended yet. `resume` follows.
   * @param done whether the client was sent an error, so that the rest of its batch is to be skipped
   */
  endSegment(done: (errorTold: boolean) => void): void {
    this.#lane.connectionChecked();
    const connection = this.#lane.connection!;
    connection.endBatchQuietly((errorTold) => {
      // With the client's own Sync the server would have told it what was set, or is so no longer behind an error.
      this.#parts.acquisition.tellParameters(connection);
      done(errorTold);
      this.#lane.connectionKept();
      if (connection.atRest) this.#parts.givingBack.begin(connection, true);
      else this.#lane.goesOn();
    });
  }

  /** The connection is gone. Returns whether its block was being left. */
  lost(): boolean {
    const wasLeft = this.#leaving;
    this.#leaving = false;
    return wasLeft;
  }
}
