// Nobody starves others (D30): however many clients sit in transactions, merged statements and log-ins go on, and one role in
// one database does not get more than its share while others wait.
import t from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { SqlClient } from '../support/sql-client.js';

const SIZE = 20;
const LEASES = 16;
const cluster = await kvServers(t, 1);
const direct = await SqlClient.connect(cluster.servers[0]!, { user: 'postgres', database: 'postgres' });
await direct.run(
  'CREATE ROLE other LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO other',
  "INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'k', '1')",
);
await direct.end();
const READ = "SELECT value FROM kv WHERE tenant_id = 'a' AND key = $1";
const WRITE = 'UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2';

t.test('as many clients idle in transaction as there are connections', async (t) => {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: SIZE } });
  const { pool } = live.router;
  const reader = await live.connect();
  // Learnt, so that it is merged from now on.
  for (let round = 0; round < 3; round++) {
    await reader.extended(READ, ['k']);
    await reader.extended(WRITE, ['a', 'k', '1']);
  }
  const holders = await Promise.all(Array.from({ length: SIZE }, () => live.connect()));
  const begun = holders.map((client) => client.run('BEGIN', 'SELECT count(*) FROM pg_class'));
  for (const run of begun) run.catch(() => undefined);
  await Promise.all(begun.slice(0, LEASES));
  t.equal(pool.waitingCount, SIZE - LEASES, 'the rest waits for a lease');

  await t.test('merged reads of all roles go on', async (t) => {
    const merged = live.router.counters.mergedStatements;
    for (let round = 0; round < 5; round++) t.strictSame(await reader.extended(READ, ['k']), [['1']]);
    t.ok(live.router.counters.mergedStatements >= merged + 5, 'and are merged');
  });
  await t.test('anybody logs in', async (t) => {
    for (const options of [
      {},
      { user: 'other' },
      { database: 'template1' },
      { user: 'other', database: 'template1' },
    ]) {
      const client = await live.connect(options);
      t.equal(client.status, 'I');
      client.wire.destroy();
    }
  });
  await t.test('merged writes go on', async () => {
    for (let round = 0; round < 3; round++) await reader.extended(WRITE, ['a', 'k', '1']);
  });
  for (const client of holders) client.wire.destroy();
  await Promise.allSettled(begun);
});

for (const size of [SIZE, 5]) {
  t.test(`statements never seen before are merged while all leases of ${size} are held`, async (t) => {
    const live = await kvRouter(t, cluster, { pool: { sizeMax: size, waitTimeoutMs: 20_000 } });
    const leases = size - Math.floor(size / 5);
    const [reader, ...holders] = await Promise.all(Array.from({ length: leases + 1 }, () => live.connect()));
    const begun = holders.map((client) => client.run('BEGIN', 'SELECT count(*) FROM pg_class'));
    await Promise.all(begun);
    const merged = live.router.counters.mergedStatements;
    const forms = [
      "SELECT value, ttl FROM kv WHERE tenant_id = 'a' AND key = $1",
      'SELECT value, version > 0 AS is FROM kv WHERE tenant_id = $2 AND key = $1',
      'UPDATE kv SET value = $3 WHERE tenant_id = $2 AND key = $1 RETURNING ttl',
    ];
    for (const [index, form] of forms.entries()) await reader!.extended(form, ['k', 'a', '1'].slice(0, index + 1));
    await reader!.run("SELECT updated_at FROM kv WHERE tenant_id = 'a' AND key = 'k'");
    await reader!.run("DELETE FROM kv WHERE tenant_id = 'a' AND key = 'absent' RETURNING key");
    t.equal(live.router.counters.mergedStatements - merged, 5, 'all of them');
    for (const client of holders) await client.run('COMMIT');
  });
}

t.test('a role above its share lets others go first', async (t) => {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: SIZE, roleShare: 0.5 } });
  const { pool } = live.router;
  const many = await Promise.all(Array.from({ length: SIZE }, () => live.connect()));
  const begun = many.map((client) => client.run('BEGIN', 'SELECT count(*) FROM pg_class'));
  for (const run of begun) run.catch(() => undefined);
  await Promise.all(begun.slice(0, LEASES));
  while (pool.waitingCount < SIZE - LEASES) await new Promise(setImmediate);
  const few = await Promise.all(Array.from({ length: 3 }, () => live.connect({ user: 'other' })));
  let left = SIZE - LEASES;
  for (const run of begun.slice(LEASES)) run.then(() => left--).catch(() => undefined);
  const served = Promise.all(few.map((client) => client.run('BEGIN', 'SELECT count(*) FROM pg_class')));
  while (pool.waitingCount < SIZE - LEASES + 3) await new Promise(setImmediate);
  // Each that ends makes room for one who waits: for the others, though they came last.
  for (const client of many.slice(0, 3)) await client.run('COMMIT');
  await served;
  t.equal(left, SIZE - LEASES, 'nobody of the role that has more than its share came first');
  for (const client of many.slice(3, 3 + left)) await client.run('COMMIT');
  await Promise.all(begun.slice(LEASES));
});

t.test('alone, a role may have all leases', async (t) => {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: SIZE, roleShare: 0.5 } });
  const clients = await Promise.all(Array.from({ length: LEASES }, () => live.connect()));
  await Promise.all(clients.map((client) => client.run('BEGIN', 'SELECT count(*) FROM pg_class')));
  t.pass(`${LEASES} transactions at one time`);
});
