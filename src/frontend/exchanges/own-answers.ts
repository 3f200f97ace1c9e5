// What the client is told by pgkv itself: refusals, in the place where a server's error would stand; statements that are done
// without a server; and the end of what was owed by a connection that broke (R5). Invariants: an error of pgkv's own is told
// in its turn: behind all that a server still owes it is told by the server's refusing something else, which aborts there what
// has to be aborted; it is told here only where nothing is owed.

import { type ServerLoss, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import { type Deed, forwarded, type Owed, provokedError, Reply, swallowed } from '../../backend/replies/reply-queue.js';
import { unknownStatement } from '../../backend/replies/statement-source.js';
import { type ErrorName, PgkvError } from '../../base/errors.js';
import { encodeParse, encodeQuery, SYNC } from '../../wire/client-messages.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import {
  BIND_COMPLETE,
  CLOSE_COMPLETE,
  encodeCommandComplete,
  encodeError,
  NO_DATA,
  NO_PARAMETERS,
  PARSE_COMPLETE,
  READY_FAILED,
  READY_IDLE,
  READY_IN_BLOCK,
} from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';

const NOTHING = `${STATEMENT_NAME_PREFIX}nothing`;
/** What a server refuses when it comes to it, so that a block that has failed before says so in its own words (25P02). */
const NO_STATEMENT = encodeQuery(`EXECUTE ${NOTHING}`);
/** What a server refuses at once, whatever it is at. */
const NO_SQL = encodeQuery('pgkv refuses');
const NO_PARSE = encodeParse(NOTHING, Buffer.from('SELECT "pgkv refuses"\0\0\0'));
const NO_BIND = bindOf(NOTHING);
const LOST = encodeError(new PgkvError('transaction_lost'), 'ERROR');
const ROLLED_BACK = encodeCommandComplete('ROLLBACK');

function bindOf(statement: string): Buffer {
  const message = Buffer.alloc(13 + statement.length);
  message[0] = Frontend.bind;
  message.writeInt32BE(message.length - 1, 1);
  message.write(statement, 6, 'latin1');
  return message;
}

const readyOf = (status: number): Buffer => {
  if (status === TransactionStatus.idle) return READY_IDLE;
  return status === TransactionStatus.open ? READY_IN_BLOCK : READY_FAILED;
};

const isStatement = ({ kind }: Owed): boolean => kind === Reply.query || kind === Reply.execute;

const endsBatch = ({ kind }: Owed): boolean =>
  kind === Reply.query || kind === Reply.sync || kind === Reply.functionCall;

/** Where a block stands among the ReadyForQuery messages that are owed. */
export interface BlockSpan {
  /** Something sent in it may have committed it. */
  mayHaveCommitted: boolean;
  /** Something sent in it may have written. */
  mayHaveWritten: boolean;
  /** How many belong to what was sent before it. */
  outside: number;
  /** How many go up to its end, that one included. */
  through: number;
}

export class OwnAnswers {
  readonly #context: ExchangeContext;

  constructor(context: ExchangeContext) {
    this.#context = context;
  }

  /** ReadyForQuery where no server is asked. */
  ready(): void {
    const { output, transaction } = this.#context;
    output.send(readyOf(transaction.status));
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
    const { output, batch, transaction } = this.#context;
    if (transaction.state.kind === 'open') return this.#errorOnServer(type, bytes);
    output.send(transaction.state.kind === 'lost' ? LOST : bytes);
    transaction.failHere();
    if (type === Frontend.query || type === Frontend.functionCall) this.ready();
    else batch.failed();
    output.flush();
  }

  /** The server that has the block has it fail, too: its savepoints are still good. */
  #errorOnServer(type: number, bytes: Buffer): void {
    const { batch, lanes } = this.#context;
    const connection = lanes.current.connection!;
    if (type === Frontend.query || type === Frontend.functionCall) {
      connection.unnamed = null;
      connection.output.push(NO_STATEMENT);
      connection.replies.push(provokedError(Reply.query, bytes, null));
    } else {
      batch.refused();
      connection.output.push(NO_PARSE);
      connection.replies.push(provokedError(Reply.parse, bytes, null));
    }
    connection.output.flush();
  }

  /** Answers the unit with an error, which aborts what a server's error would abort. */
  refuse(unit: Unit, error: PgkvError | Buffer): 'taken' {
    const { batch, session, lanes, transaction } = this.#context;
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
      connection.unnamed = null;
      // A text that would have ended the failed block is not to be told that the block has failed.
      connection.output.push(transaction.phase === 'failed' ? NO_SQL : NO_STATEMENT);
      connection.replies.push(provokedError(Reply.query, bytes, null));
      return 'taken';
    }
    batch.refused();
    const change = unnamed ? session.unnamed.change(null, connection.replies) : null;
    const undo = (refused: boolean): void => {
      if (change !== null) session.unnamed.undo(change, refused);
    };
    connection.output.push(NO_PARSE);
    connection.replies.push(provokedError(Reply.parse, bytes, { undo }));
    return 'taken';
  }

  /**
   * Has the server of the current lane parse a text that pgkv could not, and nothing more: its error is the answer to
   * the simple query, else `error`.
   */
  askServer(text: string, error: PgkvError): void {
    const connection = this.#context.lanes.current.connection!;
    connection.unnamed = unknownStatement;
    connection.output.push(encodeParse('', Buffer.from(`${text}\0\0\0`, 'utf8')));
    connection.replies.push(swallowed(Reply.parse));
    connection.output.push(NO_BIND);
    connection.replies.push(provokedError(Reply.bind, encodeError(error, 'ERROR'), null));
    connection.output.push(SYNC);
    connection.replies.push(forwarded(Reply.sync));
  }

  /**
   * The current lane's connection broke, and the session goes on: answers all that is owed, as R5 says.
   * @param block where the last block stands among what is owed
   */
  connectionLost(loss: ServerLoss, block: BlockSpan): void {
    const { batch, output, transaction } = this.#context;
    const { owedReadies } = loss;
    if (owedReadies === 0 && !batch.isOwed) {
      transaction.lose(false);
      return;
    }
    const { state } = transaction;
    const inBlock = state.kind === 'open' || state.kind === 'ending' || state.kind === 'failed';
    const batches = batchesOf(loss.owed);
    /** The error of a batch outside the block. */
    const unknown = (index: number): Buffer => {
      const reads = onlyReads(batches[index] ?? []) && !(index === 0 && loss.batchDid === 'anything');
      return this.#lossError(loss, reads ? 'server_unreachable' : 'outcome_unknown');
    };
    // A ROLLBACK under way has succeeded: there is nothing left to roll back.
    const last = batches.at(-1) ?? [];
    const lastIsInside = owedReadies + (batch.state === 'none' ? 0 : 1) <= block.through;
    const rolledBack =
      lastIsInside &&
      state.kind === 'ending' &&
      state.how === 'rollback' &&
      onlyRollsBack(last, batches.length > 1 ? 'nothing' : loss.batchDid);
    // What was bound and not executed has ended nothing.
    const isExecuted = loss.batchDid !== 'nothing' || last.some(isStatement) || batch.state === 'none';
    // Behind an error the server skips what was to end the block.
    const isSkipped = loss.told && batches.length <= 1;
    transaction.lose(true, isExecuted && !isSkipped);
    const inDoubt = this.#lossError(
      loss,
      isExecuted && block.mayHaveCommitted && block.mayHaveWritten ? 'outcome_unknown' : 'transaction_lost',
    );
    let { told } = loss;
    for (let index = 0; index < owedReadies; index++) {
      const isLast = index === owedReadies - 1 && batch.state === 'none';
      const inside = inBlock && index >= block.outside && index < block.through;
      const ends = index === block.through - 1;
      if (isLast && rolledBack && !told) this.#rolledBack(last, loss.batchDid === 'nothing' || batches.length > 1);
      else if (!told) this.#tellLoss(inside ? inDoubt : unknown(index));
      told = false;
      output.send(isLast ? readyOf(transaction.status) : inside && !ends ? READY_FAILED : READY_IDLE);
    }
    if (batch.isOwed) {
      if (rolledBack && !told && batch.state === 'open') this.#rolledBack(last, true);
      else {
        if (!told) this.#tellLoss(inBlock ? inDoubt : unknown(owedReadies));
        batch.failed();
      }
    }
    output.flush();
  }

  #lossError({ error: { detail } }: ServerLoss, name: ErrorName): Buffer {
    return encodeError(new PgkvError(name, detail === undefined ? {} : { detail }), 'ERROR');
  }

  /**
   * Answers what is still owed of a batch that does nothing but roll back.
   * @param untold a simple query's tag has not gone out
   */
  #rolledBack(batch: readonly Owed[], untold: boolean): void {
    const { output, session } = this.#context;
    // Whether a statement without a name was parsed, nobody knows; the one before it is gone.
    if (batch.some(({ kind }) => kind === Reply.parse)) session.unnamed.set(null);
    for (const entry of batch) {
      if (entry.bytes !== null) output.send(entry.bytes);
      if (entry.kind === Reply.parse) output.send(PARSE_COMPLETE);
      else if (entry.kind === Reply.bind) output.send(BIND_COMPLETE);
      else if (entry.kind === Reply.close) output.send(CLOSE_COMPLETE);
      else if (entry.kind === Reply.describePortal) output.send(NO_DATA);
      else if (entry.kind === Reply.describeStatement) {
        output.send(NO_PARAMETERS);
        output.send(NO_DATA);
      } else if (entry.kind === Reply.execute || (entry.kind === Reply.query && untold)) output.send(ROLLED_BACK);
    }
  }

  #tellLoss(error: Buffer): void {
    this.#context.output.send(error);
    // Whether it was parsed before the loss, nobody knows.
    this.#context.session.unnamed.set(null);
  }
}

/** What was owed to the client, batch by batch; the last one may be without its Sync. */
function batchesOf(owed: readonly Owed[]): Owed[][] {
  const batches: Owed[][] = [];
  let open = false;
  for (const entry of owed) {
    if (!open) batches.push([]);
    batches.at(-1)!.push(entry);
    open = !endsBatch(entry);
  }
  return batches;
}

/** Nothing of it writes. */
const onlyReads = (batch: readonly Owed[]): boolean =>
  batch.every(({ kind, does }) => {
    return kind === Reply.functionCall
      ? false
      : (kind !== Reply.query && kind !== Reply.execute) || does !== 'anything';
  });

/** Every statement of it is a ROLLBACK, and there is one. @param did what those did that are answered */
function onlyRollsBack(batch: readonly Owed[], did: Deed | 'nothing'): boolean {
  const runs = batch.filter(({ kind }) => kind === Reply.query || kind === Reply.execute);
  if (batch.some(({ kind }) => kind === Reply.functionCall)) return false;
  return (
    runs.every(({ does }) => does === 'rolls back') && (did === 'rolls back' || (did === 'nothing' && runs.length > 0))
  );
}
