// What the statements of a session are called on the server connection at hand: pgkv's own names, which sessions share, and
// what the client calls them, for errors. A statement that names others is prepared there with their names of the moment.
// Owns what is kept of that, and has a connection's unnamed statement of another session not be taken for the client's.
// Invariants: all of it is bounded; under a name of the client's, nothing stands on a server but what its own SQL has put there.
import { type ServerConnection, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import type { Deed } from '../../backend/replies/deeds.js';
import { assuming, binding, naming, type Owed, Reply, swallowed } from '../../backend/replies/reply-queue.js';
import { type StatementSource, unknownStatement } from '../../backend/replies/statement-source.js';
import { namesOwnStatements, replaceStatementNames } from '../../execute/leased/statement-names.js';
import type { Session } from '../../session/session.js';
import type { UnnamedChange } from '../../session/unnamed-statement.js';
import { encodeNamed, encodeParse } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import { type NamedStatements, portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';

/** Statements that name others, kept for a connection. */
const NAMED_FOR_MAX = 64;
/** Portals of one block whose statement names others. */
const NAMING_MAX = 100;
/** What `duplicate` prepares. */
const TAKEN = `${STATEMENT_NAME_PREFIX}taken`;
const CLOSE_TAKEN = encodeNamed(Frontend.close, 'S', TAKEN);

/** Names on a connection, and what the client calls them. */
type Names = ReadonlyMap<string, string>;

/** A statement that names others, as a connection has it. */
interface Renamed {
  readonly source: StatementSource;
  readonly names: Names;
}

/** A portal stands in `#naming` from its Bind until it is bound to something else, or its block ends. */
export class ServerNames {
  readonly #session: Session;
  readonly #named: NamedStatements;
  /** Portals whose statement names others, by name, and the names as they were sent. */
  readonly #naming = new Map<string, Names>();
  /** Statements that name others, as each connection has them. */
  readonly #withNames = new WeakMap<ServerConnection, Map<StatementSource, Renamed>>();
  /** What was owed for a Bind last: a session that goes on with its statement allocates nothing for it. */
  #lastBind: Owed | null = null;
  #lastNames: readonly [server: string, client: string, does: Deed | null, parses: boolean] = [
    '',
    '',
    'anything',
    false,
  ];

  constructor(session: Session, named: NamedStatements) {
    this.#session = session;
    this.#named = named;
  }

  /** What a statement is called on this connection; null where the client's own words are to be passed on. */
  of(buffer: Buffer, nameStart: number, nameEnd: number, connection: ServerConnection): string | null {
    const session = this.#session;
    const source = this.#named.prepared(buffer, nameStart, nameEnd);
    if (source !== undefined && source !== unknownStatement) {
      const { template } = source;
      if (template.statementNames.length > 0 && namesOwnStatements(template, session)) {
        return connection.prepare(this.#namedFor(source, connection), session.settings.semantics);
      }
      if (nameStart === nameEnd && connection.unnamed === source) return null;
      const since = nameStart === nameEnd ? 0 : session.parsedSince(this.#named.name(buffer, nameStart, nameEnd));
      return connection.prepare(source, session.settings.semantics, since);
    }
    if (nameStart === nameEnd) {
      // Another session's unnamed statement must not answer: the server is made to say that there is none.
      if (connection.unnamed !== null) this.closeUnnamed(connection, true);
      return null;
    }
    const name = buffer.toString('latin1', nameStart, nameEnd);
    // The prefix is pgkv's own: what stands under it on a server is not the client's to reach.
    return name.startsWith(STATEMENT_NAME_PREFIX) ? `${name} ` : null;
  }

  /**
   * What is owed for a Bind of the statement that the server and the client call so.
   * @param does what it does
   * @param parses in front of it the client gets the answer to its Parse
   */
  binding(server: string, client: string, does: Deed | null, parses = false): Owed {
    const [lastServer, lastClient, lastDoes, lastParses] = this.#lastNames;
    const isSame = lastServer === server && lastClient === client && lastDoes === does && lastParses === parses;
    if (this.#lastBind !== null && isSame) return this.#lastBind;
    this.#lastNames = [server, client, does, parses];
    this.#lastBind = binding(new Map([[server, client]]), does, parses);
    return this.#lastBind;
  }

  /** A Bind was sent: remembers the names of others that its statement was sent with. */
  bound(unit: Unit, source: StatementSource | null, connection: ServerConnection): void {
    const renamed = source === null ? undefined : this.#withNames.get(connection)?.get(source);
    // Of more than that, errors are told with the names that they have by then.
    if (renamed !== undefined && this.#naming.size < NAMING_MAX) this.#naming.set(portalIn(unit), renamed.names);
    else if (this.#naming.size > 0) this.#naming.delete(portalIn(unit));
  }

  /** Those of others that the statement of an Execute's portal was sent with. */
  within(unit: Unit): Names | undefined {
    return this.#naming.size === 0 ? undefined : this.#naming.get(portalIn(unit));
  }

  /** There are none any more: a server has said that it is outside a block, and owes nothing behind that. */
  portalsEnd(): void {
    this.#naming.clear();
  }

  /** The name is taken: the statement is prepared twice under one of pgkv's, so that the server words the error. */
  duplicate(name: string, source: StatementSource, connection: ServerConnection): void {
    const parse = encodeParse(TAKEN, source.parseTail);
    connection.send(CLOSE_TAKEN, swallowed(Reply.close));
    connection.send(parse, swallowed(Reply.parse));
    connection.send(parse, naming(Reply.parse, new Map([[TAKEN, name]])));
  }

  /** @param change the client's, whose answer it gets unless `swallow` is set */
  closeUnnamed(connection: ServerConnection, swallow: boolean, change: UnnamedChange | null = null): void {
    connection.unnamed = null;
    // Unlike a Parse, what is refused has not dropped anything.
    const undo = (): void => {
      if (change !== null) this.#session.unnamed.undo(change, false);
      if (connection.unnamed === null) connection.unnamed = unknownStatement;
    };
    const redo = (): void => {
      if (change !== null) this.#session.unnamed.set(null);
    };
    connection.send(encodeNamed(Frontend.close, 'S', ''), assuming(Reply.close, swallow, { undo, redo }));
  }

  /** A statement that names others of this session, as this connection has them now: they are prepared here first. */
  #namedFor(source: StatementSource, connection: ServerConnection): StatementSource {
    const { text, names } = replaceStatementNames(source.text, source.template, this.#session, connection, []);
    let known = this.#withNames.get(connection);
    if (known === undefined) {
      known = new Map();
      this.#withNames.set(connection, known);
    }
    const last = known.get(source);
    if (last?.source.text === text) {
      known.set(source, { source: last.source, names });
      return last.source;
    }
    if (known.size >= NAMED_FOR_MAX) known.clear();
    const types = source.parseTail.slice(source.parseTail.indexOf('\0'));
    const parseTail = Buffer.from(text, 'utf8').toString('latin1') + types;
    const made = { ...source, text, parseTail, namesNow: 0, namesEver: 0 };
    known.set(source, { source: made, names });
    return made;
  }
}

/** A server does not come to a simple query whose bytes are no text (22021): the unnamed statement outlives it. */
export const outlivesQuery = ({ unnamed, textReading }: Session, text: Buffer): boolean =>
  unnamed.source !== null && textReading.encoding.read(text) === null;

/**
 * A simple query is about to be sent, and ends the unnamed statement, the session's and the connection's, whatever becomes of it:
 * unless the server skips it, behind an error in its batch, or it is no text.
 * @param text null: one of pgkv's own
 * @returns what is owed for it
 */
export function endsUnnamed(session: Session, connection: ServerConnection, owed: Owed, text: Buffer | null): Owed {
  const { unnamed } = session;
  const { replies } = connection;
  connection.unnamed = null;
  if (text !== null && outlivesQuery(session, text)) return owed;
  if (!replies.unsynced()) {
    unnamed.set(null);
    return owed;
  }
  const change = unnamed.change(null, replies);
  const undo = (refused: boolean): void => {
    unnamed.undo(change, refused);
    if (connection.unnamed === null) connection.unnamed = unknownStatement;
  };
  return { ...owed, assumption: { undo, redo: () => unnamed.set(null) } };
}
