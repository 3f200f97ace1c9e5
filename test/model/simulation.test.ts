// Thousands of short seeded runs of session, lane and pool. `PGKV_SEED=123 npx tap run test/model` plays one seed again
// and prints what happened; `PGKV_RUNS=100000` plays more.
import t from 'tap';
import { loadParser } from '../../src/sql/parse.js';
import { RunFailure, simulate } from './world.js';

const FIXED_SEEDS = 2_000;
const FRESH_SEEDS = 500;

const chosen = process.env['PGKV_SEED'];
const runs = process.env['PGKV_RUNS'];

await loadParser();

/** Runs the seeds; of the first that fails the report holds the last events, from a second, traced run. */
function findFailure(seeds: Iterable<number>): RunFailure | null {
  for (const seed of seeds) {
    try {
      simulate({ seed });
    } catch (error) {
      if (!(error instanceof RunFailure)) throw error;
      return traced(seed) ?? error;
    }
  }
  return null;
}

function traced(seed: number): RunFailure | null {
  try {
    simulate({ seed, traces: true });
    return null;
  } catch (error) {
    return error as RunFailure;
  }
}

function* from(first: number, count: number): Generator<number> {
  for (let seed = first; seed < first + count; seed++) yield seed;
}

function report(t: Tap.Test, seeds: Iterable<number>): void {
  const failure = findFailure(seeds);
  if (failure === null) return void t.pass('no invariant was broken');
  t.comment(failure.lastEvents.join('\n'));
  t.fail(`${failure.message}: PGKV_SEED=${failure.seed} npx tap run test/model`);
}
