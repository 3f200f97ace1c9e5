// The one walker of Bind messages: where the names, parameter formats, values and result formats of one stand. A reading is
// whole or refused: after `true` every offset lies within the message, and nothing is left over behind its last field.
// Reading allocates nothing but, rarely, room for more values; objects are kept and used for message after message.
// https://www.postgresql.org/docs/current/protocol-message-formats.html (Bind)
import { stringEnd } from './client-messages.js';

const NO_BYTES = Buffer.alloc(0);
const NULL_LENGTH = -1;
/** Values there is room for before the first message has more; the count in a message is 16 bits wide. */
const VALUES_AT_FIRST = 16;
/** Room for more values than this is given back by `release`. */
const VALUES_KEPT_MAX = 1024;
/** Type byte and length word. */
const HEADER_BYTES = 5;

export class BindMessage {
  /** What was read last; all offsets below are into it. */
  buffer: Buffer = NO_BYTES;
  /** End of the message. */
  end = 0;
  /** The names, without their NULs. */
  portalStart = 0;
  portalEnd = 0;
  nameStart = 0;
  nameEnd = 0;
  /** Of the count of parameter formats. */
  formatsAt = 0;
  formatCount = 0;
  /** Number of parameter values. */
  count = 0;
  /** Per value: offset of its first byte, and its length, -1 for NULL. Only `2 * count` numbers are this message's. */
  offsets: Int32Array;
  /** Of the count of result formats: the end of the parameters. */
  resultFormatsAt = 0;
  resultFormatCount = 0;

  constructor(valuesAtFirst = VALUES_AT_FIRST) {
    this.offsets = new Int32Array(2 * valuesAtFirst);
  }

  /** Reads the message `buffer[start, end)`, type byte included. False: it is malformed. */
  read(buffer: Buffer, start: number, end: number): boolean {
    return this.readNames(buffer, start, end) && this.readBehindNames(buffer, this.formatsAt, end);
  }

  /** Reads the names of the message `buffer[start, end)` and where its parameters begin, nothing else of it. */
  readNames(buffer: Buffer, start: number, end: number): boolean {
    this.#begin(buffer, end);
    if (end > buffer.length) return false;
    this.portalStart = start + HEADER_BYTES;
    this.portalEnd = stringEnd(buffer, this.portalStart, end);
    if (this.portalEnd < 0) return false;
    this.nameStart = this.portalEnd + 1;
    this.nameEnd = stringEnd(buffer, this.nameStart, end);
    if (this.nameEnd < 0) return false;
    this.formatsAt = this.nameEnd + 1;
    return true;
  }

  /** Reads a message whose names are known to end at `formatsAt`. */
  readBehindNames(buffer: Buffer, formatsAt: number, end: number): boolean {
    if (!this.readParameters(buffer, formatsAt, end)) return false;
    const at = this.resultFormatsAt;
    const formats = at + 2 > end ? 0 : buffer.readUInt16BE(at);
    if (at + 2 + 2 * formats !== end) {
      this.#begin(buffer, end);
      return false;
    }
    this.resultFormatCount = formats;
    return true;
  }

  /** Reads formats and values from `formatsAt` on; what follows them before `end` is not looked at. */
  readParameters(buffer: Buffer, formatsAt: number, end: number): boolean {
    this.#begin(buffer, end);
    this.formatsAt = formatsAt;
    if (end > buffer.length || formatsAt < 0 || formatsAt + 2 > end) return false;
    const formats = buffer.readUInt16BE(formatsAt);
    let at = formatsAt + 2 + 2 * formats;
    if (at + 2 > end) return false;
    const count = buffer.readUInt16BE(at);
    // One format for all values, one for each, or none: all are text. Each value has a length at least.
    if ((formats > 1 && formats !== count) || at + 2 + 4 * count > end) return false;
    at += 2;
    if (2 * count > this.offsets.length) this.offsets = new Int32Array(2 * Math.max(count, this.offsets.length));
    const { offsets } = this;
    for (let value = 0; value < count; value++) {
      if (at + 4 > end) return false;
      const length = buffer.readInt32BE(at);
      at += 4;
      if (length < NULL_LENGTH || length > end - at) return false;
      offsets[2 * value] = at;
      offsets[2 * value + 1] = length;
      if (length > 0) at += length;
    }
    this.formatCount = formats;
    this.count = count;
    this.resultFormatsAt = at;
    return true;
  }

  /** Format code of the value at `index`, as it stands in the message: 0 text, 1 binary, others are Postgres's to refuse. */
  format(index: number): number {
    const { formatCount } = this;
    if (formatCount === 0) return 0;
    return this.buffer.readInt16BE(this.formatsAt + 2 + (formatCount === 1 ? 0 : 2 * index));
  }

  /** A view of the value at `index`, valid as long as the message is; null: NULL. */
  value(index: number): Buffer | null {
    const at = this.offsets[2 * index]!;
    const length = this.offsets[2 * index + 1]!;
    return length < 0 ? null : this.buffer.subarray(at, at + length);
  }

  /** The one format of all result columns, 0 or 1; -1 where they differ, or where Postgres refuses them. */
  commonResultFormat(): number {
    if (this.resultFormatCount === 0) return 0;
    const format = this.resultFormat(0);
    if (format !== 0 && format !== 1) return -1;
    for (let index = 1; index < this.resultFormatCount; index++) if (this.resultFormat(index) !== format) return -1;
    return format;
  }

  resultFormat(index: number): number {
    return this.buffer.readInt16BE(this.resultFormatsAt + 2 + 2 * index);
  }

  /** The values as they stand in the message, each with its length in front; a view. */
  values(): Buffer {
    return this.buffer.subarray(this.formatsAt + 4 + 2 * this.formatCount, this.resultFormatsAt);
  }

  /** Formats and values as they stand in the message; a view. */
  parameters(): Buffer {
    return this.buffer.subarray(this.formatsAt, this.resultFormatsAt);
  }

  /** Lets go of the message, whose chunk would else be kept, and of room for very many values. */
  release(): void {
    this.#begin(NO_BYTES, 0);
    if (this.offsets.length > 2 * VALUES_KEPT_MAX) this.offsets = new Int32Array(2 * VALUES_AT_FIRST);
  }

  /** A reading that fails leaves no counts of the one before. */
  #begin(buffer: Buffer, end: number): void {
    this.buffer = buffer;
    this.end = end;
    this.formatCount = 0;
    this.count = 0;
    this.resultFormatCount = 0;
  }
}

/** How many values the Bind message `buffer[start, end)` says it has; 0 where it is malformed before it comes to that. */
export function valueCount(buffer: Buffer, start: number, end: number): number {
  const portalEnd = stringEnd(buffer, start + HEADER_BYTES, end);
  const nameEnd = portalEnd < 0 ? -1 : stringEnd(buffer, portalEnd + 1, end);
  if (nameEnd < 0 || nameEnd + 3 > end) return 0;
  const countAt = nameEnd + 3 + 2 * buffer.readUInt16BE(nameEnd + 1);
  return countAt + 2 > end ? 0 : buffer.readUInt16BE(countAt);
}
