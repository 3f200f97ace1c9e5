// Messages of the extended protocol on their way to a server: the client's statement names are translated to the ones
// on the connection that serves it at the moment. Errors are left to the server wherever it can word them itself.
// What a message names is NamedStatements' to find, which names hang on answers to come UnsettledNames'.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY

import { isUtf8 } from 'node:buffer';
import { type ServerConnection, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import {
  assuming,
  bindAfterLocalParse,
  describing,
  forwarded,
  type Owed,
  parsing,
  provokedError,
  Reply,
  type ReplyKind,
  swallowed,
} from '../../backend/replies/reply-queue.js';
import {
  type StatementSource,
  type StatementSources,
  unknownStatement,
} from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { namesOwnStatements, replaceStatementNames } from '../../execute/leased/statement-names.js';
import type { Session } from '../../session/session.js';
import type { UnnamedChange } from '../../session/unnamed-statement.js';
import { Effect } from '../../sql/plan/template.js';
import { encodeBindFor, encodeNamed, encodeParse, stringEnd } from '../../wire/client-messages.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frontend } from '../../wire/protocol.js';
import { CLOSE_COMPLETE } from '../../wire/server-messages.js';
import type { KvStatements } from '../unit/kv-statements.js';
import { NamedStatements } from '../unit/named-statements.js';
import type { SingleBatch } from '../unit/single-batch.js';
import { UnsettledNames } from '../unit/unsettled-names.js';

const STATEMENT = 0x53;

const STALE_PLAN = encodeErrorResponse({
  S: 'ERROR',
  V: 'ERROR',
  C: '0A000',
  M: 'cached plan must not change result type',
  F: 'plancache.c',
  R: 'RevalidateCachedQuery',
});

export class ExtendedProtocol {
  readonly #session: Session;
  readonly #statementBytesMax: number;
  readonly #schemaEpoch: () => number;
  readonly #named: NamedStatements;
  readonly #unsettled = new UnsettledNames();

  /** @param schemaEpoch the one in force */
  constructor(
    session: Session,
    services: { sources: StatementSources; statementBytesMax: number },
    kv: KvStatements,
    schemaEpoch: () => number,
  ) {
    this.#session = session;
    this.#schemaEpoch = schemaEpoch;
    this.#statementBytesMax = services.statementBytesMax;
    this.#named = new NamedStatements(session, services.sources, kv);
  }

  /** The statement of a single batch, where the batch can be sent under a shared name; else null. */
  batchSource(buffer: Buffer, batch: SingleBatch): StatementSource | null {
    const session = this.#session;
    let source: StatementSource | undefined;
    if (batch.parses) {
      source = this.#named.intern(buffer, batch.textStart, batch.textEnd, batch.parseEnd);
      // A text seen once may never come again: not worth a name on the server.
      if (source.uses < 1 || source.noisy) return null;
      // Such strings give warnings each time they are parsed.
      if (session.textReading !== 'standard' && source.text.includes('\\')) return null;
    } else {
      const name = this.#named.name(buffer, batch.nameStart, batch.nameEnd);
      source = name === '' ? (session.unnamed.source ?? undefined) : session.statement(name);
      if (session.description(name)?.stale === true) return null;
    }
    if (source === undefined) return null;
    const { kind, effects } = source.template;
    return effects === Effect.none && (kind === 'read' || kind === 'write') ? source : null;
  }

  /** Sends a batch with its statement, `source`, prepared under a name of pgkv's own. */
  sendBatch(buffer: Buffer, batch: SingleBatch, source: StatementSource, connection: ServerConnection): void {
    const session = this.#session;
    const { semantics } = session.settings;
    let name: string;
    if (batch.parses) session.dropDescription('');
    if (!batch.parses) name = connection.prepare(source, semantics);
    else if (connection.isPrepared(source, semantics)) {
      session.unnamed.set(source);
      name = connection.prepare(source, semantics);
    } else {
      connection.forget(source);
      const change = session.unnamed.change(source, connection.replies);
      name = connection.parse(source, semantics, true, (refused) => session.unnamed.undo(change, refused));
    }
    connection.output.push(encodeBindFor(buffer, batch.bindStart, batch.bindEnd, batch.nameStart, batch.nameEnd, name));
    connection.output.push(buffer.subarray(batch.bindEnd, batch.end));
    connection.replies.push(batch.parses ? bindAfterLocalParse : forwarded(Reply.bind));
    if (batch.describes) connection.replies.push(forwarded(Reply.describePortal));
    connection.replies.push(forwarded(Reply.execute));
    connection.replies.push(forwarded(Reply.sync));
  }

  /** The statement a message brings (Parse) or names; null where it names none. Malformed ones are left to the server. */
  namedSource(type: number, buffer: Buffer, start: number, end: number): StatementSource | null {
    if (type === Frontend.parse) return this.#named.parsed(buffer, start, end);
    if (type === Frontend.bind) {
      const nameStart = buffer.indexOf(0, start + 5) + 1;
      const nameEnd = buffer.indexOf(0, nameStart);
      if (nameStart === 0 || nameEnd < 0 || nameEnd >= end) return null;
      return this.#named.prepared(buffer, nameStart, nameEnd) ?? null;
    }
    if (type === Frontend.describe && buffer[start + 5] === STATEMENT) {
      return this.#named.prepared(buffer, start + 6, end - 1) ?? null;
    }
    return null;
  }

  /**
   * The statement a Bind names where the client was told of its result before DDL went through and cannot notice what
   * has changed; else null.
   */
  doubtful(
    buffer: Buffer,
    start: number,
    end: number,
    epoch: number,
  ): { name: string; source: StatementSource } | null {
    const nameStart = stringEnd(buffer, start + 5, end) + 1;
    const nameEnd = nameStart === 0 ? -1 : stringEnd(buffer, nameStart, end);
    if (nameEnd < 0) return null;
    const name = this.#named.name(buffer, nameStart, nameEnd);
    const description = this.#session.description(name);
    if (description === undefined || description.stale || description.epoch === epoch) return null;
    const source = this.#named.prepared(buffer, nameStart, nameEnd);
    return source === undefined || source === unknownStatement ? null : { name, source };
  }

  /** What the server says now of the result of a doubtful statement. */
  settle(name: string, shape: string | null, epoch: number): void {
    const description = this.#session.description(name);
    if (description === undefined) return;
    const stale = shape !== null && shape !== description.shape;
    this.#session.setDescription(name, { shape: description.shape, epoch, stale });
  }

  /**
   * Whether what this message names cannot be told yet: an earlier batch made or dropped a statement of that name, or
   * prepares it on this connection, and the server may still skip that. Messages of one batch are skipped together.
   */
  dependsOnAnswers(type: number, buffer: Buffer, start: number, end: number, connection: ServerConnection): boolean {
    const { replies, parsing } = connection;
    if (replies.length === 0) this.#unsettled.clear();
    if (this.#unsettled.empty && !parsing) return false;
    let nameStart = start + 5;
    if (type === Frontend.bind) nameStart = buffer.indexOf(0, nameStart) + 1;
    else if (type === Frontend.describe || type === Frontend.close) nameStart++;
    else if (type !== Frontend.parse) return false;
    const nameEnd = buffer.indexOf(0, nameStart);
    if (nameEnd < 0 || nameEnd >= end) return false;
    // A new unnamed statement needs nothing of the old one.
    if (type === Frontend.parse && nameStart === nameEnd) return false;
    if (this.#unsettled.isOpen(this.#named.name(buffer, nameStart, nameEnd), replies)) return true;
    const source = type === Frontend.parse ? undefined : this.#named.prepared(buffer, nameStart, nameEnd);
    return parsing && source !== undefined && connection.dependsOnParse(source);
  }

  /** A statement was sent that may drop statements of any name. */
  dropsNames(connection: ServerConnection): void {
    this.#unsettled.allChanged(connection.replies);
  }

  /** Passes on one message. `deallocated`: see `replaceStatementNames`. */
  forward(
    type: number,
    buffer: Buffer,
    start: number,
    end: number,
    connection: ServerConnection,
    deallocated: string[],
  ): void {
    switch (type) {
      case Frontend.parse:
        return this.#parse(buffer, start, end, connection, deallocated);
      case Frontend.bind:
        return this.#bind(buffer, start, end, connection);
      case Frontend.describe:
        return this.#describe(buffer, start, end, connection);
      case Frontend.close:
        return this.#close(buffer, start, end, connection);
      default:
        connection.output.push(buffer.subarray(start, end));
        connection.replies.push(forwarded(Reply.execute));
    }
  }

  /** A Parse that pgkv has answered without a server: the statement is prepared where it is run. */
  parsedLocally(buffer: Buffer, start: number, end: number): void {
    const source = this.#named.parsed(buffer, start, end);
    if (source === null) return;
    const name = this.#named.name(buffer, start + 5, buffer.indexOf(0, start + 5));
    if (name === '') this.#session.unnamed.set(source);
    else if (this.#session.statement(name) === undefined) this.#session.setStatement(name, source);
  }

  /** A SQL-level DEALLOCATE of this protocol-level statement succeeded. */
  deallocated(name: string, connection: ServerConnection): void {
    const source = this.#session.statement(name);
    if (source === undefined) return;
    connection.prepared.delete(source);
    this.#session.dropStatement(name);
  }

  /** The messages at hand have been dealt with: their chunk is not kept for their sake. */
  forgetMessages(): void {
    this.#named.forgetMessages();
  }

  #parse(buffer: Buffer, start: number, end: number, connection: ServerConnection, deallocated: string[]): void {
    const session = this.#session;
    let source = this.#named.parsed(buffer, start, end);
    if (source === null) return this.#raw(Reply.parse, buffer, start, end, connection);
    const { template } = source;
    if (template.statementNames.length > 0 && namesOwnStatements(template, session)) {
      const text = replaceStatementNames(source.text, template, session, connection, deallocated);
      source = { ...source, parseTail: Buffer.from(`${text}\0\0\0`, 'utf8') };
    }
    const nameEnd = buffer.indexOf(0, start + 5);
    if (!isUtf8(buffer.subarray(start + 5, nameEnd))) return this.#raw(Reply.parse, buffer, start, end, connection);
    const name = this.#named.name(buffer, start + 5, nameEnd);
    if (name === '') {
      source.uses++;
      session.dropDescription('');
      const change = session.unnamed.change(source, connection.replies);
      connection.unnamed = source;
      const parsed = source;
      const undo = (refused: boolean): void => {
        session.unnamed.undo(change, refused);
        // A later Parse has sent another one by now, or this very one.
        if (connection.unnamed === parsed) connection.unnamed = unknownStatement;
      };
      const noticed = (): void => {
        parsed.noisy = true;
      };
      connection.replies.push(parsing(source.rewritten, false, { undo, noticed }));
      connection.output.push(encodeParse('', source.parseTail));
      this.#unsettled.changed('', connection.replies);
      return;
    }
    if (session.statement(name) !== undefined) {
      return this.#duplicate(buffer.toString('latin1', start + 5, nameEnd), source, connection);
    }
    if (session.statementBytes > this.#statementBytesMax) {
      const detail = `the prepared statements of this session have more than ${this.#statementBytesMax} bytes (limits.session_statement_bytes)`;
      throw new PgkvError('limit_exceeded', { detail });
    }
    session.setStatement(name, source);
    connection.parse(source, session.settings.semantics, false, () => session.dropStatement(name));
    this.#unsettled.changed(name, connection.replies);
  }

  /** What `#duplicate` left under a name is not the client's statement, which is gone by now. */
  #closeStray(name: string, connection: ServerConnection): void {
    if (!connection.strayNames.delete(name)) return;
    const undo = (): void => {
      connection.strayNames.add(name);
    };
    connection.output.push(encodeNamed(Frontend.close, 'S', name));
    connection.replies.push(assuming(Reply.close, true, { undo }));
  }

  /** The name is taken: prepares it twice under its own name, so that the server words the error. */
  #duplicate(name: string, source: StatementSource, connection: ServerConnection): void {
    connection.output.push(encodeParse(name, source.parseTail));
    connection.replies.push(swallowed(Reply.parse));
    connection.output.push(encodeParse(name, source.parseTail));
    connection.replies.push(forwarded(Reply.parse));
    // That name stays on the connection, which therefore serves nobody else.
    connection.strayNames.add(name);
    connection.retired = true;
  }

  #bind(buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    const nameStart = stringEnd(buffer, start + 5, end) + 1;
    const nameEnd = nameStart === 0 ? -1 : stringEnd(buffer, nameStart, end);
    if (nameEnd >= 0 && this.#named.isStale(buffer, nameStart, nameEnd)) {
      // The error Postgres has for it. Binding what does not exist makes the server abort what has to be aborted.
      connection.output.push(encodeBindFor(buffer, start, end, nameStart, nameEnd, `${STATEMENT_NAME_PREFIX}stale`));
      connection.replies.push(provokedError(Reply.bind, STALE_PLAN));
      return;
    }
    const name = nameEnd < 0 ? null : this.#serverName(buffer, nameStart, nameEnd, connection);
    if (name === null) return this.#raw(Reply.bind, buffer, start, end, connection);
    connection.output.push(encodeBindFor(buffer, start, end, nameStart, nameEnd, name));
    connection.replies.push(forwarded(Reply.bind));
  }

  #describe(buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    const nameEnd = stringEnd(buffer, start + 6, end);
    const kind = buffer[start + 5] === STATEMENT && nameEnd >= 0 ? Reply.describeStatement : Reply.describePortal;
    if (kind === Reply.describePortal) return this.#raw(kind, buffer, start, end, connection);
    const name = this.#serverName(buffer, start + 6, nameEnd, connection);
    if (name === null) {
      connection.output.push(buffer.subarray(start, end));
      connection.replies.push(this.#describing(buffer, start + 6, nameEnd));
      return;
    }
    connection.output.push(encodeNamed(Frontend.describe, 'S', name));
    connection.replies.push(this.#describing(buffer, start + 6, nameEnd));
  }

  #describing(buffer: Buffer, nameStart: number, nameEnd: number): Owed {
    const name = this.#named.name(buffer, nameStart, nameEnd);
    const epoch = this.#schemaEpoch();
    return describing(false, (shape) => this.#session.setDescription(name, { shape, epoch, stale: false }));
  }

  /** What a statement is called on this connection; null where the client's own words are to be passed on. */
  #serverName(buffer: Buffer, nameStart: number, nameEnd: number, connection: ServerConnection): string | null {
    const session = this.#session;
    const source = this.#named.prepared(buffer, nameStart, nameEnd);
    if (source !== undefined && source !== unknownStatement) {
      if (nameStart === nameEnd && connection.unnamed === source) return null;
      return connection.prepare(source, session.settings.semantics);
    }
    if (nameStart === nameEnd) {
      // Another session's unnamed statement must not answer: the server is made to say that there is none.
      if (connection.unnamed !== null) this.#closeUnnamed(connection, true);
      return null;
    }
    const name = buffer.toString('latin1', nameStart, nameEnd);
    this.#closeStray(name, connection);
    // The prefix is pgkv's own: what stands under it on a server is not the client's to reach.
    return name.startsWith(STATEMENT_NAME_PREFIX) ? `${name} ` : null;
  }

  #close(buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    const session = this.#session;
    const target = buffer[start + 5];
    const nameEnd = stringEnd(buffer, start + 6, end);
    if (target !== STATEMENT || nameEnd < 0) return this.#raw(Reply.close, buffer, start, end, connection);
    if (nameEnd === start + 6) {
      this.#closeUnnamed(connection, false, session.unnamed.change(null, connection.replies));
      this.#unsettled.changed('', connection.replies);
      return;
    }
    const name = this.#named.name(buffer, start + 6, nameEnd);
    const source = session.statement(name);
    if (source === undefined && !name.startsWith(STATEMENT_NAME_PREFIX)) {
      // It may have been made by PREPARE.
      return this.#raw(Reply.close, buffer, start, end, connection);
    }
    session.dropStatement(name);
    // The connection keeps the statement for the next session that prepares the same text.
    const undo = (): void => {
      if (source !== undefined) session.setStatement(name, source);
    };
    connection.replyLocally(CLOSE_COMPLETE, { undo });
    this.#unsettled.changed(name, connection.replies);
  }

  #closeUnnamed(connection: ServerConnection, swallow: boolean, change: UnnamedChange | null = null): void {
    connection.unnamed = null;
    const undo = (refused: boolean): void => {
      if (change !== null) this.#session.unnamed.undo(change, refused);
      if (connection.unnamed === null) connection.unnamed = unknownStatement;
    };
    connection.output.push(encodeNamed(Frontend.close, 'S', ''));
    connection.replies.push(assuming(Reply.close, swallow, { undo }));
  }

  #raw(kind: ReplyKind, buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    connection.output.push(buffer.subarray(start, end));
    connection.replies.push(forwarded(kind));
  }
}
