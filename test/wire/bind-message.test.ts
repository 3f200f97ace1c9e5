// The walker of Bind messages reads what an encoder of its own kind wrote, wherever the message lies in a buffer, and takes
// nothing for a message that is cut, too long, or says lengths it has not: an offset beyond the message is another client's
// bytes, or another key.
import fc from 'fast-check';
import t from 'tap';
import { BindMessage } from '../../src/wire/bind-message.js';
import { type BindMessage as Described, encode, type Value } from '../support/frontend-message.js';

const value = fc.oneof(
  fc.constantFrom<Value>(null, '', 'a', 'ünï', 'x'.repeat(300)),
  fc.uint8Array({ maxLength: 20 }).map((bytes): Value => Buffer.from(bytes)),
);
const name = fc.constantFrom('', 's', 'a name', 'ß');
const messages: fc.Arbitrary<Described> = fc.record({
  bind: fc.array(value, { maxLength: 40 }),
  portal: name,
  statement: name,
  resultFormats: fc.array(fc.constantFrom(0, 1, 2), { maxLength: 4 }),
});

const BEFORE = Buffer.from('before\0\0\0\x07\0');
const BEHIND = Buffer.from('\0\0behind');

/** Everything that reading tells, by value. */
function told(bind: BindMessage): Record<string, unknown> {
  return {
    portal: bind.buffer.toString('utf8', bind.portalStart, bind.portalEnd),
    statement: bind.buffer.toString('utf8', bind.nameStart, bind.nameEnd),
    values: Array.from({ length: bind.count }, (_, index) => bind.value(index)?.toString('latin1') ?? null),
    formats: Array.from({ length: bind.count }, (_, index) => bind.format(index)),
    resultFormats: Array.from({ length: bind.resultFormatCount }, (_, index) => bind.resultFormat(index)),
  };
}

function expected({
  bind: values,
  portal = '',
  statement = '',
  resultFormats = [],
}: Described): Record<string, unknown> {
  return {
    portal,
    statement,
    values: values.map((one) => (one === null ? null : Buffer.from(one as string).toString('latin1'))),
    formats: values.map((one) => (Buffer.isBuffer(one) ? 1 : 0)),
    resultFormats: [...resultFormats],
  };
}

t.test('what was encoded is read, one object for all messages', (t) => {
  const reused = new BindMessage(1);
  fc.assert(
    fc.property(messages, (described) => {
      const message = encode(described);
      const buffer = Buffer.concat([BEFORE, message, BEHIND]);
      const end = BEFORE.length + message.length;
      if (!reused.read(buffer, BEFORE.length, end)) throw new Error('refused');
      t.same(told(reused), expected(described));
      const parameters = reused.parameters();
      const alone = new BindMessage();
      if (!alone.readParameters(parameters, 0, parameters.length)) throw new Error('parameters refused');
      t.equal(alone.resultFormatsAt, parameters.length);
      t.same(told(alone)['values'], told(reused)['values']);
      t.ok(alone.values().equals(reused.values()));
    }),
    { numRuns: 300 },
  );
  t.end();
});

t.test('a message that ends at any other place is none', (t) => {
  const described: Described = {
    bind: ['a', null, Buffer.from([0, 0, 0]), ''],
    portal: 'p',
    statement: 's',
    resultFormats: [0, 1],
  };
  const message = encode(described);
  const buffer = Buffer.concat([message, BEHIND]);
  const bind = new BindMessage();
  for (let end = 0; end <= buffer.length; end++) {
    t.equal(bind.read(buffer, 0, end), end === message.length, `${end} of ${message.length}`);
    if (end !== message.length)
      t.equal(bind.count * bind.resultFormatCount, 0, 'nothing is left of what was read in part');
  }
  for (let size = 0; size < message.length; size++) {
    t.equal(bind.read(message.subarray(0, size), 0, message.length), false, 'beyond the buffer');
  }
  t.end();
});

t.test('any two or four bytes may lie: nothing outside the message is ever pointed at', (t) => {
  const lies16 = [0, 1, 2, 3, 5, 255, 32_767, 32_768, 65_535];
  const lies32 = [0, 1, -1, -2, 5, 2 ** 31 - 1, -(2 ** 31), 2 ** 30, 2 ** 24];
  const bind = new BindMessage(1);
  for (const values of [
    [],
    ['a'],
    ['abc', null, Buffer.from([1, 2])],
    Array.from({ length: 30 }, () => 'v'),
  ] as Value[][]) {
    const message = encode({ bind: values, portal: 'p', statement: 's', resultFormats: [1] });
    const end = BEFORE.length + message.length;
    for (let at = BEFORE.length; at < end; at++) {
      const attempts = [
        ...lies16.filter(() => at + 2 <= end).map((lie) => (copy: Buffer) => copy.writeUInt16BE(lie, at)),
        ...lies32.filter(() => at + 4 <= end).map((lie) => (copy: Buffer) => copy.writeInt32BE(lie, at)),
      ];
      for (const attempt of attempts) {
        const copy = Buffer.concat([BEFORE, message, BEHIND]);
        attempt(copy);
        if (!bind.read(copy, BEFORE.length, end)) continue;
        let previous = bind.formatsAt;
        for (let index = 0; index < bind.count; index++) {
          const start = bind.offsets[2 * index]!;
          const length = bind.offsets[2 * index + 1]!;
          if (start < previous + 4 || length < -1 || start + Math.max(0, length) > end) throw new Error(`at ${at}`);
          previous = start + Math.max(0, length);
          bind.format(index);
        }
        if (bind.resultFormatsAt + 2 + 2 * bind.resultFormatCount !== end) throw new Error(`at ${at}: not to the end`);
        if (bind.nameEnd >= bind.formatsAt || bind.formatsAt >= end) throw new Error(`at ${at}: names`);
      }
    }
  }
  t.pass();
  t.end();
});

t.test('formats: none, one for all, one for each; any other number is refused, as Postgres does', (t) => {
  const bind = new BindMessage();
  const read = (formats: number[]): number[] | null => {
    const message = encode({ bind: ['a', 'b', 'c'], formats });
    return bind.read(message, 0, message.length) ? [bind.format(0), bind.format(1), bind.format(2)] : null;
  };
  t.same(read([]), [0, 0, 0]);
  t.same(read([1]), [1, 1, 1]);
  t.same(read([0, 1, 7]), [0, 1, 7]);
  t.equal(read([0, 1]), null);
  t.equal(read([0, 1, 0, 1]), null);
  const common = (resultFormats: number[]): number => {
    const message = encode({ bind: [], resultFormats });
    return bind.read(message, 0, message.length) ? bind.commonResultFormat() : Number.NaN;
  };
  for (const [formats, format] of [
    [[], 0],
    [[0], 0],
    [[1], 1],
    [[1, 1], 1],
    [[0, 1], -1],
    [[2], -1],
    [[-1], -1],
  ] as const) {
    t.equal(common([...formats]), format, formats.join());
  }
  t.end();
});

t.test('65,535 values are read in one walk, and their room is given back', (t) => {
  const bind = new BindMessage();
  const message = encode({ bind: Array.from({ length: 65_535 }, (_, index) => `${index}`) });
  t.ok(bind.read(message, 0, message.length));
  t.equal(bind.count, 65_535);
  t.equal(bind.value(65_534)?.toString(), '65534');
  bind.release();
  t.equal(bind.buffer.length, 0);
  t.ok(bind.offsets.length <= 32);
  const small = encode({ bind: ['a'] });
  t.ok(bind.read(small, 0, small.length));
  const room = bind.offsets;
  for (let round = 0; round < 100; round++) bind.read(small, 0, small.length);
  t.equal(bind.offsets, room, 'reading again makes no new object');
  t.end();
});
