// One merged statement under way: sends it, puts each row to its member, and answers the members when ReadyForQuery has
// come and not before, since a CommandComplete may precede a commit that fails (D11 rule 2). A batch of one is the
// member's own statement. Invariants: a member is told exactly once; of a batch that failed nothing was applied, so its
// members run by themselves; of a batch whose connection was lost nobody knows, so members that write get 08007.
import type { LeaseRequest } from '../../backend/node-pool.js';
import { forwarded, Reply } from '../../backend/reply-queue.js';
import type { ServerConnection, ServerLoss } from '../../backend/server-connection.js';
import { settingsChangeSql } from '../../backend/settings-group.js';
import { assert } from '../../base/assert.js';
import { type ErrorFields, readErrorFields } from '../../wire/error-fields.js';
import { Backend } from '../../wire/protocol.js';
import { encodeArrayBind, encodeSingleBind } from './array-bind.js';
import { askedOnce } from './asked-once.js';
import { LaneReceiver } from './lane-receiver.js';
import { endingOf } from './merged-answer.js';
import type { MergedQueue } from './merged-lane.js';
import type { MergedRequest } from './merged-request.js';
import type { MergedForm } from './merged-statement.js';

/** Answers larger than this are not gathered: the members fetch them themselves. */
const ANSWER_BYTES_MAX = 8 * 1024 * 1024;
const STALE_PLAN = '0A000';
/** Lock time-outs, deadlocks, cancels: no fault of the statement. */
const STRANGERS: ReadonlySet<string> = new Set(['55P03', '40P01', '57014']);
/** "canceling wait for synchronous replication due to user request" and the like: the commit is not safe (rule 2). */
const SYNC_REP_WARNING = '01000';

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
  /** Answers so far; rows are copied, since the chunks they come in are read into again. */
  #answers: Buffer;
  #used = 0;
  /** Parts of a message whose rest has not come, and how long they have to be before it is looked at again. */
  #rest: Buffer[] = [];
  #restBytes = 0;
  #restWanted = 0;
  #error: ErrorFields | null = null;
  #overflow = false;
  /** A row came that is no member's, or of another shape than was learnt: the table is not what it was. */
  #broken = false;
  #unsafe = false;
  #ended = false;
  /** Place of the member whose row came last. */
  #at = -1;

  constructor(queue: MergedQueue, members: readonly MergedRequest[]) {
    super();
    this.#queue = queue;
    this.#taken = this.#members = this.#asked = members;
    this.#form = queue.statement.form!;
    const { answerBytes } = queue.statement;
    this.#answers = Buffer.allocUnsafeSlow(Math.min(ANSWER_BYTES_MAX, 256 + members.length * (answerBytes + 64)));
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
    this.#isSingle = this.#members.length === 1;
    this.#connection = connection;
    connection.attach(this);
    const change = settingsChangeSql(connection.settings, settings);
    if (change === null) {
      connection.settings = settings;
      this.#prepare(connection);
      return;
    }
    let failed = false;
    connection.runControl(change, {
      row: () => undefined,
      failed: () => {
        failed = true;
      },
      ready: () => {
        if (!failed) {
          connection.settings = settings;
          this.#prepare(connection);
          return;
        }
        // Under which settings it is now nobody knows.
        this.#connection = null;
        connection.attach(null);
        connection.destroy('the settings of a merged statement could not be applied');
        this.#end('rerun');
      },
    });
  }

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
    let buffer = bytes;
    if (this.#restBytes > 0) {
      // Copied once, when the message is whole: a large row comes in many chunks.
      this.#rest.push(Buffer.from(bytes));
      this.#restBytes += bytes.length;
      if (this.#restBytes < this.#restWanted) return;
      buffer = Buffer.concat(this.#rest, this.#restBytes);
      this.#rest = [];
      this.#restBytes = 0;
    }
    let at = 0;
    const { length } = buffer;
    while (at + 5 <= length) {
      const end = at + 1 + buffer.readInt32BE(at + 1);
      if (end > length) break;
      const type = buffer[at];
      if (type === Backend.dataRow) this.#row(buffer, at, end);
      else if (type === Backend.commandComplete) this.#tag(buffer, at, end);
      else if (type === Backend.errorResponse) this.#fail(readErrorFields(buffer, at, end));
      else if (type === Backend.noticeResponse) this.#notice(readErrorFields(buffer, at, end));
      at = end;
    }
    if (at === length) return;
    this.#rest = [Buffer.from(buffer.subarray(at))];
    this.#restBytes = length - at;
    this.#restWanted = this.#restBytes < 5 ? 5 : 1 + buffer.readInt32BE(at + 1);
  }

  /** The member's own statement says by its tag how many rows it touched, with or without RETURNING. */
  #tag(buffer: Buffer, start: number, end: number): void {
    if (!this.#isSingle) return;
    const tag = buffer.toString('latin1', start + 5, end - 1);
    this.#members[0]!.rows = Number(tag.slice(tag.lastIndexOf(' ') + 1));
  }

  #row(buffer: Buffer, start: number, end: number): void {
    if (this.#overflow || this.#broken) return;
    const { plan, columnCount } = this.#form;
    let member: MergedRequest;
    let visible = start + 7;
    const { hidden } = plan;
    if (buffer.readUInt16BE(start + 5) !== columnCount + (this.#isSingle ? 0 : hidden)) {
      this.#broken = true;
      return;
    }
    if (this.#isSingle) member = this.#members[0]!;
    else {
      const index = plan.identifies === 'ordinal' ? buffer.readInt32BE(start + 15) - 1 : this.#byKey(buffer, start);
      for (let column = 0; column < hidden; column++) visible += 4 + Math.max(0, buffer.readInt32BE(visible));
      const found = this.#asked[index];
      if (found === undefined) {
        this.#broken = true;
        return;
      }
      member = found;
      member.rows++;
      if (columnCount === 0) return;
      this.#continue(member, index);
    }
    if (this.#isSingle && member.start < 0) this.#begin(member);
    const bytes = end - visible + 7;
    if (!this.#room(bytes)) return;
    const answers = this.#answers;
    const to = this.#used;
    answers[to] = Backend.dataRow;
    answers.writeInt32BE(bytes - 1, to + 1);
    answers.writeUInt16BE(columnCount, to + 5);
    buffer.copy(answers, to + 7, visible, end);
    this.#used = to + bytes;
    member.end = this.#used;
  }

  /** Rows of a member stand together: they nearly always come so, and else those before are copied to where it goes on. */
  #continue(member: MergedRequest, index: number): void {
    if (member.start < 0) {
      this.#at = index;
      this.#begin(member);
    } else if (this.#at !== index) {
      this.#at = index;
      const { start, end } = member;
      if (!this.#room(end - start)) return;
      this.#answers.copy(this.#answers, this.#used, start, end);
      member.start = this.#used;
      this.#used += end - start;
      member.end = this.#used;
    }
  }

  #begin(member: MergedRequest): void {
    const { prefix } = member;
    if (!this.#room(prefix.length)) return;
    member.start = this.#used;
    this.#used += prefix.copy(this.#answers, this.#used);
    member.end = this.#used;
  }

  /** Finds the member of an inserted row by tenant_id and key, the row's first two columns. */
  #byKey(buffer: Buffer, start: number): number {
    const tenantLength = buffer.readInt32BE(start + 7);
    const tenantAt = start + 11;
    const keyAt = tenantAt + tenantLength + 4;
    const keyLength = buffer.readInt32BE(keyAt - 4);
    const { keyValues } = this.#form.plan;
    const members = this.#members;
    // Rows come in the order of the members, but for those that were not inserted.
    for (let step = 0; step < members.length; step++) {
      const index = (this.#at + 1 + step) % members.length;
      const member = members[index]!;
      if (
        valueEquals(member, keyValues[1], buffer, keyAt, keyLength) &&
        valueEquals(member, keyValues[0], buffer, tenantAt, tenantLength)
      ) {
        return index;
      }
    }
    return -1;
  }

  /** Whether there is room for that many bytes more; where there must not be, the answer is given up. */
  #room(bytes: number): boolean {
    const wanted = this.#used + bytes;
    if (wanted <= this.#answers.length) return true;
    if (wanted > ANSWER_BYTES_MAX && !this.#queue.writes) {
      this.#overflow = true;
      return false;
    }
    const larger = Buffer.allocUnsafeSlow(Math.max(wanted, this.#answers.length * 2));
    this.#answers.copy(larger, 0, 0, this.#used);
    this.#answers = larger;
    return true;
  }

  #fail(fields: ErrorFields): void {
    this.#error ??= fields;
  }

  #notice(fields: ErrorFields): void {
    if (fields['C'] === SYNC_REP_WARNING) this.#unsafe = true;
  }

  serverReady(): void {
    const connection = this.#connection!;
    const { lane, statement } = this.#queue;
    this.#connection = null;
    const now = lane.clock.now();
    if (this.#error !== null) {
      // The statement's plan is out of date: it is learnt anew, and other statements of that connection may be stale, too.
      if (this.#error['C'] === STALE_PLAN) {
        statement.stage = 'unknown';
        connection.retired = true;
      } else if (!STRANGERS.has(this.#error['C'] ?? '')) statement.failed(now);
      lane.giveBack(connection);
      this.#end('rerun');
      return;
    }
    if (this.#broken) {
      statement.stage = 'unknown';
      lane.giveBack(connection);
      if (this.#queue.writes) this.#end('unknown', 'the rows of the answer are not those of the statements');
      else this.#end('rerun');
      return;
    }
    statement.succeeded();
    lane.giveBack(connection);
    if (this.#overflow || this.#bytesToTell > ANSWER_BYTES_MAX) {
      statement.answerBytes = Math.max(statement.answerBytes * 2, ANSWER_BYTES_MAX / this.#asked.length);
      this.#end('rerun');
    } else if (this.#unsafe && this.#queue.writes) this.#end('unknown', 'the standby has not confirmed the commit');
    else this.#answer();
  }

  /** Of reads, about: what was asked once may be told many times. */
  get #bytesToTell(): number {
    return this.#queue.writes ? 0 : (this.#used * this.#members.length) / this.#asked.length;
  }

  #answer(): void {
    const { statement, lane } = this.#queue;
    const { counters } = lane;
    const { plan } = this.#form;
    const members = this.#members;
    statement.answerBytes += (this.#used / this.#asked.length - statement.answerBytes) / 8;
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
      member.answers = this.#answers;
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

function valueEquals(
  { buffer, offsets }: MergedRequest,
  value: number,
  row: Buffer,
  at: number,
  length: number,
): boolean {
  // A constant of the statement is the same for all.
  if (value < 0) return true;
  if (offsets[2 * value + 1] !== length) return false;
  const start = offsets[2 * value]!;
  // Buffer.compare takes 100 ns whatever the length is.
  for (let byte = 0; byte < length; byte++) if (buffer[start + byte] !== row[at + byte]) return false;
  return true;
}
