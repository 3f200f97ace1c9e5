// Reads text values out of a DataRow, for answers to pgkv's own statements.

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
