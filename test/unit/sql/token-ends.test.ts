// Ends of tokens, long ones among them, which are walked through in other ways than short ones: as Postgres's rules have them,
// written down here as regular expressions and plain loops.
import t from 'tap';
import { UTF8 } from '../../../src/sql/text/client-encoding.js';
import { lexShape, TOO_MANY_PIECES } from '../../../src/sql/text/shape-lexer.js';
import {
  blanksEnd,
  numberEnd,
  parameterEnd,
  standardStringEnd,
  statementEnds,
} from '../../../src/sql/text/token-ends.js';
import { seeded } from '../../support/seeded-random.js';

const random = seeded(11);
const below = (count: number): number => Math.floor(random() * count);
const some = (parts: readonly string[], most: number): string =>
  Array.from({ length: 1 + below(most) }, () => parts[below(parts.length)]!).join('');
/** Behind what the pattern takes at the beginning, or 0. */
const taken = (pattern: RegExp, text: string): number => pattern.exec(text)?.[0].length ?? 0;

t.test('numbers and parameters end where their digits do', (t) => {
  const ends = [' ', '', ',', '_', '__1', 'x', '$', '..1', ')'];
  for (let round = 0; round < 4000; round++) {
    const digits = some(['1', '7', '0', '90', '1_2', '1'.repeat(70)], 1 + below(90));
    const text = `${digits}${ends[below(ends.length)]!}`;
    const end = taken(/^\d(_?\d)*(?![\w$\u0080-\uffff])/, text);
    t.equal(Math.abs(numberEnd(text, 0)), end, text, { diagnostic: false });
    const parameter = taken(/^\d+(?![\w$\u0080-\uffff])/, text);
    t.equal(parameterEnd(text, 0), parameter, text, { diagnostic: false });
    const hex = `0x${text}`;
    t.equal(Math.abs(numberEnd(hex, 0)), taken(/^0x(_?[\da-f])+(?![\w$\u0080-\uffff])/, hex), hex, {
      diagnostic: false,
    });
  }
  const zeros = '0'.repeat(300);
  t.equal(numberEnd(`0x${zeros}1`, 0), 303, 'zeros before it make no number large');
  t.equal(numberEnd(`0x1${zeros}`, 0), -303);
  t.equal(numberEnd(`0b${zeros}1_0`, 0), 305);
  t.end();
});

/** Block comments nest. */
function commentsEnd(text: string): number {
  let depth = 0;
  let at = 0;
  while (at < text.length) {
    const pair = text.slice(at, at + 2);
    if (pair === '/*') depth++;
    else if (pair === '*/' && depth > 0) depth--;
    else {
      if (depth === 0 && text[at] !== ' ') return at;
      at++;
      continue;
    }
    at += 2;
  }
  return depth === 0 ? at : 0;
}

t.test('comments end where they are closed, however long they are', (t) => {
  const parts = ['/*', '*/', '/', '*', 'x', ' '.repeat(70), 'y*'.repeat(40), '/*/', '*/*'];
  let closed = 0;
  for (let round = 0; round < 20_000; round++) {
    const text = `/*${some(parts, 12)}${'*/'.repeat(below(5))}z`;
    const end = commentsEnd(text);
    if (end > 0) closed++;
    if (blanksEnd(text, 0) !== end) t.fail(text);
  }
  t.ok(closed > 5000 && closed < 15_000, `${closed} closed`);
  t.end();
});

t.test('a string goes on behind a line end, in many lines', (t) => {
  for (const lines of [1, 2, 70, 5000]) {
    const text = `${"a'\n'".repeat(lines)}${'b'.repeat(lines)}''c' x`;
    t.equal(standardStringEnd(text, 0), text.length - 2);
    t.equal(standardStringEnd(text.slice(0, -3), 0), 0, 'it is not closed');
  }
  t.equal(standardStringEnd(`${"a'\n'".repeat(1_000_000)}'`, 0), 0, 'too many lines have no shape');
  t.end();
});

t.test('statements end at semicolons outside of everything else', (t) => {
  const inner = [
    "';'",
    '";"',
    '/*;*/',
    '--;\n',
    '$$;$$',
    "E'\\';'",
    '$a$;$$;$a$',
    'u&";"',
    'a$;$',
    '1',
    '-',
    '/',
    "N';'",
  ];
  for (let round = 0; round < 3000; round++) {
    let text = '';
    const ends: number[] = [];
    for (let n = below(6); n >= 0; n--) {
      for (const part of Array.from({ length: below(5) }, () => inner[below(inner.length)]!)) {
        if (part === 'a$;$') {
          text += ' a$';
          ends.push(text.length);
          text += '; ';
        } else text += ` ${part} `;
      }
      ends.push(text.length);
      text += ';';
    }
    const shape = lexShape(text, true);
    if (shape === null) continue;
    t.same(statementEnds(text, shape.literals), [...ends, text.length], text, { diagnostic: false });
  }
  t.equal(statementEnds('select "a;', []), null);
  t.equal(statementEnds('select /* a;', []), null);
  t.end();
});

t.test('a text that is long without its literals has no shape where few pieces are asked for', (t) => {
  for (const part of ['(', 'x', '"y"', '1 ', ',', 'é']) {
    const text = `select 'a', ${part.repeat(1_100_000)}`;
    if (part !== '1 ') t.equal(lexShape(text, true, 10_000_000), TOO_MANY_PIECES, part);
    t.equal(lexShape(`select ${part.repeat(1000)}`, true, 10_000)?.literals.length, part === '1 ' ? 3000 : 0, part);
  }
  const long = lexShape(`select '${'x'.repeat(3_000_000)}', 1`, true, 100);
  t.equal(long?.key, "select 's, 'i", 'literals do not count');
  t.end();
});

t.test('long texts are decoded as short ones', (t) => {
  for (let round = 0; round < 20; round++) {
    const text = some(['é', '€', '😀', 'a', '\u0000', '\ufeff', 'xyz'.repeat(30_000)], 12);
    const bytes = Buffer.from(text);
    t.equal(UTF8.read(bytes), text);
    t.equal(UTF8.read(Buffer.concat([bytes, Buffer.from([0xff])])), null);
    t.equal(UTF8.read(Buffer.concat([bytes, Buffer.from([0xed, 0xa0, 0x80])])), null, 'half a surrogate pair');
  }
  t.end();
});
