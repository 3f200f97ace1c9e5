// Reads text values out of a DataRow, for answers to pgkv's own statements, and takes hidden columns off.

/** Values of the whole DataRow `buffer[start, end)`; null for SQL NULL. Throws RangeError where it is malformed. */
export function readRowValues(buffer: Buffer, start: number, end: number): (string | null)[] {
  const count = end - start < 7 ? -1 : buffer.readInt16BE(start + 5);
  if (count < 0) throw new RangeError('a row without a number of values');
  const values: (string | null)[] = [];
  let offset = start + 7;
  for (let index = 0; index < count; index++) {
    if (offset + 4 > end) throw new RangeError('value beyond the end of its row');
    const length = buffer.readInt32BE(offset);
    offset += 4;
    if (length < 0) {
      values.push(null);
      continue;
    }
    if (offset + length > end) throw new RangeError('value beyond the end of its row');
    values.push(buffer.toString('utf8', offset, offset + length));
    offset += length;
  }
  return values;
}

/** A whole DataRow without its last `hidden` values, and those, null for SQL NULL. Throws RangeError where it is malformed. */
export function withoutLastValues(
  row: Buffer,
  hidden: number,
): { readonly row: Buffer; readonly last: (Buffer | null)[] } {
  const visible = row.readUInt16BE(5) - hidden;
  if (visible < 0) throw new RangeError('a row with fewer values than are hidden');
  const last: (Buffer | null)[] = [];
  let offset = 7;
  let end = offset;
  for (let index = 0; index < visible + hidden; index++) {
    if (index === visible) end = offset;
    const length = row.readInt32BE(offset);
    offset += 4;
    if (offset + length > row.length) throw new RangeError('value beyond the end of its row');
    if (index >= visible) last.push(length < 0 ? null : row.subarray(offset, offset + length));
    offset += Math.max(length, 0);
  }
  const shortened = Buffer.from(row.subarray(0, end));
  shortened.writeInt32BE(end - 1, 1);
  shortened.writeUInt16BE(visible, 5);
  return { row: shortened, last };
}
