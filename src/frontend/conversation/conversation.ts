// One client's conversation after login: takes its messages one after the other, in the client's order, and hears from
// the session's lanes what became of them. Owns when a message is taken and how the session ends; what is sent to a
// server is MessageForwarder's, where a statement runs StatementRouting's, what pgkv answers itself LocalAnswers's.
import type { ServerLoss } from '../../backend/connection/server-connection.js';
import { templateIn } from '../../backend/replies/statement-source.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import type { ClientPort, LeasedLane } from '../../execute/leased/leased-lane.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import type { Session } from '../../session/session.js';
import { Frame, type FrameReader } from '../../wire/frame-reader.js';
import type { Output } from '../../wire/output.js';
import { Backend, Frontend } from '../../wire/protocol.js';
import { encodeError } from '../../wire/server-messages.js';
import type { MergedServices } from '../exchanges/merged-exchange.js';
import { KvStatements } from '../unit/kv-statements.js';
import { ClientOutput } from './client-output.js';
import type { ConversationContext, ConversationServices, Handling } from './conversation-context.js';
import { ExtendedProtocol } from './extended-protocol.js';
import { LocalAnswers } from './local-answers.js';
import { MessageForwarder } from './message-forwarder.js';
import type { ProtocolTap } from './protocol-tap.js';
import { ShardPlacement } from './shard-placement.js';
import { type RoutingHost, StatementRouting } from './statement-routing.js';

export type { ConversationServices } from './conversation-context.js';

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

/** Owed replies at which a pipelining client has to wait for some of them. */
const PIPELINE_MAX = 10_000;

export class Conversation implements ClientPort, RoutingHost {
  readonly session: Session;
  lastActivity: number;
  lanes!: SessionLanes;
  /** Statements on key-value tables. */
  readonly kv: KvStatements;
  #answers!: LocalAnswers;
  #routing!: StatementRouting;
  #forwarder!: MessageForwarder;
  readonly #host: ConversationHost;
  readonly #services: ConversationServices;
  readonly #reader: FrameReader;
  readonly #extended: ExtendedProtocol;
  readonly #tap: ProtocolTap | null;
  readonly #output: ClientOutput;
  /** The client has said goodbye or closed its side: what it sent before is still answered. */
  #ended = false;
  #terminated = false;
  /** The error that ends the session, behind the answers that are still to come. */
  #lastWords: Buffer | null = null;
  #closed = false;
  #paused = false;
  #pumping = false;

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
    this.#output = new ClientOutput(host.output, this.#tap);
    this.lastActivity = services.clock.now();
  }

  /** Before the first message. */
  useLanes(lanes: SessionLanes, merged: MergedServices | null): void {
    this.lanes = lanes;
    const context: ConversationContext = {
      session: this.session,
      services: this.#services,
      reader: this.#reader,
      output: this.#output,
      lanes,
      placement: new ShardPlacement(lanes, () => {
        this.#answers.skipping = true;
      }),
      kv: this.kv,
      extended: this.#extended,
      templateOf: (text) => templateIn(this.#services.templateOf, text, this.kv.reading, this.kv.scope),
    };
    this.#answers = new LocalAnswers(context);
    this.#routing = new StatementRouting(context, this.#answers, this, merged);
    this.#forwarder = new MessageForwarder(context, this.#answers, this.#routing);
  }

  /** The lane whose answers the client gets at present. */
  get lane(): LeasedLane {
    return this.lanes.current;
  }

  /** Whether the session is in a transaction, or waits for an answer. */
  get busy(): boolean {
    return this.lane.busy || this.#routing.busy;
  }

  get clogged(): boolean {
    return this.#output.blocked;
  }

  get holdsBytes(): boolean {
    return this.#output.holdsBytes;
  }

  /** Bytes from the client. */
  received(chunk: Buffer): void {
    this.lastActivity = this.#services.clock.now();
    this.#tap?.fromClient(chunk);
    this.#reader.push(chunk);
    this.takeMessages();
  }

  /** The client has closed its side of the connection. */
  clientEnded(): void {
    this.#ended = true;
    this.takeMessages();
  }

  /** The connection to the client is gone. */
  clientGone(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#routing.abandon();
    this.lanes.end();
  }

  /** CancelRequest from the client. */
  cancel(): void {
    if (!this.#routing.cancel()) this.lane.cancel();
  }

  send(bytes: Buffer, lane: LeasedLane): void {
    const { connection } = this.lane;
    if (lane === this.lane || connection === null || connection.replies.length === 0) this.#output.send(bytes);
    else if (!this.#output.keepAside(bytes)) {
      this.terminate(new PgkvError('limit_exceeded', { detail: 'too many notifications beside one long answer' }));
    }
  }

  flush(): void {
    this.#output.flush();
  }

  clientDrained(): void {
    this.lanes.clientDrained();
    this.#routing.clientDrained();
    this.takeMessages();
  }

  resume(): void {
    const { mode, connection } = this.lane;
    // Before the next message is taken, which may be a transaction.
    if (this.lane.unused) this.#routing.rerunEnded();
    if (mode === 'free') this.#forwarder.laneIsFree();
    if (this.#output.hasAside && (connection === null || connection.replies.length === 0)) this.#output.sendAside();
    this.takeMessages();
  }

  refused(error: PgkvError, message: Buffer | null): void {
    const isServers = message !== null && message[0] === Backend.errorResponse && error.errorName === 'internal';
    const refusal = isServers ? message : encodeError(error, 'ERROR');
    if (this.#pumping) {
      this.#answers.refusal = refusal;
      return;
    }
    // The message that waited was put back: take it up again and answer it.
    if (this.#reader.next() === Frame.none) return;
    this.#answers.error(this.#reader.type, refusal);
    this.takeMessages();
  }

  tag(tag: string): void {
    this.#forwarder.tag(tag);
  }

  repeat(): void {
    this.#forwarder.repeat();
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
      this.#output.send(loss.last ?? encodeError(new PgkvError(loss.error.errorName, { detail }), 'FATAL'));
      this.#finish();
      return;
    }
    this.#answers.connectionLost(loss);
    this.resume();
  }

  /** Ends the session with an error of ours, if the protocol still allows one. */
  terminate(error: PgkvError): void {
    if (this.#closed) return;
    if (this.lane.connection === null || this.lane.connection.replies.length === 0) {
      this.#output.send(encodeError(error, 'FATAL'));
    }
    this.#finish();
  }

  #finish(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.flush();
    this.#routing.abandon();
    this.lanes.end();
    this.#host.close();
  }

  /** Takes messages as long as the lane takes them. */
  takeMessages(): void {
    if (this.#closed || this.#pumping) return;
    this.#pumping = true;
    let blocked: boolean;
    try {
      blocked = this.#takeWhilePossible();
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
    if (this.lane.unused) this.#routing.rerunEnded();
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
  #takeWhilePossible(): boolean {
    const reader = this.#reader;
    while (!this.#closed) {
      if (this.#mustWait()) return true;
      const found = this.#terminated ? Frame.none : reader.next();
      if (found === Frame.none) {
        if (this.#ended) this.#endIfAnswered();
        return false;
      }
      if (this.#take(found) === 'wait') {
        reader.unread();
        return true;
      }
    }
    return false;
  }

  /** Whether no message, of whatever kind, can be taken for now. */
  #mustWait(): boolean {
    const { mode, connection } = this.lane;
    if (mode === 'waiting' || mode === 'preparing' || this.clogged || this.#routing.busy) return true;
    if (connection !== null) {
      // What is sent behind a guarded batch would be answered before its repetition.
      if (connection.guarded) return true;
      if (connection.output.blocked || connection.replies.length >= PIPELINE_MAX) return true;
    }
    return this.#forwarder.readingIsOpen();
  }

  /** The client sends no more: ends the session once everything that can be answered has been. */
  #endIfAnswered(): void {
    const { connection } = this.lane;
    const answersToCome = connection !== null && connection.replies.length > 0 && !connection.replies.unsynced();
    // A copy whose client has gone never ends by itself.
    if (answersToCome && !connection.copyIn) return;
    if (this.#lastWords !== null) this.#output.send(this.#lastWords);
    this.#finish();
  }

  /** Handles the message found. `wait`: the lane calls `resume`. */
  #take(found: number): Handling {
    const { type } = this.#reader;
    const answers = this.#answers;
    const forwarder = this.#forwarder;
    switch (type) {
      case Frontend.copyData:
      case Frontend.copyDone:
      case Frontend.copyFail:
        forwarder.copy(type, found === Frame.whole || found === Frame.last);
        return 'taken';
      case Frontend.terminate:
        this.#ended = this.#terminated = true;
        return 'taken';
      case Frontend.sync:
        forwarder.sync();
        return 'taken';
    }
    if (answers.skipping) return 'taken';
    // A simple query ends the unnamed statement, here as in Postgres, whatever becomes of the query.
    if (type === Frontend.query) this.session.unnamed.set(null);
    if (answers.hasLostTransaction) {
      answers.inLostTransaction(type);
      return 'taken';
    }
    switch (type) {
      case Frontend.query:
        return forwarder.query();
      case Frontend.functionCall:
        return forwarder.functionCall();
      case Frontend.flush:
        forwarder.flush();
        return 'taken';
      default:
        return forwarder.extended(type);
    }
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
