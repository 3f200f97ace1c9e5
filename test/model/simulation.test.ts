// Thousands of short seeded runs of sessions, lanes and pool: see world.ts for what is checked.
//   PGKV_SEED=123 npx tap run test/model      plays one seed and prints what happens in it
//   PGKV_RUNS=100000 npx tap run test/model   plays that many seeds nobody has played before
import t from 'tap';
import { loadParser } from '../../src/sql/meaning/parse.js';
import { RunFailure, simulate } from './world.js';

const FIXED_SEEDS = 1_000;
// None where a failure should be a change's: one in some ten thousand runs finds something new.
const FRESH_SEEDS = Number(process.env['PGKV_RUNS'] ?? (process.env['CI'] ? 0 : 1_500));
/** For fresh seeds where their number is not asked for: a busy machine plays fewer. */
const FRESH_MS_MAX = process.env['PGKV_RUNS'] === undefined ? 5_000 : Number.POSITIVE_INFINITY;

const LAST_EVENTS = 200;

const chosen = process.env['PGKV_SEED'];

type Report = Pick<typeof t, 'comment' | 'fail' | 'pass'>;

function failureOf(seed: number, trace?: (line: string) => void): RunFailure | null {
  try {
    simulate({ seed, ...(trace === undefined ? {} : { trace }) });
    return null;
  } catch (error) {
    if (error instanceof RunFailure) return error;
    throw error;
  }
}

/** Plays seeds from `first` on, up to the first that fails: that one is played again, for its last events. */
function play(t: Report, first: number, count: number, msMax: number): void {
  const deadline = performance.now() + msMax;
  let seed = first;
  for (; seed < first + count && performance.now() < deadline; seed++) {
    if (failureOf(seed) !== null) return explain(t, seed, LAST_EVENTS);
  }
  t.pass(`${seed - first} runs`);
}

function explain(t: Report, seed: number, eventsMax: number): void {
  const events: string[] = [];
  const failure = failureOf(seed, (line) => events.push(line));
  for (const line of events.slice(-eventsMax)) t.comment(line);
  if (failure === null) t.pass(`seed ${seed} breaks no invariant`);
  else t.fail(`${failure.message} (PGKV_SEED=${seed} npx tap run test/model)`, { cause: failure.cause });
}

await loadParser();

t.test('no invariant is broken in runs played before', { skip: chosen !== undefined }, async (t) => {
  play(t, 1, FIXED_SEEDS, Number.POSITIVE_INFINITY);
});

t.test('no invariant is broken in runs never played', { skip: chosen !== undefined }, async (t) => {
  const first = FIXED_SEEDS + 1 + Math.floor(Math.random() * 2 ** 31);
  t.comment(`fresh seeds from ${first}`);
  play(t, first, FRESH_SEEDS, FRESH_MS_MAX);
});

t.test('the chosen run', { skip: chosen === undefined }, async (t) => {
  explain(t, Number(chosen), Number.POSITIVE_INFINITY);
});
