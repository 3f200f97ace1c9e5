// Which statements of one client can be run for many, and how they read then (D11 rule 1). What the texts do on servers is
// held by test/integration/batch-statement.test.ts.
import t from 'tap';
import { type BatchStatement, batchStatement, singleStatement } from '../../../src/sql/batch/batch-statement.js';
import { literalsOf, planned, planOf } from './kv-planning.js';

/** Types of parameters that are not text, by their names without the schema. */
type Types = Readonly<Record<number, string>>;

function single(sql: string, fromText: boolean) {
  return singleStatement(planned(sql), sql, literalsOf(sql), [], fromText);
}

function merged(sql: string, types: Types = {}, fromText = false): BatchStatement | null {
  const one = single(sql, fromText);
  if (one === null) return null;
  const names = one.refs.map((_, index) => `pg_catalog.${types[index + 1] ?? 'text'}`);
  return batchStatement(planned(sql), one, names);
}

/** Without the part of the names that is drawn at random. */
const shown = (made: BatchStatement | null, text = made?.text): string =>
  squeezed(text?.replaceAll(/␟[0-9a-f]+ /g, '') ?? 'null');

/** Blanks are of no interest. */
const squeezed = (text: string): string => text.replaceAll(/ +/g, ' ').replaceAll(/(?<=\() | (?=\)|,)/g, '');

const BY_KEY = 'tenant_id = $1 and key = $2';
const FOUND = `from kv where ${BY_KEY}`;

t.test('statements read so for many', async (t) => {
  const rows: [string, Types, string][] = [
    [
      `select value ${FOUND}`,
      {},
      'SELECT "r"."o", "q".* FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY AS "r"("1", "2", "o"), LATERAL (select value from kv where (tenant_id = ("r"."1") and key = ("r"."2")) AND ("kv".ttl IS NULL OR "kv".ttl > pg_catalog.statement_timestamp()) OFFSET 0) AS "q"',
    ],
    [
      `select * ${FOUND} limit $3`,
      { 3: 'int8' },
      'SELECT "r"."o", "q".* FROM (SELECT "r"."1", "r"."2", "r"."3"::pg_catalog.int8 AS "3", "r"."o" FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) WITH ORDINALITY AS "r"("1", "2", "3", "o") OFFSET 0) AS "r", LATERAL (select * from kv where (tenant_id = ("r"."1") and key = ("r"."2")) AND ("kv".ttl IS NULL OR "kv".ttl > pg_catalog.statement_timestamp()) limit ("r"."3")) AS "q"',
    ],
    [
      `update kv as k set value = $3 where k.tenant_id = $1 and k.key = $2::text and version = $4 returning *, $4, k.*`,
      { 3: 'jsonb', 4: 'int8' },
      'update kv as k set version = "k".version + 1, updated_at = pg_catalog.statement_timestamp(), value = ("r"."3") FROM (SELECT "r"."1", "r"."2", "r"."3"::pg_catalog.jsonb AS "3", "r"."4"::pg_catalog.int8 AS "4", "r"."o" FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.text[])) WITH ORDINALITY AS "r"("1", "2", "3", "4", "o") OFFSET 0) AS "r" where (k.tenant_id = ANY (ARRAY[("r"."1")]) and k.key = ("r"."2") ::text and version = ("r"."4")) AND ("k".ttl IS NULL OR "k".ttl > pg_catalog.statement_timestamp()) returning "r"."o", k.* , ("r"."4") , k.*',
    ],
    [
      `delete from public.kv where ${BY_KEY}`,
      {},
      'delete from public.kv USING ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY AS "r"("1", "2", "o") where (tenant_id = ANY (ARRAY[("r"."1")]) and key = ("r"."2")) AND ("kv".ttl IS NULL OR "kv".ttl > pg_catalog.statement_timestamp()) RETURNING "r"."o"',
    ],
    [
      'insert into kv as k (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = k.value || $3, ttl = $4 returning version, $4',
      { 3: 'jsonb', 4: 'timestamptz' },
      'WITH "r" AS MATERIALIZED (SELECT "r"."1", "r"."2", "r"."3"::pg_catalog.jsonb AS "3", "r"."4"::pg_catalog.timestamptz AS "4", "r"."s" FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.text[]), pg_catalog.unnest($5::pg_catalog.int4[])) AS "r"("1", "2", "3", "4", "s")), "x" AS MATERIALIZED (DELETE FROM kv AS "d" USING "r" WHERE "d".tenant_id = ANY (ARRAY["r"."1"]) AND "d".key = "r"."2" AND ("d".ttl <= pg_catalog.statement_timestamp()) IS TRUE RETURNING 1) INSERT INTO kv AS k (tenant_id, key, value, slot) SELECT "r"."1", ("r"."2"), ("r"."3"), "r"."s" + (SELECT 0 * pg_catalog.count(*)::pg_catalog.int4 FROM "x") FROM "r" on conflict (tenant_id, key , slot ) do update set version = "k".version + 1, updated_at = pg_catalog.statement_timestamp(), value = k.value || excluded.value , ttl = (SELECT ("r"."4") FROM "r" WHERE "r"."1" = excluded.tenant_id AND "r"."2" = excluded.key LIMIT 1) RETURNING k.tenant_id, k.key, version, (SELECT ("r"."4") FROM "r" WHERE "r"."1" = k.tenant_id AND "r"."2" = k.key LIMIT 1)',
    ],
    [
      'select kv_put($1, $2, $3)',
      { 3: 'jsonb' },
      'SELECT "q".ord, "q".version FROM (SELECT pg_catalog.array_agg((("r"."1"))::pg_catalog.text ORDER BY "r"."o") AS "a1", pg_catalog.array_agg((("r"."2"))::pg_catalog.text ORDER BY "r"."o") AS "a2", pg_catalog.array_agg((("r"."3"))::pg_catalog.jsonb ORDER BY "r"."o") AS "a3" FROM (SELECT "r"."1", "r"."2", "r"."3"::pg_catalog.jsonb AS "3", "r"."o" FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) WITH ORDINALITY AS "r"("1", "2", "3", "o") OFFSET 0) AS "r") AS "a", LATERAL "public"."kv_put_many"("a"."a1", "a"."a2", "a"."a3") AS "q"',
    ],
    [
      'select kv_get($1, $2)',
      {},
      'SELECT "r"."o", "q".* FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY AS "r"("1", "2", "o"), LATERAL (select kv_get(("r"."1"), ("r"."2")) OFFSET 0) AS "q"',
    ],
  ];
  for (const [sql, types, expected] of rows) t.equal(shown(merged(sql, types)), squeezed(expected), sql);
});

t.test('the fields say how rows come back', async (t) => {
  const of = (sql: string, types: Types = {}) => {
    const { text: _, refs, optimistic, ...fields } = merged(sql, types)!;
    return { ...fields, refs: refs.length, optimistic: optimistic !== null };
  };
  const read = {
    withSlots: false,
    writes: false,
    hidden: 1,
    identifies: 'ordinal',
    tag: 'SELECT',
    insertsPlainly: false,
    optimistic: false,
    ownForOne: true,
  };
  t.strictSame(of(`select value ${FOUND}`), { ...read, keyValues: [0, 1], refs: 2 });
  t.strictSame(of(`select $1, value from kv where key = $2 and tenant_id = $3`), {
    ...read,
    keyValues: [2, 1],
    refs: 3,
  });
  t.strictSame(of('select value from kv where tenant_id = $1 and key in ($2, $3)'), {
    ...read,
    keyValues: [-1, -1],
    refs: 3,
  });
  t.strictSame(of(`select value from kv where tenant_id = 'a' and key = $1`), {
    ...read,
    keyValues: [1, 0],
    refs: 2,
  });
  t.strictSame(of('select kv_put($1, $2, $3)'), { ...read, writes: true, keyValues: [0, 1], refs: 3 });
  t.strictSame(of(`update kv set value = null where ${BY_KEY}`), {
    ...read,
    writes: true,
    tag: 'UPDATE',
    keyValues: [0, 1],
    refs: 2,
  });
  t.strictSame(of(`delete from kv where ${BY_KEY}`), {
    ...read,
    writes: true,
    tag: 'DELETE',
    keyValues: [0, 1],
    refs: 2,
  });
  const insert = {
    withSlots: true,
    writes: true,
    hidden: 2,
    identifies: 'key',
    tag: 'INSERT 0',
    keyValues: [0, 1],
    refs: 2,
    ownForOne: true,
  };
  const PLAIN = 'insert into kv (tenant_id, key) values ($1, $2)';
  t.strictSame(of(PLAIN), { ...insert, insertsPlainly: true, optimistic: true });
  t.strictSame(of(`${PLAIN} on conflict do nothing`), { ...insert, insertsPlainly: false, optimistic: false });
  const update = `${PLAIN} on conflict (tenant_id, key) do update set updated_at = now()`;
  t.strictSame(of(update), { ...insert, insertsPlainly: false, optimistic: true });
  // No row may mean that its condition was false.
  t.strictSame(of(`${update} where kv.version = 1`), { ...insert, insertsPlainly: false, optimistic: false });
});

t.test('INSERTs that do not reap what has expired', async (t) => {
  const rows: [sql: string, types: Types, many: string, one: string][] = [
    [
      `insert into kv values ('a', $1, default, $2, null) returning version`,
      { 2: 'jsonb', 3: 'text' },
      'INSERT INTO kv (tenant_id, key, value, ttl, slot) SELECT "r"."3", ("r"."1"), ("r"."2"), null, "r"."s" FROM (SELECT "r"."1", "r"."2"::pg_catalog.jsonb AS "2", "r"."3", "r"."s" FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.int4[])) AS "r"("1", "2", "3", "s")) AS "r" ON CONFLICT DO NOTHING RETURNING kv.tenant_id, kv.key, version',
      'INSERT INTO kv (tenant_id, key, value, ttl, slot) VALUES ($3, $1, $2, null, $4) ON CONFLICT DO NOTHING RETURNING version',
    ],
    [
      'insert into kv as k (tenant_id, key, value, slot) values ($1, $2, $3, default) on conflict (tenant_id, key) do update set value = k.value || $4',
      { 3: 'jsonb', 4: 'jsonb' },
      'WITH "r" AS MATERIALIZED (SELECT "r"."1", "r"."2", "r"."3"::pg_catalog.jsonb AS "3", "r"."4"::pg_catalog.jsonb AS "4", "r"."s" FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.text[]), pg_catalog.unnest($5::pg_catalog.int4[])) AS "r"("1", "2", "3", "4", "s")) INSERT INTO kv AS k (tenant_id, key, value, slot) SELECT "r"."1", ("r"."2"), ("r"."3"), "r"."s" FROM "r" on conflict (tenant_id, key , slot ) do update set version = "k".version + 1, updated_at = pg_catalog.statement_timestamp(), value = k.value || (SELECT ("r"."4") FROM "r" WHERE "r"."1" = excluded.tenant_id AND "r"."2" = excluded.key LIMIT 1) WHERE (k.ttl IS NULL OR k.ttl > pg_catalog.statement_timestamp()) RETURNING k.tenant_id, k.key',
      'INSERT INTO kv AS k (tenant_id, key, value, slot) VALUES ($1, $2, $3, $5) on conflict (tenant_id, key , slot ) do update set version = "k".version + 1, updated_at = pg_catalog.statement_timestamp(), value = k.value || $4 WHERE (k.ttl IS NULL OR k.ttl > pg_catalog.statement_timestamp())',
    ],
  ];
  for (const [sql, types, many, one] of rows) {
    const made = merged(sql, types);
    t.equal(shown(made, made?.optimistic?.text), squeezed(many), sql);
    t.equal(shown(made, made?.optimistic?.one), squeezed(one), `by itself: ${sql}`);
  }
});

t.test('what may fail without a row is worked out ahead', async (t) => {
  const rows: [sql: string, ahead: string[], types?: Types][] = [
    [`select $3::text::int8 ${FOUND}`, ['("r"."3") ::text::int8']],
    [
      `select cast($3::text as int8), 1 + $3::text::int8 ${FOUND}`,
      ['cast(("r"."3") ::text as int8)', '1 + ("r"."3") ::text::int8'],
    ],
    [`select version + $3::int4 ${FOUND}`, ['("r"."3"::pg_catalog.int8) ::int4'], { 3: 'int8' }],
    [`select $3::text::int8 as n ${FOUND} group by $3::text::int8 order by $3::text::int8`, ['("r"."3") ::text::int8']],
    [
      `select value ${FOUND} and version = $3 / $4 + 1`,
      ['("r"."3"::pg_catalog.int8) / ("r"."4"::pg_catalog.int8) + 1'],
      { 3: 'int8', 4: 'int8' },
    ],
    [
      `select value ${FOUND} and version in ($3::text::int8, - $4)`,
      ['("r"."3") ::text::int8', '- ("r"."4"::pg_catalog.int8)'],
      { 4: 'int8' },
    ],
    [`select case when key = 'a' then ($3 || '')::jsonb else value end ${FOUND}`, [`(("r"."3") || '')::jsonb`]],
    [`select pg_catalog.chr($3) || key ${FOUND}`, ['pg_catalog.chr(("r"."3"::pg_catalog.int4))'], { 3: 'int4' }],
    [
      `select $3::numeric(4, 2), $4::varchar(3), $5::text::timestamp with time zone ${FOUND}`,
      ['("r"."3"::pg_catalog.numeric) ::numeric(4, 2)', '("r"."5") ::text::timestamp with time zone'],
      { 3: 'numeric', 4: 'varchar' },
    ],
    [
      `update kv set value = jsonb_set(value, $3::text::text[], '1') where ${BY_KEY} returning $4::text::int`,
      ['("r"."3") ::text::text[]', '("r"."4") ::text::int'],
    ],
    [`delete from kv where ${BY_KEY} and ($3::text)::int8 = version`, ['(("r"."3") ::text)::int8']],
    [
      'insert into kv (tenant_id, key, value) values ($1, $2, null) on conflict (tenant_id, key) do update set value = $3::text::jsonb',
      ['("r"."3") ::text::jsonb'],
    ],
    ['select value -> $3 from kv_get($1, $2) where version > $4::text::int8', ['("r"."4") ::text::int8']],
    // Converted anyway, cannot fail, or is the server's to work out with a row.
    [
      `select $3::int4, cast($4 as boolean), $5::double precision, $6::text ${FOUND}`,
      [],
      { 3: 'int4', 4: 'bool', 5: 'float8' },
    ],
    [`update kv set value = to_jsonb($3::text), ttl = now() where ${BY_KEY} and key in ($2, $3)`, []],
    [`select version * $3 + 1, (version, $3) = (1, 2), version between $3 and 5 ${FOUND}`, [], { 3: 'int8' }],
    [`select lower($3::text) || 'x', $3 = any (array[$3]), '5'::text::int8 ${FOUND}`, []],
  ];
  for (const [sql, ahead, types] of rows) {
    const made = merged(sql, types);
    const names = [...shown(made).matchAll(/(?<=, )([^,]*(?:\([^()]*\)[^,]*)*) AS "v\d+"/g)].map(([, text]) => text!);
    t.strictSame(names, ahead.map(squeezed), sql);
    t.equal(made?.ownForOne, ahead.length === 0, `by itself: ${sql}`);
  }
});

t.test('merged', async (t) => {
  const rows: [string, Types?][] = [
    // Select lists of what is on the list.
    [`select value->>$3, value #>> '{a,b}', value #> '{a}', value -> 0, value - 'a' ${FOUND}`],
    [`select value ? 'a', value ?| array['a', 'b'], value ?& array['a'], value @> '{"a":1}', value @? '$.a' ${FOUND}`],
    [
      `select jsonb_set(value, '{a}', '1'), upper(key), coalesce(value->>'a', 'none'), length(key), now() - updated_at ${FOUND}`,
    ],
    [
      `select case when version > $3 then 'new' else 'old' end, version between 1 and 5, key like 'a%' ${FOUND}`,
      { 3: 'int8' },
    ],
    [
      `select extract(epoch from ttl), date_trunc('hour', ttl), ttl at time zone 'UTC', interval '1 hour', date '2020-01-01' ${FOUND}`,
    ],
    [
      `select version::int, value::text, key::varchar(5), cast(version as numeric(20, 2)), $3::char(3), ttl::timestamp with time zone ${FOUND}`,
      { 3: 'bpchar' },
    ],
    [`select pg_catalog.lower(key), kv.key, kv.*, public.kv.value ${FOUND}`],
    [`select distinct on (key) key, value ${FOUND} order by key desc limit 5 offset 1`],
    [`select distinct (value) ${FOUND} fetch first 1 rows only`],
    [`select key ${FOUND} group by key having true`],
    [`select (value->>'n')::int + 1 as n, array[1, 2], row(1, key), current_timestamp, current_date ${FOUND}`],
    [`select 1 from kv k where k.tenant_id = $1 and k.key = $2;`],
    [`select value from kv where (tenant_id, key) = ($1, $2)`],
    [`select value ${FOUND} and version in (1, 2, $3) order by $3`, { 3: 'int4' }],
    [`select value from kv k where tenant_id = $1 and k.key in ($2, $3, 'c') and version between 1 and 5`],
    [`select value from kv where key = any (array[$2, $3]) and tenant_id = $1`],
    [`select value from kv where tenant_id = $1 and key = any ($2)`, { 2: '_text' }],
    [`select $1::text, $1::text || $2::text ${FOUND}`],
    // Tables in quotes, of another schema, with aliases.
    [`select "Odd ""name"""."value" from "Odd ""name""" where ${BY_KEY}`],
    [`update other.blobs set value = $3 where blobs.tenant_id = $1 and blobs.key = $2 returning *`, { 3: 'bytea' }],
    [
      `delete from "Odd ""name""" "O" where "O"."key" = $2 and tenant_id = $1::pg_catalog.text returning "O".*, version`,
    ],
    // Changes.
    [
      `update kv set (value, ttl) = ($3, now() + $4), version = version + 1 where ${BY_KEY} returning version`,
      { 3: 'jsonb', 4: 'interval' },
    ],
    [
      `update kv set value = value || '{"a": 1}' where ${BY_KEY} and (version = $3 or version = $4)`,
      { 3: 'int8', 4: 'int8' },
    ],
    [`update kv set value = '1' where (${BY_KEY}) and not (key = $2 and version = 0)`],
    // INSERT: columns, defaults, conflicts.
    ['insert into kv values ($1, $2, $3, $4)', { 3: 'int8', 4: 'jsonb' }],
    ['insert into kv values ($1, $2, default, $3, now() + $4)', { 3: 'jsonb', 4: 'interval' }],
    ['insert into kv (key, tenant_id, value, slot) values ($2, $1::text, $3, default)', { 3: 'jsonb' }],
    ['insert into kv (tenant_id, key, slot, "value") values ($1, $2, null, $3) returning *', { 3: 'jsonb' }],
    [
      `insert into kv (tenant_id, key, value) values ($1, $2, jsonb_build_object('a', $3::int)) on conflict do nothing returning value`,
      { 3: 'int4' },
    ],
    [
      'insert into kv (tenant_id, key, value) values ($1, $2, $3) on conflict on constraint kv_pkey do update set value = $3',
      { 3: 'jsonb' },
    ],
    [
      'insert into kv (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = excluded.value where kv.version < $4',
      { 3: 'jsonb', 4: 'int8' },
    ],
    [
      'insert into "Odd ""name""" as "O" (tenant_id, key, value, owner) values ($1, $2, $3, 7) on conflict (tenant_id, key) do update set value = "O".value',
      { 3: 'bytea' },
    ],
    // Functions.
    ['select kv_get($1, $2)'],
    ['select version from kv_get($1, $2) where version > $3', { 3: 'int8' }],
    ['select (kv_cas($1, $2, $3, $4)).applied', { 3: 'int8', 4: 'jsonb' }],
    ["select public.kv_ttl($1, $2) > interval '1 hour'"],
    ['select "kv_touch"($1, $2)'],
    ['select kv_put(tenant => $1, key => $2, value => $3)', { 3: 'jsonb' }],
  ];
  for (const [sql, types] of rows) t.not(merged(sql, types), null, sql);
});

t.test('not merged', async (t) => {
  const rows: [why: string, sql: string, types?: Types][] = [
    ['volatile', `select random() ${FOUND}`],
    ['volatile', `select gen_random_uuid() ${FOUND}`],
    ['volatile', `select clock_timestamp() ${FOUND}`],
    ['volatile', `update kv set value = to_jsonb(nextval('s')) where ${BY_KEY}`],
    ['volatile', `insert into kv (tenant_id, key, value) values ($1, $2, to_jsonb(random()))`],
    [
      'volatile',
      `insert into kv (tenant_id, key) values ($1, $2) on conflict (tenant_id, key) do update set value = to_jsonb(random())`,
    ],
    ['volatile', `insert into kv (tenant_id, key) values ($1, $2) returning random()`],
    ['volatile', `delete from kv where ${BY_KEY} returning random()`],
    ['of the session', `select current_setting('a.b') ${FOUND}`],
    ['of the session', `select set_config('a.b', '1', false) ${FOUND}`],
    ['of the session', `select pg_backend_pid() ${FOUND}`],
    ['of the session', `select pg_advisory_lock(1) ${FOUND}`],
    ['of the session', `select current_user ${FOUND}`],
    ['of the session', `select session_user, current_schema ${FOUND}`],
    ['of the session', `select user ${FOUND}`],
    ['user functions', `select my_function(key) ${FOUND}`],
    ['user functions', `select public.lower(key) ${FOUND}`],
    ['user functions', `select "lower"(key) ${FOUND}`],
    ['user functions', `select kv.notes ${FOUND}`],
    ['user functions', `select kv_evil($1::text), kv_get($1, $2)`],
    ['user functions', `select kv_get($1::text, $2::text), other.kv_put($1::text, $2::text, 'x')`],
    ['user operators', `select version OPERATOR(x.+) 1 ${FOUND}`],
    ['user operators', `select version <~> 1 ${FOUND}`],
    ['user types', `select key::mood ${FOUND}`],
    ['user types', `select cast(key as mood) ${FOUND}`],
    ['user types', `select mood 'happy' ${FOUND}`],
    ['user types', `select 'kv'::regclass ${FOUND}`],
    ['user types', `select key::"char" ${FOUND}`],
    ['parameter type', `select $3::regclass ${FOUND}`, { 3: 'regclass' }],
    ['parameter type', `select $3::mood ${FOUND}`, { 3: 'mood' }],
    ['parameter type', `select $3 ${FOUND}`, { 3: 'name' }],
    ['locks rows', `select value ${FOUND} for update`],
    ['locks rows', `select value ${FOUND} for key share`],
    ['aggregates', `select count(*) ${FOUND}`],
    ['aggregates', `select max($3) ${FOUND}`],
    ['window', `select row_number() over () ${FOUND}`],
    ['subquery', `select (select 1) ${FOUND}`],
    ['subquery', `update kv set value = (select '1'::jsonb) where ${BY_KEY}`],
    ['subquery', `select array(select 1) ${FOUND}`],
    ['more rows', `select generate_series(1, 3) ${FOUND}`],
    ['more rows', `select jsonb_each(value) ${FOUND}`],
    ['RETURNING WITH', `update kv set value = '1' where ${BY_KEY} returning with (old as o) o.value`],
    ['RETURNING WITH', `delete from kv where ${BY_KEY} returning with (old as o) o.value`],
    ['RETURNING WITH', `insert into kv (tenant_id, key) values ($1, $2) returning with (old as o) o.value`],
    ['index on ttl', `select value ${FOUND} and ttl is not null`],
    ['index on ttl', `update kv set value = '1' where ${BY_KEY} and ttl > now()`],
    ['lookup of the key', `update kv set value = '1' where $1 = tenant_id and key = $2`],
    ['lookup of the key', `update kv set value = '1' where (tenant_id, key) = ($1, $2)`],
    ['lookup of the key', `delete from kv where tenant_id in ($1) and key = $2`],
    ['lookup of the key', `delete from kv where tenant_id = $1 and key = $2 and $1 <> 'x'`],
    ['lookup of the key', `delete from kv where tenant_id = $1 and key = $2 and value->>'a' = $1`],
    ['lookup of the key', `delete from kv where tenant_id = $1 || 'x' and tenant_id = $1 and key = $2`],
    ['explicit slot', 'insert into kv (tenant_id, key, slot) values ($1, $2, 5)'],
    ['explicit slot', 'insert into kv (tenant_id, key, slot) values ($1, $2, $3)', { 3: 'int4' }],
    ['keys seen together', 'select value from kv where tenant_id = $1 and key in ($2, $3) order by key'],
    ['keys seen together', 'select value from kv where tenant_id = $1 and key in ($2, $3) limit 1'],
    ['keys seen together', 'select distinct value from kv where tenant_id = $1 and key in ($2, $3)'],
    ['lookup of the key', `select value from kv where tenant_id in ($1, $3) and key = $2`],
    ['lookup of the key', `select value from kv where (tenant_id, key) in (($1, $2), ($1, $3))`],
    ['lookup of the key', `select value from kv where tenant_id = $1 and key in ($2, $3) and not (key in ($2, 'c'))`],
    [
      'lookup of the key',
      `select value from kv where tenant_id = $1 and key in ($2, $3) and (version = 1 or key in ('c', 'd'))`,
    ],
    ['several keys', 'insert into kv (tenant_id, key) values ($1, $2), ($1, $3)'],
    ['several keys', 'delete from kv where tenant_id = $1 and key in ($2, $3)'],
    ['several keys', 'select kv_put($1, $2, $3), kv_put($1, $4, $3)', { 3: 'jsonb' }],
    ['several keys', 'select kv_get_many($1, $2)', { 1: '_text', 2: '_text' }],
    ['no key', 'select value from kv where tenant_id = $1'],
    ['gap in the parameters', 'select value from kv where tenant_id = $1 and key = $3'],
    ['no columns', `select ${FOUND}`],
    ['two statements', `select value ${FOUND}; select 1`],
    ['EXPLAIN', `explain analyze select value ${FOUND}`],
    ['EXPLAIN', `explain select value ${FOUND}`],
  ];
  for (const [why, sql, types] of rows) {
    const plan = planOf(sql);
    // What may act beyond the row does not get as far as here.
    if (plan?.kind === 'refused') t.match(plan.code, /^PGKV-0(?:60|79)$/, `${why}: ${sql}`);
    else t.equal(merged(sql, types), null, `${why}: ${sql}`);
  }
});

t.test('literals become parameters', async (t) => {
  const rows: [string, readonly number[], string][] = [
    [
      `select value from kv where tenant_id = 'a' and key = 'b' and version = 5`,
      [0, 0, 23],
      'select value from kv where (tenant_id = $1  and key = $2  and version = $3 ) AND ("kv".ttl IS NULL OR "kv".ttl > pg_catalog.statement_timestamp())',
    ],
    [
      `update kv set ttl = now() + interval '1 hour' where tenant_id = 'a' and key = E'b\\n' and version = 1790000000000001`,
      [0, 0, 0, 20],
      'update kv set version = "kv".version + 1, updated_at = pg_catalog.statement_timestamp(), ttl = now() + $1::interval where (tenant_id = $2 and key = $3 and version = $4 ) AND ("kv".ttl IS NULL OR "kv".ttl > pg_catalog.statement_timestamp())',
    ],
    [
      `insert into kv (tenant_id, key, value) values ('a', 'b', $$1$$) on conflict (tenant_id, key) do update set value = '1'`,
      [0, 0, 0, 0],
      'WITH "pgkv reaped" AS MATERIALIZED ( DELETE FROM kv WHERE tenant_id = ( $1 )::pg_catalog.text AND key = ( $2 )::pg_catalog.text AND ttl <= pg_catalog.statement_timestamp() RETURNING 1) insert into kv (tenant_id, key, value) values ( CASE WHEN (SELECT pg_catalog.count(*) FROM "pgkv reaped") >= 0 THEN  $1  END, $2 , $3 ) on conflict (tenant_id, key , slot ) do update set version = "kv".version + 1, updated_at = pg_catalog.statement_timestamp(), value = $4 ',
    ],
  ];
  for (const [sql, types, expected] of rows) {
    const made = single(sql, true);
    t.equal(squeezed(made?.text ?? 'null'), squeezed(expected), sql);
    t.strictSame(made?.types, types);
    t.not(
      merged(
        sql,
        Object.fromEntries(
          types.map((type, i) => [
            i + 1,
            type === 23
              ? 'int4'
              : type === 20
                ? 'int8'
                : i === 2 && sql.startsWith('insert')
                  ? 'jsonb'
                  : sql.startsWith('update') && i === 0
                    ? 'interval'
                    : 'text',
          ]),
        ),
        true,
      ),
      null,
    );
  }
});

t.test('literals that are no values stay, and the statement is not merged', async (t) => {
  const where = `from kv where tenant_id = 'a' and key = 'b'`;
  for (const sql of [
    `select key ${where} order by 1`,
    `select key ${where} group by 1`,
    `select distinct on (1) key ${where}`,
    `select key::varchar(3) ${where}`,
    `select version - -5 ${where}`,
    `select 1.5 ${where}`,
    `select 99999999999999999999 ${where}`,
    `select B'1' ${where}`,
    `select U&'\\0061' ${where}`,
    `select value from kv where tenant_id = 'a' and key = 'b' and value = $1`,
    `select ${Array.from({ length: 15 }, (_, i) => i).join(', ')} ${where}`,
  ]) {
    t.equal(single(sql, true), null, sql);
  }
});

t.test('backslashes that escape in plain strings are not read twice', async (t) => {
  const sql = `select value || 'a' from kv where tenant_id = $1 and key = $2`;
  const literals = literalsOf(sql, false);
  const { text } = singleStatement(planned(sql), sql, literals, [], false)!;
  t.match(text, "value ||  E'a' from", 'they say so whatever the setting is');
});

t.test('literals of keys are values behind the client’s own, others stay what they are', async (t) => {
  const rows: readonly (readonly [sql: string, text: string])[] = [
    [
      `update kv set value = '{"a": 1}', ttl = now() + interval '1 h' where tenant_id = 'a' and key = $1 and version = 5`,
      `value = '{"a": 1}', ttl = now() + interval '1 h' where (tenant_id = $2 and key = $1 and version = 5)`,
    ],
    [
      `select value from kv where tenant_id = text 'a' and key = 'b'::varchar`,
      'tenant_id = $1::text and key = $2 ::varchar',
    ],
    [
      `select value from kv where tenant_id = pg_catalog.varchar 'a' and key = $1`,
      'tenant_id = $2::pg_catalog.varchar and',
    ],
    [
      `select value from kv where tenant_id = character varying 'a' and key = $1`,
      'tenant_id = $2::character varying and',
    ],
    [`select value from kv where tenant_id = U&'!0061' uescape '!' and key = $1`, 'tenant_id = $2 and'],
    [`select value from kv where tenant_id = text U&'!0061' uescape '!' and key = $1`, 'tenant_id = $2::text and'],
    [
      `select 'a', value from kv where tenant_id = 'a' and key = $1`,
      `select 'a', value from kv where (tenant_id = $2 and`,
    ],
    [`insert into kv (tenant_id, key, value) values ('a', 'b', '1')`, `THEN $1 END, $2, '1')`],
    [`select kv_put('a', $2, $1)`, 'select kv_put($3, $2, $1)'],
  ];
  for (const [sql, text] of rows) t.match(squeezed(single(sql, false)?.text ?? 'null'), squeezed(text), sql);
  const keys = (count: number) => Array.from({ length: count }, (_, index) => `'k${index}'`).join(', ');
  const list = (count: number) => `select value from kv where tenant_id = $1 and key in (${keys(count)})`;
  t.equal(single(list(15), false)?.refs.length, 16);
  t.equal(single(list(16), false)?.refs.length, 1, 'a long list stays where it is');
});

t.test('types that the client has declared are passed on', async (t) => {
  const sql = `select value ${FOUND} and version = $3`;
  t.strictSame(singleStatement(planned(sql), sql, literalsOf(sql), [25, 0, 20], false)?.types, [25, 0, 20]);
});

t.test('names of the carriers in a client’s statement keep it from being merged', async (t) => {
  const token = /␟[0-9a-f]+/.exec(merged(`select value ${FOUND}`)!.text)![0];
  t.equal(merged(`select "${token} r"."${token} 1" ${FOUND}`), null);
  t.equal(merged(`select "${token} 1" ${FOUND}`), null);
  t.not(merged(`select "${token.slice(0, -1)} 1" ${FOUND}`), null);
});

t.test('a member has so many values, and no more', async (t) => {
  const taking = (count: number): string =>
    `select ${Array.from({ length: count - 2 }, (_, index) => `$${index + 3}::text`).join(', ')} ${FOUND}`;
  t.not(merged(taking(16)), null);
  t.equal(merged(taking(17)), null);
});
