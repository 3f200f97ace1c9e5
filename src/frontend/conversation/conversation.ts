// One client's conversation after login: takes its messages one after the other, in the client's order, and hears from
// the session's lanes what became of them. Owns when a message is taken and how the session ends. What is done with a message
// is handle-unit.ts's, and the exchange's that answers it (open-way.ts makes them); at most one exchange besides the current
// lane is under way.
import type { ServerLoss } from '../../backend/connection/server-connection.js';
import { parameterChanges, type ReportedParameters } from '../../backend/replies/parameter-status.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import { homeShard } from '../../cluster/cluster-view.js';
import type { Exchange } from '../../execute/exchange.js';
import type { ClientPort, LeasedLane } from '../../execute/leased/leased-lane.js';
import { type MakeLane, SessionLanes } from '../../execute/session-lanes.js';
import type { Session } from '../../session/session.js';
import { Frame, type FrameReader } from '../../wire/frame-reader.js';
import type { Output } from '../../wire/output.js';
import { Backend, Frontend } from '../../wire/protocol.js';
import { encodeError } from '../../wire/server-messages.js';
import { ClientOutput } from '../exchanges/client-output.js';
import type { ConversationServices, ExchangeContext } from '../exchanges/exchange-context.js';
import type { ExtendedProtocol } from '../exchanges/extended-protocol.js';
import type { LeasedExchange } from '../exchanges/leased-exchange.js';
import type { MergedServices } from '../exchanges/merged-exchange.js';
import type { ProtocolTap } from '../exchanges/protocol-tap.js';
import type { UnitReader } from '../unit/read-unit.js';
import type { Unit } from '../unit/unit.js';
import type { Way } from './handle-unit.js';
import { openWay } from './open-way.js';
import { SessionTimeOuts } from './session-time-outs.js';
import { atWork, laneHoldsBack, takeMessage } from './take-message.js';

export type { ConversationServices } from '../exchanges/exchange-context.js';

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

/** What a conversation is made with. */
export interface ConversationOptions {
  readonly session: Session;
  /** Holds what the client has sent behind its login. */
  readonly reader: FrameReader;
  /** search_path of the client's start-up packet. */
  readonly startSearchPath: string | null;
  readonly makeLane: MakeLane;
  /** Null where statements are not merged. */
  readonly merged: MergedServices | null;
}

/**
 * Takes messages until the reader has `ended` (what the client sent before is still answered) or `#terminated` (not even what has come is
 * read any more); `#closed`, it answers nothing. `#pumping`: messages are being taken, further down the stack.
 * `#paused`: what waits to be taken is more than is held for a client, who sends no more until it is less.
 */
export class Conversation implements ClientPort<LeasedLane> {
  readonly session: Session;
  readonly lanes: SessionLanes;
  lastActivity: number;
  /** When somebody beside the lane, as who reads several shards, was done with a statement of a block. */
  #answeredInBlock = 0;
  readonly #host: ConversationHost;
  readonly #services: ConversationServices;
  readonly #reader: FrameReader;
  readonly #units: UnitReader;
  readonly #context: ExchangeContext;
  readonly #way: Way;
  readonly #extended: ExtendedProtocol;
  readonly #leased: LeasedExchange;
  /** Those that may be under way beside the current lane. */
  readonly #beside: readonly Exchange<Unit>[];
  readonly #tap: ProtocolTap | null;
  readonly #output: ClientOutput;
  readonly #timeOuts: SessionTimeOuts;
  #terminated = false;
  /** The error that ends the session, behind the answers that are still to come. */
  #lastWords: Buffer | null = null;
  #closed = false;
  #paused = false;
  #pumping = false;

  constructor(host: ConversationHost, services: ConversationServices, options: ConversationOptions) {
    const { session, reader } = options;
    this.#host = host;
    this.#services = services;
    this.session = session;
    this.#reader = reader;
    this.#tap = services.tapFor(session);
    this.#output = new ClientOutput(host.output, this.#tap);
    this.lastActivity = services.clock.now();
    this.#timeOuts = new SessionTimeOuts(services.clock, (error) => this.terminate(error));
    this.lanes = new SessionLanes(homeShard(services.view()), this, options.makeLane);
    const { way, units, extended, beside } = openWay({
      services,
      session,
      reader,
      output: this.#output,
      lanes: this.lanes,
      startSearchPath: options.startSearchPath,
      merged: options.merged,
      resume: () => {
        if (this.#context.transaction.inBlock) this.#answeredInBlock = services.clock.now();
        this.resume();
      },
      takeMessages: () => this.takeMessages(),
    });
    this.#way = way;
    this.#context = way.context;
    this.#leased = way.leased;
    this.#units = units;
    this.#extended = extended;
    this.#beside = beside;
  }

  get lane(): LeasedLane {
    return this.lanes.current;
  }

  /** What the client's next messages wait for, or what takes them. */
  get #exchange(): Exchange<Unit> {
    return atWork(this.#way);
  }

  /** Whether the session is in a transaction, or waits for an answer. */
  get busy(): boolean {
    return this.lane.busy || this.#exchange.busy;
  }

  /** Since when the client, in a block that a server may have or not, has owed the next message; null: it does not. */
  get idleInTransactionSince(): number | null {
    const { mode, connection, idleInTransaction, idleInTransactionSince } = this.lane;
    const isHere = this.#context.transaction.inBlock && (mode === 'free' || connection?.replies.length === 0);
    if (this.#exchange.busy || !(isHere || idleInTransaction)) return null;
    return Math.max(idleInTransactionSince, this.lastActivity, this.#answeredInBlock);
  }

  get clogged(): boolean {
    return this.#output.blocked;
  }

  get holdsBytes(): boolean {
    return this.#output.holdsBytes;
  }

  received(chunk: Buffer): void {
    this.lastActivity = this.#services.clock.now();
    this.#timeOuts.heard();
    this.#tap?.fromClient(chunk);
    this.#reader.push(chunk);
    this.takeMessages();
  }

  /** The client has closed its side of the connection. */
  clientEnded(): void {
    this.#reader.ended = true;
    this.takeMessages();
  }

  /** The connection to the client is gone. */
  clientGone(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#abandon();
  }

  /** CancelRequest from the client. */
  cancel(): void {
    this.#exchange.cancel();
  }

  /** The session is about to be ended from outside: what it runs on servers ends with it, as Postgres has it. */
  stop(): void {
    this.lanes.stop();
  }

  send(bytes: Buffer, lane: LeasedLane): void {
    const { connection } = this.lane;
    if (lane === this.lane || connection === null || connection.replies.length === 0) this.#output.send(bytes);
    else if (!this.#output.keepAside(bytes)) {
      this.terminate(new PgkvError('limit_exceeded', { detail: 'too many notifications beside one long answer' }));
    }
  }

  /**
   * In a block that the listening server does not have, as while its BEGIN is held back, they wait for its end. What comes in front of
   * a BEGIN that the client has pipelined is told there.
   */
  notified(message: Buffer, lane: LeasedLane, isBeside: boolean): void {
    const isInside = this.#context.transaction.inBlock && !(lane === this.lane && this.#leased.answersBeforeBlock);
    if (isBeside && isInside && this.#output.keepAside(message)) return;
    // The block's end is being answered: those before it come first.
    if (lane === this.lane) this.#output.sendAside();
    this.send(message, lane);
  }

  flush(): void {
    this.#output.flush();
  }

  clientDrained(): void {
    this.lanes.clientDrained();
    this.#exchange.drained();
    this.takeMessages();
  }

  ready(status: number, lane: LeasedLane): void {
    this.#leased.readied(status, lane);
    this.#way.branches.endOrphans();
  }

  resume(): void {
    // Before the next message is taken, which may be a transaction.
    if (this.lane.unused) this.#way.merged?.rerunEnded();
    if (this.lane.mode === 'free') this.#leased.laneIsFree();
    if (this.#output.hasAside) this.#sendAside();
    this.takeMessages();
  }

  refused(error: PgkvError, message: Buffer | null): void {
    const isServers = message !== null && message[0] === Backend.errorResponse && error.errorName === 'internal';
    const refusal = isServers ? message : encodeError(error, 'ERROR');
    if (this.#way.branches.refused(refusal) || this.#leased.refused(refusal)) return;
    // The message that waited was put back: take it up again and answer it.
    if (this.#reader.next() === Frame.none) return;
    const { type, buffer, start } = this.#reader;
    this.#context.batch.take(type);
    // A Parse that fails has dropped the unnamed statement before it.
    if (type === Frontend.parse && buffer[start + 5] === 0) this.session.unnamed.set(null);
    this.#way.answers.error(type, refusal);
    this.takeMessages();
  }

  tag(tag: string): void {
    this.#way.branches.executed();
    this.#extended.tag(tag, this.lane.connection!);
  }

  repeat(): void {
    this.#leased.repeat();
  }

  lost(loss: ServerLoss, hadState: boolean, lane: LeasedLane): void {
    const { branches } = this.#way;
    // A server that ends the session in the midst of a commit over several does not know what becomes of it.
    const isElsewhere = lane !== this.lane || branches.isCommitting;
    if (branches.hearsOf(lane) && !hadState && (loss.last === null || isElsewhere)) {
      branches.lost(loss, lane);
      return this.resume();
    }
    // A lane at rest has lost no answer; messages may wait for one that is asked what a block has left.
    if (lane !== this.lane && !hadState) return this.resume();
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
    const exchange = this.#exchange;
    const { transaction } = this.#context;
    // Settings of a block go back with it, and the client hears of it as it would from a server.
    if (!transaction.isHere) this.#tellSettings(loss.parametersOutside);
    exchange.lost(loss, lane);
    // Its block is lost beside what is under way: the client hears of it with its next statement.
    const { state } = transaction;
    if ((state.kind === 'open' || state.kind === 'failed') && state.branch === lane) transaction.lose(false);
    branches.endOrphans();
    this.resume();
  }

  #tellSettings(now: ReportedParameters): void {
    for (const message of parameterChanges(this.session.told, now)) this.#output.send(message);
    this.session.told = now;
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
    this.#abandon();
    this.#host.close();
  }

  /** Nothing is answered any more. */
  #abandon(): void {
    this.#timeOuts.stop();
    for (const exchange of this.#beside) exchange.abandon();
    this.#leased.abandon();
    this.session.dropAllStatements();
    this.lanes.end();
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
    this.#way.spread.pumped();
    this.#context.named.forgetMessages();
    this.lane.connection?.output.flush();
    if (this.#closed) return;
    if (this.lane.unused) this.#way.merged?.rerunEnded();
    if (this.#output.hasAside) this.#sendAside();
    this.flush();
    if (this.#timeOuts.concerns(this.session.settings)) this.#rest();
    // A message that is not whole yet needs more bytes, however many are there; only what waits for others is held back.
    const tooMuch = blocked && this.#reader.bufferedBytes > this.#services.bufferBytesMax;
    if (tooMuch !== this.#paused) {
      this.#paused = tooMuch;
      if (tooMuch) this.#host.pauseReading();
      else this.#host.resumeReading();
    }
  }

  /** What came beside an answer, or beside a block, once that has ended. */
  #sendAside(): void {
    const { connection } = this.lane;
    const isAnswered = connection === null || connection.replies.length === 0;
    if (isAnswered && !this.#exchange.busy && !this.#context.transaction.inBlock) this.#output.sendAside();
  }

  /** The client's own time-outs count from now on, where the client is awaited and no server counts them. */
  #rest(): void {
    const { transaction, batch } = this.#context;
    // As on a server, a block that has failed is bounded by the other time-out alone.
    const { isHere, inBlock, heldBlock } = transaction;
    const isAwaited = batch.state === 'none' && !this.#exchange.busy && !this.#reader.ended;
    if (isAwaited && isHere) this.#timeOuts.rests('in block here', heldBlock);
    else this.#timeOuts.rests(isAwaited && !inBlock && !this.busy ? 'between transactions' : 'away', heldBlock);
  }

  /** Returns whether messages may be left that have to wait for a connection, a server or the client. */
  #takeWhilePossible(): boolean {
    const reader = this.#reader;
    while (!this.#closed) {
      const { clogged, lane } = this;
      const exchange = this.#exchange;
      if (clogged || (exchange.busy && exchange.takesData !== true) || laneHoldsBack(lane, this.#leased)) return true;
      const found = this.#terminated ? Frame.none : reader.next();
      if (found === Frame.none) {
        if (this.#reader.ended) this.#endIfAnswered();
        return false;
      }
      const taken = takeMessage(this.#way, this.#units, found);
      if (taken === 'goodbye') this.#reader.ended = this.#terminated = true;
      else if (taken === 'wait') {
        reader.unread();
        return true;
      }
    }
    return false;
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

  #violation(error: unknown): void {
    const fatal =
      error instanceof PgkvError ? error : new PgkvError('internal', { detail: messageOf(error), cause: error });
    this.#services.counters.protocolViolations++;
    // As if the client had ended here: what it sent before is answered first.
    this.#reader.ended = this.#terminated = true;
    this.#lastWords = encodeError(fatal, 'FATAL');
    this.#way.spread.pumped();
    if (!this.#way.spread.busy) this.#endIfAnswered();
  }
}
