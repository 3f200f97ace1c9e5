// The leased lane: one client session on one server connection, exclusively, from the first message until the server is
// outside a transaction and owes nothing. Owns acquiring, carrying the session's state over, asking for the state that
// is left (state-check.ts), and giving the connection back, keeping it (pinned) or closing it.
//
// Modes, and what must hold in each:
//   free      no connection
//   waiting   a request stands in the pool's queue
//   preparing a connection is held; statements of pgkv's own are under way on it; no client message may be sent
//   leased    a connection is held and takes client messages
//   ended     the session is over

import type { LeaseRequest, NodePool, PoolGroup } from '../backend/node-pool.js';
import { parameterChanges } from '../backend/parameter-status.js';
import { type ControlQuery, Reply } from '../backend/reply-queue.js';
import { customNamesIn, hasDynamicNames, ROUTINES_SQL, type Routines, readRoutines } from '../backend/routines.js';
import type { ReplyReceiver, ServerConnection, ServerLoss } from '../backend/server-connection.js';
import { type SettingsGroup, type SettingsRegistry, settingsChangeSql } from '../backend/settings-group.js';
import type { StatementSource } from '../backend/statement-source.js';
import type { Clock } from '../base/clock.js';
import { PgkvError } from '../base/errors.js';
import type { Session } from '../session/session.js';
import type { PrologueStatement } from '../session/transaction-block.js';
import { Effect, type EffectBits, type Template } from '../sql/template.js';
import type { ErrorFields } from '../wire/error-fields.js';
import { TransactionStatus } from '../wire/protocol.js';
import { discardSequencesInBatch } from './discard-sequences.js';
import { readStateCheck, type SessionState, stateCheckSql } from './state-check.js';

/** The client's side of a lane, which a session may have several of. All calls are synchronous. */
export interface ClientPort {
  send(bytes: Buffer, lane: LeasedLane): void;
  flush(): void;
  /** The client's socket takes no more for now. */
  readonly clogged: boolean;
  /** Bytes sent are still to be read from where they were. */
  readonly holdsBytes: boolean;
  /** The lane takes messages again. */
  resume(): void;
  /** The statement that asked for a connection cannot have one. `message`: the server's own ErrorResponse. */
  refused(error: PgkvError, message: Buffer | null): void;
  /** The connection under the session broke. `hadState`: state was lost that cannot be had back. */
  lost(loss: ServerLoss, hadState: boolean, lane: LeasedLane): void;
  /** A statement whose plan had gone stale was held back from the client and has to be sent again. */
  repeat(): void;
  tag(tag: string): void;
}

/** Cancels what a connection is doing; calls back when the request has been delivered or has failed. */
export type CancelStatement = (connection: ServerConnection, delivered: () => void) => void;

/** Settings of superusers that pg_settings does not show after SET ROLE: they cannot be carried over. */
const HIDDEN_FROM_ROLES = new Set(['dynamic_library_path', 'extension_control_path', 'session_preload_libraries']);
const CHECKED: EffectBits = Effect.settings | Effect.state | Effect.unknown;
/** A session with more than this much in settings keeps its connection: carrying them would cost more. */
const SETTINGS_BYTES_MAX = 65_536;

/** Whether a setting that bears on how texts are parsed may change, if only up to the end of the transaction. */
function mayChangeMeaning(template: Template, text: string): boolean {
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

const DRAWING_KINDS: ReadonlySet<string> = new Set(['write', 'copy-in', 'multi', 'schema']);
/** Those that may follow other statements in one batch. */
const BATCHED_KINDS: ReadonlySet<string> = new Set(['write', 'read', 'copy-in']);
/** Whether a statement may draw from a sequence: what only begins, sets, locks or listens does not. */
const mayDraw = ({ kind, effects, kv }: Template): boolean =>
  kv === null &&
  (DRAWING_KINDS.has(kind) || (effects & Effect.unknown) !== 0 || (kind === 'read' && effects === Effect.none));

const IGNORED: ControlQuery = { row: () => undefined, failed: () => undefined, ready: () => undefined };

export class LeasedLane implements ReplyReceiver {
  mode: 'free' | 'waiting' | 'preparing' | 'leased' | 'ended' = 'free';
  connection: ServerConnection | null = null;
  /** Why the session keeps its connection, if it does. */
  pins: readonly string[] = [];
  /** True while a streamed client message has been passed on in part. */
  midMessage = false;
  /** Everything sent in this lease so far was proven to change nothing. */
  readOnly = true;
  /** Something sent in this lease may have ended the transaction. */
  mayHaveCommitted = false;
  /** A ROLLBACK was sent in this lease: what is sent behind it stands for itself. */
  #rolledBack = false;
  idleInTransactionSince = 0;
  /** The guarded batch under way tells the client the shape of its result. */
  shapeIsTold = false;

  readonly session: Session;
  readonly #pool: NodePool;
  readonly #group: PoolGroup;
  readonly #registry: SettingsRegistry;
  readonly #client: ClientPort;
  readonly #clock: Clock;
  readonly #cancelStatement: CancelStatement;
  readonly #applicationName: string;
  #effects: EffectBits = Effect.none;
  #customNames: Set<string> | null = null;
  /** Code was sent that makes up names of settings. */
  #dynamicNames = false;
  /** Such code ran: settings may be set that nobody can name, until they are reset. */
  #unseenSettings = false;
  /** State no probe can see and no statement ends: the connection stays with the session and is closed behind it. */
  #sticky = false;
  /** The same for currval and lastval, up to DISCARD ALL. */
  #readsSequences = false;
  #discardSequences = false;
  /** A statement waits for the connection to be prepared; and it has been cancelled meanwhile. */
  #starting = false;
  #cancelled = false;
  #request: LeaseRequest | null = null;
  #lastConnection: ServerConnection | null = null;
  #afterCancel: (() => void) | null = null;

  constructor(options: {
    session: Session;
    pool: NodePool;
    group: PoolGroup;
    registry: SettingsRegistry;
    client: ClientPort;
    clock: Clock;
    cancelStatement: CancelStatement;
    /** From the client's start-up packet: what RESET takes it back to. */
    applicationName: string;
  }) {
    this.session = options.session;
    this.#pool = options.pool;
    this.#group = options.group;
    this.#registry = options.registry;
    this.#client = options.client;
    this.#clock = options.clock;
    this.#cancelStatement = options.cancelStatement;
    this.#applicationName = options.applicationName;
  }

  /** Whether the session is in a transaction block or in the middle of something. */
  get busy(): boolean {
    return this.mode !== 'free' && !(this.mode === 'leased' && this.connection!.atRest);
  }

  /** Holds nothing for the statement at hand: it is free, or keeps its connection, at rest, for state of the session. */
  get unused(): boolean {
    return this.mode === 'free' || (this.mode === 'leased' && this.#pinned && this.connection!.atRest);
  }

  /** The session keeps its connection between statements. */
  get #pinned(): boolean {
    return this.#sticky || this.#readsSequences || this.pins.length > 0;
  }

  get holdsBytes(): boolean {
    return this.#client.holdsBytes;
  }

  /** In a transaction block, and the server waits for the client. */
  get idleInTransaction(): boolean {
    const { connection } = this;
    return connection !== null && connection.status !== TransactionStatus.idle && connection.replies.length === 0;
  }

  /**
   * Makes sure that a message belonging to `template` may be sent now. False: not yet (the client port's `resume` or
   * `refused` follows, perhaps before this returns).
   */
  ensure(template: Template): boolean {
    if (this.mode === 'leased') {
      if ((template.effects & Effect.readsSequenceState) !== 0 && this.#foreignSequences()) return false;
      return true;
    }
    if (this.mode !== 'free') return false;
    return this.#acquire((template.effects & Effect.readsSequenceState) !== 0);
  }

  /** A statement is about to be sent: remembers what it may leave behind. `text` is read where it brings code along. */
  note(template: Template, text: string): void {
    let { effects } = template;
    // Whatever the triggers and views of this database may do, a write or a read may do.
    const { routines } = this.#group;
    if (!template.readOnly && routines?.writesLeaveState === true) effects |= Effect.unknown;
    if (template.kind === 'read' && routines?.readsLeaveState === true) effects |= Effect.unknown;
    if (!template.readOnly) {
      this.readOnly = false;
      if (mayDraw(template)) this.#ownSequences(template);
      const endsBlock = template.leavesBlock === 'closed' && template.kind !== 'rollback';
      const mayCommit = endsBlock || template.kind === 'commit' || template.kind === 'multi' || this.#rolledBack;
      if (mayCommit || (effects & Effect.unknown) !== 0) this.mayHaveCommitted = true;
      if (template.kind === 'rollback' && template.leavesBlock === 'closed') this.#rolledBack = true;
    }
    if (mayChangeMeaning(template, text)) this.connection!.unsettle();
    if (effects === Effect.none) return;
    this.#effects |= effects;
    if ((effects & Effect.sticky) !== 0) this.#sticky = true;
    if ((effects & Effect.readsSequenceState) !== 0) this.#readsSequences = true;
    if ((effects & Effect.deallocatesAll) !== 0) this.connection!.watchTags = true;
    if ((effects & Effect.unknown) !== 0) {
      if (hasDynamicNames(text)) this.#dynamicNames = true;
      for (const name of customNamesIn(text)) this.#noteCustomName(name);
    }
    for (const name of template.settingNames) {
      if (HIDDEN_FROM_ROLES.has(name)) this.#sticky = true;
      if (name.includes('.')) this.#noteCustomName(name);
    }
  }

  /** What other sessions drew on this connection must not answer this one's lastval(), should it draw nothing itself. */
  #ownSequences(template: Template): void {
    const connection = this.connection!;
    const { sequenceOwner } = connection;
    const inBatch = connection.replies.unsynced();
    const foreign = sequenceOwner !== this && sequenceOwner !== null && this.#group.routines?.hasSequences !== false;
    // Some of these cannot run behind another statement of a batch; lastval() is then 55000 behind them.
    if (foreign && inBatch && !BATCHED_KINDS.has(template.kind)) return;
    connection.sequenceOwner = this;
    if (!foreign || connection.status === TransactionStatus.failed) return;
    if (inBatch) discardSequencesInBatch(connection);
    else connection.sendControl('DISCARD SEQUENCES', IGNORED);
  }

  /** A statement is about to be parsed: what has to be sent before a batch begins is sent now. */
  foresee(template: Template): void {
    if (!template.readOnly && mayDraw(template)) this.#ownSequences(template);
  }

  /**
   * The session goes on with this lane, which may have kept its connection while others were used: brings it to the
   * session's settings. False: not yet; the client port's `resume` or `refused` follows.
   */
  takeUp(): boolean {
    const { connection } = this;
    if (this.mode !== 'leased' || connection === null || !connection.atRest) return true;
    if (connection.settings === this.session.settings) return true;
    this.mode = 'preparing';
    if (!this.#carryOver(connection)) return false;
    this.mode = 'leased';
    return true;
  }

  /** Gives a connection back that nothing was sent on and that the session need not keep. */
  restIfUnused(): void {
    if (this.mode === 'leased' && this.connection!.atRest && !this.#pinned) this.#finish();
  }

  /** Opens a transaction block as the client asked for it, in front of the statement that is about to be sent. */
  openBlock(prologue: readonly PrologueStatement[]): void {
    for (const { template, text } of prologue) this.note(template, text);
    // A line end ends a comment at the end of any of them.
    this.connection!.sendControl(prologue.map(({ text }) => text).join('\n;\n'), IGNORED);
  }

  /** Ends a block in which nothing has happened that could not be done again elsewhere. `resume` follows. */
  leaveBlock(): void {
    this.mode = 'preparing';
    const connection = this.connection!;
    this.#control(connection, 'ROLLBACK', () => {
      this.mode = 'leased';
      this.#finish();
    });
  }

  /**
   * Ends the implicit transaction of a batch that the client has not ended yet. `resume` follows.
   * @param done whether the client was sent an error, so that the rest of its batch is to be skipped
   */
  endSegment(done: (errorTold: boolean) => void): void {
    this.mode = 'preparing';
    const connection = this.connection!;
    connection.endBatchQuietly((errorTold) => {
      done(errorTold);
      this.mode = 'leased';
      if (connection.atRest) this.#finish();
      else this.#client.resume();
    });
  }

  #noteCustomName(name: string): void {
    if (this.#customNames === null) this.#customNames = new Set();
    this.#customNames.add(name);
  }

  /** The default collation of the database is byte order, as far as it is known. */
  get byteOrder(): boolean {
    return this.#group.routines?.byteOrder === true;
  }

  get schemaEpoch(): number {
    return this.#pool.schemaEpoch;
  }

  /** Asks what shape a statement's result has now; null: the server will not say. The client port's `resume` follows. */
  askShape(source: StatementSource, done: (shape: string | null) => void): void {
    this.mode = 'preparing';
    this.connection!.askShape(source, this.session.settings.semantics, (shape) => {
      done(shape);
      this.mode = 'leased';
      this.#client.resume();
    });
  }

  /** CancelRequest from the client. */
  cancel(): void {
    if (this.mode === 'waiting') {
      if (this.#request !== null && this.#pool.withdraw(this.#request)) {
        this.mode = 'free';
        this.#request = null;
        this.#client.refused(new PgkvError('cancelled'), null);
      }
      return;
    }
    if (this.mode === 'preparing' && this.#starting) {
      this.#cancelled = true;
      return;
    }
    const { connection } = this;
    if (this.mode !== 'leased' || connection === null || connection.replies.length === 0) return;
    connection.cancelsUnderWay++;
    this.#cancelStatement(connection, () => {
      connection.cancelsUnderWay--;
      if (connection.cancelsUnderWay === 0 && !connection.dead && connection.receiver === this) {
        const resume = this.#afterCancel;
        this.#afterCancel = null;
        resume?.();
      }
    });
  }

  /** The client is gone. What it had begun ends as it would if the server had seen it go. */
  end(): void {
    const { connection, mode } = this;
    this.mode = 'ended';
    if (this.#request !== null) this.#pool.withdraw(this.#request);
    this.#request = null;
    if (connection === null) return;
    this.connection = null;
    connection.resume();
    const quiet = connection.replies.length === 0 && !connection.replies.skipping && !connection.copyIn;
    if (mode !== 'leased' || !quiet || this.midMessage || this.#pinned || this.#effects !== 0) {
      // Closing the socket is exactly what the server would have seen: it aborts what is open, and finishes or
      // refuses what it is at.
      connection.attach(null);
      this.#pool.destroyUnclean(connection, 'the client is gone');
      return;
    }
    connection.attach(null);
    if (connection.status === TransactionStatus.idle) return this.#pool.release(connection, this.#group);
    connection.runControl('ROLLBACK', {
      row: () => undefined,
      failed: () => undefined,
      ready: () => this.#pool.release(connection, this.#group),
    });
  }

  /** A streamed message has been passed on to its end. */
  messageFinished(): void {
    this.midMessage = false;
    if (this.mode === 'leased' && this.connection!.atRest) this.#finish();
  }

  serverBytes(bytes: Buffer): void {
    this.#client.send(bytes, this);
  }

  serverPaused(): void {
    this.#client.flush();
    if (this.connection === null) return;
    if (this.#client.clogged) this.connection.pause();
    if (!this.connection.output.blocked && this.mode === 'leased') this.#client.resume();
  }

  /** The client's socket takes bytes again. */
  clientDrained(): void {
    this.connection?.resume();
  }

  serverReady(status: number): void {
    this.connection!.guarded = false;
    if (status === TransactionStatus.idle) this.#pool.counters.transactionsTotal++;
    if (status === TransactionStatus.idle && this.connection!.atRest) {
      if (!this.midMessage) this.#finish();
      return;
    }
    this.idleInTransactionSince = this.#clock.now();
    this.#client.resume();
  }

  serverParameter(): void {
    this.session.told = this.connection!.parameters;
  }

  clientStatementName(source: StatementSource | null): string | undefined {
    return source === null ? undefined : this.session.nameOf(source);
  }

  serverTag(tag: string): void {
    if (tag === 'DEALLOCATE ALL' || tag === 'DISCARD ALL') {
      this.connection!.forgetAllPrepared();
      this.session.dropAllStatements();
      // Neither what LOAD loaded nor the seed of random() is discarded.
      if (tag === 'DISCARD ALL') this.#readsSequences = false;
    }
    this.#client.tag(tag);
  }

  guardedError(fields: ErrorFields): boolean {
    // "cached plan must not change result type", or a table that is gone: what the client's own Parse would have met.
    // 26000: a function has deallocated it. Once Bind has succeeded the statement may have run in part.
    const atBind = this.connection!.replies.head!.kind === Reply.bind;
    const code = fields['C'] ?? '';
    if (!atBind) return false;
    // A client that neither parses nor describes would misread rows of another shape.
    if (code === '0A000') return this.shapeIsTold && fields['R'] === 'RevalidateCachedQuery';
    return code.startsWith('42') || code === '26000';
  }

  guardedReady(): void {
    this.connection!.guarded = false;
    this.#client.repeat();
  }

  serverLost(loss: ServerLoss): void {
    const hadState = this.#pinned || this.#effects !== Effect.none;
    this.connection = null;
    this.#reset();
    if (this.mode === 'ended') return;
    this.mode = 'free';
    this.#client.lost(loss, hadState, this);
  }

  #acquire(readsSequenceState: boolean): boolean {
    const last = this.#lastConnection;
    if (readsSequenceState) {
      const untouched =
        last !== null &&
        !last.dead &&
        last.sequenceOwner === this &&
        last.settings === this.session.settings &&
        this.#pool.acquireExactly(last, this.#group);
      if (untouched) {
        this.#hold(last);
        this.mode = 'leased';
        return true;
      }
      this.#discardSequences = true;
    }
    this.mode = 'waiting';
    let returned = false;
    const request: LeaseRequest = {
      group: this.#group,
      settings: this.session.settings,
      queuedAt: 0,
      granted: (connection) => {
        this.#request = null;
        this.#hold(connection);
        if (this.#makeReady(connection)) {
          this.mode = 'leased';
          if (returned) this.#client.resume();
        } else {
          this.mode = 'preparing';
          this.#starting = true;
        }
      },
      refused: (error, message) => {
        this.#request = null;
        this.mode = 'free';
        this.#client.refused(error, message);
      },
    };
    this.#request = request;
    this.#pool.acquire(request);
    returned = true;
    return (this.mode as string) === 'leased';
  }

  #hold(connection: ServerConnection): void {
    this.#starting = this.#cancelled = false;
    this.connection = connection;
    connection.attach(this);
    this.readOnly = true;
    this.mayHaveCommitted = this.#rolledBack = false;
  }

  /** Asks for what has to be known, then carries the session over. True when nothing has to be waited for. */
  #makeReady(connection: ServerConnection): boolean {
    const epoch = this.#pool.schemaEpoch;
    if (this.#group.routines?.epoch === epoch) return this.#carryOver(connection);
    const known = (routines: Routines): void => {
      this.#group.routines = routines;
      if (this.#carryOver(connection)) this.#started();
    };
    connection.runControl(ROUTINES_SQL, readRoutines(epoch, known));
    return false;
  }

  /** Brings the connection to the session's settings. True when nothing has to be waited for. */
  #carryOver(connection: ServerConnection): boolean {
    const sql = settingsChangeSql(connection.settings, this.session.settings);
    if (sql === null && !this.#discardSequences) {
      connection.settings = this.session.settings;
      this.#tellParameters(connection);
      return true;
    }
    const statements = this.#discardSequences ? ['DISCARD SEQUENCES'] : [];
    if (sql !== null) statements.push(sql);
    this.#discardSequences = false;
    this.#control(connection, statements.join(';'), (failure) => {
      if (failure !== null) {
        // Whatever could not be set before cannot be trusted to be as it was.
        this.connection = null;
        this.mode = 'free';
        connection.attach(null);
        this.#pool.destroyUnclean(connection, 'the session settings could not be applied');
        this.#client.refused(new PgkvError('internal'), failure);
        return;
      }
      this.#setSettings(connection, this.session.settings);
      this.#tellParameters(connection);
      this.#started();
    });
    return false;
  }

  /** The connection is as the session needs it: the statement that waited for that may be sent, unless it was cancelled. */
  #started(): void {
    this.mode = 'leased';
    this.#starting = false;
    if (!this.#cancelled) return this.#client.resume();
    this.#cancelled = false;
    this.#client.refused(new PgkvError('cancelled'), null);
    if ((this.mode as string) === 'leased' && this.connection?.atRest === true) this.#finish();
  }

  #tellParameters(connection: ServerConnection): void {
    const { session } = this;
    if (session.told === connection.parameters) return;
    for (const message of parameterChanges(session.told, connection.parameters)) this.#client.send(message, this);
    session.told = connection.parameters;
  }

  /** Inside a lease, lastval() would see what an earlier session drew on this connection. */
  #foreignSequences(): boolean {
    const connection = this.connection!;
    if (connection.sequenceOwner === this || connection.sequenceOwner === null) return false;
    if (connection.status === TransactionStatus.failed) return false;
    if (connection.replies.unsynced()) {
      discardSequencesInBatch(connection);
      connection.sequenceOwner = this;
      return false;
    }
    // Put back until what was sent before has been answered.
    if (connection.replies.length > 0) return true;
    this.mode = 'preparing';
    connection.sequenceOwner = this;
    this.#control(connection, 'DISCARD SEQUENCES', () => {
      this.mode = 'leased';
      this.#client.resume();
    });
    return true;
  }

  #control(connection: ServerConnection, sql: string, done: (failure: Buffer | null) => void): void {
    let failure: Buffer | null = null;
    connection.runControl(sql, {
      row: () => undefined,
      failed: (message) => {
        failure = message;
      },
      ready: () => done(failure),
    });
  }

  /** The server is outside a transaction and owes nothing: asks what is left if anything may be, then gives it back. */
  #finish(): void {
    const connection = this.connection!;
    if (connection.cancelsUnderWay > 0) {
      // A cancel that lands late must not hit the next user of the connection.
      this.mode = 'preparing';
      this.#afterCancel = () => this.#control(connection, '', () => this.#finish());
      return;
    }
    if ((this.#effects & Effect.schema) !== 0) this.#pool.schemaChanged();
    if ((this.#effects & CHECKED) !== 0) {
      this.mode = 'preparing';
      const unknown = (this.#effects & Effect.unknown) !== 0;
      if (unknown && (this.#dynamicNames || (this.#group.routines?.dynamicNames ?? true))) this.#unseenSettings = true;
      const resets = this.#unseenSettings && !this.#pinned;
      connection.runControl(
        stateCheckSql(this.#namesToAsk(unknown), resets),
        readStateCheck((state) => this.#checked(connection, state, unknown, resets)),
      );
      return;
    }
    this.#effects = Effect.none;
    this.#giveBack(connection);
  }

  #namesToAsk(unknown: boolean): Set<string> {
    const names = new Set<string>(this.session.settings.placeholders);
    if (unknown) for (const name of this.#group.routines?.customNames ?? []) names.add(name);
    for (const name of this.#customNames ?? []) names.add(name);
    return names;
  }

  #checked(connection: ServerConnection, state: SessionState | null, unknown: boolean, wasReset: boolean): void {
    if (state === null) {
      // The session's own settings kept pgkv from asking (a statement_timeout of 1 ms): it keeps the connection, and
      // the question is asked again behind the next statement.
      this.pins = ['unknown state'];
      this.mode = 'leased';
      this.#client.resume();
      return;
    }
    this.#effects = Effect.none;
    this.#customNames = null;
    this.#dynamicNames = false;
    this.pins = state.pins;
    const onServer = this.#registry.intern(state.settings);
    this.#setSettings(connection, onServer);
    // RESET took application_name to the connection's start value, which is not the client's.
    const named = state.settings.has('application_name') || this.#applicationName === '';
    this.session.settings = named
      ? onServer
      : this.#registry.intern(new Map(state.settings).set('application_name', this.#applicationName));
    if (this.session.settings.bytes > SETTINGS_BYTES_MAX) this.pins = [...this.pins, 'large settings'];
    if (isMisread(connection, state.settings)) this.pins = [...this.pins, 'settings in another encoding'];
    // A function may have made a temporary table that hides another: statements are read anew.
    if (unknown && state.pins.length > 0) this.#pool.schemaChanged();
    if (wasReset) {
      this.#wasReset(connection);
      // It stays after all: put back what RESET ALL took away; the lane goes on when that is done.
      if (this.pins.length > 0 && !this.#carryOver(connection)) return;
    } else if (this.#unseenSettings && !this.#pinned) {
      // What kept the connection is gone, and the next session must not find what was set meanwhile.
      this.#control(connection, 'RESET ALL', () => {
        this.#wasReset(connection);
        this.#giveBack(connection);
      });
      return;
    }
    this.#giveBack(connection);
  }

  /** RESET ALL leaves the role. */
  #wasReset(connection: ServerConnection): void {
    const left = [...connection.settings.values].filter(([name]) => name === 'role');
    connection.settings = this.#registry.intern(new Map(left));
    this.#unseenSettings = false;
  }

  #setSettings(connection: ServerConnection, settings: SettingsGroup): void {
    connection.settings = settings;
    for (const name of settings.placeholders) connection.placeholders.add(name);
  }

  #giveBack(connection: ServerConnection): void {
    connection.settled();
    if (this.#pinned) {
      this.mode = 'leased';
    } else {
      this.mode = 'free';
      this.connection = null;
      this.#lastConnection = connection;
      connection.resume();
      this.#pool.release(connection, this.#group);
    }
    this.#client.resume();
  }

  #reset(): void {
    this.#effects = Effect.none;
    this.#customNames = null;
    this.#dynamicNames = this.#unseenSettings = false;
    this.#sticky = this.#readsSequences = false;
    this.#afterCancel = null;
    this.pins = [];
    this.midMessage = false;
  }
}
