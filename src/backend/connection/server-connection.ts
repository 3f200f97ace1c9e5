// One logged-in connection to a Postgres server, as those who send on it see it. Owns its socket and its end, and shows what
// is known of its session state (settings, transaction status). It has at most one receiver at a time: whoever holds the
// lease. Invariant: a connection on which something did not fit is destroyed, and never handed on again.
// Parts: the replies it owes (reply-queue.ts), what is made of those that come (reply-matcher.ts, reply-forwarder.ts), and
// the statements prepared on it (prepared-statements.ts).
import type { Duplex } from 'node:stream';
import { PgkvError } from '../../base/errors.js';
import type { ErrorCounts } from '../../telemetry/counters.js';
import { EMPTY_PARSE, EMPTY_SELECT, encodeNamed, encodeQuery, SYNC, TERMINATE } from '../../wire/client-messages.js';
import { Output } from '../../wire/output.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import { untilReady } from '../replies/control-answers.js';
import type { Deeds } from '../replies/deeds.js';
import type { ReportedParameters } from '../replies/parameter-status.js';
import { type PreparedOnServer, PreparedStatements } from '../replies/prepared-statements.js';
import { ReplyForwarder } from '../replies/reply-forwarder.js';
import { type DeadlockVerdict, type MatchedConnection, ReplyMatcher } from '../replies/reply-matcher.js';
import {
  type Assumption,
  type ControlQuery,
  controlled,
  controlQuery,
  controlSync,
  describing,
  localReply,
  type Owed,
  Reply,
  ReplyQueue,
  swallowed,
} from '../replies/reply-queue.js';
import type { ReplyReceiver, ServerLoss } from '../replies/reply-receiver.js';
import { type StatementSource, unknownStatement } from '../replies/statement-source.js';
import type { ReadBuffer } from './server-socket.js';
import { changeSettings } from './settings-change.js';
import type { SettingsGroup } from './settings-group.js';

export { STATEMENT_NAME_PREFIX } from '../replies/prepared-statements.js';
export type { ReplyReceiver, ServerLoss } from '../replies/reply-receiver.js';

/** Messages that say a statement of a client once more: one Query, or else Parse, Bind, Execute and Sync. */
export interface Said {
  readonly isQuery: boolean;
  readonly bytes: Buffer;
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

export class ServerConnection implements MatchedConnection {
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
  /** Statements of pgkv's own, see PreparedStatements. */
  readonly prepared: ReadonlyMap<StatementSource, PreparedOnServer>;
  readonly orphans: ReadonlyMap<PreparedOnServer, StatementSource>;
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
  /** The receiver hears of tags (ReplyReceiver.serverTag); of errors before the client (guardedError). */
  watchTags = false;
  guarded = false;
  /** It is cancelled to end a deadlock over several shards, told with this detail instead of the cancel (R66). */
  deadlock: DeadlockVerdict | null = null;
  dead = false;
  /** Cancel requests under way for this connection; it must not change hands before they have landed. */
  cancelsUnderWay = 0;
  idleSince = 0;
  /** Who last ran a statement that may have drawn from a sequence. */
  sequenceOwner: ReplyReceiver | null = null;
  /** Why it is dead; empty while it is not. */
  endedBy = '';
  onClosed: ((connection: ServerConnection) => void) | null = null;

  readonly #stream: Duplex;
  readonly #statements: PreparedStatements;
  readonly #forwarder: ReplyForwarder;
  readonly #matcher: ReplyMatcher;

  constructor(options: ServerConnectionOptions) {
    this.#stream = options.stream;
    this.address = options.address;
    this.pid = options.pid;
    this.secretKey = options.secretKey;
    this.parameters = options.parameters;
    this.settings = options.settings;
    this.createdAt = options.createdAt;
    this.output = new Output(options.stream);
    this.#statements = new PreparedStatements(this.replies, this.output, options.preparedMax);
    this.prepared = this.#statements.bySource;
    this.orphans = this.#statements.orphans;
    this.#forwarder = new ReplyForwarder(options.readBuffer);
    this.#matcher = new ReplyMatcher(
      this,
      this.replies,
      this.#forwarder,
      this.#statements,
      options.errorCounts,
      options.messageBytesMax,
    );
    options.stream.on('data', (chunk: Buffer) => {
      this.bytesReceived += chunk.length;
      this.#matcher.received(chunk);
    });
    options.stream.on('drain', () => {
      this.output.drained();
      this.#forwarder.receiver?.serverPaused();
    });
    options.stream.on('error', (error: Error) =>
      this.destroy(`connection to ${this.address} failed: ${error.message}`, error),
    );
    options.stream.on('end', () => this.destroy(`server ${this.address} closed the connection`));
    options.stream.on('close', () => this.destroy(`connection to ${this.address} was closed`));
  }

  get receiver(): ReplyReceiver | null {
    return this.#forwarder.receiver;
  }

  /** Whether a message has been forwarded in part. */
  get midMessage(): boolean {
    return this.#matcher.midMessage;
  }

  /** Takes the connection (or gives it back with null). Only between leases. */
  attach(receiver: ReplyReceiver | null): void {
    this.#forwarder.receiver = receiver;
    this.settled();
    // The next session may have the same text under other settings.
    if (this.unnamed !== null) this.unnamed = unknownStatement;
    this.watchTags = false;
    this.guarded = false;
    this.deadlock = null;
  }

  /** The server session has these settings; custom ones, once defined, stay defined. */
  took(settings: SettingsGroup): void {
    this.settings = settings;
    for (const name of settings.placeholders) this.placeholders.add(name);
  }

  /**
   * Brings the server session to these settings; only at rest. True: it has them. False: `done` follows, with the server's
   * ErrorResponse where they could not be had: which ones hold then nobody knows, so the connection has to be closed.
   * @param first a statement of pgkv's own that goes before
   */
  bringTo(settings: SettingsGroup, done: (failure: Buffer | null) => void, first = ''): boolean {
    if (this.settings === settings && first === '') return true;
    const told = (failure: Buffer | null): void => {
      if (failure === null) this.took(settings);
      done(failure);
    };
    const holds = changeSettings(this, this.settings, settings, first, told);
    if (holds) this.took(settings);
    return holds;
  }

  /** Outside a transaction, owing nothing, nothing half sent. */
  get atRest(): boolean {
    return (
      this.replies.length === 0 && !this.replies.unsynced() && this.status === TransactionStatus.idle && !this.copyIn
    );
  }

  get isPaused(): boolean {
    return this.#stream.isPaused();
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  /** Sends a message for which the server owes an answer. Nobody but this file and prepared statements owes any otherwise. */
  send(bytes: Buffer, owed: Owed): void {
    this.output.push(bytes);
    this.replies.push(owed);
  }

  /** The same for several messages, with what is owed for each, in order. */
  sendAll(bytes: Buffer, owed: readonly Owed[]): void {
    this.output.push(bytes);
    for (const one of owed) this.replies.push(one);
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
   * Runs a statement of pgkv's own in front of those of a batch: whether a statement is the first between two Syncs decides
   * whether SET LOCAL warns, and whether VACUUM is refused. Only outside an open batch.
   */
  beginPipeline(): void {
    for (const kind of [Reply.parse, Reply.bind, Reply.execute, Reply.close]) this.replies.push(swallowed(kind));
    this.unnamed = unknownStatement;
    this.output.push(EMPTY_SELECT);
  }

  /** Starts a command of the open transaction, where none is and what follows would start none: see ReplyQueue.isStopped. */
  restart(): void {
    if (!this.replies.isStopped) return;
    this.unnamed = unknownStatement;
    this.send(EMPTY_PARSE, swallowed(Reply.parse));
  }

  /** Ends the open batch, if there is one. */
  sync(bytes: Buffer, owed: Owed): void {
    this.restart();
    this.send(bytes, owed);
  }

  /** Says a statement of the client again, whose answer it has had; see sendControl. */
  sayAgain({ isQuery, bytes }: Said, control: ControlQuery): void {
    const { replies } = this;
    if (!isQuery) for (const kind of [Reply.parse, Reply.bind, Reply.execute]) replies.push(controlled(kind, control));
    replies.push(isQuery ? controlQuery(control) : controlSync(control));
    this.unnamed = isQuery ? null : unknownStatement;
    this.output.push(bytes);
  }

  /**
   * Asks what shape the result of a statement has at present; only outside an open batch, when nothing is owed.
   * @param done gets null where the server refuses to say
   */
  askShape(source: StatementSource, semantics: string, done: (shape: string | null) => void): void {
    let shape: string | null = null;
    this.#matcher.quiet = true;
    const name = this.prepare(source, semantics);
    this.output.push(encodeNamed(Frontend.describe, 'S', name));
    this.replies.push(
      describing(true, (told) => {
        shape = told;
      }),
    );
    this.output.push(SYNC);
    this.replies.push(
      controlSync(
        untilReady(() => {
          this.#matcher.quiet = false;
          done(shape);
        }),
      ),
    );
    this.output.flush();
  }

  /** Ends an open batch with a Sync of our own. `done` hears whether an error of the batch was forwarded. */
  endBatchQuietly(done: (errorTold: boolean) => void): void {
    this.sync(
      SYNC,
      controlSync(
        untilReady(() => {
          const { told } = this.#matcher;
          this.#matcher.told = false;
          done(told);
        }),
      ),
    );
    this.output.flush();
  }

  /** Sends the client bytes of our own when the replies owed before them have gone out. */
  replyLocally(bytes: Buffer, assumption: Assumption | null): void {
    if (this.replies.length > 0 || this.replies.skipping) this.replies.push(localReply(bytes, assumption));
    else this.#forwarder.receiver?.serverBytes(bytes);
  }

  // The statements of pgkv's own that are prepared here: each member is described where PreparedStatements has it.

  unsettle(): void {
    this.#statements.unsettle();
  }

  settled(): void {
    this.#statements.settled();
  }

  schemaChanged(epoch: number): void {
    this.#statements.schemaChanged(epoch);
  }

  get parsing(): boolean {
    return this.#statements.parsing;
  }

  dependsOnParse(source: StatementSource): boolean {
    return this.#statements.dependsOnParse(source);
  }

  isPrepared(source: StatementSource, semantics: string): boolean {
    return this.#statements.isPrepared(source, semantics);
  }

  prepare(source: StatementSource, semantics: string, since = 0): string {
    return this.#statements.prepare(source, semantics, since);
  }

  parse(source: StatementSource, semantics: string, swallow: boolean, assumed?: Assumption, does?: Deeds): string {
    return this.#statements.parse(source, semantics, swallow, assumed, does);
  }

  forget(source: StatementSource): void {
    this.#statements.forget(source);
  }

  forgetAllPrepared(): void {
    this.#statements.forgetAll();
  }

  dropPrepared(source: StatementSource): PreparedOnServer | undefined {
    return this.#statements.drop(source);
  }

  putBackPrepared(source: StatementSource, known: PreparedOnServer): void {
    this.#statements.putBack(source, known);
  }

  closeForsaken(): boolean {
    return this.#statements.closeForsaken();
  }

  /** Ends an orderly, unused connection. */
  terminate(): void {
    if (this.dead) return;
    this.output.push(TERMINATE);
    this.output.flush();
    this.#stream.end();
    this.destroy('closed by pgkv');
  }

  /** Idempotent. Tells the receiver, then the pool. @param refusal see ServerLoss */
  destroy(reason: string, cause?: unknown, refusal: Buffer | null = null): void {
    if (this.dead) return;
    this.dead = true;
    this.endedBy = reason;
    const sent = this.replies.length > 0 || this.replies.unsynced();
    const loss: ServerLoss = {
      error: new PgkvError(sent ? 'outcome_unknown' : 'server_unreachable', { detail: reason, cause }),
      last: this.#matcher.fatal,
      refusal,
      owedReadies: this.replies.owedReadies(),
      owed: this.replies.owedToClient(),
      done: { ...this.replies.done },
      unsynced: this.replies.unsynced(),
      told: this.#matcher.told,
      midMessage: this.midMessage,
      status: this.status,
      parametersOutside: this.#matcher.parametersOutside,
    };
    this.#forwarder.flush();
    this.#stream.destroy();
    const { receiver } = this.#forwarder;
    this.#forwarder.receiver = null;
    this.replies.clear();
    this.onClosed?.(this);
    receiver?.serverLost(loss);
  }
}
