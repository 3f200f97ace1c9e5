// psql and pg_dump doing their usual things. Each file in scripts/ is one check: its whole output (both streams, exit status) is
// the answer; lines "-- expect: …" in it must appear there. A script with the line "-- catalogue" asks the catalogues as psql's
// own version knows them, so where the server is newer than psql its output is compared but nothing is expected of it.

import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hasPassword, runChecks, Skip } from '../checks.mjs';

const ANSWER_MAX = 20_000;
const scripts = join(dirname(fileURLToPath(import.meta.url)), 'scripts');
const scratch = mkdtempSync(join(tmpdir(), 'pgkv-psql-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

/** Runs a program to its end; both its output streams go through one pipe, so that their order is the program's. */
function run(program, args, { input = '', env = {}, interruptAfterMs } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', 'exec "$0" "$@" 2>&1', program, ...args], {
      cwd: scratch,
      env: { ...process.env, ...env },
    });
    const chunks = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    if (interruptAfterMs) setTimeout(() => child.kill('SIGINT'), interruptAfterMs);
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, output: Buffer.concat(chunks).toString() }));
    child.stdin.on('error', () => undefined); // a program that ends early does not read the rest
    child.stdin.end(input);
  });
}

const psql = (args, options) => run('psql', ['-X', '-q', ...args], options);
const psqlWithTags = (args, options) => run('psql', ['-X', ...args], options);

/** Takes out what differs from run to run: pids, times, OIDs. Long output becomes its hash. */
function canonical({ status, output }) {
  const text = output
    .replace(/process with PID \d+/g, 'process with PID …')
    .replace(/^.* \(every [\d.]+s\)$/gm, '(every …)')
    .replace(/^LOCATION: .*$/gm, 'LOCATION: …')
    .replace(/lo_(import|unlink|export) \d+/g, 'lo_$1 …')
    .replace(/^\\(un)?restrict .*$/gm, '\\$1restrict …')
    .replace(/pg_temp_\d+/g, 'pg_temp_…');
  return [status, text.length <= ANSWER_MAX ? text : createHash('sha256').update(text).digest('hex')];
}

const psqlVersion = await run('psql', ['--version']);
const psqlMajor = Number(psqlVersion.output.match(/\d+/)[0]);
const serverVersion = await psql(['-Atc', 'SHOW server_version_num']);
if (serverVersion.status !== 0) throw new Error(`psql cannot connect: ${serverVersion.output}`);
const serverIsNewer = Math.floor(Number(serverVersion.output) / 10_000) > psqlMajor;

const objects = `
  CREATE TYPE compat_psql_mood AS ENUM ('sad', 'ok');
  CREATE TABLE compat_psql_item (id int PRIMARY KEY, name text NOT NULL DEFAULT 'none', mood compat_psql_mood, price numeric(10, 2) CHECK (price > 0));
  COMMENT ON TABLE compat_psql_item IS 'what psql shows in \\d+';
  CREATE INDEX compat_psql_item_name_idx ON compat_psql_item (lower(name)) WHERE price IS NOT NULL;
  CREATE TABLE compat_psql_note (item int REFERENCES compat_psql_item (id), at timestamptz, body text, UNIQUE (item, at));
  CREATE VIEW compat_psql_view AS SELECT id, name FROM compat_psql_item WHERE mood = 'ok';
  CREATE SEQUENCE compat_psql_sequence START 5;
  CREATE FUNCTION compat_psql_twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
  INSERT INTO compat_psql_item SELECT i, 'item ' || i, 'ok', i FROM generate_series(1, 100) AS i;
  INSERT INTO compat_psql_note SELECT i, '2024-02-29', E'tab\\there \\\\ back' FROM generate_series(1, 100) AS i;`;
const dropObjects = `DROP FUNCTION IF EXISTS compat_psql_twice; DROP SEQUENCE IF EXISTS compat_psql_sequence, compat_psql_rounds; DROP VIEW IF EXISTS compat_psql_view;
  DROP TABLE IF EXISTS compat_psql_note, compat_psql_item, compat_psql_copy, compat_psql_tx; DROP TYPE IF EXISTS compat_psql_mood;`;

async function runScript(file) {
  const text = readFileSync(join(scripts, file), 'utf8');
  const result = await psqlWithTags(['-f', join(scripts, file)]);
  const answer = canonical({ ...result, output: result.output.replaceAll(join(scripts, file), file) });
  equal(result.status, 0, result.output.slice(0, 2000));
  if (serverIsNewer && /^-- catalogue$/m.test(text)) return answer;
  for (const [, expected] of text.matchAll(/^-- expect: (.*)$/gm))
    ok(result.output.includes(expected), `"${expected}" is missing in: ${result.output.slice(0, 4000)}`);
  return answer;
}

const scriptChecks = Object.fromEntries(
  readdirSync(scripts)
    .filter((file) => file.endsWith('.sql'))
    .sort()
    .map((file) => [file.replace(/^\d+-|\.sql$/g, '').replaceAll('-', ' '), () => runScript(file)]),
);

function needsMatchingDump() {
  if (serverIsNewer) throw new Skip(`pg_dump ${psqlMajor} refuses a newer server`);
}

await psql(['-c', dropObjects]);
const created = await psql(['-v', 'ON_ERROR_STOP=1', '-c', objects]);
if (created.status !== 0) throw new Error(`setting up failed: ${created.output}`);

await runChecks({
  connect: async () => {
    const result = await psql([
      '-At',
      '-c',
      `SELECT current_user, current_database(), current_setting('application_name')`,
      '-c',
      '\\conninfo',
      '-c',
      '\\encoding',
    ]);
    equal(result.status, 0);
    ok(result.output.startsWith(`${process.env.PGUSER}|${process.env.PGDATABASE}|psql\n`), result.output);
    match(result.output, /UTF8/);
    // \conninfo names the port, which is what differs between plain Postgres and a router.
    return result.output.split('\n')[0];
  },

  ...scriptChecks,

  'one transaction for a file (-1 -f)': async () => {
    writeFileSync(
      join(scratch, 'good.sql'),
      'CREATE TABLE compat_psql_copy (a int);\nINSERT INTO compat_psql_copy VALUES (1);\n',
    );
    writeFileSync(
      join(scratch, 'bad.sql'),
      'INSERT INTO compat_psql_copy VALUES (2);\nSELECT 1/0;\nINSERT INTO compat_psql_copy VALUES (3);\n',
    );
    const good = await psql(['-1', '-f', 'good.sql']);
    const bad = await psql(['-1', '-v', 'ON_ERROR_STOP=1', '-f', 'bad.sql']);
    const rows = await psql(['-At', '-c', 'SELECT array_agg(a) FROM compat_psql_copy']);
    await psql(['-c', 'DROP TABLE compat_psql_copy']);
    equal(good.status, 0, good.output);
    equal(bad.status, 3);
    equal(rows.output, '{1}\n');
    return [good, bad, rows].map(canonical);
  },

  'several statements in one -c': async () => {
    const rolledBack = await psql([
      '-At',
      '-c',
      `UPDATE compat_psql_item SET name = 'gone' WHERE id = 1; SELECT 1/0; SELECT 2`,
    ]);
    const committed = await psql([
      '-At',
      '-c',
      'SELECT 1; SELECT name FROM compat_psql_item WHERE id = 1; BEGIN; SELECT 3; COMMIT; SELECT 4',
    ]);
    equal(rolledBack.status, 1);
    equal(committed.output, '1\nitem 1\n3\n4\n');
    return [rolledBack, committed].map(canonical);
  },

  'cancel by SIGINT': async () => {
    const startedMs = Date.now();
    const result = await psql(['-c', 'SELECT pg_sleep(20)'], { interruptAfterMs: 700 });
    ok(Date.now() - startedMs < 8000, 'the cancel took effect late');
    match(result.output, /canceling statement due to user request/);
    return canonical(result);
  },

  'options at connection': async () => {
    const env = {
      PGOPTIONS: '-c work_mem=7MB -c search_path=pg_catalog',
      PGAPPNAME: 'compat psql',
      PGTZ: 'Asia/Tokyo',
      PGDATESTYLE: 'German',
    };
    const result = await psql(
      [
        '-At',
        '-c',
        'SHOW work_mem',
        '-c',
        'SHOW search_path',
        '-c',
        'SHOW TimeZone',
        '-c',
        'SHOW DateStyle',
        '-c',
        'SHOW application_name',
      ],
      { env },
    );
    equal(result.output, '7MB\npg_catalog\nAsia/Tokyo\nGerman, DMY\ncompat psql\n');
    return canonical(result);
  },

  'client encoding LATIN1': async () => {
    const result = await psql(['-At', '-c', `SELECT length('ü'), 'ü'`], { env: { PGCLIENTENCODING: 'LATIN1' } });
    return canonical(result);
  },

  'pg_dump and restore': async () => {
    needsMatchingDump();
    const tables = ['-t', 'compat_psql_item', '-t', 'compat_psql_note', '-t', 'compat_psql_sequence'];
    const copied = await run('pg_dump', tables);
    equal(copied.status, 0, copied.output);
    const inserted = await run('pg_dump', [...tables, '--data-only', '--column-inserts']);
    equal(inserted.status, 0, inserted.output);
    await psql([
      '-c',
      `DROP VIEW compat_psql_view; DROP TABLE compat_psql_note, compat_psql_item; DROP SEQUENCE compat_psql_sequence`,
    ]);
    const restored = await psql(['-v', 'ON_ERROR_STOP=1', '-o', '/dev/null'], { input: copied.output });
    equal(restored.status, 0, restored.output);
    const again = await run('pg_dump', tables);
    equal(again.output.replace(/^\\(un)?restrict .*$/gm, ''), copied.output.replace(/^\\(un)?restrict .*$/gm, ''));
    return [copied, inserted, restored].map(canonical);
  },

  'pg_dump of the whole database': async () => {
    needsMatchingDump();
    const { status, output } = await run('pg_dump', ['--schema-only', '--exclude-table=pgbench*']);
    equal(status, 0, output);
    match(output, /CREATE TABLE public\.compat_psql_item/);
  },

  '\\copy into a key-value table and out: all shards or none': async () => {
    const version = await psql(['-Atc', 'SHOW pgkv.version']);
    if (version.status !== 0) return; // plain Postgres: a shard takes its own keys only
    const there = await psql(['-Atc', `SELECT to_regclass('kv')`]);
    if (there.output.trim() === '') throw new Skip('no key-value table here');
    const remove = ['-c', `DELETE FROM kv WHERE tenant_id = 'compat psql'`];
    await psql(remove);
    const lines = Array.from({ length: 5_000 }, (_, i) => `compat psql,kéy ${i},"{""n"": ${i}}"`);
    writeFileSync(join(scratch, 'keys.csv'), `${lines.join('\n')}\n`);
    writeFileSync(join(scratch, 'bad.csv'), `compat psql,new,1\n${lines[7]}\n`);
    const copied = (file) => psqlWithTags(['-c', `\\copy kv (tenant_id, key, value) from '${file}' csv`]);
    deepEqual(await copied('keys.csv'), { status: 0, output: 'COPY 5000\n' });
    const bad = await copied('bad.csv');
    equal(bad.status, 1);
    match(bad.output, /duplicate key value .*\nDETAIL: .*\nCONTEXT: {2}COPY kv, line 2\b/);
    const out = `SELECT tenant_id, key, value FROM kv WHERE tenant_id = 'compat psql' ORDER BY (value->>'n')::int`;
    const back = await psqlWithTags(['-c', `\\copy (${out}) to 'back.csv' csv`]);
    deepEqual(back, { status: 0, output: 'COPY 5000\n' });
    equal(readFileSync(join(scratch, 'back.csv'), 'utf8'), readFileSync(join(scratch, 'keys.csv'), 'utf8'));
    await psql(remove);
  },

  'wrong password': async () => {
    if (!hasPassword) throw new Skip('no password is asked for here');
    const result = await psql(['-c', 'SELECT 1'], { env: { PGPASSWORD: 'certainly wrong' } });
    equal(result.status, 2);
    match(result.output, /FATAL: {2}password authentication failed/);
  },

  'unknown database': async () => {
    const result = await psql(['-d', 'no_such_database', '-c', 'SELECT 1']);
    equal(result.status, 2);
    match(result.output, /FATAL: {2}database "no_such_database" does not exist/);
  },
});

await psql(['-c', dropObjects]);
