// Classification must never promise too much: wherever in whatever statement a call stands that may do more, the template says so.
// Statements, places and calls are generated; what is asked is only whether a proof is missing that must be missing.
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { Effect, type Template } from '../../../src/sql/plan/template.js';
import { readTemplate } from '../../../src/sql/read-template.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';

await loadParser();
const templateOf = (text: string): Template => readTemplate(text, true, lexShape(text, true), 15).template;

/** Statements that run an expression. */
const STATEMENTS: readonly ((expression: string) => string)[] = [
  (e) => `SELECT ${e}`,
  (e) => `SELECT a FROM t WHERE ${e} IS NULL GROUP BY a HAVING max(b) = ${e} ORDER BY ${e}`,
  (e) => `SELECT * FROM t JOIN u ON (${e}) = u.a LIMIT (${e})::int`,
  (e) => `SELECT * FROM LATERAL (SELECT ${e} AS a) q, t`,
  (e) => `WITH x AS (SELECT ${e}) SELECT 1`,
  (e) => `WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT (${e})::int FROM x) TABLE x`,
  (e) => `VALUES (1), (${e})`,
  (e) => `SELECT 1 UNION SELECT ${e}`,
  (e) => `SELECT count(*) FILTER (WHERE (${e}) IS NULL) OVER (PARTITION BY ${e}) FROM t`,
  (e) => `INSERT INTO t VALUES (${e}) ON CONFLICT (a) DO UPDATE SET b = ${e} WHERE (${e}) IS NULL RETURNING ${e}`,
  (e) => `UPDATE t SET a = ${e} FROM u WHERE (${e}) IS NULL RETURNING *`,
  (e) => `DELETE FROM t USING u WHERE t.a = (${e})`,
  (e) => `MERGE INTO t USING u ON (${e}) = t.a WHEN MATCHED AND (${e}) IS NULL THEN UPDATE SET a = ${e}`,
  (e) => `EXPLAIN ANALYZE SELECT ${e}`,
  (e) => `EXPLAIN (ANALYZE) INSERT INTO t SELECT ${e}`,
  (e) => `DECLARE c CURSOR WITH HOLD FOR SELECT ${e}`,
  (e) => `CREATE TABLE x AS SELECT ${e}`,
  (e) => `CREATE MATERIALIZED VIEW x AS SELECT ${e}`,
  (e) => `SELECT ${e} INTO x`,
  (e) => `COPY (SELECT ${e}) TO STDOUT`,
  (e) => `COPY t FROM STDIN WHERE (${e}) IS NULL`,
  (e) => `ALTER TABLE t ALTER a TYPE text USING ${e}`,
  (e) => `ALTER TABLE t ADD COLUMN a text DEFAULT ${e}`,
  (e) => `ALTER TABLE t ADD CHECK ((${e}) IS NULL)`,
  (e) => `CREATE INDEX ON t ((${e}))`,
  (e) => `CALL p(${e})`,
  (e) => `EXECUTE p(${e})`,
];

/** Around an expression. */
const WRAPPINGS: readonly ((expression: string) => string)[] = [
  (e) => `(${e})`,
  (e) => `coalesce(NULL, ${e})`,
  (e) => `CASE WHEN true THEN (${e})::text END`,
  (e) => `(SELECT ${e})`,
  (e) => `(ARRAY[${e}])[1]`,
  (e) => `lower(VARIADIC ARRAY[${e}])`,
  (e) => `(ROW(${e})).f1`,
  (e) => `(jsonb_build_object('a', ${e}) ->> 'a')`,
  (e) => `greatest(${e}, 'x' COLLATE "C")`,
  (e) => `((${e}) IS DISTINCT FROM 'a')`,
];

const UNKNOWN: readonly string[] = [
  'f()',
  '"Set_Config"()',
  'app.set_config($1, $2, true)',
  'app.lower($1)',
  "query_to_xml('select f()', true, true, '')",
  '(1 OPERATOR(app.+) 2)',
  "json_value($1, '$')", // on 15 a user's
];
const ANY_SETTING: readonly string[] = [
  'set_config($1, $2, false)',
  `"set_config"('a' || 'b', 'c', false)`,
  `pg_catalog.set_config/**/(concat('app.', $1), 'c', false)`,
];
const KNOWN_SETTING: readonly (readonly [call: string, name: string])[] = [
  ["set_config('App.Uid', $1, false)", 'app.uid'],
  [`"set_config"('app.uid', 'c', true)`, 'app.uid'],
  ["pg_catalog.set_config('work_mem', '1MB', false)", 'work_mem'],
];

const placed = (calls: readonly string[]): fc.Arbitrary<string> =>
  fc
    .tuple(
      fc.constantFrom(...STATEMENTS),
      fc.array(fc.constantFrom(...WRAPPINGS), { maxLength: 4 }),
      fc.constantFrom(...calls),
      fc.constantFrom('', 'SELECT 1; ', "SET a.b = 'c'; "),
    )
    .map(([statement, wrappings, call, before]) => {
      return before + statement(wrappings.reduce((expression, wrap) => wrap(expression), call));
    });

function neverProven(t: Test, text: string): Template {
  const template = templateOf(text);
  if (template.kind === 'unparsed') t.fail(`not SQL: ${text}`);
  if (template.readOnly || template.neutral || template.releases) t.fail(`taken for harmless: ${text}`);
  return template;
}

t.test('code that cannot be read is unknown wherever it stands', async (t) => {
  fc.assert(
    fc.property(placed(UNKNOWN), (text) => {
      const { effects } = neverProven(t, text);
      if ((effects & Effect.unknown) === 0) t.fail(text);
    }),
    { numRuns: 1500 },
  );
  t.pass();
});

t.test('a setting by a computed name is any setting, one by a literal is that one', async (t) => {
  fc.assert(
    fc.property(placed(ANY_SETTING), (text) => {
      const { effects, settingNames } = templateOf(text);
      const isAny = (effects & Effect.settings) !== 0 && settingNames.includes('*');
      if (!isAny || (effects & Effect.sticky) === 0) t.fail(text);
    }),
    { numRuns: 1000 },
  );
  for (const [call, name] of KNOWN_SETTING) {
    fc.assert(
      fc.property(placed([call]), (text) => {
        const { effects, settingNames, textDependent } = templateOf(text);
        if ((effects & Effect.settings) === 0 || !settingNames.includes(name) || !textDependent) t.fail(text);
      }),
      { numRuns: 300 },
    );
  }
  t.pass();
});

t.test('settings are known however SET is spelt', async (t) => {
  const spellings = [
    'SET app.uid = 1',
    'SET "app".uid = 1',
    'SET "app"."uid" TO \'1\'',
    'SET/**/app.uid=1',
    'set session APP.Uid = default',
    'RESET "app".uid',
    'SET -- x\n app . uid = 1',
  ];
  for (const text of spellings) {
    const { kind, settingNames, effects } = templateOf(text);
    t.same([kind, settingNames, effects], ['set', ['app.uid'], Effect.settings], text);
  }
  for (const text of ["DO 'x'", 'CALL p()', 'EXECUTE x', 'EXPLAIN ANALYZE EXECUTE x', 'CREATE EXTENSION x']) {
    t.ok(templateOf(text).effects & Effect.unknown, text);
  }
});
