// The promise of the shape cache: a text may use what was learnt from another text of its shape.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { loadParser, parse } from '../../../src/sql/meaning/parse.js';
import { readTemplate } from '../../../src/sql/read-template.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { toStandardStrings, withShortLiterals } from '../../../src/sql/text/source-text.js';
import { CORPUS_TEXTS } from '../../unit/sql/corpus.js';
import {
  anyString,
  bits,
  hex,
  integer,
  numeric,
  string,
  trees,
  withOtherLiterals,
} from '../../unit/sql/literal-arbitraries.js';

await loadParser();

// Wherever an expression goes, with every kind of literal, sign and quoting.
const primary = fc.oneof(
  anyString,
  integer,
  numeric,
  bits,
  hex,
  fc.constantFrom(
    'a',
    '"A ""b"""',
    't.b',
    '$1',
    'NULL',
    'true',
    'naïve',
    '"😀"',
    'U&"d\\0061t"',
    "E'\\u0041'",
    "N'x'",
    "date '2020-01-01'",
  ),
);
const operator = fc.constantFrom(
  '+',
  '-',
  '*',
  '/',
  '=',
  '<>',
  '||',
  '@>',
  '->',
  '::text ||',
  'and',
  'LIKE',
  '<-',
  '?|',
  '=-',
  '~~*',
);
const blank = fc.constantFrom(' ', '\n', '\t ', ' /* c */ ', ' -- c\n', '/*/**/*/ ', '  ');
const { expression } = fc.letrec<{ expression: string }>((tie) => ({
  expression: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    primary,
    fc.tuple(tie('expression'), blank, operator, blank, tie('expression')).map((parts) => parts.join('')),
    fc
      .tuple(fc.constantFrom('-', '+', '- ', '-(-', 'not '), tie('expression'))
      .map(([sign, inner]) => (sign === '-(-' ? `-(-${inner})` : `${sign}${inner}`)),
    tie('expression').map((inner) => `(${inner})`),
    fc.tuple(tie('expression'), tie('expression')).map(([one, other]) => `lower(${one}, ${other})`),
    fc.tuple(tie('expression'), integer).map(([inner, n]) => `CAST(${inner} AS varchar(${n}))`),
    fc.tuple(tie('expression'), integer).map(([inner, n]) => `(${inner})::float(${n})`),
    fc.tuple(tie('expression'), anyString).map(([inner, zone]) => `${inner} AT TIME ZONE ${zone}`),
    fc.tuple(tie('expression'), tie('expression')).map(([one, other]) => `${one} in (${other}, 1)`),
  ),
}));
const statement = fc.oneof(
  expression.map((e) => `SELECT ${e}`),
  fc.tuple(expression, expression, integer).map(([one, other, n]) => `select ${one} from t where ${other} limit ${n}`),
  fc.tuple(expression, expression).map(([one, other]) => `INSERT INTO t VALUES (${one},${other})`),
  fc.tuple(expression, expression).map(([one, other]) => `update t set a=${one} where b=${other}`),
);

t.test('texts that differ in literals only have one shape, one tree and one template', async (t) => {
  let compared = 0;
  for (const text of CORPUS_TEXTS) {
    const shape = lexShape(text, true)!;
    const learnt = readTemplate(text, true, shape, 15);
    fc.assert(
      fc.property(withOtherLiterals(text), (other) => {
        const otherShape = lexShape(other, true);
        assert.equal(otherShape?.key, shape.key, other);
        if (!learnt.holdsForShape) return;
        compared++;
        assert.equal(trees(other), trees(text), other);
        assert.deepEqual(readTemplate(other, true, otherShape, 15), learnt, other);
      }),
      { numRuns: shape.literals.length === 0 ? 1 : 15 },
    );
  }
  t.comment(`${compared} pairs`);
  t.ok(compared > 1000);
});

t.test('generated statements whose shape is known have the tree that is known', async (t) => {
  const known = new Map<string, { tree: string | null; text: string }>();
  let parsed = 0;
  let shared = 0;
  fc.assert(
    fc.property(
      statement.chain((text) => fc.tuple(fc.constant(text), withOtherLiterals(text))),
      (texts) => {
        for (const text of texts) {
          const shape = lexShape(text, true);
          assert.ok(shape, text);
          const { template, holdsForShape } = readTemplate(text, true, shape, 15);
          if (template.kind !== 'unparsed') parsed++;
          const tree = trees(text);
          const before = known.get(shape.key);
          if (before === undefined) {
            if (holdsForShape) known.set(shape.key, { tree, text });
          } else {
            if (before.text !== text) shared++;
            assert.equal(tree, before.tree, JSON.stringify([before.text, text]));
          }
        }
      },
    ),
    { numRuns: 3000 },
  );
  t.comment(`${parsed} statements parsed, ${shared} of a known shape`);
  t.ok(parsed > 2000 && shared > 500);
});

t.test('short literals leave the tree as it is', async (t) => {
  let compared = 0;
  fc.assert(
    fc.property(statement, (text) => {
      const shape = lexShape(text, true)!;
      if (!readTemplate(text, true, shape, 15).holdsForShape) return;
      compared++;
      assert.equal(trees(withShortLiterals(text, shape.literals)), trees(text), text);
    }),
    { numRuns: 2000 },
  );
  t.ok(compared > 500, `${compared}`);
  const neighbours = "SELECT text'a'$$b$$, N'c', a.5";
  t.equal(withShortLiterals(neighbours, lexShape(neighbours, true)!.literals), "SELECT text'' '' , N'' , a 0.0 ");
});

t.test('a text for standard_conforming_strings off keeps its tokens when rewritten for on', async (t) => {
  // The same values in the spelling each setting needs.
  const value = string.map((one) => `${one}\\'`);
  const off = (one: string): string => `'${one.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
  const on = (one: string): string => `'${one.replaceAll("'", "''")}'`;
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 3 }), fc.constantFrom('', ' ', '\n'), (values, gap) => {
      const build = (spell: (one: string) => string): string =>
        `SELECT text${gap}${spell(values[0]!)}, ${values.map(spell).join(' || ')} AS "a\\"`;
      const text = build(off);
      const source = toStandardStrings(text, lexShape(text, false)!.literals);
      assert.ok(source);
      const [rewritten, expected] = [parse(source.text), parse(build(on))];
      assert.ok(rewritten.kind === 'parsed' && expected.kind === 'parsed', source.text);
      const withoutPlaces = (one: typeof rewritten): string =>
        JSON.stringify(one.statements[0]?.node, (key, inner: unknown) =>
          /location$|list_start$|list_end$/.test(key) ? undefined : inner,
        );
      assert.equal(withoutPlaces(rewritten), withoutPlaces(expected), text);
    }),
    { numRuns: 500 },
  );
  t.pass();
});
