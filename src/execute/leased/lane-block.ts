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
import { isNotReplicated, readErrorFields } from '../../wire/error-fields.js';
import type { Acquisition } from './acquisition.js';
import type { GivingBack, GivingLane } from './giving-back.js';
import type { StateBehindLease } from './state-behind-lease.js';

const NOT_SAID = 'what was said in a block before it was moved could not be said again';
/** Fails before it has a portal, which would stay there in a failed block. */
const FAIL = 'SELECT "pgkv lost"';
/** Takes a snapshot, behind which it is too late for options of the transaction. */
const READ = 'SELECT';

/** What a server has said to one of several questions. */
export interface BlockAnswer {
  /** The last one. */
  row: readonly (string | null)[] | null;
  /** ErrorResponse. */
  failure: Buffer | null;
  /** The server has not waited for its standbys as it should (D11 rule 2). */
  isLocal: boolean;
}

/** SQL of pgkv's own, or what the client has said elsewhere. */
export type BlockQuestion = string | PrologueStatement;

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
  /** A block is being begun: what is said in it is undone with the connection, though it has not been answered. */
  #opening = false;
  /** It is being committed with others: what becomes of what was set in it is told with the outcome. */
  #ending = false;
  /** Something has run in it that may do more at its end than a server tells, as NOTIFY does. */
  mayDoMore = false;

  constructor(lane: BlockLane, parts: BlockParts) {
    this.#lane = lane;
    this.#parts = parts;
  }

  /** What stands before the block has set something that the session does not know of. */
  get settingsAreUnknown(): boolean {
    return this.#parts.left.hidesSettings;
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
    if (this.#lane.connection?.atRest === true) this.mayDoMore = false;
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

  /**
   * Has its server do something in the block, or with it, in one write. Nobody is told where the connection breaks.
   * @param told the answers to all
   */
  ask(questions: readonly BlockQuestion[], told: (answers: readonly BlockAnswer[]) => void): void {
    const connection = this.#lane.connection!;
    const answers: BlockAnswer[] = [];
    for (const [index, question] of questions.entries()) {
      const answer: BlockAnswer = { row: null, failure: null, isLocal: false };
      answers.push(answer);
      const control: ControlQuery = {
        row: (values) => {
          answer.row = values;
        },
        failed: (message) => {
          answer.failure = message;
        },
        noticed: (message) => {
          if (isNotReplicated(readErrorFields(message, 0, message.length))) answer.isLocal = true;
        },
        ready: () => {
          if (index === questions.length - 1) told(answers);
        },
      };
      if (typeof question === 'string') connection.sendControl(question, control);
      else {
        this.#lane.note(question.template, question.text);
        connection.sayAgain(question.said, control);
      }
    }
    connection.output.flush();
  }

  /** The same of what begins a block. */
  askToBegin(questions: readonly BlockQuestion[], told: (answers: readonly BlockAnswer[]) => void): void {
    this.begins();
    this.#opening = true;
    this.ask(questions, (answers) => {
      this.#opening = false;
      told(answers);
    });
  }

  /** What its server has been told meanwhile is told to the client. */
  tell(): void {
    this.#parts.acquisition.tellParameters(this.#lane.connection!);
  }

  /** It is about to be committed with others. */
  ends(): void {
    this.#ending = true;
  }

  /** Its server is outside a transaction by what it was asked for: gives the connection back. */
  ended(): void {
    this.#ending = false;
    const connection = this.#lane.connection!;
    this.#parts.acquisition.tellParameters(connection);
    this.#parts.givingBack.begin(connection, true);
  }

  /** The connection is closed, with what was set and is not to be kept. Its loss is none of the session's. */
  discard(why: string): void {
    this.#leaving = true;
    this.#lane.connection!.destroy(why);
  }

  /** Ends a block in which nothing has happened that could not be done again elsewhere. `resume` follows. */
  leave(): void {
    this.#ending = false;
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

  /** The connection is gone: whether its block was being left, or begun, or committed with others. */
  lost(): 'left' | 'begun' | null {
    const was = this.#leaving ? 'left' : this.#opening || this.#ending ? 'begun' : null;
    this.#leaving = this.#opening = this.#ending = this.mayDoMore = false;
    return was;
  }
}
