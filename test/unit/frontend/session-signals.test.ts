// Who may reach a session by its pid is the server's to say; where the session is decides who asks.
import t from 'tap';
import { systemRandom } from '../../../src/base/clock.js';
import { type PidRange, pidsOf, type SessionSignal, type SignalOutcome } from '../../../src/cluster/session-pids.js';
import { CancelRegistry } from '../../../src/frontend/door/cancel-registry.js';
import { SessionSignals } from '../../../src/frontend/door/session-signals.js';
import { PROTOCOL_3_0 } from '../../../src/wire/protocol.js';

/** May call the function; is a superuser; the session's role is one; is a member. */
type Rights = readonly ('t' | 'f')[];

function bench(rights: Rights | null | Error, range: PidRange = pidsOf(2)) {
  const reached: string[] = [];
  const asked: string[] = [];
  const passed: unknown[] = [];
  const sessions = new CancelRegistry(systemRandom, range, () => undefined);
  const { pid } = sessions.register(PROTOCOL_3_0, {
    user: "o'app",
    cancel: () => reached.push('cancelled'),
    terminate: () => reached.push('ended'),
  });
  const signals = new SessionSignals({
    sessions,
    port: {
      signal(...[of, what, by, done]) {
        passed.push([of, what, by]);
        done('no member');
      },
    },
    async ask(sql) {
      asked.push(sql);
      if (rights instanceof Error) throw rights;
      return rights === null ? [] : [[...rights]];
    },
  });
  const signal = (of: number, what: SessionSignal = 'cancel') =>
    new Promise<SignalOutcome>((resolve) => signals.signal(of, what, 'caller', resolve));
  return { sessions, pid, signal, reached, asked, passed };
}

t.test('what the server says of the roles decides', async (t) => {
  for (const [rights, outcome] of [
    [['t', 'f', 'f', 't'], 'done'],
    [['t', 't', 't', 't'], 'done'],
    [['t', 'f', 't', 't'], 'no superuser'],
    [['t', 'f', 'f', 'f'], 'no member'],
    [['f', 't', 'f', 't'], 'not callable'],
    [null, 'no member'],
    [new Error('down'), 'unanswered'],
  ] as const) {
    const { signal, pid, reached, asked } = bench(rights);
    t.equal(await signal(pid), outcome);
    t.equal(await signal(pid, 'terminate'), outcome);
    t.strictSame(reached, outcome === 'done' ? ['cancelled', 'ended'] : []);
    t.match(asked[0], /caller\.rolname = 'caller' AND target\.rolname = 'o''app'/);
  }
});

t.test('a session that is not there, and one that goes while the server is asked', async (t) => {
  const { signal, pid, sessions, reached } = bench(['t', 'f', 'f', 't']);
  t.equal(await signal(pid + 1), 'absent');
  const asked = signal(pid);
  sessions.unregister(pid);
  t.equal(await asked, 'absent');
  t.strictSame(reached, []);
  t.equal(await bench(['f', 'f', 'f', 't']).signal(pid + 1), 'not callable', 'Postgres looks at that first');
});

t.test('a session that has got the pid of one that went while the server was asked is not reached', async (t) => {
  const { first } = pidsOf(2);
  const { signal, pid, sessions, reached } = bench(['t', 'f', 'f', 't'], { first, last: first });
  const asked = signal(pid, 'terminate');
  sessions.unregister(pid);
  const other = sessions.register(PROTOCOL_3_0, {
    user: 'postgres',
    cancel: () => reached.push('another was cancelled'),
    terminate: () => reached.push('another was ended'),
  });
  t.equal(other.pid, pid);
  t.equal(await asked, 'absent');
  t.strictSame(reached, []);
});

t.test('a session of another process is reached there, with rights asked there', async (t) => {
  const { signal, asked, passed } = bench(['t', 't', 't', 't']);
  const elsewhere = pidsOf(3).first;
  t.equal(await signal(elsewhere, 'terminate'), 'no member');
  t.strictSame(passed, [[elsewhere, 'terminate', 'caller']]);
  t.strictSame(asked, []);
});
