// A Template is what pgkv knows about one SQL text after reading it once: its kind, what it may do to the state of
// the server session it runs in, and which names in it belong to pgkv. Immutable; shared by all sessions.
// It knows no shards: routing turns a Template into a Route.

import type { Refusal } from '../../base/refusals.js';
import type { BackendCall } from './backend-call.js';
import type { CopyIn } from './copy-in.js';
import type { CopyOut } from './copy-out.js';
import type { KvPlan } from './kv-plan.js';

/**
 * What a statement may leave behind in its server session. A bit set means "may", so that the state has to be asked
 * for before the connection goes to another client; a bit not set is a proof that it does not, as far as the text can
 * prove it: what triggers, rules, views, policies, user-defined operators and casts do cannot be seen in a text.
 */
export const Effect = {
  none: 0,
  /** SET, RESET, DISCARD, set_config(): tracked settings may have changed; `settingNames` says which. */
  settings: 1,
  /** May create or drop state a probe can see: temp objects, LISTEN, advisory locks, held cursors, PREPARE. */
  state: 2,
  /** Calls code we cannot read (DO, CALL, functions outside pg_catalog): may do anything SETTINGS and STATE can. */
  unknown: 4,
  /** Leaves state no probe can see (LOAD, setseed, SESSION AUTHORIZATION): the session keeps this connection. */
  sticky: 8,
  /** DDL: cached plans and descriptions are out of date afterwards. */
  schema: 16,
  /** DEALLOCATE ALL or DISCARD ALL: drops the protocol-level statements pgkv made on the connection. */
  deallocatesAll: 32,
  /** currval() or lastval(): needs the connection on which this session last drew from a sequence. */
  readsSequenceState: 64,
  /** May create or drop temporary objects, as most DDL may, and nothing else of what `state` means. */
  temporary: 128,
} as const;

export type EffectBits = number;

/**
 * The one thing a text consists of; several statements in one simple query are 'multi'. `read` is a SELECT that writes
 * nothing by itself (it may lock rows or call anything), `other` has neither rows of a table nor any of the other
 * meanings: cursors, PREPARE, EXECUTE, DO, CALL, DISCARD, LISTEN, VACUUM, COPY with a file, two-phase commit …
 */
export type StatementKind =
  | 'empty'
  | 'read'
  | 'write'
  | 'begin'
  | 'commit'
  | 'rollback'
  | 'savepoint'
  | 'set'
  | 'show'
  | 'copy-in'
  | 'copy-out'
  | 'schema'
  | 'other'
  | 'multi'
  | 'unparsed';

/** The name of a prepared statement where SQL mentions it, by UTF-16 offsets into the text (quotes included). */
export interface StatementNameReference {
  readonly verb: 'prepare' | 'execute' | 'deallocate';
  /** The name as Postgres sees it: unquoted and case-folded where it was not quoted. */
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export interface Template {
  readonly kind: StatementKind;
  readonly effects: EffectBits;
  /** Names of settings that may change, lower case; meaningful with Effect.settings; `'*'` among them means all. */
  readonly settingNames: readonly string[];
  /** PREPARE / EXECUTE / DEALLOCATE names found, in order of their position. */
  readonly statementNames: readonly StatementNameReference[];
  /** What each statement of the text is, in order; none for a text without statements, and for one that was not read. */
  readonly kinds: readonly StatementKind[];
  /**
   * The first statement is one that a failed block lets through (COMMIT, ROLLBACK, ROLLBACK TO, PREPARE TRANSACTION). Where
   * it succeeds, what stands behind it, in this text (see `kinds`, `kv`) or the next, runs as it would in a healthy block.
   */
  readonly endsFailure: boolean;
  /** True only where it is proven that running it twice, or not at all, changes nothing (plain SELECT, SHOW). */
  readonly readOnly: boolean;
  /** For kind 'show': the setting asked for, lower case. */
  readonly showName: string | null;
  /**
   * What the text, where it succeeds, does to the transaction block: opens one or stays in a new one (BEGIN, COMMIT AND
   * CHAIN), closes it (COMMIT, ROLLBACK, PREPARE TRANSACTION), or null: leaves it as it is. Of several statements the
   * last that does either decides.
   */
  readonly leavesBlock: 'open' | 'closed' | null;
  /** The values of literals had a say in the above, or offsets are given: good for this very text only. */
  readonly textDependent: boolean;
  /** The one statement of the text begins a block, if none is open; the tag by which Postgres answers it. */
  readonly beginsBy: 'BEGIN' | 'START TRANSACTION' | null;
  /** The isolation level of a transaction may be another one than READ COMMITTED behind it. */
  readonly setsOtherIsolation: boolean;
  /** What it does to a key-value table; null where it names none. */
  readonly kv: KvPlan | Refusal | null;
  /**
   * Runs alike on every shard and reads no table but catalogues: inside a transaction it does not choose the shard, and
   * where it sets something it can be run again (D13).
   */
  readonly neutral: boolean;
  /**
   * Reads what a catalogue tells of the database, and nothing more: the home shard's, which alone has the client's other tables.
   * Beside a transaction that is elsewhere it runs on a connection of its own, where nothing may be done or left.
   */
  readonly readsCatalogue: boolean;
  /**
   * Does nothing but give up what the session may hold on a connection: DEALLOCATE, CLOSE ALL, UNLISTEN, advisory unlocks,
   * DISCARD TEMP; beside it, statements that change nothing at most. For a session that holds nothing it is neutral (and need not be
   * said again where a block moves); else it belongs to the connection that holds it. Never set together with `neutral`.
   */
  readonly releases: boolean;
  /** Gives up, among other things, what a ROLLBACK brings back: UNLISTEN, DISCARD TEMP. */
  readonly releasesUntilEnd: boolean;
  /** To run it a server takes a snapshot, behind which it is too late for options of the transaction. */
  readonly takesSnapshot: boolean;
  /**
   * What it does in a block can be said again on another server, or need not be: `neutral`, `releases`, control of the block, or
   * several of those in one text. Said again are the parts of the text in `saidAgain`; null: all of it.
   */
  readonly movable: boolean;
  readonly saidAgain: readonly (readonly [start: number, end: number])[] | null;
  /** The text is one statement that asks for a session by its pid, and nothing else: answered here where the pid is pgkv's. */
  readonly backendCall: BackendCall | null;
  /** The text is COPY … TO STDOUT of a key-value table, and nothing else; `kv` is then the refusal for all other ways to run it. */
  readonly copyOut: CopyOut | null;
  /** The same of COPY … FROM STDIN. */
  readonly copyIn: CopyIn | null;
  /** EXPLAIN (ROUTE): is answered here. */
  readonly explainsRoute: boolean;
  /** What the client is to be told by a NOTICE when the text is run, null for most; only where there are key-value tables. */
  readonly notice: string | null;
  /** What it holds of V8's heap; 0 for one that is not kept (compact-template.ts). */
  readonly bytes: number;
}

const unread = (effects: EffectBits): Template => ({
  kind: 'unparsed',
  effects,
  settingNames: ['*'],
  statementNames: [],
  kinds: [],
  endsFailure: false,
  readOnly: false,
  showName: null,
  leavesBlock: null,
  textDependent: true,
  beginsBy: null,
  setsOtherIsolation: true,
  kv: null,
  neutral: false,
  readsCatalogue: false,
  releases: false,
  releasesUntilEnd: false,
  takesSnapshot: true,
  movable: false,
  saidAgain: null,
  backendCall: null,
  copyOut: null,
  copyIn: null,
  explainsRoute: false,
  notice: null,
  bytes: 0,
});

/**
 * For a text our parser rejects. The server nearly always rejects it too; if its grammar is newer it may do what any
 * statement may. The bits that tie a session to its connection for good are left out: a typing error must not.
 */
export const UNPARSED_TEMPLATE: Template = unread(
  Effect.settings | Effect.state | Effect.unknown | Effect.schema | Effect.deallocatesAll,
);

/** For a text too large or too deeply nested to be read here, which the server may well accept: every effect. */
export const UNREAD_TEMPLATE: Template = unread(UNPARSED_TEMPLATE.effects | Effect.sticky | Effect.readsSequenceState);

/** For a message that brings no text of its own: nothing is left behind by it. */
export const NEUTRAL_TEMPLATE: Template = {
  kind: 'empty',
  effects: Effect.none,
  settingNames: [],
  statementNames: [],
  kinds: [],
  endsFailure: false,
  readOnly: true,
  showName: null,
  leavesBlock: null,
  textDependent: false,
  beginsBy: null,
  setsOtherIsolation: false,
  kv: null,
  neutral: true,
  readsCatalogue: false,
  releases: false,
  releasesUntilEnd: false,
  takesSnapshot: false,
  movable: true,
  saidAgain: null,
  backendCall: null,
  copyOut: null,
  copyIn: null,
  explainsRoute: false,
  notice: null,
  bytes: 0,
};
