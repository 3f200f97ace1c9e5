// `pgkv sql` against the real psql 15: the same arguments and input give the same output, errors and exit code, byte
// for byte (only the program's name in messages differs). Below that, what psql has no counterpart for.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { runProgram } from '../../src/cli/program.js';
import type { Terminal } from '../../src/cli/terminal.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';

const installed = findPostgres('15');
if (!installed?.psql) {
  t.plan(0, 'PostgreSQL 15 with psql is not installed');
  process.exit(0);
}

interface Outcome {
  readonly exitCode: number | null;
  readonly output: string;
  readonly errors: string;
}

interface Case {
  readonly name: string;
  /** For both programs; `FILE` stands for a file with `file`'s text. */
  readonly args: readonly string[];
  /** Standard input; psql and pgkv treat its absence as an empty one. */
  readonly input?: string | Buffer;
  readonly file?: string;
  /** Flags whose names differ. */
  readonly psqlArgs?: readonly string[];
  readonly pgkvArgs?: readonly string[];
}

const folder = mkdtempSync(join(tmpdir(), 'pgkv-cli-sql-'));
const server = await startPostgres({ version: '15', parameters: { max_connections: '20' } });
t.teardown(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});
const env = environmentOf(server, 'postgres', server.superuser);
await prepare();

function environmentOf({ host, port }: PostgresServer, database: string, user: string): Record<string, string> {
  return { PGHOST: host, PGPORT: String(port), PGDATABASE: database, PGUSER: user, PGCLIENTENCODING: 'UTF8' };
}

async function prepare(): Promise<void> {
  const client = new pg.Client({ host: server.host, port: server.port, user: server.superuser, database: 'postgres' });
  await client.connect();
  await client.query(`
    CREATE TABLE kv (tenant_id text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
      version bigint NOT NULL DEFAULT 1, value jsonb, ttl timestamptz, slot int NOT NULL CHECK (slot >= 0),
      PRIMARY KEY (tenant_id, key, slot));
    CREATE INDEX kv_ttl ON kv (ttl) WHERE ttl IS NOT NULL;
    CREATE TABLE child (id serial PRIMARY KEY, tenant_id text UNIQUE, key text, slot int,
      FOREIGN KEY (tenant_id, key, slot) REFERENCES kv ON DELETE CASCADE);
    CREATE TABLE generated (i int GENERATED ALWAYS AS IDENTITY, a int, g int GENERATED ALWAYS AS (a * 2) STORED);
    CREATE VIEW live AS SELECT key, value FROM kv;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER touched BEFORE UPDATE ON kv FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE TRIGGER off AFTER DELETE ON kv FOR EACH ROW EXECUTE FUNCTION touch();
    ALTER TABLE kv DISABLE TRIGGER off;
    CREATE TABLE parent (a int, b text) PARTITION BY RANGE (a);
    CREATE TABLE parent_1 PARTITION OF parent FOR VALUES FROM (1) TO (10);
    CREATE TABLE base (a int);
    CREATE TABLE derived () INHERITS (base);
    CREATE SCHEMA other;
    CREATE TABLE other."Odd Name" (x numeric(10,2), y varchar(5)[]);
    CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''select 1/0 from nowhere''; RETURN 1; END';
    CREATE FUNCTION warns() RETURNS int LANGUAGE plpgsql AS $$
      BEGIN RAISE WARNING 'careful' USING DETAIL = 'a detail', HINT = 'a hint'; RETURN 1; END $$;
    CREATE ROLE reader NOLOGIN;
    CREATE ROLE app LOGIN CONNECTION LIMIT 5 IN ROLE reader VALID UNTIL '2099-01-01';
  `);
  await client.end();
}

/** Sampled over the blocks where widths differ; only characters that psql 15's tables (Unicode 14) know. */
const WIDTHS = `SELECT chr(i) AS c, i FROM generate_series(161, 131072, 7) i
  WHERE i NOT BETWEEN 55296 AND 63743 AND chr(i) ~ '\\w' OR i BETWEEN 12288 AND 12543 OR i BETWEEN 65281 AND 65500
    OR i BETWEEN 127744 AND 127870 ORDER BY i`;

const sql = (name: string, ...statements: string[]): Case => ({ name, args: statements.flatMap((s) => ['-c', s]) });
const script = (name: string, input: string, ...args: string[]): Case => ({ name, args, input });

const CASES: readonly Case[] = [
  sql('numbers stand on the right, texts on the left', `SELECT 1 AS a, 'x' AS b, 2.50::numeric, 1e10::float8, true`),
  sql('null and the empty text are both blank', `SELECT NULL AS n, '' AS e, NULL::int AS i`),
  sql('no rows', `SELECT 1 AS a WHERE false`),
  sql('one and several rows are counted', `VALUES (1)`, `SELECT g, g * 1000 FROM generate_series(1, 12) g`),
  sql('no columns', `SELECT`, `SELECT FROM generate_series(1, 3)`),
  sql(
    'oid, money, xid and friends stand on the right',
    `SELECT 1::oid, 2::money, '3'::xid, '4'::cid, '5'::xid8, 6::int2`,
  ),
  sql('dates, arrays, json, bytea', `SELECT date '2020-02-03', '{1,2}'::int[], '{"a": 1}'::jsonb, '\\xdead'::bytea`),
  sql('a wide header over narrow values', `SELECT 1 AS "a header that is much wider than its value", 'y' AS z`),
  sql('line ends in values and headers', `SELECT E'a\\nbcd\\n' AS "two\nlines", 1 AS n, E'x\\ny' AS last`),
  sql('line ends beside a number column', `SELECT E'a\\nb' AS a, 12345 AS "n\nn", E'\\n' AS b, '' AS c`),
  sql(
    'tabs, carriage returns and control characters',
    `SELECT E'a\\tb' AS t, E'c\\rd' AS r, E'\\x01\\x7f' AS c, E'\\u0085' AS u`,
  ),
  sql(
    'wide and combining characters',
    `SELECT '漢字' AS "列", 'e\u0301' AS combining, '한국어' AS k, '😀' AS emoji, 'ﾊﾝｶｸ' AS h`,
  ),
  sql('widths over many blocks', WIDTHS),
  sql('duplicate column names', `SELECT 1 AS a, 2 AS a`),
  sql(
    'several statements in one text',
    `SELECT 1 AS a; SELECT 2 AS b; CREATE TEMP TABLE x (a int); INSERT INTO x VALUES (1)`,
  ),
  sql('tags', `BEGIN`, `CREATE TEMP TABLE x AS SELECT 1`, `SET work_mem = '1MB'`, `LISTEN a`, `NOTIFY b`),
  sql('an empty statement', ``, `;`, `-- nothing`),
  sql(
    'INSERT, UPDATE, DELETE with RETURNING',
    `CREATE TABLE ret (a int); INSERT INTO ret VALUES (1), (2) RETURNING a; UPDATE ret SET a = 3 RETURNING *; DELETE FROM ret RETURNING a; DROP TABLE ret`,
  ),
  sql('EXPLAIN', `EXPLAIN (COSTS OFF) SELECT * FROM kv WHERE slot = 1`),
  sql('SHOW', `SHOW server_encoding`, `SHOW work_mem`),
  sql('expanded output', `\\x`, `SELECT 1`),
  {
    name: 'expanded',
    args: ['-x', '-c', `SELECT 1 AS a, 'xyz' AS "long name", NULL AS n UNION ALL SELECT 2, 'b', 'c'`],
  },
  {
    name: 'expanded with line ends',
    args: ['-x', '-c', `SELECT E'a\\nbcd' AS "h\ni", '漢字' AS w, repeat('z', 40) AS "列"`],
  },
  { name: 'expanded without rows or columns', args: ['-x', '-c', `SELECT 1 AS a WHERE false`, '-c', 'SELECT'] },
  {
    name: 'expanded, ten records',
    args: ['-x', '-c', `SELECT g, repeat('w', g) AS text FROM generate_series(1, 11) g`],
  },
  {
    name: 'csv',
    args: ['--csv', '-c', `SELECT 'a,b' AS "x""y", E'l\\nm' AS n, NULL AS z, '' AS e, '\\.' AS d, 'q"q' AS q`],
  },
  { name: 'csv, expanded', args: ['--csv', '-x', '-c', `SELECT 1 AS a, 'b,c' AS b`] },
  sql('a syntax error with its line and caret', `SELECT 1 FROM\nWHERE x`),
  sql(
    'an error in a long line, cut on the right',
    `SELECT nope, ${Array.from({ length: 30 }, (_, i) => `${i} AS column_${i}`).join(', ')}`,
  ),
  sql(
    'an error in a long line, cut on both sides',
    `SELECT ${Array.from({ length: 30 }, (_, i) => `${i} AS column_${i}`).join(', ')}, nope, ${Array.from({ length: 30 }, (_, i) => `${i} AS d${i}`).join(', ')}`,
  ),
  sql(
    'an error at the end of a long line',
    `SELECT ${Array.from({ length: 30 }, (_, i) => `${i} AS column_${i}`).join(', ')}, nope`,
  ),
  sql('an error behind wide characters and tabs', `SELECT '漢字',\t'😀', nope`, `SELECT\r\n1,\r\nnope`),
  sql(
    'DETAIL',
    `INSERT INTO kv VALUES ('t', 'k', 1, '{}', NULL, 1); INSERT INTO kv VALUES ('t', 'k', 1, '{}', NULL, 1)`,
  ),
  sql('HINT', `SELECT lower(1, 2)`),
  sql('QUERY and CONTEXT of a function', `SELECT fails()`),
  sql('a warning with DETAIL and HINT', `SELECT warns()`),
  sql('notices', `DROP TABLE IF EXISTS absent`, `DO $$ BEGIN RAISE NOTICE 'a %', E'b\\nc'; END $$`),
  sql('an error in the second statement', `SELECT 1 AS a; SELECT 1/0; SELECT 2`),
  sql('the last command decides the exit code', `SELECT 1/0`, `SELECT 1`),
  { name: 'ON_ERROR_STOP ends -c', args: ['-v', 'ON_ERROR_STOP=1', '-c', 'SELECT 1/0', '-c', 'SELECT 1'] },
  {
    name: 'verbose errors',
    args: [
      '-c',
      `INSERT INTO kv VALUES ('t2', 'k', 1, '{}', NULL, -1)`,
      '-c',
      'SELECT fails()',
      '-c',
      'SELECT warns()',
      '-c',
      `SELECT 'x'::int`,
    ],
    psqlArgs: ['-v', 'VERBOSITY=verbose'],
    pgkvArgs: ['--verbose'],
  },
  script('a script on standard input', 'SELECT 1 AS a;\nSELECT\n2\n\n+ 1 AS b;\n-- a comment\nSELECT 3 -- behind\n;'),
  script('the last statement needs no semicolon', 'SELECT 1;\nSELECT 2 AS last'),
  script(
    'semicolons in quotes, comments, dollar quotes and parentheses',
    `SELECT ';' AS ";", $$;$$, $a$;$b$;$a$ /* ; /* ; */ ; */, E'\\';', (1 ; \n); SELECT 2;`,
  ),
  script('\\; joins statements', 'SELECT 1\\; SELECT 2;'),
  script(
    'a function body with BEGIN ATOMIC',
    `CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;\nSELECT pg_temp.f();`,
  ),
  script('error lines count from the statement', '\n\n-- comment\n/* c */ SELECT 1,\n  nope\nFROM kv;'),
  script('errors do not end a script', 'SELECT 1/0;\nSELECT 1;'),
  script('ON_ERROR_STOP ends a script with 3', 'SELECT 1/0;\nSELECT 1;', '-v', 'ON_ERROR_STOP=1'),
  script('\\set ON_ERROR_STOP', '\\set ON_ERROR_STOP on\nSELECT nope;\nSELECT 1;'),
  script('a failed transaction', 'BEGIN;\nSELECT 1/0;\nSELECT 1;\nCOMMIT;\nSELECT 2;'),
  script(
    'standard_conforming_strings off',
    `SET standard_conforming_strings = off;\nSET escape_string_warning = off;\nSELECT 'a\\';b';`,
  ),
  script('unterminated quotes', `SELECT 'abc;\nSELECT 1;`),
  script('\\g, \\gx, \\r', 'SELECT 1 \\g\nSELECT 2 AS b \\gx\nSELECT nonsense\n\\r\nSELECT 3;'),
  script('\\x and \\timing switches', '\\x on\nSELECT 1;\n\\x off\n\\x\n\\x\n\\timing on\n\\timing off'),
  script('an unknown command', '\\nonsense\nSELECT 1;'),
  script('\\q ends the input', 'SELECT 1;\n\\q\nSELECT 2;'),
  { name: 'an unknown command by -c', args: ['-c', '\\nonsense'] },
  {
    name: 'messages name file and line',
    args: ['-f', 'FILE'],
    file: 'SELECT 1;\n\nSELECT\n  nope;\nDROP TABLE IF EXISTS absent;\n\\nonsense\n\\i /does/not/exist\nSELECT 2;',
  },
  {
    name: 'a file stopped by an error',
    args: ['-v', 'ON_ERROR_STOP=1', '-f', 'FILE', '-c', 'SELECT 1'],
    file: 'SELECT nope;\nSELECT 2;',
  },
  { name: 'a missing file', args: ['-f', '/does/not/exist'] },
  { name: 'standard input as a file', args: ['-f', '-', '-c', 'SELECT 2'], input: 'SELECT 1;\nSELECT nope;\n' },
  { name: 'a file with a byte order mark', args: ['-f', 'FILE'], file: '\uFEFFSELECT 1;' },
  { name: '\\i', args: ['-c', `\\i FILE`], file: 'SELECT 1;' },
  sql('COPY TO STDOUT', `COPY (SELECT g, E'a\\tb' FROM generate_series(1, 3) g) TO STDOUT`),
  sql('COPY TO STDOUT between results', `SELECT 1; COPY (SELECT 2) TO STDOUT; SELECT 3`),
  sql('a large COPY TO STDOUT', `COPY (SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g) TO STDOUT`),
  sql('COPY that fails on the way', `COPY (SELECT 10 / (3 - g) FROM generate_series(1, 5) g) TO STDOUT`),
  script(
    'COPY FROM STDIN in a script',
    `CREATE TEMP TABLE c (a int, b text);\nCOPY c FROM STDIN;\n1\tone\n2\tt;wo\n\\.\nSELECT * FROM c;`,
  ),
  script(
    'COPY FROM STDIN that the server refuses',
    `CREATE TEMP TABLE c (a int);\nCOPY c FROM STDIN;\n1\nx\n3\n\\.\nSELECT * FROM c;`,
  ),
  script('COPY FROM STDIN without its end', `CREATE TEMP TABLE c (a int);\nCOPY c FROM STDIN;\n1\n2`),
  {
    name: 'COPY FROM STDIN by -c',
    args: [
      '-c',
      'CREATE TABLE c1 (a int, b text)',
      '-c',
      'COPY c1 FROM STDIN (FORMAT csv)',
      '-c',
      'SELECT * FROM c1',
      '-c',
      'DROP TABLE c1',
    ],
    input: '1,a\n2,"b\nc"\n',
  },
  {
    name: 'COPY FROM STDIN in a file',
    args: ['-f', 'FILE', '-c', 'DROP TABLE c2'],
    file: 'CREATE TABLE c2 (a text);\nCOPY c2 FROM STDIN;\nä\n\\.\nTABLE c2;\n',
  },
  {
    name: 'a large COPY FROM STDIN',
    args: [
      '-c',
      'CREATE TABLE c3 (a int, b text)',
      '-c',
      'COPY c3 FROM STDIN',
      '-c',
      'SELECT count(*), sum(a) FROM c3',
      '-c',
      'DROP TABLE c3',
    ],
    input: Array.from({ length: 30_000 }, (_, i) => `${i}\t${'y'.repeat(60)}\n`).join(''),
  },
  sql('\\d of a table', '\\d kv'),
  sql(
    '\\d of other relations',
    '\\d child',
    '\\d generated',
    '\\d live',
    '\\d kv_pkey',
    '\\d kv_ttl',
    '\\d child_id_seq',
    '\\d generated_i_seq',
    '\\d derived',
    '\\d parent_1',
  ),
  sql('\\d with patterns', '\\d other.*', '\\d other."Odd Name"', '\\d KV', '\\d k?', '\\d kv;'),
  sql('\\d of nothing', '\\d nothing', '\\dt nothing'),
  sql('lists', '\\d', '\\dt', '\\dt other.*', '\\l', '\\l post*', '\\du', '\\dg app'),
  { name: 'lists in other formats', args: ['--csv', '-c', '\\dt', '-c', '\\d kv_pkey'] },
  { name: 'lists, expanded', args: ['-x', '-c', '\\dt', '-c', '\\d kv_pkey', '-c', '\\l postgres'] },
  sql('\\conninfo', '\\conninfo'),
  sql('a notification', 'LISTEN news', `NOTIFY news, 'x'`, 'SELECT 1'),
  sql('a lost connection', 'SELECT 1', 'SELECT pg_terminate_backend(pg_backend_pid())', 'SELECT 2'),
  script('a connection lost in a script', 'SELECT pg_terminate_backend(pg_backend_pid());\nSELECT 2;'),
];

t.test('answers as psql does', async (t) => {
  t.ok(CASES.length >= 40, 'the list is long enough');
  for (const entry of CASES) {
    const args = withFile(entry);
    const expected = await psql([...(entry.psqlArgs ?? []), ...args], entry.input);
    const found = await pgkv(['sql', ...(entry.pgkvArgs ?? []), ...args], entry.input);
    t.strictSame(canonical(found), canonical(expected), entry.name);
  }
});

t.test('JSON is one document per statement', async (t) => {
  const { output, errors } = await pgkv(
    [
      'sql',
      '--json',
      '-c',
      JSON_SQL,
      '-c',
      'CREATE TEMP TABLE x (a int)',
      '-c',
      'INSERT INTO x VALUES (1) RETURNING a',
    ].concat('-c', `SELECT 'x'::int`, '-c', 'SELECT warns()'),
  );
  t.strictSame(
    output.trimEnd().split('\n'),
    [
      '{"command":"SELECT 2","rows":[{"a":9007199254740993,"a_2":1.50,"b":true,"n":null,"t":"x\\"\\ny","j":{"k": "1"},"f":"NaN","d":"2020-01-01"},' +
        '{"a":2,"a_2":-0.1,"b":false,"n":null,"t":"","j":[1,  2],"f":1e+30,"d":"2020-01-02"}]}',
      '{"command":"CREATE TABLE"}',
      '{"command":"INSERT 0 1","rows":[{"a":1}]}',
      '{"command":"SELECT 1","rows":[{"warns":1}]}',
    ],
    'numbers keep their digits, json is embedded, a second name is told apart',
  );
  for (const line of output.trimEnd().split('\n')) t.doesNotThrow(() => JSON.parse(line));
  const [error, notice] = errors
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.match(error, { error: { severity: 'ERROR', code: '22P02', position: '8', routine: 'pg_strtoint32' } });
  t.match(notice, { notice: { severity: 'WARNING', detail: 'a detail', hint: 'a hint' } });
});

const JSON_SQL = `SELECT a, a1 AS a, b, n, t, j, f, d FROM (VALUES
  (9007199254740993, 1.50, true, NULL::int, E'x"\ny', '{"k": "1"}'::json, 'NaN'::float8, date '2020-01-01'),
  (2, -0.1, false, NULL, '', E'[1,\n 2]'::json, 1e30, '2020-01-02')) v (a, a1, b, n, t, j, f, d)`;

t.test('a person at a terminal', async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'pgkv-cli-state-'));
  t.teardown(() => rmSync(state, { recursive: true, force: true }));

  t.test('prompts tell what is open and the state of the transaction', async (t) => {
    const person = typeAt({ ...env, XDG_STATE_HOME: state });
    await person.sees('postgres=# ');
    await person.types('SELECT (1,\r', 'postgres(# ');
    await person.types(`'x\r`, `postgres'# `);
    await person.types(`') AS pair\r`, 'postgres-# ');
    await person.types(';\r', '(1 row)');
    await person.types('BEGIN;\r', 'postgres=*# ');
    await person.types('SELECT nope;\r', 'postgres=!# ');
    await person.types('ROLLBACK;\r', 'ROLLBACK');
    await person.types('\\nonsense\r', 'postgres=# ');
    await person.types('\\q\r');
    t.equal(await person.exitCode, 0);
    t.match(person.errors(), /column "nope" does not exist/);
    t.match(person.errors(), 'invalid command \\nonsense\nTry \\? for help.\n');
  });

  t.test('the history of one session serves the next, for the owner only', async (t) => {
    const file = join(state, 'pgkv', 'sql_history');
    t.match(readFileSync(file, 'utf8').split('\n')[0], 'SELECT (1,');
    t.equal(statSync(file).mode & 0o777, 0o600);
    const person = typeAt({ ...env, XDG_STATE_HOME: state });
    await person.sees('=# ');
    await person.types(`${UP}${UP}${UP}`, 'ROLLBACK;');
    await person.types(CTRL_C, '=# ');
    await person.types(CTRL_D, '\\q');
    t.equal(await person.exitCode, 0);
  });

  t.test('Ctrl-C clears what is typed', async (t) => {
    const person = typeAt({ ...env, XDG_STATE_HOME: state });
    await person.sees('=# ');
    await person.types('SELECT 1 AS\r', '-# ');
    await person.types(`garbage${CTRL_C}`, '=# ');
    await person.types('SELECT 42;\r', '42');
    await person.types('exit\r');
    t.equal(await person.exitCode, 0);
    t.equal(person.errors(), '');
  });

  t.test('Ctrl-C cancels what runs, and the session goes on', async (t) => {
    const person = typeAt({ ...env, XDG_STATE_HOME: state });
    await person.sees('=# ');
    person.presses('SELECT pg_sleep(60);\r');
    await untilRunning('SELECT pg_sleep(60);');
    await person.types(CTRL_C, '=# ');
    t.match(person.errors(), 'Cancel request sent\n');
    t.match(person.errors(), 'ERROR:  canceling statement due to user request\n');
    await person.types('SELECT 43;\r', '43');
    await person.types('\\q\r');
    t.equal(await person.exitCode, 0);
  });

  t.test('typed COPY data end with \\. and are given up by Ctrl-C', async (t) => {
    const person = typeAt({ ...env, XDG_STATE_HOME: state });
    await person.sees('=# ');
    await person.types('CREATE TEMP TABLE c (a text); COPY c FROM STDIN;\r', '>> ');
    await person.types('one\rtwo\r\\.\r', 'COPY 2');
    await person.types('COPY c FROM STDIN;\r', '>> ');
    await person.types(`three\r${CTRL_C}`, '=# ');
    t.match(person.errors(), 'COPY from stdin failed: canceled by user');
    await person.types(CTRL_D);
    t.equal(await person.exitCode, 0);
  });

  t.test('a lost connection is made anew', async (t) => {
    const person = typeAt({ ...env, XDG_STATE_HOME: state });
    await person.sees('=# ');
    await person.types('SELECT pg_terminate_backend(pg_backend_pid());\r', '=# ');
    t.match(person.errors(), 'The connection to the server was lost. Attempting reset: Succeeded.\n');
    await person.types('SELECT 44;\r', '44');
    await person.types('\\q\r');
    t.equal(await person.exitCode, 0);
  });
});

t.test('passwords', async (t) => {
  const scram = await startPostgres({ version: '15', hba: 'scram' });
  t.teardown(() => scram.stop());
  const { PGCLIENTENCODING: _, ...where } = environmentOf(scram, 'postgres', scram.superuser);

  t.test('come from PGPASSWORD or the URL', async (t) => {
    const byVariable = await pgkv(['sql', '-c', 'SELECT 1'], '', { ...where, PGPASSWORD: scram.password });
    t.equal(byVariable.exitCode, 0);
    const password = encodeURIComponent(scram.password);
    const url = `postgres://${scram.superuser}:${password}@127.0.0.1:${scram.port}/postgres?application_name=me`;
    const byUrl = await pgkv(['sql', '--url', url, '-c', 'SHOW application_name'], '', {});
    t.match(byUrl.output, ' me\n');
  });

  t.test('are asked for at a terminal without being shown', async (t) => {
    const person = typeAt({ ...where, XDG_STATE_HOME: folder });
    await person.seesError(`Password for user ${scram.superuser}: `);
    await person.types(`${scram.password}\r`, '=# ');
    await person.types('\\q\r');
    t.equal(await person.exitCode, 0);
    t.notMatch(person.output() + person.errors(), scram.password);
  });

  t.test('wrong or absent ones end with exit code 2 and what the server said', async (t) => {
    const wrong = await pgkv(['sql', '-c', 'SELECT 1'], '', { ...where, PGPASSWORD: 'wrong' });
    t.equal(wrong.exitCode, 2);
    t.match(wrong.errors, `failed: FATAL:  password authentication failed for user "${scram.superuser}"`);
    const absent = await pgkv(['sql', '-c', 'SELECT 1'], '', where);
    t.equal(absent.exitCode, 2);
    t.match(absent.errors, 'a password is needed');
  });
});

t.test('Ctrl-C ends an unattended script after the statement it cancelled', async (t) => {
  let interrupt = (): void => undefined;
  const running = pgkv(['sql'], 'SELECT 1;\nSELECT pg_sleep(61);\nSELECT 2;\n', env, (listener) => {
    interrupt = listener;
  });
  await untilRunning('SELECT pg_sleep(61);');
  interrupt();
  const { exitCode, output, errors } = await running;
  t.equal(exitCode, 3);
  t.match(errors, 'ERROR:  canceling statement due to user request\n');
  t.notMatch(output, '        2\n', 'the next statement did not run');
});

t.test('no connection is exit code 2', async (t) => {
  const { exitCode, errors } = await pgkv(['sql', '-c', 'SELECT 1'], '', { PGPORT: '1' });
  t.equal(exitCode, 2);
  t.match(errors, /^pgkv: error: connection to server at "127\.0\.0\.1", port 1 failed: Connection refused\n\t/);
  const noDatabase = await pgkv(['sql', '--dbname', 'absent', '-c', 'SELECT 1']);
  t.equal(noDatabase.exitCode, 2);
  t.match(noDatabase.errors, 'FATAL:  database "absent" does not exist');
});

t.test('catalogues of the newest server', { skip: !findPostgres('embedded') && 'not installed' }, async (t) => {
  const newest = await startPostgres({ version: 'embedded' });
  t.teardown(() => newest.stop());
  const where = environmentOf(newest, 'postgres', newest.superuser);
  const { exitCode, output, errors } = await pgkv(['sql', '-v', 'ON_ERROR_STOP=1', '-f', '-'], NEWEST_SCRIPT, where);
  t.equal(errors, '');
  t.equal(exitCode, 0);
  t.match(output, 'generated always as (a * 2)\n', 'a virtual column');
  t.match(output, '                 Table "public.t"\n');
  t.match(output, 'List of databases');
  t.match(output, 'Superuser, Create role, Create DB, Replication, Bypass RLS');
});

const NEWEST_SCRIPT = `CREATE TABLE t (a int NOT NULL PRIMARY KEY, v int GENERATED ALWAYS AS (a * 2));
\\d
\\d t
\\d t_pkey
\\dt
\\l
\\du
`;

t.test('sslmode=prefer does without TLS where the server has none, require does not', async (t) => {
  const preferred = await pgkv(['sql', '-c', 'SELECT 1 AS one'], '', { ...env, PGSSLMODE: 'prefer' });
  t.strictSame([preferred.exitCode, preferred.errors], [0, '']);
  t.match(preferred.output, '   1\n');
  const required = await pgkv(['sql', '-c', 'SELECT 1'], '', { ...env, PGSSLMODE: 'require' });
  t.equal(required.exitCode, 2);
  t.match(required.errors, 'does not support SSL');
});

t.test('a Unix socket', async (t) => {
  const { output } = await pgkv(['sql', '--host', server.socketDir, '-c', '\\conninfo', '-c', 'SELECT 1 AS one']);
  t.match(output, `via socket in "${server.socketDir}" at port "${server.port}".`);
  t.match(output, '   1\n');
});

const UP = '\x1b[A';
const CTRL_C = '\x03';
const CTRL_D = '\x04';

/** Resolves when the server executes exactly `statement`. */
async function untilRunning(statement: string): Promise<void> {
  const client = new pg.Client({ host: server.host, port: server.port, user: server.superuser, database: 'postgres' });
  await client.connect();
  try {
    for (let attempt = 0; attempt < 200; attempt++) {
      const found = await client.query(`SELECT FROM pg_stat_activity WHERE state = 'active' AND query = $1`, [
        statement,
      ]);
      if (found.rowCount) return;
      await sleep(50);
    }
    throw new Error(`never ran: ${statement}`);
  } finally {
    await client.end();
  }
}

/** `pgkv sql` at a terminal, and who types there. */
function typeAt(environment: Record<string, string>) {
  const input = Object.assign(new PassThrough(), { isTTY: true });
  const output = Object.assign(new Collected(), { isTTY: true });
  const errors = new Collected();
  const terminal: Terminal = { input, output, errors, env: environment, onInterrupt: () => () => undefined };
  const exitCode = runProgram(['sql'], terminal);
  /** What was seen before is not seen again. */
  let seen = 0;
  const sees = async (text: string) => {
    for (let attempt = 0; attempt < 400; attempt++) {
      const at = output.text.indexOf(text, seen);
      if (at >= 0) {
        seen = at + text.length;
        return;
      }
      await sleep(25);
    }
    throw new Error(`"${text}" was not shown, but: ${output.text.slice(seen)}\nerrors: ${errors.text}`);
  };
  const seesError = async (text: string) => {
    for (let attempt = 0; attempt < 400 && !errors.text.includes(text); attempt++) await sleep(25);
  };
  const presses = (keys: string) => input.write(keys);
  const types = async (keys: string, expected?: string) => {
    presses(keys);
    if (expected !== undefined) await sees(expected);
  };
  return { exitCode, sees, seesError, presses, types, output: () => output.text, errors: () => errors.text };
}

function withFile({ args, file }: Case): string[] {
  if (file === undefined) return [...args];
  const path = join(folder, 'script.sql');
  writeFileSync(path, file);
  return args.map((arg) => arg.replace('FILE', path));
}

/** The names of the programs, and the pid of a notification's sender, may differ. */
function canonical({ exitCode, output, errors }: Outcome): Outcome {
  return {
    exitCode,
    output: output.replace(/process with PID \d+/g, 'process with PID #'),
    errors: errors.replace(/^psql:/gm, 'pgkv:'),
  };
}

async function psql(args: readonly string[], input: string | Buffer = ''): Promise<Outcome> {
  const child = spawn(installed!.psql!, ['-X', ...args], { env: { ...process.env, ...env, LC_ALL: 'C.UTF-8' } });
  child.stdin.on('error', () => undefined); // psql may end before it has read everything
  child.stdin.end(input);
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { exitCode: await exited, output, errors };
}

async function pgkv(
  args: readonly string[],
  input: string | Buffer = '',
  environment: Record<string, string> = env,
  onInterrupt: (listener: () => void) => void = () => undefined,
): Promise<Outcome> {
  const output = new Collected();
  const errors = new Collected();
  const terminal: Terminal = {
    input: Readable.from(input.length === 0 ? [] : [Buffer.from(input)]),
    output,
    errors,
    env: environment,
    onInterrupt(listener) {
      onInterrupt(listener);
      return () => undefined;
    },
  };
  const exitCode = await runProgram(args, terminal);
  for (const stream of [output, errors]) await finished(stream.end());
  return { exitCode, output: output.text, errors: errors.text };
}

/** Keeps what is written; takes it slowly, so that waiting for a reader is exercised. */
class Collected extends Writable {
  readonly #chunks: Buffer[] = [];

  get text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(chunk);
    setImmediate(done);
  }
}
