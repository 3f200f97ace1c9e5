import fc from 'fast-check';
import t from 'tap';
import { isRefusal } from '../../../src/base/refusals.js';
import { explainsRoute, isKvFunction, renderText } from '../../../src/sql/keyed/kv-analysis.js';
import { parse } from '../../../src/sql/meaning/parse.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { find, literalsOf, planned, planOf, shownKeys } from './kv-planning.js';

const alive = (alias: string): string =>
  `("${alias}".ttl IS NULL OR "${alias}".ttl > pg_catalog.statement_timestamp())`;
const stamp = (alias: string): string =>
  `version = "${alias}".version + 1, updated_at = pg_catalog.statement_timestamp(),`;
const reaping = (where: string): string => `WITH "pgkv reaped" AS MATERIALIZED (DELETE FROM kv ${where} RETURNING 1)`;
const reaped = (value: string): string =>
  `CASE WHEN (SELECT pg_catalog.count(*) FROM "pgkv reaped") >= 0 THEN ${value} END`;
const reapOne = (tenant: string, key: string): string =>
  reaping(
    `WHERE tenant_id = (${tenant})::pg_catalog.text AND key = (${key})::pg_catalog.text AND ttl <= pg_catalog.statement_timestamp()`,
  );

/** Blanks inside brackets do not matter. */
const plain = (text: string): string =>
  text
    .replace(/\s+/g, ' ')
    .replace(/ ?([(),;]) ?/g, '$1')
    .trim();

/** Statements and the texts for a shard. */
const REWRITES: readonly (readonly [text: string, rewritten: string])[] = [
  ['SELECT * FROM kv', `SELECT * FROM kv WHERE ${alive('kv')}`],
  ['SELECT * FROM kv -- all', `SELECT * FROM kv WHERE ${alive('kv')}`],
  ['SELECT * FROM kv;', `SELECT * FROM kv WHERE ${alive('kv')};`],
  [
    "SELECT value -- x\n FROM public.kv/**/AS k WHERE k.key = 'a' OR version > 3 -- last\n",
    `SELECT value FROM public.kv AS k WHERE (k.key = 'a' OR version > 3) AND ${alive('k')}`,
  ],
  [
    'SELECT key AS where, kv.order FROM kv GROUP BY key, kv.order ORDER BY 1 LIMIT 3 OFFSET 1 FOR UPDATE OF kv',
    `SELECT key AS where, kv.order FROM kv WHERE ${alive('kv')} GROUP BY key, kv.order ORDER BY 1 LIMIT 3 OFFSET 1 FOR UPDATE OF kv`,
  ],
  [
    'SELECT count(*) FILTER (WHERE version > 1) FROM kv "Where" WHERE version = 1 HAVING count(*) > 1',
    `SELECT count(*) FILTER (WHERE version > 1) FROM kv "Where" WHERE (version = 1) AND ${alive('Where')} HAVING count(*) > 1`,
  ],
  ['(SELECT * FROM kv WHERE version = 1)', `(SELECT * FROM kv WHERE (version = 1) AND ${alive('kv')})`],
  [
    `SELECT "Odd ""name""".ttl FROM "Odd ""name"""`,
    `SELECT "Odd ""name""".ttl FROM "Odd ""name""" WHERE ${alive('Odd ""name""')}`,
  ],
  ['DELETE FROM kv', `DELETE FROM kv WHERE ${alive('kv')}`],
  ['DELETE FROM kv AS k RETURNING *', `DELETE FROM kv AS k WHERE ${alive('k')} RETURNING *`],
  [
    "DELETE FROM kv k WHERE key = 'a' AND version = 3 RETURNING k.*",
    `DELETE FROM kv k WHERE (key = 'a' AND version = 3) AND ${alive('k')} RETURNING k.*`,
  ],
  [
    "UPDATE kv SET value = '1' WHERE key = 'a'",
    `UPDATE kv SET ${stamp('kv')} value = '1' WHERE (key = 'a') AND ${alive('kv')}`,
  ],
  [
    'UPDATE public.kv AS set SET (value, ttl) = (value, NULL) RETURNING set.value',
    `UPDATE public.kv AS set SET ${stamp('set')} (value, ttl) = (value, NULL) WHERE ${alive('set')} RETURNING set.value`,
  ],
  [
    'UPDATE kv SET updated_at = now(), value = $1',
    `UPDATE kv SET version = "kv".version + 1, updated_at = now(), value = $1 WHERE ${alive('kv')}`,
  ],
  [
    'UPDATE kv SET value = $1, version = version + 1',
    `UPDATE kv SET value = $1, version = version + 1 WHERE ${alive('kv')}`,
  ],
  ['UPDATE kv SET (value, version) = ($1, 3)', `UPDATE kv SET (value, version) = ($1, 3) WHERE ${alive('kv')}`],
  [
    "INSERT INTO kv (tenant_id, key, value) VALUES ('a', $1, '1')",
    `${reapOne("'a'", '$1')} INSERT INTO kv (tenant_id, key, value) VALUES (${reaped("'a'")}, $1, '1')`,
  ],
  [
    "INSERT INTO kv VALUES ('a'::varchar, $1::text, DEFAULT) RETURNING *",
    `${reapOne("'a'::varchar", '$1::text')} INSERT INTO kv VALUES (${reaped("'a'::varchar")}, $1::text, DEFAULT) RETURNING *`,
  ],
  [
    "INSERT INTO kv (key, tenant_id) VALUES ('b', 'a') ON CONFLICT DO NOTHING",
    `${reapOne("'a'", "'b'")} INSERT INTO kv (key, tenant_id) VALUES ('b', ${reaped("'a'")}) ON CONFLICT DO NOTHING`,
  ],
  [
    "INSERT INTO kv (key, tenant_id) VALUES ('b', 'a') ON CONFLICT (key, tenant_id) DO NOTHING",
    `${reapOne("'a'", "'b'")} INSERT INTO kv (key, tenant_id) VALUES ('b', ${reaped("'a'")}) ON CONFLICT (key, tenant_id, slot) DO NOTHING`,
  ],
  [
    "INSERT INTO kv (key, tenant_id) VALUES ('b', 'a') ON CONFLICT (slot, key, tenant_id) DO NOTHING",
    `${reapOne("'a'", "'b'")} INSERT INTO kv (key, tenant_id) VALUES ('b', ${reaped("'a'")}) ON CONFLICT (slot, key, tenant_id) DO NOTHING`,
  ],
  [
    "INSERT INTO kv AS t (key, tenant_id, value) VALUES ('b', 'a', '1') ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value WHERE t.version = 3 RETURNING version",
    `${reapOne("'a'", "'b'")} INSERT INTO kv AS t (key, tenant_id, value) VALUES ('b', ${reaped("'a'")}, '1') ON CONFLICT (tenant_id, key, slot) DO UPDATE SET ${stamp('t')} value = excluded.value WHERE t.version = 3 RETURNING version`,
  ],
  [
    "INSERT INTO kv (key, tenant_id, version) VALUES ('b', 'a', 3) ON CONFLICT ON CONSTRAINT kv_pkey DO UPDATE SET version = excluded.version",
    `${reapOne("'a'", "'b'")} INSERT INTO kv (key, tenant_id, version) VALUES ('b', ${reaped("'a'")}, 3) ON CONFLICT ON CONSTRAINT kv_pkey DO UPDATE SET version = excluded.version`,
  ],
  [
    "INSERT INTO kv (tenant_id, key) VALUES ('a', $1), ($2, 'd')",
    `${reaping(
      `AS "pgkv old" USING (VALUES (('a')::pg_catalog.text, ($1)::pg_catalog.text), (($2)::pg_catalog.text, ('d')::pg_catalog.text)) AS "pgkv new"(tenant_id, key)
      WHERE "pgkv old".tenant_id = "pgkv new".tenant_id AND "pgkv old".key = "pgkv new".key AND "pgkv old".ttl <= pg_catalog.statement_timestamp()`,
    )} INSERT INTO kv (tenant_id, key) VALUES (${reaped("'a'")}, $1), ($2, 'd')`,
  ],
  ['EXPLAIN ANALYZE SELECT * FROM kv', `EXPLAIN ANALYZE SELECT * FROM kv WHERE ${alive('kv')}`],
  [
    "EXPLAIN (COSTS off) INSERT INTO kv (tenant_id, key) VALUES ('a', 'b')",
    `EXPLAIN (COSTS off) ${reapOne("'a'", "'b'")} INSERT INTO kv (tenant_id, key) VALUES (${reaped("'a'")}, 'b')`,
  ],
  ["EXPLAIN (ROUTE) DELETE FROM kv WHERE key = 'a'", `DELETE FROM kv WHERE (key = 'a') AND ${alive('kv')}`],
  ["SELECT /* kv */ kv_get('a', 'b') -- x", "SELECT kv_get('a', 'b')"],
  [
    "BEGIN; SET LOCAL lock_timeout = '1s'; SELECT 1; DELETE FROM kv WHERE (tenant_id, key) = ('a', 'b'); SELECT * FROM kv WHERE (tenant_id, key) = ('a', 'c'); COMMIT",
    `BEGIN; SET LOCAL lock_timeout = '1s'; SELECT 1; DELETE FROM kv WHERE ((tenant_id, key) = ('a', 'b')) AND ${alive('kv')}; SELECT * FROM kv WHERE ((tenant_id, key) = ('a', 'c')) AND ${alive('kv')}; COMMIT`,
  ],
];

t.test('every form of statement is rewritten for a shard', async (t) => {
  for (const [text, rewritten] of REWRITES) {
    const plan = planned(text);
    t.equal(plain(renderText(plan.text, text, literalsOf(text))), plain(rewritten), text);
  }
});

t.test('what a plan says besides keys and text', async (t) => {
  const KEYED = "WHERE tenant_id = 'a' AND key = 'b'";
  const PLANS: readonly (readonly [text: string, verb: string, writes: boolean, scatters: boolean])[] = [
    ['SELECT * FROM kv', 'select', false, true],
    ['SELECT * FROM kv FOR KEY SHARE', 'select', true, false],
    [`SELECT * FROM kv ${KEYED} FOR UPDATE`, 'select', true, false],
    [`UPDATE kv SET value = NULL ${KEYED}`, 'update', true, false],
    [`DELETE FROM kv ${KEYED}`, 'delete', true, false],
    ["INSERT INTO kv VALUES ('a', 'b')", 'insert', true, false],
    [`EXPLAIN SELECT * FROM kv ${KEYED}`, 'select', false, false],
    [`EXPLAIN DELETE FROM kv ${KEYED}`, 'delete', false, false],
    [`EXPLAIN (ANALYZE off) DELETE FROM kv ${KEYED}`, 'delete', false, false],
    [`EXPLAIN (ANALYZE, BUFFERS) DELETE FROM kv ${KEYED}`, 'delete', true, false],
    [`EXPLAIN ANALYZE VERBOSE DELETE FROM kv ${KEYED}`, 'delete', true, false],
    ['EXPLAIN (ROUTE) SELECT * FROM kv', 'select', false, true],
    [`SELECT * FROM kv ${KEYED}; DELETE FROM kv ${KEYED}`, 'select', true, false],
  ];
  for (const [text, verb, writes, scatters] of PLANS) {
    const plan = planned(text);
    t.same([plan.verb, plan.writes, !isRefusal(plan.scatter)], [verb, writes, scatters], text);
    t.equal(plan.explainRoute, text.includes('ROUTE'), text);
  }
  const several = planned(
    `INSERT INTO kv VALUES ('x', 'y'); INSERT INTO kv (tenant_id, key, slot) VALUES ('a', 'b', 7)`,
  );
  t.same(several.slots, [{ value: { kind: 'literal', index: 4 }, keyIndex: 1 }], 'slots keep their keys');
});

/** Statements that are refused, and words of the reason or the hint. */
const REFUSED: readonly (readonly [text: string, words: RegExp])[] = [
  ['SELECT * FROM kv, kv k', /joined/],
  ['SELECT * FROM kv JOIN t ON true', /joined/],
  ['SELECT * FROM kv, LATERAL jsonb_each(value)', /joined/],
  ['SELECT * FROM t, kv', /joined/],
  ['SELECT * FROM (SELECT * FROM kv) x', /subquery/],
  ['SELECT (SELECT count(*) FROM kv)', /subquery/],
  ['SELECT * FROM t WHERE a IN (SELECT key FROM kv)', /that table only/],
  ['SELECT (SELECT max(a) FROM t) FROM kv', /that table only/],
  ['SELECT * FROM kv WHERE key IN (SELECT key FROM kv)', /only once/],
  ['SELECT * FROM kv WHERE EXISTS (SELECT FROM pg_class)', /that table only/],
  ['DELETE FROM kv WHERE key IN (SELECT a FROM t)', /that table only/],
  ['UPDATE t SET a = (SELECT count(*) FROM kv)', /that table only/],
  ['INSERT INTO t SELECT * FROM kv', /that table only/],
  ["INSERT INTO kv VALUES ('a', 'b', (SELECT max(version) FROM kv))", /only once/],
  ['SELECT * FROM kv UNION SELECT * FROM kv', /UNION/],
  ['WITH x AS (SELECT 1) SELECT * FROM kv', /WITH/],
  ['WITH x AS (SELECT * FROM kv) SELECT 1', /WITH/],
  ['WITH x AS (DELETE FROM kv RETURNING *) SELECT * FROM x', /WITH/],
  ['WITH x AS (SELECT 1) DELETE FROM kv', /WITH/],
  ['SELECT * INTO t FROM kv', /INTO/],
  ['SELECT * FROM kv TABLESAMPLE system (10)', /TABLESAMPLE/],
  ['SELECT * FROM ONLY kv', /ONLY/],
  ['UPDATE ONLY kv SET value = NULL', /ONLY/],
  ['DELETE FROM ONLY (kv)', /ONLY/],
  ['SELECT * FROM kv AS k (a, b)', /new names/i],
  ['TABLE kv', /TABLE/],
  ['(SELECT * FROM kv) ORDER BY key', /parentheses/],
  ['UPDATE kv SET value = NULL FROM t', /UPDATE … FROM/],
  ['UPDATE kv SET value = NULL WHERE CURRENT OF c', /CURRENT OF/],
  ["UPDATE kv SET key = 'b'", /column key/],
  ["UPDATE kv SET value = NULL, tenant_id = 'b'", /column tenant_id/],
  ['UPDATE kv SET (value, slot) = (NULL, DEFAULT)', /column slot/],
  ['DELETE FROM kv USING t', /USING/],
  ['INSERT INTO kv DEFAULT VALUES', /DEFAULT VALUES/],
  ['INSERT INTO kv SELECT * FROM t', /INSERT … SELECT/],
  ["INSERT INTO kv SELECT 'a', 'b' UNION SELECT 'a', 'c'", /INSERT … SELECT/],
  ["INSERT INTO kv (key, value) VALUES ('a', 'b')", /tenant_id and key/],
  ["INSERT INTO kv VALUES ('a')", /tenant_id and key/],
  ["INSERT INTO kv VALUES ('a', lower('B'))", /known before/],
  ["INSERT INTO kv VALUES ('a', 'b' || 'c')", /known before/],
  ["INSERT INTO kv VALUES ('a', (SELECT 'b'))", /known before/],
  ["INSERT INTO kv VALUES ('a', DEFAULT)", /known before/],
  ["INSERT INTO kv VALUES ('a', 5)", /known before/],
  ["INSERT INTO kv VALUES ('a', 'b'::char(3))", /known before/],
  ['INSERT INTO kv VALUES ($1, $2, $3, to_jsonb($2::varchar))', /::text in each place/],
  ['INSERT INTO kv VALUES ($1, $2, $3, jsonb_build_object($2))', /::text in each place/],
  ["INSERT INTO kv (tenant_id, key, slot) VALUES ('a', 'b', 1 + 1)", /slot/],
  ["INSERT INTO kv (tenant_id, key, slot) VALUES ('a', 'b', -1)", /slot/],
  ["INSERT INTO kv (tenant_id, key, slot, version) VALUES ('a', 'b', $1, $1)", /slot/],
  ["INSERT INTO kv OVERRIDING USER VALUE VALUES ('a', 'b')", /OVERRIDING/],
  ["INSERT INTO kv VALUES ('a', 'b') LIMIT 1", /LIMIT/],
  ["INSERT INTO kv VALUES ('a', 'b') ON CONFLICT (key) DO NOTHING", /on their key/],
  ["INSERT INTO kv VALUES ('a', 'b') ON CONFLICT (tenant_id, key) WHERE version = 1 DO NOTHING", /on their key/],
  [`INSERT INTO kv VALUES ('a', 'b') ON CONFLICT (tenant_id, key COLLATE "C") DO NOTHING`, /on their key/],
  ["INSERT INTO kv VALUES ('a', 'b') ON CONFLICT (tenant_id, lower(key)) DO NOTHING", /on their key/],
  ["INSERT INTO kv VALUES ('a', 'b') ON CONFLICT (tenant_id, key) DO UPDATE SET key = 'c'", /column key/],
  ['MERGE INTO kv USING t ON true WHEN MATCHED THEN DELETE', /MERGE/],
  ['MERGE INTO t USING kv ON true WHEN MATCHED THEN DELETE', /MERGE|that table only/],
  ['COPY kv FROM STDIN', /COPY/],
  ['COPY (SELECT * FROM kv) TO STDOUT', /COPY/],
  ['TRUNCATE t, kv', /TRUNCATE/],
  ['LOCK TABLE kv', /LOCK/],
  ['DECLARE c CURSOR FOR SELECT * FROM kv', /Cursors/],
  ['PREPARE p AS SELECT * FROM kv', /PREPARE/],
  ['EXECUTE p((SELECT count(*) FROM kv))', /EXECUTE/],
  ['CREATE VIEW v AS SELECT * FROM kv', /Views/],
  ['CREATE TABLE t AS SELECT * FROM kv', /Tables made from/],
  ['EXPLAIN CREATE TABLE t AS SELECT * FROM kv', /Tables made from/],
  ['DO $$ BEGIN DELETE FROM kv; END $$', /DO block/],
  [`DO $$ BEGIN PERFORM "other"."blobs_get"('a', 'b'); END $$`, /DO block/],
  ['DO $$ BEGIN PERFORM count(*) FROM OTHER.blobs; END $$', /DO block/],
  ["CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM kv'", /function that names/],
  ['CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM kv; END', /function that names/],
  ["CALL kv_put('a', 'b', '1')", /CALL/],
  ['VACUUM kv', /VACUUM/],
  ['ANALYZE t, kv (key)', /VACUUM/],
  ['CREATE TABLE kv (a int)', /one shard only/],
  ['CREATE TABLE t (a text REFERENCES kv)', /one shard only/],
  ['CREATE TABLE t (LIKE kv)', /one shard only/],
  ['ALTER TABLE kv ADD COLUMN a int', /one shard only/],
  ['DROP TABLE t, public.kv', /one shard only/],
  ['CREATE INDEX ON kv (value)', /one shard only/],
  ['CREATE TRIGGER x AFTER INSERT ON kv EXECUTE FUNCTION f()', /one shard only/],
  ['DROP TRIGGER x ON kv', /one shard only/],
  ["COMMENT ON TABLE kv IS 'x'", /one shard only/],
  ["COMMENT ON COLUMN kv.key IS 'x'", /one shard only/],
  ['GRANT SELECT ON kv TO public', /one shard only/],
  ['DROP FUNCTION kv_get(text, text)', /one shard only/],
  ["SELECT pgkv.create_table('orders')", /one shard only/],
  ["BEGIN; SELECT 1 WHERE pgkv.drop_table('orders') IS NULL", /one shard only/],
  ['CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM kv', /one shard only/],
  ['CREATE PUBLICATION p FOR TABLE kv', /one shard only/],
  // Functions.
  ["SELECT kv_get('a', lower('B'))", /first two arguments/],
  ["SELECT kv_get('a')", /first two arguments/],
  ["SELECT kv_get(VARIADIC ARRAY['a', 'b'])", /first two arguments/],
  ["SELECT kv_get('a', g::text) FROM generate_series(1, 2) g", /first two arguments/],
  ["SELECT * FROM kv_get_many(ARRAY['a'], ARRAY['b', 'c'])", /first two arguments/],
  ["SELECT * FROM kv_get_many(ARRAY['a'], $1)", /first two arguments/],
  ["SELECT kv_get('a', 'b') FROM t", /names a table/],
  ["SELECT kv_get('a', 'b') FROM kv", /names a table/],
  ["UPDATE kv SET value = kv_get('a', 'b')", /names a table/],
  ["WITH x AS (SELECT 1) SELECT kv_get('a', 'b')", /WITH/],
  ["VALUES (kv_get('a', 'b'))", /plain SELECT/],
  ["SELECT kv_get('a', 'b') UNION ALL SELECT kv_get('a', 'c')", /plain SELECT/],
  // Several statements.
  ['SELECT * FROM kv; SELECT 1', /name its keys/],
  ["SELECT * FROM kv WHERE (tenant_id, key) = ('a', 'b'); SELECT * FROM t", /SELECTs that neither name a table/],
  ["DELETE FROM kv WHERE (tenant_id, key) = ('a', 'b'); CREATE TABLE t (a int)", /SELECTs that neither name a table/],
  ["DELETE FROM kv WHERE (tenant_id, key) = ('a', 'b'); PREPARE TRANSACTION 'x'", /SELECTs that neither name a table/],
  ['EXPLAIN (ROUTE) SELECT * FROM kv; SELECT 1', /stand alone/],
  ['SELECT 1; TRUNCATE kv', /TRUNCATE/],
];

t.test('what cannot be proven right is refused with a reason and a way out', async (t) => {
  for (const [text, words] of REFUSED) {
    const plan = planOf(text);
    if (plan?.kind !== 'refused') {
      t.fail(`planned: ${text}`, { plan });
      continue;
    }
    t.match(`${plan.reason} ${plan.hint}`, new RegExp(words.source, 'i'), text);
    t.match(plan.hint, /^[A-Z].*\.$/s, text);
  }
});

t.test('EXPLAIN (ROUTE) is known whatever it explains', async (t) => {
  const explains = (text: string) => {
    const parsed = parse(text);
    return parsed.kind === 'parsed' && explainsRoute(parsed.statements);
  };
  t.ok(explains('EXPLAIN (ROUTE) SELECT * FROM kv'));
  t.ok(explains('explain (costs off, Route true) SELECT 1'));
  t.ok(explains('EXPLAIN (ROUTE on) SELECT * FROM kv, kv k'));
  t.notOk(explains('EXPLAIN (ROUTE off) SELECT 1'));
  t.notOk(explains('EXPLAIN (ROUTE 0) SELECT 1'));
  t.notOk(explains('EXPLAIN SELECT 1'));
  t.notOk(explains('SELECT 1'));
  t.notOk(explains(''));
});

t.test('functions of key-value tables are known by their names', async (t) => {
  const is = (...path: string[]) => isKvFunction(path, find);
  t.ok(is('kv_get') && is('public', 'kv_put_many') && is('other', 'blobs_expire_at') && is('kv_slot'));
  t.notOk(
    is('get') || is('kv_gets') || is('blobs_get') || is('other', 'kv_get') || is('a', 'public', 'kv_get') || is(),
  );
});

/** Blanks of every kind, between any two tokens. */
const blanks = fc.constantFrom(' ', '\n', '\t ', ' /* x */', '/* a /* b */ */ ', ' -- x\n', '--\r');
const STRING = fc.constantFrom("'a'", "'it''s'", "E'x\\n'", '$$d$$', "$t$'$t$", "'é😀'", "'a'\n'b'");

t.test('texts of one shape have one plan', async (t) => {
  const TOKENS = [
    "SELECT value , '?' FROM public . kv AS k WHERE k . tenant_id = '?' AND ( key IN ( '?' , '?' ) OR version > 1 ) AND key = '?' ORDER BY key FOR UPDATE ;",
    "UPDATE kv SET value = '?' , ttl = NULL WHERE tenant_id = '?' AND key = '?' RETURNING *",
    "INSERT INTO kv ( tenant_id , key , value ) VALUES ( '?' , '?' , '?' ) , ( '?' , '?' , NULL ) ON CONFLICT ( tenant_id , key ) DO UPDATE SET value = '?'",
    "EXPLAIN ( ANALYZE ) DELETE FROM kv WHERE ( tenant_id , key ) = ( '?' , '?' )",
    "SELECT * FROM kv_cas ( '?' , '?' , 3 , '?' )",
  ].map((text) => text.split(' '));
  const text = (tokens: readonly string[]) => {
    const strings = tokens.filter((token) => token === "'?'").length;
    return fc
      .tuple(
        fc.array(blanks, { minLength: tokens.length, maxLength: tokens.length }),
        fc.array(STRING, { minLength: strings, maxLength: strings }),
      )
      .map(([gaps, values]) => {
        let next = 0;
        return tokens.map((token, index) => `${token === "'?'" ? values[next++] : token}${gaps[index]}`).join('');
      });
  };
  for (const tokens of TOKENS) {
    fc.assert(
      fc.property(text(tokens), text(tokens), (one, other) => {
        if (lexShape(one, true)?.key !== lexShape(other, true)?.key) throw new Error(`two shapes: ${one}\n${other}`);
        const [plan, otherPlan] = [planned(one), planned(other)];
        t.same(otherPlan, plan, one);
        const rewritten = renderText(plan.text, other, literalsOf(other));
        const parsed = parse(rewritten);
        if (parsed.kind === 'failed') throw new Error(`${parsed.message}: ${rewritten}`);
        t.equal(shownKeys(plan, other), shownKeys(otherPlan, other));
      }),
      { numRuns: 40 },
    );
  }
});

t.test('a text is planned for both readings of backslashes', async (t) => {
  const parsedText = "SELECT * FROM kv WHERE tenant_id =  E'a\\'b' AND key = 'c'";
  const clientText = "SELECT * FROM kv WHERE tenant_id = 'a\\'b' AND key = 'c'";
  const plan = planned(parsedText);
  t.equal(
    renderText(plan.text, clientText, literalsOf(clientText, false)),
    `SELECT * FROM kv WHERE ( tenant_id = 'a\\'b' AND key = 'c' ) AND ${alive('kv')}`,
  );
});

t.test('a statement that is nested deeply is planned or refused, never a crash', async (t) => {
  for (const depth of [100, 1_000, 4_000]) {
    const text = `SELECT * FROM kv WHERE tenant_id = 'a' AND key = 'b' AND version = ${'1+'.repeat(depth)}1`;
    const parsed = parse(text);
    if (parsed.kind === 'failed') continue;
    t.equal(shownKeys(planned(text), text), "'a' 'b'", `${depth}`);
  }
});
