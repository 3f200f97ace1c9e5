// Who answers for a pid, and who may ask.
import t from 'tap';
import { systemRandom } from '../../../src/base/clock.js';
import { FIRST_SESSION_PID } from '../../../src/cluster/session-pids.js';
import { backendAnswer, type Caller, CancelRegistry } from '../../../src/frontend/door/cancel-registry.js';
import type { BackendCall } from '../../../src/sql/plan/backend-call.js';
import { PROTOCOL_3_0 } from '../../../src/wire/protocol.js';

const call = (name: BackendCall['function'], isQualified = false): BackendCall => ({
  function: name,
  argument: null,
  column: name,
  isQualified,
});

t.test('sessions are reached by their own role and by superusers, and by nobody else', async (t) => {
  const sessions = new CancelRegistry(systemRandom);
  const reached: string[] = [];
  const { pid } = sessions.register(PROTOCOL_3_0, {
    user: 'app',
    cancel: () => reached.push('cancelled'),
    terminate: () => reached.push('ended'),
  });
  const caller = (user: string, isSuperuser = false): Caller => ({ user, isSuperuser, pid: 7, searchPath: null });
  const done = { kind: 'done', value: true, warning: null };
  t.strictSame(backendAnswer(call('pg_cancel_backend'), pid, caller('app'), sessions), done);
  t.strictSame(backendAnswer(call('pg_terminate_backend'), pid, caller('boss', true), sessions), done);
  t.strictSame(reached, ['cancelled', 'ended']);
  for (const name of ['pg_cancel_backend', 'pg_terminate_backend'] as const) {
    const refused = backendAnswer(call(name), pid, caller('stranger'), sessions);
    t.match(refused, { kind: 'error', error: { sqlstate: '42501', message: /permission denied/ } });
    const absent = backendAnswer(call(name), pid + 1, caller('app'), sessions);
    t.match(absent, { kind: 'done', value: false, warning: `PID ${pid + 1} is not a PostgreSQL backend process` });
    t.match(backendAnswer(call(name), null, caller('app'), sessions), { kind: 'done', value: null });
    t.match(backendAnswer(call(name), FIRST_SESSION_PID - 1, caller('app'), sessions), { kind: 'server' });
  }
  t.equal(reached.length, 2);
  sessions.unregister(pid);
  t.match(backendAnswer(call('pg_cancel_backend'), pid, caller('app'), sessions), { value: false });
});

t.test('a search_path that names pg_catalog may mean another function, unless the schema is written', async (t) => {
  const sessions = new CancelRegistry(systemRandom);
  const caller = { user: 'app', isSuperuser: false, pid: 7 };
  const ask = (searchPath: string | null, isQualified: boolean) =>
    backendAnswer(call('pg_backend_pid', isQualified), null, { ...caller, searchPath }, sessions).kind;
  t.equal(ask(null, false), 'pid');
  t.equal(ask('one, public', false), 'pid');
  t.equal(ask('one, "pg_catalog"', false), 'server');
  t.equal(ask('one, pg_catalog', true), 'pid');
});
