// What is planned for which statement. That the plans give Postgres's answers is test/integration/scatter-plan.test.ts's
// matter.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { isRefusal, type Refusal } from '../../../src/base/refusals.js';
import { loadParser, parse } from '../../../src/sql/meaning/parse.js';
import type { CombinePlan, SortedPlan } from '../../../src/sql/plan/kv-plan.js';
import { planScatter } from '../../../src/sql/scatter/scatter-plan.js';
import { findClauses } from '../../../src/sql/text/clauses.js';
import { LITERAL_STRIDE, lexShape } from '../../../src/sql/text/shape-lexer.js';
import type { TextParts } from '../../../src/sql/text/text-parts.js';
import { tokensOf } from '../../../src/sql/text/text-tokens.js';

await loadParser();

function planned(text: string): SortedPlan | CombinePlan | Refusal {
  const parsed = parse(text);
  const shape = lexShape(text, true);
  assert(parsed.kind === 'parsed' && shape !== null, `does not parse: ${text}`);
  const [statement] = parsed.statements;
  assert(statement !== undefined && 'SelectStmt' in statement.node, `no SELECT: ${text}`);
  const select = statement.node.SelectStmt;
  const tokens = tokensOf(text, shape.literals);
  const clauses = findClauses(tokens);
  assert(clauses !== null, `no clauses: ${text}`);
  const [from] = select.fromClause ?? [];
  const range = from !== undefined && 'RangeVar' in from ? from.RangeVar : {};
  const alias = range.alias?.aliasname ?? range.relname ?? '';
  const table = { schema: 'public', name: 'kv', valueType: 'jsonb' } as const;
  return planScatter({ text, tokens, clauses, select, alias, table, oldestServerMajor: 15 });
}

function rendered(text: string, parts: TextParts): string {
  const literals = lexShape(text, true)?.literals ?? [];
  const literal = (index: number) => text.slice(literals[index * LITERAL_STRIDE], literals[index * LITERAL_STRIDE + 1]);
  return parts.map((part) => (typeof part === 'number' ? literal(part) : part)).join('');
}

/** Short forms for what every plan has. */
const short = (text: string): string =>
  text
    .replaceAll(/\("(\w+)"\.ttl IS NULL OR "\1"\.ttl > pg_catalog\.statement_timestamp\(\)\)/g, '<$1 lives>')
    .replaceAll('"pgkv partial"', 'rows')
    .replaceAll(/"pgkv sort (\d)"/g, 's$1');

function merged(t: Test, text: string): SortedPlan {
  const plan = planned(text);
  assert(!isRefusal(plan) && plan.kind === 'sorted', `no merge: ${text}: ${JSON.stringify(plan)}`);
  t.equal(parse(rendered(text, plan.shardText)).kind, 'parsed', `shard text of ${text}`);
  return plan;
}

function combined(t: Test, text: string): CombinePlan {
  const plan = planned(text);
  assert(!isRefusal(plan) && plan.kind === 'combine', `no combine: ${text}: ${JSON.stringify(plan)}`);
  t.equal(parse(rendered(text, plan.shardText)).kind, 'parsed', `shard text of ${text}`);
  const final = rendered(text, plan.finalText)
    .replaceAll('{rows}', 'r')
    .replaceAll(/\{type:\d+\}/g, 'bigint')
    .replaceAll(/\{\d+\}/g, 'c');
  t.equal(parse(final).kind, 'parsed', `final text of ${text}`);
  return plan;
}

t.test('a shard leaves out what has expired, and sends sort keys and no more rows than needed', async (t) => {
  const table: readonly (readonly [text: string, shardText: string])[] = [
    ['SELECT * FROM kv', 'SELECT * FROM kv WHERE <kv lives>'],
    ['SELECT key FROM s.kv AS k WHERE a OR b;', 'SELECT key FROM s.kv AS k WHERE ( a OR b ) AND <k lives>'],
    ['SELECT key -- all\nFROM kv', 'SELECT key FROM kv WHERE <kv lives>'],
    [
      'SELECT * FROM kv ORDER BY tenant_id, key LIMIT 10',
      'SELECT * , ( "kv"."tenant_id" ) AS s0 , ( "kv"."key" ) AS s1 FROM kv WHERE <kv lives> ORDER BY s0 , s1 ' +
        'LIMIT ( 10 )::bigint',
    ],
    [
      'SELECT key FROM kv ORDER BY version DESC NULLS LAST, slot ASC NULLS FIRST, ttl DESC LIMIT 3 OFFSET 4',
      'SELECT key , ( version ) AS s0 , ( slot ) AS s1 , ( ttl ) AS s2 FROM kv WHERE <kv lives> ' +
        'ORDER BY s0 DESC NULLS LAST , s1 NULLS FIRST , s2 DESC LIMIT ( 3 )::bigint + ( 4 )::bigint',
    ],
    [
      'SELECT lower(key) AS key, slot FROM kv ORDER BY key, 2',
      'SELECT lower(key) AS key, slot , ( lower(key) ) AS s0 , ( slot ) AS s1 FROM kv WHERE <kv lives> ORDER BY s0 , s1',
    ],
    [
      'SELECT lower(key) AS key FROM kv ORDER BY kv.key',
      'SELECT lower(key) AS key , ( kv.key ) AS s0 FROM kv WHERE <kv lives> ORDER BY s0',
    ],
    ['SELECT FROM kv ORDER BY key', 'SELECT ( key ) AS s0 FROM kv WHERE <kv lives> ORDER BY s0'],
    ['SELECT key FROM kv ORDER BY random()', 'SELECT key , ( random() ) AS s0 FROM kv WHERE <kv lives> ORDER BY s0'],
    ['SELECT key FROM kv LIMIT ALL OFFSET 7', 'SELECT key FROM kv WHERE <kv lives>'],
    ['SELECT key FROM kv FETCH FIRST 3 ROWS ONLY', 'SELECT key FROM kv WHERE <kv lives> LIMIT ( 3 )::bigint'],
    [
      'SELECT key FROM kv OFFSET $1::int',
      'SELECT key FROM kv WHERE <kv lives> ' +
        'OFFSET CASE WHEN ($1::int4::bigint) < 0 THEN ($1::int4::bigint) ELSE 0 END',
    ],
    ['SELECT key FROM kv LIMIT $2', 'SELECT key FROM kv WHERE <kv lives> LIMIT ($2::bigint)'],
  ];
  for (const [text, shardText] of table) {
    t.equal(short(rendered(text, merged(t, text).shardText)), shardText, text);
  }
});

t.test('sort keys say how to compare, and whether text needs an order the router has', async (t) => {
  const keyOf = (order: string) => {
    const { sortKeys } = merged(t, `SELECT * FROM kv ORDER BY ${order}`);
    const [key] = sortKeys;
    return [key?.descending, key?.nullsFirst, key?.needsByteOrder];
  };
  t.strictSame(keyOf('key'), [false, false, false]);
  t.strictSame(keyOf('kv.tenant_id ASC'), [false, false, false]);
  t.strictSame(keyOf('key DESC'), [true, true, false]);
  t.strictSame(keyOf('key DESC NULLS LAST'), [true, false, false]);
  t.strictSame(keyOf('key NULLS FIRST'), [false, true, false]);
  t.strictSame(keyOf('version'), [false, false, false]);
  t.strictSame(keyOf("value->>'name'"), [false, false, true]);
  t.strictSame(keyOf('value->>\'name\' COLLATE "C"'), [false, false, false]);
  t.strictSame(keyOf('(value->>\'name\') COLLATE "POSIX" DESC'), [true, true, false]);
  t.strictSame(keyOf('(value->>\'name\') COLLATE "default"'), [false, false, true]);
  t.strictSame(keyOf("(value->>'n')::numeric"), [false, false, false]);
  t.strictSame(keyOf("(value->>'n')::text"), [false, false, true]);
  t.strictSame(keyOf("(value->>'n')::int[]"), [false, false, true]);
  t.strictSame(keyOf('length(key)'), [false, false, false]);
  t.strictSame(keyOf('some_new_column'), [false, false, true]);
});

t.test('LIMIT and OFFSET are handed to who merges', async (t) => {
  const limitsOf = (text: string) => {
    const { limit, offset } = merged(t, text);
    return [limit, offset];
  };
  t.strictSame(limitsOf("SELECT 'a' FROM kv WHERE slot = 5 LIMIT 3 OFFSET 4"), [
    { kind: 'literal', index: 2 },
    { kind: 'literal', index: 3 },
  ]);
  t.strictSame(limitsOf('SELECT key FROM kv OFFSET $2 ROWS FETCH NEXT $1 ROWS ONLY'), [
    { kind: 'parameter', number: 1 },
    { kind: 'parameter', number: 2 },
  ]);
  t.strictSame(limitsOf('SELECT key FROM kv LIMIT CAST($3 AS smallint)'), [{ kind: 'parameter', number: 3 }, null]);
  t.strictSame(limitsOf('SELECT key FROM kv LIMIT ALL'), [null, null]);
});

t.test('aggregates are computed on the shards and put together at home', async (t) => {
  const table: readonly (readonly [text: string, shardText: string, finalText: string, roles: string])[] = [
    [
      'SELECT count(*) FROM kv',
      'SELECT count(*) FROM kv WHERE <kv lives>',
      'WITH rows AS (SELECT {0} AS "p0" FROM {rows}) ' +
        'SELECT COALESCE(pg_catalog.sum(rows."p0"), 0)::bigint AS "count" FROM rows',
      'count',
    ],
    [
      "SELECT k.tenant_id, max(key), sum(slot) + 1 AS n FROM kv k WHERE slot > 5 GROUP BY 1 HAVING max(key) > 'a' " +
        'ORDER BY n DESC, k.tenant_id LIMIT 3',
      'SELECT "k"."tenant_id" , max(key) , sum(slot) FROM kv k WHERE ( slot > 5 ) AND <k lives> GROUP BY "k"."tenant_id"',
      'WITH rows AS (SELECT ({0}) COLLATE "C" AS "p0", ({1}) COLLATE "C" AS "p1", {2} AS "p2" FROM {rows}) ' +
        'SELECT rows."p0" AS "tenant_id" , pg_catalog.max(rows."p1") AS "max" , ' +
        'pg_catalog.sum(rows."p2")::{type:2} + 1 AS "n" FROM rows GROUP BY rows."p0" ' +
        'HAVING pg_catalog.max(rows."p1") > \'a\' ORDER BY n DESC , rows."p0" LIMIT 3',
      'group max sum',
    ],
    [
      "SELECT avg(slot) FILTER (WHERE key <> 'x'), avg(slot) FILTER (WHERE key <> 'x') FROM kv",
      "SELECT pg_catalog.sum (slot) FILTER (WHERE key <> 'x') , pg_catalog.count (slot) FILTER (WHERE key <> 'x') " +
        ", pg_catalog.sum (slot) FILTER (WHERE key <> 'x') , pg_catalog.count (slot) FILTER (WHERE key <> 'x') " +
        'FROM kv WHERE <kv lives>',
      'WITH rows AS (SELECT {0} AS "p0", {1} AS "p1", {2} AS "p2", {3} AS "p3" FROM {rows}) ' +
        'SELECT (pg_catalog.sum(rows."p0") / NULLIF(pg_catalog.sum(rows."p1"), 0)) AS "avg" , ' +
        '(pg_catalog.sum(rows."p2") / NULLIF(pg_catalog.sum(rows."p3"), 0)) AS "avg" FROM rows',
      'sum count sum count',
    ],
    [
      'SELECT count(*), count(*) FROM kv HAVING count(*) > $1',
      'SELECT count(*) , $1::"pg_catalog"."int8" FROM kv WHERE <kv lives>',
      'WITH rows AS (SELECT {0} AS "p0", {1} AS "p1" FROM {rows}) ' +
        'SELECT COALESCE(pg_catalog.sum(rows."p0"), 0)::bigint AS "count" , ' +
        'COALESCE(pg_catalog.sum(rows."p0"), 0)::bigint AS "count" FROM rows ' +
        'HAVING COALESCE(pg_catalog.sum(rows."p0"), 0)::bigint > (SELECT "p1" FROM rows LIMIT 1)',
      'count parameter',
    ],
    [
      'SELECT 1 FROM kv HAVING true',
      'SELECT count(*) FROM kv WHERE <kv lives>',
      'WITH rows AS (SELECT {0} AS "p0" FROM {rows}) SELECT 1 AS "?column?" FROM rows HAVING true',
      'count',
    ],
  ];
  for (const [text, shardText, finalText, roles] of table) {
    const plan = combined(t, text);
    t.equal(short(rendered(text, plan.shardText)), shardText, text);
    t.equal(short(rendered(text, plan.finalText)), finalText, text);
    t.equal(plan.partials.map(({ role }) => role).join(' '), roles, text);
  }
});

t.test('the home server never sees a parameter of the client', async (t) => {
  for (const text of [
    'SELECT tenant_id, count(*) FROM kv WHERE version > $1 GROUP BY tenant_id LIMIT $2 OFFSET $3',
    'SELECT count(*) FILTER (WHERE key = $1) + $2::int, CAST($3 AS text) FROM kv',
    "SELECT sum(version) FROM kv HAVING count(*) >= $1 AND $2::text = 'x' ORDER BY $1::bigint",
  ]) {
    t.notMatch(rendered(text, combined(t, text).finalText), /\$\d/, text);
  }
});

const REFUSED: readonly (readonly [text: string, detail: RegExp])[] = [
  ['SELECT DISTINCT key FROM kv', /^DISTINCT cannot/],
  ['SELECT DISTINCT ON (key) key FROM kv ORDER BY key', /^DISTINCT cannot/],
  ['WITH x AS (SELECT 1) SELECT key FROM kv', /^WITH/],
  ['SELECT a.key FROM kv a JOIN kv b ON a.key = b.key', /join/],
  ['SELECT key FROM kv, kv AS other', /join/],
  ['SELECT key FROM kv TABLESAMPLE system (10)', /join/],
  ['SELECT x FROM kv AS k (x)', /other names/],
  ['SELECT key FROM kv FOR UPDATE', /FOR UPDATE/],
  ['SELECT key FROM kv ORDER BY key LIMIT 1 FOR SHARE SKIP LOCKED', /FOR UPDATE/],
  ['SELECT key INTO other FROM kv', /SELECT INTO/],
  ['SELECT row_number() OVER (ORDER BY key) FROM kv', /window function/],
  ['SELECT sum(version) OVER w FROM kv WINDOW w AS (PARTITION BY key)', /WINDOW/],
  ['SELECT key FROM kv WHERE version = (SELECT max(version) FROM kv)', /subquery/],
  ['SELECT (SELECT 1) FROM kv', /subquery/],
  ['SELECT key FROM kv ORDER BY EXISTS (SELECT 1)', /subquery/],
  ['SELECT key FROM kv LIMIT (SELECT 1)', /subquery/],
  ['SELECT key FROM kv LIMIT 1 + 1', /LIMIT or OFFSET by an expression/],
  ['SELECT key FROM kv LIMIT -1', /LIMIT or OFFSET by an expression/],
  ["SELECT key FROM kv LIMIT '5'", /LIMIT or OFFSET by an expression/],
  ['SELECT key FROM kv LIMIT 5000000000', /LIMIT or OFFSET by an expression/],
  ['SELECT key FROM kv LIMIT $1::text::int', /LIMIT or OFFSET by an expression/],
  ['SELECT key FROM kv LIMIT $1::numeric', /LIMIT or OFFSET by an expression/],
  ['SELECT key FROM kv FETCH FIRST ROW ONLY', /LIMIT or OFFSET by an expression/],
  ['SELECT key FROM kv ORDER BY key FETCH FIRST 3 ROWS WITH TIES', /WITH TIES/],
  ['SELECT key FROM kv ORDER BY key USING <', /USING/],
  ['SELECT key FROM kv ORDER BY key COLLATE "en_US"', /another collation/],
  ['SELECT key FROM kv ORDER BY lower(key COLLATE "de-x-icu")', /another collation/],
  ['SELECT max(key COLLATE "de-x-icu") FROM kv', /another collation/],
  ["SELECT key FROM kv ORDER BY (value->>'d')::my_domain", /cast to my_domain/],
  ['SELECT key FROM kv ORDER BY 2', /no number of a column/],
  ['SELECT key FROM kv ORDER BY 0', /no number of a column/],
  ['SELECT key FROM kv ORDER BY -1', /no number of a column/],
  ["SELECT key FROM kv ORDER BY 'key'", /no number of a column/],
  ['SELECT *, 1 FROM kv ORDER BY 8', /no number of a column/],
  ['SELECT *, lower(key) AS key FROM kv ORDER BY key', /several output columns/],
  ['SELECT random() AS r FROM kv ORDER BY r', /volatile/],
  ['SELECT random() FROM kv ORDER BY random()', /volatile/],
  ["SELECT nextval('s'), key FROM kv", /function nextval/],
  ["SELECT set_config('a.b', key, false) FROM kv", /function set_config/],
  ['SELECT key FROM kv WHERE my_function(key)', /function my_function/],
  ['SELECT key FROM kv WHERE s.lower(key)', /function s\.lower/],
  ["SELECT pg_relation_size('kv') FROM kv", /tells about one server/],
  ["SELECT table_to_xml('kv', true, true, '') FROM kv", /tells about one server/],
  ['SELECT version OPERATOR(s.+) 1 FROM kv', /operator/],
  ['SELECT ctid FROM kv', /system column/],
  ['SELECT key FROM kv WHERE kv.xmin IS NULL', /system column/],
  ['SELECT xmlelement(name a) FROM kv', /XmlExpr/],
  ['SELECT key AS U&"!0041" UESCAPE \'!\' FROM kv', /UESCAPE/],
  ['SELECT count(DISTINCT tenant_id) FROM kv', /aggregate count/],
  ['SELECT array_agg(key) FROM kv', /aggregate array_agg/],
  ["SELECT string_agg(key, ',' ORDER BY key) FROM kv", /aggregate string_agg/],
  ['SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY version) FROM kv', /aggregate percentile_cont/],
  ['SELECT stddev(version) FROM kv', /aggregate stddev/],
  ['SELECT avg(version::real) FROM kv', /avg over real/],
  ['SELECT avg(float4(version)) FROM kv', /avg over real/],
  ['SELECT avg(version::money) FROM kv', /avg over money/],
  ['SELECT avg(random()) FROM kv', /avg over a volatile/],
  ['SELECT min(lower(key)) FROM kv', /min or max over an expression/],
  ['SELECT max(kv) FROM kv', /min or max over an expression/],
  ['SELECT key, count(*) FROM kv', /^key, which is neither/],
  ['SELECT tenant_id, kv.key, count(*) FROM kv GROUP BY tenant_id', /^kv\.key, which is neither/],
  ['SELECT count(*) FROM kv GROUP BY tenant_id ORDER BY key', /^key, which is neither/],
  ['SELECT *, count(*) FROM kv GROUP BY tenant_id', /^\* together/],
  ["SELECT count(*) FROM kv GROUP BY value->>'name'", /^GROUP BY anything but/],
  ["SELECT value->>'name' AS n, count(*) FROM kv GROUP BY n", /^GROUP BY anything but/],
  ['SELECT count(*) FROM kv GROUP BY 1', /^GROUP BY anything but/],
  ['SELECT lower(key) AS k, count(*) FROM kv GROUP BY 1', /^GROUP BY anything but/],
  ['SELECT count(*) FROM kv GROUP BY ROLLUP (tenant_id)', /^GROUPING SETS/],
  ['SELECT count(*) FROM kv GROUP BY ()', /^GROUPING SETS/],
  ['SELECT count(*) FROM kv GROUP BY DISTINCT tenant_id', /^GROUP BY DISTINCT/],
  ['SELECT count(*) + $1 FROM kv', /parameter \$1 beside an aggregate/],
  ['SELECT sum(version) FROM kv HAVING sum(version) > $2', /parameter \$2 beside an aggregate/],
  ['SELECT count(*) AS "{0}" FROM kv', /column called \{0\}/],
  ['SELECT count(*) AS "{type:1}" FROM kv', /column called/],
];

t.test('what is not proven right is refused with a reason and a way out', async (t) => {
  for (const [text, detail] of REFUSED) {
    const plan = planned(text);
    assert(isRefusal(plan), `not refused: ${text}`);
    t.match(plan.reason, new RegExp(detail.source, 'i'), text);
    t.match(plan.reason, / cannot be answered from several shards$/, text);
    t.match(plan.hint, /^[A-Z].*\.$/, `hint for ${text}`);
  }
});

t.test('a plan holds for every text of its shape', async () => {
  const string = fc.oneof(
    fc.string({ maxLength: 6 }).map((value) => `'${value.replaceAll('\0', '').replaceAll("'", "''")}'`),
    fc.constantFrom("'a'\n'b'", '$$x$$', "$q$it's$q$", "E'\\n'", "'{0}'", "'{rows}'"),
  );
  const integer = fc.oneof(fc.nat().map(String), fc.constantFrom('0x1F', '1_000', '0'));
  const templates: readonly ((s: readonly string[], i: readonly string[]) => string)[] = [
    (s, i) =>
      `SELECT key, ${s[0]} AS x FROM kv WHERE key > ${s[1]} ORDER BY value->>${s[2]}, slot LIMIT ${i[0]} OFFSET ${i[1]}`,
    (s, i) => `SELECT *, ${i[0]} - - ${i[1]} FROM kv WHERE key IN (${s[0]}, ${s[1]} ) ORDER BY slot % ${i[2]} DESC`,
    (s, i) => `SELECT tenant_id, sum(slot * ${i[0]}) + ${i[1]}, min(value->>${s[0]}) FROM kv WHERE key < ${s[1]}
       GROUP BY tenant_id HAVING max(key) > ${s[2]} OR count(*) > ${i[2]} ORDER BY sum(slot * ${i[3]}) LIMIT ${i[0]}`,
    (s, i) => `SELECT count(*) FILTER (WHERE key = ${s[0]} ), avg(slot - ${i[0]}), ${s[1]} || count(*) FROM kv`,
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...templates),
      ...([0, 1].flatMap(
        () =>
          [
            fc.array(string, { minLength: 3, maxLength: 3 }),
            fc.array(integer, { minLength: 4, maxLength: 4 }),
          ] as const,
      ) as [fc.Arbitrary<string[]>, fc.Arbitrary<string[]>, fc.Arbitrary<string[]>, fc.Arbitrary<string[]>]),
      (template, strings, integers, otherStrings, otherIntegers) => {
        const one = template(strings, integers);
        const other = template(otherStrings, otherIntegers);
        assert.equal(lexShape(one, true)?.key, lexShape(other, true)?.key);
        const plan = planned(one);
        assert(!isRefusal(plan), one);
        assert.deepEqual(plan, planned(other));
        // The literals of the other text, in the plan of the one, give what the other's own plan gives; and it parses.
        const texts = plan.kind === 'sorted' ? [plan.shardText] : [plan.shardText, plan.finalText];
        for (const parts of texts) {
          const text = rendered(
            other,
            parts.map((part) => (typeof part === 'number' ? part : part.replaceAll(/[{}:]/g, ''))),
          );
          assert.notEqual(lexShape(text, true), null);
        }
      },
    ),
  );
});

/** now() and its kin as the shards get them. */
const timed = (text: string): string =>
  text.replaceAll('::pg_catalog.timestamptz', '').replaceAll('$65534', '$NOW').replaceAll('$65535', '$STATEMENT');

t.test('the time is one for all shards, under the name its column has', async (t) => {
  const lives = '("kv".ttl IS NULL OR "kv".ttl > $STATEMENT)';
  for (const [text, shardText] of [
    ['select now() from kv', `SELECT $NOW AS "now" from kv WHERE ${lives}`],
    [
      'select pg_catalog . now ( ) , statement_timestamp() s from kv',
      `SELECT $NOW AS "now" , $STATEMENT s from kv WHERE ${lives}`,
    ],
    ['select current_timestamp(3) from kv', `SELECT $NOW(3) AS "current_timestamp" from kv WHERE ${lives}`],
    [
      'select localtime(1)::text from kv',
      `SELECT $NOW::pg_catalog.time(1)::text AS "localtime" from kv WHERE ${lives}`,
    ],
    ['select current_date + 1 from kv', `SELECT $NOW::pg_catalog.date + 1 AS "?column?" from kv WHERE ${lives}`],
    [
      'select age(updated_at), key from kv where ttl < now() - $1::interval',
      `SELECT age($NOW::pg_catalog.date, updated_at) AS "age", key from kv where ( ttl < $NOW - $1::interval ) AND ${lives}`,
    ],
  ] as const) {
    const plan = merged(t, text);
    t.equal(plan.hasInstant, true);
    t.equal(timed(rendered(text, plan.shardText)).replaceAll(/\s+/g, ' '), shardText.replaceAll(/\s+/g, ' '), text);
  }
  const plan = combined(t, `select now() - max(updated_at), 'now()' from kv having max(ttl) < now()`);
  t.equal(plan.hasInstant, true);
  t.match(timed(rendered('', plan.shardText)), /\$NOW/);
  t.notMatch(plan.finalText.join(' '), /\bnow\b *\(/, 'the home server does not look at its clock again');
});

t.test('what asks for no time is planned as it was', async (t) => {
  for (const text of [
    `select 'now()', "now", key /* now() */ from kv where key = 'current_date'`,
    "select clock_timestamp(), key as now, date_trunc('day', updated_at) from kv",
    'select age(updated_at, ttl) from kv',
    'select $65534::int, now() from kv',
  ]) {
    t.equal(merged(t, text).hasInstant, undefined, text);
  }
});
