// Heartbeats under a clock of the test's own: who is asked when, what is told, and that one shard does not hold up others.
import t from 'tap';
import type { Clock } from '../../../src/base/clock.js';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { Heartbeats } from '../../../src/control/heartbeat.js';

const SHARDS = initialView(
  ['a', 'b'].map((name) => ({ name, hashSlots: [], nodes: [{ host: name, port: 1, role: null }] })) as never,
).shards;

interface Asked {
  readonly shard: string;
  readonly answer: (behind: number | null) => void;
  readonly fail: (reason: string) => void;
}

function world() {
  const timers: (() => void)[] = [];
  const clock = {
    now: () => 0,
    wallTime: () => 0,
    after: (_: number, callback: () => void) => {
      timers.push(callback);
      return { cancel: () => timers.splice(timers.indexOf(callback), 1) };
    },
  } as unknown as Clock;
  const asked: Asked[] = [];
  const told: string[] = [];
  const heartbeats = new Heartbeats({
    shards: () => SHARDS,
    clock,
    beat: ({ name }) =>
      new Promise((answer, reject) => asked.push({ shard: name, answer, fail: (reason) => reject(new Error(reason)) })),
    steppedBack: ({ name }, ms) => told.push(`${name} ${ms} ms back`),
    failed: ({ name }, reason) => told.push(`${name} ${reason ?? 'well again'}`),
  });
  const next = async () => {
    for (const timer of timers.splice(0)) timer();
    await settled();
  };
  return { heartbeats, asked, told, next, timers };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

t.test(
  'each shard is asked at intervals; one that does not answer is not asked again, nor holds up the others',
  async (t) => {
    const { heartbeats, asked, told, next, timers } = world();
    heartbeats.start();
    t.strictSame(
      asked.map(({ shard }) => shard),
      ['a', 'b'],
    );
    asked[1]!.answer(null);
    await next();
    await next();
    t.strictSame(
      asked.splice(0).map(({ shard }) => shard),
      ['a', 'b', 'b'],
      'b answered the first only',
    );
    heartbeats.stop();
    t.equal(timers.length, 0);
    t.strictSame(told, []);
  },
);

t.test('a step is told; a failure once, and its end', async (t) => {
  const { heartbeats, asked, told, next } = world();
  heartbeats.start();
  const outcomes: ((asked: Asked) => void)[] = [
    ({ answer }) => answer(null),
    ({ answer }) => answer(250),
    ({ fail }) => fail('down'),
    ({ fail }) => fail('down'),
    ({ fail }) => fail('denied'),
    ({ answer }) => answer(null),
    ({ answer }) => answer(null),
  ];
  for (const outcome of outcomes) {
    for (const each of asked.splice(0)) each.shard === 'a' ? outcome(each) : each.answer(null);
    await settled();
    await next();
  }
  t.strictSame(told, ['a 250 ms back', 'a down', 'a denied', 'a well again']);
  heartbeats.stop();
  asked[0]!.fail('cut');
  await settled();
  t.equal(told.length, 4, 'nothing is told behind the end');
});
