// The values of one statement as a batch of many wants them: text, by place in the client's message, or, from a simple query,
// in a buffer of their own.

import { type MergedRequest, VALUES_MAX } from '../../execute/merged/merged-request.js';
import type { MergedStatement } from '../../execute/merged/merged-statement.js';
import { literalValue } from '../../route/key-values.js';
import { LITERAL_STRIDE } from '../../sql/text/shape-lexer.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { KvStatement } from '../unit/kv-statements.js';
import type { SingleBatch } from '../unit/single-batch.js';

/** Values of one statement beyond this are not gathered with others'. */
const VALUE_BYTES_MAX = 64 * 1024;
const JSONB_OID = 3802;
const NULL_LENGTH = -1;

/** Values as they stand in the Bind: text as it is, some types of binary as text. */
export function bindValues(
  request: MergedRequest,
  known: MergedStatement,
  buffer: Buffer,
  batch: SingleBatch,
): boolean {
  const { types, plan } = known.form!;
  const count = plan.refs.length;
  // The message was walked to its end by resultFormats: every value lies within it.
  const formats = buffer.readUInt16BE(batch.formatsAt);
  let at = batch.formatsAt + 2 + 2 * formats;
  if (buffer.readUInt16BE(at) !== count || (formats > 1 && formats !== count)) return false;
  for (let format = 0; format < formats; format++) {
    if (buffer.readUInt16BE(batch.formatsAt + 2 + 2 * format) > 1) return false;
  }
  at += 2;
  const { offsets } = request;
  let converted: Buffer[] | null = null;
  let bytes = 0;
  for (let value = 0; value < count; value++) {
    const length = buffer.readInt32BE(at);
    at += 4;
    const isBinary = formats > 0 && buffer.readUInt16BE(batch.formatsAt + 2 + (formats === 1 ? 0 : 2 * value)) === 1;
    offsets[2 * value] = at;
    offsets[2 * value + 1] = length < 0 ? NULL_LENGTH : length;
    if (length > 0 && isBinary && !isTextual(types[value]!)) {
      if (types[value] === JSONB_OID && buffer[at] === 1) {
        offsets[2 * value] = at + 1;
        offsets[2 * value + 1] = length - 1;
      } else {
        const text = binaryToText(types[value]!, buffer, at, length);
        if (text === null) return false;
        // Put behind the message's own bytes below.
        converted ??= [];
        offsets[2 * value] = -1 - converted.length;
        offsets[2 * value + 1] = text.length;
        converted.push(text);
      }
    }
    bytes += Math.max(0, offsets[2 * value + 1]!);
    if (length > 0) at += length;
  }
  if (bytes > VALUE_BYTES_MAX) return false;
  request.bytes = bytes;
  request.buffer = converted === null ? buffer : withConverted(buffer, converted, offsets, count);
  return true;
}

export function literalValues(
  request: MergedRequest,
  known: MergedStatement,
  { text, literals }: KvStatement,
): boolean {
  const { refs } = known.form!.plan;
  const values: string[] = [];
  let bytes = 0;
  for (const [index, ref] of refs.entries()) {
    if (ref.kind !== 'literal') return false;
    const at = ref.index * LITERAL_STRIDE;
    const value = literalValue(text.slice(literals[at], literals[at + 1]), literals[at + 2]!);
    if (value === null) return false;
    const length = Buffer.byteLength(value);
    request.offsets[2 * index] = bytes;
    request.offsets[2 * index + 1] = length;
    bytes += length;
    values.push(value);
  }
  if (bytes > VALUE_BYTES_MAX || refs.length > VALUES_MAX) return false;
  request.bytes = bytes;
  request.buffer = Buffer.from(values.join(''), 'utf8');
  return true;
}

/** The result formats of a Bind in one number: the only format there is, and above it how many were given. */
export const formatIn = (formats: number): number => formats & 1;

/** Whether Postgres takes so many formats for a result of so many columns; it does not look where there is no result. */
export const fitsColumns = (formats: number, columns: number): boolean =>
  formats >> 1 <= 1 || columns === 0 || formats >> 1 === columns;

/** See formatIn and fitsColumns; -1 where the formats differ, or where the message is not as it should be. */
export function resultFormats(buffer: Buffer, bindEnd: number, formatsAt: number): number {
  if (formatsAt + 2 > bindEnd) return -1;
  let at = formatsAt + 2 + 2 * buffer.readUInt16BE(formatsAt);
  if (at + 2 > bindEnd) return -1;
  let left = buffer.readUInt16BE(at);
  at += 2;
  for (; left > 0; left--) {
    if (at + 4 > bindEnd) return -1;
    at += 4 + Math.max(0, buffer.readInt32BE(at));
  }
  if (at + 2 > bindEnd) return -1;
  const count = buffer.readUInt16BE(at);
  if (at + 2 + 2 * count !== bindEnd) return -1;
  if (count === 0) return 0;
  const format = buffer.readUInt16BE(at + 2);
  for (let index = 1; index < count; index++) if (buffer.readUInt16BE(at + 2 + 2 * index) !== format) return -1;
  return format > 1 ? -1 : (count << 1) | format;
}

const isTextual = (type: number): boolean =>
  type === TypeOid.text || type === TypeOid.varchar || type === TypeOid.unknown;

/** A value in binary format as its text; null for types that are not read here. */
function binaryToText(type: number, buffer: Buffer, at: number, length: number): Buffer | null {
  switch (type) {
    case TypeOid.int8:
      return length === 8 ? Buffer.from(buffer.readBigInt64BE(at).toString(), 'latin1') : null;
    case TypeOid.int4:
      return length === 4 ? Buffer.from(String(buffer.readInt32BE(at)), 'latin1') : null;
    case TypeOid.int2:
      return length === 2 ? Buffer.from(String(buffer.readInt16BE(at)), 'latin1') : null;
    case TypeOid.bool:
      return length === 1 ? Buffer.from(buffer[at] === 0 ? 'f' : 't', 'latin1') : null;
    case TypeOid.bytea:
      return Buffer.from(`\\x${buffer.toString('hex', at, at + length)}`, 'latin1');
    default:
      return null;
  }
}

/** All values in one buffer: converted ones stand behind the others, and their offsets are put right. */
function withConverted(buffer: Buffer, converted: readonly Buffer[], offsets: Int32Array, count: number): Buffer {
  const joined = Buffer.concat([buffer, ...converted]);
  const starts: number[] = [];
  let at = buffer.length;
  for (const { length } of converted) {
    starts.push(at);
    at += length;
  }
  for (let value = 0; value < count; value++) {
    const offset = offsets[2 * value]!;
    if (offset < 0) offsets[2 * value] = starts[-1 - offset]!;
  }
  return joined;
}
