// Bind, Execute and Sync of a merged statement, in one buffer: one array per value of the members' statements, in Postgres's binary array
// format (array_recv), which needs no escaping. https://www.postgresql.org/docs/current/protocol-message-formats.html
import { copyBytes } from '../../wire/copy-bytes.js';
import { Frontend } from '../../wire/protocol.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { MergedRequest } from './merged-request.js';

/** Dimensions, flags, element type, length of the dimension, lower bound. */
const ARRAY_HEADER_BYTES = 20;

/** Execute without a row limit, and Sync. */
const EXECUTE_SYNC = Buffer.from([Frontend.execute, 0, 0, 0, 9, 0, 0, 0, 0, 0, Frontend.sync, 0, 0, 0, 4]);

/**
 * @param order the members, in the order in which they are to stand
 * @param values how many values each has
 * @param withSlots an array of hash slots follows
 * @param hidden columns at the front of the result, asked for in binary
 * @param format of the others
 */
export function encodeArrayBind(
  statement: string,
  order: readonly MergedRequest[],
  values: number,
  withSlots: boolean,
  hidden: number,
  columns: number,
  format: number,
): Buffer {
  const count = order.length;
  const parameters = values + (withSlots ? 1 : 0);
  let bytes = 7 + statement.length + 4 + 2 + parameters * (4 + ARRAY_HEADER_BYTES + 4 * count) + 2 + 2 * columns;
  if (withSlots) bytes += 4 * count;
  for (let index = 0; index < count; index++) bytes += order[index]!.bytes;
  const message = Buffer.allocUnsafe(bytes + EXECUTE_SYNC.length);
  message[0] = Frontend.bind;
  message.writeInt32BE(bytes - 1, 1);
  message[5] = 0;
  let at = 6 + message.write(statement, 6, 'latin1');
  message[at++] = 0;
  // One format code, for all parameters: binary.
  at = message.writeUInt16BE(1, at);
  at = message.writeUInt16BE(1, at);
  at = message.writeUInt16BE(parameters, at);
  for (let value = 0; value < values; value++) {
    const lengthAt = at;
    at = arrayHeader(message, at + 4, count, TypeOid.text);
    for (let index = 0; index < count; index++) {
      const member = order[index]!;
      const { offsets } = member;
      const length = offsets[2 * value + 1]!;
      at = message.writeInt32BE(length, at);
      if (length > 0) {
        const start = offsets[2 * value]!;
        at = copyBytes(member.bufferOf(value), start, start + length, message, at);
      }
    }
    message.writeInt32BE(at - lengthAt - 4, lengthAt);
  }
  if (withSlots) {
    const lengthAt = at;
    at = arrayHeader(message, at + 4, count, TypeOid.int4);
    for (let index = 0; index < count; index++) {
      at = message.writeInt32BE(4, at);
      at = message.writeInt32BE(order[index]!.slot, at);
    }
    message.writeInt32BE(at - lengthAt - 4, lengthAt);
  }
  at = message.writeUInt16BE(columns, at);
  for (let column = 0; column < columns; column++) at = message.writeInt16BE(column < hidden ? 1 : format, at);
  copyBytes(EXECUTE_SYNC, 0, EXECUTE_SYNC.length, message, at);
  return message;
}

function arrayHeader(message: Buffer, at: number, count: number, elementType: number): number {
  message.writeInt32BE(1, at);
  // Whether there are NULLs; Postgres finds out by itself, the flag has to be 0 or 1.
  message.writeInt32BE(1, at + 4);
  message.writeInt32BE(elementType, at + 8);
  message.writeInt32BE(count, at + 12);
  return message.writeInt32BE(1, at + 16);
}

/**
 * The same for one member's own statement, values in text.
 *
 * @param withSlot it follows the values
 */
export function encodeSingleBind(
  statement: string,
  member: MergedRequest,
  values: number,
  withSlot: boolean,
  format: number,
): Buffer {
  const { offsets, bytes } = member;
  const slot = withSlot ? String(member.slot) : '';
  const slotBytes = withSlot ? 4 + slot.length : 0;
  const length = 7 + statement.length + 2 + 2 + 4 * values + bytes + slotBytes + 4;
  const message = Buffer.allocUnsafe(length + EXECUTE_SYNC.length);
  message[0] = Frontend.bind;
  message.writeInt32BE(length - 1, 1);
  message[5] = 0;
  let at = 6 + message.write(statement, 6, 'latin1');
  message[at++] = 0;
  at = message.writeUInt16BE(0, at);
  at = message.writeUInt16BE(withSlot ? values + 1 : values, at);
  for (let value = 0; value < values; value++) {
    const length = offsets[2 * value + 1]!;
    at = message.writeInt32BE(length, at);
    const start = offsets[2 * value]!;
    if (length > 0) at = copyBytes(member.bufferOf(value), start, start + length, message, at);
  }
  if (withSlot) {
    at = message.writeInt32BE(slot.length, at);
    at += message.write(slot, at, 'latin1');
  }
  at = message.writeUInt16BE(1, at);
  at = message.writeInt16BE(format, at);
  copyBytes(EXECUTE_SYNC, 0, EXECUTE_SYNC.length, message, at);
  return message;
}
