// Pids say which worker's session they are, and none leaves its range.
import t from 'tap';
import { systemRandom } from '../../../src/base/clock.js';
import { ALL_PIDS, pidsOf, workerOf } from '../../../src/cluster/session-pids.js';
import { CancelRegistry } from '../../../src/frontend/door/cancel-registry.js';
import { PROTOCOL_3_0 } from '../../../src/wire/protocol.js';

const SIGNALS = { user: 'app', cancel: () => undefined, terminate: () => undefined };

t.test('ranges do not meet and fit into a positive Int32', async (t) => {
  for (let worker = 1; worker <= 64; worker++) {
    const { first, last } = pidsOf(worker);
    t.same([workerOf(first), workerOf(last)], [worker, worker]);
    t.ok(first > pidsOf(worker - 1).last && last <= ALL_PIDS.last);
  }
  t.equal(workerOf(5), 0);
  t.ok(workerOf(-1) < 0);
});

t.test('a registry hands out its own range, round and round, and passes on what is of another', async (t) => {
  const { first, last } = pidsOf(3);
  const nearEnd = { ...systemRandom, bytes: (count: number) => Buffer.alloc(count, 0xff) };
  const passed: number[] = [];
  const registry = new CancelRegistry(nearEnd, { first, last }, (pid) => passed.push(pid));
  const pids = [0, 1, 2].map(() => registry.register(PROTOCOL_3_0, SIGNALS).pid);
  t.same(pids, [last, first, first + 1]);
  t.notOk(registry.isElsewhere(first));
  for (const pid of [first - 1, last + 1, 1, -1]) t.ok(registry.isElsewhere(pid));
  registry.forward(last + 1, Buffer.alloc(4), () => undefined);
  t.same(passed, [last + 1]);
  const alone = new CancelRegistry(systemRandom);
  for (const pid of [1, first, -1]) t.notOk(alone.isElsewhere(pid), 'alone, every pid is its own');
});
