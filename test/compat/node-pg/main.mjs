// node-postgres doing its usual things: clients, pool, named statements, row-limited portals, LISTEN, COPY by its own messages.

import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import pg from 'pg';
import { databaseErrorOf, hasPassword, runChecks, Skip } from '../checks.mjs';

const sha = (text) => createHash('sha256').update(text).digest('hex');

/** Runs `use` with a connected client of its own. */
async function withClient(use, options = {}) {
  const client = new pg.Client(options);
  client.on('error', () => undefined); // reported by the statement that fails
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** COPY … FROM STDIN by pg's own connection, as pg-copy-streams does it. */
class CopyIn {
  constructor(text, chunks) {
    this.text = text;
    this.chunks = chunks;
    this.rowCount = undefined;
    this.done = new Promise((resolve, reject) => {
      this.callback = (error) => (error ? reject(error) : resolve(this.rowCount));
    });
  }
  submit(connection) {
    connection.query(this.text);
  }
  handleCopyInResponse(connection) {
    for (const chunk of this.chunks) connection.sendCopyFromChunk(Buffer.from(chunk));
    connection.endCopyFrom();
  }
  handleCommandComplete(message) {
    this.rowCount = Number(message.text.split(' ')[1]);
  }
  handleError(error) {
    this.callback(error);
  }
  handleReadyForQuery() {
    this.callback();
  }
}

/** COPY … TO STDOUT: collects the data. */
class CopyOut extends CopyIn {
  constructor(text) {
    super(text, []);
    this.data = [];
  }
  handleCopyData(message) {
    this.data.push(Buffer.from(message.chunk)); // pg reuses the memory behind the chunk
  }
}

const roundTrip = `SELECT $1::int2 AS int2, $2::int4 AS int4, $3::int8 AS int8, $4::float4 AS float4, $5::float8 AS float8,
  $6::numeric AS numeric, $7::bool AS bool, $8::text AS text, $9::bytea AS bytea, $10::json AS json, $11::jsonb AS jsonb,
  $12::uuid AS uuid, $13::date AS date, $14::timestamp AS timestamp, $15::timestamptz AS timestamptz, $16::interval AS "interval",
  $17::int4[] AS ints, $18::text[] AS texts, $19::inet AS inet, $20::int4range AS range, $21::text AS missing, $22::char(4) AS padded`;

await withClient((client) =>
  client.query(
    `DROP TABLE IF EXISTS compat_pg; CREATE TABLE compat_pg (id int PRIMARY KEY, name text NOT NULL UNIQUE, data bytea)`,
  ),
);

await runChecks({
  connect: () =>
    withClient(async (client) => {
      const parameters = {};
      client.connection.on('parameterStatus', ({ parameterName, parameterValue }) => {
        parameters[parameterName] = parameterValue;
      });
      await client.query(`SET application_name = 'compat pg'`);
      equal(parameters.application_name, 'compat pg');
      const { rows } = await client.query(
        'SELECT version() AS version, current_user AS "user", current_database() AS database',
      );
      equal(rows[0].user, process.env.PGUSER);
      equal(rows[0].database, process.env.PGDATABASE);
      ok(/^PostgreSQL \d+/.test(rows[0].version));
      return rows[0];
    }),

  'startup parameters': () =>
    withClient(
      async (client) => {
        const { rows } = await client.query(
          `SELECT current_setting('application_name') AS a, current_setting('statement_timeout') AS s, current_setting('lock_timeout') AS l, current_setting('TimeZone') AS z`,
        );
        deepEqual(rows[0], { a: 'startup', s: '12s', l: '3s', z: 'Asia/Tokyo' });
        return rows;
      },
      { application_name: 'startup', statement_timeout: 12_000, lock_timeout: 3000, options: '-c TimeZone=Asia/Tokyo' },
    ),

  'simple and parameterised queries': () =>
    withClient(async (client) => {
      const several = await client.query(`SELECT 1 AS one; SELECT 'a' AS a, NULL AS b; VALUES (1), (2); SELECT`);
      equal(several.length, 4);
      const parameterised = await client.query('SELECT $1::int + 1 AS n, $2 AS t', [41, 'x']);
      equal(parameterised.rows[0].n, 42);
      const array = await client.query({ text: 'SELECT 1, 2 AS b', rowMode: 'array' });
      const empty = await client.query('');
      const commentOnly = await client.query('-- nothing');
      return [
        several.map(({ rows, command, rowCount }) => ({ rows, command, rowCount })),
        parameterised.fields.map(({ name, dataTypeID, format }) => ({ name, dataTypeID, format })),
        array.rows,
        [empty.command, commentOnly.command],
      ];
    }),

  'types round trip': () =>
    withClient(async (client) => {
      const bytes = Buffer.from([0, 1, 255, 92, 39]);
      const values = [-32768, 2147483647, '9223372036854775807', 1.5, Math.PI, '12345678901234567890.000010', true, 'Grüße 🐘 \\ \'"', bytes,
        { a: [1, null] }, { b: { c: 'ü' } }, '6f9619ff-8b86-d011-b42d-00c04fc964ff', '2024-02-29', '2024-02-29 12:34:56.789',
        '2024-02-29T12:34:56.789Z', '1 year 2 days 03:04:05.678', [1, -2, 3], ['a', 'b,c', '"q"', null], '10.0.0.0/8', '[1,10)', null, 'ab']; // biome-ignore format: one value per parameter, in order
      const text = await client.query(roundTrip, values);
      equal(text.rows[0].int8, '9223372036854775807');
      deepEqual(text.rows[0].bytea, bytes);
      deepEqual(text.rows[0].texts, ['a', 'b,c', '"q"', null]);
      deepEqual(text.rows[0].jsonb, { b: { c: 'ü' } });
      equal(text.rows[0].timestamptz.toISOString(), '2024-02-29T12:34:56.789Z');
      const binary = await client.query({
        text: roundTrip.replace('$19::inet', '$19::text').replace('$20::int4range', '$20::text'),
        values,
        binary: true,
      });
      equal(binary.fields[0].format, 'binary');
      return [text.rows, binary.fields.map((field) => [field.name, field.dataTypeID, field.format])];
    }),

  'named statements reused across transactions and connections': async () => {
    const pool = new pg.Pool({ max: 5 });
    const seen = new Set();
    const clients = await Promise.all(Array.from({ length: 5 }, () => pool.connect()));
    for (let turn = 0; turn < 12; turn++) {
      // Different clients hold their transactions at different times, so a pooling router gives this one several server connections.
      await Promise.all(
        clients.map(async (client, index) => {
          if ((turn + index) % 3 === 0) await client.query('BEGIN');
          const { rows } = await client.query({
            name: 'named',
            text: `SELECT $1::int * 2 AS n, $2::text AS t`,
            values: [turn, `c${index}`],
          });
          deepEqual(rows, [{ n: turn * 2, t: `c${index}` }]);
          const other = await client.query({ name: `own${index}`, text: `SELECT ${index} AS own` });
          equal(other.rows[0].own, index);
          seen.add(index);
          if ((turn + index) % 3 === 0) await client.query('COMMIT');
        }),
      );
    }
    for (const client of clients) client.release();
    await pool.end();
    return seen.size;
  },

  'named statement after DDL and after an error': () =>
    withClient(async (client) => {
      await client.query(
        'DROP TABLE IF EXISTS compat_pg_ddl; CREATE TABLE compat_pg_ddl (a int); INSERT INTO compat_pg_ddl VALUES (1)',
      );
      const insert = { name: 'insert', text: 'INSERT INTO compat_pg_ddl VALUES ($1) RETURNING a' };
      await client.query({ ...insert, values: [2] });
      await client.query('ALTER TABLE compat_pg_ddl ADD COLUMN b int DEFAULT 7');
      const answer = await client.query({ ...insert, values: [3] });
      const error = await databaseErrorOf('22P02', () => client.query({ ...insert, values: ['not a number'] }));
      const after = await client.query({ ...insert, values: [4] });
      await client.query('DROP TABLE compat_pg_ddl');
      return [answer.rows, error.message, after.rows];
    }),

  'transactions, rollback, savepoints': () =>
    withClient(async (client) => {
      await client.query('BEGIN');
      await client.query('INSERT INTO compat_pg VALUES ($1, $2)', [1, 'one']);
      await client.query('SAVEPOINT inner_one');
      await databaseErrorOf('23505', () => client.query('INSERT INTO compat_pg VALUES ($1, $2)', [1, 'again']));
      await databaseErrorOf('25P02', () => client.query('SELECT 1'));
      await client.query('ROLLBACK TO inner_one');
      await client.query('INSERT INTO compat_pg VALUES ($1, $2)', [2, 'two']);
      await client.query('COMMIT');
      await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY');
      const isolation = await client.query('SHOW transaction_isolation');
      await databaseErrorOf('25006', () => client.query('DELETE FROM compat_pg'));
      await client.query('ROLLBACK');
      await client.query('BEGIN');
      await client.query('DELETE FROM compat_pg');
      await client.query('ROLLBACK');
      const { rows } = await client.query('SELECT id, name FROM compat_pg ORDER BY id');
      deepEqual(rows.map((row) => row.id), [1, 2]); // biome-ignore format: short
      const failedCommit = await client.query('BEGIN').then(async () => {
        await rejects(client.query('SELECT 1/0'));
        return client.query('COMMIT');
      });
      equal(failedCommit.command, 'ROLLBACK');
      return [rows, isolation.rows];
    }),

  'errors keep all fields': () =>
    withClient(async (client) => [
      await databaseErrorOf('23505', () => client.query(`INSERT INTO compat_pg VALUES (1, 'x')`)),
      await databaseErrorOf('23502', () => client.query('INSERT INTO compat_pg VALUES (99, NULL)')),
      await databaseErrorOf('42P01', () => client.query('SELECT * FROM no_such_table')),
      await databaseErrorOf('42601', () => client.query('SELEC 1')),
      await databaseErrorOf('42703', () => client.query('SELECT no_such_column FROM compat_pg WHERE id = $1', [1])),
      await databaseErrorOf('22012', () => client.query('SELECT 1/$1::int', [0])),
      await databaseErrorOf('22P02', () => client.query('SELECT $1::int', ['x'])),
      await databaseErrorOf('08P01', () => client.query('SELECT $1::int, $2::int', [1])),
      await databaseErrorOf('57014', () => client.query(`SET statement_timeout = 50; SELECT pg_sleep(5)`)),
      (await client.query('SELECT 1 AS still_alive')).rows,
    ]),

  'multi-statement error stops and rolls back': () =>
    withClient(async (client) => {
      const error = await databaseErrorOf('22012', () =>
        client.query(`INSERT INTO compat_pg VALUES (50, 'fifty'); SELECT 1/0; SELECT 2`),
      );
      const { rows } = await client.query('SELECT count(*) FROM compat_pg WHERE id = 50');
      equal(rows[0].count, '0');
      return error;
    }),

  cancel: () =>
    withClient(async (client) => {
      const sleeping = client.query('SELECT pg_sleep(20)');
      const startedMs = Date.now();
      setTimeout(() => new pg.Client().cancel(client, client.activeQuery), 200);
      const error = await databaseErrorOf('57014', () => sleeping);
      ok(Date.now() - startedMs < 8000, 'the cancel took effect late');
      equal((await client.query('SELECT 1 AS one')).rows[0].one, 1);
      return error.message;
    }),

  notices: () =>
    withClient(async (client) => {
      const notices = [];
      client.on('notice', ({ severity, code, message, detail, hint }) =>
        notices.push({ severity, code, message, detail, hint }),
      );
      await client.query(
        `DO $$ BEGIN RAISE NOTICE 'hello %', 1 USING DETAIL = 'd', HINT = 'h'; RAISE WARNING 'beware'; END $$`,
      );
      await client.query('DROP TABLE IF EXISTS compat_pg_absent');
      await client.query('BEGIN; BEGIN; COMMIT');
      ok(notices.length >= 4);
      return notices;
    }),

  'LISTEN and NOTIFY': () =>
    withClient(async (listener) => {
      const heard = [];
      listener.on('notification', ({ channel, payload }) => heard.push([channel, payload]));
      await listener.query('LISTEN compat_pg_channel');
      await withClient(async (sender) => {
        for (let i = 0; i < 5; i++)
          await sender.query('SELECT pg_notify($1, $2)', ['compat_pg_channel', `payload ${i}`]);
        await sender
          .query('BEGIN; NOTIFY compat_pg_channel, $$rolled back$$; ROLLBACK')
          .catch(() => sender.query('ROLLBACK'));
        await sender.query(`NOTIFY compat_pg_channel, 'last'`);
      });
      for (let waits = 0; waits < 100 && heard.length < 6; waits++)
        await new Promise((resolve) => setTimeout(resolve, 50));
      await listener.query('UNLISTEN *');
      equal(heard.length, 6);
      return heard;
    }),

  'COPY both ways': () =>
    withClient(async (client) => {
      const lines = Array.from({ length: 20_000 }, (_, i) => `${1000 + i}\tname ${i}\t\\\\x${'ab'.repeat(i % 50)}\n`);
      const copyIn = new CopyIn('COPY compat_pg FROM STDIN', [
        lines.slice(0, 7).join(''),
        lines.slice(7).join('').slice(0, 11),
        lines.slice(7).join('').slice(11),
      ]);
      client.query(copyIn);
      equal(await copyIn.done, 20_000);
      const copyOut = new CopyOut('COPY (SELECT * FROM compat_pg WHERE id >= 1000 ORDER BY id) TO STDOUT');
      client.query(copyOut);
      equal(await copyOut.done, 20_000);
      const text = Buffer.concat(copyOut.data).toString();
      equal(text, lines.join(''));
      const bad = new CopyIn('COPY compat_pg FROM STDIN', ['5000000\tx\t\\N\n', 'not a number\ty\t\\N\n']);
      client.query(bad);
      const error = await databaseErrorOf('22P02', () => bad.done);
      // pg answers CopyFail by itself where the caller gave no source.
      const noSource = await databaseErrorOf('57014', () => client.query('COPY compat_pg FROM STDIN'));
      equal((await client.query('SELECT count(*) FROM compat_pg WHERE id >= 1000')).rows[0].count, '20000');
      await client.query('DELETE FROM compat_pg WHERE id >= 1000');
      return [sha(text), error.message, error.where, noSource.message];
    }),

  'COPY into a key-value table and out: all shards or none': () =>
    withClient(async (client) => {
      try {
        await client.query('SHOW pgkv.version');
      } catch (error) {
        equal(error.code, '42704');
        return; // plain Postgres: a shard takes its own keys only
      }
      const there = await client.query(`SELECT to_regclass('kv') AS kv`);
      if (there.rows[0].kv === null) throw new Skip('no key-value table here');
      await client.query(`DELETE FROM kv WHERE tenant_id = 'compat pg'`);
      const lines = Array.from({ length: 5_000 }, (_, i) => `compat pg\tkéy ${i}\t{"n": ${i}}\n`);
      const copied = async (...chunks) => {
        const copy = new CopyIn('COPY kv (tenant_id, key, value) FROM STDIN', chunks);
        client.query(copy);
        return copy.done;
      };
      equal(await copied(lines.slice(0, 7).join(''), lines.slice(7).join('')), 5_000);
      await databaseErrorOf('23505', () => copied('compat pg\tnew\t1\n', lines[7]));
      const columns = `tenant_id, key, value FROM kv WHERE tenant_id = 'compat pg'`;
      const copyOut = new CopyOut(`COPY (SELECT ${columns} ORDER BY (value->>'n')::int) TO STDOUT`);
      client.query(copyOut);
      equal(await copyOut.done, 5_000);
      equal(Buffer.concat(copyOut.data).toString(), lines.join(''));
      await client.query(`DELETE FROM kv WHERE tenant_id = 'compat pg'`);
    }),

  'a 5 MB value both ways': () =>
    withClient(async (client) => {
      const text = 'gröszer '.repeat(640_000);
      const { rows } = await client.query('SELECT $1::text AS value, length($1) AS length', [text]);
      equal(rows[0].value, text);
      const bytes = Buffer.alloc(5_000_000, 'pgkv');
      await client.query(`INSERT INTO compat_pg VALUES (900, 'large', $1)`, [bytes]);
      const stored = await client.query({ text: `DELETE FROM compat_pg WHERE id = 900 RETURNING data`, binary: true });
      ok(bytes.equals(stored.rows[0].data));
      return rows[0].length;
    }),

  '100,000 rows, whole and in portions': () =>
    withClient(async (client) => {
      const text = 'SELECT i, md5(i::text) AS hash FROM generate_series(1, 100000) AS i';
      const whole = await client.query({ text, rowMode: 'array' });
      equal(whole.rows.length, 100_000);
      const portions = new pg.Query({ text, rows: 777, values: [] });
      let rows = 0;
      let last;
      portions.on('row', (row) => {
        rows += 1;
        last = row;
      });
      const ended = new Promise((resolve, reject) => portions.on('end', resolve).on('error', reject));
      client.query(portions);
      await ended;
      equal(rows, 100_000);
      return [sha(JSON.stringify(whole.rows)), last];
    }),

  '20 connections at once': async () => {
    const pool = new pg.Pool({ max: 20 });
    const results = await Promise.all(
      Array.from({ length: 400 }, async (_, i) => {
        const client = await pool.connect();
        try {
          if (i % 4 !== 0) return (await client.query('SELECT $1::int AS i, pg_sleep(0.002)', [i])).rows[0].i;
          await client.query('BEGIN');
          await client.query(`SELECT set_config('pgkv_compat.turn', $1, true)`, [String(i)]);
          const { rows } = await client.query(`SELECT current_setting('pgkv_compat.turn')::int AS i`);
          await client.query('COMMIT');
          return rows[0].i;
        } finally {
          client.release();
        }
      }),
    );
    deepEqual(results, Array.from({ length: 400 }, (_, i) => i)); // biome-ignore format: short
    await pool.end();
    return results.length;
  },

  'session state stays with its session': () =>
    withClient((first) =>
      withClient(async (second) => {
        await first.query(
          `SET TimeZone = 'Pacific/Auckland'; SET pgkv_compat.mine = 'first'; CREATE TEMP TABLE compat_mine AS SELECT 7 AS n`,
        );
        await first.query('PREPARE sql_level (int) AS SELECT $1 + 1 AS n');
        await first.query('SELECT pg_advisory_lock(424242)');
        await first.query('BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 5) AS n; COMMIT');
        const others = [];
        for (let i = 0; i < 5; i++) {
          const { rows } = await second.query(
            `SELECT current_setting('pgkv_compat.mine', true) IS DISTINCT FROM 'first' AS unset, to_regclass('pg_temp.compat_mine') IS NULL AS no_table, pg_try_advisory_lock(424242) AS locked`,
          );
          others.push(rows[0]);
          deepEqual(rows[0], { unset: true, no_table: true, locked: false });
        }
        await databaseErrorOf('26000', () => second.query('EXECUTE sql_level(1)'));
        await databaseErrorOf('34000', () => second.query('FETCH 1 FROM held'));
        const mine = [
          (await first.query('SHOW TimeZone')).rows,
          (await first.query('SELECT n FROM compat_mine')).rows,
          (await first.query('EXECUTE sql_level(41)')).rows,
          (await first.query('FETCH 2 FROM held')).rows,
          (await first.query('SELECT pg_advisory_unlock(424242) AS unlocked')).rows,
          (await first.query('DISCARD ALL')).command,
          (await first.query(`SELECT to_regclass('pg_temp.compat_mine') AS gone`)).rows,
        ];
        equal(mine[2][0].n, 42);
        return [others, mine];
      }),
    ),

  'wrong password': async () => {
    if (!hasPassword) throw new Skip('no password is asked for here');
    return databaseErrorOf('28P01', () => withClient(() => undefined, { password: 'certainly wrong' }));
  },

  'unknown database': () =>
    databaseErrorOf('3D000', () => withClient(() => undefined, { database: 'no_such_database' })),
});

await withClient((client) => client.query('DROP TABLE compat_pg'));
