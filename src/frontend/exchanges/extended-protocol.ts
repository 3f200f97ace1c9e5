// Messages of the extended protocol on their way to a server: the client's statement names are translated to the ones
// on the connection that serves it at the moment. Errors are left to the server wherever it can word them itself.
// What a message names is NamedStatements' to find, which names hang on answers to come UnsettledNames', what statements are
// called on a connection ServerNames', and what drops them behind the protocol StatementDrops'.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY

import { isUtf8 } from 'node:buffer';
import { type ServerConnection, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import type { Deed } from '../../backend/replies/deeds.js';
import {
  describing,
  doing,
  forwarded,
  type Owed,
  parsing,
  provokedError,
  Reply,
  type ReplyKind,
} from '../../backend/replies/reply-queue.js';
import { type StatementSource, unknownStatement } from '../../backend/replies/statement-source.js';
import { namesOwnStatements, type RenamedText, replaceStatementNames } from '../../execute/leased/statement-names.js';
import type { Session } from '../../session/session.js';
import { Effect, type StatementNameReference, type Template } from '../../sql/plan/template.js';
import { encodeBindFor, encodeNamed, encodeParse, stringEnd } from '../../wire/client-messages.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frontend, TransactionStatus } from '../../wire/protocol.js';
import { CLOSE_COMPLETE } from '../../wire/server-messages.js';
import { type NamedStatements, portalIn } from '../unit/named-statements.js';
import type { SingleBatch } from '../unit/single-batch.js';
import type { Unit } from '../unit/unit.js';
import { UnsettledNames } from '../unit/unsettled-names.js';
import { ServerNames } from './server-names.js';
import { StatementDrops } from './statement-drops.js';

const STATEMENT = 0x53;
const STALE_PLAN = encodeErrorResponse({
  S: 'ERROR',
  V: 'ERROR',
  C: '0A000',
  M: 'cached plan must not change result type',
  F: 'plancache.c',
  R: 'RevalidateCachedQuery',
});

/** What is owed for a single batch behind its Bind, without and with Describe. */
const behindBind = (does: 'reads' | 'anything'): readonly [readonly Owed[], readonly Owed[]] => {
  const end = [doing(Reply.execute, does), forwarded(Reply.sync)];
  return [end, [forwarded(Reply.describePortal), ...end]];
};
const BEHIND_BIND = { reads: behindBind('reads'), anything: behindBind('anything') };

/**
 * What the client's names stand for is as if all that was sent succeeded; what a server refuses or skips is undone by the
 * assumption that was sent along. Until that is settled, messages of later batches that hang on it wait: dependsOnAnswers.
 */
export class ExtendedProtocol {
  readonly #session: Session;
  readonly #schemaEpoch: () => number;
  readonly #named: NamedStatements;
  readonly #unsettled = new UnsettledNames();
  readonly #drops: StatementDrops;
  readonly #names: ServerNames;

  /** @param schemaEpoch the one in force */
  constructor(session: Session, named: NamedStatements, schemaEpoch: () => number) {
    this.#session = session;
    this.#schemaEpoch = schemaEpoch;
    this.#named = named;
    this.#drops = new StatementDrops(session, this.#unsettled);
    this.#names = new ServerNames(session, named);
  }

  /**
   * The statement of a single batch, where the batch can be sent under a shared name; else null.
   * @param usesMin how often its text must have been sent before, where it is parsed in the batch
   */
  batchSource(buffer: Buffer, batch: SingleBatch, usesMin = 1): StatementSource | null {
    const session = this.#session;
    let source: StatementSource | undefined;
    if (batch.parses) {
      source = this.#named.intern(buffer, batch.textStart, batch.textEnd, batch.parseEnd);
      // A text seen once may never come again: not worth a name on the server.
      if (source.uses < usesMin || source.noisy) return null;
      // 'now' is the time of this Parse.
      if (source.readsClock) return null;
      // Such strings give warnings each time they are parsed.
      if (!session.textReading.standardStrings && source.text.includes('\\')) return null;
    } else {
      const name = this.#named.name(buffer, batch.nameStart, batch.nameEnd);
      source = this.#named.prepared(buffer, batch.nameStart, batch.nameEnd);
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
    const called = this.#named.name(buffer, batch.nameStart, batch.nameEnd);
    let name: string;
    if (batch.parses) session.dropDescription('');
    if (!batch.parses) name = connection.prepare(source, semantics, session.parsedSince(called));
    else if (connection.isPrepared(source, semantics)) {
      session.unnamed.set(source);
      name = connection.prepare(source, semantics);
    } else {
      connection.forget(source);
      const change = session.unnamed.change(source, connection.replies);
      name = connection.parse(source, semantics, true, { undo: (refused) => session.unnamed.undo(change, refused) });
    }
    const bind = encodeBindFor(buffer, batch.bindStart, batch.bindEnd, batch.nameStart, batch.nameEnd, name);
    const owed = BEHIND_BIND[source.template.readOnly ? 'reads' : 'anything'][batch.describes ? 1 : 0];
    connection.send(bind, this.#names.binding(name, called, 'anything', batch.parses));
    connection.sendAll(buffer.subarray(batch.bindEnd, batch.end), owed);
  }

  /**
   * Whether what this message names cannot be told yet: an earlier batch made or dropped a statement of that name, or
   * prepares it on this connection, and the server may still skip that. Messages of one batch are skipped together.
   */
  dependsOnAnswers(type: number, buffer: Buffer, start: number, end: number, connection: ServerConnection): boolean {
    const { replies, parsing } = connection;
    if (replies.length === 0) this.#unsettled.clear();
    if (this.#unsettled.empty && !parsing) return false;
    if (type === Frontend.execute) return this.#drops.dependsOnAnswers(portalIn({ buffer, start, end }), replies);
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
    if (source === undefined) return false;
    if (parsing && connection.dependsOnParse(source)) return true;
    return source.template.statementNames.some(({ name }) => {
      const named = this.#session.statement(name);
      return this.#unsettled.isOpen(name, replies) || (named !== undefined && connection.dependsOnParse(named));
    });
  }

  /** The text of a simple query with this session's names as the connection has them; see `replaceStatementNames`. */
  ownNames(template: Template, text: string, connection: ServerConnection): RenamedText | null {
    const session = this.#session;
    if (template.statementNames.length === 0 || !namesOwnStatements(template, session)) return null;
    // In a failed block nothing can be prepared: what its end lets through runs with what is there.
    if (connection.status === TransactionStatus.failed) {
      if (!template.endsFailure) return null;
      const isMissing = ({ name }: StatementNameReference): boolean => {
        const source = session.statement(name);
        return source !== undefined && !connection.isPrepared(source, session.settings.semantics);
      };
      if (template.statementNames.some(isMissing)) return null;
    }
    connection.watchTags = true;
    return replaceStatementNames(text, template, session, connection, this.#drops.begin());
  }

  /** A simple query was sent: it may drop statements of any name. */
  sentSql(template: Template, connection: ServerConnection): void {
    this.#drops.sentSql(template, connection);
  }

  /** All that was sent has been answered. */
  settledAll(): void {
    this.#drops.settledAll();
  }

  /** A simple query's tag on its way to the client. */
  tag(tag: string, connection: ServerConnection): void {
    this.#drops.tag(tag, connection);
  }

  /** Passes on one message. @param does what its statement does */
  forward(unit: Unit, source: StatementSource | null, connection: ServerConnection, does: Deed | null): void {
    const { type, buffer, start, end } = unit;
    switch (type) {
      case Frontend.parse:
        return this.#parse(buffer, start, end, connection, does);
      case Frontend.bind:
        return this.#bind(unit, source, connection, does);
      case Frontend.execute:
        return this.#execute(unit, connection, does);
      case Frontend.describe:
        return this.#describe(buffer, start, end, connection, does);
      case Frontend.close:
        return this.#close(buffer, start, end, connection);
    }
  }

  /** There are none any more: a server has said that it is outside a block, and owes nothing behind that. */
  portalsEnd(): void {
    this.#drops.portalsEnd();
    this.#names.portalsEnd();
  }

  #execute(unit: Unit, connection: ServerConnection, does: Deed | null): void {
    const bytes = unit.buffer.subarray(unit.start, unit.end);
    const names = this.#names.within(unit);
    const assumption = this.#drops.executed(unit, connection);
    const owed = doing(Reply.execute, does);
    const isPlain = names === undefined && assumption === null;
    connection.send(bytes, isPlain ? owed : { ...owed, names: names ?? null, assumption });
  }

  #parse(buffer: Buffer, start: number, end: number, connection: ServerConnection, does: Deed | null): void {
    const session = this.#session;
    const source = this.#named.parsed(buffer, start, end);
    if (source === null) return this.#raw(Reply.parse, buffer, start, end, connection);
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
      const redo = (): void => session.unnamed.set(parsed);
      const noticed = (): void => {
        parsed.noisy = true;
      };
      const owed = parsing(source.rewritten, false, { undo, redo, noticed }, does === null ? null : [does]);
      connection.send(encodeParse('', source.parseTail), owed);
      this.#unsettled.changed('', connection.replies);
      return;
    }
    if (session.statement(name) !== undefined) {
      return this.#names.duplicate(buffer.toString('utf8', start + 5, nameEnd), source, connection);
    }
    this.#named.keep(name, source);
    const undo = (): void => session.dropStatement(name);
    const redo = (): void => {
      if (session.statement(name) === undefined) session.setStatement(name, source);
    };
    connection.parse(source, session.settings.semantics, false, { undo, redo }, does === null ? null : [does]);
    this.#unsettled.changed(name, connection.replies);
  }

  #bind(unit: Unit, source: StatementSource | null, connection: ServerConnection, does: Deed | null): void {
    const { buffer, start, end } = unit;
    const nameStart = stringEnd(buffer, start + 5, end) + 1;
    const nameEnd = nameStart === 0 ? -1 : stringEnd(buffer, nameStart, end);
    if (nameEnd >= 0 && this.#named.isStale(buffer, nameStart, nameEnd)) {
      // The error Postgres has for it. Binding what does not exist makes the server abort what has to be aborted.
      connection.send(
        encodeBindFor(buffer, start, end, nameStart, nameEnd, `${STATEMENT_NAME_PREFIX}stale`),
        provokedError(Reply.bind, STALE_PLAN, null),
      );
      return;
    }
    const name = nameEnd < 0 ? null : this.#names.of(buffer, nameStart, nameEnd, connection);
    if (name === null) connection.send(buffer.subarray(start, end), doing(Reply.bind, does));
    else {
      const owed = this.#names.binding(name, this.#named.name(buffer, nameStart, nameEnd), does);
      connection.send(encodeBindFor(buffer, start, end, nameStart, nameEnd, name), owed);
    }
    this.#names.bound(unit, source, connection);
    this.#drops.bound(unit, source);
  }

  #describe(buffer: Buffer, start: number, end: number, connection: ServerConnection, does: Deed | null): void {
    const nameEnd = stringEnd(buffer, start + 6, end);
    const kind = buffer[start + 5] === STATEMENT && nameEnd >= 0 ? Reply.describeStatement : Reply.describePortal;
    if (kind === Reply.describePortal) {
      connection.send(buffer.subarray(start, end), doing(kind, does));
      return;
    }
    const server = this.#names.of(buffer, start + 6, nameEnd, connection);
    const owed = this.#describing(this.#named.name(buffer, start + 6, nameEnd), server, does);
    connection.send(server === null ? buffer.subarray(start, end) : encodeNamed(Frontend.describe, 'S', server), owed);
  }

  /** @param server what the statement is called there; null: as by the client */
  #describing(name: string, server: string | null, does: Deed | null): Owed {
    const epoch = this.#schemaEpoch();
    const session = this.#session;
    const source = name === '' ? session.unnamed.source : session.statement(name);
    const described = (shape: string): void => {
      // It may have been closed behind the Describe, or be one that PREPARE has made.
      if (source && (name === '' || session.statement(name) !== undefined))
        session.setDescription(name, { source, shape, epoch, stale: false });
    };
    return describing(
      false,
      described,
      server === null ? null : new Map([[server, name]]),
      does === null ? null : [does],
    );
  }

  #close(buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    const session = this.#session;
    const target = buffer[start + 5];
    const nameEnd = stringEnd(buffer, start + 6, end);
    if (target !== STATEMENT || nameEnd < 0) {
      this.#drops.closed(buffer, start + 6, nameEnd);
      return this.#raw(Reply.close, buffer, start, end, connection);
    }
    if (nameEnd === start + 6) {
      this.#names.closeUnnamed(connection, false, session.unnamed.change(null, connection.replies));
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
    const redo = (): void => session.dropStatement(name);
    connection.replyLocally(CLOSE_COMPLETE, { undo, redo });
    this.#unsettled.changed(name, connection.replies);
  }

  #raw(kind: ReplyKind, buffer: Buffer, start: number, end: number, connection: ServerConnection): void {
    connection.send(buffer.subarray(start, end), forwarded(kind));
  }
}
