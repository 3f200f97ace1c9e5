// A statement on several shards inside a block (R60): it runs on the block's branches, sees what they have written, and fails all.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FaultProxy } from '../support/fault-proxy.js';
import { encodeCancel, type FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf, valueFrom } from '../support/kv-extension.js';
import { GRANTS } from '../support/spread-servers.js';
import { errorOf, type SqlClient, tagsOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 2, { stated: true });
const proxy = await FaultProxy.start(cluster.servers[1]!);
t.teardown(() => proxy.down());
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of admins) await admin.query(GRANTS);
const live = await kvRouter(t, { ...cluster, servers: [cluster.servers[0]!, proxy.standInFor(cluster.servers[1]!)] });
const setup = await live.connect({ user: 'app' });
const KEYS = Array.from({ length: 12 }, (_, n) => `k${n}`);
const ROWS = KEYS.map((key) => `('a', '${key}', '0')`).join();
const ON_CONFLICT = 'ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value';
const reset = () => setup.run(`INSERT INTO kv (tenant_id, key, value) VALUES ${ROWS} ${ON_CONFLICT}`);
await reset();
const onShard = async (index: number) =>
  String((await rowsOf(admins[index]!, 'SELECT key FROM kv ORDER BY key LIMIT 1'))[0]![0]);
const [HERE, THERE] = [await onShard(0), await onShard(1)];
const set = (key: string, value: number) => `UPDATE kv SET value = '${value}' WHERE tenant_id = 'a' AND key = '${key}'`;
const setAll = (value: number) => `UPDATE kv SET value = '${value}' WHERE tenant_id = 'a'`;
const VALUES = 'SELECT DISTINCT value FROM kv ORDER BY value';
const SUM = `SELECT sum((value #>> '{}')::int) FROM kv`;
const distinct = async (client: SqlClient) => [...new Set((await client.rows('SELECT value FROM kv')).flat())].sort();
t.beforeEach(reset);

async function cancel(client: SqlClient): Promise<void> {
  const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const request = await WireClient.open(live);
  request.sendBytes(encodeCancel(data.pid, data.key));
  await request.wait('closed');
  request.destroy();
}

t.test('a block sees what it has written on each shard, and nobody else does before its end', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const first of [null, set(HERE, 5), set(THERE, 5)]) {
    for (const setting of [null, `SET LOCAL work_mem = '5MB'`]) {
      await client.run('BEGIN', ...(setting === null ? [] : [setting]), ...(first === null ? [] : [first]));
      t.strictSame(await client.value(SUM), first === null ? '0' : '5', `${first} ${setting}`);
      t.strictSame(await client.run(setAll(1)), ['UPDATE 12']);
      t.equal(await client.value(SUM), '12');
      t.strictSame(await client.rows(`SELECT key FROM kv WHERE value = '1' ORDER BY key LIMIT 2`), [['k0'], ['k1']]);
      t.equal(await setup.value(SUM), '0');
      await client.run('SAVEPOINT a', 'DELETE FROM kv', 'ROLLBACK TO a');
      t.equal(await client.value(SUM), '12');
      await client.run('COMMIT');
      t.equal(await setup.value(SUM), '12');
      await reset();
    }
  }
  await client.end();
});

t.test('the failure of one part fails all branches, and a savepoint takes all back', async (t) => {
  const client = await live.connect({ user: 'app' });
  const divides = `UPDATE kv SET value = to_jsonb(1 / (2 - (value #>> '{}')::int)) WHERE tenant_id = 'a'`;
  for (const key of [HERE, THERE]) {
    await client.run('BEGIN', setAll(1), 'SAVEPOINT a', set(key, 2));
    t.equal(await client.fails(divides), '22012');
    for (const sql of [set(HERE, 3), set(THERE, 3), setAll(3), VALUES, 'SELECT 1', SUM]) {
      t.equal(await client.fails(sql), '25P02', sql);
    }
    await client.run('ROLLBACK TO a');
    t.strictSame(await distinct(client), ['1']);
    t.equal(await client.fails(`SELECT 1 / (value #>> '{}')::int - 1 / ((value #>> '{}')::int - 1) FROM kv`), '22012');
    await client.run('ROLLBACK TO a', 'COMMIT');
    t.strictSame(await distinct(setup), ['1']);
    await client.run('BEGIN', setAll(4));
    t.equal(
      await client.fails(`INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'new', '1'), ('a', '${key}', '1')`),
      '23505',
    );
    t.strictSame(await client.run('COMMIT'), ['ROLLBACK']);
    t.strictSame(await distinct(setup), ['1']);
  }
  await client.end();
});

t.test('by the extended protocol: several in one batch, portals in portions, an error in its midst', async (t) => {
  const client = await live.connect({ user: 'app' });
  const run = (sql: string, values: readonly string[] = []): FrontendMessage[] => [
    { parse: sql },
    { bind: values },
    { describe: 'portal' },
    { execute: '' },
  ];
  const rows = `('a', $1, '7'), ('a', $2, '7')`;
  const insert = run(`INSERT INTO kv (tenant_id, key, value) VALUES ${rows} ${ON_CONFLICT} RETURNING key`, [
    HERE,
    THERE,
  ]);
  const update = run('UPDATE kv SET value = $1 WHERE value = $2', ['8', '0']);
  const answers = await client.send([...run('BEGIN'), ...insert, ...update, ...run(SUM), 'sync']);
  t.equal(errorOf(answers), null);
  t.strictSame(tagsOf(answers), ['BEGIN', 'INSERT 0 2', 'UPDATE 10', 'SELECT 1']);
  const read: FrontendMessage[] = [{ parse: 'SELECT key FROM kv ORDER BY key' }, { bind: [], portal: 'p' }];
  const portions = await client.send([
    ...read,
    { describe: 'portal', name: 'p' },
    'flush',
    ...Array.from({ length: 4 }, () => ({ execute: 'p', rows: 5 })),
    'sync',
  ]);
  t.equal(errorOf(portions), null);
  const kinds = portions.map(({ type }) => type).filter((type) => /Row|Suspended|Complete$/.test(type));
  const five = Array.from({ length: 5 }, () => 'DataRow');
  t.strictSame(kinds.slice(2), [
    'RowDescription',
    ...five,
    'PortalSuspended',
    ...five,
    'PortalSuspended',
    ...five.slice(3),
    'CommandComplete',
    'CommandComplete',
  ]);
  const failing = await client.send([...run(setAll(9)), ...run('SELECT 1 / 0'), ...run(setAll(9)), 'sync']);
  t.equal(errorOf(failing)?.code, '22012');
  t.equal(client.status, 'E');
  await client.run('ROLLBACK');
  t.strictSame(await distinct(setup), ['0']);
  await client.end();
});

t.test('a cancel reaches the part that waits for a lock', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const [index, key] of [HERE, THERE].entries()) {
    const holder = await live.connect({ user: 'app' });
    await holder.run('BEGIN', set(key, 6));
    await client.run('BEGIN', 'SAVEPOINT a');
    const waiting = client.fails(setAll(7));
    const waits = `SELECT count(*)::int FROM pg_stat_activity WHERE wait_event_type = 'Lock'`;
    while ((await valueFrom(admins[index]!, waits)) === 0) await sleep(5);
    await cancel(client);
    t.equal(await waiting, '57014');
    await holder.run('ROLLBACK');
    await client.run('ROLLBACK TO a', setAll(8), 'ROLLBACK');
    await holder.end();
  }
  await client.end();
});

t.test('a connection that is lost while a statement runs on all branches fails the block', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const [name, sql] of Object.entries({ write: setAll(3), read: SUM })) {
    for (let after = 0; after < 400; after += 40) {
      await client.run('BEGIN', setAll(2));
      proxy.arm({ kind: 'cut', side: after % 80 === 0 ? 'request' : 'answer', after, reset: false, once: true });
      const error = errorOf(await client.send([{ query: sql }]));
      proxy.disarm();
      if (error === null) t.strictSame(await client.run('ROLLBACK'), ['ROLLBACK'], `${name} ${after}`);
      else {
        t.equal(error.code, '40001', `${name} ${after}: ${error.message}`);
        t.equal(await client.fails(set(HERE, 4)), '25P02', `${name} ${after}`);
        await client.run('ROLLBACK');
      }
      t.strictSame(await distinct(setup), ['0']);
    }
  }
  await client.end();
});

t.test('where the block has to stay on one shard it is refused', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const begin of ['BEGIN ISOLATION LEVEL REPEATABLE READ', 'BEGIN ISOLATION LEVEL SERIALIZABLE']) {
    for (const sql of [setAll(1), SUM]) {
      await client.run(begin);
      t.equal(await client.fails(sql), '0A000', `${begin} ${sql}`);
      await client.run('ROLLBACK');
    }
  }
  for (const setting of ['refuse', 'per_shard']) {
    await client.run(`SET pgkv.cross_shard = '${setting}'`, 'BEGIN');
    t.equal(await client.fails(setAll(1)), '0A000', setting);
    await client.run('ROLLBACK');
  }
  t.strictSame(await distinct(setup), ['0']);
  await client.end();
});

t.test('COPY is a part of the block, and fails it', async (t) => {
  const client = await live.connect({ user: 'app' });
  const copy = (data: string, end: FrontendMessage = 'copyDone') =>
    client.send([{ query: 'COPY kv (tenant_id, key, value) FROM STDIN' }, { copyData: data }, end]);
  const rows = (count: number, value: string) =>
    Array.from({ length: count }, (_, n) => `c\tnew${n}\t${value}\n`).join('');
  const there = (of: SqlClient) => of.value(`SELECT count(*) FROM kv WHERE tenant_id = 'c'`);
  for (const first of [[], [set(HERE, 1)], [setAll(1)], [`SET LOCAL work_mem = '5MB'`]]) {
    await client.run('BEGIN', ...first);
    t.strictSame(tagsOf(await copy(rows(500, '1'))), ['COPY 500'], first.join());
    t.equal(await there(client), '500');
    t.equal(await there(setup), '0');
    // The slots of what comes behind it are computed as before.
    await client.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('c', 'x', '1'), ('c', 'y', '1')`, 'SAVEPOINT a');
    for (const data of [rows(500, '1'), `c\tz\t1\nc\tz`, `c\tz\t1\nc\tz\tno json\n`]) {
      t.match(errorOf(await copy(data))?.code, /^(23505|22P04|22P02)$/);
      t.equal(client.status, 'E');
      for (const sql of [set(HERE, 2), set(THERE, 2), setAll(2)]) t.equal(await client.fails(sql), '25P02');
      t.equal(errorOf(await copy(rows(1, '1')))?.code, '25P02');
      await client.run('ROLLBACK TO a');
      t.equal(await there(client), '502');
    }
    t.equal(errorOf(await copy('', { copyFail: 'no more' }))?.code, '57014');
    await client.run('ROLLBACK TO a', 'COMMIT');
    t.equal(await there(setup), '502');
    t.equal(await setup.value(`SELECT value FROM kv WHERE tenant_id = 'c' AND key = 'x'`), '1');
    await setup.run(`DELETE FROM kv WHERE tenant_id = 'c'`);
  }
  for (let after = 0; after < 1_200; after += 200) {
    await client.run('BEGIN', setAll(2));
    proxy.arm({ kind: 'cut', side: after % 400 === 0 ? 'request' : 'answer', after, reset: false, once: true });
    const error = errorOf(await copy(rows(100, '1')));
    proxy.disarm();
    // Where expired rows are removed first, beside the block, that is not lost.
    if (error !== null) t.match(error.code, /^(40001|08006)$/, `${after}: ${error.message}`);
    await client.run('ROLLBACK');
    t.equal(await there(setup), '0');
  }
  await client.end();
});
