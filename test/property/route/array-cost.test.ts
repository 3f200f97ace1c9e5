// What reading an array costs grows with its length and no faster, whatever a client has written: one login must not hold up all
// others (D30). Growth is asserted, not milliseconds.
import t, { type Test } from 'tap';
import { arrayElements, binaryArrayElements } from '../../../src/route/text-array.js';

/** Literals of `n` characters and some. */
const LITERALS: Readonly<Record<string, (n: number) => string>> = {
  'blanks in an element': (n) => `{a${' '.repeat(n)}b}`,
  'blanks in front': (n) => `${' '.repeat(n)}{a}`,
  'blanks behind': (n) => `{a}${' '.repeat(n)}`,
  'blanks behind, and no end': (n) => `{a}${' '.repeat(n)}x`,
  'blanks in front of nothing': (n) => `{${' '.repeat(n)}x`,
  'blanks and tabs by turns': (n) => `{a${' \t'.repeat(n / 2)}b}`,
  'many runs of blanks': (n) => `{${`a${' '.repeat(40)}b `.repeat(n / 40)}}`,
  'an element in blanks': (n) => `{${' '.repeat(n)}a${' '.repeat(n)}}`,
  'blanks behind bounds': (n) => `[1:1]${' '.repeat(n)}=${' '.repeat(n)}x`,
  'many bounds': (n) => '[1:1]'.repeat(n / 5),
  'digits in bounds': (n) => `[${'1'.repeat(n)}:1]={a}`,
  braces: (n) => '{'.repeat(n),
  'closing braces': (n) => `{a${'}'.repeat(n)}`,
  quotes: (n) => `{${'"'.repeat(n)}`,
  backslashes: (n) => `{${'\\'.repeat(n)}}`,
  'quoted backslashes': (n) => `{"${'\\\\'.repeat(n / 2)}"}`,
  'small elements': (n) => `{${'a,'.repeat(n / 2)}a}`,
  'small arrays': (n) => `{${'{a},'.repeat(n / 4)}{a}}`,
  'small elements in blanks': (n) => `{${' a ,'.repeat(n / 4)}a}`,
};

function costOf(read: () => unknown): number {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 3; round++) {
    const before = process.cpuUsage();
    read();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

function assertLinear(t: Test, name: string, read: (n: number) => () => unknown): void {
  costOf(read(4000));
  const small = costOf(read(16_000));
  const large = costOf(read(64_000));
  // Quadratic growth would be 16 times, from where it shows.
  t.ok(large <= 9 * Math.max(small, 4), `${name}: ${small.toFixed(1)} ms, four times as long ${large.toFixed(1)} ms`);
}

t.test('literals', async (t) => {
  for (const [name, make] of Object.entries(LITERALS)) {
    assertLinear(t, name, (n) => {
      const literal = make(n);
      return () => arrayElements(literal);
    });
  }
});

t.test('in binary', async (t) => {
  for (const length of [-1, 0, 4]) {
    assertLinear(t, `elements of ${length} bytes`, (n) => {
      const element = Buffer.alloc(4 + Math.max(length, 0));
      element.writeInt32BE(length, 0);
      const head = Buffer.alloc(20);
      for (const [at, word] of [1, 1, 25, n, 1].entries()) head.writeInt32BE(word, 4 * at);
      const bytes = Buffer.concat([head, ...Array.from({ length: n }, () => element)]);
      return () => binaryArrayElements(bytes);
    });
  }
});
