// Places for what is prepared (R68), and what becomes of a commit over several shards that waits for one, by a clock of the test's own.
import t from 'tap';
import { type Clock, systemRandom } from '../../../src/base/clock.js';
import { type CommittingBranch, commitTogether } from '../../../src/execute/two-phase/commit-together.js';
import { PreparedSlots } from '../../../src/execute/two-phase/prepared-slots.js';
import type { Answer } from '../../../src/execute/two-phase/protocol.js';
import { readErrorFields } from '../../../src/wire/error-fields.js';

/** What falls due is called by `pass`, in its order. */
function steppedClock() {
  let now = 0;
  const timers = new Set<{ readonly at: number; readonly callback: () => void }>();
  const clock: Clock = {
    now: () => now,
    wallTime: () => now,
    after(delayMs, callback) {
      const timer = { at: now + delayMs, callback };
      timers.add(timer);
      return { cancel: () => void timers.delete(timer) };
    },
  };
  const pass = async (ms: number): Promise<void> => {
    const end = now + ms;
    for (;;) {
      const [next] = [...timers].filter(({ at }) => at <= end).sort((one, other) => one.at - other.at);
      if (next === undefined) break;
      timers.delete(next);
      now = Math.max(now, next.at);
      next.callback();
      await new Promise(setImmediate);
    }
    now = end;
    await new Promise(setImmediate);
  };
  return { clock, pass };
}

/** By the names of their shards: who was told what, in that order. */
function takers(slots: PreparedSlots) {
  const told: string[] = [];
  const take = (who: string, ...names: string[]): void =>
    slots.take(names, (full) => told.push(full === null ? who : `${who}: ${full} is full`));
  return { told, take };
}

t.test('nobody gets what one who came earlier waits for', async (t) => {
  const { clock, pass } = steppedClock();
  const slots = new PreparedSlots({ clock, processes: 1, ask: async () => 2 });
  const { told, take } = takers(slots);
  take('one', 'a');
  await pass(0);
  take('wide', 'a', 'b');
  take('newcomer', 'b');
  take('other', 'c');
  await pass(0);
  t.strictSame(told, ['one', 'other'], 'who wants nothing of theirs goes on');
  slots.give(['a']);
  t.strictSame(told, ['one', 'other', 'wide']);
  slots.give(['a', 'b']);
  t.strictSame(told, ['one', 'other', 'wide', 'newcomer']);
  take('late', 'a', 'b');
  take('behind', 'a');
  await pass(3_000);
  t.strictSame(told.slice(4), ['late: b is full', 'behind'], 'until that one has waited in vain');
});

t.test('what a shard could not say is asked again soon, and what it has said later', async (t) => {
  const { clock, pass } = steppedClock();
  let asked = 0;
  const ask = async (): Promise<number> => {
    if (++asked === 1) throw new Error('unreachable');
    return 2;
  };
  const slots = new PreparedSlots({ clock, processes: 1, ask });
  const { told, take } = takers(slots);
  take('one', 'a');
  await pass(500);
  take('two', 'a');
  t.equal(asked, 1);
  await pass(1_000);
  take('three', 'a');
  await pass(0);
  t.equal(asked, 2);
  slots.give(['a']);
  slots.give(['a']);
  await pass(50_000);
  take('four', 'a');
  await pass(3_000);
  t.strictSame(told, ['one', 'two', 'three', 'four: a is full']);
  t.equal(asked, 2);
});

t.test('a place is kept as long as what was prepared there may be so', async (t) => {
  const { clock, pass } = steppedClock();
  const slots = new PreparedSlots({ clock, processes: 1, ask: async () => 2 });
  const { told, take } = takers(slots);
  take('one', 'a');
  await pass(0);
  slots.give(['a'], true);
  take('two', 'a');
  await pass(3_000);
  t.strictSame(told, ['one', 'two: a is full']);
  await pass(60_000);
  take('three', 'a');
  t.strictSame(told.slice(2), ['three']);
});

class Writer implements CommittingBranch {
  readonly did: string[] = [];
  readonly shardName: string;
  readonly #finishes: boolean;
  constructor(shardName: string, finishes = true) {
    this.shardName = shardName;
    this.#finishes = finishes;
  }
  commit(told: (answer: Answer) => void): void {
    this.#do('commit', () => told({ kind: 'done' }));
  }
  prepare(_gid: string, told: (answer: Answer) => void): void {
    this.#do('prepare', () => told({ kind: 'done' }));
  }
  decide(_gid: string, told: (answer: Answer) => void): void {
    this.#do('decide', () => told({ kind: 'done' }));
  }
  rollback(told: () => void): void {
    this.#do('rollback', told);
  }
  finish(_gid: string, _decision: unknown, told: (answer: Answer) => void): void {
    this.#do('finish', () => told(this.#finishes ? { kind: 'done' } : { kind: 'lost' }));
  }
  #do(what: string, then: () => void): void {
    if (this.did.at(-1) !== what) this.did.push(what);
    setImmediate(then);
  }
}

function committing(slots: PreparedSlots, clock: Clock, writers: readonly Writer[], isCancelled: () => boolean) {
  const ended: (string | null)[] = [];
  const options = {
    clusterId: '1',
    role: 'app',
    slots,
    clock,
    random: systemRandom,
    what: 'transaction',
    isCancelled,
  } as const;
  commitTogether([], writers, options, (error) =>
    ended.push(error === null ? null : (readErrorFields(error, 0, error.length)['C'] ?? '')),
  );
  return ended;
}

t.test('a commit that is cancelled while it waits for a place is rolled back', async (t) => {
  const { clock, pass } = steppedClock();
  const slots = new PreparedSlots({ clock, processes: 1, ask: async () => 2 });
  const { told, take } = takers(slots);
  take('one', 'a');
  await pass(0);
  const writers = [new Writer('a'), new Writer('b')];
  let isCancelled = false;
  const ended = committing(slots, clock, writers, () => isCancelled);
  isCancelled = true;
  slots.give(['a']);
  await pass(10);
  await pass(10);
  t.strictSame(ended, ['57014']);
  t.strictSame(
    writers.map(({ did }) => did),
    [['rollback'], ['rollback']],
  );
  take('next', 'a');
  t.strictSame(told, ['one', 'next'], 'its place is free');
  // Behind that it is the decision that counts.
  slots.give(['a']);
  isCancelled = false;
  const second = committing(slots, clock, writers, () => isCancelled);
  isCancelled = true;
  for (let n = 0; n < 10; n++) await pass(1);
  t.strictSame(second, [null]);
});

t.test('a commit that a shard does not show keeps its place', async (t) => {
  const { clock, pass } = steppedClock();
  const slots = new PreparedSlots({ clock, processes: 1, ask: async () => 2 });
  const { told, take } = takers(slots);
  const ended = committing(slots, clock, [new Writer('a', false), new Writer('b')], () => false);
  for (let n = 0; n < 10; n++) await pass(2_000);
  t.strictSame(ended, ['08007']);
  take('next', 'a');
  await pass(3_000);
  t.strictSame(told, ['next: a is full']);
});
