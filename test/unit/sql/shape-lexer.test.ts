import assert from 'node:assert/strict';
import fc from 'fast-check';
import { loadModule, scanSync } from 'libpg-query';
import t from 'tap';
import { LITERAL_STRIDE, LiteralKind, lexShape } from '../../../src/sql/text/shape-lexer.js';

await loadModule();

const keyOf = (text: string, standard = true): string | null => lexShape(text, standard)?.key ?? null;

function literalsOf(text: string, standard = true): [string, number][] {
  const literals = lexShape(text, standard)?.literals ?? [];
  const found: [string, number][] = [];
  for (let i = 0; i < literals.length; i += LITERAL_STRIDE) {
    found.push([text.slice(literals[i], literals[i + 1]), literals[i + 2]!]);
  }
  return found;
}

t.test('literals become marks, blanks and comments one space', async (t) => {
  const table: [string, string][] = [
    ['', ''],
    ['  \n', ''],
    ['-- only a comment', ''],
    ['select 1', "select 'i"],
    ["  select\t'x'  ;  ", "select 's ;"],
    ["select 'it''s', ''", "select 's, 's"],
    ["select 'a'\n  -- comment\n  'b'", "select 's"],
    ["select 'a' 'b'", "select 's 's"],
    ["select 'a' -- comment\n'b'", "select 's"],
    ["select 'a' /* \n */ 'b'", "select 's 's"],
    ["select 'back\\slash'", "select 's"],
    ["select E'\\'', e'\\\\'", "select 's, 's"],
    ["select E'\\u0041'", "select 'eE'\\u0041'"],
    ["select E'\\101' || 'x'", "select 'eE'\\101' || 's"],
    ["select B'01', x'AF', X''", "select 'b, 'x, 'x"],
    ["select B'1''0'", "select 'b's"],
    ["select N'x', n'y'", "select N's, n's"],
    ["select U&'\\0041' uescape '!', 'x'", "select 'uU&'\\0041' uescape 'u'!', 'u'x'"],
    ['select U&"d\\0061t", 1', 'select U&"d\\0061t", \'i'],
    ['select U&"d!0061t" uescape \'!\'', "select U&\"d!0061t\" uescape 'u'!'"],
    ['select u&b, U & c', 'select u&b, U & c'],
    ["select $$it's$$, $a$ $b$ $$ $a$, $_é1$x$_é1$", "select 's, 's, 's"],
    ['select a$$b$$ from c$1', 'select a$$b$$ from c$1'],
    ['select $1, $23::int', 'select $1, $23::int'],
    ['select 1.5, .5, 5., 1e5, 1.5E-10, 1_000.5e1_0', "select 'n, 'n, 'n, 'n, 'n, 'n"],
    ['select 1_000, 0x1F, 0o17, 0b1_0, 007', "select 'i, 'i, 'i, 'i, 'i"],
    ['select 2147483647, 2147483648, 0x7fffffff, 0x80000000', "select 'i, 'n, 'i, 'n"],
    ['select 1..10', "select 'i..'i"],
    ['select -1, - 1, +1, 1-1', "select -'i, - 'i, +'i, 'i-'i"],
    ['select a -- b\n- 1', "select a - 'i"],
    ['select a-- b\n', 'select a'],
    ['select 4/*c*/2', "select 'i 'i"],
    ['select a*/*c*/b', 'select a* b'],
    ['select a+/*c*/-/*d*/1', "select a+ - 'i"],
    ['select /* a /* nested */ b */ 1', "select 'i"],
    ['select /*/ */ 1', "select 'i"],
    ['select a@-1, a=-1, a<@b, a?|b, a#>>b, a::int', "select a@-'i, a=-'i, a<@b, a?|b, a#>>b, a::int"],
    ['select "a ""b"" \'c\' -- d", "/*"', 'select "a ""b"" \'c\' -- d", "/*"'],
    ['select naïve, 日本, "😀", \'😀\' from tëxt', 'select naïve, 日本, "😀", \'s from tëxt'],
    ['select a[1:2], b.c', "select a['i:'i], b.c"],
    ['f(a => 1, b := 2)', "f(a => 'i, b := 'i)"],
  ];
  for (const [text, key] of table) t.equal(keyOf(text), key, text);
});

t.test('with standard_conforming_strings off a backslash escapes in every string', async (t) => {
  t.equal(keyOf("select 'a\\' or b'", false), "select 's");
  t.equal(keyOf("select 'a\\' or b'", true), null);
  t.equal(keyOf("select 'a\\\\', 'b'", false), "select 's, 's");
  t.equal(keyOf("select '\\101'", false), "select 'e'\\101'");
  t.equal(keyOf("select U&'x'", false), null, 'an error of the server');
  t.same(literalsOf("select 'a\\'b', E'c', B'0'", false), [
    ["'a\\'b'", LiteralKind.escape],
    ["E'c'", LiteralKind.escape],
    ["B'0'", LiteralKind.bits],
  ]);
});

t.test('literals are given with their places and kinds', async (t) => {
  t.same(literalsOf("x = '😀' and y = E'\\n'\n'z' and d=$q$'$q$ and B'1'=X'f' and i=12 and n=.5e1"), [
    ["'😀'", LiteralKind.string],
    ["E'\\n'\n'z'", LiteralKind.escape],
    ["$q$'$q$", LiteralKind.dollar],
    ["B'1'", LiteralKind.bits],
    ["X'f'", LiteralKind.hex],
    ['12', LiteralKind.integer],
    ['.5e1', LiteralKind.numeric],
  ]);
  t.same(literalsOf("U&'a' uescape '!'"), [
    ["U&'a'", LiteralKind.opaque],
    ["'!'", LiteralKind.opaque],
  ]);
});

t.test('what cannot be a valid text has no shape', async (t) => {
  const texts = [
    "'open",
    "E'open\\'",
    "B'open",
    "U&'open",
    '"open',
    'U&"open',
    '""',
    '/* open',
    '/* /* */',
    '$$open$',
    '$a$open$b$',
    '$a',
    '$',
    '1a',
    '1_',
    '1__0',
    '1e',
    '1e+',
    '1.5e-x',
    '0x',
    '0xg',
    '0b2',
    '0b1$1',
    '1e5$1',
    '$1$2',
    '1.a',
    '1._5',
    '1é',
    '$1a',
    'a \\ b',
    '{fn x}',
    'a \u0001 b',
    'a \0 b',
  ];
  for (const text of texts) t.equal(lexShape(text, true), null, text);
});

// The oracle is Postgres's own scanner. Token numbers of its grammar:
const SCANNED = { FCONST: 260, SCONST: 261, USCONST: 262, BCONST: 263, XCONST: 264, ICONST: 266 } as const;
const LITERAL_TOKENS: readonly number[] = Object.values(SCANNED);

interface Scan {
  /** Types of all tokens but comments, with the text of those that are no literals. */
  readonly sequence: string;
  /** Byte offsets and type of the literals. */
  readonly literals: string[];
}

function scan(text: string): Scan | null {
  try {
    const tokens = scanSync(text).tokens.filter(({ text }) => !text.startsWith('--') && !text.startsWith('/*'));
    const isLiteral = (type: number): boolean => LITERAL_TOKENS.includes(type);
    return {
      sequence: tokens.map((one) => (isLiteral(one.tokenType) ? `<${one.tokenType}>` : one.text)).join(' '),
      literals: tokens
        .filter((one) => isLiteral(one.tokenType))
        .map((one) => `${one.start}-${one.end}:${one.tokenType}`),
    };
  } catch {
    return null;
  }
}

/** The lexer's literals in the scanner's terms. */
function asScanned(text: string, literals: readonly number[]): string[] {
  const found: string[] = [];
  for (let i = 0; i < literals.length; i += LITERAL_STRIDE) {
    const [start, end, kind] = [literals[i]!, literals[i + 1]!, literals[i + 2]!];
    const types = ['SCONST', 'SCONST', 'SCONST', 'BCONST', 'XCONST', 'ICONST', 'FCONST', 'SCONST'] as const;
    const value = text.slice(start, end);
    const prefix = kind === LiteralKind.opaque ? value.slice(0, 2).toLowerCase() : '';
    const type = prefix === 'u&' ? 'USCONST' : prefix === "b'" ? 'BCONST' : prefix === "x'" ? 'XCONST' : types[kind]!;
    const byteStart = Buffer.byteLength(text.slice(0, start));
    found.push(`${byteStart}-${byteStart + Buffer.byteLength(value)}:${SCANNED[type]}`);
  }
  return found;
}

// Pieces chosen so that they run into one another: what one begins another may end.
const piece = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom('a', 'select', 'E', 'e', 'b', 'x', 'N', 'u', 'U', 'é', '日', '😀', '_', 'uescape'),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      "'",
      "''",
      '"',
      '""',
      '\\',
      "\\'",
      '$',
      '$$',
      '$a$',
      '&',
      "E'",
      "U&'",
      'U&"',
      "B'",
      "x'",
      "N'",
    ),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(' ', '  ', '\n', '\r', '\t', '\v', '-- c\n', '--', '/*', '*/', '/* c */', '/*/**/*/'),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      '1',
      '0',
      '23',
      '2147483647',
      '2147483648',
      '.',
      '..',
      'e',
      'e5',
      'E-3',
      '_',
      '0x1F',
      '0b',
      '0o7',
      '1_0',
      '$1',
    ),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '+',
      '-',
      '*',
      '/',
      '<',
      '>',
      '=',
      '@',
      '!',
      '?',
      '|',
      '::',
      ':=',
      '=>',
      ',',
      '(',
      ')',
      ';',
      '[',
      ']',
    ),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      "'x'",
      "'it''s'",
      "E'\\n'",
      "E'\\u0041'",
      "E'\\u00e'",
      "'a'\n'b'",
      "$q$'$q$",
      "B'01'",
      "X'f'",
      "U&'\\0041'",
      '"q ""x"" \'"',
      'U&"d\\0061"',
    ),
  },
);
const jumble = fc.array(piece, { maxLength: 14 }).map((pieces) => pieces.join(''));

t.test("literals are where Postgres's scanner finds them, and equal shapes are equal token sequences", async (t) => {
  const sequences = new Map<string, { sequence: string; text: string }>();
  let shaped = 0;
  let collisions = 0;
  fc.assert(
    fc.property(jumble, (text) => {
      const shape = lexShape(text, true);
      const scanned = scan(text);
      if (shape === null || scanned === null) return;
      // libpg-query's scanner, unlike Postgres's, does not continue a string behind a comment; the test in
      // test/integration/sql asks a server.
      if (literalsOf(text).some(([literal]) => literal.includes('--'))) return;
      shaped++;
      assert.deepEqual(asScanned(text, shape.literals), scanned.literals);
      const known = sequences.get(shape.key);
      if (known === undefined) sequences.set(shape.key, { sequence: scanned.sequence, text });
      else {
        if (known.text !== text) collisions++;
        assert.equal(scanned.sequence, known.sequence, `${JSON.stringify([known.text, text])} share a shape`);
      }
    }),
    { numRuns: 20_000 },
  );
  t.comment(`${shaped} shapes, ${collisions} texts of a shape seen before`);
  t.ok(shaped > 1000 && collisions > 200, 'the property was put to the test');
});
