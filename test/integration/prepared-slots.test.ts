// Servers that let few transactions be prepared at one time (R68): those that commit over several shards take turns, and where none is
// left for long, as when recovery cannot get at what holds them, the transaction is told so and is nowhere.
import t from 'tap';
import { systemClock } from '../../src/base/clock.js';
import { PreparedSlots } from '../../src/execute/two-phase/prepared-slots.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf } from '../support/kv-extension.js';
import { GRANTS } from '../support/spread-servers.js';

t.test('many that commit take turns', async (t) => {
  const cluster = await kvServers(t, 3, { stated: true, parameters: { max_prepared_transactions: '2' } });
  const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
  for (const admin of admins) await admin.query(GRANTS);
  const live = await kvRouter(t, cluster);
  const clients = await Promise.all(Array.from({ length: 12 }, () => live.connect({ user: 'app' })));
  for (let n = 0; n < 120; n++) {
    await clients[0]!.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'k${n}', '0')`);
  }
  // The limits are known behind the first.
  const add = (...keys: readonly number[]) =>
    `UPDATE kv SET value = '1' WHERE tenant_id = 'a' AND key IN (${keys.map((key) => `'k${key}'`).join(', ')})`;
  await clients[0]!.run(add(...Array.from({ length: 120 }, (_, n) => n)));
  const failures = await Promise.all(
    clients.map(async (client, at) => {
      const own = Array.from({ length: 10 }, (_, n) => at * 10 + n);
      const failed: string[] = [];
      for (let n = 0; n < 8; n++) {
        const texts = n % 2 === 0 ? [add(...own)] : ['BEGIN', ...own.map((key) => add(key)), 'COMMIT'];
        await client.run(...texts).catch((error: Error) => failed.push(error.message));
      }
      return failed;
    }),
  );
  t.strictSame(failures.flat(), []);
  for (const admin of admins) t.strictSame(await rowsOf(admin, 'SELECT gid FROM pg_prepared_xacts'), []);
  for (const client of clients) await client.end();
});

t.test('who waits gets what is given back, in vain for two seconds at most', async (t) => {
  // Its own timers keep no process alive.
  const alive = setInterval(() => undefined, 100);
  t.teardown(() => clearInterval(alive));
  const slots = new PreparedSlots({ clock: systemClock, processes: 2, ask: async () => 5 });
  const take = (...names: string[]) => new Promise<string | null>((told) => slots.take(names, told));
  // Nobody waits before the limit is known: five, less what recovery keeps, for two.
  t.strictSame(await Promise.all([take('a'), take('a', 'b')]), [null, null]);
  await new Promise(setImmediate);
  const [inVain, later] = [take('b', 'a'), take('b')];
  t.equal(await inVain, 'a');
  t.equal(await later, null, 'behind the one that came first');
  const waiting = take('a');
  slots.give(['a']);
  await new Promise(setImmediate);
  slots.give(['a', 'b']);
  t.equal(await waiting, null);
});
