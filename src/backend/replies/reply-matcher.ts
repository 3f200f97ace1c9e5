// Reads what a server sends, message by message, and matches each with what the server owes (reply-queue.ts): whether it
// goes to the client, is for pgkv itself, or is kept from both. Invariant: a message that does not fit destroys the
// connection (D11 rule 8). What messages say of the server's state is kept on the connection, where senders read it.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
import { messageOf } from '../../base/errors.js';
import { countError, type ErrorCounts } from '../../telemetry/counters.js';
import { stringEnd } from '../../wire/client-messages.js';
import { type ErrorFields, encodeErrorResponse, readErrorFields } from '../../wire/error-fields.js';
import { Frame, type FrameFound, FrameReader } from '../../wire/frame-reader.js';
import { Backend, backendLimits, TransactionStatus } from '../../wire/protocol.js';
import { rowShape } from '../../wire/row-shape.js';
import { readRowValues } from '../../wire/row-values.js';
import { translatedError } from './error-translation.js';
import { type ReportedParameters, withParameter } from './parameter-status.js';
import type { PreparedStatements } from './prepared-statements.js';
import type { ReplyForwarder } from './reply-forwarder.js';
import { type Owed, Reply, type ReplyQueue } from './reply-queue.js';

/** What a cancel of pgkv's own is told as. */
export interface DeadlockVerdict {
  readonly detail: string;
  /** The server has cancelled it. */
  told(): void;
}

/** A connection as the matcher of its replies sees it. */
export interface MatchedConnection {
  readonly address: string;
  /** Set by `destroy`: nothing more is read. */
  readonly dead: boolean;
  /** See ReplyReceiver.serverTag and guardedError. */
  readonly watchTags: boolean;
  readonly guarded: boolean;
  /** Told instead of a cancel; taken with it, and where none has come of those that are under way. */
  deadlock: DeadlockVerdict | null;
  readonly cancelsUnderWay: number;
  /** Kept by the matcher: transaction status, whether COPY FROM STDIN is on, reported settings. */
  status: number;
  copyIn: boolean;
  parameters: ReportedParameters;
  destroy(reason: string, cause?: unknown): void;
}

const FAILED_TRANSACTION = '25P02';
const CANCELLED = '57014';
/** Longest row taken in answer to a statement of pgkv's own: settings, verifiers. */
const CONTROL_ROW_BYTES_MAX = 16 * 1024 * 1024;
const STATUSES: ReadonlySet<number> = new Set(Object.values(TransactionStatus));
const LIMITS_BY_BYTES = new Map<number, Int32Array>();

function limitsFor(messageBytesMax: number): Int32Array {
  let limits = LIMITS_BY_BYTES.get(messageBytesMax);
  if (limits === undefined) {
    limits = backendLimits(messageBytesMax);
    LIMITS_BY_BYTES.set(messageBytesMax, limits);
  }
  return limits;
}

export class ReplyMatcher {
  /** Errors of what is under way are for pgkv itself. */
  quiet = false;
  /** An error has been forwarded and its ReadyForQuery has not. */
  told = false;
  /** The server's last message, if it was a FATAL one. */
  fatal: Buffer | null = null;
  /** Reported settings as they were when the server was last outside a block: what it goes back to where one is lost. */
  parametersOutside: ReportedParameters;
  readonly #connection: MatchedConnection;
  readonly #replies: ReplyQueue;
  readonly #forwarder: ReplyForwarder;
  readonly #statements: PreparedStatements;
  readonly #errorCounts: ErrorCounts;
  readonly #reader: FrameReader;
  /** Whether the streamed message being received goes to the client. */
  #streamForwarded = false;
  /** A guarded error was taken: everything up to its ReadyForQuery is kept from the client. */
  #withheld = false;
  /** Parts so far of a row that answers a statement of pgkv's own. */
  #controlRow: Buffer[] = [];
  #controlRowBytes = 0;

  /**
   * @param statements those that errors may name
   * @param messageBytesMax longest message other than rows and COPY data taken from the server
   */
  constructor(
    connection: MatchedConnection,
    replies: ReplyQueue,
    forwarder: ReplyForwarder,
    statements: PreparedStatements,
    errorCounts: ErrorCounts,
    messageBytesMax: number,
  ) {
    this.#connection = connection;
    this.parametersOutside = connection.parameters;
    this.#replies = replies;
    this.#forwarder = forwarder;
    this.#statements = statements;
    this.#errorCounts = errorCounts;
    this.#reader = new FrameReader(limitsFor(messageBytesMax), Backend.dataRow, 'backend');
  }

  /** Whether a message has been forwarded in part. */
  get midMessage(): boolean {
    return this.#streamForwarded && this.#reader.midMessage;
  }

  /** Reads what has arrived; receivers and pgkv's own statements hear of it before this returns. */
  received(chunk: Buffer): void {
    const reader = this.#reader;
    this.#forwarder.chunkBegins(reader.bufferedBytes > 0);
    reader.push(chunk);
    try {
      for (let found = reader.next(); found !== Frame.none; found = reader.next()) {
        if (found === Frame.more || found === Frame.last) {
          if (this.#streamForwarded) this.#forward();
          else if (this.#controlRow.length > 0) this.#gatherRow(found);
        } else if (reader.type === Backend.dataRow) this.#row(found);
        else this.#message(reader.type);
        if (this.#connection.dead) return;
      }
      this.#forwarder.flush();
    } catch (error) {
      this.#connection.destroy(`server ${this.#connection.address}: ${messageOf(error)}`, error);
      return;
    }
    this.#forwarder.chunkEnds(reader.bufferedBytes > 0);
  }

  /** The message just read, or the part of one, goes to the client. */
  #forward(): void {
    this.#forwarder.pass(this.#reader.buffer, this.#reader.start, this.#reader.end);
  }

  #row(found: FrameFound): void {
    const head = this.#replies.head;
    if (head === null || (head.kind !== Reply.query && head.kind !== Reply.execute)) throw this.#mismatch();
    this.#streamForwarded = !head.swallow && !this.#withheld;
    if (this.#streamForwarded) this.#forward();
    else if (head.control === null) return;
    else if (found === Frame.first) this.#gatherRow(found);
    else head.control.row(readRowValues(this.#reader.buffer, this.#reader.start, this.#reader.end));
  }

  /** Rows are handed out in parts; those of pgkv's own statements are read whole. */
  #gatherRow(found: FrameFound): void {
    const { buffer, start, end } = this.#reader;
    // Copied: the chunk is read into again before the row is whole.
    this.#controlRow.push(Buffer.from(buffer.subarray(start, end)));
    this.#controlRowBytes += end - start;
    if (this.#controlRowBytes > CONTROL_ROW_BYTES_MAX) throw new Error('a row too long for a statement of pgkv');
    if (found !== Frame.last) return;
    const row = Buffer.concat(this.#controlRow);
    this.#controlRow = [];
    this.#controlRowBytes = 0;
    this.#replies.head!.control!.row(readRowValues(row, 0, row.length));
  }

  #notification(head: Owed | null): void {
    const { buffer, start, end } = this.#reader;
    const isBeside = head === null || head.swallow || this.#connection.status === TransactionStatus.idle;
    this.#forwarder.flush();
    this.#forwarder.receiver?.serverNotified(buffer.subarray(start, end), isBeside);
  }

  // One case per message of the protocol, so longer than a screen.
  #message(type: number): void {
    const head = this.#replies.head;
    switch (type) {
      case Backend.noticeResponse:
        if (head === null || !head.swallow) this.#forward();
        else if (head.control?.noticed !== undefined) {
          head.control.noticed(Buffer.from(this.#reader.buffer.subarray(this.#reader.start, this.#reader.end)));
        }
        head?.assumption?.noticed?.();
        return;
      case Backend.parameterStatus:
        this.#parameterStatus(head === null || !head.swallow);
        return;
      case Backend.notificationResponse:
        this.#notification(head);
        return;
      case Backend.errorResponse:
        this.#error(head);
        return;
      case Backend.readyForQuery:
        this.#ready(head);
        return;
    }
    if (head === null) throw this.#mismatch();
    const { kind } = head;
    switch (type) {
      case Backend.parseComplete:
        return this.#complete(head, kind === Reply.parse);
      case Backend.bindComplete:
        return this.#complete(head, kind === Reply.bind);
      case Backend.closeComplete:
        return this.#complete(head, kind === Reply.close);
      case Backend.noData:
        return this.#described(head);
      case Backend.rowDescription:
        return kind === Reply.query ? this.#pass(head) : this.#described(head);
      case Backend.parameterDescription:
        if (kind !== Reply.describeStatement) throw this.#mismatch();
        return this.#pass(head);
      case Backend.commandComplete:
        if (this.#connection.watchTags && !head.swallow && head.assumption === null) this.#tag();
        this.#connection.copyIn = false;
        if (kind === Reply.query) {
          this.#replies.answeredInQuery(head);
          return this.#pass(head);
        }
        return this.#complete(head, kind === Reply.execute);
      case Backend.emptyQueryResponse:
        if (kind === Reply.query) return this.#pass(head);
        return this.#complete(head, kind === Reply.execute);
      case Backend.portalSuspended:
        return this.#complete(head, kind === Reply.execute);
      case Backend.functionCallResponse:
        if (kind !== Reply.functionCall) throw this.#mismatch();
        return this.#pass(head);
      case Backend.copyInResponse:
        this.#connection.copyIn = !this.#replies.enterCopyIn();
        return this.#passWhileExecuting(head);
      case Backend.copyData:
      case Backend.copyDone:
      case Backend.copyOutResponse:
      case Backend.copyBothResponse:
        return this.#passWhileExecuting(head);
      default:
        throw this.#mismatch();
    }
  }

  #pass(head: Owed): void {
    this.#streamForwarded = !head.swallow && !this.#withheld;
    if (this.#streamForwarded) this.#forward();
  }

  #described(head: Owed): void {
    const { buffer, start, end } = this.#reader;
    head.described?.(rowShape(buffer, start, end));
    this.#complete(head, head.kind === Reply.describeStatement || head.kind === Reply.describePortal);
  }

  #passWhileExecuting(head: Owed): void {
    if (head.kind !== Reply.query && head.kind !== Reply.execute) throw this.#mismatch();
    this.#pass(head);
  }

  /** The message answers the head in full. */
  #complete(head: Owed, fits: boolean): void {
    if (!fits) throw this.#mismatch();
    this.#emitPrefix(head);
    this.#pass(head);
    this.#replies.pop();
    this.#emitLocal();
  }

  #emitPrefix(head: Owed): void {
    if (head.bytes === null || this.#withheld) return;
    this.#forwarder.insert(head.bytes);
  }

  #emitLocal(): void {
    for (let head = this.#replies.head; head !== null; head = this.#replies.head) {
      if (head.kind === Reply.copyEnd) this.#replies.pop();
      else if (head.kind === Reply.local) {
        this.#replies.pop();
        if (!this.#withheld) this.#forwarder.insert(head.bytes!);
      } else return;
    }
  }

  #error(head: Owed | null): void {
    const { buffer, start, end } = this.#reader;
    const fields = readErrorFields(buffer, start, end);
    const severity = fields['V'] ?? fields['S'];
    if (severity === 'FATAL' || severity === 'PANIC') {
      // The server closes behind it, so nothing more may be sent; whoever holds the connection decides who hears of it.
      if (this.#forwarder.receiver !== null) countError(this.#errorCounts, fields['C'] ?? '');
      this.fatal = Buffer.from(buffer.subarray(start, end));
      this.#connection.destroy(
        `server ${this.#connection.address}: ${fields['M'] ?? 'ended the session without a reason'}`,
      );
      return;
    }
    if (head === null) throw this.#mismatch();
    this.#connection.copyIn = false;
    const verdict = this.#verdict(fields);
    if (head.control !== null) {
      head.control.failed(verdict ?? Buffer.from(buffer.subarray(start, end)));
      // What is said again may be so by the extended protocol.
      if (head.kind !== Reply.query) this.#replies.failExtended();
      return;
    }
    if (this.quiet) {
      this.#replies.failExtended();
      return;
    }
    if (this.#connection.guarded && !this.#withheld && this.#forwarder.receiver!.guardedError(fields))
      this.#withheld = true;
    if (!this.#withheld) countError(this.#errorCounts, fields['C'] ?? '');
    this.#emitPrefix(head);
    // A block that had failed before says so.
    if (head.insteadOfError !== null && fields['C'] !== FAILED_TRANSACTION) this.#insteadOf(head.insteadOfError);
    else if (!this.#withheld) {
      this.#forwardError(fields, head, verdict);
      this.told = true;
    }
    const { kind } = head;
    if (kind !== Reply.query && kind !== Reply.functionCall && kind !== Reply.sync) this.#replies.failExtended();
  }

  #insteadOf(error: Buffer): void {
    this.#forwarder.insert(error);
    this.told = true;
  }

  /** The error, made into the other one in `fields`, too; null: it is what the server has sent. */
  #verdict(fields: ErrorFields): Buffer | null {
    const { deadlock } = this.#connection;
    if (deadlock === null || fields['C'] !== CANCELLED) return null;
    this.#connection.deadlock = null;
    deadlock.told();
    return encodeErrorResponse(Object.assign(fields, { C: '40P01', M: 'deadlock detected', D: deadlock.detail }));
  }

  #forwardError(fields: ErrorFields, head: Owed, verdict: Buffer | null): void {
    const translated = translatedError(fields, head, this.#statements, this.#forwarder.receiver) ?? verdict;
    if (fields['C'] === '26000') this.#statements.deallocated(fields['M'] ?? '');
    if (translated === null) this.#forward();
    else this.#forwarder.insert(translated);
  }

  #ready(head: Owed | null): void {
    if (head === null || (head.kind !== Reply.query && head.kind !== Reply.sync && head.kind !== Reply.functionCall)) {
      throw this.#mismatch();
    }
    const { buffer, start, end } = this.#reader;
    const status = buffer[start + 5]!;
    if (end - start !== 6 || !STATUSES.has(status)) throw new Error('malformed ReadyForQuery');
    this.#connection.status = status;
    // The cancel came too late: the next one is somebody else's.
    if (this.#connection.deadlock !== null && this.#connection.cancelsUnderWay === 0) this.#connection.deadlock = null;
    const forward = !head.swallow && !this.#withheld;
    if (forward) {
      this.#forward();
      this.told = false;
    }
    this.#replies.pop();
    if (status === TransactionStatus.idle) {
      this.parametersOutside = this.#connection.parameters;
      this.#replies.idle();
    }
    this.#forwarder.flush();
    this.#emitLocal();
    // Told last: the receiver may send its next statement, or give the connection back, at once.
    if (head.control !== null) head.control.ready();
    else if (this.#withheld) {
      this.#withheld = false;
      this.#forwarder.receiver?.guardedReady();
    } else if (forward) this.#forwarder.receiver?.serverReady(this.#connection.status);
  }

  #parameterStatus(forward: boolean): void {
    const { buffer, start, end } = this.#reader;
    const nameEnd = stringEnd(buffer, start + 5, end);
    const valueEnd = nameEnd < 0 ? -1 : stringEnd(buffer, nameEnd + 1, end);
    if (valueEnd < 0) throw new Error('malformed ParameterStatus');
    const name = buffer.toString('utf8', start + 5, nameEnd);
    const value = buffer.toString('utf8', nameEnd + 1, valueEnd);
    this.#connection.parameters = withParameter(this.#connection.parameters, name, value);
    if (forward && this.#forwarder.receiver !== null) {
      this.#forward();
      this.#forwarder.receiver.serverParameter(name, value);
    }
  }

  #tag(): void {
    const { buffer, start, end } = this.#reader;
    this.#forwarder.receiver?.serverTag(buffer.toString('latin1', start + 5, end - 1));
  }

  #mismatch(): Error {
    const head = this.#replies.head;
    const owedKind = head === null ? 'nothing' : Object.entries(Reply).find(([, kind]) => kind === head.kind)?.[0];
    return new Error(`unexpected message "${String.fromCharCode(this.#reader.type)}" while owing ${owedKind}`);
  }
}
