// A client that talks SQL, over WireClient: rows as text, errors as SQLSTATE. For tests that care for what a statement
// answers; `wire` is there for those that care for messages.
import type { BackendMessage } from './backend-message.js';
import type { FrontendMessage } from './frontend-message.js';
import { type Until, type WireAddress, WireClient, type WireClientOptions } from './wire-client.js';

/**
 * The pid of the server's process that runs it, through pgkv too, where `SELECT pg_backend_pid()` alone gives the session's.
 */
export const SERVER_PID = 'select pid from pg_stat_activity where pid = pg_backend_pid()';

export type SqlClientOptions = WireClientOptions;

/** An ErrorResponse, thrown by what expected none. */
export class ServerError extends Error {
  readonly code: string;
  readonly fields: Readonly<Record<string, string>>;

  constructor(fields: Readonly<Record<string, string>>) {
    super(`${fields['C']} ${fields['M']}${fields['D'] === undefined ? '' : ` (${fields['D']})`}`);
    this.code = fields['C'] ?? '';
    this.fields = fields;
  }
}

export class SqlClient {
  readonly wire: WireClient;

  constructor(wire: WireClient) {
    this.wire = wire;
  }

  static async connect(address: WireAddress, options: SqlClientOptions): Promise<SqlClient> {
    return new SqlClient(await WireClient.connect(address, options));
  }

  /** Runs statements; throws the first error. Returns the tags. */
  async run(...statements: readonly string[]): Promise<string[]> {
    const tags: string[] = [];
    for (const sql of statements) tags.push(...tagsOf(checked(await this.#exchange([{ query: sql }]))));
    return tags;
  }

  /** Rows of a simple query, values as text. */
  async rows(sql: string): Promise<(string | null)[][]> {
    return rowsOf(checked(await this.#exchange([{ query: sql }])));
  }

  /** The only value of a query's only row. */
  async value(sql: string): Promise<string | null> {
    const rows = await this.rows(sql);
    if (rows.length !== 1 || rows[0]!.length !== 1) throw new Error(`not one value: ${JSON.stringify(rows)}`);
    return rows[0]![0]!;
  }

  /** The SQLSTATE of a statement that must fail. */
  async fails(sql: string): Promise<string> {
    return this.failsWith(sql).then((error) => error.code);
  }

  async failsWith(sql: string): Promise<ServerError> {
    const error = errorOf(await this.#exchange([{ query: sql }]));
    if (error === null) throw new Error(`succeeded: ${sql}`);
    return error;
  }

  /** All messages up to the answer of the last statement, errors included: for comparisons with another server. */
  async answers(...statements: readonly string[]): Promise<BackendMessage[]> {
    const all: BackendMessage[] = [];
    for (const sql of statements) all.push(...(await this.#exchange([{ query: sql }])));
    return all;
  }

  /** Sends messages and returns what comes back. */
  send(messages: readonly FrontendMessage[], until?: Until): Promise<readonly BackendMessage[]> {
    return this.#exchange(messages, until);
  }

  /** One statement of the extended protocol, unnamed; throws the first error. */
  async extended(sql: string, parameters: readonly (string | null)[] = []): Promise<(string | null)[][]> {
    const messages: FrontendMessage[] = [{ parse: sql }, { bind: parameters }, { execute: '' }, 'sync'];
    return rowsOf(checked(await this.#exchange(messages)));
  }

  /** The status byte of the last ReadyForQuery: I, T or E. */
  get status(): string {
    const ready = this.wire.received.findLast((message) => message.type === 'ReadyForQuery');
    return ready?.type === 'ReadyForQuery' ? ready.status : '';
  }

  /** What ParameterStatus has told this client last. */
  told(name: string): string | undefined {
    const last = this.wire.received.findLast((message) => message.type === 'ParameterStatus' && message.name === name);
    return last?.type === 'ParameterStatus' ? last.value : undefined;
  }

  async end(): Promise<void> {
    await this.wire.end();
  }

  async #exchange(messages: readonly FrontendMessage[], until?: Until): Promise<readonly BackendMessage[]> {
    const { messages: answers, outcome } = await this.wire.exchange(messages, until);
    if (outcome === 'timeout') throw new Error(`no answer in time to ${JSON.stringify(messages)}`);
    if (outcome === 'closed') {
      throw errorOf(answers) ?? new Error(`the connection was closed at ${JSON.stringify(messages)}`);
    }
    return answers;
  }
}

export function errorOf(messages: readonly BackendMessage[]): ServerError | null {
  const error = messages.find((message) => message.type === 'ErrorResponse');
  return error?.type === 'ErrorResponse' ? new ServerError(error.fields) : null;
}

export function rowsOf(messages: readonly BackendMessage[]): (string | null)[][] {
  return messages.flatMap((message) =>
    message.type === 'DataRow' ? [message.values.map((value) => (value === null ? null : value.toString()))] : [],
  );
}

export function tagsOf(messages: readonly BackendMessage[]): string[] {
  return messages.flatMap((message) => (message.type === 'CommandComplete' ? [message.tag] : []));
}

function checked(messages: readonly BackendMessage[]): readonly BackendMessage[] {
  const error = errorOf(messages);
  if (error !== null) throw error;
  return messages;
}
