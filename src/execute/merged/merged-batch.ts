// One statement for many members under way: sends it, has each row put to its member, and answers the members when
// ReadyForQuery has come and not before, since a CommandComplete may precede a commit that fails (D11 rule 2). A batch of
// one is the member's own statement. Phases:
//   gathered   waits for a connection
//   held       has one, which is brought to its settings and asked about the statement; nothing of it was sent
//   sent       the statement is with the server, which is awaited no longer than the deadline
//   ended      the connection is given back, closed or lost, and the members hear how it ended
// One that went well is used for another batch (`idle` until then). From gathered and held it may end at once. Invariants: a
// member hears exactly once; of a batch that failed nothing was applied, so its members run by themselves; of a batch whose
// connection was lost nobody knows, so writes get 08007.

import type { ServerConnection, ServerLoss } from '../../backend/connection/server-connection.js';
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { LeaseRequest, PoolGroup } from '../../backend/pool/pool-group.js';
import { forwarded, Reply } from '../../backend/replies/reply-queue.js';
import { assert } from '../../base/assert.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import type { Counters } from '../../telemetry/counters.js';
import { encodeArrayBind, encodeSingleBind } from './array-bind.js';
import { askedOnce } from './asked-once.js';
import { ANSWER_BYTES_MAX, BatchAnswers } from './batch-answers.js';
import type { Awaited, LaneDeadlines } from './lane-deadlines.js';
import { LaneReceiver } from './lane-receiver.js';
import type { FormText, MergedForm } from './merged-form.js';
import type { MergedRequest } from './merged-request.js';
import type { MergedStatement } from './merged-statement.js';

const STALE_PLAN = '0A000';
/** Lock time-outs, deadlocks, cancels: no fault of the statement. */
const STRANGERS: ReadonlySet<string> = new Set(['55P03', '40P01', '57014']);

const NOT_THEIRS = 'the rows of the answer are not those of the statements';

/** Which members of a batch run by themselves now: those without a row, for one. */
export type Reruns = 'none' | 'absent' | 'all';

/** What a batch has of the queue it was taken from (merged-queue.ts). */
export interface BatchHost {
  readonly lane: {
    readonly pool: NodePool;
    readonly group: PoolGroup;
    readonly clock: Clock;
    readonly counters: Counters;
    readonly deadlines: LaneDeadlines;
    /** It may be used for another batch. */
    keepBatch(batch: MergedBatch): void;
  };
  readonly statement: MergedStatement;
  readonly format: number;
  readonly settings: SettingsGroup;
  readonly writes: boolean;
  /** @param members as they were taken, those that were dropped later included */
  batchEnded(members: readonly MergedRequest[], reruns: Reruns): void;
}

type Phase =
  | { readonly kind: 'idle' | 'gathered' | 'ended' }
  | { readonly kind: 'held'; readonly connection: ServerConnection }
  | { readonly kind: 'sent'; readonly connection: ServerConnection };

const IDLE: Phase = { kind: 'idle' };
const GATHERED: Phase = { kind: 'gathered' };
const ENDED: Phase = { kind: 'ended' };
const NOBODY: readonly MergedRequest[] = [];

/** Bind, Execute and Sync are sent as one. */
const BATCH_OWED = [Reply.bind, Reply.execute, Reply.sync].map(forwarded);

export class MergedBatch extends LaneReceiver implements Awaited, LeaseRequest {
  readonly purpose = 'merged';
  queuedAt = 0;
  #host!: BatchHost;
  /** In the order in which they stand in the statement: as they were taken, and those that are left of them. */
  #taken: readonly MergedRequest[] = NOBODY;
  #members: readonly MergedRequest[] = NOBODY;
  /** Without those that ask the same as one before them. */
  #asked: readonly MergedRequest[] = NOBODY;
  #text!: FormText;
  /** What was known of the statement when the batch was sent; it may be learnt anew meanwhile. */
  #form!: MergedForm;
  #phase: Phase = IDLE;
  readonly #answers = new BatchAnswers();
  /** The deadline that was missed; 0: none. */
  #lateAfterMs = 0;

  get group(): PoolGroup {
    return this.#host.lane.group;
  }

  get settings(): SettingsGroup {
    return this.#host.settings;
  }

  /** Asks for a connection and sends; the host hears of the end by `batchEnded`. */
  start(host: BatchHost, members: readonly MergedRequest[]): void {
    this.#begin(host, members);
    host.lane.pool.acquire(this);
  }

  /** Sends on a connection that was idle: no member hears of the end within this call. */
  startOn(connection: ServerConnection, host: BatchHost, members: readonly MergedRequest[]): void {
    this.#begin(host, members);
    this.granted(connection);
  }

  #begin(host: BatchHost, members: readonly MergedRequest[]): void {
    assert(this.#phase.kind === 'idle', 'a batch has ended before it is used for another');
    this.#host = host;
    this.#taken = this.#members = this.#asked = members;
    this.#form = host.statement.form!;
    this.#phase = GATHERED;
  }

  /** Nothing was sent: each member finds out by itself what is wrong. */
  refused(): void {
    assert(this.#phase.kind === 'gathered', 'only who waits is refused');
    this.#phase = ENDED;
    this.#rerun();
  }

  granted(connection: ServerConnection): void {
    assert(this.#phase.kind === 'gathered', 'a batch has one connection');
    const { lane, statement, settings } = this.#host;
    this.#phase = { kind: 'held', connection };
    lane.deadlines.begin(this);
    if (!this.#anyLeft()) return;
    this.#form = statement.form!;
    if (statement.stage !== 'merged' || this.#members.some(({ form }) => form !== this.#form)) {
      // It was learnt anew while they waited: their rows may look otherwise than they expect.
      this.#giveBack();
      this.#rerun();
      return;
    }
    const { length } = this.#members;
    const { optimistic } = this.#form;
    const texts = optimistic === null || statement.expiredRows?.takeReaping(length) ? this.#form : optimistic;
    this.#text = length === 1 ? texts.one : texts.many;
    connection.attach(this);
    if (connection.settings === settings || connection.bringTo(settings, this.#brought)) this.#prepare(connection);
  }

  readonly #brought = (failure: Buffer | null): void => {
    if (failure === null) return this.#prepare(this.#held);
    // Under which settings it is now nobody knows.
    this.#close('the settings of a merged statement could not be applied');
    this.#rerun();
  };

  get #held(): ServerConnection {
    const phase = this.#phase;
    assert(phase.kind === 'held', 'the connection is held and nothing was sent');
    return phase.connection;
  }

  #prepare(connection: ServerConnection): void {
    const { statement, settings } = this.#host;
    const { source } = this.#text;
    if (connection.isPrepared(source, settings.semantics)) {
      this.#execute(connection);
      return;
    }
    // The table may have changed beside pgkv since the statement was learnt: rows of another shape are nobody's.
    connection.askShape(source, settings.semantics, (shape) => {
      if (shape === this.#text.shape) {
        this.#execute(this.#held);
        return;
      }
      statement.stage = 'unknown';
      this.#giveBack();
      this.#rerun();
    });
  }

  /** Some may have been taken back while the batch waited: they must not be run. */
  #anyLeft(): boolean {
    if (this.#members.some(isDropped)) this.#members = this.#members.filter((member) => !isDropped(member));
    if (this.#members.length > 0) return true;
    this.#giveBack();
    this.#host.batchEnded(this.#taken, 'none');
    return false;
  }

  #execute(connection: ServerConnection): void {
    const { format, settings, statement, lane } = this.#host;
    const form = this.#form;
    if (!this.#anyLeft()) return;
    const members = this.#members;
    if (isTooLate(members, lane.clock)) {
      this.#giveBack();
      this.#rerun();
      return;
    }
    for (let index = 0; index < members.length; index++) {
      const member = members[index]!;
      member.sent = true;
      member.rows = 0;
      member.start = member.end = -1;
    }
    const { plan } = form;
    const values = plan.refs.length;
    const { semantics } = settings;
    this.#asked = plan.writes ? members : askedOnce(members, values);
    const { source, isSingle, withSlots } = this.#text;
    this.#answers.begin(form, this.#asked, isSingle, statement.answerBytes);
    this.#phase = { kind: 'sent', connection };
    const name = connection.prepare(source, semantics);
    if (isSingle) {
      connection.sendAll(encodeSingleBind(name, members[0]!, values, withSlots, format), BATCH_OWED);
    } else {
      const columns = plan.hidden + form.columnCount;
      const bind = encodeArrayBind(name, this.#asked, values, withSlots, plan.hidden, columns, format);
      connection.sendAll(bind, BATCH_OWED);
    }
    lane.counters.mergedBatches++;
    connection.output.flush();
  }

  serverBytes(bytes: Buffer): void {
    // What comes before the batch is sent is not about it: the server may be shutting down.
    if (this.#phase.kind === 'sent') this.#answers.take(bytes);
  }

  serverReady(): void {
    const phase = this.#phase;
    assert(phase.kind === 'sent', 'only what was sent is answered');
    const { statement, lane, writes } = this.#host;
    const { error, broken, overflow, unsafe, used } = this.#answers;
    if (error !== null) {
      // The statement's plan is out of date: it is learnt anew, and other statements of that connection may be stale, too.
      if (error['C'] === STALE_PLAN) {
        statement.stage = 'unknown';
        phase.connection.retired = true;
      } else if (!STRANGERS.has(error['C'] ?? '')) statement.failed(lane.clock.now());
      this.#giveBack();
      this.#rerun();
      return;
    }
    if (broken) {
      statement.stage = 'unknown';
      // Whose answers come next on it is not certain, either (rule 8).
      this.#close(NOT_THEIRS);
      if (writes) this.#fail(unknownOutcome(NOT_THEIRS));
      else this.#rerun();
      return;
    }
    statement.succeeded();
    this.#giveBack();
    // Of reads, about: what was asked once may be an answer to many.
    const bytesToSend = writes ? 0 : (used * this.#members.length) / this.#asked.length;
    if (overflow || bytesToSend > ANSWER_BYTES_MAX) {
      statement.answerBytes = Math.max(statement.answerBytes * 2, ANSWER_BYTES_MAX / this.#asked.length);
      this.#rerun();
    } else if (unsafe && writes) this.#fail(unknownOutcome('the standby has not confirmed the commit'));
    else this.#answer();
  }

  #answer(): void {
    const { bytes, used } = this.#answers;
    const { statement, lane } = this.#host;
    const { counters } = lane;
    const { rerunsAbsent, optimistic } = this.#text;
    const members = this.#members;
    let absent = 0;
    statement.answerBytes += (used / this.#asked.length - statement.answerBytes) / 8;
    this.#host.batchEnded(this.#taken, rerunsAbsent ? 'absent' : 'none');
    // Before the first hears: from then on it may be used for its client's next statement.
    if (this.#asked !== members) for (const member of members) member.takeFromTwin();
    for (let index = 0; index < members.length; index++) {
      const member = members[index]!;
      if (member.dropped) continue;
      if (rerunsAbsent && member.rows === 0) {
        // Something stands in its way: by itself it reaps that, or gets the error, with Postgres's own words.
        absent++;
        counters.mergedReruns++;
        member.sink.rerun(member);
        continue;
      }
      counters.mergedStatements++;
      member.answers = bytes;
      member.sink.completed(member);
    }
    // Of plain INSERTs most have met a row that lives: to reap would be of no use.
    if (optimistic && !this.#form.plan.insertsPlainly) statement.expiredRows?.met(absent, members.length);
    this.#useAgain();
  }

  /** All have been told. Those of a pipeline keep their answers until the last of it has come. */
  #useAgain(): void {
    this.#answers.end(this.#members.some(({ group }) => group !== null));
    this.#taken = this.#members = this.#asked = NOBODY;
    this.#phase = IDLE;
    this.#host.lane.keepBatch(this);
  }

  missedDeadline(limitMs: number): void {
    const phase = this.#phase;
    assert(phase.kind === 'held' || phase.kind === 'sent', 'who waits for a server has a connection');
    this.#lateAfterMs = limitMs;
    this.#host.lane.pool.missedDeadline(phase.connection, limitMs);
  }

  serverLost(loss: ServerLoss): void {
    const wasSent = this.#phase.kind === 'sent';
    const { statement, lane, writes } = this.#host;
    this.#letGo();
    const late = `${lane.pool.label}: no answer within ${this.#lateAfterMs} ms (merged.deadline_ms)`;
    if (this.#lateAfterMs === 0) {
      statement.failed(lane.clock.now());
      if (wasSent && writes) this.#fail(unknownOutcome(loss.error.detail ?? 'the server connection was lost'));
      else this.#rerun();
    } else if (!wasSent) this.#rerun();
    else if (writes) {
      const message = `the outcome of the write is unknown: ${late}`;
      this.#fail(new PgkvError('outcome_unknown', { message, detail: late }));
    } else {
      // By itself it would have no deadline, and meet a server that is as silent.
      const message = `the statement only reads, and was given up: ${late}`;
      this.#fail(new PgkvError('server_unreachable', { message, detail: late }));
    }
  }

  /** The batch has ended, and the connection is no longer its own. */
  #letGo(): ServerConnection {
    const phase = this.#phase;
    assert(phase.kind === 'held' || phase.kind === 'sent', 'a batch lets go of its connection once');
    this.#phase = ENDED;
    this.#host.lane.deadlines.end(this);
    return phase.connection;
  }

  #giveBack(): void {
    const connection = this.#letGo();
    this.#host.lane.pool.release(connection, this.#host.lane.group);
  }

  #close(reason: string): void {
    const connection = this.#letGo();
    connection.attach(null);
    this.#host.lane.pool.destroyUnclean(connection, reason);
  }

  /** Nothing was done: each member runs by itself. */
  #rerun(): void {
    const { lane } = this.#host;
    this.#host.batchEnded(this.#taken, 'all');
    for (const member of this.#members) {
      if (member.dropped) continue;
      lane.counters.mergedReruns++;
      member.sink.rerun(member);
    }
  }

  #fail(error: PgkvError): void {
    this.#host.batchEnded(this.#taken, 'none');
    for (const member of this.#members) if (!member.dropped) member.sink.failed(error, member);
  }
}

/** Whether one has become so old while it waited, or the process stood still, that it must not be sent any more. */
function isTooLate(members: readonly MergedRequest[], clock: Clock): boolean {
  let sendBefore = Number.POSITIVE_INFINITY;
  for (let index = 0; index < members.length; index++) {
    const member = members[index]!;
    if (member.sendBefore < sendBefore) sendBefore = member.sendBefore;
  }
  return sendBefore !== Number.POSITIVE_INFINITY && clock.now() > sendBefore;
}

const isDropped = ({ dropped }: MergedRequest): boolean => dropped;
const unknownOutcome = (detail: string): PgkvError => new PgkvError('outcome_unknown', { detail });
