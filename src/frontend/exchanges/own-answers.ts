// What the client is told by pgkv itself: refusals, in the place where a server's error would stand, and statements that are
// done without a server. What is said of a lost connection is lost-answers.ts's. Invariants: an error of pgkv's own is told
// in its turn: behind all that a server still owes it is told by the server's refusing something else, which aborts there what
// has to be aborted; it is told here only where nothing is owed.

import { type ServerConnection, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import { forwarded, provokedError, Reply, swallowed } from '../../backend/replies/reply-queue.js';
import { unknownStatement } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { encodeBareBind, encodeParse, encodeQuery, SYNC } from '../../wire/client-messages.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import { encodeError, readyOf } from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { OwnPortals } from './own-portals.js';
import { endsUnnamed } from './server-names.js';

const NOTHING = `${STATEMENT_NAME_PREFIX}nothing`;
/**
 * What a server refuses when it comes to it, so that a block that has failed before says so in its own words (25P02), and before
 * it has a portal, which would stay there in a failed block.
 */
const NO_STATEMENT = encodeQuery('SELECT "pgkv refuses"');
/** What it refuses at once: a text that would end a failed block is not to be told that the block has failed. */
const NO_SQL = encodeQuery('pgkv refuses');
const NO_SQL_PARSE = encodeParse(NOTHING, Buffer.from('pgkv refuses\0\0\0'));
const NO_PARSE = encodeParse(NOTHING, Buffer.from('SELECT "pgkv refuses"\0\0\0'));
const NO_BIND = encodeBareBind(NOTHING);
const LOST = encodeError(new PgkvError('transaction_lost'), 'ERROR');

export class OwnAnswers {
  readonly #context: ExchangeContext;

  readonly #portals: OwnPortals;

  constructor(context: ExchangeContext, portals: OwnPortals) {
    this.#context = context;
    this.#portals = portals;
  }

  /** ReadyForQuery where no server is asked. */
  ready(): void {
    const { output, transaction, batch } = this.#context;
    // A simple query in front of its batch's Sync: the implicit transaction is open, as a server says.
    const isImplicit = batch.hasRunUntold && !transaction.inBlock;
    const status = isImplicit ? TransactionStatus.open : transaction.status;
    output.send(readyOf(status));
    if (status !== TransactionStatus.idle) return;
    batch.transactionEnded();
    this.#portals.closeAll();
  }

  /** Answers a Sync of which no server knows. */
  sync(): void {
    const { output, transaction } = this.#context;
    if (transaction.state.kind === 'lost') {
      // The transaction must not be found to have failed without a word.
      output.send(LOST);
      transaction.lossTold();
    }
    this.ready();
  }

  /**
   * An error is the answer to the message at hand, of the type given, and nothing before it is owed: a block that is open
   * fails without a server.
   */
  error(type: number, bytes: Buffer): void {
    const { output, batch, transaction, lent } = this.#context;
    // What is sent in front of what waits for the cancels would bar that, as an error in a batch does.
    if (lent.areLanding) return lent.whenLanded(() => this.error(type, bytes));
    if (transaction.state.kind === 'open') return this.#errorOnServer(type, bytes);
    const { state } = transaction;
    output.send(state.kind === 'lost' ? LOST : bytes);
    // A block that has failed on its server stays there.
    if (state.kind !== 'failed') transaction.failHere();
    batch.transactionEnded();
    if (type === Frontend.query || type === Frontend.functionCall) this.ready();
    else batch.failed();
    output.flush();
  }

  /** The server that has the block has it fail, too: its savepoints are still good. */
  #errorOnServer(type: number, bytes: Buffer): void {
    const { batch, lanes } = this.#context;
    const connection = lanes.current.connection!;
    if (type === Frontend.query || type === Frontend.functionCall) {
      this.#provokeByQuery(type, connection, NO_STATEMENT, bytes);
    } else {
      batch.refused();
      connection.send(NO_PARSE, provokedError(Reply.parse, bytes, null));
    }
    connection.output.flush();
  }

  /** In place of a Query or FunctionCall. */
  #provokeByQuery(type: number, connection: ServerConnection, query: Buffer, error: Buffer): void {
    const owed = provokedError(Reply.query, error, null);
    connection.unnamed = null;
    connection.send(query, type === Frontend.query ? endsUnnamed(this.#context.session, connection, owed, null) : owed);
  }

  /** Answers the unit with an error, which aborts what a server's error would abort. */
  refuse(unit: Unit, error: PgkvError | Buffer): 'taken' {
    const { batch, session, lanes } = this.#context;
    const bytes = Buffer.isBuffer(error) ? error : encodeError(error, 'ERROR');
    const { mode, connection } = lanes.current;
    const unnamed = unit.type === Frontend.parse && unit.buffer[unit.start + 5] === 0;
    if (connection === null || mode !== 'leased' || connection.atRest) {
      // A Parse that fails has dropped the unnamed statement before it.
      if (unnamed) session.unnamed.set(null);
      this.error(unit.type, bytes);
      return 'taken';
    }
    if (unit.type === Frontend.query || unit.type === Frontend.functionCall) {
      this.#provokeByQuery(unit.type, connection, unit.template.endsFailure ? NO_SQL : NO_STATEMENT, bytes);
      return 'taken';
    }
    batch.refused();
    const change = unnamed ? session.unnamed.change(null, connection.replies) : null;
    const undo = (refused: boolean): void => {
      if (change !== null) session.unnamed.undo(change, refused);
    };
    connection.send(unit.template.endsFailure ? NO_SQL_PARSE : NO_PARSE, provokedError(Reply.parse, bytes, { undo }));
    return 'taken';
  }

  /**
   * Has the server of the current lane parse the text of a simple query that pgkv could not, and nothing more: its error is the
   * answer, else `error`.
   */
  askServer({ buffer, start, end }: Unit, error: PgkvError): void {
    const connection = this.#context.lanes.current.connection!;
    connection.unnamed = unknownStatement;
    const text = Buffer.concat([buffer.subarray(start + 5, end), Buffer.alloc(2)]);
    connection.send(encodeParse('', text), swallowed(Reply.parse));
    connection.send(NO_BIND, provokedError(Reply.bind, encodeError(error, 'ERROR'), null));
    connection.send(SYNC, forwarded(Reply.sync));
  }
}
