// Array literals and array_send by Postgres's rules; test/integration/key-values.test.ts compares with servers.
import fc from 'fast-check';
import t from 'tap';
import {
  arrayElements,
  arrayOf,
  binaryArrayElements,
  ELEMENTS_MAX,
  type ElementArray,
  readArray,
  readSentArray,
} from '../../../src/route/text-array.js';

t.test('elements of an array literal', async (t) => {
  const CASES: readonly (readonly [literal: string, elements: readonly (string | null)[]])[] = [
    ['{}', []],
    [' { } ', []],
    ['{a}', ['a']],
    ['{a,b}', ['a', 'b']],
    [' { a , b c , "d" } \n', ['a', 'b c', 'd']],
    ['{"a,b","{}"}', ['a,b', '{}']],
    ['{""}', ['']],
    ['{"",a,""}', ['', 'a', '']],
    ['{NULL,null,Null}', [null, null, null]],
    ['{"NULL",NULLS,"null"}', ['NULL', 'NULLS', 'null']],
    ['{"\\"","\\\\","a\\b"}', ['"', '\\', 'ab']],
    ['{\\",\\\\,a\\,b,\\{\\}}', ['"', '\\', 'a,b', '{}']],
    ['{a\\ ,\\  b}', ['a ', '  b']],
    ['{\t"\t"\v}', ['\t']],
    ['{ключ,"🔑 x"}', ['ключ', '🔑 x']],
    ["{it's}", ["it's"]],
    // A backslash makes it a string.
    ['{\\NULL,NU\\LL}', ['NULL', 'NULL']],
    ['{\u00a0a\u00a0}', ['\u00a0a\u00a0']],
    // Explicit bounds: which they are is all the same to a list.
    ['[0:1]={a,b}', ['a', 'b']],
    ['[1:1]={a}', ['a']],
    ['[5:5]={t}', ['t']],
    [' [-1:+0] =\t{ a , NULL } ', ['a', null]],
    ['[2]={a,b}', ['a', 'b']],
    // In the order of unnest().
    ['{{a}}', ['a']],
    ['{ {a, "b}"} ,{NULL,d}}', ['a', 'b}', null, 'd']],
    ['[1:1][1:1]={{a}}', ['a']],
    ['[0:1][2]={{a,b},{c,d}}', ['a', 'b', 'c', 'd']],
  ];
  for (const [literal, elements] of CASES) t.same(arrayElements(literal), elements, literal);
});

t.test('what is no array', async (t) => {
  const CASES = [
    '',
    ' ',
    'a',
    '{',
    '}',
    '{a',
    'a}',
    '{a}}',
    '{{}}',
    '{a}b',
    'x{a}',
    '{a,}',
    '{,a}',
    '{,}',
    '{a,,b}',
    '{a b"c"}',
    '{a"b"}',
    '{"a}',
    '{"a\\"}',
    '{"a"b}',
    '{"a""b"}',
    '{a\\}',
    '[0:2]={a,b}',
    '[2:1]={a}',
    '[1:1]={}',
    '[1:0]={}',
    '[1:1]=a',
    '[1:1]{a}',
    '[1:1][1:2]={{a}}',
    '{{a},{b,c}}',
    '{{a},b}',
    '{{a}',
    '{{{{{{{a}}}}}}}',
    '[ 1:1]={a}',
    '[1 :1]={a}',
    '[2147483648:2147483648]={a}',
    '{a{b}',
    '{a,{b}}',
  ];
  for (const literal of CASES) t.equal(arrayElements(literal), null, literal);
});

const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 6 }),
  fc.string({ unit: fc.constantFrom('"', '\\', ',', '{', '}', ' ', '\n', 'N', 'U', 'L', 'a', '🔑'), maxLength: 6 }),
);
const elements = fc.array(fc.option(text, { freq: 8 }), { maxLength: 8 });

t.test('whatever is quoted comes back', async () => {
  const blank = fc.constantFrom('', ' ', '\n\t', '\v\f\r');
  fc.assert(
    fc.property(elements, blank, (values, gap) => {
      const written = values.map((one) => (one === null ? 'null' : `"${one.replace(/[\\"]/g, '\\$&')}"`));
      const read = arrayElements(`${gap}{${gap}${written.join(`${gap},${gap}`)}${gap}}${gap}`);
      return JSON.stringify(read) === JSON.stringify(values);
    }),
    { numRuns: 2000 },
  );
});

function whole(read: ElementArray | string | null): ElementArray {
  if (read === null || typeof read === 'string') throw new Error('no array');
  return read;
}

t.test('an array of some elements says what they said, by both formats', async () => {
  const sent = (values: readonly (string | null)[]): Buffer => {
    const head = Buffer.alloc(20);
    for (const [at, word] of [1, 0, 25, values.length, 5].entries()) head.writeInt32BE(word, 4 * at);
    const sizes = values.map((one) => {
      const size = Buffer.alloc(4);
      size.writeInt32BE(one === null ? -1 : Buffer.byteLength(one));
      return Buffer.concat([size, Buffer.from(one ?? '')]);
    });
    return Buffer.concat([head, ...sizes]);
  };
  fc.assert(
    fc.property(
      elements,
      fc.array(fc.integer({ min: -1, max: 9 }), { minLength: 1, maxLength: 8 }),
      (values, places) => {
        const written = values.map((one) => (one === null ? 'NULL' : `"${one.replace(/[\\"]/g, '\\$&')}"`));
        const wanted = JSON.stringify(places.map((place) => values[place] ?? null));
        const text = arrayOf(whole(readArray(`{${written}}`)), places, Buffer.from);
        const binary = arrayOf(whole(readSentArray(sent(values))), places, Buffer.from);
        return (
          JSON.stringify(arrayElements(text.toString())) === wanted &&
          JSON.stringify(binaryArrayElements(binary)) === wanted
        );
      },
    ),
    { numRuns: 1000 },
  );
});

t.test('nothing makes it fail or run away', async () => {
  const soup = fc.string({ unit: fc.constantFrom('{', '}', '"', '\\', ',', ' ', 'a', 'NULL', '['), maxLength: 20 });
  fc.assert(
    fc.property(soup, (literal) => {
      const read = arrayElements(`{${literal}}`);
      return read === null || read.length <= literal.length + 1;
    }),
    { numRuns: 5000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const read = binaryArrayElements(Buffer.from(bytes));
      return read === null || read.length <= 10;
    }),
    { numRuns: 5000 },
  );
});

t.test('a count that promises more than there is costs nothing', async (t) => {
  const bytes = Buffer.alloc(20);
  bytes.writeInt32BE(1, 0);
  bytes.writeInt32BE(25, 8);
  for (const count of [0x7fffffff, -1, -0x80000000]) {
    bytes.writeInt32BE(count, 12);
    const elements = binaryArrayElements(bytes);
    t.ok(elements === null || elements.length === 0, `${count}`);
  }
});

t.test('a binary array that every server refuses is none', async (t) => {
  const bytesOf = (words: readonly number[]): Buffer => {
    const bytes = Buffer.alloc(4 * words.length);
    for (const [at, word] of words.entries()) bytes.writeInt32BE(word | 0, 4 * at);
    return bytes;
  };
  const words = [1, 0, 25, 2, 1, 4, 0x61616161, -1];
  t.strictSame(binaryArrayElements(bytesOf(words)), ['aaaa', null]);
  for (const flags of [1, 0]) t.ok(binaryArrayElements(bytesOf(words.with(1, flags))));
  for (const flags of [-1, 2, 3, 256, 2 ** 31 - 1]) t.equal(readSentArray(bytesOf(words.with(1, flags))), null);
  for (const length of [-2, -3, -(2 ** 31)]) t.equal(readSentArray(bytesOf(words.with(7, length))), null);
  t.equal(readSentArray(bytesOf([0, 0, 25, 0])), null, 'bytes behind an empty one');
});

t.test('what is kept of an array is small, and ends at a bound', async (t) => {
  const sent = (count: number): Buffer => {
    const bytes = Buffer.alloc(20 + 4 * count);
    for (const [at, word] of [1, 0, 25, count, 1].entries()) bytes.writeInt32BE(word, 4 * at);
    return bytes;
  };
  const bytes = sent(ELEMENTS_MAX);
  const literal = `{${'1,'.repeat(ELEMENTS_MAX - 1)}1}`;
  const used = (): number => process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
  const before = used();
  const read = [readSentArray(bytes), readArray(literal)];
  // Without a collection: whatever was made on the way counts, too.
  t.ok(used() - before < 64 * ELEMENTS_MAX, `${(used() - before) / ELEMENTS_MAX} bytes an element`);
  t.strictSame(
    read.map((one) => whole(one).count),
    [ELEMENTS_MAX, ELEMENTS_MAX],
  );
  t.equal(readSentArray(sent(ELEMENTS_MAX + 1)), 'too long');
  t.equal(readArray(`{1,${literal.slice(1)}`), 'too long');
});
