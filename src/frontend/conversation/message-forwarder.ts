// Passes the client's messages on to the server of the current lane, one method for each kind. Owns what has to be
// remembered of them until their answers come: a batch that may have to be sent again, names that DEALLOCATE drops, and
// whether later texts may have to be read in another way.
import { isUtf8 } from 'node:buffer';
import { forwarded, queryOf, Reply } from '../../backend/replies/reply-queue.js';
import { type RewrittenText, rewrittenText, type StatementSource } from '../../backend/replies/statement-source.js';
import { assert } from '../../base/assert.js';
import { namesOwnStatements, replaceStatementNames } from '../../execute/leased/statement-names.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import { Effect, NEUTRAL_TEMPLATE, type Template, UNPARSED_TEMPLATE } from '../../sql/plan/template.js';
import { encodeQuery } from '../../wire/client-messages.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import { scanSingleBatch } from '../unit/single-batch.js';
import type { ConversationContext, Handling } from './conversation-context.js';
import type { LocalAnswers } from './local-answers.js';
import type { StatementRouting } from './statement-routing.js';

/** Whether statements prepared at the protocol level may be gone behind it. */
const dropsStatements = ({ effects, statementNames }: Template): boolean =>
  (effects & Effect.deallocatesAll) !== 0 || statementNames.some(({ verb }) => verb === 'deallocate');

/** Whether texts behind it may have to be read in another encoding, or with another meaning of backslashes. */
const mayChangeReading = ({ effects, settingNames }: Template): boolean =>
  (effects & Effect.unknown) !== 0 ||
  settingNames.some((name) => name === '*' || name === 'client_encoding' || name === 'standard_conforming_strings');

export class MessageForwarder {
  readonly #context: ConversationContext;
  readonly #lanes: SessionLanes;
  readonly #answers: LocalAnswers;
  readonly #routing: StatementRouting;
  /** A single batch that may have to be sent again, and its statement. */
  #repeatable: Buffer | null = null;
  #repeatSource: StatementSource | null = null;
  #deallocated: string[] = [];
  /** What was sent may change how texts are to be read: those behind it wait for its answer. */
  #readsTextAnew = false;

  constructor(context: ConversationContext, answers: LocalAnswers, routing: StatementRouting) {
    this.#context = context;
    this.#lanes = context.lanes;
    this.#answers = answers;
    this.#routing = routing;
  }

  /** How texts are to be read hangs on an answer that is still to come. */
  readingIsOpen(): boolean {
    if (!this.#readsTextAnew) return false;
    const { connection } = this.#lanes.current;
    // Without a Sync the answers would not come: a batch is read as it began.
    if (connection !== null && connection.replies.length > 0) return !connection.replies.unsynced();
    this.#readsTextAnew = false;
    return false;
  }

  /** All that was sent has been answered, and the lane is free. */
  laneIsFree(): void {
    this.#repeatable = null;
    // A DEALLOCATE that failed drops nothing.
    this.#deallocated.length = 0;
  }

  /** A command's tag on its way to the client. */
  tag(tag: string): void {
    if (tag === 'DEALLOCATE') {
      const name = this.#deallocated.shift();
      if (name !== undefined) this.#context.extended.deallocated(name, this.#lanes.current.connection!);
    } else if (tag === 'DEALLOCATE ALL' || tag === 'DISCARD ALL') this.#deallocated = [];
  }

  /** Sends the single batch again whose plan had gone stale. */
  repeat(): void {
    const { extended } = this.#context;
    const bytes = this.#repeatable;
    const source = this.#repeatSource;
    const { connection } = this.#lanes.current;
    this.#repeatable = null;
    assert(bytes !== null && source !== null && connection !== null, 'only a batch that was kept is repeated');
    connection.forget(source);
    extended.sendBatch(bytes, scanSingleBatch(bytes, 0)!, source, connection);
    connection.output.flush();
  }

  query(): Handling {
    const { session, services, reader, kv, extended, templateOf } = this.#context;
    const { buffer, start, end } = reader;
    const textEnd = buffer.indexOf(0, start + 5);
    const wellFormed = textEnd === end - 1;
    const text = wellFormed ? buffer.toString('utf8', start + 5, textEnd) : '';
    // What is no UTF-8 is not rewritten: decoding would change it, and the server has to say that it is invalid.
    const readable = !kv.exist || !wellFormed || isUtf8(buffer.subarray(start + 5, textEnd));
    const template = !wellFormed ? NEUTRAL_TEMPLATE : readable ? templateOf(text) : UNPARSED_TEMPLATE;
    if (template.showName?.startsWith('pgkv.') && this.#lanes.current.mode === 'free') {
      const value = services.show(template.showName.slice(5));
      if (value !== null) {
        this.#answers.show(template.showName, value);
        return 'taken';
      }
    }
    let rewritten: RewrittenText | null = null;
    if (kv.exist) {
      const routed = this.#routing.query(template, text);
      if (routed === 'wait' || routed === 'taken') return routed;
      rewritten = routed;
    }
    const lane = this.#lanes.current;
    if (template.statementNames.length > 0 && lane.connection !== null) {
      const { replies } = lane.connection;
      // What the names stand for may depend on answers to come. Without a Sync they would not come before this.
      if (replies.length > 0 && !replies.unsynced()) return 'wait';
    }
    const ensured = this.#answers.ensure(template);
    if (ensured !== 'ready') return ensured;
    const connection = lane.connection!;
    this.#routing.note(template, text);
    lane.note(template, text);
    services.counters.statements++;
    connection.unnamed = null;
    if (rewritten !== null) {
      connection.output.push(encodeQuery(rewrittenText(rewritten)));
      connection.replies.push(queryOf(rewritten));
      return 'taken';
    }
    const failed = connection.status === TransactionStatus.failed;
    if (template.statementNames.length > 0 && !failed && namesOwnStatements(template, session)) {
      connection.watchTags = true;
      const replaced = replaceStatementNames(text, template, session, connection, this.#deallocated);
      connection.output.push(encodeQuery(replaced));
    } else connection.output.push(buffer.subarray(start, end));
    connection.replies.push(forwarded(Reply.query));
    if (dropsStatements(template)) extended.dropsNames(connection);
    if (mayChangeReading(template)) this.#readsTextAnew = true;
    return 'taken';
  }

  functionCall(): Handling {
    if (this.#context.kv.exist) {
      const routed = this.#routing.functionCall();
      if (routed !== 'ready') return routed;
    }
    const ensured = this.#answers.ensure(UNPARSED_TEMPLATE);
    if (ensured !== 'ready') return ensured;
    this.#routing.note(UNPARSED_TEMPLATE, '');
    this.#lanes.current.note(UNPARSED_TEMPLATE, '');
    const { buffer, start, end } = this.#context.reader;
    const connection = this.#lanes.current.connection!;
    connection.output.push(buffer.subarray(start, end));
    connection.replies.push(forwarded(Reply.functionCall));
    return 'taken';
  }

  /** Parse, Bind, Describe, Execute, Close; with a Parse or Bind the whole batch where it can be sent as one. */
  extended(type: number): Handling {
    const { services, reader, placement, kv, extended } = this.#context;
    const { buffer, start, end } = reader;
    const isBind = type === Frontend.bind;
    if (isBind) {
      const settled = this.#settleDescription();
      if (settled !== 'ready') return settled;
    }
    if (kv.exist) {
      const routed = this.#routing.message(type);
      if (routed !== 'ready') return routed;
    }
    if (this.#routing.mayBatch(type)) {
      const sent = this.#singleBatch();
      if (sent !== 'ready') return sent;
    }
    const lane = this.#lanes.current;
    if (lane.connection !== null && extended.dependsOnAnswers(type, buffer, start, end, lane.connection)) return 'wait';
    const source = extended.namedSource(type, buffer, start, end);
    const template = source === null ? NEUTRAL_TEMPLATE : source.template;
    const ensured = this.#answers.ensure(template);
    if (ensured !== 'ready') return ensured;
    const connection = lane.connection!;
    const text = source === null ? '' : source.text;
    this.#routing.note(isBind ? template : NEUTRAL_TEMPLATE, text);
    if (type === Frontend.parse) lane.foresee(template);
    if (isBind) {
      if (kv.exist) placement.noteBound(template);
      lane.note(template, text);
      services.counters.statements++;
      if (template.statementNames.length > 0) connection.watchTags = true;
    }
    extended.forward(type, buffer, start, end, connection, this.#deallocated);
    if (isBind && mayChangeReading(template)) this.#readsTextAnew = true;
    if (isBind && dropsStatements(template)) extended.dropsNames(connection);
    return 'taken';
  }

  /** Sends what begins at hand as one batch. `ready`: it is none, and its messages are sent one by one. */
  #singleBatch(): Handling {
    const { services, reader, extended } = this.#context;
    const { buffer, start } = reader;
    const batch = scanSingleBatch(buffer, start);
    // With more behind it the batch is not on its own: see `guarded` in Conversation.
    if (batch === null || batch.end !== buffer.length) return 'ready';
    const source = extended.batchSource(buffer, batch);
    if (source === null) return 'ready';
    const ensured = this.#answers.ensure(source.template);
    if (ensured !== 'ready') return ensured;
    const lane = this.#lanes.current;
    lane.note(source.template, source.text);
    services.counters.statements++;
    this.#repeatable = buffer.subarray(start, batch.end);
    this.#repeatSource = source;
    this.#routing.noteBatch();
    lane.connection!.guarded = true;
    lane.shapeIsTold = batch.parses || batch.describes;
    extended.sendBatch(buffer, batch, source, lane.connection!);
    reader.skipTo(batch.end);
    return 'taken';
  }

  /**
   * Where DDL went through since the client was told of the result of the statement it binds: asks whether that still
   * holds.
   */
  #settleDescription(): Handling {
    const { reader, extended } = this.#context;
    const { buffer, start, end } = reader;
    const epoch = this.#lanes.home.schemaEpoch;
    const doubtful = extended.doubtful(buffer, start, end, epoch);
    if (doubtful === null) return 'ready';
    const lane = this.#lanes.current;
    const replies = lane.connection?.replies;
    // In the middle of a batch pgkv cannot ask: its Sync would end the batch's transaction.
    if (replies?.unsynced() === true) return 'ready';
    if (replies === undefined || replies.length === 0) {
      const ensured = this.#answers.ensure(doubtful.source.template);
      if (ensured !== 'ready') return ensured;
      lane.askShape(doubtful.source, (shape) => extended.settle(doubtful.name, shape, epoch));
    }
    return 'wait';
  }

  flush(): void {
    const { connection } = this.#lanes.current;
    const { buffer, start, end } = this.#context.reader;
    if (connection === null) this.#answers.flush();
    else connection.output.push(buffer.subarray(start, end));
  }

  sync(): void {
    this.#routing.sync();
    const { connection } = this.#lanes.current;
    if (this.#answers.skipping || connection === null) {
      this.#answers.sync();
      return;
    }
    const { buffer, start, end } = this.#context.reader;
    connection.output.push(buffer.subarray(start, end));
    if (!connection.copyIn) connection.replies.push(forwarded(Reply.sync));
  }

  /**
   * CopyData, CopyDone, CopyFail. Outside a copy they are ignored, as Postgres does: the copy has failed and the client
   * does not know yet.
   * @param whole the message's end is at hand
   */
  copy(type: number, whole: boolean): void {
    const lane = this.#lanes.current;
    const { connection } = lane;
    if (connection === null || this.#answers.skipping) return;
    const { buffer, start, end } = this.#context.reader;
    connection.output.push(buffer.subarray(start, end));
    if (type !== Frontend.copyData) {
      // Sent before the server has said that it is in a copy: it counts from when it says so.
      if (!connection.copyIn && connection.replies.length > 0) connection.replies.push(forwarded(Reply.copyEnd));
      connection.copyIn = false;
    }
    if (!whole) lane.midMessage = true;
    else if (lane.midMessage) {
      connection.output.flush();
      lane.messageFinished();
    }
  }
}
