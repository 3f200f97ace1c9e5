// What pgkv knows of one client's session, apart from sockets and leases: identity, tracked settings, statements
// prepared at the protocol level. A session is not tied to a server connection; its state is carried to whichever
// connection it leases.
import type { ReportedParameters } from '../backend/parameter-status.js';
import type { SettingsGroup } from '../backend/settings-group.js';
import type { StatementSource } from '../backend/statement-source.js';

/** A process id as this client sees it: pgkv's own numbering, not a server's. */
export type SessionPid = number & { readonly brand: 'SessionPid' };

/** A map entry and its key, beside the text. */
const ENTRY_BYTES = 128;

const bytesOf = (name: string, source: StatementSource): number => name.length + source.parseTail.length + ENTRY_BYTES;

export class Session {
  readonly pid: SessionPid;
  readonly secretKey: Buffer;
  readonly user: string;
  readonly database: string;
  settings: SettingsGroup;
  /** What the client was last told by ParameterStatus. */
  told: ReportedParameters;
  /** The statement last parsed without a name; gone after a simple query, as in Postgres. */
  unnamed: StatementSource | null = null;
  #statements: Map<string, StatementSource> | null = null;
  #statementBytes = 0;

  constructor(options: {
    pid: SessionPid;
    secretKey: Buffer;
    user: string;
    database: string;
    settings: SettingsGroup;
    told: ReportedParameters;
  }) {
    this.pid = options.pid;
    this.secretKey = options.secretKey;
    this.user = options.user;
    this.database = options.database;
    this.settings = options.settings;
    this.told = options.told;
  }

  /** Bytes of the statements kept, counted as if they were not shared with other sessions. */
  get statementBytes(): number {
    return this.#statementBytes;
  }

  /** standard_conforming_strings as last reported: whether a backslash in '…' is just a backslash. */
  get standardStrings(): boolean {
    return this.told.get('standard_conforming_strings') !== 'off';
  }

  statement(name: string): StatementSource | undefined {
    return this.#statements?.get(name);
  }

  /** What the client calls this statement: "" for its unnamed one, undefined where it has no such statement. */
  nameOf(source: StatementSource): string | undefined {
    for (const [name, known] of this.#statements ?? []) {
      if (known === source) return name;
    }
    return this.unnamed === source ? '' : undefined;
  }

  setStatement(name: string, source: StatementSource): void {
    if (this.#statements === null) this.#statements = new Map();
    this.#statements.set(name, source);
    this.#statementBytes += bytesOf(name, source);
  }

  dropStatement(name: string): void {
    const source = this.#statements?.get(name);
    if (source === undefined) return;
    this.#statements!.delete(name);
    this.#statementBytes -= bytesOf(name, source);
  }

  dropAllStatements(): void {
    this.#statements = null;
    this.#statementBytes = 0;
  }
}
