// What the messages of the extended protocol name: the statement that a Parse brings, read as the session's texts are, and
// the ones the session has prepared. Works on the bytes of a message; sends nothing. Invariant: what a session has kept is bounded.
import type { StatementSource, StatementSources, TextReading } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { TableScope } from '../../cluster/table-scope.js';
import type { Session } from '../../session/session.js';
import { stringEnd } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import type { KvStatements } from './kv-statements.js';

/** Postgres cuts names at NAMEDATALEN. */
const NAME_BYTES_MAX = 63;

/** The text interned last, and what that depended on. */
interface Interned {
  readonly buffer: Buffer;
  readonly start: number;
  readonly reading: TextReading;
  readonly scope: TableScope;
  readonly source: StatementSource;
}

/** A whole message of the client. */
type Message = { readonly buffer: Buffer; readonly start: number; readonly end: number };

const STATEMENT = 0x53;

export class NamedStatements {
  readonly #session: Session;
  readonly #sources: StatementSources;
  readonly #kv: KvStatements;
  readonly #bytesMax: number;
  #interned: Interned | null = null;
  /** The name read last: sessions use few, and making strings of it was 2 % of a point read. */
  #name = '';

  /** @param bytesMax for the statements of the session */
  constructor(session: Session, sources: StatementSources, kv: KvStatements, bytesMax: number) {
    this.#session = session;
    this.#sources = sources;
    this.#kv = kv;
    this.#bytesMax = bytesMax;
  }

  /** What the Parse message `buffer[start, end)` brings; null where it is malformed. */
  parsed(buffer: Buffer, start: number, end: number): StatementSource | null {
    const nameEnd = buffer.indexOf(0, start + 5);
    const textEnd = nameEnd < 0 ? -1 : buffer.indexOf(0, nameEnd + 1);
    if (textEnd < 0 || textEnd + 3 > end) return null;
    return this.intern(buffer, nameEnd + 1, textEnd, end);
  }

  /**
   * A batch is looked at more than once before it is sent; its text is interned once.
   * @param start offset of the text, which ends at `textEnd`; its message ends at `end`
   */
  intern(buffer: Buffer, start: number, textEnd: number, end: number): StatementSource {
    const { reading, scope } = this.#kv;
    const last = this.#interned;
    const isLast = last !== null && last.buffer === buffer && last.start === start;
    if (isLast && last.reading === reading && last.scope === scope) return last.source;
    const source = this.#sources.intern(buffer, start, textEnd, end, reading, scope);
    this.#interned = { buffer, start, reading, scope, source };
    return source;
  }

  /** The client prepares a statement under a name that it has not in use. */
  keep(name: string, source: StatementSource): void {
    if (this.#session.statementBytes > this.#bytesMax) {
      const detail = `the prepared statements of this session have more than ${this.#bytesMax} bytes (limits.session_statement_bytes)`;
      throw new PgkvError('limit_exceeded', { detail });
    }
    this.#session.setStatement(name, source);
  }

  /** The messages at hand have been dealt with: their chunk is not kept for their sake. */
  forgetMessages(): void {
    this.#interned = null;
  }

  /** The statement's name in `buffer[start, end)`, as Postgres keeps it. */
  name(buffer: Buffer, start: number, end: number): string {
    const length = Math.min(end - start, NAME_BYTES_MAX);
    if (length <= 0) return '';
    if (!spells(this.#name, buffer, start, length)) this.#name = buffer.toString('utf8', start, start + length);
    return this.#name;
  }

  /** What the session has under the name in `buffer[nameStart, nameEnd)`. */
  prepared(buffer: Buffer, nameStart: number, nameEnd: number): StatementSource | undefined {
    const session = this.#session;
    const name = nameStart === nameEnd ? '' : this.name(buffer, nameStart, nameEnd);
    const source = name === '' ? (session.unnamed.source ?? undefined) : session.statement(name);
    if (source === undefined || source.reading === null || source.scope === this.#kv.scope) return source;
    // A table has become a key-value table, or is none any more, since it was parsed (D25).
    const renewed = this.#sources.renewed(source, source.reading, this.#kv.scope);
    session.renewStatement(name, renewed);
    return renewed;
  }

  /** The statement a message brings (Parse) or names; null where it names none. Malformed ones are left to the server. */
  namedSource(type: number, buffer: Buffer, start: number, end: number): StatementSource | null {
    if (type === Frontend.parse) return this.parsed(buffer, start, end);
    if (type === Frontend.bind) {
      const nameStart = buffer.indexOf(0, start + 5) + 1;
      const nameEnd = buffer.indexOf(0, nameStart);
      if (nameStart === 0 || nameEnd < 0 || nameEnd >= end) return null;
      return this.prepared(buffer, nameStart, nameEnd) ?? null;
    }
    if (type === Frontend.describe && buffer[start + 5] === STATEMENT) {
      return this.prepared(buffer, start + 6, end - 1) ?? null;
    }
    return null;
  }

  /** The name that a Parse gives its statement. */
  parsedName({ buffer, start }: Message): string {
    return this.name(buffer, start + 5, buffer.indexOf(0, start + 5));
  }

  /** The name under which a Bind, or a Describe of a statement, finds none; null: the message is another one. */
  missing({ type, buffer, start, end }: Message & { readonly type: number }): string | null {
    if (type === Frontend.describe)
      return buffer[start + 5] === STATEMENT ? this.name(buffer, start + 6, end - 1) : null;
    if (type !== Frontend.bind) return null;
    const nameStart = buffer.indexOf(0, start + 5) + 1;
    return this.name(buffer, nameStart, Math.min(buffer.indexOf(0, nameStart), end));
  }

  /** The name in a Close of a statement. */
  closedName({ buffer, start, end }: Message): string {
    return this.name(buffer, start + 6, end - 1);
  }

  /** The client was told of its result what does not hold any longer. */
  isStale(buffer: Buffer, nameStart: number, nameEnd: number): boolean {
    return this.#session.description(this.name(buffer, nameStart, nameEnd))?.stale === true;
  }
}

/** The portal that a Bind or Execute names, as bytes in latin1. */
export const portalIn = ({ buffer, start, end }: Message): string =>
  buffer[start + 5] === 0
    ? ''
    : buffer.toString('latin1', start + 5, Math.max(stringEnd(buffer, start + 5, end), start + 5));

/** Whether these bytes, all ASCII, are `text`. */
function spells(text: string, buffer: Buffer, start: number, length: number): boolean {
  if (text.length !== length) return false;
  for (let at = 0; at < length; at++) {
    const byte = buffer[start + at]!;
    if (byte > 127 || byte !== text.charCodeAt(at)) return false;
  }
  return true;
}
