// The shape of a result: names and types of its columns, apart from the tables they come from, which may have been made
// anew. What Postgres compares before it says "cached plan must not change result type".
import { Backend } from './protocol.js';

/** Type OID, type length, type modifier; the format code behind them is the client's choice. */
const TYPE_BYTES = 10;
const TABLE_AND_COLUMN_BYTES = 6;
const FORMAT_BYTES = 2;

/** Shape of the whole RowDescription or NoData `buffer[start, end)`. Equal texts, equal shapes. */
export function rowShape(buffer: Buffer, start: number, end: number): string {
  if (buffer[start] !== Backend.rowDescription) return '';
  let shape = '';
  let offset = start + 7;
  while (offset < end) {
    const nameEnd = buffer.indexOf(0, offset);
    if (nameEnd < 0 || nameEnd >= end) break;
    const type = nameEnd + 1 + TABLE_AND_COLUMN_BYTES;
    shape += buffer.toString('latin1', offset, nameEnd + 1) + buffer.toString('latin1', type, type + TYPE_BYTES);
    offset = type + TYPE_BYTES + FORMAT_BYTES;
  }
  return shape;
}
