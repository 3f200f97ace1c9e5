// Two-phase commit under a simulated cluster (D14): whatever is lost, stopped or crashes, all branches of a transaction commit
// or none, what the client was told is true, and nothing is left prepared. Then each rule on which that rests is broken, and
// some run has to notice.
import t from 'tap';
import { RunFailure, type Sabotage, simulate } from './world.js';

const FIRST = Number(process.env['PGKV_SEED'] ?? 1);
const RUNS = process.env['PGKV_SEED'] === undefined ? Number(process.env['PGKV_RUNS'] ?? 10_000) : 1;
/** Most faults are noticed within 100 runs. */
const SABOTAGED_RUNS_MAX = 10_000;

t.test(`${RUNS} lives from seed ${FIRST}`, async (t) => {
  const outcomes = new Map<string, number>();
  for (let seed = FIRST; seed < FIRST + RUNS; seed++) {
    try {
      for (const [kind, count] of simulate(seed).outcomes) outcomes.set(kind, (outcomes.get(kind) ?? 0) + count);
    } catch (error) {
      if (!(error instanceof RunFailure)) throw error;
      t.fail(`seed ${seed}: ${error.message}`);
      return;
    }
  }
  t.comment(JSON.stringify(Object.fromEntries(outcomes)));
  if (RUNS < 1_000) return;
  for (const kind of ['committed', 'invisible', 'aborted', 'unknown', 'untold']) {
    t.ok((outcomes.get(kind) ?? 0) >= RUNS / 100, `${kind} comes about often enough to mean something`);
  }
});

const SABOTAGES: Readonly<Record<string, Sabotage>> = {
  'a PREPARE that was lost counts as prepared': {
    protocol: { isPrepared: ({ kind }) => kind === 'done' || kind === 'lost' },
  },
  'a PREPARE that a crash may take back counts as prepared': {
    protocol: { isPrepared: ({ kind }) => kind === 'done' || kind === 'local' },
  },
  'a PREPARE that was refused counts as prepared': {
    protocol: { isPrepared: ({ kind }) => kind === 'done' || kind === 'refused' },
  },
  'a decision whose answer was lost counts as commit': {
    protocol: { decided: ({ kind }) => (kind === 'refused' ? 'abort' : 'commit') },
  },
  'a decision whose answer was lost counts as abort': {
    protocol: { decided: ({ kind }) => (kind === 'done' ? 'commit' : 'abort') },
  },
  'a decision that was refused counts as commit': {
    protocol: { decided: ({ kind }) => (kind === 'lost' ? null : 'commit') },
  },
  'the client is told before all branches are visible': { protocol: { isVisible: () => true } },
  'COMMIT PREPARED counts as done whatever the answer': { protocol: { isFinished: () => true } },
  'COMMIT PREPARED that was lost counts as done': {
    protocol: { isFinished: ({ kind }) => kind === 'done' || kind === 'lost' },
  },
  'COMMIT PREPARED is said once': { neverRetries: true },
  'a shard of the decision that does not answer means abort': { protocol: { settled: (answer) => answer ?? 'abort' } },
  'a shard of the decision that does not answer means commit': {
    protocol: { settled: (answer) => answer ?? 'commit' },
  },
  'decisions are collected without having asked every shard': { protocol: { knowsAllPrepared: () => true } },
  'the recoverer leaves commits alone': { skips: (decision) => decision === 'commit' },
  'the recoverer leaves aborts alone': { skips: (decision) => decision === 'abort' },
  'decide() does not look whether recovery has decided': { server: { decideChecks: false } },
  'the decision is written beside the branch': { server: { decisionInBranch: false } },
  'settle() only reads': { server: { settleWrites: false } },
  'settle() does not wait for the branch that decides': { server: { settleWaits: false } },
  'settle() overwrites a commit': { server: { settleKeeps: false } },
};

for (const [name, sabotage] of Object.entries(SABOTAGES)) {
  t.test(`noticed: ${name}`, async (t) => {
    for (let seed = 1; seed <= SABOTAGED_RUNS_MAX; seed++) {
      try {
        simulate(seed, sabotage);
      } catch (error) {
        if (!(error instanceof RunFailure)) throw error;
        t.pass(`seed ${seed}: ${error.message}`);
        return;
      }
    }
    t.fail('no run has noticed');
  });
}
