// What SIGHUP takes over of a changed file, and what it leaves to the next start.
import t from 'tap';
import { defaultSettings } from '../../../src/config/load.js';
import { planReload } from '../../../src/config/reload.js';

const SHARDS = [{ name: 'a', nodes: [{ host: 'h' }] }];
const before = defaultSettings({ shards: SHARDS }, 'secret');

t.test('nothing has changed', async (t) => {
  t.match(planReload(before, defaultSettings({ shards: SHARDS }, 'secret')), { changed: [], needRestart: [] });
});

t.test('every change is named as in the file, under what is done about it', async (t) => {
  const read = defaultSettings(
    {
      shards: [...SHARDS, { name: 'b', nodes: [{ host: 'i' }] }],
      pool: { sizeMax: 7, waitTimeoutMs: 5 },
      log: { level: 'debug', values: true },
      admin: { roles: ['app'] },
      auth: { allow: [{ hosts: ['local'] }], cacheMs: 1 },
    },
    'another secret',
  );
  const { settings, changed, needRestart } = planReload(before, read);
  t.same(changed.toSorted(), ['admin.roles', 'auth.allow', 'log.level']);
  t.same(needRestart.toSorted(), [
    'auth.cache_ms',
    'auth.service.password',
    'log.values',
    'pool.size_max',
    'pool.wait_timeout_ms',
    'shards',
  ]);
  t.notMatch(JSON.stringify({ changed, needRestart }), /secret/);
  t.equal(settings.log.level, 'debug');
  t.same(settings.admin.roles, ['app']);
  t.match(settings.auth.allow, [{ hosts: ['local'] }]);
  t.equal(settings.log.values, false, 'what needs a restart stays as it was');
  t.equal(settings.pool.sizeMax, before.pool.sizeMax);
  t.equal(settings.auth.service.password?.reveal(), 'secret');
  t.match(planReload(settings, read).changed, [], 'taken over once');
});

t.test('hosts of auth.allow are addresses, networks, "local" or "all"', async (t) => {
  const fails = (host: string) =>
    t.throws(() => defaultSettings({ shards: SHARDS, auth: { allow: [{ hosts: [host] }] } }), host);
  for (const host of ['', 'localhost', '10.0.0.0/33', '10.0.0/8', '::1/129', '1.2.3.4/x', '1.2.3.4/8/8', 'All'])
    fails(host);
  for (const host of ['all', 'local', '10.0.0.0/8', '1.2.3.4', '::1', 'fd00::/8', '0.0.0.0/0']) {
    t.match(defaultSettings({ shards: SHARDS, auth: { allow: [{ hosts: [host] }] } }).auth.allow, [{ hosts: [host] }]);
  }
});
