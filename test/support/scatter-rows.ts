// DataRow messages for tests.

/** A row of these values; null is NULL. */
export function dataRow(...values: (string | Buffer | null)[]): Buffer {
  const parts = values.flatMap((value) => {
    const bytes = value === null ? Buffer.alloc(0) : Buffer.from(value);
    const length = Buffer.alloc(4);
    length.writeInt32BE(value === null ? -1 : bytes.length, 0);
    return [length, bytes];
  });
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(7);
  head[0] = 0x44;
  head.writeInt32BE(body.length + 6, 1);
  head.writeInt16BE(values.length, 5);
  return Buffer.concat([head, body]);
}
