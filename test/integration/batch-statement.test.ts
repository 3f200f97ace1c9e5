// A merged statement does for each member what the member's own statement does: same rows, same counts, same table
// afterwards; and it locks rows in the order of its members. On real servers, for every kind of statement.
import type pg from 'pg';
import t, { type Test } from 'tap';
import {
  type Answer,
  batchServer,
  type Pair,
  pairOf,
  runHoping,
  runMerged,
  runnerOfSingle,
} from '../support/batch-bench.js';
import { blocked, connectTo } from '../support/kv-extension.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';

type Value = string | null;
interface Case {
  readonly sql: string;
  /** The statement has its values as literals; members give them in the order of the text's parameters. */
  readonly text?: true;
  /** Values behind tenant and key, drawn for each member. */
  readonly more?: (draw: Draw) => Value[];
  /** In which order the text has them, where it is not tenant, key, more. */
  readonly order?: (tenant: string, key: string, more: Value[]) => Value[];
  /** Reads may have the same key twice. */
  readonly reads?: true;
  /** On the table of bytea values. */
  readonly blobs?: true;
}

/** Seeded: a failure comes again. */
class Draw {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }
  of<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!;
  }
}

const TENANTS = ['t', 'ünï', "o'brien"];
const KEYS = [
  '',
  'a',
  'B',
  '{tag}x',
  'quote"d',
  "it's",
  '😀',
  'é',
  'back\\slash',
  'NULL',
  '{}',
  'a,b',
  ...Array.from({ length: 60 }, (_, i) => `k${i}`),
];
const JSONS = ['1', '"text"', '{"a": 1}', '{"a": {"b": [1, 2]}, "n": 7}', 'null', '[]', '"quo\\"te"', '"😀"', null];
const json = (draw: Draw): Value => draw.of(JSONS);
const object = (draw: Draw): Value => draw.of(['{}', '{"z": 1}', '{"a": null, "ü": "é"}']);
const version = (draw: Draw): Value => draw.of(['0', '1', '2', '3', null]);
const ttl = (draw: Draw): Value => draw.of(['1 hour', '2 days', '-1 hour', null]);
const instant = (draw: Draw): Value => draw.of(['2100-01-01', '2001-01-01', 'infinity', null]);

const CASES: readonly Case[] = [
  // Reads.
  { sql: 'select * from kv where tenant_id = $1 and key = $2', reads: true },
  { sql: 'select value, version from kv k where k.key = $2 and k.tenant_id = $1 limit 1', reads: true },
  {
    sql: `select key, value ->> 'a' as a, value #>> '{a,b}' as ab, value ? 'n', value @> '{"n": 7}', upper(key), coalesce(value, '0'), case when version > $3 then 'new' else 'old' end from kv where tenant_id = $1 and key = $2`,
    more: (d) => [version(d)],
    reads: true,
  },
  {
    sql: 'select $3, $4::int + 1, $5::jsonb, $6::text[], $7::bytea, $8::char(3), $9::numeric(6,2), key from kv where tenant_id = $1 and key = $2',
    more: (d) => [
      d.of(['x', "y'z", '', null]),
      d.of(['1', ' -7 ', null]),
      json(d),
      d.of(['{a,NULL,"b c"}', '{}', null]),
      d.of(['\\x00ff', '\\\\', null]),
      d.of(['a', 'b  ', 'ü']),
      d.of(['1.239', '-0', 'NaN']),
    ],
    reads: true,
  },
  {
    sql: `select extract(epoch from ttl - now())::bigint / 3600, date_trunc('year', updated_at) <= now(), interval '1' day, timestamptz '2020-01-01 00:00+00' from kv where tenant_id = $1 and key = $2`,
    reads: true,
  },
  {
    sql: 'select version, k from kv k where tenant_id = $1 and k.key in ($2, $3, $4) and version < $5',
    more: (d) => [d.of(KEYS), d.of(KEYS), d.of(['1', '3', null])],
    reads: true,
  },
  {
    sql: 'select key, version from kv where tenant_id = $1 and key = any ($2)',
    order: (tenant, key) => [tenant, `{"${key.replace(/["\\]/g, '\\$&')}",k1,k2,NULL}`],
    reads: true,
  },
  { sql: 'select distinct tenant_id from kv where (tenant_id, key) = ($1, $2) order by 1', reads: true },
  {
    sql: `select value, version from kv where tenant_id = 'a' and key = 'b' and version >= 1`,
    text: true,
    more: (d) => [d.of(['1', '2'])],
    reads: true,
  },
  {
    sql: `select value ->> 'a', version = 1790000000000001 from kv where tenant_id = 'a' and key = 'b'`,
    text: true,
    order: (tenant, key) => ['a', '3', tenant, key],
    reads: true,
  },
  { sql: 'select value, octet_length(value) from blobs where tenant_id = $1 and key = $2', reads: true, blobs: true },
  { sql: `select version from kv where tenant_id = 't' and key = $1`, order: (_, key) => [key, 't'], reads: true },
  // UPDATE.
  { sql: 'update kv set value = $3 where tenant_id = $1 and key = $2', more: (d) => [json(d)] },
  {
    sql: 'update kv set value = $3 where tenant_id = $1 and key = $2 and version = $4 returning version, value',
    more: (d) => [json(d), version(d)],
  },
  {
    sql: 'update kv as k set value = k.value || $3, ttl = now() + $4 where k.tenant_id = $1::text and k.key = $2 returning *, $3::jsonb',
    more: (d) => [object(d), ttl(d)],
  },
  {
    sql: `update kv set version = version + 10, value = jsonb_set(value, '{a}', to_jsonb($3::int)) where tenant_id = $1 and key = $2 and value ? 'a' returning kv.*, version - 10`,
    more: (d) => [d.of(['1', '2', null])],
  },
  { sql: `update kv set (value, ttl) = ('7', null) where tenant_id = $1 and key = $2 returning ttl is null` },
  {
    sql: `update kv set value = '{"x": 1}', ttl = now() + interval '1 hour' where tenant_id = 'a' and key = 'b' and version = 1790000000000001`,
    text: true,
    order: (tenant, key, [v]) => ['{"x": 2}', '3 hours', tenant, key, v ?? '1'],
    more: (d) => [d.of(['1', '2'])],
  },
  {
    sql: 'update blobs set value = value || $3 where tenant_id = $1 and key = $2 returning value',
    more: (d) => [d.of(['\\x00', '\\xff00', '', null])],
    blobs: true,
  },
  // DELETE.
  { sql: 'delete from kv where tenant_id = $1 and key = $2' },
  {
    sql: 'delete from kv as "K" where "K".tenant_id = $1 and "K".key = $2 and version = $3 returning *, "K".version + 1',
    more: (d) => [version(d)],
  },
  {
    sql: `delete from kv where tenant_id = 'a' and key = 'b' returning value ->> 'a'`,
    text: true,
    order: (tenant, key) => [tenant, key, 'a'],
  },
  // INSERT.
  { sql: 'insert into kv (tenant_id, key, value) values ($1, $2, $3)', more: (d) => [json(d)] },
  {
    sql: 'insert into kv (tenant_id, key, value, ttl) values ($1, $2, $3, now() + $4) returning *',
    more: (d) => [json(d), ttl(d)],
  },
  { sql: 'insert into kv values ($1, $2, default, $3) returning version, slot', more: (d) => [json(d)] },
  {
    sql: 'insert into kv (value, key, tenant_id, slot) values ($3, $2, $1, null) on conflict do nothing returning value',
    more: (d) => [json(d)],
  },
  {
    sql: 'insert into kv (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = excluded.value returning version, (xmax = 0)',
    more: (d) => [json(d)],
  },
  {
    sql: 'insert into kv as k (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = $3, ttl = now() + $4 where k.version < $5 returning *, $5 + 1',
    more: (d) => [json(d), ttl(d), d.of(['2', '9', null])],
  },
  {
    sql: `insert into kv as k (tenant_id, key, value, ttl) values ($1, $2, '1', $3) on conflict on constraint kv_pkey do update set value = to_jsonb((k.value #>> '{}')::text || $4), ttl = $3 returning value, ttl`,
    more: (d) => [instant(d), d.of(['!', 'ü', null])],
  },
  {
    sql: `insert into kv (tenant_id, key, value) values ('a', 'b', '1') on conflict (tenant_id, key) do update set value = '2'`,
    text: true,
    order: (tenant, key) => [tenant, key, '{"fresh": true}', '{"fresh": false}'],
  },
  {
    sql: `insert into kv (tenant_id, key, value, version, ttl) values ('a', 'b', '1', 5, now() + interval '1 hour') on conflict (tenant_id, key) do update set value = kv.value || '2', version = 6 returning version, value -> 'fresh'`,
    text: true,
    order: (tenant, key) => [tenant, key, '"one"', '77', '2 hours', '{"fresh": 1}', '78', 'fresh'],
  },
  {
    sql: 'insert into blobs (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = blobs.value || $3 returning value',
    more: (d) => [d.of(['\\x00', '\\xff', null])],
    blobs: true,
  },
  // Functions.
  { sql: 'select * from kv_get($1, $2)', reads: true },
  { sql: 'select kv_get($1, $2)', reads: true },
  { sql: 'select value -> $3 from kv_get($1, $2) where version > 1', more: (d) => [d.of(['a', 'n'])], reads: true },
  { sql: `select kv_ttl($1, $2) > interval '30 minutes'`, reads: true },
  { sql: 'select kv_put($1, $2, $3)', more: (d) => [json(d)] },
  { sql: 'select * from kv_put($1, $2, $3, $4)', more: (d) => [json(d), ttl(d)] },
  { sql: 'select kv_put($1, $2, $3) as version, 1', more: (d) => [json(d)] },
  { sql: 'select kv_put(tenant => $1, key => $2, value => $3)', more: (d) => [json(d)] },
  {
    sql: `select kv_put('a', 'b', '1', '1 hour')`,
    text: true,
    order: (tenant, key) => [tenant, key, '{"put": 1}', '2 hours'],
  },
  { sql: 'select * from kv_cas($1, $2, $3, $4)', more: (d) => [version(d), json(d)] },
  { sql: 'select kv_cas($1, $2, $3, $4, $5)', more: (d) => [version(d), json(d), ttl(d)] },
  { sql: 'select applied, version from kv_cas($1, $2, $3, $4)', more: (d) => [version(d), json(d)] },
  {
    sql: `select * from kv_cas('a', 'b', 1, '2')`,
    text: true,
    order: (tenant, key, [v]) => [tenant, key, v ?? '0', '"swapped"'],
    more: (d) => [d.of(['0', '1', '2'])],
  },
  { sql: 'select kv_delete($1, $2)' },
  { sql: 'select kv_delete($1, $2, $3)', more: (d) => [version(d)] },
  { sql: 'select kv_incr($1, $2)', order: (_, key) => ['counters', key] },
  {
    sql: 'select kv_incr($1, $2, $3)',
    more: (d) => [d.of(['1', '-2.5', '1e3'])],
    order: (_, key, [delta]) => ['counters', key, delta!],
  },
  {
    sql: 'select * from kv_merge($1, $2, $3)',
    more: (d) => [object(d)],
    order: (_, key, [patch]) => ['objects', key, patch!],
  },
  { sql: 'select kv_expire($1, $2, $3)', more: (d) => [ttl(d)] },
  { sql: 'select kv_expire_at($1, $2, $3)', more: (d) => [instant(d)] },
  { sql: 'select public.kv_persist($1, $2)' },
  { sql: 'select kv_touch($1, $2)' },
  { sql: `select kv_touch($1, $2, $3)`, more: (d) => [ttl(d)] },
  { sql: 'select blobs_put($1, $2, $3)', more: (d) => [d.of(['\\x00', '', null])], blobs: true },
  { sql: 'select * from blobs_cas($1, $2, $3, $4)', more: (d) => [version(d), d.of(['\\x00', '', null])], blobs: true },
];

const ROWS = `
  insert into kv (tenant_id, key, version, value, ttl)
  select t, k, 1 + o % 3, ('{1,"\\"text\\"","{\\"a\\": 1, \\"n\\": 7}","{\\"a\\": {\\"b\\": 2}}",NULL}'::jsonb[])[1 + o % 5],
    case o % 4 when 1 then now() - interval '1 minute' when 2 then timestamptz '2100-01-01' end
  from unnest($1::text[]) t, unnest($2::text[]) with ordinality u (k, o) where o % 7 <> 0`;
const BLOB_ROWS = `insert into blobs (tenant_id, key, version, value, ttl) select tenant_id, key, version,
  convert_to(value::text, 'UTF8'), ttl from kv where tenant_id <> 'counters'`;
const CAS = 'update kv set value = $3 where tenant_id = $1 and key = $2 and version = $4 returning version';

/** For functions that want numbers or objects. */
const TYPED_ROWS = `
  insert into kv (tenant_id, key, value, ttl) select 'counters', k, to_jsonb(o), case o % 3 when 1 then now() - interval '1 minute' end
  from unnest($1::text[]) with ordinality u (k, o) where o % 5 <> 0
  union all select 'objects', k, jsonb_build_object('o', o), case o % 3 when 1 then now() - interval '1 minute' end
  from unnest($1::text[]) with ordinality u (k, o) where o % 5 <> 0`;

const contentOf = (table: string): string => `
  select tenant_id, key, version, value, ttl, updated_at is null, slot from ${table}
  where ttl is null or ttl > now() order by 1, 2`;

for (const name of PLAYED_VERSIONS) {
  const skip = findPostgres(name) === undefined ? { skip: `Postgres ${name} is not installed` } : {};
  t.test(`Postgres ${name}`, skip, async (t) => {
    const { server, client } = await batchServer(name);
    t.teardown(() => server.stop());
    t.teardown(() => client.end());
    await client.query({ text: ROWS, values: [TENANTS, KEYS] });
    await client.query({ text: BLOB_ROWS });
    await client.query({ text: TYPED_ROWS, values: [KEYS] });

    t.test('members get what they would get by themselves', async (t) => {
      for (const [seed, one] of CASES.entries()) await compare(t, client, one, seed);
    });
    t.test('rows are locked in the order of the members', (t) => lockOrder(t, client));
    t.test('a version that another session has counted up meanwhile is not matched', async (t) => {
      const pair = await pairOf(client, CAS, false);
      const other = await connectTo(t, server);
      await client.query(
        `insert into kv (tenant_id, key, value) select 'w', 'k' || n, '0' from generate_series(1, 3) n`,
      );
      await other.query(`begin; update kv set value = '"theirs"', version = 2 where tenant_id = 'w' and key = 'k2'`);
      const observer = await connectTo(t, server);
      const running = runMerged(
        client,
        pair,
        ['k1', 'k2', 'k3'].map((key) => ['w', key, '"ours"', '1']),
      );
      await blocked(observer, client);
      await other.query('commit');
      t.strictSame(
        (await running).map(({ rows }) => rows),
        [[['2']], [], [['2']]],
      );
      t.equal(
        (await client.query(`select value from kv where tenant_id = 'w' and key = 'k2'`)).rows[0].value,
        '"theirs"',
      );
      await client.query(`delete from kv where tenant_id = 'w'`);
    });
    t.test('a member that conflicts gets no row, and the others are inserted', (t) => conflicts(t, client));
  });
}

async function compare(t: Test, client: pg.Client, one: Case, seed: number): Promise<void> {
  const pair = await pairOf(client, one.sql, one.text === true);
  const table = one.blobs === true ? 'blobs' : 'kv';
  const draw = new Draw(seed + 1);
  for (const count of seed % 5 === 0 ? [1, 7, 200] : [2, 64]) {
    const members = membersOf(pair, one, draw, count);
    await client.query('begin');
    const merged = await runMerged(client, pair, members);
    const after = (await client.query({ text: contentOf(table), rowMode: 'array' })).rows;
    await client.query('rollback; begin');
    const expected = [];
    const run = await runnerOfSingle(client, pair);
    for (const member of members) expected.push(await run(member));
    await client.query('deallocate own');
    const afterSingles = (await client.query({ text: contentOf(table), rowMode: 'array' })).rows;
    await client.query('rollback');
    for (const [index, answer] of expected.entries()) {
      const found = merged[index]!;
      if (typeof answer === 'string') {
        // What conflicts by itself has no row here, and is run by itself for the error.
        t.strictSame(
          [pair.merged.insertsPlainly, found.rowCount, answer],
          [true, 0, '23505'],
          `${one.sql} ${members[index]}`,
        );
      } else
        t.strictSame(
          { ...found, rows: steady(found.rows) },
          { ...answer, rows: steady(answer.rows) },
          `${one.sql} ${JSON.stringify(members[index])}`,
        );
    }
    t.strictSame(steady(after), steady(afterSingles), `${count} members of ${one.sql}: the table`);
    if (pair.merged.optimistic !== null)
      await compareHoping(t, client, pair, members, expected, afterSingles, contentOf(table));
  }
}

/** Texts that do not reap: who has no row behind them runs by itself, and then all is as if each had from the beginning. */
async function compareHoping(
  t: Test,
  client: pg.Client,
  pair: Pair,
  members: readonly Value[][],
  expected: readonly (Answer | string)[],
  afterSingles: readonly Value[][],
  content: string,
): Promise<void> {
  for (const way of ['many', 'one'] as const) {
    await client.query('begin');
    const hoping =
      way === 'one'
        ? await runHoping(client, pair, members)
        : await runMerged(client, pair, members, pair.merged.optimistic!.text);
    const run = await runnerOfSingle(client, pair);
    for (const [index, answer] of expected.entries()) {
      const found = hoping[index]!.rowCount > 0 ? hoping[index]! : await run(members[index]!);
      const told = (one: Answer | string) => (typeof one === 'string' ? one : { ...one, rows: steady(one.rows) });
      t.strictSame(told(found), told(answer), `${way}: ${pair.single.text} ${JSON.stringify(members[index])}`);
    }
    await client.query('deallocate own');
    const after = (await client.query({ text: content, rowMode: 'array' })).rows;
    await client.query('rollback');
    t.strictSame(steady(after), steady(afterSingles), `${way}: the table behind ${pair.single.text}`);
  }
}

/** Instants near now depend on when the statement is run: to the minute from now on. */
function steady(rows: readonly Value[][]): Value[][] {
  const distance = (instant: string): string => {
    const ms = Date.parse(instant.replace(' ', 'T').replace('+00', 'Z')) - Date.now();
    return Math.abs(ms) < DAYS_MS ? `${Math.round(ms / 60_000)} minutes` : instant;
  };
  return rows.map((row) =>
    row.map((value) => value?.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00/g, distance) ?? null),
  );
}

const DAYS_MS = 4 * 86_400_000;

function membersOf({ single, merged }: Pair, one: Case, draw: Draw, count: number): Value[][] {
  const members: Value[][] = [];
  const seen = new Set<string>();
  for (let attempt = 0; attempt < 20 * count && members.length < count; attempt++) {
    const [tenant, key] = [
      draw.of(TENANTS),
      draw.of(draw.below(3) === 0 ? KEYS : [...KEYS, `new${attempt}`, `n{ew${attempt}`]),
    ];
    const more = one.more?.(draw) ?? [];
    const given = one.order?.(tenant, key, more) ?? [tenant, key, ...more];
    const member = single.refs.map(
      (ref, index) => given[one.text === true ? index : ref.kind === 'parameter' ? ref.number - 1 : 0] ?? null,
    );
    // What equals NULL is nothing; new rows need their key.
    const mayLackKey = one.reads === true || merged.tag === 'UPDATE' || merged.tag === 'DELETE';
    if (mayLackKey && one.text !== true && draw.below(20) === 0) member[single.refs.length > 1 ? 1 : 0] = null;
    const keyed = JSON.stringify(merged.keyValues.map((place) => member[place]));
    if (one.reads !== true && seen.has(keyed)) continue;
    seen.add(keyed);
    members.push(member);
  }
  const [tenantAt, keyAt] = merged.keyValues;
  const bytes = (member: Value[], place: number): Buffer => Buffer.from(member[place] ?? '');
  if (one.reads === true) return members;
  return members.sort(
    (a, b) =>
      Buffer.compare(bytes(a, tenantAt), bytes(b, tenantAt)) || Buffer.compare(bytes(a, keyAt), bytes(b, keyAt)),
  );
}

async function lockOrder(t: Test, client: pg.Client): Promise<void> {
  await client.query(`
    create table order_log (n serial, tenant text, key text);
    create function log_order() returns trigger language plpgsql as $$ begin
      insert into order_log (tenant, key) values (coalesce(new.tenant_id, old.tenant_id), coalesce(new.key, old.key));
      return coalesce(new, old); end $$;
    create trigger zz_log before insert or update or delete on kv for each row execute function log_order()`);
  const statements = CASES.filter(
    ({ reads, blobs, sql }) => reads !== true && blobs !== true && !/incr|merge|kv_cas/.test(sql),
  );
  for (const [seed, one] of statements.entries()) {
    const pair = await pairOf(client, one.sql, one.text === true);
    const members = membersOf(pair, one, new Draw(seed + 100), 120);
    await client.query('begin; truncate order_log');
    await runMerged(client, pair, members);
    const { rows } = await client.query({ text: `select tenant, key from order_log order by n`, rowMode: 'array' });
    await client.query('rollback');
    const places = rows.map((row) =>
      members.findIndex((member) => pair.merged.keyValues.every((place, at) => member[place] === row[at])),
    );
    const runs = places.filter((place, index) => index > 0 && place < places[index - 1]!).length;
    // Where rows are reaped first, that is one pass more; functions that write may try twice.
    t.ok(places.length > 10 && runs <= (/^insert|kv_put/.test(one.sql) ? 2 : 0), `${runs} steps back: ${one.sql}`);
  }
  await client.query('drop trigger zz_log on kv; drop function log_order; drop table order_log');
}

async function conflicts(t: Test, client: pg.Client): Promise<void> {
  const pair = await pairOf(client, 'insert into kv (tenant_id, key, value) values ($1, $2, $3) returning key', false);
  await client.query('begin');
  await client.query(
    `insert into kv (tenant_id, key, value, ttl) values ('c', 'dead', '0', now() - interval '1 hour'), ('c', 'taken', '0', null)`,
  );
  const answers = await runMerged(client, pair, [
    ['c', 'dead', '1'],
    ['c', 'fresh', '1'],
    ['c', 'taken', '1'],
  ]);
  t.strictSame(
    answers.map(({ rows }) => rows),
    [[['dead']], [['fresh']], []],
  );
  const { rows } = await client.query({
    text: `select key, version, value, ttl from kv where tenant_id = 'c' order by 1`,
    rowMode: 'array',
  });
  t.strictSame(rows, [
    ['dead', '1', '1', null],
    ['fresh', '1', '1', null],
    ['taken', '1', '0', null],
  ]);
  await client.query('rollback');
}
