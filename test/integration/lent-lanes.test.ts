// What becomes of the lanes of a block while a statement has them (R60): a connection that breaks while another part is at work,
// a cancel that comes too late, a pool that has no more connections. Backends are stopped and go on by signals.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FaultProxy } from '../support/fault-proxy.js';
import { encodeCancel, type FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf, valueFrom } from '../support/kv-extension.js';
import { stretched } from '../support/machine-speed.js';
import { GRANTS } from '../support/spread-servers.js';
import { errorOf, type SqlClient, tagsOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const SHARDS = [0, 1, 2];
const cluster = await kvServers(t, SHARDS.length, { stated: true });
const proxies = await Promise.all(cluster.servers.map((server) => FaultProxy.start(server)));
t.teardown(() => Promise.all(proxies.map((proxy) => proxy.down())));
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of admins) await admin.query(`${GRANTS}; GRANT ALL ON blobs TO app`);
const seen = { ...cluster, servers: cluster.servers.map((server, index) => proxies[index]!.standInFor(server)) };
const live = await kvRouter(t, seen);
const setup = await live.connect({ user: 'app' });
const ROWS = Array.from({ length: 18 }, (_, n) => `('a', 'k${n}', '0')`).join();
for (const table of ['kv', 'blobs']) {
  await setup.run(`INSERT INTO ${table} (tenant_id, key, value) VALUES ${ROWS}`);
}
const keyOn = async (index: number) =>
  String(await valueFrom(admins[index]!, 'SELECT key FROM kv ORDER BY key LIMIT 1'));
const KEYS = await Promise.all(SHARDS.map(keyOn));
const setAll = (value: number) => `UPDATE kv SET value = '${value}' WHERE tenant_id = 'a'`;
const upsert = (keys: readonly string[], ttl: string) =>
  `INSERT INTO kv (tenant_id, key, value, ttl) VALUES ${keys.map((key) => `('a', '${key}', '2', ${ttl})`).join()}
   ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`;
const there = async () =>
  (await Promise.all(admins.map((admin) => rowsOf(admin, 'SELECT DISTINCT value::text FROM kv')))).flat(2).join();

/** The backend of the block on that shard. */
async function backendOf(index: number): Promise<number> {
  const pids = `SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in transaction%'`;
  return Number(await valueFrom(admins[index]!, pids));
}

async function cancel(client: SqlClient): Promise<void> {
  const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const request = await WireClient.open(live);
  request.sendBytes(encodeCancel(data.pid, data.key));
  await request.wait('closed');
  request.destroy();
}

async function soon<T>(about: string, what: Promise<T>): Promise<T> {
  const late = new AbortController();
  const ms = await stretched(5_000);
  const missed = sleep(ms, null, { signal: late.signal }).then(() => Promise.reject(new Error(`no answer: ${about}`)));
  missed.catch(() => undefined);
  return Promise.race([what, missed]).finally(() => late.abort());
}

const simple = (query: string): FrontendMessage[] => [{ query }];
const extended = (parse: string): FrontendMessage[] => [{ parse }, { bind: [] }, { execute: '' }, 'sync'];

t.test('a connection breaks while another shard is at the statement', { timeout: 120_000 }, async (t) => {
  const two = (one: number) => [0, 1, 2].filter((index) => index !== one).map((index) => KEYS[index]!);
  const statements = (lost: number): Record<string, FrontendMessage[]> => ({
    'read on all': simple('SELECT count(*) FROM kv'),
    'sorted read on all': extended('SELECT key FROM kv ORDER BY value, key LIMIT 3'),
    'read on two': simple(`SELECT value FROM kv WHERE tenant_id = 'a' AND key IN ('${two(lost).join(`', '`)}')`),
    'write on all': extended(setAll(2)),
    'write on two': simple(upsert(two(lost), 'NULL')),
    'write on two at a time': simple(upsert(two(lost), `now() + interval '1 hour'`)),
  });
  for (const lost of SHARDS) {
    for (const held of SHARDS.filter((index) => index !== lost)) {
      for (const name of Object.keys(statements(lost))) {
        const about = `${name}: ${lost} is lost, ${held} is at work`;
        const client = await live.connect({ user: 'app' });
        await client.run('BEGIN', setAll(1));
        // The lane of the one that is lost is the current one.
        await client.run(`SELECT FROM kv WHERE tenant_id = 'a' AND key = '${KEYS[lost]}'`);
        const pid = await backendOf(held);
        process.kill(pid, 'SIGSTOP');
        const answers = client.send(statements(lost)[name]!);
        answers.catch(() => undefined);
        await sleep(30);
        await proxies[lost]!.down();
        await proxies[lost]!.up();
        await sleep(30);
        process.kill(pid, 'SIGCONT');
        const error = errorOf(await soon(about, answers));
        if (error !== null) t.equal(error.code, '40001', `${about}: ${error.message}`);
        const end = await soon(about, client.send(simple('COMMIT')));
        const failure = errorOf(end);
        if (failure === null) t.strictSame(tagsOf(end), ['ROLLBACK'], about);
        else t.equal(failure.code, '40001', `${about}: ${failure.message}`);
        t.equal(await there(), '0,0,0', about);
        if (client.status !== 'I') await client.run('ROLLBACK');
        t.equal(await client.value('SELECT count(*) FROM kv'), '18', about);
        await client.end();
      }
    }
  }
});

t.test('a cancel that lands when all parts have answered', { timeout: 60_000 }, async (t) => {
  const client = await live.connect({ user: 'app' });
  t.teardown(() => client.wire.destroy());
  const counts = new Map<boolean, number>();
  const statements = [
    simple(setAll(2)),
    extended(setAll(2)),
    extended('SELECT key FROM kv'),
    simple('SELECT key, value FROM kv'),
  ];
  for (const held of SHARDS) {
    for (const [index, statement] of statements.entries()) {
      const about = `${index}, ${held} is at work`;
      await client.run('BEGIN', setAll(1), 'SAVEPOINT a');
      const pid = await backendOf(held);
      process.kill(pid, 'SIGSTOP');
      const answers = client.send(statement);
      answers.catch(() => undefined);
      await sleep(30);
      for (const proxy of proxies) proxy.cancelDelayMs = 200;
      await cancel(client);
      await sleep(30);
      process.kill(pid, 'SIGCONT');
      // All may have answered before it came.
      const error = errorOf(await soon(about, answers));
      t.match(error?.code ?? '57014', '57014', about);
      for (const proxy of proxies) proxy.cancelDelayMs = 0;
      t.equal(client.status, error === null ? 'T' : 'E', about);
      counts.set(error === null, (counts.get(error === null) ?? 0) + 1);
      await soon(about, client.run('ROLLBACK TO a', setAll(3), 'ROLLBACK'));
      t.equal(await there(), '0,0,0', about);
    }
  }
  t.ok(counts.get(false), 'some are cancelled');
  t.comment(JSON.stringify([...counts]));
});

t.test('COPY in a block does with the connections that the block has', async (t) => {
  const narrow = await kvRouter(t, cluster, { pool: { sizeMax: 1 } });
  const client = await narrow.connect({ user: 'app' });
  await client.run('BEGIN', setAll(1));
  const data = Array.from({ length: 50 }, (_, n) => `c\tnew${n}\t1\n`).join('');
  const copy: FrontendMessage[] = [
    { query: 'COPY kv (tenant_id, key, value) FROM STDIN' },
    { copyData: data },
    'copyDone',
  ];
  t.strictSame(tagsOf(await soon('COPY', client.send(copy))), ['COPY 50']);
  await client.run('ROLLBACK');
  await client.end();
});
