// Sequences that failed once, and kinds of them, behind each number of shards: see kept-scripts.ts, and transactions.test.ts for the variables.
//   PGKV_FUZZ_ONLY=re   only scripts whose name matches
import t from 'tap';
import { findPostgres } from '../../support/postgres-binaries.js';
import { Arena } from './arena.js';
import { check, SHARDS } from './check.js';
import { KEPT_SCRIPTS, keptPackets } from './kept-scripts.js';

const FAULTS_MAX = Number(process.env['PGKV_FUZZ_FAULTS'] ?? 5);
const ONLY = new RegExp(process.env['PGKV_FUZZ_ONLY'] ?? '');
const skip =
  process.env['PGKV_FUZZ'] === '0' ? 'PGKV_FUZZ=0' : findPostgres('embedded') ? false : 'no embedded Postgres';

t.test('kept scripts', { skip, timeout: 3_600_000 }, async (t) => {
  const arena = await Arena.open(SHARDS);
  t.teardown(() => arena.close());
  let faults = 0;
  const names = Object.keys(KEPT_SCRIPTS).filter((name) => ONLY.test(name));
  for (const name of names) {
    for (const ring of arena.rings) {
      const script = { seed: 0, packets: keptPackets(name, ring.shards) };
      if (faults < FAULTS_MAX && !(await check(t, script, ring, new Map(), name))) faults++;
    }
  }
  t.comment(`${names.length} scripts`);
  if (faults === 0) t.pass('pgkv answers as Postgres does');
});
