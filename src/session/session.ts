// What pgkv knows of one client's session, apart from sockets and leases: identity, tracked settings, statements
// prepared at the protocol level. A session is not tied to a server connection; its state is carried to whichever
// connection it leases.

import type { SettingsGroup } from '../backend/connection/settings-group.js';
import type { ReportedParameters } from '../backend/replies/parameter-status.js';
import {
  bytesOfSource,
  type StatementSource,
  type TextReading,
  textReading,
} from '../backend/replies/statement-source.js';
import { UnnamedStatement } from './unnamed-statement.js';

/** A process id as this client sees it: pgkv's own numbering, not a server's. */
export type SessionPid = number & { readonly brand: 'SessionPid' };

/** A map entry and its key. */
const ENTRY_BYTES = 112;

const bytesOf = (name: string, source: StatementSource): number =>
  ENTRY_BYTES + 2 * name.length + bytesOfSource(source);

/** A map entry, its key and a Description. */
const bytesOfDescription = (name: string, { shape }: Description): number =>
  ENTRY_BYTES + 64 + 2 * name.length + shape.length;

/** What Describe told a client of a statement. */
export interface Description {
  /** The statement it was told of: its answer may come when the name stands for another one. */
  readonly source: StatementSource;
  /** See row-shape.ts. */
  readonly shape: string;
  /** Schema epoch in which that was known to hold. */
  readonly epoch: number;
  /** It does not hold any longer: the client would misread the rows. */
  readonly stale: boolean;
}

export class Session {
  readonly pid: SessionPid;
  readonly secretKey: Buffer;
  readonly user: string;
  readonly database: string;
  settings: SettingsGroup;
  /** What the client was last told by ParameterStatus. */
  told: ReportedParameters;
  /** The statement last parsed without a name; gone after a simple query, as in Postgres. */
  readonly unnamed = new UnnamedStatement();
  #statements: Map<string, StatementSource> | null = null;
  /** How often each statement had been given a name by when it was given this one: what was prepared before that is older. */
  readonly #since = new Map<string, number>();
  #statementBytes = 0;
  #descriptions: Map<string, Description> | null = null;

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

  /** What the statements kept hold, and what was told of them, counted as if they were not shared with other sessions. */
  get statementBytes(): number {
    return this.#statementBytes;
  }

  /** As the settings reported last ask for. */
  get textReading(): TextReading {
    const { told } = this;
    return textReading(told.get('client_encoding') ?? 'UTF8', told.get('standard_conforming_strings') !== 'off');
  }

  statement(name: string): StatementSource | undefined {
    return this.#statements?.get(name);
  }

  /** What a connection has prepared for others before the client's Parse may be older than it; see PreparedOnServer.since. */
  parsedSince(name: string): number {
    return this.#since.get(name) ?? 0;
  }

  /** What the client calls this statement: "" for its unnamed one, undefined where it has no such statement. */
  nameOf(source: StatementSource): string | undefined {
    for (const [name, known] of this.#statements ?? []) {
      if (known === source) return name;
    }
    return this.unnamed.source === source ? '' : undefined;
  }

  /** What the client was told of the result of the statement that the name stands for ("": its unnamed one). */
  description(name: string): Description | undefined {
    const description = this.#descriptions?.get(name);
    if (description === undefined) return undefined;
    const stands = name === '' ? this.unnamed.source : this.statement(name);
    return description.source === stands ? description : undefined;
  }

  setDescription(name: string, description: Description): void {
    if (this.#descriptions === null) this.#descriptions = new Map();
    this.dropDescription(name);
    this.#descriptions.set(name, description);
    this.#statementBytes += bytesOfDescription(name, description);
  }

  dropDescription(name: string): void {
    const description = this.#descriptions?.get(name);
    if (description === undefined) return;
    this.#descriptions!.delete(name);
    this.#statementBytes -= bytesOfDescription(name, description);
  }

  setStatement(name: string, source: StatementSource): void {
    if (this.#statements === null) this.#statements = new Map();
    this.#statements.set(name, source);
    this.#statementBytes += bytesOf(name, source);
    source.namesNow++;
    source.namesEver++;
    this.#since.set(name, source.namesEver);
  }

  /** The same statement ("": the unnamed one), read anew: what was told of it was told of this. */
  renewStatement(name: string, renewed: StatementSource): void {
    const description = this.description(name);
    if (description !== undefined) this.#descriptions!.set(name, { ...description, source: renewed });
    if (name === '') {
      const { source } = this.unnamed;
      if (source !== null) this.unnamed.renew(source, renewed);
      return;
    }
    const source = this.#statements?.get(name);
    if (source === undefined) return;
    this.#statements!.set(name, renewed);
    this.#statementBytes += bytesOf(name, renewed) - bytesOf(name, source);
    source.namesNow--;
    renewed.namesNow++;
    renewed.namesEver++;
    this.#since.delete(name);
  }

  dropStatement(name: string): void {
    const source = this.#statements?.get(name);
    if (source === undefined) return;
    this.dropDescription(name);
    this.#statements!.delete(name);
    this.#since.delete(name);
    this.#statementBytes -= bytesOf(name, source);
    source.namesNow--;
  }

  /** Drops all statements; they can be put back. */
  takeAllStatements(): ReadonlyMap<string, StatementSource> {
    const taken = this.#statements ?? new Map<string, StatementSource>();
    this.dropAllStatements();
    return taken;
  }

  /** Those under whose names nothing else stands by now. */
  putBackStatements(taken: ReadonlyMap<string, StatementSource>): void {
    for (const [name, source] of taken) {
      if (this.statement(name) !== undefined) continue;
      this.setStatement(name, source);
      source.namesEver--;
      this.#since.set(name, source.namesEver);
    }
  }

  dropAllStatements(): void {
    for (const source of this.#statements?.values() ?? []) source.namesNow--;
    this.#statements = null;
    this.#since.clear();
    this.#descriptions = null;
    this.#statementBytes = 0;
  }
}
