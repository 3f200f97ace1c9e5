// When the locks of all shards are looked at, and what is cancelled by what a look has shown (R66).
import t from 'tap';
import { LockWatch, type WatchedTransaction } from '../../../src/execute/two-phase/lock-watch.js';
import type { ShardLocks } from '../../../src/execute/two-phase/wait-graph.js';
import { QuietClock } from '../../support/quiet-clock.js';
import { DONE, QuietConnection } from '../../support/quiet-connection.js';
import { SeededRandom } from '../../support/seeded-random.js';

const TICK_MS = 300;

function bench() {
  const clock = new QuietClock();
  const shown: ShardLocks[] = [];
  const looks: number[] = [];
  const ends: string[] = [];
  /** During a look. */
  const during: (() => Promise<unknown>)[] = [];
  const watch = new LockWatch({
    clock,
    random: new SeededRandom(1),
    looks: {
      look: async () => {
        looks.push(clock.now());
        const locks = [...shown];
        for (const deed of during) await deed();
        return locks;
      },
    },
    ended: (detail) => ends.push(detail),
  });
  /** One with a branch each on shard a and b, and its sessions there. */
  const begin = (pid: number) => {
    const servers = [new QuietConnection(pid), new QuietConnection(pid)] as const;
    let cancelled = 0;
    const transaction: WatchedTransaction = {
      mark: watch.newMark(),
      isOver: false,
      parts: servers.map(({ connection }, shard) => {
        return { shardName: 'ab'[shard]!, connection, cancel: () => cancelled++ };
      }),
    };
    watch.watch(transaction);
    return { transaction, servers, pid, cancelled: () => cancelled };
  };
  type Begun = ReturnType<typeof begin>;
  /** `one` waits on shard a, `other` on b, each for the other. */
  const show = (one: Begun, other: Begun) => {
    const marks = [one, other].map(({ pid, transaction: { mark } }) => ({ pid, mark }));
    const waits = (by: Begun, blocker: Begun) => [{ pid: by.pid, since: '1', blockers: [blocker.pid] }];
    shown.push(
      { shardName: 'a', marks, waits: waits(one, other) },
      { shardName: 'b', marks, waits: waits(other, one) },
    );
  };
  return { clock, watch, looks, ends, during, shown, begin, show };
}

t.test('those that are forgotten leave nothing: no timer, no look', async (t) => {
  const { clock, watch, looks, begin } = bench();
  const all = Array.from({ length: 5 }, (_, pid) => begin(pid));
  for (const { servers } of all) servers[0].ask();
  await clock.advance(3 * TICK_MS);
  const before = looks.length;
  t.ok(before > 0 && clock.pending === 1);
  for (const { transaction } of all) watch.forget(transaction);
  t.equal(clock.pending, 0);
  t.equal(looks.length, before);
  const again = begin(9);
  t.equal(clock.pending, 1);
  watch.forget(again.transaction);
});

t.test('looks are fewer while nobody waits for a lock, and many again when another falls silent', async (t) => {
  for (let ticks = 0; ticks < 4; ticks++) {
    const { clock, looks, begin } = bench();
    begin(1).servers[0].ask();
    const before = 60_000 + ticks * TICK_MS;
    await clock.advance(before);
    t.ok(Math.abs(looks.length - before / (4 * TICK_MS)) <= 4, `${looks.length} looks in a minute`);
    begin(2).servers[1].ask();
    await clock.advance(2 * TICK_MS);
    t.equal(looks.at(-1), clock.now(), 'seen to be silent, and looked at');
    await clock.advance(2 * TICK_MS);
    t.equal(looks.at(-1), clock.now());
  }
});

t.test('while somebody waits for a lock each tick looks', async (t) => {
  const { clock, looks, shown, begin } = bench();
  begin(1).servers[0].ask();
  shown.push({ shardName: 'a', marks: [], waits: [{ pid: 1, since: '1', blockers: [7] }] });
  await clock.advance(30_000);
  t.ok(looks.length >= 30_000 / TICK_MS - 3, `${looks.length} looks`);
});

t.test('a circle that closes behind a long silence ends within two seconds, whenever it does', async (t) => {
  for (let offset = 0; offset < 1_500; offset += 100) {
    const { clock, ends, begin, show } = bench();
    const [old, young] = [begin(1), begin(2)];
    old.servers[0].ask();
    young.servers[1].ask();
    await clock.advance(30_000 + offset);
    show(old, young);
    const since = clock.now();
    await clock.runUntil(() => ends.length > 0);
    t.ok(clock.now() - since < 1_900, `${clock.now() - since} ms`);
    t.strictSame([old.cancelled(), young.cancelled()], [0, 1]);
    t.ok(young.servers[1].connection.deadlock !== null && young.servers[0].connection.deadlock === null);
  }
});

t.test('what the victim runs by now, when the look has ended, is spared', async (t) => {
  for (const does of ['waits', 'is done', 'runs the next']) {
    const { clock, ends, during, begin, show } = bench();
    const [old, young] = [begin(1), begin(2)];
    old.servers[0].ask();
    young.servers[1].ask();
    show(old, young);
    let looks = 0;
    during.push(async () => {
      if (++looks !== 2 || does === 'waits') return;
      await young.servers[1].says(DONE);
      if (does === 'runs the next') young.servers[1].ask();
    });
    await clock.runUntil(() => looks === 2);
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    const isMeant = does === 'waits';
    t.equal(young.cancelled(), isMeant ? 1 : 0, does);
    t.equal(young.servers[1].connection.deadlock !== null, isMeant, does);
    t.equal(ends.length, isMeant ? 1 : 0, does);
  }
});
