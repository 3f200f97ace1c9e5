import t from 'tap';
import { PgkvError } from '../../../src/base/errors.js';
import { FailedLogins, reasonFor } from '../../../src/frontend/door/failed-logins.js';

t.test('the first failures are told one by one, a flood as a number', async (t) => {
  const told: unknown[] = [];
  let now = 500;
  const clock = { now: () => now, wallTime: () => now, after: () => ({ cancel: () => undefined }) };
  const failed = new FailedLogins(clock, (fields, message) => told.push({ ...fields, message }));
  const login = { role: 'alice', address: '10.0.0.9', sqlstate: '28P01', reason: 'wrong password' };
  failed.tellRest();
  failed.note(login);
  t.strictSame(told, [{ ...login, message: 'login failed' }]);
  for (let count = 0; count < 1_000; count++) failed.note(login);
  t.equal(told.length, 10);
  now += 9_999;
  failed.tellRest();
  t.equal(told.length, 10, 'the window is not over');
  now += 1;
  failed.tellRest();
  failed.tellRest();
  t.strictSame(told.slice(10), [{ logins: 991, message: 'more logins failed, not logged one by one' }]);
  failed.note({ ...login, role: 'x'.repeat(9_000) });
  t.strictSame(told[11], { ...login, role: 'x'.repeat(64), message: 'login failed' }, 'the next window begins');
  now += 10_000;
  failed.tellRest();
  t.equal(told.length, 12, 'nothing was left out');
});

t.test('the log gets the reason that the client does not', async (t) => {
  t.equal(reasonFor(new PgkvError('authentication_failed', { message: 'no' })), 'no');
  const cause = new PgkvError('server_unreachable', { detail: 'node 10.0.0.1:5432: refused' });
  t.equal(reasonFor(new PgkvError('server_unreachable', { cause })), 'node 10.0.0.1:5432: refused');
  t.equal(reasonFor(new PgkvError('internal', { cause: new Error('oops') })), 'oops');
});
