// The values of one statement as a batch of many wants them: text, by place in the client's message, or, from a simple query,
// in a buffer of their own.

import { literalValue } from '../../sql/text/literal-value.js';
import { LITERAL_STRIDE } from '../../sql/text/shape-lexer.js';
import type { BindMessage } from '../../wire/bind-message.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { Constants } from './bound-statements.js';
import type { MergedForm } from './merged-form.js';
import { type MergedRequest, VALUES_MAX } from './merged-request.js';

/** Values of one statement beyond this are not gathered with others'. */
const VALUE_BYTES_MAX = 64 * 1024;
const BINARY = 1;
const JSONB_VERSION = 1;

/**
 * Values as they stand in the Bind that was read: text as it is, some types of binary as text; and behind them
 * those that stand in the statement's text.
 * @returns the format of all result columns, 0 or 1; -1: it is not to be run with others, or is not as it should be
 */
export function bindValues(
  request: MergedRequest,
  { types, plan, columnCount }: MergedForm,
  constants: Constants,
  bind: BindMessage,
): number {
  const count = plan.refs.length - constants.offsets.length / 2;
  if (bind.count !== count) return -1;
  const { buffer } = bind;
  // One format for all columns, one for each, or none; where there is no result Postgres does not look.
  const formats = bind.resultFormatCount;
  if (formats > 1 && columnCount > 0 && formats !== columnCount) return -1;
  const format = bind.commonResultFormat();
  if (format < 0) return -1;
  const { offsets } = request;
  let converted: Buffer[] | null = null;
  let bytes = 0;
  for (let value = 0; value < count; value++) {
    let at = bind.offsets[2 * value]!;
    let length = bind.offsets[2 * value + 1]!;
    const valueFormat = bind.format(value);
    if (valueFormat !== 0 && valueFormat !== BINARY) return -1;
    if (length > 0 && valueFormat === BINARY && !isTextual(types[value]!)) {
      if (types[value] === TypeOid.jsonb && buffer[at] === JSONB_VERSION) {
        at++;
        length--;
      } else {
        const text = binaryToText(types[value]!, buffer, at, length);
        if (text === null) return -1;
        // Put behind the message's own bytes below.
        converted ??= [];
        at = -1 - converted.length;
        length = text.length;
        converted.push(text);
      }
    }
    offsets[2 * value] = at;
    offsets[2 * value + 1] = length;
    bytes += Math.max(0, length);
  }
  for (let at = 0; at < constants.offsets.length; at++) offsets[2 * count + at] = constants.offsets[at]!;
  bytes += constants.bytes.length;
  if (bytes > VALUE_BYTES_MAX) return -1;
  request.bytes = bytes;
  request.buffer = converted === null ? buffer : withConverted(buffer, converted, offsets, count);
  request.constants = constants.bytes;
  request.constantsFrom = count;
  return format;
}

/** Values of a simple query. @param literals of its text; see Shape.literals */
export function literalValues(
  request: MergedRequest,
  { plan: { refs } }: MergedForm,
  text: string,
  literals: readonly number[],
): boolean {
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
  request.constantsFrom = VALUES_MAX;
  return true;
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
