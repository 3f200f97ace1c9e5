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
import type { Clock } from '../../base/clock.js';
import type { Session } from '../../session/session.js';
import { Effect, type EffectBits, type Template } from '../../sql/plan/template.js';
import { CodeAtHand, SEARCHED_MAX } from './code-at-hand.js';
import { HiddenSettings } from './hidden-settings.js';
import type { LaneParts } from './lane-options.js';
import { Lingering } from './lingering.js';
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
  /** Something was noted since it was last decided whether to ask. */
  #isNew = false;
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
  readonly #code: CodeAtHand;
  readonly #lingering: Lingering;
  /** Calls off what would judge anew; null: nothing is assumed, or nobody has asked yet. */
  #callOff: (() => void) | null = null;
  /** The same for currval and lastval, up to DISCARD ALL. */
  #readsSequences = false;

  /** @param askNow the session has kept its connection for a moment without asking what is left, which is over */
  constructor(options: LaneParts & { readonly clock: Clock }, askNow: () => void) {
    this.#session = options.session;
    this.#pool = options.pool;
    this.#group = options.group;
    this.#registry = options.registry;
    this.#applicationName = options.applicationName;
    this.#code = new CodeAtHand(options.pool, options.group);
    this.#lingering = new Lingering(options.clock, options.pool, askNow);
  }

  /** The session keeps its connection between statements. */
  get pinned(): boolean {
    return this.#isKept || this.#lingering.on;
  }

  get #isKept(): boolean {
    return this.#hidden.kind !== 'none' || this.#readsSequences || this.pins.length > 0;
  }

  /** Why, for those who wait for a connection. */
  get heldFor(): string {
    if (this.pins.length > 0) return this.pins.join(' and ');
    if (this.#hidden.kind !== 'none') return `hidden settings (${this.#hidden.kind})`;
    if (this.#readsSequences) return 'what was drawn from sequences';
    return this.#lingering.on ? 'a moment behind DDL' : 'no reason';
  }

  /** Something may be lost with the connection, or be found by the next session. */
  get mayHoldState(): boolean {
    return this.pinned || this.#effects !== Effect.none;
  }

  /** The same once the block that is open has been undone, and the settings made in it with it. */
  get mayHoldStateBeyondBlock(): boolean {
    return this.pinned || ((this.#effects & ~Effect.settings) | this.#beyondBlock) !== Effect.none;
  }

  /** The server is at rest: if tables, routines or types may have changed, everybody is told. */
  announceSchema(): void {
    if ((this.#effects & Effect.schema) === 0) return;
    this.#effects &= ~Effect.schema;
    this.#code.announce();
  }

  /** The connection must not change hands before `ask` has been answered. */
  get mustAsk(): boolean {
    return (this.#effects & CHECKED) !== 0;
  }

  /** Settings of the session may have been changed, and nobody has asked for them. */
  get hidesSettings(): boolean {
    return (this.#effects & ANYTHING) !== 0;
  }

  /** A statement is about to be sent; returns what it may leave. `text` is read where it brings code along. */
  note(template: Template, text: string): EffectBits {
    const effects = this.#code.take(template, text, this.#effects === Effect.none);
    if (effects === Effect.none) return effects;
    // There is nothing to give up.
    if (template.releases && !this.mayHoldState) return effects;
    this.#effects |= effects;
    this.#isNew = true;
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
    return effects;
  }

  /** A block begins with what is about to be sent: what was noted before is not undone with it. */
  blockBegins(): void {
    this.#beyondBlock = this.#effects;
  }

  /** Nothing but temporary objects may have been left since the last answer. */
  #isDdlAlone(connection: ServerConnection): boolean {
    return (this.#effects & ANYTHING) === 0 && !this.pins.includes(UNKNOWN_STATE) && !this.#timesOut(connection);
  }

  /** Whether the session keeps its connection for a moment before the server is asked, as if it had temporary objects. */
  lingers(connection: ServerConnection): boolean {
    const isNew = this.#isNew;
    this.#isNew = false;
    // What left nothing does not put the question off.
    if (!isNew) return this.#lingering.on;
    return this.#isDdlAlone(connection) && this.#code.broughtNothing && this.#lingering.begin();
  }

  /** Whether the connection of a client that has gone may be used again, which only temporary objects can be in the way of. */
  get mayBeClean(): boolean {
    return this.#lingering.on && !this.#isKept && (this.#effects & ~(Effect.temporary | Effect.schema)) === 0;
  }

  /** Asks the server what is left. Only at rest; nothing else may be sent before `done`. */
  ask(connection: ServerConnection, done: (outcome: CheckOutcome) => void): void {
    this.#lingering.end();
    if (!this.#isDdlAlone(connection)) return this.#askAll(connection, done);
    // Settings, locks, cursors and the like are as they were: a tenth of what asking for all costs.
    askTemporary(connection, (exist) => {
      if (exist === null) return this.#askAll(connection, done);
      this.nothingLeft();
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

  /** What was assumed of the database's code is judged if it is known by now. */
  judge(routines = this.#code.routines): void {
    // What that code may have left is asked for by the names that are known now.
    if (routines !== null && this.#hidden.judge(routines)) this.#effects |= Effect.unknown;
  }

  /** Has `known` called when what was assumed of the database's code can be judged. Only at rest. */
  awaitRoutines(known: () => void): void {
    if (this.#hidden.kind !== 'assumed' || this.#callOff !== null) return;
    this.#callOff = this.#pool.whenRoutinesKnown(this.#group, (read) => {
      this.#callOff = null;
      this.judge(read);
      known();
    });
  }

  /** The connection has gone to somebody else, with nothing left on it. */
  gaveBack(): void {
    this.#code.forget();
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
    this.#code.forget();
    this.#lingering.end();
    this.#hidden.clear();
    this.#awaitNothing();
    this.#readsSequences = false;
    this.pins = [];
  }

  /** Code is about to run: what `text` brings along, what it calls, or what nobody sees. */
  #noteCode(template: Template, text: string): void {
    if (this.#code.runs === 'hides') return this.#hidden.prove();
    // What DDL only brings does not run yet.
    if (template.kind === 'schema' && (template.effects & Effect.unknown) === 0) return this.#noteUnseen(text);
    // What EXECUTE runs was read when it was prepared.
    const runsPrepared = template.kind !== 'multi' && template.statementNames.some(({ verb }) => verb === 'execute');
    const read = runsPrepared ? text.replace(/\bexecute\b/i, '') : text;
    if (text.length > SEARCHED_MAX) return this.#hidden.prove();
    this.#hidden.note(read, this.#code.routines, this.#pool.schemaEpoch);
    for (const name of customNamesIn(text)) this.#noteCustomName(name);
  }

  /** DDL may run code that its text does not show. */
  #noteUnseen(text: string): void {
    const { routines } = this.#code;
    if (routines?.makesUpUnseen !== true) return;
    if (routines.isAssumed) this.#hidden.assume(text, this.#pool.schemaEpoch);
    else this.#hidden.prove();
  }

  #notePrepared(text: string): void {
    this.#hidden.note(text, this.#code.routines, this.#pool.schemaEpoch);
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
      for (const name of this.#code.names) names.add(name);
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
