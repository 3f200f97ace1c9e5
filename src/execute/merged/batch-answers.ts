// What the server says to a batch, as it comes in: each row is copied to the answer of its member, what went wrong is noted.
// Invariant: the rows of a member stand together in `bytes`, from member.start to member.end, as DataRow messages without the
// columns that say whose they are. One is used for batch after batch, and its memory with it, unless that is much.
import { assert } from '../../base/assert.js';
import { type ErrorFields, isNotReplicated, readErrorFields } from '../../wire/error-fields.js';
import { Backend } from '../../wire/protocol.js';
import type { MergedForm } from './merged-form.js';
import type { MergedRequest } from './merged-request.js';

/** Answers larger than this are not gathered: the members fetch them themselves. */
export const ANSWER_BYTES_MAX = 8 * 1024 * 1024;

/** Memory beyond this is not kept for the next batch. */
const KEPT_BYTES_MAX = 64 * 1024;
const NOTHING = Buffer.alloc(0);

export class BatchAnswers {
  #form!: MergedForm;
  #members: readonly MergedRequest[] = [];
  #isSingle = false;
  /** Rows are copied, since the chunks they come in are read into again. */
  bytes: Buffer = NOTHING;
  used = 0;
  error: ErrorFields | null = null;
  /** There is more than may be gathered: reads only. */
  overflow = false;
  /** A row came that is no member's, or of another shape than was learnt: the table is not what it was. */
  broken = false;
  /** The commit is not known to be safe. */
  unsafe = false;
  /** Parts of a message whose rest has not come, and how long they have to be before it is looked at again. */
  #rest: Buffer[] = [];
  #restBytes = 0;
  #restWanted = 0;
  /** Place of the member whose row came last. */
  #at = -1;
  /** Place of the member whose inserted row is likely to come next. */
  #next = 0;

  /**
   * A batch is sent; the one before it has been told.
   * @param members in the order in which they stand in the statement
   * @param isSingle the only member's own statement is run: its rows have no hidden columns
   * @param answerBytes of one member, about
   */
  begin(form: MergedForm, members: readonly MergedRequest[], isSingle: boolean, answerBytes: number): void {
    assert(this.#members.length === 0, 'the answers to one batch are gathered at a time');
    this.#form = form;
    this.#members = members;
    this.#isSingle = isSingle;
    const wanted = Math.min(ANSWER_BYTES_MAX, 256 + members.length * (answerBytes + 64));
    if (this.bytes.length < wanted) this.bytes = Buffer.allocUnsafeSlow(wanted);
    this.used = 0;
    this.overflow = this.broken = this.unsafe = false;
    this.#at = -1;
    this.#next = 0;
  }

  /**
   * Makes ready for the next batch, behind one that went well.
   * @param keptByMembers somebody still reads from `bytes`
   */
  end(keptByMembers: boolean): void {
    assert(this.error === null && this.#restBytes === 0, 'only what came whole and without an error is used again');
    this.#members = [];
    if (keptByMembers || this.bytes.length > KEPT_BYTES_MAX) this.bytes = NOTHING;
  }

  /** Takes the next chunk of messages. */
  take(chunk: Buffer): void {
    let buffer = chunk;
    if (this.#restBytes > 0) {
      // Copied once, when the message is whole: a large row comes in many chunks.
      this.#rest.push(Buffer.from(chunk));
      this.#restBytes += chunk.length;
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
      else if (type === Backend.errorResponse) this.error ??= readErrorFields(buffer, at, end);
      else if (type === Backend.noticeResponse) this.#notice(readErrorFields(buffer, at, end));
      at = end;
    }
    if (at === length) return;
    this.#rest = [Buffer.from(buffer.subarray(at))];
    this.#restBytes = length - at;
    this.#restWanted = this.#restBytes < 5 ? 5 : 1 + buffer.readInt32BE(at + 1);
  }

  #notice(fields: ErrorFields): void {
    // The commit is not safe (rule 2).
    if (isNotReplicated(fields)) this.unsafe = true;
  }

  /** The member's own statement says by its tag how many rows it touched, with or without RETURNING. */
  #tag(buffer: Buffer, start: number, end: number): void {
    if (!this.#isSingle) return;
    const tag = buffer.toString('latin1', start + 5, end - 1);
    this.#members[0]!.rows = Number(tag.slice(tag.lastIndexOf(' ') + 1));
  }

  #row(buffer: Buffer, start: number, end: number): void {
    if (this.overflow || this.broken) return;
    const { plan, columnCount } = this.#form;
    let member: MergedRequest;
    let visible = start + 7;
    const { hidden } = plan;
    if (buffer.readUInt16BE(start + 5) !== columnCount + (this.#isSingle ? 0 : hidden)) {
      this.broken = true;
      return;
    }
    if (this.#isSingle) member = this.#members[0]!;
    else {
      const index = plan.identifies === 'ordinal' ? buffer.readInt32BE(start + 15) - 1 : this.#byKey(buffer, start);
      for (let column = 0; column < hidden; column++) visible += 4 + Math.max(0, buffer.readInt32BE(visible));
      const found = this.#members[index];
      if (found === undefined) {
        this.broken = true;
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
    const answers = this.bytes;
    const to = this.used;
    answers[to] = Backend.dataRow;
    answers.writeInt32BE(bytes - 1, to + 1);
    answers.writeUInt16BE(columnCount, to + 5);
    buffer.copy(answers, to + 7, visible, end);
    this.used = to + bytes;
    member.end = this.used;
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
      this.bytes.copy(this.bytes, this.used, start, end);
      member.start = this.used;
      this.used += end - start;
      member.end = this.used;
    }
  }

  #begin(member: MergedRequest): void {
    member.start = member.end = this.used;
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
    let index = this.#next;
    for (let left = members.length; left > 0; left--, index++) {
      if (index === members.length) index = 0;
      const member = members[index]!;
      if (
        valueEquals(member, keyValues[1], buffer, keyAt, keyLength) &&
        valueEquals(member, keyValues[0], buffer, tenantAt, tenantLength)
      ) {
        this.#next = index + 1;
        return index;
      }
    }
    return -1;
  }

  /** Whether there is room for that many bytes more; where there must not be, the answer is given up. */
  #room(bytes: number): boolean {
    const wanted = this.used + bytes;
    if (wanted <= this.bytes.length) return true;
    if (wanted > ANSWER_BYTES_MAX && !this.#form.plan.writes) {
      this.overflow = true;
      return false;
    }
    const larger = Buffer.allocUnsafeSlow(Math.max(wanted, this.bytes.length * 2));
    this.bytes.copy(larger, 0, 0, this.used);
    this.bytes = larger;
    return true;
  }
}

function valueEquals(member: MergedRequest, value: number, row: Buffer, at: number, length: number): boolean {
  const { offsets } = member;
  if (offsets[2 * value + 1] !== length) return false;
  const start = offsets[2 * value]!;
  const buffer = member.bufferOf(value);
  // Buffer.compare takes 100 ns whatever the length is.
  for (let byte = 0; byte < length; byte++) if (buffer[start + byte] !== row[at + byte]) return false;
  return true;
}
