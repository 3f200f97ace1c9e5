// Signals that ask a router process to end. They are emitted here, not sent: the test runner would end with the process.
import t from 'tap';
import { EndSignals, runUntilSignalled } from '../../../src/cli/process-life.js';
import type { Router } from '../../../src/main.js';
import { createLogger } from '../../../src/telemetry/log.js';

const log = createLogger({ level: 'silent', format: 'json', values: false });
const signal = (name: NodeJS.Signals): boolean => process.emit(name, name);
const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A router whose drain never ends. */
function routerCalls(): { router: Router; calls: string[] } {
  const calls: string[] = [];
  const router = {
    drain: () => {
      calls.push('drain');
      return new Promise<void>(() => undefined);
    },
    stop: async () => {
      calls.push('stop');
    },
    reload: () => undefined,
  } as unknown as Router;
  return { router, calls };
}

t.afterEach(() => {
  process.removeAllListeners('SIGHUP');
});

t.test('a signal during the start is kept until there is a router', async (t) => {
  const signals = new EndSignals();
  t.teardown(() => signals.release());
  t.equal(signals.first, null);
  t.ok(signal('SIGTERM'));
  t.equal(signals.first, 'SIGTERM');
  const { router, calls } = routerCalls();
  t.equal(await runUntilSignalled(router, log, { graceful: false, signals, reload: () => ({}) }), 0);
  t.strictSame(calls, ['stop']);
});

t.test('a second signal ends at once, but not the echo of the first', async (t) => {
  const signals = new EndSignals();
  t.teardown(() => signals.release());
  const { router, calls } = routerCalls();
  const ended = runUntilSignalled(router, log, { graceful: true, signals, reload: () => ({}) });
  signal('SIGINT');
  signal('SIGINT');
  await later(50);
  signal('SIGINT');
  t.strictSame(calls, ['drain'], 'npm passes Ctrl-C on, which the terminal has sent already');
  await later(400);
  signal('SIGINT');
  t.strictSame(calls, ['drain', 'stop']);
  t.equal(await ended, 1);
});
