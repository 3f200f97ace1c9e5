// What one session of the model server holds. Plain values that can be copied, so that a mirror of a session can be
// taken back to a moment.
import type { StatementText } from './model-sql.js';

/** What a transaction takes back when it is rolled back. */
export interface Revertible {
  /** Set in the session, by lower-case name. */
  readonly settings: Map<string, string>;
  readonly tables: Set<string>;
  readonly channels: Set<string>;
  /** Held cursors. */
  readonly cursors: Set<string>;
}

export interface Savepoint {
  readonly name: string;
  readonly state: Revertible;
  readonly locals: ReadonlyMap<string, string>;
  readonly keyCount: number;
}

export interface Transaction {
  /** An explicit block; else what lasts to the end of the query or to Sync. */
  block: boolean;
  failed: boolean;
  readonly before: Revertible;
  keys: string[];
  locals: Map<string, string>;
  savepoints: Savepoint[];
  notifications: (readonly [channel: string, payload: string])[];
  altersSchema: boolean;
}

export interface Prepared {
  /** Null for an empty text. */
  readonly statement: StatementText | null;
  /** DateStyle at Parse, as a place among all the session ever had: what Postgres makes of literals depends on it. */
  readonly style: number;
  readonly schemaVersion: number;
  readonly fromSql: boolean;
}

export interface Portal {
  readonly prepared: Prepared;
  /** The first parameter. */
  readonly nonce: string | null;
  /** Rows that have not been fetched, null before the first Execute. */
  rows: readonly Buffer[] | null;
}

export interface SessionState {
  revertible: Revertible;
  transaction: Transaction | null;
  /** An error in the extended protocol: messages are skipped up to Sync. */
  skipping: boolean;
  /** A message of the extended protocol came and no Sync behind it. */
  unsynced: boolean;
  copy: { readonly extended: boolean; readonly keys: readonly string[] } | null;
  /** Custom settings ever named: they are '' instead of absent when they are not set. */
  definedNames: Set<string>;
  locks: Map<string, number>;
  /** By name; '' is the unnamed one. */
  statements: Map<string, Prepared>;
  portals: Map<string, Portal>;
  lastValue: string | null;
  /** Reported settings as the client knows them. */
  reported: Map<string, string>;
}

export const emptyRevertible = (): Revertible => ({
  settings: new Map(),
  tables: new Set(),
  channels: new Set(),
  cursors: new Set(),
});

export const copyRevertible = (state: Revertible): Revertible => ({
  settings: new Map(state.settings),
  tables: new Set(state.tables),
  channels: new Set(state.channels),
  cursors: new Set(state.cursors),
});

export const emptyState = (): SessionState => ({
  revertible: emptyRevertible(),
  transaction: null,
  skipping: false,
  unsynced: false,
  copy: null,
  definedNames: new Set(),
  locks: new Map(),
  statements: new Map(),
  portals: new Map(),
  lastValue: null,
  reported: new Map(),
});

const copyTransaction = (transaction: Transaction): Transaction => ({
  ...transaction,
  keys: [...transaction.keys],
  locals: new Map(transaction.locals),
  savepoints: [...transaction.savepoints],
  notifications: [...transaction.notifications],
});

export const copyState = (state: SessionState): SessionState => ({
  ...state,
  revertible: copyRevertible(state.revertible),
  transaction: state.transaction === null ? null : copyTransaction(state.transaction),
  definedNames: new Set(state.definedNames),
  locks: new Map(state.locks),
  statements: new Map(state.statements),
  portals: new Map([...state.portals].map(([name, portal]) => [name, { ...portal }])),
  reported: new Map(state.reported),
});
