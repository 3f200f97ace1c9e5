// Who waits for whom over shards (R66): of generated waits each knot of circles loses its youngest, exactly where a circle leads over
// several servers and has lasted; a circle of one server is that server's.
import t from 'tap';
import { systemClock } from '../../../src/base/clock.js';
import { isYounger, LockMarks } from '../../../src/execute/two-phase/lock-mark.js';
import { lasting, type ShardLocks, victims, waitGraph } from '../../../src/execute/two-phase/wait-graph.js';
import { SeededRandom } from '../../support/seeded-random.js';

const mark = (seconds: number, count: number): string =>
  String((0x706b76n << 40n) | (BigInt(seconds) << 24n) | BigInt(count));
const of = (
  shardName: string,
  marks: readonly [number, string][],
  waits: readonly [number, number[]][],
  since = '1',
) => ({
  shardName,
  marks: marks.map(([pid, one]) => ({ pid, mark: one })),
  waits: waits.map(([pid, blockers]) => ({ pid, since, blockers })),
});
const ends = (...shards: readonly ShardLocks[]) => victims(waitGraph(shards)).map((victim) => victim.mark);
const [OLD, YOUNG, OTHER] = [mark(7, 3), mark(9, 1), mark(9, 2)];

t.test('a circle over two servers costs its youngest, in whatever order they are looked at', (t) => {
  const a = of(
    'a',
    [
      [1, OLD],
      [2, YOUNG],
    ],
    [[1, [2]]],
  );
  const b = of(
    'b',
    [
      [1, YOUNG],
      [2, OLD],
    ],
    [[1, [2]]],
  );
  t.strictSame(ends(a, b), [YOUNG]);
  t.match(victims(waitGraph([b, a])), [{ waits: [{ shardName: 'b', pid: 1 }], count: 2, shardNames: ['a', 'b'] }]);
  t.strictSame(ends(a), []);
  t.strictSame(
    ends(
      a,
      of(
        'b',
        [
          [1, YOUNG],
          [2, OLD],
        ],
        [[1, [3]]],
      ),
    ),
    [],
  );
  // By way of a session of the server itself.
  const through = of(
    'b',
    [
      [1, YOUNG],
      [2, OLD],
    ],
    [
      [1, [8]],
      [8, [2]],
    ],
  );
  t.match(victims(waitGraph([a, through])), [{ mark: YOUNG, count: 3 }]);
  t.end();
});

t.test('a circle within one server is left to it, with all that hang on it', (t) => {
  const own = of(
    'a',
    [
      [1, OLD],
      [2, YOUNG],
    ],
    [
      [1, [2]],
      [2, [1]],
    ],
  );
  t.strictSame(ends(own), []);
  t.strictSame(
    ends(
      own,
      of(
        'b',
        [
          [1, YOUNG],
          [2, OLD],
        ],
        [[1, [2]]],
      ),
    ),
    [],
  );
  t.end();
});

t.test('only what has lasted counts', (t) => {
  const a = of(
    'a',
    [
      [1, OLD],
      [2, YOUNG],
    ],
    [[1, [2]]],
  );
  const b = (since: string) =>
    of(
      'b',
      [
        [1, YOUNG],
        [2, OLD],
      ],
      [[1, [2]]],
      since,
    );
  const over = (one: string, other: string) =>
    victims(lasting(waitGraph([a, b(one)]), waitGraph([a, b(other)]))).length;
  t.equal(over('1', '1'), 1);
  t.equal(over('1', '2'), 0, 'another wait');
  t.equal(over('', ''), 0, 'a wait that has no time yet');
  t.end();
});

t.test('marks', (t) => {
  const marks = new LockMarks(systemClock, new SeededRandom(1));
  const [one, other] = [marks.next(), marks.next()];
  t.ok(isYounger(other, one));
  t.notOk(isYounger(one, other) || isYounger(one, one));
  t.ok(isYounger(mark(3, 0), mark(0xfff0, 0)), 'behind the turn of the clock');
  // Two sessions of one server cannot be one transaction; one that has two marks has the later one.
  const twice = of(
    'a',
    [
      [1, YOUNG],
      [2, YOUNG],
      [3, OLD],
    ],
    [[1, [3]]],
  );
  t.strictSame(
    ends(
      twice,
      of(
        'b',
        [
          [1, YOUNG],
          [2, OLD],
        ],
        [[2, [1]]],
      ),
    ),
    [],
  );
  const both = of(
    'a',
    [
      [1, YOUNG],
      [1, OTHER],
      [3, OLD],
    ],
    [[1, [3]]],
  );
  t.strictSame(
    ends(
      both,
      of(
        'b',
        [
          [1, OTHER],
          [2, OLD],
        ],
        [[2, [1]]],
      ),
    ),
    [OTHER],
  );
  t.end();
});

t.test('generated waits: what is left without the victims has no circle, and a victim is the youngest of one', (t) => {
  let found = 0;
  for (let seed = 1; seed <= 400; seed++) {
    const random = new SeededRandom(seed);
    const transactions = random.between(2, 7);
    const all = Array.from({ length: transactions }, (_, index) => mark(random.integer(50), index));
    // One wait each, so that a circle is a simple one; pid = transaction, on each server.
    const next = all.map(() => (random.chance(0.8) ? random.integer(transactions) : -1));
    const at = all.map(() => random.integer(3));
    const shards = ['a', 'b', 'c'].map((name, shard) => {
      const waits = next.flatMap((blocker, pid): [number, number[]][] =>
        at[pid] === shard && blocker >= 0 && blocker !== pid ? [[pid, [blocker]]] : [],
      );
      return of(
        name,
        all.map((one, pid) => [pid, one]),
        waits,
      );
    });
    const expected = new Set<string>();
    for (let start = 0; start < transactions; start++) {
      const way: number[] = [];
      for (let node = start; node >= 0 && next[node] !== node && !way.includes(node); node = next[node]!)
        way.push(node);
      const last = next[way.at(-1) ?? -1] ?? -1;
      if (way.length < 2 || last !== start || new Set(way.map((node) => at[node])).size < 2) continue;
      const seconds = (node: number) => BigInt(all[node]!);
      expected.add(all[way.reduce((young, node) => (seconds(node) > seconds(young) ? node : young))]!);
    }
    found += expected.size;
    t.strictSame(ends(...shards).sort(), [...expected].sort(), `seed ${seed}`);
  }
  t.ok(found > 50, `${found} circles`);
  t.end();
});

/** Blockers of which each that is looked at is counted. */
class Counted extends Array<number> {
  static visits = 0;
  static visitsMax = Number.POSITIVE_INFINITY;

  override *[Symbol.iterator](): ArrayIterator<number> {
    for (let at = 0; at < this.length; at++) {
      if (++Counted.visits > Counted.visitsMax) throw new Error(`more than ${Counted.visitsMax} visits`);
      yield this[at]!;
    }
  }
}

t.test(
  'a queue costs each of its blockers a few looks, and leaves no graph; a circle beside it is found all the same',
  (t) => {
    const waiters = 2_000;
    // Session n stands behind all before it; 0 has the lock.
    const waits = Array.from({ length: waiters }, (_, index): [number, number[]] => [
      index + 1,
      Counted.from({ length: index + 1 }, (_, pid) => pid) as Counted,
    ]);
    const blockers = (waiters * (waiters + 1)) / 2;
    const marks = waits.map(([pid]): [number, string] => [pid, mark(pid, pid)]);
    const visits = (...shards: readonly ShardLocks[]) => {
      Counted.visits = 0;
      Counted.visitsMax = 3 * blockers;
      const graph = waitGraph(shards);
      t.ok(Counted.visits >= blockers, `${Counted.visits} visits`);
      return graph;
    };
    t.equal(visits(of('a', marks, waits)).size, 0);
    // Two at its head wait for each other, over another server: all behind them hang on that.
    const graph = visits(of('a', marks, waits), of('b', marks, [[1, [2]]]));
    t.equal(graph.size, 2);
    t.match(victims(graph), [{ mark: mark(2, 2), count: 2 }]);
    t.end();
  },
);

/** For each knot the youngest, found by following all ways from everywhere. */
function wanted(shards: readonly ShardLocks[]): string[] {
  const reach = (next: Map<string, Set<string>>, start: string) => {
    const found = new Set<string>();
    const open = [start];
    for (let at = open.pop(); at !== undefined; at = open.pop())
      for (const one of next.get(at) ?? []) if (!found.has(one)) open.push(one) && found.add(one);
    return found;
  };
  const all = new Map<string, Set<string>>();
  for (const { shardName, marks, waits } of shards) {
    const own = new Map(waits.map(({ pid, blockers }) => [`${pid}`, new Set(blockers.map(String))]));
    const nameOf = new Map(marks.map(({ pid, mark }) => [pid, mark]));
    const vertex = (pid: number) => nameOf.get(pid) ?? `${shardName} ${pid}`;
    for (const { pid, blockers } of waits) {
      if (reach(own, `${pid}`).has(`${pid}`)) continue;
      const next = all.get(vertex(pid)) ?? new Set();
      for (const blocker of blockers) next.add(vertex(blocker));
      all.set(vertex(pid), next);
    }
  }
  const found = new Set<string>();
  for (const one of all.keys()) {
    const knot = [...reach(all, one)].filter((other) => reach(all, other).has(one));
    const marks = knot.filter((vertex) => /^\d+$/.test(vertex)).sort((a, b) => (isYounger(a, b) ? -1 : 1));
    if (knot.length > 1 && marks.length > 0) found.add(marks[0]!);
  }
  return [...found].sort();
}

t.test('generated waits for many: knots as they are by following all ways', (t) => {
  let found = 0;
  for (let seed = 1; seed <= 600; seed++) {
    const random = new SeededRandom(seed);
    const sessions = random.between(2, 9);
    const shards = ['a', 'b', 'c'].map((name) => {
      const pids = Array.from({ length: sessions }, (_, pid) => pid);
      const marks = pids.filter(() => random.chance(0.8)).map((pid): [number, string] => [pid, mark(pid, pid)]);
      const waits = pids.flatMap((pid): [number, number[]][] =>
        random.chance(0.3) ? [[pid, random.some(pids, random.between(1, 3)).filter((other) => other !== pid)]] : [],
      );
      return of(name, marks, waits);
    });
    const expected = wanted(shards);
    found += expected.length;
    t.strictSame(ends(...shards).sort(), expected, `seed ${seed}`);
  }
  t.ok(found > 100, `${found} knots`);
  t.end();
});
