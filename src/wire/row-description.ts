// Reads RowDescription and ParameterDescription, and takes the hidden columns off.
// https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ROWDESCRIPTION
import { USER_OID_MIN } from './type-oids.js';

export interface Column {
  /** Its bytes as latin1. */
  readonly name: string;
  readonly type: number;
  readonly modifier: number;
  /** 0 text, 1 binary. */
  readonly format: number;
  /** Where it begins in the message. */
  readonly start: number;
}

const HEADER_BYTES = 7;
/** Behind the name: table OID, column number, type OID, type length, type modifier, format. */
const FIELD_BYTES = 18;

/** Columns of the whole message. Throws RangeError where it is malformed. */
export function readColumns(message: Buffer): Column[] {
  const columns: Column[] = [];
  let start = HEADER_BYTES;
  for (let left = message.readUInt16BE(5); left > 0; left--) {
    const nameEnd = message.indexOf(0, start);
    if (nameEnd < 0 || nameEnd + 1 + FIELD_BYTES > message.length) throw new RangeError('malformed RowDescription');
    columns.push({
      name: message.toString('latin1', start, nameEnd),
      type: message.readUInt32BE(nameEnd + 7),
      modifier: message.readInt32BE(nameEnd + 13),
      format: message.readInt16BE(nameEnd + 17),
      start,
    });
    start = nameEnd + 1 + FIELD_BYTES;
  }
  return columns;
}

/** Parameter types of the ParameterDescription that begins at `start`. */
export function readParameterTypes(buffer: Buffer, start: number): number[] {
  const count = buffer.readUInt16BE(start + 5);
  return Array.from({ length: count }, (_, index) => buffer.readUInt32BE(start + HEADER_BYTES + 4 * index));
}

/** The message without its last `hidden` columns. */
export function withoutLastColumns(message: Buffer, columns: readonly Column[], hidden: number): Buffer {
  if (hidden === 0) return message;
  const visible = columns.length - hidden;
  const shortened = Buffer.from(message.subarray(0, columns[visible]!.start));
  shortened.writeInt32BE(shortened.length - 1, 1);
  shortened.writeUInt16BE(visible, 5);
  return shortened;
}

/** What a portal is described as whose statement is: with these formats, as in Bind. */
export function withFormats(message: Buffer, formats: readonly number[]): Buffer {
  const described = Buffer.from(message);
  if (formats.length === 0) return described;
  for (const [index, { name, start }] of readColumns(message).entries()) {
    described.writeInt16BE(formats[index] ?? formats[0]!, start + name.length + 1 + FIELD_BYTES - 2);
  }
  return described;
}

/** Whether rows described so may stand in one result. OIDs of users' types differ between shards. */
export function sameColumns(a: readonly Column[], b: readonly Column[]): boolean {
  if (a.length !== b.length) return false;
  return a.every((column, index) => {
    const other = b[index]!;
    const sameType = column.type === other.type || (column.type >= USER_OID_MIN && other.type >= USER_OID_MIN);
    return (
      sameType && column.name === other.name && column.modifier === other.modifier && column.format === other.format
    );
  });
}
