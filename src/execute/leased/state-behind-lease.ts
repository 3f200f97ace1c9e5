// What the statements of one session may leave in the server session they run on: notes it as they are sent, asks the server
// (state-check.ts) before the connection may change hands, and takes its answer down as the session's settings, which
// travel, and as pins, for which the session keeps its connection.
// Invariant: where something may have been left that nobody has asked for, `mayHoldState` is true.

import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { isTimeOut } from '../../backend/connection/settings-change.js';
import type { SettingsRegistry } from '../../backend/connection/settings-group.js';
import { customNamesIn } from '../../backend/pool/made-up-settings.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import type { Routines } from '../../backend/pool/routines.js';
import type { Session } from '../../session/session.js';
import { Effect, type EffectBits, type StatementKind, type Template } from '../../sql/plan/template.js';
import { HiddenSettings } from './hidden-settings.js';
import type { LaneParts } from './lane-options.js';
import { askState, askTemporary, type SessionState, TEMPORARY_OBJECTS } from './state-check.js';

/** Settings of superusers that pg_settings does not show after SET ROLE: they cannot be carried over. */
const HIDDEN_FROM_ROLES = new Set(['dynamic_library_path', 'extension_control_path', 'session_preload_libraries']);
const ANYTHING: EffectBits = Effect.settings | Effect.state | Effect.unknown;
const CHECKED: EffectBits = ANYTHING | Effect.temporary;
/** The server would not say. */
const UNKNOWN_STATE = 'unknown state';
/** A session with more than this much in settings keeps its connection: carrying them would cost more. */
const SETTINGS_BYTES_MAX = 65_536;
/** The same for one whose prepared statements (PREPARE) name more custom settings than this. */
const PREPARED_NAMES_MAX = 1_000;
/** Texts of code that are longer, in UTF-16 units, are not searched for names of settings. */
const SEARCHED_MAX = 1024 * 1024;
/** What runs no code. The end of a transaction may: deferred triggers, held cursors. */
const WITHOUT_CODE: ReadonlySet<StatementKind> = new Set(['empty', 'show', 'set', 'begin', 'rollback', 'savepoint']);

/** What a statement may leave. Whatever the triggers and views of its database may do, a write or a read may do. */
export function effectsOf({ effects, kind, readOnly }: Template, routines: Routines | null): EffectBits {
  if (routines === null || WITHOUT_CODE.has(kind)) return effects;
  const hidden = routines.readsLeaveState || (!readOnly && routines.writesLeaveState);
  return hidden ? effects | Effect.unknown : effects;
}

/** Whether a setting that bears on how texts are parsed may change, if only up to the end of the transaction. */
export function mayChangeMeaning(template: Template, text: string): boolean {
  const { kind, effects, settingNames } = template;
  if ((effects & (Effect.unknown | Effect.sticky)) !== 0 || kind === 'multi') return true;
  const changes = kind === 'set' || (!template.readOnly && template.textDependent);
  if (!changes && (effects & CHECKED) === 0) return false;
  // Custom settings bear on no parse. Local changes of others are not among the names, so those are counted.
  const count = kind === 'set' ? 1 : (text.match(/set_config/gi)?.length ?? 0);
  return settingNames.length < Math.max(count, 1) || settingNames.some((name) => !name.includes('.'));
}

/** Whether values cannot be set again: servers answer in the client's encoding, pgkv reads UTF-8. */
function isMisread(connection: ServerConnection, settings: ReadonlyMap<string, string>): boolean {
  if (connection.parameters.get('client_encoding') === 'UTF8') return false;
  return [...settings.values()].some((value) => /[\u0080-\u{10ffff}]/u.test(value));
}

/**
 * How a check ended. `unanswered`: the connection stays with the session, and is asked again behind the next statement;
 * `known`; `reset`: known and to be kept, but settings of the session were taken off and must be carried over again.
 */
export type CheckOutcome = 'unanswered' | 'known' | 'reset';

export class StateBehindLease {
  /** Why the session keeps its connection, as the server has told. */
  pins: readonly string[] = [];
  readonly #session: Session;
  readonly #pool: NodePool;
  readonly #group: PoolGroup;
  readonly #registry: SettingsRegistry;
  readonly #applicationName: string;
  /** What the statements since the last check may have left. */
  #effects: EffectBits = Effect.none;
  /** Those of them that stand though the block now open be undone. */
  #beyondBlock: EffectBits = Effect.none;
  #customNames: Set<string> | null = null;
  /** Custom settings that statements of PREPARE name: EXECUTE may set them. */
  #preparedNames: Set<string> | null = null;
  /** A time-out was set that would cut the check off. */
  #setsTimeOut = false;
  /**
   * State no probe can see and no statement ends, settings under names that code makes up among it: Postgres cannot
   * un-define one, so RESET ALL would show '' to the next session. The connection stays with this one and is closed behind it.
   */
  readonly #hidden = new HiddenSettings();
  /** Calls off what would judge anew; null: nothing is assumed, or nobody has asked yet. */
  #callOff: (() => void) | null = null;
  /** The same for currval and lastval, up to DISCARD ALL. */
  #readsSequences = false;

  constructor(options: LaneParts) {
    this.#session = options.session;
    this.#pool = options.pool;
    this.#group = options.group;
    this.#registry = options.registry;
    this.#applicationName = options.applicationName;
  }

  /** The session keeps its connection between statements. */
  get pinned(): boolean {
    return this.#hidden.kind !== 'none' || this.#readsSequences || this.pins.length > 0;
  }

  /** Something may be lost with the connection, or be found by the next session. */
  get mayHoldState(): boolean {
    return this.pinned || this.#effects !== Effect.none;
  }

  /** The same once the block that is open has been undone, and the settings made in it with it. */
  get mayHoldStateBeyondBlock(): boolean {
    return this.pinned || ((this.#effects & ~Effect.settings) | this.#beyondBlock) !== Effect.none;
  }

  /** Tables, routines or types may have changed. */
  get changesSchema(): boolean {
    return (this.#effects & Effect.schema) !== 0;
  }

  /** The connection must not change hands before `ask` has been answered. */
  get mustAsk(): boolean {
    return (this.#effects & CHECKED) !== 0;
  }

  /** A statement with `effects` is about to be sent. `text` is read where it brings code along. */
  note(effects: EffectBits, template: Template, text: string): void {
    // There is nothing to give up.
    if (template.releases && !this.mayHoldState) return;
    this.#effects |= effects;
    // What stands before a BEGIN, or behind a COMMIT, of one text is none of the block's.
    if (template.kind === 'multi') this.#beyondBlock |= effects;
    if ((effects & Effect.sticky) !== 0) this.#hidden.prove();
    if ((effects & Effect.readsSequenceState) !== 0) this.#readsSequences = true;
    if ((effects & Effect.unknown) !== 0) this.#noteCode(template, text);
    if (template.statementNames.some(({ verb }) => verb === 'prepare')) this.#notePrepared(text);
    for (const name of template.settingNames) {
      if (HIDDEN_FROM_ROLES.has(name)) this.#hidden.prove();
      if (isTimeOut(name)) this.#setsTimeOut = true;
      if (name.includes('.')) this.#noteCustomName(name);
    }
  }

  /** A block begins with what is about to be sent: what was noted before is not undone with it. */
  blockBegins(): void {
    this.#beyondBlock = this.#effects;
  }

  /** Asks the server what is left. Only at rest; nothing else may be sent before `done`. */
  ask(connection: ServerConnection, done: (outcome: CheckOutcome) => void): void {
    const isDdlAlone = (this.#effects & ANYTHING) === 0 && !this.pins.includes(UNKNOWN_STATE);
    if (!isDdlAlone || this.#timesOut(connection)) return this.#askAll(connection, done);
    // Settings, locks, cursors and the like are as they were: a tenth of what asking for all costs.
    askTemporary(connection, (exist) => {
      if (exist === null) return this.#askAll(connection, done);
      this.#effects = Effect.none;
      this.pins = [...this.pins.filter((pin) => pin !== TEMPORARY_OBJECTS), ...(exist ? [TEMPORARY_OBJECTS] : [])];
      done('known');
    });
  }

  #askAll(connection: ServerConnection, done: (outcome: CheckOutcome) => void): void {
    const unknown = (this.#effects & Effect.unknown) !== 0;
    const answered = (state: SessionState | null): void => {
      if (state === null) {
        this.pins = [UNKNOWN_STATE];
        return done('unanswered');
      }
      this.#takeDown(connection, state);
      if (unknown && this.#isAnotherUser(state)) this.#hidden.prove();
      const isRelieved = state.inForce !== state.settings;
      // A function may have made a temporary table that hides another: statements are read anew.
      if (unknown && state.pins.includes(TEMPORARY_OBJECTS)) this.#pool.schemaChanged();
      done(isRelieved && this.pinned ? 'reset' : 'known');
    };
    const question = { customNames: this.#namesToAsk(unknown), relieve: this.#timesOut(connection) };
    askState(connection, question, answered);
  }

  /** Has `known` called when what was assumed of the database's code can be judged. Only at rest. */
  awaitRoutines(known: () => void): void {
    if (this.#hidden.kind !== 'assumed' || this.#callOff !== null) return;
    this.#callOff = this.#pool.whenRoutinesKnown(this.#group, () => {
      this.#callOff = null;
      const { routines } = this.#group;
      // What that code may have left is asked for by the names that are known now.
      if (routines !== null && this.#hidden.judge(routines)) this.#effects |= Effect.unknown;
      known();
    });
  }

  #awaitNothing(): void {
    this.#callOff?.();
    this.#callOff = null;
  }

  /** What was sent has left nothing that the server would have to be asked for. */
  nothingLeft(): void {
    this.#effects = this.#beyondBlock = Effect.none;
  }

  /** DISCARD ALL took effect: neither what LOAD loaded nor the seed of random() is discarded by it. */
  discardedAll(): void {
    this.#readsSequences = false;
  }

  /** The connection is gone, and all that was left on it. */
  clear(): void {
    this.#effects = this.#beyondBlock = Effect.none;
    this.#customNames = this.#preparedNames = null;
    this.#setsTimeOut = false;
    this.#hidden.clear();
    this.#awaitNothing();
    this.#readsSequences = false;
    this.pins = [];
  }

  /** Code is about to run: what `text` brings along, what it calls, or what nobody sees. */
  #noteCode(template: Template, text: string): void {
    // What EXECUTE runs was read when it was prepared.
    const runsPrepared = template.kind !== 'multi' && template.statementNames.some(({ verb }) => verb === 'execute');
    const read = runsPrepared ? text.replace(/\bexecute\b/i, '') : text;
    if (text.length > SEARCHED_MAX) return this.#hidden.prove();
    this.#hidden.note(read, this.#group.routines, this.#pool.schemaEpoch);
    for (const name of customNamesIn(text)) this.#noteCustomName(name);
  }

  #notePrepared(text: string): void {
    this.#hidden.note(text, this.#group.routines, this.#pool.schemaEpoch);
    this.#preparedNames ??= new Set();
    for (const name of customNamesIn(text)) this.#preparedNames.add(name);
    if (this.#preparedNames.size > PREPARED_NAMES_MAX) this.#hidden.prove();
  }

  /**
   * Code has made the session another user's, which cannot be done on another connection; or has taken another role, to which
   * the server may not show all settings of a superuser.
   */
  #isAnotherUser({ sessionUser, settings }: SessionState): boolean {
    if (sessionUser !== this.#group.user) return true;
    return settings.has('role') && this.#group.parameters?.get('is_superuser') !== 'off';
  }

  #noteCustomName(name: string): void {
    if (this.#customNames === null) this.#customNames = new Set();
    this.#customNames.add(name);
  }

  /** The session has set a time-out, or has had one. */
  #timesOut({ settings }: ServerConnection): boolean {
    if (this.#setsTimeOut) return true;
    for (const name of settings.values.keys()) if (isTimeOut(name)) return true;
    return false;
  }

  #namesToAsk(unknown: boolean): Set<string> {
    const names = new Set<string>(this.#session.settings.placeholders);
    if (unknown) {
      for (const name of this.#group.routines?.customNames ?? []) names.add(name);
      for (const name of this.#preparedNames ?? []) names.add(name);
    }
    for (const name of this.#customNames ?? []) names.add(name);
    return names;
  }

  #takeDown(connection: ServerConnection, state: SessionState): void {
    const session = this.#session;
    this.#effects = this.#beyondBlock = Effect.none;
    this.#customNames = null;
    this.#setsTimeOut = false;
    this.pins = state.pins;
    connection.took(this.#registry.intern(state.inForce));
    const onServer = this.#registry.intern(state.settings);
    // RESET took application_name to the connection's start value, which is not the client's.
    const named = state.settings.has('application_name') || this.#applicationName === '';
    session.settings = named
      ? onServer
      : this.#registry.intern(new Map(state.settings).set('application_name', this.#applicationName));
    if (session.settings.bytes > SETTINGS_BYTES_MAX) this.pins = [...this.pins, 'large settings'];
    if (isMisread(connection, state.settings)) this.pins = [...this.pins, 'settings in another encoding'];
  }
}
