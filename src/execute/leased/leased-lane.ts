// The leased lane: one client session on one server connection, exclusively, from the first message until the server is outside a
// transaction and owes nothing. Owns the modes below. How a lane comes by a connection is acquisition.ts's, how it gives it back or
// keeps it giving-back.ts's, what may be left on it state-behind-lease.ts's, whose draws from sequences it shows sequence-owner.ts's,
// cancel requests under way are lane-cancels.ts's, the client's block lane-block.ts's.
// Modes, and what must hold in each:
//   free      no connection
//   waiting   a request stands in the pool's queue
//   preparing a connection is held; statements of pgkv's own are under way on it; no client message may be sent
//   leased    a connection is held and takes client messages
//   ended     the session is over

import type { ServerConnection, ServerLoss } from '../../backend/connection/server-connection.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import { untilReady } from '../../backend/replies/control-answers.js';
import { Reply } from '../../backend/replies/reply-queue.js';
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import type { Session } from '../../session/session.js';
import { databasesToLeave } from '../../sql/meaning/database-statements.js';
import { Effect, type EffectBits, type Template } from '../../sql/plan/template.js';
import type { ErrorFields } from '../../wire/error-fields.js';
import { TransactionStatus } from '../../wire/protocol.js';
import { type AcquiringLane, Acquisition } from './acquisition.js';
import { GivingBack } from './giving-back.js';
import { type BlockLane, LaneBlock } from './lane-block.js';
import { LaneCancels } from './lane-cancels.js';
import type { ClientPort, LaneOptions } from './lane-options.js';
import { mayDraw, ownLastval, ownSequences } from './sequence-owner.js';
import { isStalePlan } from './stale-plan.js';
import { mayChangeMeaning, StateBehindLease } from './state-behind-lease.js';

export type { CancelStatement, ClientPort } from './lane-options.js';

/** Among them are statements on whole databases. */
const ON_DATABASES: ReadonlySet<string> = new Set(['schema', 'other', 'multi']);

export class LeasedLane implements AcquiringLane, BlockLane {
  mode: 'free' | 'waiting' | 'preparing' | 'leased' | 'ended' = 'free';
  connection: ServerConnection | null = null;
  /** True while a streamed client message has been passed on in part. */
  midMessage = false;
  idleInTransactionSince = 0;
  /** The guarded batch under way tells the client the shape of its result. */
  shapeIsTold = false;

  readonly session: Session;
  /** Who gets its answers: the session, or who has it lent (LentLane). */
  port: ClientPort<LeasedLane>;
  /** The client's block on this server. */
  readonly block: LaneBlock;
  readonly #pool: NodePool;
  readonly #group: PoolGroup;
  readonly #clock: Clock;
  readonly #left: StateBehindLease;
  readonly #acquisition: Acquisition;
  readonly #cancels: LaneCancels;
  readonly #givingBack: GivingBack;
  /** A statement waits for the connection to be prepared; and it has been cancelled meanwhile. */
  #starting = false;
  #cancelled = false;

  constructor(options: LaneOptions<LeasedLane>) {
    this.session = options.session;
    this.#pool = options.pool;
    this.#group = options.group;
    this.port = options.client;
    this.#clock = options.clock;
    this.#left = new StateBehindLease(options, () => this.judgedAnew(false));
    this.#acquisition = new Acquisition(options, this);
    this.#cancels = new LaneCancels(this, options.cancelStatement);
    const { pool, group } = options;
    const parts = { pool, group, left: this.#left, cancels: this.#cancels, acquisition: this.#acquisition };
    this.#givingBack = new GivingBack(parts, this);
    this.block = new LaneBlock(this, { ...parts, givingBack: this.#givingBack });
  }

  /** Whether the session is in a transaction block or in the middle of something. */
  get busy(): boolean {
    return this.mode !== 'free' && !(this.mode === 'leased' && this.connection!.atRest);
  }

  /** Holds nothing for the statement at hand: it is free, or keeps its connection, at rest, for state of the session. */
  get unused(): boolean {
    return this.mode === 'free' || (this.mode === 'leased' && this.#left.pinned && this.connection!.atRest);
  }

  /** Why the session keeps its connection, if it does. */
  get pins(): readonly string[] {
    return this.#left.pins;
  }

  get heldFor(): string {
    if (this.mode !== 'leased') return 'what has to be asked or set';
    if (!this.connection!.atRest) return this.idleInTransaction ? 'idle transactions' : 'statements under way';
    return this.#left.heldFor;
  }

  get holdsState(): boolean {
    return this.#left.mayHoldState;
  }

  get holdsBytes(): boolean {
    return this.port.holdsBytes;
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
    const asksLastval = (template.effects & Effect.readsSequenceState) !== 0;
    if (this.mode === 'leased') return !asksLastval || this.#ownLastval();
    if (this.mode !== 'free') return false;
    this.mode = 'waiting';
    if (!this.#acquisition.begin(asksLastval)) return false;
    this.mode = 'leased';
    this.#starting = false;
    return true;
  }

  /** A statement is about to be sent: remembers, and returns, what it may leave. `text` is read where it brings code along. */
  note(template: Template, text: string): EffectBits {
    if (!template.readOnly) {
      this.foresee(template);
      if (!template.movable) this.block.mayDoMore = true;
    }
    if (ON_DATABASES.has(template.kind)) {
      for (const database of databasesToLeave(text)) this.#pool.onDatabaseLeft?.(database);
    }
    if (mayChangeMeaning(template, text)) this.connection!.unsettle();
    const effects = this.#left.note(template, text);
    if ((effects & Effect.deallocatesAll) !== 0) this.connection!.watchTags = true;
    return effects;
  }

  /** A statement is about to be parsed: what has to be sent before a batch begins is sent now (R4). */
  foresee(template: Template): void {
    if (template.readOnly || !mayDraw(template)) return;
    ownSequences(this.connection!, this, template, this.#group.routines?.hasSequences !== false);
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
    if (!this.#acquisition.carryOver(connection)) return false;
    this.mode = 'leased';
    return true;
  }

  /** Gives a connection back that nothing was sent on and that the session need not keep. */
  restIfUnused(): void {
    if (this.mode === 'leased' && this.connection!.atRest && !this.#left.pinned) this.#finish();
  }

  /** The session keeps its connection for less than it did: what may be left on it is asked anew. */
  judgedAnew(mayLinger = true): void {
    if (this.mode === 'leased' && this.connection!.atRest && !this.midMessage) this.#finish(mayLinger);
  }

  /** The default collation of the database is byte order, as far as it is known. */
  get byteOrder(): boolean {
    return this.#group.routines?.byteOrder === true;
  }

  get schemaEpoch(): number {
    return this.#pool.schemaEpoch;
  }

  get shardName(): string | null {
    return this.#pool.shardName;
  }

  /** Asks what shape a statement's result has now; null: the server will not say. The client port's `resume` follows. */
  askShape(source: StatementSource, done: (shape: string | null) => void): void {
    this.mode = 'preparing';
    this.connection!.askShape(source, this.session.settings.semantics, (shape) => {
      done(shape);
      this.#goOn();
    });
  }

  /** The statement that waits for a connection may have another way by now. `resume` follows. */
  reconsider(): void {
    if (this.withdraw()) this.port.resume();
  }

  /** It waits for a connection no longer. */
  withdraw(): boolean {
    if (this.mode !== 'waiting' || !this.#acquisition.withdraw()) return false;
    this.mode = 'free';
    return true;
  }

  /** The statement that waits for a connection waits no longer. */
  giveUp(error: PgkvError): void {
    if (this.mode === 'waiting' && this.#acquisition.withdraw()) this.connectionRefused(error, null);
  }

  /** CancelRequest from the client. */
  cancel(): void {
    if (this.mode === 'waiting') return this.giveUp(new PgkvError('cancelled'));
    if (this.mode === 'preparing' && this.#starting) this.#cancelled = true;
    const { connection } = this;
    // While its batch is being ended, the server is at the client's statements still.
    if (connection === null || !this.#isAtClients(connection)) return;
    this.#cancels.send(connection);
  }

  /** Whether the server is at what the client has sent. */
  #isAtClients({ replies }: ServerConnection): boolean {
    if (this.mode === 'leased') return replies.length > 0;
    return this.mode === 'preparing' && replies.owedToClient().length > 0;
  }

  /** The session is being ended: what the server is at is cancelled, since it would not notice that nobody waits for it. */
  stop(): void {
    const { connection } = this;
    if (connection === null || !this.#isAtClients(connection)) return;
    this.#cancels.sendLast(connection);
  }

  /** The client is gone. What it had begun ends as it would if the server had seen it go. */
  end(): void {
    const { connection, mode } = this;
    this.mode = 'ended';
    this.#acquisition.withdraw();
    if (connection === null) return;
    this.connection = null;
    connection.resume();
    this.#givingBack.orphaned(connection, mode === 'leased' && !this.midMessage);
  }

  /** In its block: nothing is sent before what is being cancelled can no longer be hit by that; then `told`, and `resume`. */
  awaitCancels(told: () => void): void {
    const connection = this.connection!;
    this.mode = 'preparing';
    const landed = untilReady(() => this.#goOn(told));
    this.#cancels.whenLanded(() => connection.runControl('', landed));
  }

  /** A streamed message has been passed on to its end. */
  messageFinished(): void {
    this.midMessage = false;
    if (this.mode === 'leased' && this.connection!.atRest) this.#finish();
  }

  serverBytes(bytes: Buffer): void {
    this.port.send(bytes, this);
  }

  serverNotified(message: Buffer, isBeside: boolean): void {
    this.port.notified(message, this, isBeside);
  }

  serverPaused(): void {
    this.port.flush();
    if (this.connection === null) return;
    if (this.port.clogged) this.connection.pause();
    if (!this.connection.output.blocked && this.mode === 'leased') this.port.resume();
  }

  /** The client's socket takes bytes again. */
  clientDrained(): void {
    this.connection?.resume();
  }

  serverReady(status: number): void {
    this.connection!.guarded = false;
    this.port.ready(status, this);
    if (status === TransactionStatus.idle) this.#pool.counters.transactionsTotal++;
    if (status === TransactionStatus.idle && this.connection!.atRest) {
      if (!this.midMessage) this.#finish();
      return;
    }
    this.idleInTransactionSince = this.#clock.now();
    this.port.resume();
  }

  serverParameter(): void {
    this.session.told = this.connection!.parameters;
  }

  clientStatementName(source: StatementSource | null): string | undefined {
    return source === null ? undefined : this.session.nameOf(source);
  }

  serverTag(tag: string): void {
    if (tag === 'DISCARD ALL') this.#left.discardedAll();
    this.port.tag(tag);
  }

  guardedError(fields: ErrorFields): boolean {
    // Once Bind has succeeded the statement may have run in part.
    return this.connection!.replies.head!.kind === Reply.bind && isStalePlan(fields, this.shapeIsTold);
  }

  guardedReady(): void {
    this.connection!.guarded = false;
    this.port.repeat();
  }

  serverLost(loss: ServerLoss): void {
    const lost = this.block.lost();
    const left = lost === 'left';
    // What was set in a block is undone with it, unless a server has said that it was committed.
    const undone = lost !== null || (loss.status !== TransactionStatus.idle && !loss.done.committed);
    const hadState = undone ? this.#left.mayHoldStateBeyondBlock : this.#left.mayHoldState;
    this.connection = null;
    this.#left.clear();
    this.#cancels.clear();
    this.midMessage = false;
    if (this.mode === 'ended') return;
    this.mode = 'free';
    if (this.#starting) {
      // Nothing of the client was sent on it.
      this.#starting = false;
      const { detail } = loss.error;
      this.port.refused(new PgkvError('server_unreachable', detail === undefined ? {} : { detail }), null);
    } else if (left && !hadState && loss.last === null) this.port.resume();
    else this.port.lost(loss, hadState, this);
  }

  connectionHeld(connection: ServerConnection): void {
    this.mode = 'preparing';
    this.#starting = true;
    this.#cancelled = false;
    this.connection = connection;
    connection.attach(this);
  }

  /** The statement that waited for the connection may be sent, unless it was cancelled. */
  connectionReady(): void {
    this.mode = 'leased';
    this.#starting = false;
    if (!this.#cancelled) return this.port.resume();
    this.#cancelled = false;
    this.port.refused(new PgkvError('cancelled'), null);
    if ((this.mode as string) === 'leased' && this.connection?.atRest === true) this.#finish();
  }

  connectionRefused(error: PgkvError, message: Buffer | null): void {
    this.connection = null;
    this.mode = 'free';
    this.port.refused(error, message);
  }

  /** lastval() is asked for inside a lease: what another session drew on this connection is discarded. False: not yet. */
  #ownLastval(): boolean {
    const connection = this.connection!;
    const found = ownLastval(connection, this);
    if (found !== 'foreign') return found === 'own';
    this.mode = 'preparing';
    connection.sequenceOwner = this;
    const discarded = untilReady(() => this.#goOn());
    connection.runControl('DISCARD SEQUENCES', discarded);
    return false;
  }

  /** What kept client messages waiting is done. */
  #goOn(told?: () => void): void {
    this.mode = 'leased';
    told?.();
    this.port.resume();
  }

  #finish(mayLinger = true): void {
    this.#givingBack.begin(this.connection!, mayLinger);
  }

  connectionChecked(): void {
    this.mode = 'preparing';
  }

  connectionKept(): void {
    this.mode = 'leased';
  }

  connectionGivenUp(): void {
    this.mode = 'free';
    this.connection = null;
  }

  goesOn(): void {
    this.port.resume();
  }
}
