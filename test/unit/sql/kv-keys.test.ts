import t from 'tap';
import { planned, planOf, shownKeys } from './kv-planning.js';

/** WHERE, and the keys it names: see shownKeys(). `-`: not by key. */
const WHERES: readonly (readonly [where: string, keys: string])[] = [
  ["tenant_id = 'a' AND key = 'b'", "'a' 'b'"],
  ['tenant_id = $1 AND key = $2', '$1 $2'],
  ["$2 = key AND 'a' = tenant_id", "'a' $2"],
  ["version > 3 AND (key = 'b' AND (tenant_id = 'a' AND value IS NOT NULL))", "'a' 'b'"],
  ["kv.tenant_id = 'a' AND public.kv.key = 'b'", "'a' 'b'"],
  [`"tenant_id" = 'a' AND "kv"."key" = 'b'`, "'a' 'b'"],
  ["TENANT_ID = 'a' AND Key = 'b'", "'a' 'b'"],
  ["tenant_id OPERATOR(pg_catalog.=) 'a' AND key = 'b'", "'a' 'b'"],
  // Values.
  ["tenant_id = 'a'::text AND key = CAST($1 AS text)", "'a' $1"],
  ["tenant_id = 'a'::pg_catalog.text AND key = text 'b'", "'a' 'b'"],
  ["tenant_id = 'a'::varchar AND key = $1::character varying", "'a' $1"],
  ["tenant_id = E'a\\n' AND key = $x$b$x$", "E'a\\n' $x$b$x$"],
  ["tenant_id::text = 'a' AND key = ('b')", "'a' 'b'"],
  [`tenant_id = 'a' COLLATE "C" AND key COLLATE "C" = $1::text COLLATE pg_catalog."C"`, "'a' $1"],
  ["tenant_id = 'it''s' AND key = ''", "'it''s' ''"],
  // Lists.
  ["tenant_id = 'a' AND key IN ('b', $1, NULL, 'c'::text)", "'a' 'b', 'a' $1, 'a' 'c'"],
  ["tenant_id IN ('a', 'b') AND key IN ('c', 'd')", "'a' 'c', 'a' 'd', 'b' 'c', 'b' 'd'"],
  ["tenant_id = 'a' AND key = ANY($1)", "'a' ANY $1"],
  ["tenant_id = 'a' AND key = SOME($1::text[])", "'a' ANY $1"],
  ["tenant_id IN ('a', 'b') AND key = ANY('{c,d}'::varchar[])", "'a' ANY '{c,d}', 'b' ANY '{c,d}'"],
  ["tenant_id = ANY(ARRAY['a']) AND key = ANY(ARRAY['b', $1]::text[])", "'a' 'b', 'a' $1"],
  ["(tenant_id, key) = ('a', 'b')", "'a' 'b'"],
  ["(version, key, tenant_id) = (1, 'b', 'a')", "'a' 'b'"],
  ["ROW('b', 'a') = ROW(key, tenant_id)", "'a' 'b'"],
  ["(tenant_id, key) IN (('a', 'b'), ($1, $2), ('a', NULL))", "'a' 'b', $1 $2"],
  ["(key, version, tenant_id) IN (('b', 1, 'a'))", "'a' 'b'"],
  ["tenant_id = 'a' AND (key, version) IN (('b', 1), ('c', version))", "'a' 'b', 'a' 'c'"],
  // Several conditions on a column: the narrowest.
  ["tenant_id = 'a' AND tenant_id = 'b' AND key = 'c'", "'b' 'c'"],
  ["tenant_id = 'a' AND key IN ('b', 'c') AND key = 'd'", "'a' 'd'"],
  ["tenant_id = 'a' AND key = ANY($1) AND key IN ('b', 'c')", "'a' 'b', 'a' 'c'"],
  ["tenant_id = 'a' AND (tenant_id, key) IN (('a', 'b'), ('c', 'd'))", "'a' 'b', 'c' 'd'"],
  // Nothing can match.
  ["tenant_id = NULL AND key = 'b'", ''],
  ["tenant_id = 'a' AND key IN (NULL)", ''],
  ["tenant_id = 'a' AND key = ANY(NULL::text[])", ''],
  ["(tenant_id, key) = ('a', NULL::text)", ''],
  // Not by key.
  ["tenant_id = 'a'", '-'],
  ["key = 'a'", '-'],
  ["tenant_id = 'a' AND key LIKE 'b'", '-'],
  ["tenant_id = 'a' AND key > 'b'", '-'],
  ["tenant_id = 'a' AND key <> 'b'", '-'],
  ["tenant_id = 'a' AND key NOT IN ('b')", '-'],
  ["tenant_id = 'a' AND key <> ALL(ARRAY['b'])", '-'],
  ["tenant_id = 'a' AND key = ALL(ARRAY['b'])", '-'],
  ["tenant_id = 'a' AND NOT key = 'b'", '-'],
  ["tenant_id = 'a' OR key = 'b'", '-'],
  ["tenant_id = 'a' AND key = 'b' OR version = 1", '-'],
  ["(tenant_id = 'a' AND key = 'b') OR (tenant_id = 'a' AND key = 'c')", '-'],
  ["(tenant_id = 'a' AND key = 'b') IS TRUE", '-'],
  ["(tenant_id, key) > ('a', 'b')", '-'],
  ["(tenant_id, key) <> ('a', 'b')", '-'],
  ["(tenant_id, key) NOT IN (('a', 'b'))", '-'],
  ["tenant_id = ANY($1) AND key = 'b'", '-'],
  ["tenant_id = 'a' AND 'b' = ANY(ARRAY[key])", '-'],
  ["tenant_id = 'a' AND value.key = 'b'", '-'],
  ["tenant_id = 'a' AND (SELECT key = 'b')", '-'],
  // Casts and functions that may change the bytes.
  ["tenant_id = 'a' AND key = 'b'::varchar(1)", '-'],
  ["tenant_id = 'a' AND key = 'b'::char(3)", '-'],
  ["tenant_id = 'a' AND key = 'b'::bpchar::text", '-'],
  ["tenant_id = 'a' AND key = $1::name", '-'],
  ["tenant_id = 'a' AND key = $1::public.text", '-'],
  ["tenant_id = 'a' AND key = N'b'", '-'],
  ["tenant_id = 'a' AND key = $1::int::text", '-'],
  ["tenant_id = 'a' AND key::char(3) = 'b'", '-'],
  ["tenant_id = 'a' AND key = lower('B')", '-'],
  ["tenant_id = 'a' AND key = 'b' || 'c'", '-'],
  ["tenant_id = 'a' AND key = (SELECT 'b')", '-'],
  ["tenant_id = 'a' AND key = 5", '-'],
  ["tenant_id = 'a' AND key = B'1'", '-'],
  ["tenant_id = 'a' AND key IN ('b', lower('C'))", '-'],
  ["tenant_id = 'a' AND key = ANY(ARRAY['b', lower('C')])", '-'],
  ["tenant_id = 'a' AND key = ANY(string_to_array($1, ','))", '-'],
  ["tenant_id = 'a' AND key = ANY('{b}'::bpchar[])", '-'],
  ["tenant_id = 'a' AND key = ANY('{b}'::varchar(1)[])", '-'],
  [`tenant_id = 'a' AND key = 'b' COLLATE "en_US"`, '-'],
  [`tenant_id = 'a' AND key COLLATE "en_US" = 'b'`, '-'],
  // Values that take more than unquoting: the parser's.
  ["tenant_id = 'a' AND key = U&'\\0062'", "'a' U&'\\0062'"],
  ["tenant_id = 'a' AND key = U&'!0062' UESCAPE '!'", "'a' U&'!0062'"],
  ["tenant_id = 'a' AND key = E'\\u0062'", "'a' E'\\u0062'"],
  // The letter v on Postgres 15, a vertical tab since 16.
  ["tenant_id = 'a' AND key = E'\\u0062\\v'", '-'],
  // Parameters that may not be text.
  ['version = $1 AND tenant_id = $1::text AND key = $2', '-'],
  ["tenant_id = $1 AND key = 'b' AND value = $1", '-'],
  ["tenant_id = $1::varchar AND key = 'b' AND $1::text > ''", '-'],
  ["tenant_id = 'a' AND key = $1 AND value = to_jsonb($1::text)", "'a' $1"],
  ['tenant_id = $1 AND key = $1 AND key > $1', '$1 $1'],
  ["tenant_id = 'a' AND key = $1 AND EXISTS (SELECT FROM jsonb_to_record(value) AS x(key int) WHERE x.key = $1)", '-'],
];

t.test('conditions name their keys in every statement', async (t) => {
  for (const [where, keys] of WHERES) {
    for (const statement of ['SELECT * FROM kv', 'UPDATE public.kv SET value = NULL', 'DELETE FROM "kv"']) {
      const text = `${statement} WHERE ${where}`;
      t.equal(shownKeys(planned(text), text), keys, text);
    }
  }
});

t.test('columns are known by the alias, and only by it', async (t) => {
  const text = 'SELECT * FROM kv AS "K" WHERE "K".tenant_id = \'a\' AND key = \'b\'';
  t.equal(shownKeys(planned(text), text), "'a' 'b'");
  const other = "SELECT * FROM kv AS k WHERE kv.tenant_id = 'a' AND public.kv.key = 'b'";
  t.equal(shownKeys(planned(other), other), '-', 'the server rejects it');
  const quoted = `DELETE FROM "Odd ""name""" WHERE "Odd ""name""".tenant_id = 'a' AND public."Odd ""name""".key = 'b'`;
  t.equal(shownKeys(planned(quoted), quoted), "'a' 'b'");
});

t.test('parameters of the select list and of SET have a say in a key’s type', async (t) => {
  const keyOf = (text: string) => shownKeys(planned(text), text);
  t.equal(keyOf('SELECT $1::int FROM kv WHERE tenant_id = $1::text AND key = $2'), '-');
  t.equal(keyOf('SELECT $1::text FROM kv WHERE tenant_id = $1::text AND key = $2'), '$1 $2');
  t.equal(keyOf('UPDATE kv SET ttl = $1 WHERE tenant_id = $1::text AND key = $2'), '-');
  t.equal(keyOf('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2'), '$1 $2');
});

t.test('a product of long lists is no list of keys', async (t) => {
  const list = (count: number) => Array.from({ length: count }, (_, index) => `'${index}'`).join();
  const where = (tenants: number, keys: number) => `tenant_id IN (${list(tenants)}) AND key IN (${list(keys)})`;
  t.equal(planned(`SELECT * FROM kv WHERE ${where(100, 100)}`).keys?.length, 10_000);
  t.equal(planned(`SELECT * FROM kv WHERE ${where(101, 100)}`).keys, null);
  t.equal(planned(`SELECT * FROM kv WHERE ${where(1, 12_000)}`).keys?.length, 12_000);
});

t.test('rows of an INSERT name their keys, and slots belong to them', async (t) => {
  const ROWS: readonly (readonly [string, string, string])[] = [
    ["(tenant_id, key) VALUES ('a', 'b')", "'a' 'b'", ''],
    ["(value, key, tenant_id) VALUES ('1', $2, $1::text), (DEFAULT, 'c', 'd')", "$1 $2, 'd' 'c'", ''],
    ["VALUES ('a', 'b')", "'a' 'b'", ''],
    ["VALUES ('a', 'b', 1, '{}', NULL, now(), 55)", "'a' 'b'", '0: literal'],
    [
      "(tenant_id, key, slot) VALUES (NULL, 'b', 1), ('a', 'c', $1), ('a', 'd', DEFAULT), ('a', 'e', 7)",
      "'a' 'c', 'a' 'd', 'a' 'e'",
      '0: parameter, 2: literal',
    ],
    [
      "AS k (tenant_id, key, value) VALUES ($1, $2, jsonb_build_object('k', $2::text)) ON CONFLICT (tenant_id, key) DO UPDATE SET value = k.value WHERE k.key = $2",
      '$1 $2',
      '',
    ],
  ];
  for (const [rows, keys, slots] of ROWS) {
    const text = `INSERT INTO kv ${rows}`;
    const plan = planned(text);
    t.equal(shownKeys(plan, text), keys, text);
    t.equal(plan.slots.map(({ value, keyIndex }) => `${keyIndex}: ${value.kind}`).join(', '), slots, text);
  }
});

t.test('calls of a table’s functions name their keys', async (t) => {
  const CALLS: readonly (readonly [string, string, writes: boolean])[] = [
    ["SELECT kv_get('a', $1)", "'a' $1", false],
    ["SELECT public.kv_get('a', 'b'::text)", "'a' 'b'", false],
    ["SELECT (kv_get('a', 'b')).value, 1 AS x", "'a' 'b'", false],
    ["SELECT * FROM kv_get('a', 'b')", "'a' 'b'", false],
    ['SELECT x.value FROM kv_get($1, $2) AS x WHERE version > 1 ORDER BY 1 LIMIT 1', '$1 $2', false],
    ["SELECT * FROM ROWS FROM (kv_get('a', 'b')) WITH ORDINALITY", "'a' 'b'", false],
    ["SELECT kv_put(key => 'b', tenant => 'a', value => '1')", "'a' 'b'", true],
    ["SELECT kv_put('a', key := $1, value := '1')", "'a' $1", true],
    ["SELECT applied FROM kv_cas('a', 'b', 0, '1', interval '1 s')", "'a' 'b'", true],
    ["SELECT kv_ttl('a', 'b'), kv_ttl('a', 'c')", "'a' 'b', 'a' 'c'", false],
    ["SELECT kv_ttl('a', 'b'), kv_touch('a', 'c')", "'a' 'b', 'a' 'c'", true],
    ["SELECT coalesce(kv_incr('a', 'b'), 0) + 1", "'a' 'b'", true],
    ["SELECT kv_expire_at('a', 'b', now())", "'a' 'b'", true],
    ["SELECT other.blobs_delete('a', 'b')", "'a' 'b'", true],
    ["SELECT kv_get(NULL, 'b')", '', false],
    ['SELECT * FROM kv_get_many($1, $2)', '$1 WITH $2', false],
    ["SELECT * FROM kv_get_many('{a}', $1::text[])", "'{a}' WITH $1", false],
    ["SELECT * FROM kv_get_many(ARRAY['a', 'b'], ARRAY[$1, 'd'])", "'a' $1, 'b' 'd'", false],
    ['SELECT * FROM kv_put_many(keys => $2, tenants => $1, vals => $3)', '$1 WITH $2', true],
    ['EXPLAIN SELECT kv_put($1, $2, $3)', '$1 $2', false],
    ['EXPLAIN (ANALYZE) SELECT kv_put($1, $2, $3)', '$1 $2', true],
  ];
  const order = (keys: string) => keys.split(', ').sort().join(', ');
  for (const [text, keys, writes] of CALLS) {
    const plan = planned(text);
    t.equal(plan.verb, 'function', text);
    t.equal(order(shownKeys(plan, text)), order(keys), text);
    t.equal(plan.writes, writes, text);
  }
});

t.test('what touches no key-value table has no plan', async (t) => {
  const TEXTS = [
    'SELECT 1',
    "SELECT 'kv', 'kv'::regclass",
    'SELECT * FROM kvs',
    'SELECT * FROM other.kv',
    'SELECT * FROM blobs',
    'SELECT * FROM t AS kv FOR UPDATE OF kv',
    'SELECT kv.a FROM t kv',
    "SELECT kv_slot('a', 'b'), public.kv_slot($1, $2)",
    "SELECT kvs_get('a', 'b'), other.kv_get('a', 'b'), kv_find('a')",
    'DO $$ BEGIN PERFORM 1 FROM kvs; END $$',
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    'DROP TABLE kvs',
    'COMMENT ON COLUMN t.kv IS NULL',
    'BEGIN',
    'SET search_path = kv',
    '',
  ];
  for (const text of TEXTS) t.equal(planOf(text), null, text);
});
