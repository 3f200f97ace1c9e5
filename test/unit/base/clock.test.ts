// The clock that programs run by: what has arrived when a time is over comes before what is done about that.
import { connect, createServer, type Socket } from 'node:net';
import t from 'tap';
import { systemClock } from '../../../src/base/clock.js';

/** As a process that is stopped, or whose machine is. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

t.test(
  'a deadline that passes while the process stands still is judged behind the answers that came meanwhile',
  async (t) => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
    const asker = connect(port, '127.0.0.1');
    const answerer = await accepted;
    t.teardown(() => {
      asker.destroy();
      answerer.destroy();
      server.close();
    });
    for (const [limitMs, stopMs] of [
      [1, 5],
      [20, 20],
      [20, 60],
      [50, 200],
    ] as const) {
      const seen: string[] = [];
      const over = new Promise<void>((resolve) => {
        systemClock.after(limitMs, () => {
          seen.push('deadline');
          resolve();
        });
      });
      const answer = new Promise<void>((resolve) => {
        asker.once('data', () => {
          seen.push('answer');
          resolve();
        });
      });
      answerer.write('x');
      standStill(stopMs);
      await Promise.all([over, answer]);
      t.same(seen, ['answer', 'deadline'], `${limitMs} ms, stopped for ${stopMs}`);
    }
  },
);

t.test('one that is called off in any state never calls back', async (t) => {
  const called: string[] = [];
  const timers = [0, 1, 3].map((ms) => systemClock.after(ms, () => called.push(`${ms}`)));
  // Between a timeout and what follows it.
  const first = systemClock.after(1, () => called.push('called off behind its time'));
  setTimeout(() => first.cancel(), 1);
  // Both are due in one go.
  standStill(5);
  for (const timer of timers) {
    timer.cancel();
    timer.cancel();
  }
  await new Promise((resolve) => setTimeout(resolve, 30));
  t.same(called, []);
});
