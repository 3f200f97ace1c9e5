// Recognises the batch nearly every driver sends for one statement: [Parse] Bind [Describe] Execute Sync, unnamed
// portal, whole in one chunk. Such a batch is one unit: its statement can be prepared under a shared name, and it can
// be sent again as long as nothing of its answer has reached the client.
import { Frontend } from '../../wire/protocol.js';

/** Offsets into the buffer that was scanned. */
export interface SingleBatch {
  /** Whether a Parse of the unnamed statement leads. */
  parses: boolean;
  /** Text of the Parse, without its NUL; the Parse ends at `parseEnd`. */
  textStart: number;
  textEnd: number;
  parseEnd: number;
  bindStart: number;
  bindEnd: number;
  /** Statement name in the Bind, without its NUL. */
  nameStart: number;
  nameEnd: number;
  /** Of the count of parameter formats in the Bind. */
  formatsAt: number;
  /** The Execute has no row limit. */
  all: boolean;
  describes: boolean;
  /** End of the Sync; of a unit in a pipeline, of the Execute. */
  end: number;
}

/** A scan's result: one object for all, which the caller uses up before the next, or one for each unit of a pipeline. */
export const newBatch = (): SingleBatch => ({
  parses: false,
  textStart: 0,
  textEnd: 0,
  parseEnd: 0,
  bindStart: 0,
  bindEnd: 0,
  nameStart: 0,
  nameEnd: 0,
  formatsAt: 0,
  all: true,
  describes: false,
  end: 0,
});

const only = newBatch();

/** End of the whole message of this type at `offset`, or -1. */
function messageEnd(buffer: Buffer, offset: number, type: number, lengthMin: number): number {
  if (offset + 5 > buffer.length || buffer[offset] !== type) return -1;
  const length = buffer.readInt32BE(offset + 1);
  const end = offset + 1 + length;
  return length < lengthMin || end > buffer.length ? -1 : end;
}

/**
 * The batch that begins at `start` with a Parse or Bind, or null where it is anything else. The result is valid until
 * the next call. Lengths were checked against the limits by the frame reader for the first message only, so all are
 * checked against the buffer here.
 */
export function scanSingleBatch(buffer: Buffer, start: number): SingleBatch | null {
  if (!scanUnit(buffer, start, only)) return null;
  const executeEnd = only.end;
  only.end = messageEnd(buffer, executeEnd, Frontend.sync, 4);
  return only.end === executeEnd + 5 ? only : null;
}

/** Whether a Parse or Bind at `start` is the beginning of a unit, up to its Execute. */
export const beginsRun = (buffer: Buffer, start: number): boolean => scanUnit(buffer, start, only);

/** Units of a pipeline beyond which it is not looked at as one. */
const UNITS_MAX = 128;

/** The units of a pipeline that ends with one Sync, the last message there is; null where it is anything else. */
export function scanPipeline(buffer: Buffer, start: number): SingleBatch[] | null {
  const units: SingleBatch[] = [];
  let offset = start;
  while (units.length < UNITS_MAX) {
    if (units.length > 1 && buffer[offset] === Frontend.sync) {
      const end = messageEnd(buffer, offset, Frontend.sync, 4);
      return end === offset + 5 && end === buffer.length ? units : null;
    }
    const unit = newBatch();
    if (!scanUnit(buffer, offset, unit)) return null;
    units.push(unit);
    offset = unit.end;
  }
  return null;
}

/** [Parse] Bind [Describe] Execute, the unnamed portal and, where it is parsed, the unnamed statement. */
function scanUnit(buffer: Buffer, start: number, batch: SingleBatch): boolean {
  let offset = start;
  batch.parses = buffer[offset] === Frontend.parse;
  if (batch.parses) {
    const end = messageEnd(buffer, offset, Frontend.parse, 8);
    if (end < 0 || buffer[offset + 5] !== 0) return false;
    batch.textStart = offset + 6;
    batch.textEnd = buffer.indexOf(0, offset + 6);
    if (batch.textEnd < 0 || batch.textEnd + 3 > end) return false;
    batch.parseEnd = end;
    offset = end;
  }
  batch.bindStart = offset;
  const bindEnd = messageEnd(buffer, offset, Frontend.bind, 12);
  if (bindEnd < 0 || buffer[offset + 5] !== 0) return false;
  batch.bindEnd = bindEnd;
  batch.nameStart = offset + 6;
  batch.nameEnd = buffer.indexOf(0, offset + 6);
  if (batch.nameEnd < 0 || batch.nameEnd >= bindEnd || (batch.parses && batch.nameEnd !== batch.nameStart))
    return false;
  batch.formatsAt = batch.nameEnd + 1;
  offset = bindEnd;
  batch.describes = buffer[offset] === Frontend.describe;
  if (batch.describes) {
    const end = messageEnd(buffer, offset, Frontend.describe, 6);
    // 0x50: 'P', the portal; an unnamed one, so the message has 7 bytes.
    if (end !== offset + 7 || buffer[offset + 5] !== 0x50 || buffer[offset + 6] !== 0) return false;
    offset = end;
  }
  const executeEnd = messageEnd(buffer, offset, Frontend.execute, 9);
  if (executeEnd !== offset + 10 || buffer[offset + 5] !== 0) return false;
  batch.all = buffer.readInt32BE(executeEnd - 4) === 0;
  batch.end = executeEnd;
  return true;
}

/** Whether both bind the same statement by its name. */
export function sameName(buffer: Buffer, one: SingleBatch, other: SingleBatch): boolean {
  const length = one.nameEnd - one.nameStart;
  if (one.parses || other.parses || other.nameEnd - other.nameStart !== length) return false;
  for (let at = 0; at < length; at++) {
    if (buffer[one.nameStart + at] !== buffer[other.nameStart + at]) return false;
  }
  return true;
}
