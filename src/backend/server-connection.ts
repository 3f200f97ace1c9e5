// One logged-in connection to a Postgres server. Owns its socket, the replies it owes and what is known of its session
// state (settings, prepared statements, transaction status). It has at most one receiver at a time: whoever holds the
// lease. Invariant: every reply is matched against the queue; one that does not fit destroys the connection, which is
// never handed on again.
import type { Duplex } from 'node:stream';
import { messageOf, PgkvError } from '../base/errors.js';
import { countError, type ErrorCounts } from '../telemetry/counters.js';
import { encodeNamed, encodeParse, encodeQuery, SYNC, stringEnd, TERMINATE } from '../wire/client-messages.js';
import { type ErrorFields, encodeErrorResponse, readErrorFields } from '../wire/error-fields.js';
import { Frame, type FrameFound, FrameReader } from '../wire/frame-reader.js';
import { Output } from '../wire/output.js';
import { Backend, backendLimits, Frontend, TransactionStatus } from '../wire/protocol.js';
import { rowShape } from '../wire/row-shape.js';
import { readRowValues } from '../wire/row-values.js';
import { type ReportedParameters, withParameter } from './parameter-status.js';
import {
  type Assumption,
  assuming,
  type ControlQuery,
  controlQuery,
  controlSync,
  describing,
  localReply,
  type Owed,
  parsing,
  Reply,
  ReplyQueue,
} from './reply-queue.js';
import type { ReadBuffer } from './server-socket.js';
import type { SettingsGroup } from './settings-group.js';
import { positionInOriginal, type StatementSource, unknownStatement } from './statement-source.js';

/** Whoever holds the lease of a connection: gets the replies meant for the client. Called synchronously. */
export interface ReplyReceiver {
  /** Whether bytes it was given are still to be read from where they were: its socket has not taken them yet. */
  readonly holdsBytes: boolean;
  /** Bytes to forward, whole messages or parts of streamed ones, in order. Valid during the call; views may be kept. */
  serverBytes(bytes: Buffer): void;
  /** Nothing more has arrived for now: flush. */
  serverPaused(): void;
  /** A forwarded ReadyForQuery went out with this status byte. */
  serverReady(status: number): void;
  /** The server reported a setting while this receiver held the connection (already forwarded unless swallowed). */
  serverParameter(name: string, value: string): void;
  /** What the client calls a statement, "" if it is its unnamed one; undefined if it is not the client's. */
  clientStatementName(source: StatementSource | null): string | undefined;
  /** CommandComplete tag, called only while `watchTags` is set. */
  serverTag(tag: string): void;
  /**
   * An ErrorResponse to a forwarded message, before it is forwarded, called only while `guarded` is set. True keeps it
   * and all that follows up to ReadyForQuery from the client, which then gets `guardedReady`.
   */
  guardedError(fields: ErrorFields): boolean;
  guardedReady(): void;
  serverLost(loss: ServerLoss): void;
}

/** What a receiver has to know of a connection that broke under it. */
export interface ServerLoss {
  readonly error: PgkvError;
  /** The server's own last FATAL message, if it sent one. */
  readonly last: Buffer | null;
  /** ReadyForQuery messages the client still waits for. */
  readonly owedReadies: number;
  /** Messages of the extended protocol were sent and no Sync behind them yet. */
  readonly unsynced: boolean;
  /** The client has had an error for the first of the batches that it waits for, or is still sending. */
  readonly told: boolean;
  /** A row was forwarded in part: the client's stream cannot be continued. */
  readonly midMessage: boolean;
  /** Transaction status when last reported. */
  readonly status: number;
}

/** A statement as prepared on one connection. */
interface PreparedOnServer {
  readonly name: string;
  readonly semantics: string;
  readonly schemaEpoch: number;
  /** The server has refused or skipped its Parse. */
  missing: boolean;
  /** Where the answer to its Parse stands in the reply queue. */
  readonly place: number;
}

export interface ServerConnectionOptions {
  readonly stream: Duplex;
  readonly readBuffer: ReadBuffer | null;
  readonly address: string;
  readonly pid: number;
  readonly secretKey: Buffer;
  readonly parameters: ReportedParameters;
  readonly settings: SettingsGroup;
  readonly preparedMax: number;
  /** Longest message other than rows and COPY data taken from a server, bytes. */
  readonly messageBytesMax: number;
  readonly createdAt: number;
  /** Counts the errors that receivers are given. */
  readonly errorCounts: ErrorCounts;
}

/** Names of prepared statements on servers begin with this. */
export const STATEMENT_NAME_PREFIX = 'pgkv_';
const NOTHING = Buffer.alloc(0);
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

export class ServerConnection {
  readonly address: string;
  readonly pid: number;
  readonly secretKey: Buffer;
  readonly createdAt: number;
  /** Behind the login. */
  bytesReceived = 0;
  /** Settings as the server reports them (ParameterStatus). */
  parameters: ReportedParameters;
  readonly replies = new ReplyQueue();
  readonly output: Output;
  readonly prepared = new Map<StatementSource, PreparedOnServer>();
  /** Statements that stand here under clients' own names, as bytes in latin1. */
  readonly strayNames = new Set<string>();
  /** Custom settings ever defined on this connection. */
  readonly placeholders = new Set<string>();
  settings: SettingsGroup;
  status: number = TransactionStatus.idle;
  /** In COPY FROM STDIN: the server ignores Sync and Flush until the copy ends. */
  copyIn = false;
  /** What the server has as its unnamed statement; `unknownStatement` where that cannot be told. */
  unnamed: StatementSource | null = null;
  /** Not to be handed on: it is closed when it is given back. */
  retired = false;
  watchTags = false;
  guarded = false;
  dead = false;
  /** Cancel requests under way for this connection; it must not change hands before they have landed. */
  cancelsUnderWay = 0;
  idleSince = 0;
  /** Who last ran a statement that may have drawn from a sequence. */
  sequenceOwner: ReplyReceiver | null = null;
  onClosed: ((connection: ServerConnection) => void) | null = null;

  readonly #stream: Duplex;
  readonly #readBuffer: ReadBuffer | null;
  readonly #reader: FrameReader;
  readonly #preparedMax: number;
  readonly #errorCounts: ErrorCounts;
  #receiver: ReplyReceiver | null = null;
  /** Errors of what is under way are for pgkv itself. */
  #quiet = false;
  #nameCounter = 0;
  /** Place of the last Parse of ours. */
  #lastParse = -1;
  /** Stands for the settings in force while they are not known to be those of the session. */
  #unsettled: string | null = null;
  #unsettledCount = 0;
  #schemaEpoch = 0;
  /** Whether the streamed message being received goes to the client. */
  #streamForwarded = false;
  /** A guarded error was taken: everything up to its ReadyForQuery is kept from the client. */
  #withheld = false;
  /** An error has been forwarded and its ReadyForQuery has not. */
  #told = false;
  #fatal: Buffer | null = null;
  /** Parts so far of a row that answers a statement of pgkv's own. */
  #controlRow: Buffer[] = [];
  #controlRowBytes = 0;
  /** Span of received bytes that is to be forwarded and has not been yet. */
  #runBuffer: Buffer = NOTHING;
  /** Who may still hold bytes of chunks received. */
  #holder: ReplyReceiver | null = null;
  #runStart = 0;
  #runEnd = 0;

  constructor(options: ServerConnectionOptions) {
    this.#stream = options.stream;
    this.#readBuffer = options.readBuffer;
    this.address = options.address;
    this.pid = options.pid;
    this.secretKey = options.secretKey;
    this.parameters = options.parameters;
    this.settings = options.settings;
    this.createdAt = options.createdAt;
    this.#preparedMax = options.preparedMax;
    this.#errorCounts = options.errorCounts;
    this.#reader = new FrameReader(limitsFor(options.messageBytesMax), Backend.dataRow, 'backend');
    this.output = new Output(options.stream);
    options.stream.on('data', (chunk: Buffer) => this.#received(chunk));
    options.stream.on('drain', () => {
      this.output.drained();
      this.#receiver?.serverPaused();
    });
    options.stream.on('error', (error: Error) =>
      this.destroy(`connection to ${this.address} failed: ${error.message}`, error),
    );
    options.stream.on('end', () => this.destroy(`server ${this.address} closed the connection`));
    options.stream.on('close', () => this.destroy(`connection to ${this.address} was closed`));
  }

  get receiver(): ReplyReceiver | null {
    return this.#receiver;
  }

  /** Whether a message has been forwarded in part. */
  get midMessage(): boolean {
    return this.#streamForwarded && this.#reader.midMessage;
  }

  /** Takes the connection (or gives it back with null). Only between leases. */
  attach(receiver: ReplyReceiver | null): void {
    this.#receiver = receiver;
    this.settled();
    // The next session may have the same text under other settings.
    if (this.unnamed !== null) this.unnamed = unknownStatement;
    this.watchTags = false;
    this.guarded = false;
  }

  /** A statement is sent that may change settings: what is parsed from now on means something to this session only. */
  unsettle(): void {
    this.#unsettled ??= `unsettled ${++this.#unsettledCount}`;
  }

  /** The settings are what the session's group says. */
  settled(): void {
    this.#unsettled = null;
  }

  /** Outside a transaction, owing nothing, nothing half sent. */
  get atRest(): boolean {
    return (
      this.replies.length === 0 && !this.replies.unsynced() && this.status === TransactionStatus.idle && !this.copyIn
    );
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  /** Runs a statement of pgkv's own at once; only when the connection owes nothing. */
  runControl(sql: string, control: ControlQuery): void {
    this.sendControl(sql, control);
    this.output.flush();
  }

  /** The same in front of the message that is about to be sent, and in one write with it; not in an open batch. */
  sendControl(sql: string, control: ControlQuery): void {
    // A simple query ends the unnamed statement.
    this.unnamed = null;
    this.replies.push(controlQuery(control));
    this.output.push(encodeQuery(sql));
  }

  /**
   * The name under which `source` is prepared here, preparing it first where it is not; answers to that are swallowed.
   * `semantics` is that of the session's settings: a text prepared under others may mean something else.
   */
  prepare(source: StatementSource, semantics: string): string {
    const known = this.prepared.get(source);
    if (known !== undefined && this.#fits(known, semantics)) {
      if (this.prepared.size * 2 > this.#preparedMax) {
        this.prepared.delete(source);
        this.prepared.set(source, known);
      }
      return known.name;
    }
    return this.parse(source, semantics, true);
  }

  /**
   * Asks what shape the result of a statement has at present; only outside an open batch, when nothing is owed.
   * @param done gets null where the server refuses to say
   */
  askShape(source: StatementSource, semantics: string, done: (shape: string | null) => void): void {
    let shape: string | null = null;
    this.#quiet = true;
    const name = this.prepare(source, semantics);
    this.output.push(encodeNamed(Frontend.describe, 'S', name));
    this.replies.push(
      describing(true, (told) => {
        shape = told;
      }),
    );
    this.output.push(SYNC);
    this.replies.push(
      controlSync({
        row: () => undefined,
        failed: () => undefined,
        ready: () => {
          this.#quiet = false;
          done(shape);
        },
      }),
    );
    this.output.flush();
  }

  /** Ends an open batch with a Sync of our own. `done` hears whether an error of the batch was forwarded. */
  endBatchQuietly(done: (errorTold: boolean) => void): void {
    this.output.push(SYNC);
    this.replies.push(
      controlSync({
        row: () => undefined,
        failed: () => undefined,
        ready: () => {
          const told = this.#told;
          this.#told = false;
          done(told);
        },
      }),
    );
    this.output.flush();
  }

  /** Whether some statement's Parse is not answered yet. */
  get parsing(): boolean {
    return !this.replies.isGone(this.#lastParse);
  }

  /** Whether an earlier batch prepares `source`, and may yet be skipped. */
  dependsOnParse(source: StatementSource): boolean {
    const known = this.prepared.get(source);
    return known !== undefined && this.replies.owesEarlierBatch(known.place);
  }

  /** Whether `prepare` would find the statement ready. */
  isPrepared(source: StatementSource, semantics: string): boolean {
    const known = this.prepared.get(source);
    return known !== undefined && this.#fits(known, semantics);
  }

  #fits(known: PreparedOnServer, semantics: string): boolean {
    const sameMeaning = known.semantics === semantics || known.semantics === this.#unsettled;
    return sameMeaning && known.schemaEpoch === this.#schemaEpoch;
  }

  /**
   * Sends a Parse under a fresh name in place of any earlier one.
   * @param swallow keep ParseComplete from the client
   * @param undone called if the server refuses the Parse (true) or skips it
   */
  parse(source: StatementSource, semantics: string, swallow: boolean, undone?: (refused: boolean) => void): string {
    this.forget(source);
    const name = `${STATEMENT_NAME_PREFIX}${++this.#nameCounter}`;
    const entry: PreparedOnServer = {
      name,
      semantics: this.#unsettled ?? semantics,
      schemaEpoch: this.#schemaEpoch,
      missing: false,
      place: this.replies.nextPlace,
    };
    this.#lastParse = entry.place;
    this.prepared.set(source, entry);
    const undo = (refused: boolean): void => {
      entry.missing = true;
      if (this.prepared.get(source) === entry) this.prepared.delete(source);
      undone?.(refused);
    };
    this.replies.push(parsing(source.rewritten, swallow, { undo }));
    this.output.push(encodeParse(name, source.parseTail));
    if (this.prepared.size > this.#preparedMax) this.#evictOldest(source);
    return name;
  }

  /** Closes the statement on the server, if it is prepared here. */
  forget(source: StatementSource): void {
    const known = this.prepared.get(source);
    if (known === undefined) return;
    this.prepared.delete(source);
    // Skipped after an error: the server still has it, if it ever had, so it is ours again.
    const undo = (): void => {
      if (!known.missing && !this.prepared.has(source)) this.prepared.set(source, known);
    };
    this.replies.push(assuming(Reply.close, true, { undo }));
    this.output.push(encodeNamed(Frontend.close, 'S', known.name));
  }

  /** DEALLOCATE ALL or DISCARD ALL took effect. */
  forgetAllPrepared(): void {
    this.prepared.clear();
  }

  /** Statements prepared before this are prepared anew before their next use. */
  schemaChanged(epoch: number): void {
    this.#schemaEpoch = epoch;
  }

  /** Ends an orderly, unused connection. */
  terminate(): void {
    if (this.dead) return;
    this.output.push(TERMINATE);
    this.output.flush();
    this.#stream.end();
    this.destroy('closed by pgkv');
  }

  /** Idempotent. Tells the receiver, then the pool. */
  destroy(reason: string, cause?: unknown): void {
    if (this.dead) return;
    this.dead = true;
    const sent = this.replies.length > 0 || this.replies.unsynced();
    const loss: ServerLoss = {
      error: new PgkvError(sent ? 'outcome_unknown' : 'server_unreachable', { detail: reason, cause }),
      last: this.#fatal,
      owedReadies: this.replies.owedReadies(),
      unsynced: this.replies.unsynced(),
      told: this.#told,
      midMessage: this.midMessage,
      status: this.status,
    };
    this.#flushRun();
    this.#stream.destroy();
    const receiver = this.#receiver;
    this.#receiver = null;
    this.replies.clear();
    this.onClosed?.(this);
    receiver?.serverLost(loss);
  }

  #evictOldest(keep: StatementSource): void {
    for (const source of this.prepared.keys()) {
      if (source === keep) continue;
      this.forget(source);
      return;
    }
  }

  /** Sends the client bytes of our own when the replies owed before them have gone out. */
  replyLocally(bytes: Buffer, assumption: Assumption | null): void {
    if (this.replies.length > 0 || this.replies.skipping) this.replies.push(localReply(bytes, assumption));
    else this.#receiver?.serverBytes(bytes);
  }

  #received(chunk: Buffer): void {
    const reader = this.#reader;
    this.bytesReceived += chunk.length;
    if (this.#readBuffer !== null && !this.#holdsChunks) this.#readBuffer.earlierAreFree();
    reader.push(chunk);
    this.#runStart = this.#runEnd = 0;
    this.#runBuffer = NOTHING;
    try {
      for (let found = reader.next(); found !== Frame.none; found = reader.next()) {
        if (found === Frame.more || found === Frame.last) {
          if (this.#streamForwarded) this.#extendRun();
          else if (this.#controlRow.length > 0) this.#gatherRow(found);
        } else if (reader.type === Backend.dataRow) this.#row(found);
        else this.#message(reader.type);
        if (this.dead) return;
      }
      this.#flushRun();
    } catch (error) {
      this.destroy(`server ${this.address}: ${messageOf(error)}`, error);
      return;
    }
    this.#runBuffer = NOTHING;
    this.#receiver?.serverPaused();
    if (this.#readBuffer !== null && !this.#holdsChunks) this.#readBuffer.kept = false;
  }

  /** Whether a part of a message, or the client's socket, still points to bytes received. */
  get #holdsChunks(): boolean {
    return this.#reader.bufferedBytes > 0 || (this.#holder?.holdsBytes ?? false);
  }

  /** The message just read goes to the client: consecutive ones leave as one view of the chunk. */
  #extendRun(): void {
    const { buffer, start, end } = this.#reader;
    if (this.#runEnd !== start || this.#runBuffer !== buffer) {
      this.#flushRun();
      this.#runBuffer = buffer;
      this.#runStart = start;
    }
    this.#runEnd = end;
  }

  #flushRun(): void {
    if (this.#runEnd > this.#runStart && this.#receiver !== null) {
      if (this.#holder !== this.#receiver) {
        if (this.#holder?.holdsBytes === true) this.#readBuffer?.abandon();
        this.#holder = this.#receiver;
      }
      const start = this.#runStart;
      // Before the call: what it throws must not have the same bytes told again when the connection is closed for it.
      this.#runStart = this.#runEnd;
      this.#receiver.serverBytes(this.#runBuffer.subarray(start, this.#runEnd));
    }
    this.#runStart = this.#runEnd;
  }

  #row(found: FrameFound): void {
    const head = this.replies.head;
    if (head === null || (head.kind !== Reply.query && head.kind !== Reply.execute)) throw this.#mismatch();
    this.#streamForwarded = !head.swallow && !this.#withheld;
    if (this.#streamForwarded) this.#extendRun();
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
    this.replies.head!.control!.row(readRowValues(row, 0, row.length));
  }

  // One case per message of the protocol, so longer than a screen.
  #message(type: number): void {
    const head = this.replies.head;
    switch (type) {
      case Backend.noticeResponse:
        if (head === null || !head.swallow) this.#extendRun();
        head?.assumption?.noticed?.();
        return;
      case Backend.parameterStatus:
        this.#parameterStatus(head === null || !head.swallow);
        return;
      case Backend.notificationResponse:
        this.#extendRun();
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
        if (this.watchTags && !head.swallow) this.#tag();
        this.copyIn = false;
        if (kind === Reply.query) return this.#pass(head);
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
        this.copyIn = !this.replies.enterCopyIn();
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
    if (this.#streamForwarded) this.#extendRun();
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
    this.replies.pop();
    this.#emitLocal();
  }

  #emitPrefix(head: Owed): void {
    if (head.bytes === null || this.#withheld) return;
    this.#flushRun();
    this.#receiver?.serverBytes(head.bytes);
  }

  #emitLocal(): void {
    for (let head = this.replies.head; head !== null; head = this.replies.head) {
      if (head.kind === Reply.copyEnd) this.replies.pop();
      else if (head.kind === Reply.local) {
        this.#flushRun();
        this.replies.pop();
        if (!this.#withheld) this.#receiver?.serverBytes(head.bytes!);
      } else return;
    }
  }

  #error(head: Owed | null): void {
    const { buffer, start, end } = this.#reader;
    const fields = readErrorFields(buffer, start, end);
    const severity = fields['V'] ?? fields['S'];
    if (severity === 'FATAL' || severity === 'PANIC') {
      // The server closes behind it, so nothing more may be sent; whoever holds the connection decides who hears of it.
      if (this.#receiver !== null) countError(this.#errorCounts, fields['C'] ?? '');
      this.#fatal = Buffer.from(buffer.subarray(start, end));
      this.destroy(`server ${this.address}: ${fields['M'] ?? 'ended the session without a reason'}`);
      return;
    }
    if (head === null) throw this.#mismatch();
    this.copyIn = false;
    if (head.control !== null) {
      head.control.failed(Buffer.from(buffer.subarray(start, end)));
      return;
    }
    if (this.#quiet) {
      this.replies.failExtended();
      return;
    }
    if (this.guarded && !this.#withheld && this.#receiver!.guardedError(fields)) this.#withheld = true;
    if (!this.#withheld) countError(this.#errorCounts, fields['C'] ?? '');
    this.#emitPrefix(head);
    if (head.insteadOfError !== null) {
      this.#flushRun();
      this.#receiver?.serverBytes(head.insteadOfError);
    } else if (!this.#withheld) {
      this.#forwardError(fields, head);
      this.#told = true;
    }
    const { kind } = head;
    if (kind !== Reply.query && kind !== Reply.functionCall && kind !== Reply.sync) this.replies.failExtended();
  }

  /** Names of pgkv's own in the text are replaced by the client's, places in what pgkv has written by the client's. */
  #forwardError(fields: ErrorFields, head: Owed): void {
    const { rewritten } = head;
    const text = fields['M'] ?? '';
    const name = text.includes(STATEMENT_NAME_PREFIX) ? /"(pgkv_\d+)"/.exec(text)?.[1] : undefined;
    const source = name === undefined ? null : this.#sourceOf(name);
    // A function has deallocated it (26000): it is prepared anew before its next use.
    if (source !== null && fields['C'] === '26000') this.prepared.delete(source);
    const own = name === undefined ? undefined : this.#receiver?.clientStatementName(source);
    const position = rewritten === null ? undefined : fields['P'];
    if ((name === undefined || own === undefined) && position === undefined) {
      this.#extendRun();
      return;
    }
    this.#flushRun();
    const told = { ...fields };
    if (own !== undefined) told['M'] = text.replace(`"${name}"`, () => `"${own}"`);
    if (position !== undefined) told['P'] = String(positionInOriginal(rewritten!, Number(position)));
    this.#receiver?.serverBytes(encodeErrorResponse(told));
  }

  #sourceOf(serverName: string): StatementSource | null {
    for (const [source, { name }] of this.prepared) {
      if (name === serverName) return source;
    }
    return null;
  }

  #ready(head: Owed | null): void {
    if (head === null || (head.kind !== Reply.query && head.kind !== Reply.sync && head.kind !== Reply.functionCall)) {
      throw this.#mismatch();
    }
    const { buffer, start, end } = this.#reader;
    const status = buffer[start + 5]!;
    if (end - start !== 6 || !STATUSES.has(status)) throw new Error('malformed ReadyForQuery');
    this.status = status;
    const forward = !head.swallow && !this.#withheld;
    if (forward) {
      this.#extendRun();
      this.#told = false;
    }
    this.replies.pop();
    this.#flushRun();
    this.#emitLocal();
    // Told last: the receiver may send its next statement, or give the connection back, at once.
    if (head.control !== null) head.control.ready();
    else if (this.#withheld) {
      this.#withheld = false;
      this.#receiver?.guardedReady();
    } else if (forward) this.#receiver?.serverReady(this.status);
  }

  #parameterStatus(forward: boolean): void {
    const { buffer, start, end } = this.#reader;
    const nameEnd = stringEnd(buffer, start + 5, end);
    const valueEnd = nameEnd < 0 ? -1 : stringEnd(buffer, nameEnd + 1, end);
    if (valueEnd < 0) throw new Error('malformed ParameterStatus');
    const name = buffer.toString('utf8', start + 5, nameEnd);
    const value = buffer.toString('utf8', nameEnd + 1, valueEnd);
    this.parameters = withParameter(this.parameters, name, value);
    if (forward && this.#receiver !== null) {
      this.#extendRun();
      this.#receiver.serverParameter(name, value);
    }
  }

  #tag(): void {
    const { buffer, start, end } = this.#reader;
    this.#receiver?.serverTag(buffer.toString('latin1', start + 5, end - 1));
  }

  #mismatch(): Error {
    const head = this.replies.head;
    const owedKind = head === null ? 'nothing' : Object.entries(Reply).find(([, kind]) => kind === head.kind)?.[0];
    return new Error(`unexpected message "${String.fromCharCode(this.#reader.type)}" while owing ${owedKind}`);
  }
}
