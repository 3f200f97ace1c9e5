import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { loadParser, parse, scanTokens } from '../../../src/sql/meaning/parse.js';
import { type Clause, findClauses } from '../../../src/sql/text/clauses.js';
import { LITERAL_STRIDE, lexShape } from '../../../src/sql/text/shape-lexer.js';
import type { TextParts } from '../../../src/sql/text/text-parts.js';
import {
  joinParts,
  listItems,
  spliceTokens,
  type TextToken,
  type TokenSpan,
  tokenAtByte,
  tokensOf,
} from '../../../src/sql/text/text-tokens.js';
import { CORPUS_TEXTS } from './corpus.js';

await loadParser();

function read(text: string): { tokens: readonly TextToken[]; literals: string[] } {
  const shape = lexShape(text, true);
  assert(shape !== null, text);
  const literals: string[] = [];
  for (let i = 0; i < shape.literals.length; i += LITERAL_STRIDE) {
    literals.push(text.slice(shape.literals[i], shape.literals[i + 1]));
  }
  return { tokens: tokensOf(text, shape.literals), literals };
}

const render = (parts: TextParts, literals: readonly string[]): string =>
  parts.map((part) => (typeof part === 'number' ? literals[part] : part)).join('');

const isSpan = (value: object): value is TokenSpan => Object.keys(value).join() === 'start,end';
const isClause = (value: object): value is Clause => Object.keys(value).join() === 'start,body';

/** Clauses as text: of a clause its body, of a span its tokens; what is not there, and positions, left out. */
function shown(text: string): Record<string, unknown> | null {
  const { tokens, literals } = read(text);
  const show = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null) return value;
    if (Array.isArray(value)) return value.map(show);
    if (isClause(value)) return show(value.body);
    if (isSpan(value)) return render(spliceTokens(text, tokens, value), literals);
    const fields = Object.entries(value)
      .filter(([, field]) => field !== null && typeof field !== 'number')
      .map(([name, field]) => [name, show(field)] as const)
      .filter(([, field]) => field !== '' && !(Array.isArray(field) && field.length === 0));
    return Object.fromEntries(fields);
  };
  return show(findClauses(tokens)) as Record<string, unknown> | null;
}

/** The places expected, `statement` left out where it is the whole text. */
const PLACES: readonly (readonly [text: string, places: Record<string, unknown>])[] = [
  ['SELECT 1', { verb: 'select', selectList: '1' }],
  ['SELECT FROM kv', { verb: 'select', from: 'kv' }],
  [
    'SELECT a, b FROM kv WHERE a = 1 AND b = (SELECT 2 FROM x WHERE y) GROUP BY a, b HAVING c WINDOW w AS (ORDER BY d) ' +
      'ORDER BY e USING <, f LIMIT 3 OFFSET 4 FOR UPDATE OF kv NOWAIT FOR SHARE',
    {
      verb: 'select',
      selectList: 'a, b',
      from: 'kv',
      where: 'a = 1 AND b = (SELECT 2 FROM x WHERE y)',
      groupBy: 'a, b',
      having: 'c',
      window: 'w AS (ORDER BY d)',
      orderBy: 'e USING <, f',
      limit: '3',
      offset: '4',
      locking: ['UPDATE OF kv NOWAIT', 'SHARE'],
    },
  ],
  [
    'SELECT ALL a FROM kv OFFSET 5 ROWS FETCH FIRST 3 ROWS ONLY',
    { verb: 'select', selectList: 'a', from: 'kv', offset: '5 ROWS', fetch: 'FIRST 3 ROWS ONLY' },
  ],
  ['SELECT DISTINCT a FROM kv', { verb: 'select', selectList: 'a', from: 'kv' }],
  ['SELECT DISTINCT ON (a, b) c FROM kv', { verb: 'select', distinct: 'ON (a, b)', selectList: 'c', from: 'kv' }],
  [
    'SELECT a AS from, kv.where, b AS "where", "limit" AS as FROM kv WHERE kv.group IS DISTINCT FROM kv . order',
    {
      verb: 'select',
      selectList: 'a AS from, kv.where, b AS "where", "limit" AS as',
      from: 'kv',
      where: 'kv.group IS DISTINCT FROM kv . order',
    },
  ],
  [
    'SELECT a IS NOT DISTINCT FROM b AS distinct FROM kv',
    { verb: 'select', selectList: 'a IS NOT DISTINCT FROM b AS distinct', from: 'kv' },
  ],
  [
    'SELECT extract(day FROM ttl), percentile_cont(0.5) WITHIN GROUP (ORDER BY a), x AS within FROM kv',
    {
      verb: 'select',
      selectList: 'extract(day FROM ttl), percentile_cont(0.5) WITHIN GROUP (ORDER BY a), x AS within',
      from: 'kv',
    },
  ],
  ['SELECT a[1:2] INTO TEMP t FROM kv', { verb: 'select', selectList: 'a[1:2]', into: 'TEMP t', from: 'kv' }],
  ['select*from"kv"where\'a\'=key', { verb: 'select', selectList: '*', from: '"kv"', where: "'a'=key" }],
  [
    '; EXPLAIN (ANALYZE, COSTS off) SELECT a FROM kv ; ;',
    { verb: 'select', statement: 'SELECT a FROM kv', selectList: 'a', from: 'kv' },
  ],
  ['explain analyze verbose DELETE FROM kv', { verb: 'delete', statement: 'DELETE FROM kv', target: { name: 'kv' } }],
  [
    'WITH RECURSIVE update AS (SELECT 1), b (c) AS NOT MATERIALIZED (SELECT 2) SELECT d FROM update',
    {
      verb: 'select',
      with: 'WITH RECURSIVE update AS (SELECT 1), b (c) AS NOT MATERIALIZED (SELECT 2)',
      selectList: 'd',
      from: 'update',
    },
  ],
  [
    'UPDATE ONLY s.kv AS k SET a = DEFAULT, (b, c) = (1, 2) FROM x WHERE k.a = 1 RETURNING *, a AS where',
    {
      verb: 'update',
      target: { name: 's.kv', alias: 'k' },
      set: 'a = DEFAULT, (b, c) = (1, 2)',
      from: 'x',
      where: 'k.a = 1',
      returning: '*, a AS where',
    },
  ],
  ['UPDATE set SET a = 1', { verb: 'update', target: { name: 'set' }, set: 'a = 1' }],
  ['UPDATE kv AS set SET a = 1', { verb: 'update', target: { name: 'kv', alias: 'set' }, set: 'a = 1' }],
  ['UPDATE kv "SET" SET a = 1', { verb: 'update', target: { name: 'kv', alias: '"SET"' }, set: 'a = 1' }],
  ['UPDATE ONLY (kv) SET a = 1', { verb: 'update', target: { name: 'kv' }, set: 'a = 1' }],
  ['UPDATE kv * SET a = 1', { verb: 'update', target: { name: 'kv' }, set: 'a = 1' }],
  [
    'DELETE FROM kv k USING a JOIN b USING (c) WHERE k.d = $1 RETURNING key',
    {
      verb: 'delete',
      target: { name: 'kv', alias: 'k' },
      using: 'a JOIN b USING (c)',
      where: 'k.d = $1',
      returning: 'key',
    },
  ],
  ['DELETE FROM kv WHERE CURRENT OF c', { verb: 'delete', target: { name: 'kv' }, where: 'CURRENT OF c' }],
  [
    "INSERT INTO s.kv AS k (values, b) OVERRIDING SYSTEM VALUE VALUES (1, 'a'), (2, N'b') " +
      'ON CONFLICT (a, lower(b)) WHERE c DO UPDATE SET a = 1, b = excluded.b WHERE k.x RETURNING a',
    {
      verb: 'insert',
      target: { name: 's.kv', alias: 'k' },
      columns: 'values, b',
      overriding: 'SYSTEM VALUE',
      source: "VALUES (1, 'a'), (2, N'b')",
      values: "(1, 'a'), (2, N'b')",
      onConflict: {
        targetList: 'a, lower(b)',
        targetWhere: 'c',
        action: 'update',
        set: 'a = 1, b = excluded.b',
        where: 'k.x',
      },
      returning: 'a',
    },
  ],
  [
    'INSERT INTO kv DEFAULT VALUES ON CONFLICT DO NOTHING',
    { verb: 'insert', target: { name: 'kv' }, source: 'DEFAULT VALUES', onConflict: { action: 'nothing' } },
  ],
  [
    'INSERT INTO kv SELECT a FROM x JOIN y ON conflict.a = y.a ON CONFLICT ON CONSTRAINT z DO UPDATE SET a = 1',
    {
      verb: 'insert',
      target: { name: 'kv' },
      source: 'SELECT a FROM x JOIN y ON conflict.a = y.a',
      onConflict: { action: 'update', set: 'a = 1' },
    },
  ],
  [
    'INSERT INTO kv (VALUES (1)) RETURNING a',
    { verb: 'insert', target: { name: 'kv' }, source: '(VALUES (1))', returning: 'a' },
  ],
  ['INSERT INTO kv (SELECT 1)', { verb: 'insert', target: { name: 'kv' }, source: '(SELECT 1)' }],
];

t.test('each clause is found where it stands', async (t) => {
  for (const [text, places] of PLACES) {
    t.equal(parse(text).kind, 'parsed', `${text} parses`);
    t.strictSame(shown(text), { statement: text, ...places }, text);
  }
});

t.test('what is built in another way has no clauses', async (t) => {
  for (const text of [
    'SELECT 1 UNION SELECT 2',
    'SELECT a FROM kv EXCEPT ALL SELECT b FROM kv ORDER BY 1',
    '(SELECT 1)',
    'TABLE kv',
    'VALUES (1)',
    'BEGIN',
    '',
    'MERGE INTO kv USING x ON a = b WHEN MATCHED THEN DELETE',
  ]) {
    t.equal(findClauses(read(text).tokens), null, text);
  }
});

t.test('a query in brackets is read by the span between them', async (t) => {
  const text = "SELECT (SELECT a FROM x WHERE b = 'c' LIMIT 1) FROM kv WHERE d";
  const { tokens } = read(text);
  const inner = findClauses(tokens, { start: 2, end: 12 });
  t.strictSame(inner?.where?.body, { start: 7, end: 10 });
  t.strictSame(inner?.limit?.body, { start: 11, end: 12 });
});

t.test('tokens are those of Postgres', async (t) => {
  for (const text of [...CORPUS_TEXTS, ...PLACES.map(([place]) => place)]) {
    if (lexShape(text, true) === null || parse(text).kind !== 'parsed') continue;
    const { tokens } = read(text);
    const own = tokens.map(({ start, end, startByte }) => [text.slice(start, end), startByte]);
    const bytes = Buffer.from(text);
    const expected = scanTokens(text).map(({ startByte, endByte }) => [
      bytes.subarray(startByte, endByte).toString(),
      startByte,
    ]);
    t.strictSame(own, expected, text);
    for (const [index, token] of tokens.entries()) {
      if (tokenAtByte(tokens, token.startByte) !== index) t.fail(`token ${index} of ${text} is not found by its place`);
    }
  }
});

t.test('an operator ends where Postgres ends it', async (t) => {
  const symbols = (text: string) =>
    read(text)
      .tokens.filter(({ kind }) => kind === 'symbol')
      .map(({ folded }) => folded);
  t.strictSame(symbols('a*-1'), ['*', '-']);
  t.strictSame(symbols('a@-1'), ['@-']);
  t.strictSame(symbols('a=-+-1'), ['=', '-', '+', '-']);
  t.strictSame(symbols('a->>1::b'), ['->>', '::']);
  t.strictSame(symbols('a+/*x*/b*--c'), ['+', '*']);
  t.strictSame(symbols('a[1:2].b,(c)'), ['[', ':', ']', '.', ',', '(', ')']);
});

t.test('the text of a statement keeps its shape', async (t) => {
  let count = 0;
  for (const text of CORPUS_TEXTS) {
    const shape = lexShape(text, true);
    if (shape === null || parse(text).kind !== 'parsed') continue;
    count++;
    const { tokens, literals } = read(text);
    const same = render(spliceTokens(text, tokens, { start: 0, end: tokens.length }), literals);
    t.equal(lexShape(same, true)?.key, shape.key.trim(), text);
  }
  t.ok(count > 300);
});

t.test('edits stand apart from what is around them, and literals stay literals', async (t) => {
  const text = "SELECT-1,'a'\n'b' FROM kv WHERE x='y'-- end\n;";
  const { tokens, literals } = read(text);
  const all = { start: 0, end: tokens.length };
  const from = tokens.findIndex(({ folded }) => folded === 'from');
  const parts = spliceTokens(text, tokens, all, [
    { start: from + 3, end: from + 3, parts: ['('] },
    { start: from + 6, end: from + 6, parts: [') AND'] },
    { start: from + 6, end: from + 6, parts: ['true'] },
    { start: 1, end: 3, parts: ['$1'] },
  ]);
  t.strictSame(parts, ['SELECT $1 ,', 1, ' FROM kv WHERE ( x=', 2, ' ) AND true ;']);
  t.equal(render(parts, literals), "SELECT $1 ,'a'\n'b' FROM kv WHERE ( x='y' ) AND true ;");
  t.strictSame(joinParts('a', [], ['b', 0], '', [1]), ['a b', 0, ' ', 1]);
});

t.test('items of a list end at commas outside brackets', async (t) => {
  const text = 'a, f(b, c), ARRAY[1, 2], \'x,y\', "d,e"';
  const { tokens, literals } = read(text);
  const items = listItems(tokens, { start: 0, end: tokens.length });
  t.strictSame(
    items.map((item) => render(spliceTokens(text, tokens, item), literals)),
    ['a', 'f(b, c)', 'ARRAY[1, 2]', "'x,y'", '"d,e"'],
  );
  t.strictSame(listItems(tokens, { start: 3, end: 3 }), []);
});

t.test('clauses do not depend on blanks and comments', async () => {
  const blank = fc.constantFrom(' ', '\n', '\t /* a /* b */ WHERE */ ', ' -- FROM x\n');
  fc.assert(
    fc.property(fc.constantFrom(...PLACES), fc.array(blank, { minLength: 1, maxLength: 20 }), ([text], blanks) => {
      const { tokens } = read(text);
      let next = 0;
      const spaced = tokens
        .map(({ start, end }, index) => {
          const touches = tokens[index + 1]?.start === end;
          return text.slice(start, end) + (touches ? '' : blanks[next++ % blanks.length]);
        })
        .join('');
      assert.deepEqual(findClauses(read(spaced).tokens), findClauses(tokens));
    }),
  );
});
