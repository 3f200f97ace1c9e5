// postgres.js doing its usual things: tagged templates, its own pool, named statements, pipelining, cursors, streams, LISTEN.

import { deepEqual, equal, ok } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import postgres from 'postgres';
import { databaseErrorOf, hasPassword, runChecks, Skip } from '../checks.mjs';

const notices = [];
const onnotice = ({ severity, code, message }) => notices.push({ severity, code, message });
const sql = postgres({ max: 5, onnotice });
const sha = (text) => createHash('sha256').update(text).digest('hex');

async function withPool(options, use) {
  const pool = postgres({ onnotice, ...options });
  try {
    return await use(pool);
  } finally {
    await pool.end({ timeout: 5 });
  }
}

await sql`DROP TABLE IF EXISTS compat_postgres_js`;
await sql`CREATE TABLE compat_postgres_js (id int PRIMARY KEY, name text NOT NULL, tags text[], doc jsonb)`;

await runChecks({
  connect: async () => {
    const rows = await sql`SELECT current_user AS "user", current_database() AS database, version() AS version`;
    equal(rows[0].user, process.env.PGUSER);
    return [rows, sql.parameters.server_encoding, sql.parameters.integer_datetimes];
  },

  'simple, parameterised and dynamic queries': async () => {
    const rows = [1, 2, 3].map((id) => ({ id, name: `n${id}`, tags: ['a', `b,${id}`], doc: { id } }));
    const inserted = await sql`INSERT INTO compat_postgres_js ${sql(rows)} RETURNING *`;
    equal(inserted.count, 3);
    const some =
      await sql`SELECT ${sql(['id', 'name'])} FROM compat_postgres_js WHERE id IN ${sql([1, 3])} ORDER BY id`;
    deepEqual([...some.columns.map(({ name }) => name), ...some.map((row) => row.id)], ['id', 'name', 1, 3]);
    const updated = await sql`UPDATE compat_postgres_js SET ${sql({ name: 'changed' })} WHERE id = ${2}`;
    equal(updated.count, 1);
    const simple = await sql`SELECT 1 AS one; SELECT 2 AS two`.simple();
    const unsafe = await sql.unsafe('SELECT $1::int + $2::int AS sum', [1, 2]);
    const described = await sql`SELECT id, tags FROM compat_postgres_js WHERE id = ${1}`.describe();
    const values = await sql`SELECT id, name FROM compat_postgres_js ORDER BY id`.values();
    const raw = await sql`SELECT id, name FROM compat_postgres_js ORDER BY id`.raw();
    const columns = described.columns.map(({ name, type }) => [name, type]);
    return [inserted, some, simple, unsafe, described.types, columns, values, raw.map((row) => row.map(String))];
  },

  'types round trip': async () => {
    const instant = new Date('2024-02-29T12:34:56.789Z');
    const [row] =
      await sql`SELECT ${32767}::int2 AS int2, ${'9223372036854775807'}::int8 AS int8, ${1.25}::float8 AS float8,
      ${'0.00010'}::numeric AS numeric, ${true}::bool AS bool, ${'ü 🐘 \\ \' "'}::text AS text, ${Buffer.from([0, 255, 92])}::bytea AS bytea,
      ${sql.json({ a: [1, null, 'x'] })}::jsonb AS jsonb, ${instant}::timestamptz AS at, ${'2024-02-29'}::date AS date,
      ${[1, 2, 3]}::int[] AS ints, ${sql.array(['a', 'b"c', 'd,e'])}::text[] AS texts, ${null}::text AS missing`;
    equal(row.at.toISOString(), instant.toISOString());
    deepEqual([...row.bytea], [0, 255, 92]);
    deepEqual(row.texts, ['a', 'b"c', 'd,e']);
    return row;
  },

  'prepared statements reused across transactions': async () => {
    const lookUp = (connection, id) => connection`SELECT name FROM compat_postgres_js WHERE id = ${id}`;
    const names = new Set();
    await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const id = (i % 3) + 1;
        const [row] = i % 2 === 0 ? await lookUp(sql, id) : await sql.begin((transaction) => lookUp(transaction, id));
        names.add(row.name);
      }),
    );
    return [...names].sort();
  },

  'custom types, and array types it asks pg_type about': () => {
    const parse = (text) => text.slice(1, -1).split(',').map(Number);
    const point = { to: 600, from: [600], serialize: ([x, y]) => `(${x},${y})`, parse };
    return withPool({ max: 1, types: { point } }, async (pool) => {
      const [row] = await pool`SELECT ${pool.typed.point([1, 2])} AS point, ARRAY['10.0.0.1'::inet] AS addresses`;
      deepEqual(row.point, [1, 2]);
      deepEqual(row.addresses, ['10.0.0.1']);
      return row;
    });
  },

  'transactions, rollback, savepoints': async () => {
    const result = await sql.begin('ISOLATION LEVEL REPEATABLE READ', async (transaction) => {
      await transaction`INSERT INTO compat_postgres_js VALUES (10, 'ten')`;
      const failed = transaction.savepoint(async (inner) => {
        await inner`INSERT INTO compat_postgres_js VALUES (11, 'eleven')`;
        await inner`INSERT INTO compat_postgres_js VALUES (10, 'again')`;
      });
      await databaseErrorOf('23505', () => failed);
      return transaction`SELECT current_setting('transaction_isolation') AS level,
        (SELECT count(*)::int FROM compat_postgres_js WHERE id >= 10) AS n`;
    });
    deepEqual([...result], [{ level: 'repeatable read', n: 1 }]);
    const failing = (transaction) => [transaction`DELETE FROM compat_postgres_js`, transaction`SELECT 1/0`];
    await databaseErrorOf('22012', () => sql.begin(failing));
    const pipelined = await sql.begin((transaction) => [1, 2, 3].map((n) => transaction`SELECT ${n}::int AS n`));
    const [{ n }] = await sql`SELECT count(*)::int AS n FROM compat_postgres_js`;
    equal(n, 4);
    return [result, pipelined];
  },

  'errors keep all fields': async () => [
    await databaseErrorOf('23505', () => sql`INSERT INTO compat_postgres_js VALUES (1, 'x')`),
    await databaseErrorOf('23502', () => sql`INSERT INTO compat_postgres_js VALUES (77, NULL)`),
    await databaseErrorOf('42P01', () => sql`SELECT * FROM no_such_table`),
    await databaseErrorOf('42601', () => sql.unsafe('SELEC 1')),
    await databaseErrorOf('22P02', () => sql`SELECT ${'x'}::text::int`),
    await sql`SELECT 1 AS alive`,
  ],

  'statements in flight survive a neighbour failing': () =>
    withPool({ max: 1 }, async (pool) => {
      const settled = await Promise.allSettled([
        pool`SELECT 1 AS n`,
        pool`SELECT 1/0 AS n`,
        pool`SELECT 3 AS n`,
        pool`SELECT n FROM no_such_table`,
        pool`SELECT 5 AS n`,
      ]);
      const outcome = settled.map(({ value, reason }) => value?.[0].n ?? reason.code);
      deepEqual(outcome, [1, '22012', 3, '42P01', 5]);
    }),

  cancel: async () => {
    const sleeping = sql`SELECT pg_sleep(20)`.execute();
    setTimeout(() => sleeping.cancel(), 300);
    const startedMs = Date.now();
    const error = await databaseErrorOf('57014', () => sleeping);
    ok(Date.now() - startedMs < 8000, 'the cancel took effect late');
    await sql`SELECT 1`;
    return error.message;
  },

  notices: async () => {
    notices.length = 0;
    await sql`DO $$ BEGIN RAISE NOTICE 'from postgres.js'; END $$`;
    await sql`DROP TABLE IF EXISTS compat_postgres_js_absent`;
    equal(notices.length, 2);
    return notices;
  },

  'LISTEN and NOTIFY': async () => {
    const heard = [];
    const { unlisten } = await sql.listen('compat_postgres_js', (payload) => heard.push(payload));
    await sql.notify('compat_postgres_js', 'one');
    await sql.begin((transaction) => transaction`SELECT pg_notify('compat_postgres_js', 'two')`);
    for (let waits = 0; waits < 100 && heard.length < 2; waits++)
      await new Promise((resolve) => setTimeout(resolve, 50));
    await unlisten();
    deepEqual(heard, ['one', 'two']);
  },

  'COPY both ways': async () => {
    const lines = Array.from({ length: 10_000 }, (_, i) => `${10_000 + i}\tname ${i}\t{a,b}\t{"n": ${i}}\n`);
    await pipeline(Readable.from(lines), await sql`COPY compat_postgres_js FROM STDIN`.writable());
    // Small enough never to fill the stream: postgres.js pauses its socket then and may forget to resume it at the end.
    const source =
      await sql`COPY (SELECT * FROM compat_postgres_js WHERE id >= 19900 ORDER BY id) TO STDOUT`.readable();
    let text = '';
    for await (const chunk of source) text += chunk;
    equal(text, lines.slice(-100).join(''));
    const [{ n }] = await sql`SELECT count(*)::int AS n FROM compat_postgres_js WHERE id >= 10000`;
    equal(n, lines.length);
    await sql`DELETE FROM compat_postgres_js WHERE id >= 10000`;
    return sha(text);
  },

  'a 5 MB value both ways': async () => {
    const text = 'größer 🐘 '.repeat(400_000);
    const [row] = await sql`SELECT ${text}::text AS value, octet_length(${text}::text) AS bytes`;
    equal(row.value, text);
    return row.bytes;
  },

  '100,000 rows: whole, by cursor, by forEach': async () => {
    const rows = await sql`SELECT i, 'v' || i AS v FROM generate_series(1, 100000) AS i`;
    equal(rows.length, 100_000);
    let byCursor = 0;
    for await (const portion of sql`SELECT i FROM generate_series(1, 100000) AS i`.cursor(999))
      byCursor += portion.length;
    equal(byCursor, 100_000);
    let sum = 0;
    await sql`SELECT i FROM generate_series(1, 100000) AS i`.forEach(({ i }) => {
      sum += i;
    });
    equal(sum, 5_000_050_000);
    return rows.at(-1);
  },

  'a cursor closed early': async () => {
    let seen = 0;
    await sql`SELECT i FROM generate_series(1, 100000) AS i`.cursor(10, (portion) => {
      seen += portion.length;
      return seen >= 50 ? sql.CLOSE : undefined;
    });
    equal(seen, 50);
  },

  '20 connections at once': () =>
    withPool({ max: 20 }, async (pool) => {
      const turns = Array.from({ length: 400 }, (_, i) => i);
      const takeTurn = async (i) => {
        if (i % 4 !== 0) return (await pool`SELECT ${i}::int AS i, pg_sleep(0.002)`)[0].i;
        return pool.begin(async (transaction) => {
          await transaction`SELECT set_config('pgkv_compat.turn', ${String(i)}, true)`;
          return (await transaction`SELECT current_setting('pgkv_compat.turn')::int AS i`)[0].i;
        });
      };
      deepEqual(await Promise.all(turns.map(takeTurn)), turns);
    }),

  'without prepared statements': () =>
    withPool({ max: 2, prepare: false, fetch_types: false }, async (pool) => {
      const turns = Array.from({ length: 30 }, (_, i) => i);
      const answers = await Promise.all(turns.map((i) => pool`SELECT ${i}::int AS i, ${'x'} AS x`));
      const seen = answers.map(([row]) => row.i);
      deepEqual(seen, turns);
    }),

  'a reserved connection keeps its session': async () => {
    const reserved = await sql.reserve();
    try {
      await reserved`CREATE TEMP TABLE compat_reserved AS SELECT 5 AS n`;
      await reserved`SET work_mem = '5MB'`;
      await Promise.all([sql`SELECT 1`, sql`SELECT 2`]);
      const rows = await reserved`SELECT n, current_setting('work_mem') AS work_mem FROM compat_reserved`;
      deepEqual([...rows], [{ n: 5, work_mem: '5MB' }]);
      await reserved`DROP TABLE compat_reserved`;
      await reserved`RESET ALL`;
    } finally {
      reserved.release();
    }
  },

  'startup parameters': () => {
    const connection = { application_name: 'compat postgres.js', statement_timeout: 4000, TimeZone: 'Asia/Tokyo' };
    return withPool({ max: 1, connection }, async (pool) => {
      const [row] =
        await pool`SELECT current_setting('application_name') AS a, current_setting('statement_timeout') AS s,
        current_setting('TimeZone') AS z`;
      deepEqual(row, { a: 'compat postgres.js', s: '4s', z: 'Asia/Tokyo' });
    });
  },

  'wrong password': () => {
    if (!hasPassword) throw new Skip('no password is asked for here');
    return withPool({ max: 1, password: 'certainly wrong' }, (pool) => databaseErrorOf('28P01', () => pool`SELECT 1`));
  },
});

await sql`DROP TABLE compat_postgres_js`;
await sql.end({ timeout: 5 });
