// pgbench as a client program: loading (COPY), its built-in transactions in every query mode, reconnecting, pipelines.
// Only its bookkeeping is looked at, never its speed: bench/ does that.

import { equal, match, ok } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runChecks } from '../checks.mjs';

const CLIENTS = 4;
const TRANSACTIONS = 50;
const scratch = mkdtempSync(join(tmpdir(), 'pgkv-pgbench-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

function pgbench(args) {
  const { status, stdout, stderr, error } = spawnSync('pgbench', args, {
    encoding: 'utf8',
    cwd: scratch,
    timeout: 60_000,
  });
  if (error) throw error;
  const output = stdout + stderr;
  equal(status, 0, output);
  return output;
}

/** A run of CLIENTS × TRANSACTIONS must process each of them and fail none. */
function completeRun(args) {
  const output = pgbench(['-n', '-c', String(CLIENTS), '-j', '2', '-t', String(TRANSACTIONS), ...args]);
  const wanted = CLIENTS * TRANSACTIONS;
  match(output, new RegExp(`number of transactions actually processed: ${wanted}/${wanted}`));
  match(output, /number of failed transactions: 0 /);
  ok(!/(ERROR|FATAL|WARNING):/.test(output), output);
  return output.match(/query mode: \S+/)?.[0];
}

const pipelined = `\\set aid random(1, 100000)
\\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
\\endpipeline
`;
const stored = `BEGIN;
SELECT count(*)::int AS branches FROM pgbench_branches \\gset
SELECT :branches + 1 AS more \\; SELECT 'second result';
END;
`;
writeFileSync(join(scratch, 'pipelined.sql'), pipelined);
writeFileSync(join(scratch, 'stored.sql'), stored);

const modes = ['simple', 'extended', 'prepared'];
await runChecks({
  'initialise by COPY, with foreign keys': () => {
    const output = pgbench(['-i', '-s', '1', '--foreign-keys']);
    match(output, /100000 of 100000 tuples/);
  },
  'initialise on the server': () => {
    pgbench(['-i', '-I', 'dtGvp', '-s', '1', '-q']);
  },
  ...Object.fromEntries(modes.map((mode) => [`TPC-B-like, ${mode}`, () => completeRun(['-M', mode])])),
  ...Object.fromEntries(modes.map((mode) => [`select only, ${mode}`, () => completeRun(['-M', mode, '-S'])])),
  'a connection for each transaction': () => completeRun(['-C', '-S', '-M', 'prepared']),
  'pipelines, extended': () => completeRun(['-M', 'extended', '-f', 'pipelined.sql']),
  'pipelines, prepared': () => completeRun(['-M', 'prepared', '-f', 'pipelined.sql']),
  '\\gset inside a transaction': () => completeRun(['-M', 'simple', '-f', 'stored.sql']),
  'clean up': () => {
    pgbench(['-i', '-I', 'd']);
  },
});
