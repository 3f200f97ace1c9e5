// How long writes over several shards lock in order behind locks that were met (R72): twice as long each time, half as long when none was.
import t from 'tap';
import type { Clock } from '../../../src/base/clock.js';
import { LockContention } from '../../../src/execute/two-phase/lock-contention.js';

function contended() {
  let now = 5_000;
  const clock = { now: () => now } as Clock;
  const contention = new LockContention(clock);
  /** For how long it is so from now on, in steps of 10 ms. */
  const lasts = (table: string): number => {
    const from = now;
    while (contention.isMet(table)) now += 10;
    return now - from;
  };
  return { contention, lasts };
}

t.test('twice as long each time, up to a bound', async (t) => {
  const { contention, lasts } = contended();
  t.notOk(contention.isMet('kv'));
  const all: number[] = [];
  for (let time = 0; time < 8; time++) {
    contention.met('kv');
    // Those that were under way meet the same locks.
    contention.met('kv');
    t.notOk(contention.isMet('other'), 'another table');
    all.push(lasts('kv'));
  }
  t.same(all, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000]);
});

t.test('half as long for each time that none was met, and then forgotten', async (t) => {
  const { contention, lasts } = contended();
  for (let time = 0; time < 4; time++) {
    contention.met('kv');
    // In order nobody can tell whether locks would be met.
    contention.passed('kv');
    lasts('kv');
  }
  contention.passed('kv');
  contention.met('kv');
  t.equal(lasts('kv'), 4_000, 'of 4,000: half, and twice that');
  for (let time = 0; time < 4; time++) contention.passed('kv');
  contention.met('kv');
  t.equal(lasts('kv'), 500);
});
