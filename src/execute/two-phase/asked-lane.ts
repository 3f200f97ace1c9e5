// A lane of a session that is asked questions, one after the other, and whose answers are read here. Invariant: one question at
// a time is under way, and each is answered once: by the server, or as lost (null) when the connection breaks or the deadline is
// missed. After a loss a question goes by another connection of the same role.
import type { ServerConnection, ServerLoss } from '../../backend/connection/server-connection.js';
import type { ReportedParameters } from '../../backend/replies/parameter-status.js';
import { assert } from '../../base/assert.js';
import type { Clock, Timer } from '../../base/clock.js';
import type { PgkvError } from '../../base/errors.js';
import type { Template } from '../../sql/plan/template.js';
import { TransactionStatus } from '../../wire/protocol.js';
import type { ClientPort, LeasedLane } from '../leased/leased-lane.js';
import type { StatementLane } from '../leased/lent-lane.js';
import { BranchReader, type BranchResult } from './branch-reader.js';

export type Told = (results: readonly BranchResult[] | null) => void;
export type Send = (connection: ServerConnection) => void;

export interface AskedLaneOptions {
  /** Another lane of the session on that shard, or that of its block, lent. */
  lane(client: ClientPort<LeasedLane>): StatementLane;
  /** Of the statement: by it the connection is got ready. */
  readonly template: Template;
  readonly clock: Clock;
  readonly notice: (message: Buffer) => void;
}

export class AskedLane implements ClientPort<LeasedLane> {
  readonly clogged = false;
  readonly holdsBytes = false;
  readonly #options: AskedLaneOptions;
  #lane: StatementLane;
  /** Waits for a connection. */
  #waiting: { readonly send: Send; readonly count: number; readonly notice: (message: Buffer) => void } | null = null;
  #reader: BranchReader | null = null;
  #told: Told | null = null;
  #deadline: Timer | null = null;
  /** Of the wait for a connection. */
  #patience: Timer | null = null;
  /** What the client has been told, where the lane has just noted another shard's settings. */
  #settingsTold: ReportedParameters | null = null;
  /** Why there is no connection. */
  refusal: { readonly error: PgkvError; readonly message: Buffer | null } | null = null;
  /** The server takes more, or has said something. */
  onProgress: (() => void) | null = null;

  constructor(options: AskedLaneOptions) {
    this.#options = options;
    this.#lane = options.lane(this);
  }

  get lane(): StatementLane {
    return this.#lane;
  }

  /** The connection that has the branch; null: it is lost, or not there yet. */
  get connection(): ServerConnection | null {
    return this.#lane.mode === 'leased' ? this.#lane.connection : null;
  }

  /** A block is open on it, failed or not. */
  get hasBlock(): boolean {
    const { connection } = this;
    return connection !== null && connection.status !== TransactionStatus.idle;
  }

  /** @param count of the ReadyForQuery that end the answer */
  ask(send: Send, count: number, deadlineMs: number | null, told: Told, notice = this.#options.notice): void {
    assert(this.#told === null, 'one question at a time');
    this.#told = told;
    this.refusal = null;
    this.#waiting = { send, count, notice };
    if (deadlineMs !== null) this.#deadline = this.#options.clock.after(deadlineMs, () => this.#miss());
    if (this.#lane.ensure(this.#options.template)) this.#send();
  }

  /** The same on the connection that has the branch: it cannot be asked on another one. */
  askSame(send: Send, count: number, deadlineMs: number | null, told: Told, notice = this.#options.notice): void {
    if (this.connection === null) this.#options.clock.after(0, () => told(null));
    else this.ask(send, count, deadlineMs, told, notice);
  }

  /** The same in the client's block, which that connection has: outside of one it would be committed by itself. */
  askInBlock(send: Send, count: number, told: Told): void {
    if (this.hasBlock) this.ask(send, count, null, told);
    else this.#options.clock.after(0, () => told(null));
  }

  /** Where no connection is ready by then, it is not asked: the answer is that it is lost. */
  expireWaiting(ms: number): void {
    if (this.#waiting !== null) this.#patience ??= this.#options.clock.after(ms, () => this.#miss());
  }

  /** What is asked is awaited no longer than that. */
  expire(ms: number): void {
    if (this.#told !== null) this.#deadline ??= this.#options.clock.after(ms, () => this.#miss());
  }

  /** Where the pool has no connection by then, it is refused with that error; one that is being got ready is awaited. */
  waitAtMost(ms: number, error: PgkvError): void {
    if (this.#waiting !== null) this.#patience ??= this.#options.clock.after(ms, () => this.#lane.giveUp(error));
  }

  /** CancelRequest of the client. */
  cancel(): void {
    this.#lane.cancel();
  }

  /** Its connection is given back, or closed where it is not at rest. */
  end(): void {
    this.onProgress = null;
    this.#endPatience();
    this.#lane.end();
  }

  #send(): void {
    const waiting = this.#waiting;
    if (waiting === null) return;
    this.#restoreTold();
    this.#endPatience();
    this.#waiting = null;
    this.#reader = new BranchReader(waiting.count, waiting.notice);
    const connection = this.#lane.connection!;
    waiting.send(connection);
    connection.output.flush();
  }

  /** Who does not answer is left; what was asked may be done all the same. */
  #miss(): void {
    this.#lane.end();
    this.#lane = this.#options.lane(this);
    this.#answer(null);
  }

  #endPatience(): void {
    this.#patience?.cancel();
    this.#patience = null;
  }

  #answer(results: readonly BranchResult[] | null): void {
    const told = this.#told;
    this.#endPatience();
    this.#deadline?.cancel();
    this.#deadline = this.#told = this.#waiting = this.#reader = null;
    told?.(results);
  }

  #restoreTold(): void {
    if (this.#settingsTold !== null) this.#lane.session.told = this.#settingsTold;
    this.#settingsTold = null;
  }

  // Called by the lane.

  send(bytes: Buffer): void {
    if (this.#reader === null) this.#settingsTold ??= this.#lane.session.told;
    else if (!this.#reader.push(bytes)) this.#miss();
    else this.onProgress?.();
  }

  flush(): void {
    // Nothing is passed on before it is whole.
  }

  notified(): void {
    // No session listens on the connection of a branch.
  }

  ready(): void {
    // ReadyForQuery is read from what is sent.
  }

  resume(): void {
    if (this.#waiting !== null) {
      if (this.#lane.mode === 'leased') this.#send();
      else if (this.#lane.mode === 'free' && this.#lane.ensure(this.#options.template)) this.#send();
    } else if (this.#reader?.isComplete === true) this.#answer(this.#reader.results);
    else this.onProgress?.();
  }

  refused(error: PgkvError, message: Buffer | null): void {
    this.#restoreTold();
    this.refusal = { error, message };
    this.#answer(null);
  }

  lost(_loss: ServerLoss): void {
    this.#restoreTold();
    const reader = this.#reader;
    // What was answered before it broke was answered.
    this.#answer(reader?.isComplete === true ? reader.results : null);
  }

  repeat(): void {
    assert(false, 'the statement of a branch is parsed anew each time');
  }

  tag(): void {
    // Tags are read from what is sent.
  }
}
