// One merged statement under way: sends it, has each row put to its member, and answers the members when ReadyForQuery has
// come and not before, since a CommandComplete may precede a commit that fails (D11 rule 2). A batch of one is the
// member's own statement. Invariants: a member is told exactly once; of a batch that failed nothing was applied, so its
// members run by themselves; of a batch whose connection was lost nobody knows, so members that write get 08007.

import type { ServerConnection, ServerLoss } from '../../backend/connection/server-connection.js';
import type { LeaseRequest } from '../../backend/pool/pool-group.js';
import { forwarded, Reply } from '../../backend/replies/reply-queue.js';
import { assert } from '../../base/assert.js';
import { encodeArrayBind, encodeSingleBind } from './array-bind.js';
import { askedOnce } from './asked-once.js';
import { ANSWER_BYTES_MAX, BatchAnswers } from './batch-answers.js';
import { LaneReceiver } from './lane-receiver.js';
import { endingOf } from './merged-answer.js';
import type { MergedQueue } from './merged-lane.js';
import type { MergedRequest } from './merged-request.js';
import type { MergedForm } from './merged-statement.js';

const STALE_PLAN = '0A000';
/** Lock time-outs, deadlocks, cancels: no fault of the statement. */
const STRANGERS: ReadonlySet<string> = new Set(['55P03', '40P01', '57014']);

const NOT_THEIRS = 'the rows of the answer are not those of the statements';

export class MergedBatch extends LaneReceiver {
  readonly #queue: MergedQueue;
  /** In the order in which they stand in the statement: as they were taken, and those that are left of them. */
  readonly #taken: readonly MergedRequest[];
  #members: readonly MergedRequest[];
  /** Without those that ask the same as one before them. */
  #asked: readonly MergedRequest[];
  #isSingle = false;
  /** What was known of the statement when the batch was sent; it may be learnt anew meanwhile. */
  #form: MergedForm;
  #connection: ServerConnection | null = null;
  /** Null until the batch is sent. */
  #answers: BatchAnswers | null = null;
  #ended = false;

  constructor(queue: MergedQueue, members: readonly MergedRequest[]) {
    super();
    this.#queue = queue;
    this.#taken = this.#members = this.#asked = members;
    this.#form = queue.statement.form!;
  }

  /** Asks for a connection and sends; the queue hears of the end by `batchEnded`. */
  start(): void {
    const { lane, settings } = this.#queue;
    const request: LeaseRequest = {
      group: lane.group,
      settings,
      queuedAt: 0,
      granted: (connection) => this.#send(connection),
      // Nothing was sent: each member finds out by itself what is wrong.
      refused: () => this.#end('rerun'),
    };
    lane.pool.acquire(request);
  }

  #send(connection: ServerConnection): void {
    const { lane, statement, settings } = this.#queue;
    if (!this.#anyLeft(connection)) return;
    this.#form = statement.form!;
    if (statement.stage !== 'merged' || this.#members.some(({ form }) => form !== this.#form)) {
      // It was learnt anew while they waited, and looks otherwise than what their answers would begin with.
      lane.giveBack(connection);
      this.#end('rerun');
      return;
    }
    this.#isSingle = this.#members.length === 1 && this.#form.plan.ownForOne;
    this.#connection = connection;
    connection.attach(this);
    if (connection.settings === settings || connection.bringTo(settings, this.#brought)) this.#prepare(connection);
  }

  readonly #brought = (failure: Buffer | null): void => {
    const connection = this.#connection!;
    if (failure === null) return this.#prepare(connection);
    // Under which settings it is now nobody knows.
    this.#connection = null;
    connection.attach(null);
    connection.destroy('the settings of a merged statement could not be applied');
    this.#end('rerun');
  };

  #prepare(connection: ServerConnection): void {
    const { lane, statement, settings } = this.#queue;
    const form = this.#form;
    const source = this.#isSingle ? form.one : form.many;
    if (connection.isPrepared(source, settings.semantics)) {
      this.#execute(connection);
      return;
    }
    // The table may have changed beside pgkv since the statement was learnt: rows of another shape are not to be told.
    connection.askShape(source, settings.semantics, (shape) => {
      if (shape === (this.#isSingle ? form.oneShape : form.manyShape)) {
        this.#execute(connection);
        return;
      }
      statement.stage = 'unknown';
      this.#connection = null;
      lane.giveBack(connection);
      this.#end('rerun');
    });
  }

  /** Some may have been taken back while the batch waited: they must not be run. */
  #anyLeft(connection: ServerConnection): boolean {
    this.#members = this.#members.filter(({ dropped }) => !dropped);
    if (this.#members.length > 0) return true;
    this.#connection = null;
    this.#queue.lane.giveBack(connection);
    this.#queue.batchEnded(this.#taken, false);
    return false;
  }

  #execute(connection: ServerConnection): void {
    const { format, settings } = this.#queue;
    const form = this.#form;
    if (!this.#anyLeft(connection)) return;
    const members = this.#members;
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
    this.#answers = new BatchAnswers(form, this.#asked, this.#isSingle, this.#queue.statement.answerBytes);
    if (this.#isSingle) {
      const name = connection.prepare(form.one, semantics);
      connection.output.push(encodeSingleBind(name, members[0]!, values, format));
    } else {
      const name = connection.prepare(form.many, semantics);
      const columns = plan.hidden + form.columnCount;
      connection.output.push(encodeArrayBind(name, this.#asked, values, plan.withSlots, plan.hidden, columns, format));
    }
    this.#queue.lane.counters.mergedBatches++;
    connection.replies.push(forwarded(Reply.bind));
    connection.replies.push(forwarded(Reply.execute));
    connection.replies.push(forwarded(Reply.sync));
    connection.output.flush();
  }

  serverBytes(bytes: Buffer): void {
    // What comes before the batch is sent is not about it: the server may be shutting down.
    this.#answers?.take(bytes);
  }

  serverReady(): void {
    const connection = this.#connection!;
    const { lane, statement } = this.#queue;
    const { error, broken, overflow, unsafe, used } = this.#answers!;
    this.#connection = null;
    const now = lane.clock.now();
    if (error !== null) {
      // The statement's plan is out of date: it is learnt anew, and other statements of that connection may be stale, too.
      if (error['C'] === STALE_PLAN) {
        statement.stage = 'unknown';
        connection.retired = true;
      } else if (!STRANGERS.has(error['C'] ?? '')) statement.failed(now);
      lane.giveBack(connection);
      this.#end('rerun');
      return;
    }
    if (broken) {
      statement.stage = 'unknown';
      // Whose answers come next on it is not certain, either (rule 8).
      connection.attach(null);
      lane.pool.destroyUnclean(connection, NOT_THEIRS);
      if (this.#queue.writes) this.#end('unknown', NOT_THEIRS);
      else this.#end('rerun');
      return;
    }
    statement.succeeded();
    lane.giveBack(connection);
    // Of reads, about: what was asked once may be told many times.
    const bytesToTell = this.#queue.writes ? 0 : (used * this.#members.length) / this.#asked.length;
    if (overflow || bytesToTell > ANSWER_BYTES_MAX) {
      statement.answerBytes = Math.max(statement.answerBytes * 2, ANSWER_BYTES_MAX / this.#asked.length);
      this.#end('rerun');
    } else if (unsafe && this.#queue.writes) this.#end('unknown', 'the standby has not confirmed the commit');
    else this.#answer(this.#answers!);
  }

  #answer({ bytes, used }: BatchAnswers): void {
    const { statement, lane } = this.#queue;
    const { counters } = lane;
    const { plan } = this.#form;
    const members = this.#members;
    statement.answerBytes += (used / this.#asked.length - statement.answerBytes) / 8;
    this.#queue.batchEnded(this.#taken, false);
    // Before the first is told: from then on it may be used for its client's next statement.
    if (this.#asked !== members) for (const member of members) member.takeFromTwin();
    for (let index = 0; index < members.length; index++) {
      const member = members[index]!;
      if (member.dropped) continue;
      if (plan.insertsPlainly && member.rows === 0 && !this.#isSingle) {
        // Something stands in its way: by itself it gets the error, with Postgres's own words.
        counters.mergedReruns++;
        member.client.rerun();
        continue;
      }
      counters.mergedStatements++;
      member.answers = bytes;
      member.ending = endingOf(plan.tag, member.rows);
      member.client.settled(member);
    }
  }

  serverLost(loss: ServerLoss): void {
    this.#connection = null;
    this.#queue.statement.failed(this.#queue.lane.clock.now());
    const isSent = this.#members.some(({ sent }) => sent);
    if (isSent && this.#queue.writes) this.#end('unknown', loss.error.detail ?? 'the server connection was lost');
    else this.#end('rerun');
  }

  #end(how: 'rerun' | 'unknown', detail = ''): void {
    assert(!this.#ended, 'a batch ends once');
    this.#ended = true;
    this.#queue.batchEnded(this.#taken, how === 'rerun');
    for (const member of this.#members) {
      if (member.dropped) continue;
      if (how === 'rerun') {
        this.#queue.lane.counters.mergedReruns++;
        member.client.rerun();
      } else member.client.unknown(detail);
    }
  }
}
