// Recognises the batch nearly every driver sends for one statement: [Parse] Bind [Describe] Execute Sync, unnamed
// portal, whole in one chunk. Such a batch is one unit: its statement can be prepared under a shared name, and it can
// be sent again as long as nothing of its answer has reached the client.
import { Frontend } from '../wire/protocol.js';

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
  /** End of the Sync. */
  end: number;
}

// One object for all scans: the caller uses it up before the next.
const batch: SingleBatch = {
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
};

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
  let offset = start;
  batch.parses = buffer[offset] === Frontend.parse;
  if (batch.parses) {
    const end = messageEnd(buffer, offset, Frontend.parse, 8);
    if (end < 0 || buffer[offset + 5] !== 0) return null;
    batch.textStart = offset + 6;
    batch.textEnd = buffer.indexOf(0, offset + 6);
    if (batch.textEnd < 0 || batch.textEnd + 3 > end) return null;
    batch.parseEnd = end;
    offset = end;
  }
  batch.bindStart = offset;
  const bindEnd = messageEnd(buffer, offset, Frontend.bind, 12);
  if (bindEnd < 0 || buffer[offset + 5] !== 0) return null;
  batch.bindEnd = bindEnd;
  batch.nameStart = offset + 6;
  batch.nameEnd = buffer.indexOf(0, offset + 6);
  if (batch.nameEnd < 0 || batch.nameEnd >= bindEnd || (batch.parses && batch.nameEnd !== batch.nameStart)) return null;
  batch.formatsAt = batch.nameEnd + 1;
  offset = bindEnd;
  batch.describes = buffer[offset] === Frontend.describe;
  if (batch.describes) {
    const end = messageEnd(buffer, offset, Frontend.describe, 6);
    // 0x50: 'P', the portal; an unnamed one, so the message has 7 bytes.
    if (end !== offset + 7 || buffer[offset + 5] !== 0x50 || buffer[offset + 6] !== 0) return null;
    offset = end;
  }
  const executeEnd = messageEnd(buffer, offset, Frontend.execute, 9);
  if (executeEnd !== offset + 10 || buffer[offset + 5] !== 0) return null;
  batch.all = buffer.readInt32BE(executeEnd - 4) === 0;
  batch.end = messageEnd(buffer, executeEnd, Frontend.sync, 4);
  return batch.end === executeEnd + 5 ? batch : null;
}
