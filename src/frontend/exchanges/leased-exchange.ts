// Passes the client's messages on to the server of the current lane, one method for each kind; their answers are forwarded as
// they come. What has to be remembered of messages until they are answered is others': what messages do MessageDeeds', a batch that
// may have to be sent again GuardedBatch's, where the block stands among the answers BlockSpan's, how later texts are to be read
// OpenReading's, refusals of the message at hand LaneReadiness's.
import type { ServerLoss } from '../../backend/connection/server-connection.js';
import type { Deed } from '../../backend/replies/deeds.js';
import { doing, forwarded, type Owed, queryOf, Reply, renamedQuery } from '../../backend/replies/reply-queue.js';
import { type RewrittenText, rewrittenBytes } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { TransactionPhase } from '../../session/transaction.js';
import { NEUTRAL_TEMPLATE, type Template } from '../../sql/plan/template.js';
import { encodeQuery, encodeQueryBytes } from '../../wire/client-messages.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import { encodeError, encodeNotice } from '../../wire/server-messages.js';
import { portalIn } from '../unit/named-statements.js';
import { scanSingleBatch } from '../unit/single-batch.js';
import type { Unit } from '../unit/unit.js';
import { BlockSpan } from './block-span.js';
import { passCopyMessage } from './copy-messages.js';
import { deedOf, deedsOf } from './deeds-of.js';
import { DescribedResults } from './described-results.js';
import type { ExchangeContext } from './exchange-context.js';
import type { ExtendedProtocol } from './extended-protocol.js';
import { GuardedBatch } from './guarded-batch.js';
import { LaneReadiness } from './lane-readiness.js';
import { LostAnswers } from './lost-answers.js';
import type { MergedExchange } from './merged-exchange.js';
import { type BoundEdge, isEdge, MessageDeeds } from './message-deeds.js';
import { OpenReading } from './open-reading.js';
import type { OwnAnswers } from './own-answers.js';
import type { OwnPortals } from './own-portals.js';
import type { ShardPlacement } from './placement.js';
import { endsUnnamed } from './server-names.js';

const EMPTY_MESSAGE_BYTES = 5;
const INVALID_FORMAT = encodeError(new PgkvError('protocol_violation', { message: 'invalid message format' }), 'ERROR');

export class LeasedExchange implements Exchange<Unit> {
  /** Lanes say by themselves when they take no messages. */
  readonly busy = false;
  /** What the Bind behind the Parse at hand binds belongs to the lane that the Parse was given. */
  bindIsPlaced = true;
  readonly #context: ExchangeContext;
  readonly #placement: ShardPlacement;
  readonly #portals: OwnPortals;
  readonly #answers: OwnAnswers;
  readonly #lost: LostAnswers;
  readonly #extended: ExtendedProtocol;
  readonly #merged: MergedExchange | null;
  readonly #guarded: GuardedBatch;
  readonly #readiness: LaneReadiness;
  readonly #described: DescribedResults;
  readonly #reading: OpenReading;
  readonly #block = new BlockSpan();
  readonly #deeds: MessageDeeds;

  constructor(
    context: ExchangeContext,
    placement: ShardPlacement,
    portals: OwnPortals,
    answers: OwnAnswers,
    extended: ExtendedProtocol,
    merged: MergedExchange | null,
  ) {
    this.#context = context;
    this.#placement = placement;
    this.#portals = portals;
    this.#answers = answers;
    this.#lost = new LostAnswers(context);
    this.#reading = new OpenReading(context.session);
    this.#extended = extended;
    this.#readiness = new LaneReadiness(context, answers);
    this.#described = new DescribedResults(context, this.#readiness);
    this.#guarded = new GuardedBatch(extended);
    this.#deeds = new MessageDeeds(context.session, context.named);
    this.#merged = merged;
  }

  get #lane(): LeasedLane {
    return this.#context.lanes.current;
  }

  /** How texts are to be read hangs on an answer that is still to come. */
  readingIsOpen(): boolean {
    return this.#reading.awaited(this.#lane.connection, this.#context.transaction.inBlock);
  }

  /** What is being answered was sent in front of the block's BEGIN, in another batch. */
  get answersBeforeBlock(): boolean {
    return this.#block.outside > 0;
  }

  /** All that was sent has been answered, and the lane is free. */
  laneIsFree(): void {
    this.#guarded.clear();
    this.#extended.settledAll();
  }

  /** A server's ReadyForQuery has gone out. */
  readied(status: number, lane: LeasedLane): void {
    const { transaction } = this.#context;
    if (status === TransactionStatus.failed && this.#block.outside === 0) transaction.failedMeanwhile();
    this.#block.readied();
    if (lane.connection!.replies.length > 0) return;
    transaction.answered(status, lane);
    if (status === TransactionStatus.idle) {
      this.#context.batch.transactionEnded();
      this.#placement.endBatch();
      this.#portals.closeAll();
      this.#portalsEnd();
    } else if (status === TransactionStatus.failed) this.#portals.forgetElsewhere();
    this.#block.settled(transaction.inBlock);
  }

  #portalsEnd(): void {
    this.#extended.portalsEnd();
    this.#deeds.portalsEnd();
  }

  /** Sends the single batch again whose plan had gone stale. */
  repeat(): void {
    this.#guarded.repeat(this.#lane);
  }

  /** @param rewritten the text as the lane's shard gets it; null: as the client sent it */
  take(unit: Unit, rewritten: RewrittenText | null = null): Handling {
    switch (unit.type) {
      case Frontend.query:
        return this.#query(unit, rewritten);
      case Frontend.functionCall:
        return this.#functionCall(unit);
      case Frontend.flush:
        return this.#flush(unit);
      default:
        return this.#message(unit);
    }
  }

  cancel(): void {
    this.#lane.cancel();
  }

  drained(): void {
    // Lanes hear of it from SessionLanes.
  }

  lost(loss: ServerLoss): void {
    this.#guarded.clear();
    this.#lost.connectionLost(loss, this.#block);
    this.#block.clear();
    this.#deeds.synced();
    this.#portalsEnd();
    this.#portals.forgetElsewhere();
  }

  abandon(): void {
    this.#guarded.clear();
  }

  /** Whether the message at hand is handled now, so that a refusal is its answer. */
  refused(bytes: Buffer): boolean {
    return this.#readiness.refused(bytes);
  }

  /** Has a server's parser word the error of a text that pgkv could not parse. */
  askServer(unit: Unit, error: PgkvError): Handling {
    const ensured = this.#readiness.ensure(unit, NEUTRAL_TEMPLATE);
    if (ensured !== 'ready') return ensured;
    this.#sending(NEUTRAL_TEMPLATE, '');
    this.#answers.askServer(unit, error);
    return 'taken';
  }

  #query(unit: Unit, rewritten: RewrittenText | null): Handling {
    const { services } = this.#context;
    const { template, text, buffer, start, end } = unit;
    const lane = this.#lane;
    if (template.statementNames.length > 0 && lane.connection !== null) {
      const { replies } = lane.connection;
      // What the names stand for may depend on answers to come. Without a Sync they would not come before this.
      if (replies.length > 0 && !replies.unsynced()) return 'wait';
    }
    const ensured = this.#readiness.ensure(unit, template);
    if (ensured !== 'ready') return ensured;
    const connection = lane.connection!;
    // Nothing can be prepared in the failed block that is to be opened on it.
    const isReopened = this.#context.transaction.isLeft;
    const early = isReopened ? this.#extended.ownNames(template, text, connection) : null;
    this.#placement.sendingQuery();
    this.#sending(template, text);
    this.#block.batchEnds();
    lane.note(template, text);
    services.counters.statements++;
    if (template.notice !== null) connection.replyLocally(encodeNotice(template.notice), null);
    if (rewritten !== null) {
      const owed = endsUnnamed(this.#context.session, connection, this.#owed(template, rewritten), null);
      connection.send(encodeQueryBytes(rewrittenBytes(rewritten)), owed);
      return 'taken';
    }
    const renamed = isReopened ? early : this.#extended.ownNames(template, text, connection);
    const owed = this.#owed(template, null);
    const bytes = buffer.subarray(start + 5, end - 1);
    const ends = (what: Owed): Owed => endsUnnamed(this.#context.session, connection, what, bytes);
    if (renamed === null) connection.send(buffer.subarray(start, end), ends(owed));
    else connection.send(encodeQuery(renamed.text), ends(renamedQuery(renamed.names, owed.does)));
    this.#extended.sentSql(template, connection);
    this.#reading.sent(template);
    return 'taken';
  }

  /** What is owed for a text that was just noted. */
  #owed(template: Template, rewritten: RewrittenText | null): Owed {
    const { kinds } = template;
    if (kinds.length > 1 || template.kind === 'unparsed') return queryOf(rewritten, deedsOf(template));
    const deed = this.#deed(template);
    return rewritten === null ? doing(Reply.query, deed) : queryOf(rewritten, [deed]);
  }

  /** Of the statement that was just noted. */
  #deed(template: Template): Deed {
    const { state } = this.#context.transaction;
    return deedOf(template, state.kind === 'ending' && state.how === 'rollback' && template.kind !== 'multi');
  }

  #functionCall(unit: Unit): Handling {
    const { template, buffer, start, end } = unit;
    const ensured = this.#readiness.ensure(unit, template);
    if (ensured !== 'ready') return ensured;
    const connection = this.#lane.connection!;
    this.#placement.sendingQuery();
    this.#sending(template, '');
    this.#lane.note(template, '');
    connection.send(buffer.subarray(start, end), forwarded(Reply.functionCall));
    return 'taken';
  }

  /** Parse, Bind, Describe, Execute, Close; with a Parse or Bind the whole batch where it can be sent as one. */
  #message(unit: Unit): Handling {
    const { services } = this.#context;
    const { type, buffer, start, end, source, text } = unit;
    const isBind = type === Frontend.bind;
    if (isBind) {
      // That there is no such statement is found before its portal.
      const taken = source === null ? null : this.#portals.obstacleElsewhere(unit);
      if (taken !== null) return this.#answers.refuse(unit, taken);
      const settled = this.#described.check(unit);
      if (settled !== 'ready') return settled;
    }
    if (this.#mayBatch(type)) {
      const sent = this.#singleBatch(unit);
      if (sent !== 'ready') return sent;
    }
    const lane = this.#lane;
    if (lane.connection !== null && this.#extended.dependsOnAnswers(type, buffer, start, end, lane.connection))
      return 'wait';
    const { phase } = this.#context.transaction;
    const isRefused = this.#deeds.isRefused(unit, phase);
    // What a server will not take begins and ends nothing.
    const template = !isRefused && (isBind || type === Frontend.parse) ? unit.template : NEUTRAL_TEMPLATE;
    const does = isRefused ? 'reads' : this.#deeds.of(unit, phase);
    const ensured = this.#readiness.ensure(unit, template);
    if (ensured !== 'ready') return ensured;
    const connection = lane.connection!;
    this.#placement.sendingMessage(template, unit);
    const ran = isRefused ? null : this.#deeds.edgeRunBy(unit);
    if (ran !== null) this.#sendingEdge(ran);
    else this.#sending(isBind && !isEdge(template) ? template : NEUTRAL_TEMPLATE, text);
    if (type === Frontend.parse) {
      lane.foresee(template);
      this.#placement.sendingParsed(template);
    }
    if (isBind) {
      const portal = portalIn(unit);
      this.#portals.boundElsewhere(portal);
      // One without a name is dropped by the next Bind or query, which alone would move the block.
      if (portal !== '') this.#context.transaction.bound();
      if (!isRefused && !isEdge(template)) this.#placement.sendingBound(template, text);
      lane.note(template, text);
      services.counters.statements++;
      if (template.notice !== null) connection.replyLocally(encodeNotice(template.notice), null);
    }
    // Of an empty text it starts nothing, and behind one that begins a copy nothing else can.
    if (type === Frontend.execute) connection.restart();
    if (ran === null && !isRefused && this.#deeds.isRunBy(unit)) this.#placement.sendingExecute();
    this.#deeds.sent(unit, does, isRefused);
    this.#extended.forward(unit, source, connection, does);
    if (isBind) this.#reading.sent(template);
    return 'taken';
  }

  /** What begins or ends a block is about to be executed, perhaps in a later batch than its Bind. */
  #sendingEdge({ template, text, isPlain, hasValues }: BoundEdge): void {
    const { transaction } = this.#context;
    this.#sending(template, text);
    if (!isPlain) transaction.bound();
    else if (hasValues) transaction.noteRead();
    this.#placement.sendingBound(template, text);
  }

  /** A statement, or a message that brings none, is about to be sent on the current lane. */
  #sending(template: Template, text: string): void {
    const { transaction } = this.#context;
    const before = transaction.phase;
    this.#merged?.sentOnLease();
    this.#placement.sending(template, text);
    const after = transaction.phase;
    if (before !== after && before !== 'held') this.#noteEdge(after);
    else if (template.kind === 'commit' && template.leavesBlock === 'open') this.#lane.block.begins();
    this.#block.sending(template, before);
    // In a block that has failed, what does not begin with its end ends nothing.
    const isRefused = before === 'failed' && !template.endsFailure;
    const ends = template.leavesBlock !== null && template.kind !== 'begin';
    if (!isRefused && (ends || template.kind === 'multi')) this.#portals.closeAll();
  }

  /** A block begins or ends with what is about to be sent. */
  #noteEdge(after: TransactionPhase): void {
    const owed = this.#lane.connection!.replies.owedReadies();
    if (after === 'open') {
      if (this.#deeds.maySkip) this.#context.transaction.maySkip();
      this.#lane.block.begins();
      this.#block.begins(owed);
    } else if (after === 'ending') this.#block.ends(owed);
  }

  /** Whether what begins at hand, if it is one batch, may go to the current lane as a whole. */
  #mayBatch(type: number): boolean {
    const isPlaced = type === Frontend.bind || (type === Frontend.parse && this.bindIsPlaced);
    const { transaction, batch } = this.#context;
    // Behind what has run elsewhere it is no batch of its own: that may be held until the Sync.
    return isPlaced && !this.#lane.busy && !transaction.inBlock && !batch.hasBegunElsewhere;
  }

  /** Sends what begins at hand as one batch. `ready`: it is none, and its messages are sent one by one. */
  #singleBatch(unit: Unit): Handling | 'ready' {
    const { services, reader, batch: clientBatch } = this.#context;
    const { buffer, start } = unit;
    const batch = scanSingleBatch(buffer, start);
    // With more behind it the batch is not on its own: see `guarded` in Conversation.
    if (batch === null || batch.end !== buffer.length) return 'ready';
    const source = this.#extended.batchSource(buffer, batch);
    if (source === null) return 'ready';
    const ensured = this.#readiness.ensure(unit, source.template);
    if (ensured !== 'ready') return ensured;
    const lane = this.#lane;
    this.#merged?.sentOnLease();
    // It ends with its Sync.
    this.#portals.closeAll();
    lane.note(source.template, source.text);
    services.counters.statements++;
    this.#guarded.send(buffer, start, batch, source, lane);
    clientBatch.takeWhole();
    reader.skipTo(batch.end);
    return 'taken';
  }

  #flush({ type, buffer, start, end }: Unit): Handling {
    const { connection } = this.#lane;
    if (connection !== null) connection.output.push(buffer.subarray(start, end));
    else if (end - start !== EMPTY_MESSAGE_BYTES) this.#answers.error(type, INVALID_FORMAT);
    return 'taken';
  }

  /**
   * Whether a Sync has to wait for the answer of what has stopped its batch's transaction (ReplyQueue.isStopped), which says
   * whether there is anything to commit. Not for more: what stands behind that is answered when the Sync has come. In a copy the
   * server ignores it.
   */
  get syncWaits(): boolean {
    const { connection } = this.#lane;
    return connection?.replies.stopIsOwed === true && !connection.copyIn;
  }

  /** @param failed the batch that it ends had its error here, and no server knows of it */
  sync(failed: boolean): void {
    const { transaction, output, reader } = this.#context;
    const { connection } = this.#lane;
    if (!transaction.inBlock) this.#portals.closeAll();
    this.#placement.endBatch();
    this.#deeds.synced();
    this.#block.batchEnds();
    const { buffer, start, end } = reader;
    // A connection that is kept at rest knows of no block that is here.
    const isHere = failed || (transaction.isHere && connection?.replies.unsynced() !== true);
    if (!isHere && connection !== null && this.#lane.mode === 'leased') {
      if (connection.copyIn) connection.output.push(buffer.subarray(start, end));
      else connection.sync(buffer.subarray(start, end), forwarded(Reply.sync));
      return;
    }
    if (end - start !== EMPTY_MESSAGE_BYTES) output.send(INVALID_FORMAT);
    this.#answers.sync();
  }

  /** CopyData, CopyDone, CopyFail. @param whole the message's end is at hand */
  copy(type: number, whole: boolean): void {
    passCopyMessage(this.#context, type, whole);
  }
}
