// One shard's part of a scattered read: a lane of its own, the statement sent through it, and the rows that come back,
// kept up to a bound. Phases:
//   acquiring   the lane gets and prepares a connection
//   measuring   the server is asked how many columns there are (leg-batch.ts)
//   running     the whole statement is sent, with its Sync
//   settled     the connection was given back or destroyed; rows may still be waiting here
// Invariant: after `settled` nothing of the leg is on any connection.

import type { ServerConnection, ServerLoss } from '../../backend/connection/server-connection.js';
import type { ReportedParameters } from '../../backend/replies/parameter-status.js';
import type { StatementSource } from '../../backend/replies/statement-source.js';
import { type ErrorName, messageOf, PgkvError } from '../../base/errors.js';
import type { Session } from '../../session/session.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { Frame, FrameReader } from '../../wire/frame-reader.js';
import { Backend, backendLimits, TransactionStatus } from '../../wire/protocol.js';
import { type Column, readColumns, readParameterTypes } from '../../wire/row-description.js';
import { encodeError } from '../../wire/server-messages.js';
import type { ClientPort, LeasedLane } from '../leased/leased-lane.js';
import type { StatementLane } from '../leased/lent-lane.js';
import { LegBatch, type LegStatement } from './leg-batch.js';
import type { SortedRows } from './row-merge.js';
import { RowQueue } from './row-queue.js';
import type { ScatterLimits, ScatterTarget } from './scatter-request.js';

/** Hears of a leg. `changed` follows everything that may let the run go on. */
export interface LegOwner {
  changed(): void;
  /** The leg has no answer, or not a whole one. */
  failed(error: Buffer): void;
  notice(message: Buffer): void;
}

/** A leg that is no longer wanted is read to its end up to here: that costs less than a cancel request. */
const DRAIN_BYTES_MAX = 1_048_576;
/** What Postgres says to a Bind with formats for another number of columns. */
const FORMAT_COUNT_MISMATCH = '08P01';

export class ScatterLeg implements ClientPort<LeasedLane>, SortedRows {
  readonly shardName: string;
  readonly rows = new RowQueue();
  phase: 'new' | 'acquiring' | 'measuring' | 'running' | 'settled' = 'new';
  /** The server has sent all rows. */
  ended = false;
  failed = false;
  /** The result as the portal has it, formats included. */
  rowDescription: Buffer | null = null;
  /** What a statement that is not run was described as: its parameters, its result. */
  readonly statementDescription: Buffer[] = [];
  columns: readonly Column[] | null = null;
  /** OIDs of the statement's parameters, where they were asked for. */
  parameterTypes: readonly number[] = [];
  readonly holdsBytes = false;
  /** See LegStatement. */
  readonly isInBlock: boolean;

  readonly #owner: LegOwner;
  readonly #session: Session;
  readonly #lane: StatementLane;
  readonly #source: StatementSource;
  readonly #batch: LegBatch;
  readonly #limits: ScatterLimits;
  readonly #reader: FrameReader;
  /** The bytes that the server sends cannot be read any further. */
  #unreadable = false;
  #sawReady = false;
  /** The connection is read no further because the queue is full. */
  #paused = false;
  /** Rows are thrown away: the answer is complete, or lost. */
  #discarding = false;
  #discardedBytes = 0;
  #cancelled = false;
  /** The next RowDescription is that of the statement, not of the portal. */
  #statementIsNext = false;
  /** The number of columns has changed: once more, from the beginning. */
  #again = false;
  /** It has been, or cannot be: an error ends the block. */
  #retried = false;
  /** What the client has been told, where the lane has just noted something else. */
  #told: ReportedParameters | null = null;

  constructor(options: {
    target: ScatterTarget;
    owner: LegOwner;
    session: Session;
    statement: LegStatement;
    limits: ScatterLimits;
  }) {
    this.shardName = options.target.shardName;
    this.#owner = options.owner;
    this.#session = options.session;
    this.#source = options.statement.source;
    this.isInBlock = this.#retried = options.statement.isInBlock;
    const { target, statement } = options;
    const own = target.parameters === undefined ? statement : { ...statement, parameters: [target.parameters] };
    this.#batch = new LegBatch(own, options.session);
    this.#limits = options.limits;
    const messageLimits = backendLimits(options.limits.rowBytesMax);
    messageLimits[Backend.dataRow] = options.limits.rowBytesMax;
    this.#reader = new FrameReader(messageLimits, 0, 'backend');
    this.#lane = options.target.lane(this);
  }

  // Called by the run.

  start(): void {
    this.phase = 'acquiring';
    if (this.isInBlock && !this.#hasBlock) {
      // It was lost since the read was begun: what is sent would be outside of it.
      this.#fail(new PgkvError('transaction_lost'));
      return this.#settle();
    }
    if (this.#lane.ensure(this.#source.template)) this.#granted();
  }

  get #hasBlock(): boolean {
    const { mode, connection } = this.#lane;
    return mode === 'leased' && connection!.status !== TransactionStatus.idle;
  }

  /** Some rows were taken: the server may send more. */
  taken(): void {
    if (!this.#paused || this.rows.bytes > this.#limits.legBytesMax / 2) return;
    this.#paused = false;
    this.#lane.clientDrained();
  }

  /** Nothing of this leg is wanted any more: what it still sends is thrown away. */
  discard(): void {
    this.#discarding = true;
    this.rows.clear();
    this.taken();
    if (this.phase === 'acquiring') this.cancel();
  }

  cancel(): void {
    if (this.phase === 'settled' || this.#cancelled) return;
    this.#cancelled = true;
    this.#lane.cancel();
  }

  /** Ends the leg at once, if need be with its connection. */
  end(): void {
    this.#discarding = true;
    this.rows.clear();
    this.#settle();
  }

  // Called by the lane.

  /** Its socket is read no further while too much waits here. A row that has come in part does not count. */
  get clogged(): boolean {
    return this.rows.bytes > this.#limits.legBytesMax && !this.#discarding;
  }

  send(bytes: Buffer): void {
    if (this.phase === 'acquiring') {
      // The lane tells of another shard's settings: the client is told only of those its session is seen with.
      this.#told ??= this.#session.told;
      return;
    }
    if (this.#discarding) this.#drained(bytes.length);
    if (this.#unreadable) return;
    const reader = this.#reader;
    try {
      // Copied, since the connection reads into that memory again.
      reader.push(Buffer.from(bytes));
      while (reader.next() !== Frame.none) this.#message(reader.type, reader.buffer, reader.start, reader.end);
    } catch (error) {
      this.#unreadable = true;
      this.#fail(this.#unreadableBytes(error));
    }
  }

  flush(): void {
    const { connection } = this.#lane;
    if (this.phase === 'measuring' && connection !== null) {
      if (this.failed || this.#discarding) this.#endBatch(connection);
      else if (this.#batch.measured) this.#run(connection);
    }
    this.#paused = this.clogged;
    this.#owner.changed();
  }

  notified(): void {
    // No session listens on the connection of a leg.
  }

  ready(): void {
    // ReadyForQuery is read from what is sent.
  }

  resume(): void {
    if (this.phase === 'acquiring') {
      if (this.#lane.mode === 'leased') this.#granted();
    } else if (this.phase === 'running' && this.#sawReady && !this.#lane.busy) {
      if (this.#again && !this.#discarding) this.#startAgain();
      else this.#settle();
    }
  }

  refused(error: PgkvError, message: Buffer | null): void {
    this.#restoreTold();
    if (message !== null && error.errorName === 'internal') this.#failWith(message);
    else if (error.errorName === 'cancelled') this.#fail(error);
    else this.#fail(this.#missing(error.errorName, error.message, error.detail));
    if (this.#lane.mode === 'free') this.#settle();
    else {
      // The connection is about to be given back.
      this.phase = 'running';
      this.#sawReady = true;
    }
  }

  lost(loss: ServerLoss): void {
    this.#restoreTold();
    this.#fail(this.#missing('server_unreachable', 'the server connection was lost during a read', loss.error.detail));
    this.#settle();
  }

  /** The statement as prepared was out of date, and nothing of it has been answered. */
  repeat(): void {
    const connection = this.#lane.connection!;
    connection.forget(this.#source);
    this.#batch.forgetColumns();
    this.#retried = true;
    this.#begin(connection);
  }

  tag(): void {
    // Tags are read from what is sent.
  }

  #granted(): void {
    this.#restoreTold();
    const { template, text } = this.#source;
    this.#lane.note(template, text);
    this.#begin(this.#lane.connection!);
  }

  #restoreTold(): void {
    if (this.#told !== null) this.#session.told = this.#told;
    this.#told = null;
  }

  /** Sends the statement, or first asks how many columns it has. */
  #begin(connection: ServerConnection): void {
    this.#sawReady = this.#statementIsNext = false;
    if (this.#batch.begin(connection)) return this.#run(connection);
    this.phase = 'measuring';
    connection.output.flush();
  }

  #run(connection: ServerConnection): void {
    try {
      this.#batch.run(connection);
    } catch (error) {
      this.#fail(error instanceof PgkvError ? error : new PgkvError('internal', { detail: messageOf(error) }));
      return this.#endBatch(connection);
    }
    this.phase = 'running';
    if (!this.#retried) {
      connection.guarded = true;
      this.#lane.shapeIsTold = true;
    }
    connection.output.flush();
  }

  /** Ends what was begun without a Bind. */
  #endBatch(connection: ServerConnection): void {
    this.phase = 'running';
    this.#batch.end(connection);
    connection.output.flush();
  }

  /** From the beginning, since the result has another number of columns by now. */
  #startAgain(): void {
    this.#batch.forgetColumns();
    this.#again = this.ended = false;
    this.#retried = true;
    this.rowDescription = this.columns = null;
    this.start();
  }

  #message(type: number, buffer: Buffer, start: number, end: number): void {
    switch (type) {
      case Backend.dataRow:
        if (!this.#discarding && !this.#again) this.rows.push(buffer, start, end);
        return;
      case Backend.parameterDescription:
        this.#statementIsNext = true;
        this.parameterTypes = readParameterTypes(buffer, start);
        if (this.#batch.isPreparedOnly) this.statementDescription.push(Buffer.from(buffer.subarray(start, end)));
        return;
      case Backend.noData:
      case Backend.rowDescription:
        return this.#described(Buffer.from(buffer.subarray(start, end)));
      case Backend.commandComplete:
        this.ended = !this.#again;
        return;
      case Backend.errorResponse:
        return this.#error(Buffer.from(buffer.subarray(start, end)));
      case Backend.noticeResponse:
        if (!this.#discarding) this.#owner.notice(Buffer.from(buffer.subarray(start, end)));
        return;
      case Backend.readyForQuery:
        this.#sawReady = true;
        if (this.#batch.isPreparedOnly) this.ended = !this.failed;
        if (!this.ended && !this.#again && !this.failed) {
          this.#fail(new PgkvError('internal', { detail: `shard "${this.shardName}" gave no answer to a read` }));
        }
        return;
    }
  }

  #described(message: Buffer): void {
    if (this.#batch.isPreparedOnly) {
      this.statementDescription.push(message);
      return;
    }
    const columns = readColumns(message);
    if (this.#statementIsNext) {
      this.#statementIsNext = false;
      this.#batch.countColumns(columns.length);
    } else if (!this.#batch.fits(columns.length) && !this.#retried) this.#again = true;
    else {
      this.rowDescription = message;
      this.columns = columns;
    }
  }

  #error(message: Buffer): void {
    const code = readErrorFields(message, 0, message.length)['C'];
    const wrongCount = code === FORMAT_COUNT_MISMATCH && this.#batch.boundByColumn && !this.#retried;
    if (wrongCount && this.rowDescription === null && this.phase === 'running') this.#again = true;
    else this.#failWith(message);
  }

  #drained(bytes: number): void {
    this.#discardedBytes += bytes;
    if (this.#discardedBytes > DRAIN_BYTES_MAX && !this.isInBlock) this.cancel();
  }

  #fail(error: PgkvError): void {
    this.#failWith(encodeError(error, 'ERROR'));
  }

  #failWith(message: Buffer): void {
    if (this.failed) return;
    this.failed = true;
    this.#owner.failed(message);
  }

  #missing(name: ErrorName, message: string, reason = ''): PgkvError {
    // The pool names its shard, too.
    const why = reason.replace(`shard ${this.shardName}, `, '');
    return new PgkvError(name, { message, detail: `shard "${this.shardName}" is missing from the answer: ${why}` });
  }

  #unreadableBytes(error: unknown): PgkvError {
    const tooLong = error instanceof PgkvError && error.errorName === 'protocol_violation';
    if (!tooLong) return new PgkvError('internal', { detail: messageOf(error), cause: error });
    return new PgkvError('limit_exceeded', {
      detail: `a row of shard "${this.shardName}" has more than ${this.#limits.rowBytesMax} bytes`,
      hint: 'read it by its tenant_id and key: that goes through whatever its size',
    });
  }

  #settle(): void {
    if (this.phase === 'settled') return;
    this.phase = 'settled';
    this.#lane.end();
    this.#owner.changed();
  }
}
