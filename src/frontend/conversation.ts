// One client's conversation after login: takes its messages in order, finds out what each is, and passes it on through
// the session's lane. Owns the order of things on the client's side; the only state beside the session is what the
// protocol itself has (skipping to Sync, a lost transaction).

import { isUtf8 } from 'node:buffer';
import { forwarded, provokedError, queryOf, Reply, swallowed } from '../backend/reply-queue.js';
import { type ServerLoss, STATEMENT_NAME_PREFIX } from '../backend/server-connection.js';
import {
  type ReadTemplate,
  type RewrittenText,
  rewrittenText,
  type StatementSource,
  type StatementSources,
  templateIn,
  unknownStatement,
} from '../backend/statement-source.js';
import { assert } from '../base/assert.js';
import type { Clock } from '../base/clock.js';
import { messageOf, PgkvError } from '../base/errors.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import type { ClientPort, LeasedLane } from '../execute/leased-lane.js';
import type { SessionLanes } from '../execute/session-lanes.js';
import { namesOwnStatements, replaceStatementNames } from '../execute/statement-names.js';
import type { Session } from '../session/session.js';
import { heldBeginTag, plainEndTag, TransactionBlock } from '../session/transaction-block.js';
import type { KvRefused } from '../sql/kv-plan.js';
import { Effect, NEUTRAL_TEMPLATE, type Template, UNPARSED_TEMPLATE } from '../sql/template.js';
import type { Counters } from '../telemetry/counters.js';
import { encodeParse, encodeQuery, SYNC } from '../wire/client-messages.js';
import { Frame, type FrameReader } from '../wire/frame-reader.js';
import type { Output } from '../wire/output.js';
import { Frontend, TransactionStatus } from '../wire/protocol.js';
import {
  encodeCommandComplete,
  encodeError,
  encodeTextRow,
  encodeTextRowDescription,
  READY_FAILED,
  READY_IDLE,
  READY_IN_BLOCK,
} from '../wire/server-messages.js';
import { batchAhead } from './batch-ahead.js';
import { ExtendedProtocol } from './extended-protocol.js';
import { type KvStatement, KvStatements, refusal } from './kv-statements.js';
import { LostTransaction } from './lost-transaction.js';
import { type MergedServices, MergedStatements } from './merged-statements.js';
import type { ProtocolTap } from './protocol-tap.js';
import { type Placement, ShardPlacement } from './shard-placement.js';
import { ShardReads } from './shard-reads.js';
import { scanSingleBatch } from './single-batch.js';

/** What a conversation needs of the connection it runs on. */
export interface ConversationHost {
  readonly output: Output;
  /** Closes the connection after what was written has gone out. */
  close(): void;
  /** Closes it at once. */
  destroy(): void;
  pauseReading(): void;
  resumeReading(): void;
}

export interface ConversationServices {
  readonly clock: Clock;
  readonly sources: StatementSources;
  readonly templateOf: ReadTemplate;
  /** Literals of a text, under its reading of backslashes; cheap right after `templateOf`. */
  literalsOf(text: string, standardStrings: boolean): readonly number[];
  /** The map in force. */
  view(): ClusterView;
  /** The answer to `SHOW pgkv.<name>`, or null where there is no such thing. */
  show(name: string): string | null;
  readonly counters: Counters;
  readonly bufferBytesMax: number;
  readonly statementBytesMax: number;
  /** What writes down this session's messages, null where it is not traced. */
  tapFor(session: Session): ProtocolTap | null;
}

/** Owed replies at which a pipelining client has to wait for some of them. */
const PIPELINE_MAX = 10_000;
const EMPTY_MESSAGE_BYTES = 5;
const ASIDE_BYTES_MAX = 1024 * 1024;
/** No statement: the server answers it with an error, which is replaced by the one that pgkv has. */
const NO_STATEMENT = encodeQuery('pgkv refuses');

/** Of a Bind that a server refuses, for an error of pgkv's own in its place. */
const BIND_OF_NOTHING = bindOf(`${STATEMENT_NAME_PREFIX}nothing`);
const ON_HOME = 'the statement is for the home shard';
/** OIDs from here on are functions of users (FirstNormalObjectId). */
const USER_OID_MIN = 16_384;

function bindOf(statement: string): Buffer {
  const message = Buffer.alloc(13 + statement.length);
  message[0] = Frontend.bind;
  message.writeInt32BE(message.length - 1, 1);
  message.write(statement, 6, 'latin1');
  return message;
}

/** OID in a FunctionCall message; 0 where it is cut short. */
const functionOf = ({ buffer, start, end }: FrameReader): number =>
  start + 9 <= end ? buffer.readUInt32BE(start + 5) : 0;

/** Whether statements prepared at the protocol level may be gone behind it. */
const dropsStatements = ({ effects, statementNames }: Template): boolean =>
  (effects & Effect.deallocatesAll) !== 0 || statementNames.some(({ verb }) => verb === 'deallocate');

const INVALID_FORMAT = encodeError(new PgkvError('protocol_violation', { message: 'invalid message format' }), 'ERROR');

/** Whether texts behind it may have to be read in another encoding, or with another meaning of backslashes. */
const mayChangeReading = ({ effects, settingNames }: Template): boolean =>
  (effects & Effect.unknown) !== 0 ||
  settingNames.some((name) => name === '*' || name === 'client_encoding' || name === 'standard_conforming_strings');

export class Conversation implements ClientPort {
  readonly session: Session;
  lastActivity: number;
  lanes!: SessionLanes;
  /** Statements on key-value tables. */
  readonly kv: KvStatements;
  readonly #block = new TransactionBlock();
  #placement!: ShardPlacement;
  #reads!: ShardReads;
  #merged: MergedStatements | null = null;
  /** The statement at hand was given back by the merged lane, and runs on a lease. */
  #unmerged = false;
  /** Bytes of the messages that the merged lane is answering. */
  #mergedBytes = 0;
  readonly #host: ConversationHost;
  readonly #services: ConversationServices;
  readonly #reader: FrameReader;
  readonly #extended: ExtendedProtocol;
  readonly #tap: ProtocolTap | null;
  /** An error was sent in the extended protocol without a server: everything up to Sync is ignored. */
  #skipping = false;
  #lost: LostTransaction | null = null;
  /** The client has said goodbye or closed its side: what it sent before is still answered. */
  #ended = false;
  #terminated = false;
  /** What was sent may change how texts are to be read: those behind it wait for its answer. */
  #readsTextAnew = false;
  /** What the Bind behind the Parse at hand binds belongs to the lane that the Parse was given. */
  #bindIsPlaced = true;
  /** The error that ends the session, behind the answers that are still to come. */
  #lastWords: Buffer | null = null;
  #closed = false;
  #paused = false;
  #pumping = false;
  /** Set by `refused` when the lane cannot serve the message being handled. */
  #refusal: Buffer | null = null;
  /** The message `ensure` said no to was answered with an error; else it was put back. */
  #wasAnswered = false;
  /** A single batch that may have to be sent again, and its statement. */
  #repeatable: Buffer | null = null;
  #repeatSource: StatementSource | null = null;
  #deallocated: string[] = [];
  /** Messages of other lanes that came in the middle of an answer. */
  readonly #aside: Buffer[] = [];
  #asideBytes = 0;

  /** @param startSearchPath of the client's start-up packet */
  constructor(
    host: ConversationHost,
    services: ConversationServices,
    session: Session,
    reader: FrameReader,
    startSearchPath: string | null,
  ) {
    this.#host = host;
    this.#services = services;
    this.session = session;
    this.#reader = reader;
    this.kv = new KvStatements(session, services, startSearchPath);
    this.#extended = new ExtendedProtocol(session, services, this.kv, () => this.lanes.home.schemaEpoch);
    this.#tap = services.tapFor(session);
    this.lastActivity = services.clock.now();
  }

  /** Before the first message. */
  useLanes(lanes: SessionLanes, merged: MergedServices | null): void {
    this.lanes = lanes;
    if (merged !== null) {
      const host = { answered: (answer: Buffer) => this.#mergedAnswer(answer), rerun: () => this.#mergedRerun() };
      this.#merged = new MergedStatements(host, this.session, merged, this.kv, this.#extended);
    }
    this.#placement = new ShardPlacement(lanes, this.#block);
    this.#reads = new ShardReads(
      {
        send: (bytes) => this.#toClient(bytes),
        flush: () => this.flush(),
        clogged: () => this.clogged,
        resume: () => this.resume(),
        failed: () => this.#failedLocally(),
        skip: this.#skip,
        ready: () => this.#ready,
      },
      {
        session: this.session,
        lanes,
        kv: this.kv,
        clock: this.#services.clock,
        sources: this.#services.sources,
        merges: merged !== null,
      },
    );
  }

  /** The lane whose answers the client gets at present. */
  get lane(): LeasedLane {
    return this.lanes.current;
  }

  get clogged(): boolean {
    return this.#host.output.blocked;
  }

  get holdsBytes(): boolean {
    return this.#tap !== null || this.#host.output.holdsBytes;
  }

  /** Bytes from the client. */
  received(chunk: Buffer): void {
    this.lastActivity = this.#services.clock.now();
    this.#tap?.fromClient(chunk);
    this.#reader.push(chunk);
    this.#pump();
  }

  /** The client has closed its side of the connection. */
  clientEnded(): void {
    this.#ended = true;
    this.#pump();
  }

  /** The connection to the client is gone. */
  clientGone(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reads.abandon();
    this.#merged?.abandon();
    this.lanes.end();
  }

  /** CancelRequest from the client. */
  cancel(): void {
    if (this.#merged?.busy === true) this.#merged.cancel();
    else if (!this.#reads.cancel()) this.lane.cancel();
  }

  send(bytes: Buffer, lane: LeasedLane): void {
    // What a lane at rest has to say (a notification, a notice) comes between messages of the current one, not inside.
    if (lane !== this.lane && this.lane.connection !== null && this.lane.connection.replies.length > 0) {
      this.#asideBytes += bytes.length;
      if (this.#asideBytes > ASIDE_BYTES_MAX) {
        this.terminate(new PgkvError('limit_exceeded', { detail: 'too many notifications beside one long answer' }));
        return;
      }
      this.#aside.push(Buffer.from(bytes));
      return;
    }
    this.#toClient(bytes);
  }

  #toClient(bytes: Buffer): void {
    this.#tap?.toClient(bytes);
    this.#host.output.push(bytes);
  }

  #sendAside(): void {
    for (const bytes of this.#aside) this.#toClient(bytes);
    this.#aside.length = 0;
    this.#asideBytes = 0;
  }

  flush(): void {
    this.#host.output.flush();
  }

  clientDrained(): void {
    this.lanes.clientDrained();
    this.#reads.clientDrained();
    this.#pump();
  }

  resume(): void {
    if (this.lane.mode === 'free') {
      // Before the next message is taken, which may be a transaction.
      this.#merged?.rerunEnded();
      this.#repeatable = null;
      // A DEALLOCATE that failed drops nothing.
      this.#deallocated.length = 0;
    }
    if (this.#aside.length > 0 && (this.lane.connection?.replies.length ?? 0) === 0) this.#sendAside();
    if (!this.#pumping) this.#pump();
  }

  refused(error: PgkvError, message: Buffer | null): void {
    const refusal =
      message !== null && message[0] === 0x45 && error.errorName === 'internal' ? message : encodeError(error, 'ERROR');
    if (this.#pumping) {
      this.#refusal = refusal;
      return;
    }
    // The message that waited was put back: take it up again and answer it.
    if (this.#reader.next() === Frame.none) return;
    this.#answerWithError(this.#reader.type, refusal);
    this.#pump();
  }

  tag(tag: string): void {
    if (tag === 'DEALLOCATE') {
      const name = this.#deallocated.shift();
      if (name !== undefined) this.#extended.deallocated(name, this.lane.connection!);
    } else if (tag === 'DEALLOCATE ALL' || tag === 'DISCARD ALL') this.#deallocated = [];
  }

  repeat(): void {
    const bytes = this.#repeatable;
    const source = this.#repeatSource;
    const { connection } = this.lane;
    this.#repeatable = null;
    assert(bytes !== null && source !== null && connection !== null, 'only a batch that was kept is repeated');
    connection.forget(source);
    this.#extended.sendBatch(bytes, scanSingleBatch(bytes, 0)!, source, connection);
    connection.output.flush();
  }

  lost(loss: ServerLoss, hadState: boolean, lane: LeasedLane): void {
    // A lane at rest has lost no answer.
    if (lane !== this.lane && !hadState) return;
    if (loss.midMessage) {
      this.#host.destroy();
      return;
    }
    if (loss.last !== null || hadState) {
      const detail = `${loss.error.detail ?? ''}; the session had state on that connection`;
      this.#toClient(loss.last ?? encodeError(new PgkvError(loss.error.errorName, { detail }), 'FATAL'));
      this.#finish();
      return;
    }
    const inTransaction = loss.status !== TransactionStatus.idle;
    if (loss.owedReadies === 0 && !loss.unsynced) {
      if (inTransaction) this.#lost = new LostTransaction(loss.status === TransactionStatus.failed);
      this.resume();
      return;
    }
    const certain = inTransaction && !this.lane.mayHaveCommitted;
    const name = certain ? 'transaction_lost' : this.lane.readOnly ? 'server_unreachable' : 'outcome_unknown';
    const { detail } = loss.error;
    const error = encodeError(new PgkvError(name, detail === undefined ? {} : { detail }), 'ERROR');
    if (certain) this.#lost = new LostTransaction(true);
    // The client has had its error already for the first batch that waits, or for the one it is sending.
    let told = loss.told;
    const tell = (): void => {
      if (!told) {
        this.#toClient(error);
        // Whether it was parsed before the loss, nobody knows.
        this.session.unnamed.set(null);
      }
      told = false;
    };
    for (let owed = loss.owedReadies; owed > 0; owed--) {
      tell();
      this.#toClient(certain ? READY_FAILED : READY_IDLE);
    }
    if (loss.unsynced) {
      tell();
      this.#skipping = true;
    }
    this.flush();
    this.resume();
  }

  /** Ends the session with an error of ours, if the protocol still allows one. */
  terminate(error: PgkvError): void {
    if (this.#closed) return;
    if (this.lane.connection === null || this.lane.connection.replies.length === 0) {
      this.#toClient(encodeError(error, 'FATAL'));
    }
    this.#finish();
  }

  #finish(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.output.flush();
    this.#reads.abandon();
    this.#merged?.abandon();
    this.lanes.end();
    this.#host.close();
  }

  /** Takes messages as long as the lane takes them. */
  #pump(): void {
    if (this.#closed || this.#pumping) return;
    this.#pumping = true;
    let blocked: boolean;
    try {
      blocked = this.#takeMessages();
    } catch (error) {
      this.#pumping = false;
      this.#violation(error);
      // What was sent before the violation is still to be answered.
      this.lane.connection?.output.flush();
      return;
    }
    this.#pumping = false;
    this.#extended.forgetMessages();
    this.lane.connection?.output.flush();
    if (this.#closed) return;
    if (this.lane.mode === 'free') this.#merged?.rerunEnded();
    this.flush();
    // A message that is not whole yet needs more bytes, however many are there; only what waits for others is held back.
    const tooMuch = blocked && this.#reader.bufferedBytes > this.#services.bufferBytesMax;
    if (tooMuch !== this.#paused) {
      this.#paused = tooMuch;
      if (tooMuch) this.#host.pauseReading();
      else this.#host.resumeReading();
    }
  }

  /** Returns whether messages may be left that have to wait for a connection, a server or the client. */
  #takeMessages(): boolean {
    const reader = this.#reader;
    while (!this.#closed) {
      const { lane } = this;
      if (lane.mode === 'waiting' || lane.mode === 'preparing' || this.clogged || this.#reads.busy) return true;
      if (this.#merged?.busy === true) return true;
      const { connection } = lane;
      if (connection !== null) {
        // What is sent behind a guarded batch would be answered before its repetition.
        if (connection.guarded) return true;
        if (connection.output.blocked || connection.replies.length >= PIPELINE_MAX) return true;
      }
      if (this.#readsTextAnew && connection !== null && connection.replies.length > 0) {
        // Without a Sync the answers would not come: a batch is read as it began.
        if (!connection.replies.unsynced()) return true;
      } else this.#readsTextAnew = false;
      const found = this.#terminated ? Frame.none : reader.next();
      if (found === Frame.none) {
        if (this.#ended) this.#endIfAnswered();
        return false;
      }
      if (!this.#take(found)) return true;
    }
    return false;
  }

  /** The client sends no more: ends the session once everything that can be answered has been. */
  #endIfAnswered(): void {
    const { connection } = this.lane;
    const answersToCome = connection !== null && connection.replies.length > 0 && !connection.replies.unsynced();
    // A copy whose client has gone never ends by itself.
    if (answersToCome && !connection.copyIn) return;
    if (this.#lastWords !== null) this.#toClient(this.#lastWords);
    this.#finish();
  }

  /** Handles the message found. False: it was put back, the lane calls `resume`. */
  #take(found: number): boolean {
    const reader = this.#reader;
    const { type } = reader;
    if (type === Frontend.copyData || type === Frontend.copyDone || type === Frontend.copyFail) {
      this.#copy(type, found);
      return true;
    }
    if (type === Frontend.terminate) {
      this.#ended = this.#terminated = true;
      return true;
    }
    if (type === Frontend.sync) {
      this.#sync();
      return true;
    }
    if (this.#skipping) return true;
    // A simple query ends the unnamed statement, here as in Postgres, whatever becomes of the query.
    if (type === Frontend.query) this.session.unnamed.set(null);
    if (this.#lost !== null) {
      this.#answerLost(type);
      return true;
    }
    switch (type) {
      case Frontend.query:
        return this.#query();
      case Frontend.functionCall:
        return this.#functionCall();
      case Frontend.flush:
        this.#flushMessage();
        return true;
      default:
        return this.#extendedMessage(type);
    }
  }

  #query(): boolean {
    const reader = this.#reader;
    const { buffer, start, end } = reader;
    const textEnd = buffer.indexOf(0, start + 5);
    const wellFormed = textEnd === end - 1;
    const text = wellFormed ? buffer.toString('utf8', start + 5, textEnd) : '';
    // What is no UTF-8 is not rewritten: decoding would change it, and the server has to say that it is invalid.
    const readable = !this.kv.exist || !wellFormed || isUtf8(buffer.subarray(start + 5, textEnd));
    const template = !wellFormed ? NEUTRAL_TEMPLATE : readable ? this.#template(text) : UNPARSED_TEMPLATE;
    if (template.showName?.startsWith('pgkv.') && this.lane.mode === 'free') {
      const value = this.#services.show(template.showName.slice(5));
      if (value !== null) {
        this.#answerShow(template.showName, value);
        return true;
      }
    }
    let rewritten: RewrittenText | null = null;
    if (this.kv.exist) {
      if (this.#answerBlock(template, text)) return true;
      const placed = this.#placeQuery(template, text);
      if (placed === 'answered') return true;
      if (placed === 'wait') {
        reader.unread();
        return false;
      }
      rewritten = placed;
    }
    const { lane } = this;
    const holder = lane.connection;
    if (template.statementNames.length > 0 && holder !== null && holder.replies.length > 0) {
      // What the names stand for may depend on answers to come. Without a Sync they would not come before this.
      if (!holder.replies.unsynced()) {
        reader.unread();
        return false;
      }
    }
    if (!this.#ensure(template)) return this.#wasAnswered;
    const connection = lane.connection!;
    this.#noteBlock(template, text);
    lane.note(template, text);
    this.#services.counters.statements++;
    connection.unnamed = null;
    if (rewritten !== null) {
      connection.output.push(encodeQuery(rewrittenText(rewritten)));
      connection.replies.push(queryOf(rewritten));
      return true;
    }
    const failed = connection.status === TransactionStatus.failed;
    if (template.statementNames.length > 0 && !failed && namesOwnStatements(template, this.session)) {
      connection.watchTags = true;
      const replaced = replaceStatementNames(text, template, this.session, connection, this.#deallocated);
      connection.output.push(encodeQuery(replaced));
    } else connection.output.push(buffer.subarray(start, end));
    connection.replies.push(forwarded(Reply.query));
    if (dropsStatements(template)) this.#extended.dropsNames(connection);
    if (mayChangeReading(template)) this.#readsTextAnew = true;
    return true;
  }

  /** BEGIN is held back until it is known which shard it is for; a block that no server knows of is ended here. */
  #answerBlock(template: Template, text: string): boolean {
    const block = this.#block;
    let tag: string | null = null;
    if (template.kind === 'begin' && !block.held && !this.lane.busy && this.kv.view.shards.length > 1) {
      tag = heldBeginTag(text);
      if (tag !== null) block.begin(template, text, true);
    } else if (block.held && (template.kind === 'commit' || template.kind === 'rollback')) {
      tag = plainEndTag(text);
      if (tag !== null) block.bind();
      this.#reads.sync(false);
    }
    if (tag === null) return false;
    this.#toClient(encodeCommandComplete(tag));
    this.#toClient(this.#ready);
    return true;
  }

  /** Finds the shard of a simple query. Not `wait` nor `answered`: it is to be sent on the current lane, rewritten or not. */
  #placeQuery(template: Template, text: string): RewrittenText | null | 'wait' | 'answered' {
    const placement = this.#placement;
    const { kv } = template;
    if (placement.blockFailed) return null;
    if (template.explainsRoute) {
      const settled = placement.settle('', this.#skip);
      if (settled === 'wait') return 'wait';
      this.#reads.explainRoute(template, kv?.kind === 'kv' ? this.kv.simple(kv, text) : null);
      return 'answered';
    }
    if (kv === null) return this.#moved(placement.move(placement.laneFor(template), ON_HOME, this.#skip), null);
    if (kv.kind === 'refused' && kv.asksServer === true) return this.#askServer(kv, text);
    if (kv.kind === 'refused') return this.#refuse(Frontend.query, refusal(kv));
    const statement = this.kv.simple(kv, text);
    const route = this.kv.route(statement);
    if (route.kind === 'refused') return this.#refuse(Frontend.query, refusal(route));
    if (route.kind === 'keyed') {
      if (this.#mayMerge && this.#merged!.offerQuery(statement, template, route)) {
        this.#mergedBytes = this.#reader.end - this.#reader.start;
        return 'wait';
      }
      const target = this.lanes.of(route.shard);
      const why = `the statement's key is on shard ${route.shard.name}`;
      return this.#moved(placement.move(target, why, this.#skip), this.kv.rewrite(statement));
    }
    const obstacle = placement.settle('the statement reads several shards', this.#skip) ?? placement.mayScatter();
    if (obstacle === 'wait') return 'wait';
    if (obstacle !== null) return this.#refuse(Frontend.query, obstacle);
    this.#services.counters.statements++;
    this.#reads.query(statement, route.shards);
    return 'answered';
  }

  /** Whether the statement at hand stands for itself: outside blocks and batches, with nothing owed and nothing kept. */
  get #mayMerge(): boolean {
    if (this.#merged === null || this.#unmerged || this.#block.held) return false;
    return this.lane.unused && !this.#placement.batchOpen;
  }

  #mergedAnswer(answer: Buffer): void {
    const reader = this.#reader;
    // It was put back when it was offered.
    if (this.#closed || reader.next() === Frame.none) return;
    reader.skipTo(reader.start + this.#mergedBytes);
    this.#services.counters.statements++;
    this.#toClient(answer);
    this.#pump();
  }

  #mergedRerun(): void {
    this.#unmerged = true;
    this.#pump();
  }

  /** Has the home server parse a text that pgkv could not, and nothing more: its error is the answer, else the refusal. */
  #askServer(refused: KvRefused, text: string): 'wait' | 'answered' {
    const placed = this.#placement.move(this.lanes.home, ON_HOME, this.#skip);
    if (placed === 'wait') return 'wait';
    if (placed !== 'ready') return this.#refuse(Frontend.query, placed);
    if (!this.#ensure(NEUTRAL_TEMPLATE)) return this.#wasAnswered ? 'answered' : 'wait';
    this.#noteBlock(NEUTRAL_TEMPLATE, '');
    const connection = this.lane.connection!;
    connection.unnamed = unknownStatement;
    connection.output.push(encodeParse('', Buffer.from(`${text}\0\0\0`, 'utf8')));
    connection.replies.push(swallowed(Reply.parse));
    connection.output.push(BIND_OF_NOTHING);
    connection.replies.push(provokedError(Reply.bind, encodeError(refusal(refused), 'ERROR')));
    connection.output.push(SYNC);
    connection.replies.push(forwarded(Reply.sync));
    return 'answered';
  }

  #moved(placement: Placement, rewritten: RewrittenText | null): RewrittenText | null | 'wait' | 'answered' {
    if (placement === 'wait') return 'wait';
    return placement === 'ready' ? rewritten : this.#refuse(Frontend.query, placement);
  }

  /** What is left of the open batch is not to be looked at: an error of it has been told. */
  readonly #skip = (): void => {
    this.#skipping = true;
  };

  /** Answers the message at hand with an error, which aborts what a server's error would abort. */
  #refuse(type: number, error: PgkvError | Buffer): 'answered' {
    const bytes = Buffer.isBuffer(error) ? error : encodeError(error, 'ERROR');
    this.#unmerged = false;
    const { connection } = this.lane;
    if (connection === null || this.lane.mode !== 'leased') {
      this.#answerWithError(type, bytes);
      return 'answered';
    }
    if (type === Frontend.query) {
      connection.unnamed = null;
      connection.output.push(NO_STATEMENT);
      connection.replies.push(provokedError(Reply.query, bytes));
    } else {
      connection.output.push(BIND_OF_NOTHING);
      connection.replies.push(provokedError(Reply.bind, bytes));
    }
    return 'answered';
  }

  /** A statement is about to be sent on the current lane: opens the held block there, and keeps what moves with it. */
  #noteBlock(template: Template, text: string): void {
    if (!this.kv.exist) return;
    this.#unmerged = false;
    const block = this.#block;
    if (block.held) {
      this.lane.openBlock(block.prologue);
      block.held = false;
    } else if (!this.lane.busy) block.bind();
    if (template.kind === 'begin') {
      if (!block.movable) block.begin(template, text, false);
    } else if (template.leavesBlock !== null || template.kind === 'multi') {
      block.bind();
      this.#reads.sync(false);
    } else block.note(template, text);
  }

  #functionCall(): boolean {
    // Which function it calls, and with which key, is not known here.
    if (this.kv.exist && functionOf(this.#reader) >= USER_OID_MIN) {
      const hint = 'Call it by SELECT.';
      return this.#refuse(Frontend.functionCall, new PgkvError('unsupported', { hint })) === 'answered';
    }
    if (this.kv.exist) {
      const placed = this.#placement.move(this.lane.busy ? this.lane : this.lanes.home, ON_HOME, this.#skip);
      if (placed === 'wait') {
        this.#reader.unread();
        return false;
      }
    }
    if (!this.#ensure(UNPARSED_TEMPLATE)) return this.#wasAnswered;
    const { buffer, start, end } = this.#reader;
    const connection = this.lane.connection!;
    this.#noteBlock(UNPARSED_TEMPLATE, '');
    this.lane.note(UNPARSED_TEMPLATE, '');
    connection.output.push(buffer.subarray(start, end));
    connection.replies.push(forwarded(Reply.functionCall));
    return true;
  }

  #extendedMessage(type: number): boolean {
    const reader = this.#reader;
    if (type === Frontend.bind && this.#settleDescription()) return this.#wasAnswered;
    if (this.kv.exist) {
      if (this.#offerBatch(type)) {
        reader.unread();
        return false;
      }
      const placed = this.#placeExtended(type);
      if (placed === 'answered') return true;
      if (placed === 'wait') {
        reader.unread();
        return false;
      }
    }
    const { lane } = this;
    const isPlaced = type === Frontend.bind || (type === Frontend.parse && this.#bindIsPlaced);
    if (isPlaced && !lane.busy && !this.#block.held) {
      const batch = scanSingleBatch(reader.buffer, reader.start);
      // With more behind it the batch is not on its own: see `guarded` in #takeMessages.
      const alone = batch !== null && batch.end === reader.buffer.length;
      const source = alone ? this.#extended.batchSource(reader.buffer, batch) : null;
      if (batch !== null && source !== null) {
        const { start } = reader;
        const { end } = batch;
        if (!this.#ensure(source.template)) return this.#wasAnswered;
        lane.note(source.template, source.text);
        this.#services.counters.statements++;
        this.#repeatable = reader.buffer.subarray(start, end);
        this.#repeatSource = source;
        this.#unmerged = false;
        lane.connection!.guarded = true;
        lane.shapeIsTold = batch.parses || batch.describes;
        this.#extended.sendBatch(reader.buffer, batch, source, lane.connection!);
        reader.skipTo(end);
        return true;
      }
    }
    const { connection } = lane;
    const { buffer, start, end } = reader;
    if (connection !== null && this.#extended.dependsOnAnswers(type, buffer, start, end, connection)) {
      reader.unread();
      return false;
    }
    const source = this.#extended.namedSource(type, buffer, start, end);
    const template = source === null ? NEUTRAL_TEMPLATE : source.template;
    if (!this.#ensure(template)) return this.#wasAnswered;
    if (this.kv.exist) {
      this.#noteBlock(type === Frontend.bind ? template : NEUTRAL_TEMPLATE, source === null ? '' : source.text);
      if (type === Frontend.bind) this.#placement.note(template);
    }
    if (type === Frontend.parse) lane.foresee(template);
    if (type === Frontend.bind) {
      lane.note(template, source === null ? '' : source.text);
      this.#services.counters.statements++;
      if (template.statementNames.length > 0) lane.connection!.watchTags = true;
    }
    this.#extended.forward(type, buffer, start, end, lane.connection!, this.#deallocated);
    if (type === Frontend.bind && mayChangeReading(template)) this.#readsTextAnew = true;
    if (type === Frontend.bind && dropsStatements(template)) this.#extended.dropsNames(lane.connection!);
    return true;
  }

  /** Gives a batch of one statement on one key, seen before, to the merged lane; the usual case under load. */
  #offerBatch(type: number): boolean {
    if ((type !== Frontend.parse && type !== Frontend.bind) || !this.#mayMerge) return false;
    const { buffer, start } = this.#reader;
    this.#mergedBytes = this.#merged!.offer(buffer, start);
    return this.#mergedBytes > 0;
  }

  /** Finds the lane of a message of the extended protocol. */
  #placeExtended(type: number): 'ready' | 'wait' | 'answered' {
    const placement = this.#placement;
    const { buffer, start, end } = this.#reader;
    if (placement.blockFailed) return 'ready';
    if (this.#reads.take(type, buffer, start, end)) return 'answered';
    if (type !== Frontend.parse && type !== Frontend.bind) {
      if (this.lane.connection !== null) return 'ready';
      return placement.move(this.lanes.home, ON_HOME, this.#skip) === 'ready' ? 'ready' : 'wait';
    }
    const source = this.#extended.namedSource(type, buffer, start, end);
    const template = source === null ? NEUTRAL_TEMPLATE : source.template;
    const { kv } = template;
    if (template.explainsRoute) {
      const hint = 'Send EXPLAIN (ROUTE) as a simple query.';
      return this.#refuse(type, new PgkvError('unsupported', { hint }));
    }
    if (kv?.kind === 'refused' && !(kv.asksServer === true && type === Frontend.parse)) {
      return this.#refuse(type, refusal(kv));
    }
    if (type === Frontend.parse) {
      this.#bindIsPlaced = true;
      const lane = this.#laneForParse(template, kv !== null);
      const placed = placement.move(lane, ON_HOME, this.#skip);
      return placed === 'ready' || placed === 'wait' ? placed : this.#refuse(type, placed);
    }
    if (kv === null || kv.kind === 'refused' || source === null) {
      const placed = placement.move(this.#laneForParse(template, false), ON_HOME, this.#skip);
      return placed === 'ready' || placed === 'wait' ? placed : this.#refuse(type, placed);
    }
    return this.#placeBind(this.kv.bound(kv, source, buffer, start, end));
  }

  /** A batch begins where its first key is, as far as it has arrived. */
  #laneForParse(template: Template, isKv: boolean): LeasedLane {
    const placement = this.#placement;
    if (placement.batchOpen && isKv) return this.lane;
    if (!placement.batchOpen && (isKv || template.neutral || template.kind === 'begin')) {
      const shard = batchAhead(this.#reader.buffer, this.#reader.start, this.#extended, this.kv);
      if (shard !== null) return this.lanes.of(shard);
      this.#bindIsPlaced = !isKv;
      if (isKv) return placement.inBlock ? this.lane : this.lanes.home;
    }
    return placement.laneFor(template);
  }

  #placeBind(statement: KvStatement): 'ready' | 'wait' | 'answered' {
    const placement = this.#placement;
    const route = this.kv.route(statement);
    if (route.kind === 'refused') return this.#refuse(Frontend.bind, refusal(route));
    if (route.kind === 'keyed') {
      const why = `the statement's key is on shard ${route.shard.name}`;
      const placed = placement.move(this.lanes.of(route.shard), why, this.#skip);
      return placed === 'ready' || placed === 'wait' ? placed : this.#refuse(Frontend.bind, placed);
    }
    const obstacle = placement.settle('the statement reads several shards', this.#skip) ?? placement.mayScatter();
    if (obstacle === 'wait') return 'wait';
    if (obstacle !== null) return this.#refuse(Frontend.bind, obstacle);
    const { buffer, start, end } = this.#reader;
    const error = this.#reads.bind(statement, route.shards, buffer, start, end);
    return error === null ? 'answered' : this.#refuse(Frontend.bind, error);
  }

  /**
   * Where DDL went through since the client was told of the result of the statement it binds: asks whether that still
   * holds. True: the message at hand was put back, or answered with a refusal.
   */
  #settleDescription(): boolean {
    const { buffer, start, end } = this.#reader;
    const { lane } = this;
    const epoch = this.lanes.home.schemaEpoch;
    const doubtful = this.#extended.doubtful(buffer, start, end, epoch);
    if (doubtful === null) return false;
    const replies = lane.connection?.replies;
    // In the middle of a batch pgkv cannot ask: its Sync would end the batch's transaction.
    if (replies?.unsynced() === true) return false;
    if (replies === undefined || replies.length === 0) {
      if (!this.#ensure(doubtful.source.template)) return true;
      lane.askShape(doubtful.source, (shape) => this.#extended.settle(doubtful.name, shape, epoch));
    }
    this.#reader.unread();
    this.#wasAnswered = false;
    return true;
  }

  /** Whether the message at hand may be sent; where not it is put back, or answered with the refusal. */
  #ensure(template: Template): boolean {
    if (this.lane.ensure(template)) return true;
    const refusal = this.#refusal;
    if (refusal === null) this.#reader.unread();
    else {
      this.#refusal = null;
      this.#answerWithError(this.#reader.type, refusal);
    }
    this.#wasAnswered = refusal !== null;
    return false;
  }

  #answerWithError(type: number, error: Buffer): void {
    this.#toClient(error);
    this.#failedLocally();
    if (type === Frontend.query || type === Frontend.functionCall) this.#toClient(this.#ready);
    else this.#skipping = true;
    this.#host.output.flush();
  }

  /** ReadyForQuery as it is where no server is asked. */
  get #ready(): Buffer {
    if (this.#lost !== null || this.lane.connection?.status === TransactionStatus.failed) return READY_FAILED;
    return this.#block.held || this.#placement.inBlock ? READY_IN_BLOCK : READY_IDLE;
  }

  /** An error of pgkv's own was the answer: a block that no server has failed fails here. */
  #failedLocally(): void {
    if (this.#block.held) this.#lost = new LostTransaction(true);
    else if (this.#placement.inBlock && this.lane.connection!.replies.length === 0) {
      this.#lost = new LostTransaction(true);
      this.lane.leaveBlock();
    }
    this.#block.bind();
  }

  #flushMessage(): void {
    const { buffer, start, end } = this.#reader;
    const { connection } = this.lane;
    if (connection !== null) connection.output.push(buffer.subarray(start, end));
    else if (end - start !== EMPTY_MESSAGE_BYTES) this.#answerWithError(Frontend.flush, INVALID_FORMAT);
  }

  #sync(): void {
    const { connection } = this.lane;
    this.#reads.sync(this.#block.held || this.#placement.inBlock);
    if (this.#skipping || connection === null) {
      this.#placement.batchWrites = false;
      if (this.#reader.end - this.#reader.start !== EMPTY_MESSAGE_BYTES) this.#toClient(INVALID_FORMAT);
      this.#skipping = false;
      const lost = this.#lost;
      this.#toClient(lost === null ? this.#ready : lost.sync());
      if (lost?.over === true) this.#lost = null;
      return;
    }
    this.#placement.batchWrites = false;
    const { buffer, start, end } = this.#reader;
    connection.output.push(buffer.subarray(start, end));
    if (!connection.copyIn) connection.replies.push(forwarded(Reply.sync));
  }

  /** COPY data outside a copy is ignored, as Postgres does: the copy has failed and the client does not know yet. */
  #copy(type: number, found: number): void {
    const { connection } = this.lane;
    const whole = found === Frame.whole || found === Frame.last;
    if (connection !== null && !this.#skipping) {
      const { buffer, start, end } = this.#reader;
      connection.output.push(buffer.subarray(start, end));
      if (type !== Frontend.copyData) {
        // Sent before the server has said that it is in a copy: it counts from when it says so.
        if (!connection.copyIn && connection.replies.length > 0) connection.replies.push(forwarded(Reply.copyEnd));
        connection.copyIn = false;
      }
      if (!whole) this.lane.midMessage = true;
      else if (this.lane.midMessage) {
        connection.output.flush();
        this.lane.messageFinished();
      }
    }
  }

  #answerLost(type: number): void {
    const lost = this.#lost!;
    const { buffer, start, end } = this.#reader;
    if (type === Frontend.query) {
      this.#toClient(lost.query(this.#template(buffer.toString('utf8', start + 5, end - 1))));
      if (lost.over) this.#lost = null;
    } else if (type !== Frontend.flush) {
      const answer = lost.extended(type, this.#extended.namedSource(type, buffer, start, end)?.template ?? null);
      this.#toClient(answer.bytes);
      this.#skipping = answer.failed;
      if (type === Frontend.parse && !answer.failed) this.#extended.parsedLocally(buffer, start, end);
      // What follows in this batch is no longer the lost transaction's.
      if (lost.over && !answer.failed) this.#lost = null;
    }
  }

  #answerShow(name: string, value: string): void {
    for (const message of [
      encodeTextRowDescription(name),
      encodeTextRow(value),
      encodeCommandComplete('SHOW'),
      this.#ready,
    ]) {
      this.#toClient(message);
    }
  }

  #template(text: string): Template {
    return templateIn(this.#services.templateOf, text, this.kv.reading, this.kv.scope);
  }

  #violation(error: unknown): void {
    const fatal =
      error instanceof PgkvError ? error : new PgkvError('internal', { detail: messageOf(error), cause: error });
    this.#services.counters.protocolViolations++;
    // As if the client had ended here: what it sent before is answered first.
    this.#ended = this.#terminated = true;
    this.#lastWords = encodeError(fatal, 'FATAL');
    this.#endIfAnswered();
  }
}
