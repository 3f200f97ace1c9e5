// Rewritten statements against Postgres itself: what a statement answers on an ordinary table of the same definition,
// where expired rows have been removed, its rewritten text has to answer on a key-value table that still holds them.
import fc from 'fast-check';
import pg from 'pg';
import type { Test } from 'tap';
import type { KvTable } from '../../src/cluster/kv-table.js';
import { originalPosition, planKv, renderText } from '../../src/sql/keyed/kv-analysis.js';
import { loadParser, parse } from '../../src/sql/meaning/parse.js';
import { lexShape } from '../../src/sql/text/shape-lexer.js';
import type { TextParts } from '../../src/sql/text/text-parts.js';
import { type KvServer, onEveryPostgres } from '../support/kv-extension.js';

await loadParser();

/** The ordinary table has triggers instead of a router, and none but the key's columns in its primary key. */
const TABLES = `
  CREATE SCHEMA shard;
  SELECT pgkv.create_table('shard.kv');
  ALTER TABLE shard.kv ALTER version SET DEFAULT 1;
  CREATE SCHEMA plain;
  CREATE TABLE plain.kv (LIKE shard.kv INCLUDING DEFAULTS INCLUDING STORAGE, PRIMARY KEY (tenant_id, key));
  CREATE TRIGGER slot BEFORE INSERT ON plain.kv FOR EACH ROW EXECUTE FUNCTION pgkv.keep_slot();
  CREATE TRIGGER version BEFORE UPDATE ON plain.kv FOR EACH ROW WHEN (NEW.version = OLD.version)
    EXECUTE FUNCTION pgkv.keep_version();`;

const rowsFor = (schema: string): string => `
  INSERT INTO ${schema}.kv (tenant_id, key, version, value, ttl, updated_at) VALUES
    ('t1', 'a', 1, '1', NULL, '2020-01-01'), ('t1', 'b', 5, '{"n": 2}', NULL, '2020-01-01'),
    ('t1', 'c', 2, '"é😀"', '2100-01-01', '2020-01-01'), ('t2', 'a', 3, NULL, NULL, '2020-01-01'),
    ('t2', 'it''s', 4, '[1, 2]', '2100-01-01', '2020-01-01')`;
const EXPIRED_ROWS = `
  INSERT INTO shard.kv (tenant_id, key, version, value, ttl, updated_at) VALUES
    ('t1', 'x', 7, '1', '2020-01-01', '2020-01-01'), ('t1', 'y', 8, '{"n": 2}', '2020-01-01', '2020-01-01'),
    ('t2', 'b', 9, '1', now() - interval '1 ms', '2020-01-01'), ('t2', 'x', 9, '1', '-infinity', '2020-01-01')`;

const find = (schema: string | null, name: string): KvTable | null =>
  name === 'kv' && schema === null ? { schema: 'shard', name, valueType: 'jsonb' } : null;

interface Rewritten {
  readonly text: string;
  readonly parts: TextParts;
  readonly literals: readonly number[];
}

function rewrite(text: string): Rewritten {
  const parsed = parse(text);
  const literals = lexShape(text, true)?.literals;
  if (parsed.kind === 'failed' || literals === undefined) throw new Error(`cannot be parsed: ${text}`);
  const plan = planKv({
    text,
    statements: parsed.statements,
    literals,
    scope: { find, holds: () => false, searchesPgkv: false },
  });
  if (plan?.kind !== 'kv') throw new Error(`${plan?.reason ?? 'not on a key-value table'}: ${text}`);
  return { text: renderText(plan.text, text, literals), parts: plan.text, literals };
}

interface Statement {
  readonly text: string;
  readonly values: readonly (string | null)[];
}

const isServerError = (error: unknown): error is pg.DatabaseError => error instanceof pg.DatabaseError;

class Database {
  readonly client: pg.Client;

  constructor(client: pg.Client) {
    this.client = client;
  }

  /** Answer or error, parameter types, and what is in the table afterwards. Nothing stays changed. */
  async play(schema: 'plain' | 'shard', text: string, values: readonly (string | null)[]): Promise<object> {
    await this.client.query(`BEGIN; SET LOCAL search_path = ${schema}; ${rowsFor(schema)}`);
    if (schema === 'shard') await this.client.query(EXPIRED_ROWS);
    await this.client.query('SAVEPOINT start');
    const parameterTypes = await this.parameterTypes(text);
    const answer = await this.answer(text, values);
    await this.client.query('ROLLBACK TO SAVEPOINT start');
    let rows: unknown = 'error';
    if (!('code' in answer)) {
      await this.answer(text, values);
      const result = await this.client.query(
        `SELECT tenant_id, key, version, value, ttl, updated_at = '2020-01-01' AS is_old, slot FROM kv
        WHERE ttl IS NULL OR ttl > statement_timestamp() ORDER BY 1, 2`,
      );
      rows = result.rows;
    }
    await this.client.query('ROLLBACK');
    return { parameterTypes, answer, rows };
  }

  private async parameterTypes(text: string): Promise<unknown> {
    try {
      await this.client.query(`PREPARE probe AS ${text}`);
      const { rows } = await this.client.query(
        `SELECT parameter_types::text[] AS types FROM pg_prepared_statements WHERE name = 'probe'`,
      );
      await this.client.query('DEALLOCATE probe');
      return rows[0];
    } catch (error) {
      if (!isServerError(error)) throw error;
      await this.client.query('ROLLBACK TO SAVEPOINT start');
      return error.code;
    }
  }

  private async answer(text: string, values: readonly (string | null)[]): Promise<object> {
    try {
      const config = { text, values: [...values], rowMode: 'array', types: { getTypeParser: () => String } };
      const { fields, rows, command, rowCount } = await this.client.query<(string | null)[]>(
        config as unknown as pg.QueryArrayConfig,
      );
      const stamps = fields.map(({ name }) => name === 'updated_at');
      const shown = rows.map((row) => row.map((value, index) => (stamps[index] === true ? 'some time' : value)));
      return {
        columns: fields.map(({ name, dataTypeID }) => `${name} ${dataTypeID}`),
        // Rows without ORDER BY come in any order.
        rows: text.includes('ORDER BY') ? shown : shown.map((row) => JSON.stringify(row)).sort(),
        tag: `${command} ${rowCount}`,
      };
    } catch (error) {
      if (!isServerError(error)) throw error;
      return { code: error.code, message: error.message, position: error.position };
    }
  }

  async comparesEqual(t: Test, { text, values }: Statement): Promise<string> {
    const rewritten = rewrite(text);
    const expected = await this.play('plain', text, values);
    const actual = (await this.play('shard', rewritten.text, values)) as { answer: { position?: string } };
    const { position } = actual.answer;
    if (position !== undefined) {
      actual.answer.position = `${originalPosition(rewritten.parts, text, rewritten.literals, Number(position))}`;
    }
    const isEqual = t.same(actual, expected, `${text} ${JSON.stringify(values)}`, { rewritten: rewritten.text });
    return isEqual ? JSON.stringify(expected) : '';
  }
}

/** With an error position behind what was put in, in texts with characters of more than one byte. */
const HAND_PICKED: readonly (readonly [text: string, ...values: (string | null)[]])[] = [
  ['SELECT * FROM kv ORDER BY tenant_id, key'],
  ['SELECT count(*), min(version), max(value->>$1) FROM kv', 'n'],
  ['SELECT key FROM kv WHERE version > 0 OR true ORDER BY 1 -- all'],
  ["SELECT (k).value, to_jsonb(k) - 'updated_at' FROM kv k WHERE (tenant_id, key) = ('t1', 'b')"],
  ["SELECT xmin IS NULL, tableoid::regclass::text LIKE '%kv' FROM kv WHERE tenant_id = 't1' AND key = 'x'"],
  [
    "SELECT key FROM kv WHERE tenant_id = 't1' AND key IN ('a', 'x', 'b') ORDER BY key DESC LIMIT 1 OFFSET 1 FOR UPDATE",
  ],
  ['SELECT key FROM kv WHERE tenant_id = $1 AND key = ANY($2) ORDER BY key', 't1', '{a,x,c,NULL}'],
  ["SELECT (SELECT count(*) FROM jsonb_each(value)) FROM kv WHERE tenant_id = 't1' AND key = 'b'"],
  ['SELECT tenant_id, count(*) FROM kv GROUP BY tenant_id HAVING count(*) > 1 ORDER BY 2 DESC, 1'],
  ["SELECT 'é😀', nothing FROM kv WHERE tenant_id = 't1'"],
  ["SELECT 'é😀' FROM kv /* é😀 */ WHERE tenant_id = 't1' AND nothing = 1"],
  ["SELECT 'é😀' FROM kv WHERE tenant_id = 't1' ORDER BY nothing"],
  ['SELECT 1 / (version - version) FROM kv'],
  ["SELECT * FROM kv WHERE tenant_id = 't1' AND key = 1"],
  ["SELECT * FROM kv AS k WHERE kv.tenant_id = 't1'"],
  ["UPDATE kv SET value = '2' WHERE tenant_id = 't1' AND key = 'x' RETURNING *"],
  ["UPDATE kv SET value = '2' WHERE tenant_id = 't1' AND key = 'a' AND version = $1 RETURNING *", '1'],
  ["UPDATE kv SET value = '2' WHERE tenant_id = 't1' AND key = 'a' AND version = $1 RETURNING *", '2'],
  [
    "UPDATE kv k SET value = $1, ttl = $2 WHERE tenant_id = 't1' AND k.key = 'b' RETURNING k.version",
    '3',
    '2100-01-01',
  ],
  [
    "UPDATE kv SET (value, ttl) = (value || '{\"x\":1}', $1) WHERE tenant_id = 't1' AND key = 'b' RETURNING value",
    null,
  ],
  ["UPDATE kv SET version = version + 10, updated_at = '2000-01-01' WHERE tenant_id = 't1' RETURNING version"],
  [
    "UPDATE kv SET value = jsonb_set(value, '{n}', to_jsonb((value->>'n')::int + 1)) WHERE tenant_id = 't1' AND key = 'b'",
  ],
  ["UPDATE kv SET value['n'] = '7' WHERE tenant_id = 't1' AND key = 'b' RETURNING value"],
  ["UPDATE kv SET value = '{' WHERE tenant_id = 't1'"],
  ["UPDATE kv SET /* é😀 */ nothing = 1 WHERE tenant_id = 't1'"],
  ["UPDATE kv SET value = nothing, ttl = NULL WHERE tenant_id = 't1'"],
  ["DELETE FROM kv WHERE tenant_id = 't1' AND key = 'x'"],
  ["DELETE FROM kv WHERE tenant_id = 't1' AND key = 'a' RETURNING version"],
  ['DELETE FROM kv'],
  ["DELETE FROM kv USING WHERE nothing = 'é'".replace('USING ', '')],
  ["INSERT INTO kv VALUES ('t1', 'n')"],
  ["INSERT INTO kv VALUES ('t1', 'x', DEFAULT, '5') RETURNING *"],
  ["INSERT INTO kv VALUES ('t1', 'x', 12, '5', NULL, now(), NULL) RETURNING version, slot"],
  ["INSERT INTO kv VALUES ('t1', 'x', 12, '5', NULL, now(), DEFAULT) RETURNING version, slot"],
  ["INSERT INTO kv VALUES ('t1', 'x', 12, '5', NULL, now(), $1) RETURNING version, slot", null],
  ["INSERT INTO kv VALUES ('t1', 'x', 12, '5', NULL, now(), $1)", '1'],
  ["INSERT INTO kv VALUES ('t1', 'a')"],
  ["INSERT INTO kv VALUES (NULL, 'a')"],
  ['INSERT INTO kv (key, tenant_id) VALUES ($1, $2)', 'x', null],
  ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'x'), ('t1', 'x')"],
  ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'x'), (NULL, 'y')"],
  ["INSERT INTO kv (tenant_id, key, value) VALUES ('t1', 'x', '{')"],
  ["INSERT INTO kv (tenant_id, key, value) VALUES ('t1', 'x', '1'), ('t1', 'y', nothing)"],
  ["INSERT INTO kv (tenant_id, key, value) VALUES ('t1', 'x'), ('t1', 'y', '1')"],
  ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'x', '1')"],
  ["INSERT INTO kv (tenant_id, key, key) VALUES ('t1', 'x', 'y')"],
  ["INSERT INTO kv (tenant_id, key, nothing) VALUES ('é😀', 'x', 'y')"],
  ['INSERT INTO kv AS k (value, key, tenant_id) VALUES ($1, $2, $3::varchar) RETURNING k.value', '1', 'x', 't1'],
  ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'x') ON CONFLICT DO NOTHING RETURNING version"],
  ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'a') ON CONFLICT DO NOTHING RETURNING version"],
  [
    "INSERT INTO kv (tenant_id, key) VALUES ('t1', 'a'), ('t1', 'x') ON CONFLICT (key, tenant_id) DO NOTHING RETURNING key",
  ],
  ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'a'), ('t2', 'b') ON CONFLICT ON CONSTRAINT kv_pkey DO NOTHING"],
  [
    `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)
    ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value, ttl = NULL RETURNING *`,
    ...['t1', 'x', '5'],
  ],
  [
    `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)
    ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value, ttl = NULL RETURNING *`,
    ...['t1', 'c', '5'],
  ],
  [
    `INSERT INTO kv AS k (tenant_id, key, value) VALUES ('t1', 'b', '1'), ('t1', 'y', '{"y": 1}')
    ON CONFLICT (tenant_id, key) DO UPDATE SET value = k.value || excluded.value WHERE k.version = $1 RETURNING version`,
    '5',
  ],
  [
    `INSERT INTO kv (tenant_id, key, value) VALUES ('t1', 'b', '1') ON CONFLICT (tenant_id, key)
    DO UPDATE SET version = excluded.version + 100 RETURNING version`,
  ],
  [
    "INSERT INTO kv (tenant_id, key) VALUES ('t1', 'x'), ('t1', 'x') ON CONFLICT (tenant_id, key) DO UPDATE SET value = '1'",
  ],
  ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'a') ON CONFLICT (tenant_id, key) DO UPDATE SET nothing = 'é'"],
  [
    "INSERT INTO kv (tenant_id, key) VALUES ('é😀', 'a') ON CONFLICT (tenant_id, key) DO UPDATE SET value = 'é' RETURNING nothing",
  ],
];

const TENANTS = ['t1', 't2', 't3'];
const KEYS = ['a', 'b', 'c', 'x', 'y', 'n', "it's"];
const quoted = (value: string): string => `'${value.replaceAll("'", "''")}'`;

/** A place for a value in a generated text; parameters are numbered when the text is put together. */
interface Place {
  readonly value: string;
  readonly form: (value: string, parameter: () => string) => string;
}

const TEXT_FORMS: readonly Place['form'][] = [
  (value) => quoted(value),
  (value) => `${quoted(value)}::text`,
  (value) => `$x$${value}$x$`,
  (value) => `E${quoted(value)}`,
  (value) => `CAST(${quoted(value)} AS varchar)`,
  (_, parameter) => parameter(),
  (_, parameter) => parameter(),
  (_, parameter) => `${parameter()}::text`,
  (_, parameter) => `CAST(${parameter()} AS varchar)`,
];

type Piece = string | Place;
const place = (values: readonly string[]) =>
  fc.record({ value: fc.constantFrom(...values), form: fc.constantFrom(...TEXT_FORMS) });
const tenant = place(TENANTS);
const key = place(KEYS);
const value = fc.constantFrom<Piece>(
  'NULL',
  '\'{"v": 1}\'',
  "jsonb_build_array(1, 'x')",
  { value: '[3]', form: (_, parameter) => parameter() },
  { value: '"s"', form: (_, parameter) => `to_jsonb(${parameter()}::text)` },
);
const alias = fc.constantFrom('', ' AS k', ' "K"', ' k');
const nameOf = (text: string): string => text.replace(/^ (AS )?/, '') || 'kv';

const keyed = fc.oneof(
  fc.tuple(tenant, key).map(([one, other]): Piece[] => ['tenant_id = ', one, ' AND key = ', other]),
  fc.tuple(tenant, key).map(([one, other]): Piece[] => [other, ' = key AND (', one, ' = tenant_id)']),
  fc.tuple(tenant, key, key).map(([one, a, b]): Piece[] => ['tenant_id = ', one, ' AND key IN (', a, ', ', b, ')']),
  fc
    .tuple(tenant, key, tenant, key)
    .map(([a, b, c, d]): Piece[] => ['(tenant_id, key) IN ((', a, ', ', b, '), (', c, ', ', d, '))']),
  fc.tuple(tenant, key).map(([one, a]): Piece[] => ['tenant_id = ', one, ' AND key = ANY(ARRAY[', a, ", 'x'])"]),
  tenant.map((one): Piece[] => ['tenant_id = ', one, " AND key = ANY('{a,x,\"it''s\"}')"]),
);
const where = fc.oneof(
  { weight: 4, arbitrary: keyed.map((pieces): Piece[] => [' WHERE ', ...pieces]) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(keyed, fc.constantFrom('version > 1', 'value IS NOT NULL', 'ttl IS NULL OR version = 2', "NOT key = 'b'"))
      .map(([pieces, more]): Piece[] => [` WHERE (${more}) AND `, ...pieces]),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Piece[]>([], [' WHERE version < 4 OR ttl IS NOT NULL'], [" WHERE tenant_id = 't1'"]),
  },
);

const select = fc
  .tuple(
    alias,
    where,
    fc.constantFrom('*', 'key, version + 1 AS v', 'value, ttl, updated_at'),
    fc.constantFrom('', ' DESC'),
  )
  .map(([called, condition, list, order]): Piece[] => [
    `SELECT ${list} FROM kv${called}`,
    ...condition,
    ` ORDER BY ${nameOf(called)}.tenant_id${order}, ${nameOf(called)}.key LIMIT 5`,
  ]);
const update = fc
  .tuple(alias, where, value, fc.constantFrom('', ', ttl = NULL', ', updated_at = now()', ', version = version + 2'))
  .map(([called, condition, one, more]): Piece[] => [
    ...[`UPDATE kv${called} SET value = `, one, more, ...condition],
    ` RETURNING ${nameOf(called)}.*`,
  ]);
const remove = fc
  .tuple(alias, where)
  .map(([called, condition]): Piece[] => [`DELETE FROM kv${called}`, ...condition, ` RETURNING ${nameOf(called)}.key`]);
const conflict = fc.oneof(
  fc.constantFrom<Piece[]>([], [], [' ON CONFLICT DO NOTHING'], [' ON CONFLICT (key, tenant_id) DO NOTHING']),
  value.map((one): Piece[] => [' ON CONFLICT (tenant_id, key) DO UPDATE SET value = ', one]),
  fc.constantFrom<Piece[]>(
    [' ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value, ttl = excluded.ttl'],
    [' ON CONFLICT ON CONSTRAINT kv_pkey DO UPDATE SET version = 7 WHERE kv.version > 1'],
  ),
);
const row = fc.record({ tenant, key, value, ttl: fc.constantFrom('NULL', "'2100-01-01'", 'DEFAULT') });
const insert = fc
  .tuple(fc.array(row, { minLength: 1, maxLength: 3 }), fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }), conflict)
  .map(([rows, order, onConflict]): Piece[] => {
    const names = ['tenant_id', 'key', 'value', 'ttl'];
    const lists = rows.map((one) => {
      const values: Piece[] = [one.tenant, one.key, one.value, one.ttl];
      return order.flatMap((index, at): Piece[] => [at === 0 ? '(' : ', ', values[index]!]).concat(')');
    });
    return [
      `INSERT INTO kv (${order.map((index) => names[index]).join(', ')}) VALUES `,
      ...lists.flatMap((list, at): Piece[] => (at === 0 ? list : [', ', ...list])),
      ...onConflict,
      ' RETURNING tenant_id, key, version, value, ttl',
    ];
  });

const statement = fc.oneof(select, update, remove, insert, insert).map((pieces): Statement => {
  const values: string[] = [];
  const text = pieces.map((piece) =>
    typeof piece === 'string' ? piece : piece.form(piece.value, () => `$${values.push(piece.value)}`),
  );
  return { text: text.join(''), values };
});

/** Waits until the server says that a session waits for a lock. */
async function waitsForLock(observer: pg.Client, pid: number): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt++) {
    const { rows } = await observer.query('SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = $2', [
      pid,
      'Lock',
    ]);
    if (rows.length > 0) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`session ${pid} does not wait`);
}

async function testServer(t: Test, { connect }: KvServer): Promise<void> {
  const client = await connect(t);
  await client.query(TABLES);
  const database = new Database(client);

  await t.test('hand-picked statements answer as on an ordinary table', async (t) => {
    for (const [text, ...values] of HAND_PICKED) await database.comparesEqual(t, { text, values });
  });

  await t.test('generated statements answer as on an ordinary table', async (t) => {
    const seed = Date.now() % 1_000_000_007;
    t.comment(`seed ${seed}`);
    const statements = fc.sample(statement, { numRuns: 250, seed });
    const answers = new Set<string>();
    for (const one of statements) answers.add(await database.comparesEqual(t, one));
    t.ok(answers.size > 100, `${answers.size} different answers`);
  });

  await t.test('the dead row is gone before the new one comes, whatever the plan', async (t) => {
    await client.query('SET search_path = shard');
    const settings = ['enable_indexscan', 'enable_bitmapscan', 'enable_nestloop', 'enable_hashjoin', 'enable_seqscan'];
    const text = `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, '1'), ($3::text, 'k2', '2'), ('t', $4, '3')`;
    for (const rows of [0, 2_000]) {
      for (const setting of ['plan_cache_mode = force_generic_plan', ...settings.map((name) => `${name} = off`)]) {
        await client.query('BEGIN');
        await client.query(`INSERT INTO kv (tenant_id, key) SELECT 'u', g::text FROM generate_series(1, ${rows}) g`);
        await client.query('ANALYZE kv');
        await client.query(`SET LOCAL ${setting}`);
        await client.query(`PREPARE several AS ${rewrite(text).text}`);
        for (let attempt = 0; attempt < 7; attempt++) {
          await client.query("EXECUTE several('t', 'k1', 't', 'k3')");
          const { rows: expired } = await client.query(
            "UPDATE kv SET ttl = statement_timestamp() - interval '1 us' WHERE tenant_id = 't' RETURNING key",
          );
          t.equal(expired.length, 3, `${rows} rows, ${setting}`);
        }
        await client.query('DEALLOCATE several; ROLLBACK');
      }
    }
  });

  await t.test('parameters may have been declared as varchar, as JDBC does', async (t) => {
    await client.query('SET search_path = shard');
    const text = 'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3), ($1, $4, NULL)';
    await client.query(`PREPARE declared(varchar, varchar, jsonb, text) AS ${rewrite(text).text}`);
    t.equal((await client.query("EXECUTE declared('t', 'a', '1', 'b')")).rowCount, 2);
    await client.query(
      `PREPARE declared_read(varchar) AS ${rewrite("SELECT * FROM kv WHERE tenant_id = $1 AND key = 'b'").text}`,
    );
    t.equal((await client.query("EXECUTE declared_read('t')")).rows.length, 1);
    await client.query('TRUNCATE kv');
  });

  await t.test('a failed INSERT reaps nothing', async (t) => {
    await client.query('SET search_path = shard');
    await client.query(EXPIRED_ROWS);
    const FAILING = [
      ["INSERT INTO kv (tenant_id, key, value) VALUES ('t1', 'x', ('{' || repeat('x', 3))::jsonb)", '22P02'],
      ["INSERT INTO kv (tenant_id, key, value) VALUES ('t1', 'x', '1'), ('t1', 'y', '1'), (NULL, 'z', '1')", '23502'],
      ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'x'), ('t1', 'x')", '23505'],
      ["INSERT INTO kv (tenant_id, key) VALUES ('t1', 'x') RETURNING 1 / (version - 1)", '22012'],
    ];
    for (const [text, code] of FAILING) {
      await t.rejects(client.query(rewrite(text!).text), { code: code! }, text!);
      const { rows } = await client.query('SELECT count(*)::int AS count FROM kv WHERE version > 6');
      t.same(rows, [{ count: 4 }], text!);
    }
    await client.query('TRUNCATE kv');
  });

  await t.test('of two sessions that write a dead key the second sees the first', async (t) => {
    const other = await connect(t);
    for (const one of [client, other]) await one.query('SET search_path = shard');
    const { rows: pids } = await other.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const KEY = "(tenant_id, key, value) VALUES ('t1', 'x', $1)";
    const RACES = [
      ['', 'commit', { code: '23505' }, '1'],
      ['', 'rollback', { rowCount: 1 }, '2'],
      ['ON CONFLICT DO NOTHING', 'commit', { rowCount: 0 }, '1'],
      ['ON CONFLICT DO NOTHING', 'rollback', { rowCount: 1 }, '2'],
      ['ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value', 'commit', { rowCount: 1 }, '2'],
      ['ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value', 'rollback', { rowCount: 1 }, '2'],
    ] as const;
    for (const [tail, end, outcome, left] of RACES) {
      const name = `${tail} after ${end}`;
      await client.query('TRUNCATE kv');
      await client.query(EXPIRED_ROWS);
      const text = rewrite(`INSERT INTO kv ${KEY} ${tail}`).text;
      await client.query('BEGIN');
      t.equal((await client.query(text, ['1'])).rowCount, 1, name);
      const second = other.query(text, ['2']).then(
        ({ rowCount }) => ({ rowCount }),
        (error: pg.DatabaseError) => ({ code: error.code }),
      );
      const observer = await connect(t);
      await waitsForLock(observer, pids[0]!.pid);
      await client.query(end);
      t.same(await second, outcome, name);
      const { rows } = await client.query(
        "SELECT value::text, version::int FROM kv WHERE tenant_id = 't1' AND key = 'x'",
      );
      const isUpdate = tail.includes('UPDATE') && end === 'commit';
      t.same(rows, [{ value: left, version: isUpdate ? 2 : 1 }], name);
    }
    await client.query('TRUNCATE kv');
  });

  await t.test('calls of the table’s functions run as they stand', async (t) => {
    await client.query('SET search_path = shard');
    await client.query(EXPIRED_ROWS);
    t.same((await client.query(rewrite("SELECT * FROM kv_get('t1', 'x')").text)).rows, []);
    const put = await client.query(rewrite("SELECT kv_put(tenant => 't1', key => $1, value => '1') AS version").text, [
      'x',
    ]);
    t.same(put.rows, [{ version: '1' }]);
    t.equal((await client.query(rewrite("SELECT (kv_get('t1', $1)).*, 1 AS one").text, ['x'])).rows.length, 1);
    t.equal(
      (await client.query(rewrite('SELECT * FROM kv_get_many($1, $2)').text, ['{t1,t1}', '{x,y}'])).rows.length,
      1,
    );
    await client.query('TRUNCATE kv');
  });
}

onEveryPostgres(testServer);
