// Messages of the extended protocol on their way to a server: the client's statement names are translated to the ones
// on the connection that serves it at the moment. Errors are left to the server wherever it can word them itself.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY

import { isUtf8 } from 'node:buffer';
import { assuming, bindAfterLocalParse, forwarded, Reply, type ReplyQueue, swallowed } from '../backend/reply-queue.js';
import { type ServerConnection, STATEMENT_NAME_PREFIX } from '../backend/server-connection.js';
import { type StatementSource, type StatementSources, unknownStatement } from '../backend/statement-source.js';
import { PgkvError } from '../base/errors.js';
import { namesOwnStatements, replaceStatementNames } from '../execute/statement-names.js';
import type { Session } from '../session/session.js';
import { Effect } from '../sql/template.js';
import { encodeBindFor, encodeNamed, encodeParse, stringEnd } from '../wire/client-messages.js';
import { Frontend } from '../wire/protocol.js';
import { CLOSE_COMPLETE } from '../wire/server-messages.js';
import type { SingleBatch } from './single-batch.js';

const STATEMENT = 0x53;

/** A statement's name as Postgres keeps it: cut at NAMEDATALEN, 63 bytes. */
function nameOfStatement(buffer: Buffer, start: number, end: number): string {
  return buffer.toString('utf8', start, Math.min(end, start + 63));
}

export class ExtendedProtocol {
  readonly #session: Session;
  readonly #sources: StatementSources;
  readonly #statementBytesMax: number;
  /** By name, where the answer stands in the queue to the last message that made or dropped the statement. */
  readonly #unsettled = new Map<string, { readonly replies: ReplyQueue; readonly place: number }>();
  #unnamedBefore: StatementSource | null = null;

  constructor(session: Session, services: { sources: StatementSources; statementBytesMax: number }) {
    this.#session = session;
    this.#statementBytesMax = services.statementBytesMax;
    this.#sources = services.sources;
  }

  /** The statement of a single batch, where the batch can be sent under a shared name; else null. */
  batchSource(buffer: Buffer, batch: SingleBatch): StatementSource | null {
    let source: StatementSource | undefined;
    if (batch.parses) {
      source = this.#sources.intern(
        buffer,
        batch.textStart,
        batch.textEnd,
        batch.parseEnd,
        this.#session.standardStrings,
      );
      // A text seen once may never come again: not worth a name on the server.
      if (source.uses < 2 || source.noisy) return null;
      // Such strings give warnings each time they are parsed.
      if (!this.#session.standardStrings && source.text.includes('\\')) return null;
    } else if (batch.nameEnd === batch.nameStart) {
      if (this.#session.unnamed === null || this.#session.unnamed === unknownStatement) return null;
      source = this.#session.unnamed;
    } else source = this.#session.statement(nameOfStatement(buffer, batch.nameStart, batch.nameEnd));
    if (source === undefined) return null;
    const { kind, effects } = source.template;
    return effects === Effect.none && (kind === 'read' || kind === 'write') ? source : null;
  }

  /** Such a batch is alone under way, so one function does for all. */
  readonly #batchParseUndone = (refused: boolean): void => {
    this.#session.unnamed = refused ? null : this.#unnamedBefore;
  };

  /** Sends a batch with its statement, `source`, prepared under a name of pgkv's own. */
  sendBatch(buffer: Buffer, batch: SingleBatch, source: StatementSource, connection: ServerConnection): void {
    const session = this.#session;
    if (batch.parses) {
      this.#unnamedBefore = session.unnamed;
      session.unnamed = source;
    }
    const undone = batch.parses ? this.#batchParseUndone : undefined;
    const name = connection.prepare(source, session.settings.semantics, undone);
    connection.output.push(encodeBindFor(buffer, batch.bindStart, batch.bindEnd, batch.nameStart, batch.nameEnd, name));
    connection.output.push(buffer.subarray(batch.bindEnd, batch.end));
    connection.replies.push(batch.parses ? bindAfterLocalParse : forwarded(Reply.bind));
    if (batch.describes) connection.replies.push(forwarded(Reply.describePortal));
    connection.replies.push(forwarded(Reply.execute));
    connection.replies.push(forwarded(Reply.sync));
  }

  /** The statement a message brings (Parse) or names; null where it names none. Malformed ones are left to the server. */
  namedSource(type: number, buffer: Buffer, start: number, end: number): StatementSource | null {
    if (type === Frontend.parse) return this.#parsedSource(buffer, start, end);
    if (type === Frontend.bind) {
      const nameStart = buffer.indexOf(0, start + 5) + 1;
      const nameEnd = buffer.indexOf(0, nameStart);
      if (nameStart === 0 || nameEnd < 0 || nameEnd >= end) return null;
      return this.#boundSource(buffer, nameStart, nameEnd) ?? null;
    }
    if (type === Frontend.describe && buffer[start + 5] === STATEMENT) {
      return this.#boundSource(buffer, start + 6, end - 1) ?? null;
    }
    return null;
  }

  /**
   * Whether what this message names cannot be told yet: an earlier batch made or dropped a statement of that name, and
   * the server may still skip that. Messages of the same batch would be skipped with it.
   */
  dependsOnAnswers(type: number, buffer: Buffer, start: number, end: number, connection: ServerConnection): boolean {
    if (this.#unsettled.size === 0) return false;
    if (connection.replies.length === 0) {
      this.#unsettled.clear();
      return false;
    }
    let nameStart = start + 5;
    if (type === Frontend.bind) nameStart = buffer.indexOf(0, nameStart) + 1;
    else if (type === Frontend.describe) nameStart++;
    else if (type !== Frontend.parse) return false;
    const nameEnd = buffer.indexOf(0, nameStart);
    if (nameEnd < 0 || nameEnd >= end) return false;
    const change = this.#unsettled.get(nameOfStatement(buffer, nameStart, nameEnd));
    return change !== undefined && change.replies === connection.replies && change.replies.owesEarlierBatch(change.place);
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

  /** A SQL-level DEALLOCATE of this protocol-level statement succeeded. */
  deallocated(name: string, connection: ServerConnection): void {
    const source = this.#session.statement(name);
    if (source === undefined) return;
    connection.prepared.delete(source);
    this.#session.dropStatement(name);
  }

  #parsedSource(buffer: Buffer, start: number, end: number): StatementSource | null {
    const nameEnd = buffer.indexOf(0, start + 5);
    const textEnd = nameEnd < 0 ? -1 : buffer.indexOf(0, nameEnd + 1);
    if (textEnd < 0 || textEnd + 3 > end) return null;
    return this.#sources.intern(buffer, nameEnd + 1, textEnd, end, this.#session.standardStrings);
  }

  #boundSource(buffer: Buffer, nameStart: number, nameEnd: number): StatementSource | undefined {
    if (nameStart === nameEnd) return this.#session.unnamed ?? undefined;
    return this.#session.statement(nameOfStatement(buffer, nameStart, nameEnd));
  }

  #parse(buffer: Buffer, start: number, end: number, connection: ServerConnection, deallocated: string[]): void {
    const session = this.#session;
    let source = this.#parsedSource(buffer, start, end);
    if (source === null) return this.#raw(Reply.parse, buffer, start, end, connection);
    const { template } = source;
    if (template.statementNames.length > 0 && namesOwnStatements(template, session)) {
      const text = replaceStatementNames(source.text, template, session, connection, deallocated);
      source = { ...source, parseTail: Buffer.from(`${text}\0\0\0`, 'utf8') };
    }
    const nameEnd = buffer.indexOf(0, start + 5);
    if (!isUtf8(buffer.subarray(start + 5, nameEnd))) return this.#raw(Reply.parse, buffer, start, end, connection);
    const name = nameOfStatement(buffer, start + 5, nameEnd);
    if (name === '') {
      const [ownBefore, serversBefore] = [session.unnamed, connection.unnamed];
      session.unnamed = source;
      connection.unnamed = source;
      // A Parse that fails has already dropped the statement before it; one that is skipped has not.
      const undo = (refused: boolean): void => {
        session.unnamed = refused ? null : ownBefore;
        connection.unnamed = refused ? unknownStatement : serversBefore;
      };
      const parsed = source;
      const noticed = (): void => {
        parsed.noisy = true;
      };
      connection.replies.push(assuming(Reply.parse, false, { undo, noticed }));
      connection.output.push(encodeParse('', source.parseTail));
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
    this.#changed(name, connection);
  }

  #changed(name: string, { replies }: ServerConnection): void {
    this.#unsettled.set(name, { replies, place: replies.nextPlace - 1 });
  }

  /** The name is taken: prepares it twice under its own name, so that the server words the error. */
  #duplicate(name: string, source: StatementSource, connection: ServerConnection): void {
    connection.output.push(encodeParse(name, source.parseTail));
    connection.replies.push(swallowed(Reply.parse));
    connection.output.push(encodeParse(name, source.parseTail));
    connection.replies.push(forwarded(Reply.parse));
    // That name stays on the connection, which therefore serves nobody else.
    connection.retired = true;
  }

  #bind(buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    const nameStart = stringEnd(buffer, start + 5, end) + 1;
    const nameEnd = nameStart === 0 ? -1 : stringEnd(buffer, nameStart, end);
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
    if (name === null) return this.#raw(kind, buffer, start, end, connection);
    connection.output.push(encodeNamed(Frontend.describe, 'S', name));
    connection.replies.push(forwarded(kind));
  }

  /** What a statement is called on this connection; null where the client's own words are to be passed on. */
  #serverName(buffer: Buffer, nameStart: number, nameEnd: number, connection: ServerConnection): string | null {
    const session = this.#session;
    const source = this.#boundSource(buffer, nameStart, nameEnd);
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
    // The prefix is pgkv's own: what stands under it on a server is not the client's to reach.
    return name.startsWith(STATEMENT_NAME_PREFIX) ? `${name} ` : null;
  }

  #close(buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    const session = this.#session;
    const target = buffer[start + 5];
    const nameEnd = stringEnd(buffer, start + 6, end);
    if (target !== STATEMENT || nameEnd < 0) return this.#raw(Reply.close, buffer, start, end, connection);
    if (nameEnd === start + 6) {
      session.unnamed = null;
      return this.#closeUnnamed(connection, false);
    }
    const name = nameOfStatement(buffer, start + 6, nameEnd);
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
    this.#changed(name, connection);
  }

  #closeUnnamed(connection: ServerConnection, swallow: boolean): void {
    connection.unnamed = null;
    const undo = (): void => {
      connection.unnamed = unknownStatement;
    };
    connection.output.push(encodeNamed(Frontend.close, 'S', ''));
    connection.replies.push(assuming(Reply.close, swallow, { undo }));
  }

  #raw(
    kind: (typeof Reply)[keyof typeof Reply],
    buffer: Buffer,
    start: number,
    end: number,
    connection: ServerConnection,
  ): void {
    connection.output.push(buffer.subarray(start, end));
    connection.replies.push(forwarded(kind));
  }
}
