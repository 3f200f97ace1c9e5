// The messages by which a leg runs its statement. A Bind with hidden columns names the format of every column, so how many
// the result has must be known first: it is remembered from leg to leg, and asked for (measured) where it is not.

import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { type Assumption, binding, forwarded, type Owed, parsing, Reply } from '../../backend/replies/reply-queue.js';
import { type StatementSource, unknownStatement } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { Session } from '../../session/session.js';
import { encodeNamed, encodeParse, FLUSH, SYNC } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import { DESCRIBE, EXECUTE_SYNC, encodeBind } from './extended-messages.js';
import { type LocalSettings, sendLocalSettings } from './local-settings.js';

export interface LegStatement {
  readonly source: StatementSource;
  /** Formats and values, as in Bind; in parts. */
  readonly parameters: readonly Buffer[];
  /** Those of the visible columns, as in Bind. */
  readonly resultFormats: readonly number[];
  /** How many of the last columns are for pgkv itself, in binary. */
  readonly hidden: number;
  /** The types of the parameters are wanted too. */
  readonly asksParameterTypes: boolean;
  /** The description of the result is wanted before there are rows. */
  readonly describesEarly: boolean;
  /** It is parsed, and described as a statement, and not run. */
  readonly isPreparedOnly: boolean;
  /** What the client calls it: '' in a simple query. */
  readonly name: string;
  /** In force for this batch alone. Not with hidden columns. */
  readonly local: LocalSettings | null;
  /** It is run in the client's block, which ends with an error: nothing of it can be tried again. */
  readonly isInBlock: boolean;
}

/** What most legs do not ask for. */
export const PLAIN_LEG = {
  hidden: 0,
  asksParameterTypes: false,
  describesEarly: false,
  isPreparedOnly: false,
  name: '',
  local: null,
  isInBlock: false,
} as const;

const UNASSUMING: Assumption = { undo: () => undefined };
const TEXT = 0;
const BINARY = 1;

/**
 * Columns of a statement's result when it was described last. Right or not is seen before a row is read: the server
 * refuses a Bind with another number of formats, and what it describes is counted again.
 */
const columnCounts = new WeakMap<StatementSource, number>();

const BIND_OWED = forwarded(Reply.bind);
const BEHIND_BIND = [Reply.describePortal, Reply.execute, Reply.sync].map(forwarded);

export class LegBatch {
  /** The description of the statement that was asked for has come: `run` may follow. */
  measured = false;
  readonly #statement: LegStatement;
  readonly #session: Session;
  /** The formats are the same for any number of columns. */
  readonly #oneFormat: boolean;
  /** What the statement is called on the connection. */
  #name = '';
  /** The Bind under way has formats for this many columns; -1: for any number. */
  #boundColumns = -1;

  constructor(statement: LegStatement, session: Session) {
    const { hidden, resultFormats } = statement;
    this.#statement = statement;
    this.#session = session;
    this.#oneFormat = hidden === 0 || (resultFormats.length === 1 && resultFormats[0] === BINARY);
  }

  /** Prepares the statement. Returns whether `run` may follow at once; else the server is asked for its columns. */
  begin(connection: ServerConnection): boolean {
    const { source, asksParameterTypes, isPreparedOnly, local, isInBlock } = this.#statement;
    if (local !== null) sendLocalSettings(connection, local);
    const counted = this.#oneFormat || (!isInBlock && columnCounts.has(source));
    this.measured = false;
    // Parsed anew: a Describe of a statement out of date would fail.
    if (!counted) connection.forget(source);
    this.#name = this.#prepare(connection);
    if (!counted || asksParameterTypes || isPreparedOnly) {
      connection.send(encodeNamed(Frontend.describe, 'S', this.#name), forwarded(Reply.describeStatement));
    }
    if (!counted) connection.output.push(FLUSH);
    return counted;
  }

  /** The statement was described. */
  countColumns(count: number): void {
    this.measured = true;
    columnCounts.set(this.#statement.source, count);
  }

  /** What is remembered of the columns does not hold any longer. */
  forgetColumns(): void {
    columnCounts.delete(this.#statement.source);
  }

  /** The Bind under way depends on the number of columns. */
  get boundByColumn(): boolean {
    return this.#boundColumns >= 0;
  }

  /** The Bind under way fits a result of that many columns. */
  fits(count: number): boolean {
    return !this.boundByColumn || count === this.#boundColumns;
  }

  /** It ends with what is told of the statement: no portal is made of it. */
  get isPreparedOnly(): boolean {
    return this.#statement.isPreparedOnly;
  }

  /** Bind to Sync. Throws, with nothing sent, where the formats do not fit the columns or the message is too long. */
  run(connection: ServerConnection): void {
    if (this.isPreparedOnly) return this.end(connection);
    const bind = encodeBind(this.#name, this.#statement.parameters, this.#formats());
    for (const part of bind) connection.output.push(part);
    connection.output.push(DESCRIBE);
    // The server would keep it until it has 8 KiB to send.
    if (this.#statement.describesEarly) connection.output.push(FLUSH);
    connection.sendAll(EXECUTE_SYNC, [this.#bindOwed(), ...BEHIND_BIND]);
  }

  /** Errors of it name the statement. */
  #bindOwed(): Owed {
    const { name } = this.#statement;
    if (this.#name === name) return BIND_OWED;
    const isQuoted = this.#name === '';
    const names = isQuoted ? new Map([['""', `"${name}"`]]) : new Map([[this.#name, name]]);
    return binding(names, 'reads', false);
  }

  /** Ends what was begun without a Bind. */
  end(connection: ServerConnection): void {
    connection.send(SYNC, forwarded(Reply.sync));
  }

  #prepare(connection: ServerConnection): string {
    const { source, local, isPreparedOnly, isInBlock } = this.#statement;
    const { semantics } = this.#session.settings;
    // A text sent once may never come again: not worth a name on the server. Others' settings may have it mean something else.
    // In a block a plan that has gone stale would be an error.
    const isShared = local === null && !isPreparedOnly && !isInBlock;
    if (isShared && (source.uses > 1 || connection.isPrepared(source, semantics)))
      return connection.prepare(source, semantics);
    connection.unnamed = unknownStatement;
    connection.send(encodeParse('', source.parseTail), parsing(source.rewritten, true, UNASSUMING));
    return '';
  }

  /** Formats of all columns: the client's, and binary for the hidden ones. */
  #formats(): readonly number[] {
    const { hidden, resultFormats, source } = this.#statement;
    this.#boundColumns = -1;
    if (this.#oneFormat) return resultFormats;
    const count = columnCounts.get(source)!;
    const visible = count - hidden;
    if (resultFormats.length > 1 && resultFormats.length !== visible) {
      const message = `bind message has ${resultFormats.length} result formats but query has ${visible} columns`;
      throw new PgkvError('protocol_violation', { message });
    }
    this.#boundColumns = count;
    const formats = new Array<number>(count).fill(BINARY);
    for (let index = 0; index < visible; index++) formats[index] = resultFormats[index] ?? resultFormats[0] ?? TEXT;
    return formats;
  }
}
