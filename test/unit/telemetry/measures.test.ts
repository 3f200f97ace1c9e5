// Counters and duration histograms.
import t from 'tap';
import type { Clock } from '../../../src/base/clock.js';
import { type Counters, countError, createCounters, GAUGE_NAMES } from '../../../src/telemetry/counters.js';
import { DurationHistogram } from '../../../src/telemetry/histogram.js';

function manualClock(): Clock & { ms: number } {
  const clock = {
    ms: 1000,
    now: () => clock.ms,
    wallTime: () => clock.ms,
    after: () => ({ cancel: () => undefined }),
  };
  return clock;
}

t.test('counters begin at zero, and errors fall into a bounded set of classes', async (t) => {
  const counters = createCounters();
  const numbers = Object.entries(counters).filter(([, value]) => typeof value === 'number');
  t.ok(numbers.every(([, value]) => value === 0));
  for (const name of GAUGE_NAMES) t.equal((counters as Counters)[name], 0);
  const shape = Object.keys(counters.ownErrors).length;
  for (const state of ['08P01', '08006', 'XX000', 'ZZ123', '', '__proto__', 'co'])
    countError(counters.ownErrors, state);
  t.match(counters.ownErrors, { '08': 2, XX: 1, other: 4, '23': 0 });
  t.equal(Object.keys(counters.ownErrors).length, shape);
  t.equal(counters.serverErrors['08'], 0);
});

t.test('a histogram gives count, sum and quantiles', async (t) => {
  const histogram = new DurationHistogram(manualClock());
  t.same(histogram.summary(), { count: 0, sumUs: 0, p50Us: 0, p95Us: 0, p99Us: 0, maxUs: 0 });
  for (let us = 1; us <= 1000; us++) histogram.recordUs(us);
  const { count, sumUs, p50Us, p99Us, maxUs } = histogram.summary();
  t.same([count, sumUs], [1000, 500500]);
  const near = (value: number, expected: number) => Math.abs(value - expected) <= expected * 0.02;
  t.ok(near(p50Us, 500) && near(p99Us, 990) && near(maxUs, 1000), `${p50Us} ${p99Us} ${maxUs}`);
  for (const odd of [0, -5, 0.4, 1e18, Number.POSITIVE_INFINITY]) histogram.recordUs(odd);
  t.equal(histogram.summary().count, 1005);
  t.throws(() => histogram.recordUs(Number.NaN), 'a duration that is no number is a mistake of the program');
});

t.test('quantiles forget after two windows, count and sum never do', async (t) => {
  const clock = manualClock();
  const histogram = new DurationHistogram(clock, 100);
  histogram.recordUs(5000);
  clock.ms += 100;
  t.ok(histogram.summary().maxUs >= 5000, 'still there one window later');
  histogram.recordUs(10);
  clock.ms += 50;
  t.ok(histogram.summary().maxUs >= 5000, 'within the window nothing turns');
  clock.ms += 50;
  t.equal(histogram.summary().maxUs, 10);
  clock.ms += 100;
  t.same(histogram.summary(), { count: 2, sumUs: 5010, p50Us: 0, p95Us: 0, p99Us: 0, maxUs: 0 });
});
