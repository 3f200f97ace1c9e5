// Generated sessions of transactions, to plain Postgres and through pgkv on one, three and five shards: the same answers, the
// same rows in the end, the rules of the protocol.
// By default 3,000 statements of seeds that stay the same, so that a failure is a change's.
//   PGKV_FUZZ=0                     not at all
//   PGKV_LONG=1                     50,000 statements of a new seed
//   PGKV_FUZZ_SEED=7                that seed on, PGKV_FUZZ_STATEMENTS=3000 of them
//   PGKV_FUZZ_SCRIPT='{…}'          one script, as a failure prints it
//   PGKV_FUZZ_REPLAY=file           all scripts that a report (below) holds, each behind its number of shards
//   PGKV_FUZZ_SHARDS=3              only behind so many shards
//   PGKV_FUZZ_FAULTS=20             goes on until so many faults are found
//   PGKV_DIFF_TARGET=direct PGKV_FUZZ_SHARDS=1         Postgres with Postgres: must be equal
//   PGKV_FUZZ_REPORT=file           appends what is found to a file, as it is found
import { readFileSync } from 'node:fs';
import t from 'tap';
import { findPostgres } from '../../support/postgres-binaries.js';
import { Arena } from './arena.js';
import { check, SHARDS, scriptsIn } from './check.js';
import { generateScript } from './generate.js';
import type { RefusalCounts } from './play-script.js';
import { statementCount } from './script.js';

const runs = process.env['PGKV_FUZZ'] !== '0';
const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);

const FAULTS_MAX = number('PGKV_FUZZ_FAULTS', 1);
const NEW_SEED = Math.floor(Math.random() * 2 ** 30);
const FIXED_SEED = 1_000_000;

/** Where runs of seeds begin, and how many statements each has. */
function runsOfSeeds(): { readonly seed: number; readonly statements: number }[] {
  const statements = process.env['PGKV_FUZZ_STATEMENTS'];
  if (process.env['PGKV_FUZZ_SEED'] !== undefined || statements !== undefined || process.env['PGKV_LONG']) {
    const count = process.env['PGKV_LONG'] ? 50_000 : Number(statements ?? 3_000);
    return [{ seed: number('PGKV_FUZZ_SEED', NEW_SEED), statements: count }];
  }
  return [{ seed: FIXED_SEED, statements: 3_000 }];
}

const SCRIPT = process.env['PGKV_FUZZ_SCRIPT'];
const REPLAY = process.env['PGKV_FUZZ_REPLAY'];

const skip = !runs ? 'PGKV_FUZZ=0' : findPostgres('embedded') ? false : 'no embedded Postgres';

t.test('transactions', { skip, timeout: 3_600_000 }, async (t) => {
  const arena = await Arena.open(SHARDS);
  t.teardown(() => arena.close());
  if (SCRIPT !== undefined) {
    for (const ring of arena.rings) await check(t, JSON.parse(SCRIPT), ring, new Map());
    return;
  }
  const refusals: RefusalCounts = new Map();
  if (REPLAY !== undefined) {
    for (const { shards, script } of scriptsIn(readFileSync(REPLAY, 'utf8'))) {
      const ring = arena.rings.find((one) => one.shards === shards);
      if (ring !== undefined) await check(t, script, ring, refusals);
    }
    return;
  }
  let faults = 0;
  for (const { seed, statements } of runsOfSeeds()) {
    t.comment(`PGKV_FUZZ_SEED=${seed}`);
    let played = 0;
    let scripts = 0;
    for (; played < statements && faults < FAULTS_MAX; scripts++) {
      const script = generateScript(seed + scripts);
      const ring = arena.rings[scripts % arena.rings.length]!;
      played += statementCount(script);
      if (!(await check(t, script, ring, refusals))) faults++;
    }
    t.comment(`${played} statements in ${scripts} scripts, ${faults} faults`);
  }
  for (const [reason, count] of refusals) t.comment(`refused ${count} times: ${reason}`);
  if (faults === 0) t.pass('pgkv answers as Postgres does');
});
