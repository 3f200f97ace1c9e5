// The frame reader gives the same messages however the bytes are cut, hands rows and COPY data out in parts, and
// refuses a length before it keeps a byte of what was announced.
import fc from 'fast-check';
import t from 'tap';
import { PgkvError } from '../../src/base/errors.js';
import { Frame, FrameReader } from '../../src/wire/frame-reader.js';
import { Backend, backendLimits, Frontend, frontendLimits, SMALL_MESSAGE_BYTES_MAX } from '../../src/wire/protocol.js';
import { BackendMessageReader } from '../support/backend-message.js';
import { BACKEND_MESSAGES, FRONTEND_MESSAGES, PASSWORD_MESSAGES } from '../support/golden-messages.js';

const MIB = 2 ** 20;
const MESSAGE_BYTES_MAX = 256 * MIB;

interface Found {
  readonly type: number;
  readonly bytes: string;
}

const fromClient = () => new FrameReader(frontendLimits(MESSAGE_BYTES_MAX), 0, 'frontend');
const fromServer = () => new FrameReader(backendLimits(MESSAGE_BYTES_MAX), Backend.dataRow, 'backend');
const duringLogin = () => {
  const limits = new Int32Array(256);
  limits[Frontend.password] = 65_535;
  return new FrameReader(limits, 0, 'frontend');
};

const DIRECTIONS = [
  { name: 'client', reader: fromClient, messages: FRONTEND_MESSAGES, streamed: [Frontend.copyData] as number[] },
  { name: 'client during the login', reader: duringLogin, messages: PASSWORD_MESSAGES, streamed: [] },
  { name: 'server', reader: fromServer, messages: BACKEND_MESSAGES, streamed: [Backend.copyData, Backend.dataRow] },
];

/** Everything found after each push, parts of a streamed message joined; fails on parts of any other. */
function readAll(reader: FrameReader, chunks: readonly Buffer[], streamed: readonly number[]): Found[] {
  const messages: Found[] = [];
  let parts = '';
  for (const chunk of chunks) {
    reader.push(chunk);
    for (let found = reader.next(); found !== Frame.none; found = reader.next()) {
      const { buffer, start, end, type } = reader;
      const bytes = buffer.toString('hex', start, end);
      if (found === Frame.whole) messages.push({ type, bytes });
      else if (!streamed.includes(type)) throw new Error(`a part of a message of type ${type}`);
      else if (found === Frame.first) parts = bytes;
      else parts += bytes;
      if (found === Frame.last) messages.push({ type, bytes: parts });
      if (found === Frame.first || found === Frame.more) {
        if (!reader.midMessage) throw new Error('the reader takes a part for the end');
      }
    }
  }
  return messages;
}

const cutAt = (bytes: Buffer, ...offsets: number[]): Buffer[] =>
  [0, ...offsets].map((start, index) => bytes.subarray(start, offsets[index] ?? bytes.length));
const byteByByte = (bytes: Buffer): Buffer[] =>
  cutAt(bytes, ...Array.from({ length: bytes.length - 1 }, (_, i) => i + 1));

const header = (type: number, length: number): Buffer => {
  const bytes = Buffer.alloc(5);
  bytes[0] = type;
  bytes.writeInt32BE(length, 1);
  return bytes;
};

function refusal(reader: FrameReader, bytes: Buffer): PgkvError | null {
  reader.push(bytes);
  try {
    while (reader.next() !== Frame.none);
    return null;
  } catch (error) {
    if (error instanceof PgkvError) return error;
    throw error;
  }
}

t.test('every message type is there, and reads as the manual says', async (t) => {
  const missing = (types: Record<string, number>, golden: typeof BACKEND_MESSAGES) =>
    Object.entries(types).filter(([, type]) => !golden.some(({ bytes }) => bytes[0] === type));
  t.same(missing(Frontend, [...FRONTEND_MESSAGES, ...PASSWORD_MESSAGES]), []);
  t.same(missing(Backend, BACKEND_MESSAGES), []);
  const decoded = new BackendMessageReader().push(Buffer.concat(BACKEND_MESSAGES.map(({ bytes }) => bytes)));
  t.equal(decoded.length, BACKEND_MESSAGES.length);
  t.same(
    decoded.filter(({ type }) => type === 'Malformed'),
    [],
  );
});

for (const { name, reader, messages, streamed } of DIRECTIONS) {
  const stream = Buffer.concat(messages.map(({ bytes }) => bytes));
  const expected = messages.map(({ bytes }) => ({ type: bytes[0]!, bytes: bytes.toString('hex') }));

  t.test(`messages of a ${name}: one cut anywhere, two cuts, byte by byte: always the same`, async (t) => {
    t.same(readAll(reader(), [stream], streamed), expected);
    t.same(readAll(reader(), byteByByte(stream), streamed), expected);
    const wrong: number[][] = [];
    const wanted = JSON.stringify(expected);
    for (let first = 1; first < stream.length; first++) {
      if (JSON.stringify(readAll(reader(), cutAt(stream, first), streamed)) !== wanted) wrong.push([first]);
      const second = first + 1 + ((first * 7) % (stream.length - first));
      if (second >= stream.length) continue;
      if (JSON.stringify(readAll(reader(), cutAt(stream, first, second), streamed)) !== wanted)
        wrong.push([first, second]);
    }
    t.same(wrong, []);
  });

  t.test(`messages of a ${name}: nothing is found before its last byte, and nothing is left behind it`, async (t) => {
    for (const message of messages) {
      if (streamed.includes(message.bytes[0]!)) continue;
      const one = reader();
      one.push(message.bytes.subarray(0, -1));
      t.equal(one.next(), Frame.none, message.name);
      one.push(message.bytes.subarray(-1));
      t.equal(one.next(), Frame.whole, message.name);
      t.equal(one.next(), Frame.none, message.name);
      t.equal(one.bufferedBytes, 0, message.name);
    }
  });
}

t.test('a message put back is found again, however many bytes came meanwhile', async (t) => {
  const [query, sync] = ['Query', 'Sync'].map(
    (name) => FRONTEND_MESSAGES.find((message) => message.name === name)!.bytes,
  );
  const long = Buffer.concat([header(Frontend.query, 104), Buffer.alloc(100, 0x20)]);
  for (const cut of [3, 6, 60]) {
    const reader = fromClient();
    reader.push(long.subarray(0, cut));
    t.equal(reader.next(), Frame.none);
    reader.push(Buffer.concat([long.subarray(cut), query!]));
    t.equal(reader.next(), Frame.whole);
    t.equal(reader.next(), Frame.whole);
    reader.unread();
    reader.push(sync!.subarray(0, 2));
    reader.push(sync!.subarray(2));
    t.equal(reader.next(), Frame.whole);
    t.same(reader.buffer.subarray(reader.start, reader.end), query);
    t.equal(reader.next(), Frame.whole);
    t.equal(reader.type, Frontend.sync);
  }
});

t.test('what a reader with other limits goes on with is exactly what was not handed out', async (t) => {
  const stream = Buffer.concat(FRONTEND_MESSAGES.map(({ bytes }) => bytes));
  for (const cut of [1, 20, 60, stream.length - 1]) {
    const reader = fromClient();
    reader.push(stream.subarray(0, cut));
    let handedOut = 0;
    while (reader.next() !== Frame.none) handedOut += reader.end - reader.start;
    reader.push(stream.subarray(cut));
    t.same(reader.takeRest(), stream.subarray(handedOut));
    t.equal(reader.bufferedBytes, 0);
    t.equal(reader.next(), Frame.none);
  }
});

t.test('rows and COPY data go out as they come; what follows is found', async (t) => {
  const row = Buffer.concat([header(Backend.dataRow, 1_000_004), Buffer.alloc(1_000_000, 1)]);
  const chunks = Array.from({ length: Math.ceil(row.length / 65_536) }, (_, i) =>
    row.subarray(i * 65_536, (i + 1) * 65_536),
  );
  const reader = fromServer();
  const found: number[] = [];
  let bytes = 0;
  let heldMost = 0;
  for (const chunk of [...chunks.slice(0, -1), Buffer.concat([chunks.at(-1)!, BACKEND_MESSAGES[0]!.bytes])]) {
    reader.push(chunk);
    for (let frame = reader.next(); frame !== Frame.none; frame = reader.next()) {
      found.push(frame);
      bytes += reader.end - reader.start;
    }
    heldMost = Math.max(heldMost, reader.bufferedBytes);
  }
  t.equal(bytes, row.length + BACKEND_MESSAGES[0]!.bytes.length);
  t.equal(found[0], Frame.first);
  t.same(found.slice(-2), [Frame.last, Frame.whole]);
  t.ok(found.slice(1, -2).every((frame) => frame === Frame.more));
  t.equal(heldMost, 0, 'nothing of it is kept');
});

/** Their limit is a setting of pgkv; Postgres would take more. */
const CONFIGURED: readonly number[] = [Frontend.query, Frontend.parse, Frontend.bind, Frontend.functionCall];

t.test('lengths below 4, negative ones and those over the limit are refused at the fifth byte', async (t) => {
  const types = [
    ...Object.values(Frontend).map((type) => ({ type, limits: frontendLimits(MESSAGE_BYTES_MAX), reader: fromClient })),
    ...Object.values(Backend).map((type) => ({ type, limits: backendLimits(MESSAGE_BYTES_MAX), reader: fromServer })),
  ].filter(({ type, limits }) => limits[type] !== 0);
  for (const { type, limits, reader } of types) {
    const letter = String.fromCharCode(type);
    const limit = limits[type]!;
    const over = limit === 0x7fffffff ? [] : [limit + 1, 0x7fffffff];
    for (const length of [0, 3, -1, -(2 ** 31), ...over]) {
      const error = refusal(reader(), header(type, length));
      const onlyOurs = reader === fromClient && CONFIGURED.includes(type) && length === limit + 1;
      t.equal(error?.sqlstate, onlyOurs ? '54000' : '08P01', `${letter} of length ${length}`);
      t.equal(refusal(reader(), header(type, length).subarray(0, 4)), null, 'not before the length is there');
    }
    t.equal(refusal(reader(), header(type, limit)), null, `${letter} of exactly the limit is waited for`);
  }
});

t.test('small messages have a small limit, whatever the limit for texts is', async (t) => {
  for (const type of [Frontend.sync, Frontend.close, Frontend.execute, Frontend.copyFail]) {
    t.equal(refusal(fromClient(), header(type, SMALL_MESSAGE_BYTES_MAX + 1))?.sqlstate, '08P01');
  }
});

t.test('a type byte that does not exist is refused at once, with its number', async (t) => {
  const known = { frontend: frontendLimits(MESSAGE_BYTES_MAX), backend: backendLimits(MESSAGE_BYTES_MAX) };
  for (let type = 0; type < 256; type++) {
    if (known.frontend[type] === 0) {
      t.match(refusal(fromClient(), Buffer.of(type))?.message, `invalid frontend message type ${type}`);
    }
    if (known.backend[type] === 0) {
      t.match(refusal(fromServer(), Buffer.of(type))?.message, `invalid backend message type ${type}`);
    }
  }
});

t.test('a good message in front of a bad one is found first', async (t) => {
  const reader = fromClient();
  reader.push(Buffer.concat([FRONTEND_MESSAGES.at(-2)!.bytes, Buffer.of(0)]));
  t.equal(reader.next(), Frame.whole);
  t.throws(() => reader.next(), new PgkvError('protocol_violation', { message: 'invalid frontend message type 0' }));
});

t.test('64 MB announced and 10 bytes sent cost 10 bytes', async (t) => {
  const before = process.memoryUsage();
  const readers = Array.from({ length: 100 }, () => {
    const reader = fromClient();
    reader.push(Buffer.concat([header(Frontend.query, 64 * MIB), Buffer.alloc(10)]));
    reader.next();
    return reader;
  });
  const after = process.memoryUsage();
  t.ok(readers.every((reader) => reader.bufferedBytes === 15));
  t.ok(after.arrayBuffers - before.arrayBuffers < MIB, 'array buffers');
  t.ok(after.rss - before.rss < 32 * MIB, 'resident memory');
});

t.test('a message sent byte by byte costs about its bytes, not an object for each', async (t) => {
  const total = 400_000;
  const bytes = Buffer.concat([header(Frontend.query, total + 4), Buffer.alloc(total, 0x20)]);
  const reader = fromClient();
  const before = process.memoryUsage();
  for (let offset = 0; offset < bytes.length - 1; offset++) {
    reader.push(Buffer.from(bytes.subarray(offset, offset + 1)));
    if (reader.next() !== Frame.none) throw new Error(`found a message at byte ${offset}`);
  }
  const after = process.memoryUsage();
  t.ok(after.heapUsed - before.heapUsed < 16 * MIB, `${after.heapUsed - before.heapUsed} bytes of heap`);
  reader.push(bytes.subarray(-1));
  t.equal(reader.next(), Frame.whole);
  t.ok(reader.buffer.subarray(reader.start, reader.end).equals(bytes));
});

t.test('a few bytes left over do not keep the whole chunk they came in', async (t) => {
  const chunk = Buffer.concat([
    header(Frontend.query, 60_004),
    Buffer.alloc(60_000, 0x20),
    Buffer.from('51000000', 'hex'),
  ]);
  const reader = fromClient();
  reader.push(chunk);
  t.equal(reader.next(), Frame.whole);
  t.equal(reader.next(), Frame.none);
  t.not(reader.buffer.buffer, chunk.buffer);
  t.equal(reader.bufferedBytes, 4);
});

t.test('random bytes in random pieces end in messages or in a refusal, the same for all cuts', async () => {
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    fc.constantFrom(...FRONTEND_MESSAGES.map(({ bytes }) => bytes)),
    fc
      .tuple(fc.constantFrom(...Object.values(Frontend)), fc.integer({ min: -2, max: 20 }))
      .map(([type, n]) => header(type, n)),
  );
  const outcome = (chunks: readonly Buffer[]): string => {
    const reader = fromClient();
    const stream: string[] = [];
    try {
      for (const chunk of chunks) {
        reader.push(chunk);
        while (reader.next() !== Frame.none) stream.push(reader.buffer.toString('hex', reader.start, reader.end));
      }
      return stream.join('');
    } catch (error) {
      if (error instanceof PgkvError) return `${stream.join('')} ${error.message}`;
      throw error;
    }
  };
  fc.assert(
    fc.property(fc.array(noise, { maxLength: 8 }), fc.array(fc.nat(200), { maxLength: 4 }), (parts, cuts) => {
      const bytes = Buffer.concat(parts);
      const offsets = [...new Set(cuts.filter((cut) => cut > 0 && cut < bytes.length))].sort((a, b) => a - b);
      return outcome(cutAt(bytes, ...offsets)) === outcome([bytes]);
    }),
    { numRuns: 1_000 },
  );
});

t.test(
  'a message that is put back each time while more comes is copied a few times, not with each chunk',
  async (t) => {
    const message = Buffer.concat([header(Frontend.bind, 30), Buffer.alloc(26, 7)]);
    const all = Buffer.concat(Array<Buffer>(20_000).fill(message));
    const reader = fromClient();
    const buffers = new Set<ArrayBufferLike>();
    let position = -1;
    for (let at = 0; at < all.length; at += 1_000) {
      reader.push(all.subarray(at, at + 1_000));
      if (reader.next() === Frame.none) throw new Error('the first message is there');
      buffers.add(reader.buffer.buffer);
      if (position < 0) position = reader.position;
      if (reader.position !== position) throw new Error('it is another message');
      reader.unread();
    }
    t.ok(buffers.size < 40, `${buffers.size} buffers`);
    t.ok(all.equals(reader.takeRest()));
  },
);

t.test('put back at random, with more behind it, messages stay the same', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 30_000 }), { maxLength: 20 }),
      fc.infiniteStream(fc.boolean()),
      (sizes, takes) => {
        const messages = sizes.map((size, n) =>
          Buffer.concat([header(Frontend.bind, size + 4), Buffer.alloc(size, n)]),
        );
        const all = Buffer.concat(messages);
        const reader = fromClient();
        const found: Buffer[] = [];
        let start = 0;
        for (let at = 0; at < all.length; at += 1_777) {
          reader.push(all.subarray(at, at + 1_777));
          while (reader.next() !== Frame.none) {
            if (reader.position !== start) throw new Error(`found at ${reader.position}, is at ${start}`);
            if (takes.next().value !== true) {
              reader.unread();
              break;
            }
            // Not a copy: what has been handed out must not change.
            found.push(reader.buffer.subarray(reader.start, reader.end));
            start += reader.end - reader.start;
          }
        }
        for (; reader.next() !== Frame.none; start += reader.end - reader.start)
          found.push(reader.buffer.subarray(reader.start, reader.end));
        return Buffer.concat(found).equals(all);
      },
    ),
  );
});
