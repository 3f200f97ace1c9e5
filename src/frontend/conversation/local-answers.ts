// What the client is told by pgkv itself: without a server, in the place of one whose connection broke, or where a
// server's own error is replaced. Owns the state that such answers leave, which no server knows of: a batch that is
// skipped up to its Sync, and a transaction that was lost (D20).

import { type ServerLoss, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import { forwarded, provokedError, Reply, swallowed } from '../../backend/replies/reply-queue.js';
import { unknownStatement } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { Template } from '../../sql/plan/template.js';
import { encodeParse, encodeQuery, SYNC } from '../../wire/client-messages.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import {
  encodeCommandComplete,
  encodeError,
  encodeTextRow,
  encodeTextRowDescription,
  READY_FAILED,
  READY_IDLE,
  READY_IN_BLOCK,
} from '../../wire/server-messages.js';
import { LostTransaction } from '../exchanges/lost-transaction.js';
import type { ConversationContext, Handling } from './conversation-context.js';

const EMPTY_MESSAGE_BYTES = 5;
const INVALID_FORMAT = encodeError(new PgkvError('protocol_violation', { message: 'invalid message format' }), 'ERROR');
/** No statement: the server answers it with an error, which is replaced by the one that pgkv has. */
const NO_STATEMENT = encodeQuery('pgkv refuses');
/** The same in the extended protocol. */
const BIND_OF_NOTHING = bindOf(`${STATEMENT_NAME_PREFIX}nothing`);

function bindOf(statement: string): Buffer {
  const message = Buffer.alloc(13 + statement.length);
  message[0] = Frontend.bind;
  message.writeInt32BE(message.length - 1, 1);
  message.write(statement, 6, 'latin1');
  return message;
}

export class LocalAnswers {
  /** An error was sent in the extended protocol without a server: everything up to Sync is ignored. */
  skipping = false;
  /** Set while a message is handled, when its lane cannot serve it: the ErrorResponse. */
  refusal: Buffer | null = null;
  #lost: LostTransaction | null = null;
  readonly #context: ConversationContext;

  constructor(context: ConversationContext) {
    this.#context = context;
  }

  /** Messages are answered by `inLostTransaction`. */
  get hasLostTransaction(): boolean {
    return this.#lost !== null;
  }

  /** ReadyForQuery as it is where no server is asked. */
  get ready(): Buffer {
    const { lanes, placement } = this.#context;
    if (this.#lost !== null || lanes.current.connection?.status === TransactionStatus.failed) return READY_FAILED;
    return placement.blockOpen ? READY_IN_BLOCK : READY_IDLE;
  }

  /** An error of pgkv's own was sent: a block that no server has failed fails here. */
  failed(): void {
    if (this.#context.placement.failBlock()) this.#lost = new LostTransaction(true);
  }

  /** Answers a message of that type with an ErrorResponse. */
  error(type: number, bytes: Buffer): void {
    const { output } = this.#context;
    output.send(bytes);
    this.failed();
    if (type === Frontend.query || type === Frontend.functionCall) output.send(this.ready);
    else this.skipping = true;
    output.flush();
  }

  /** Has the current lane take the message at hand; where it cannot serve it, the message is answered. */
  ensure(template: Template): Handling {
    const { lanes, reader } = this.#context;
    if (lanes.current.ensure(template)) return 'ready';
    const { refusal } = this;
    if (refusal === null) return 'wait';
    this.refusal = null;
    this.error(reader.type, refusal);
    return 'taken';
  }

  /** Answers the message at hand with an error, which aborts what a server's error would abort. */
  refuse(type: number, error: PgkvError | Buffer): 'taken' {
    const bytes = Buffer.isBuffer(error) ? error : encodeError(error, 'ERROR');
    const lane = this.#context.lanes.current;
    const { connection } = lane;
    if (connection === null || lane.mode !== 'leased') this.error(type, bytes);
    else if (type === Frontend.query) {
      connection.unnamed = null;
      connection.output.push(NO_STATEMENT);
      connection.replies.push(provokedError(Reply.query, bytes));
    } else {
      connection.output.push(BIND_OF_NOTHING);
      connection.replies.push(provokedError(Reply.bind, bytes));
    }
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
    connection.output.push(BIND_OF_NOTHING);
    connection.replies.push(provokedError(Reply.bind, encodeError(error, 'ERROR')));
    connection.output.push(SYNC);
    connection.replies.push(forwarded(Reply.sync));
  }

  /** Answers a simple query that had something done and returns nothing. */
  completed(tag: string): void {
    const { output } = this.#context;
    output.send(encodeCommandComplete(tag));
    output.send(this.ready);
  }

  /** Answers `SHOW name`. */
  show(name: string, value: string): void {
    const { output } = this.#context;
    output.send(encodeTextRowDescription(name));
    output.send(encodeTextRow(value));
    this.completed('SHOW');
  }

  /** Flush where no server is asked. */
  flush(): void {
    if (!this.#isEmpty) this.error(Frontend.flush, INVALID_FORMAT);
  }

  /** Sync where no server is asked, or the batch was skipped. */
  sync(): void {
    const { output } = this.#context;
    if (!this.#isEmpty) output.send(INVALID_FORMAT);
    this.skipping = false;
    const lost = this.#lost;
    output.send(lost === null ? this.ready : lost.sync());
    if (lost?.over === true) this.#lost = null;
  }

  /** Whether the message at hand is nothing but its type and length. */
  get #isEmpty(): boolean {
    const { start, end } = this.#context.reader;
    return end - start === EMPTY_MESSAGE_BYTES;
  }

  /** Answers a message, not a Sync, of the transaction that was lost. */
  inLostTransaction(type: number): void {
    const lost = this.#lost!;
    const { output, reader, extended, templateOf } = this.#context;
    const { buffer, start, end } = reader;
    if (type === Frontend.query) {
      output.send(lost.query(templateOf(buffer.toString('utf8', start + 5, end - 1))));
      if (lost.over) this.#lost = null;
    } else if (type !== Frontend.flush) {
      const answer = lost.extended(type, extended.namedSource(type, buffer, start, end)?.template ?? null);
      output.send(answer.bytes);
      this.skipping = answer.failed;
      if (type === Frontend.parse && !answer.failed) extended.parsedLocally(buffer, start, end);
      // What follows in this batch is no longer the lost transaction's.
      if (lost.over && !answer.failed) this.#lost = null;
    }
  }

  /** The current lane's connection broke, and the session goes on: answers all that was owed, as R5 says. */
  connectionLost(loss: ServerLoss): void {
    const inTransaction = loss.status !== TransactionStatus.idle;
    if (loss.owedReadies === 0 && !loss.unsynced) {
      if (inTransaction) this.#lost = new LostTransaction(loss.status === TransactionStatus.failed);
      return;
    }
    const { output, lanes } = this.#context;
    const certain = inTransaction && !lanes.current.mayHaveCommitted;
    const name = certain ? 'transaction_lost' : lanes.current.readOnly ? 'server_unreachable' : 'outcome_unknown';
    const { detail } = loss.error;
    const error = encodeError(new PgkvError(name, detail === undefined ? {} : { detail }), 'ERROR');
    if (certain) this.#lost = new LostTransaction(true);
    // The client has had its error already for the first batch that waits, or for the one it is sending.
    let { told } = loss;
    for (let owed = loss.owedReadies; owed > 0; owed--) {
      if (!told) this.#tellLoss(error);
      told = false;
      output.send(certain ? READY_FAILED : READY_IDLE);
    }
    if (loss.unsynced) {
      if (!told) this.#tellLoss(error);
      this.skipping = true;
    }
    output.flush();
  }

  #tellLoss(error: Buffer): void {
    this.#context.output.send(error);
    // Whether it was parsed before the loss, nobody knows.
    this.#context.session.unnamed.set(null);
  }
}
