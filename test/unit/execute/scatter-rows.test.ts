// Rows on their way through a scattered read: queued in runs, merged in order, written out without hidden columns.
import fc from 'fast-check';
import t from 'tap';
import { RowMerge } from '../../../src/execute/scatter/row-merge.js';
import { RowOutput } from '../../../src/execute/scatter/row-output.js';
import { messageEnd, RowQueue } from '../../../src/execute/scatter/row-queue.js';
import { sortOrder } from '../../../src/execute/scatter/sort-order.js';
import { readColumns, sameColumns, withoutLastColumns } from '../../../src/wire/row-description.js';
import { readRowValues } from '../../../src/wire/row-values.js';
import { TypeOid } from '../../../src/wire/type-oids.js';
import { dataRow } from '../../support/scatter-rows.js';

function int4(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value, 0);
  return bytes;
}

/** Adds rows that lie together in one chunk. */
function pushAll(queue: RowQueue, rows: readonly Buffer[]): void {
  const chunk = Buffer.concat(rows);
  for (let start = 0; start < chunk.length; ) {
    const end = messageEnd(chunk, start);
    queue.push(chunk, start, end);
    start = end;
  }
}

t.test('a queue gives back its rows in order, in runs no longer than asked for', async () => {
  const chunks = fc.array(fc.array(fc.string({ maxLength: 6 }), { maxLength: 5 }), { maxLength: 6 });
  fc.assert(
    fc.property(chunks, fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1 }), (texts, sizes) => {
      const queue = new RowQueue();
      for (const chunk of texts)
        pushAll(
          queue,
          chunk.map((text) => dataRow(text)),
        );
      const taken: (string | null)[] = [];
      for (let step = 0; !queue.empty; step++) {
        const run = queue.take(sizes[step % sizes.length]!);
        if (run.rows > sizes[step % sizes.length]!) return false;
        let start = run.start;
        for (let row = 0; row < run.rows; row++) {
          const end = messageEnd(run.buffer, start);
          taken.push(...readRowValues(run.buffer, start, end));
          start = end;
        }
        if (start !== run.end) return false;
      }
      return queue.bytes === 0 && JSON.stringify(taken) === JSON.stringify(texts.flat());
    }),
  );
});

t.test('a merge gives the sorted rows of all, however they arrive', async () => {
  const order = sortOrder(TypeOid.int4, { descending: true, nullsFirst: true, needsByteOrder: false }, true);
  const compare = (a: number | null, b: number | null): number =>
    a === b ? 0 : a === null ? -1 : b === null ? 1 : b - a;
  const value = fc.option(fc.integer({ min: -9, max: 9 }), { nil: null });
  const inputs = fc.array(fc.array(fc.array(value, { maxLength: 4 }), { maxLength: 4 }), {
    minLength: 1,
    maxLength: 7,
  });
  fc.assert(
    fc.property(inputs, fc.infiniteStream(fc.nat()), (shards, choices) => {
      const sorted = shards.map((chunks) => {
        const all = chunks.flat().sort(compare);
        return chunks.map((chunk) => all.splice(0, chunk.length));
      });
      const sources = sorted.map((chunks) => ({ rows: new RowQueue(), ended: false, chunks, taken: () => undefined }));
      const merge = new RowMerge(sources, [order]);
      const merged: (number | null)[] = [];
      for (;;) {
        const first = merge.first();
        if (first !== null) {
          const key = readKey(first.buffer, first.visibleEnd);
          if (first.buffer.toString('latin1', first.start + 7, first.visibleEnd) !== '\0\0\0\u0001x') return false;
          merged.push(key);
          merge.drop();
          continue;
        }
        const open = sources.filter(({ ended }) => !ended);
        if (open.length === 0) break;
        const next = open[choices.next().value! % open.length]!;
        const chunk = next.chunks.shift();
        if (chunk === undefined) next.ended = true;
        else
          pushAll(
            next.rows,
            chunk.map((key) => dataRow('x', key === null ? null : int4(key))),
          );
      }
      return JSON.stringify(merged) === JSON.stringify(shards.flat(2).sort(compare));
    }),
    { numRuns: 500 },
  );
});

const readKey = (buffer: Buffer, at: number): number | null =>
  buffer.readInt32BE(at) < 0 ? null : buffer.readInt32BE(at + 4);

t.test('equal rows come from the first shard first', async (t) => {
  const order = sortOrder(TypeOid.int4, { descending: false, nullsFirst: false, needsByteOrder: false }, true);
  const sources = ['a', 'b', 'c'].map((name) => {
    const rows = new RowQueue();
    pushAll(rows, [dataRow(name, int4(1)), dataRow(name, int4(1))]);
    return { rows, ended: true, taken: () => undefined };
  });
  const merge = new RowMerge(sources, [order]);
  let names = '';
  for (let row = merge.first(); row !== null; row = merge.first()) {
    names += row.buffer.toString('latin1', row.start + 11, row.visibleEnd);
    merge.drop();
  }
  t.equal(names, 'aabbcc');
});

t.test('a row whose lengths lead beyond its end is an error, not an answer', async (t) => {
  const row = dataRow('x', int4(1));
  row.writeInt32BE(9, row.length - 8);
  const rows = new RowQueue();
  pushAll(rows, [row]);
  const order = sortOrder(TypeOid.int4, { descending: false, nullsFirst: false, needsByteOrder: false }, true);
  t.throws(() => new RowMerge([{ rows, ended: true, taken: () => undefined }], [order]).first(), RangeError);
});

t.test('rows are written out without their hidden columns, in chunks that are never touched again', async (t) => {
  const output = new RowOutput();
  const texts = Array.from(
    { length: 3_000 },
    (_, index) => 'x'.repeat(index % 100) + (index === 1_500 ? 'y'.repeat(90_000) : ''),
  );
  const chunks: Buffer[] = [];
  for (const text of texts) {
    const row = dataRow(text, null, int4(7), null);
    const visibleEnd = 7 + 4 + text.length + 4;
    if (!output.fits(visibleEnd)) chunks.push(output.take());
    output.append(row, 0, visibleEnd, 2);
  }
  chunks.push(output.take());
  t.ok(output.empty);
  t.ok(chunks.length < 20);
  t.ok(Buffer.concat(chunks).equals(Buffer.concat(texts.map((text) => dataRow(text, null)))));
});

/** A RowDescription of columns [name, type, format]. */
function rowDescription(...columns: [string, number, number][]): Buffer {
  const fields = columns.map(([name, type, format]) => {
    const tail = Buffer.alloc(18);
    tail.writeUInt32BE(type, 6);
    tail.writeInt32BE(-1, 12);
    tail.writeInt16BE(format, 16);
    return Buffer.concat([Buffer.from(`${name}\0`), tail]);
  });
  const body = Buffer.concat(fields);
  const head = Buffer.from([0x54, 0, 0, 0, 0, 0, columns.length]);
  head.writeInt32BE(body.length + 6, 1);
  return Buffer.concat([head, body]);
}

t.test('a description loses its hidden columns, and two are compared but for the tables they are of', async (t) => {
  const whole = rowDescription(['a', 25, 0], ['b', 20, 1], ['c', 20, 1]);
  const columns = readColumns(whole);
  t.same(withoutLastColumns(whole, columns, 1), rowDescription(['a', 25, 0], ['b', 20, 1]));
  t.same(withoutLastColumns(whole, columns, 3), rowDescription());
  t.equal(withoutLastColumns(whole, columns, 0), whole);
  t.ok(sameColumns(columns, readColumns(whole)));
  t.ok(sameColumns(readColumns(rowDescription(['a', 16_400, 0])), readColumns(rowDescription(['a', 17_000, 0]))));
  for (const other of [
    ['a', 25, 1],
    ['b', 25, 0],
    ['a', 1043, 0],
  ] as [string, number, number][]) {
    t.notOk(sameColumns(readColumns(rowDescription(['a', 25, 0])), readColumns(rowDescription(other))));
  }
  t.throws(() => readColumns(whole.subarray(0, whole.length - 1)), RangeError);
});
