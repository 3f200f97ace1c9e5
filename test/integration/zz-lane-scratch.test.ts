import t from 'tap';
import { setTimeout as sleep } from 'node:timers/promises';
import { kvServers, kvRouter } from '../support/kv-cluster.js';
import { batchBytes, becomesMerged, directClient, grants, queryBytes, tickClients, together, told } from '../support/merged-clients.js';
import { encodeCancel } from '../support/frontend-message.js';
import { WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 1);
const [server] = cluster.servers;
const direct = await directClient(server!);
t.teardown(() => direct.sql.wire.destroy());
const seed = `truncate kv; insert into kv (tenant_id,key,value,updated_at) select 't', 'k' || g, jsonb_build_object('n', g), '2026-01-01' from generate_series(0, 99) g`;
const reset = async () => { const a = told(await direct.ask(queryBytes(seed))); if (a.code) throw new Error(a.error!.M); };
const GET = 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2';
const INCR = 'SELECT kv_incr($1, $2)';
await reset();

t.test('works', async (t) => {
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 16);
  t.ok(await becomesMerged(live, clients, (i) => batchBytes(GET, ['t', `k${i}`])));
  const answers = await together(clients, (i) => batchBytes(GET, ['t', `k${i}`]));
  t.same(answers.map((a) => told(a).rows), clients.map((_, i) => [[`{"n": ${i}}`]]));
});

t.test('timezone literal', async (t) => {
  const live = await kvRouter(t, cluster);
  const [a] = await tickClients(live, 1);
  const sql = `SELECT timestamptz '2026-07-01 00:00' AS at, value FROM kv WHERE tenant_id = $1 AND key = $2`;
  told(await a!.ask(queryBytes(`SET timezone = 'Asia/Tokyo'`)));
  for (let i = 0; i < 20; i++) {
    const { rows, code } = told(await a!.ask(batchBytes(sql, ['t', 'k1'])));
    if (rows[0]?.[0] !== '2026-07-01 00:00:00+09') t.comment(`run ${i}: ${code} ${JSON.stringify(rows)}`);
    t.equal(rows[0]?.[0], '2026-07-01 00:00:00+09');
    await sleep(3);
  }
});

t.test('cancelled while its batch waits for a connection: not applied', async (t) => {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 1 } });
  const [a, b, holder] = await tickClients(live, 3);
  t.ok(await becomesMerged(live, [a!, b!], (i) => batchBytes(INCR, ['t', `w${i}`])));
  t.same(told(await holder!.ask(queryBytes('BEGIN; SELECT 1; '))).code, '');
  a!.send(batchBytes(INCR, ['t', 'c1']));
  await sleep(50);
  const key = a!.sql.wire.received.find((m) => m.type === 'BackendKeyData')! as { pid: number; key: Buffer };
  const wire = await WireClient.open(live);
  wire.sendBytes(encodeCancel(key.pid, key.key));
  await wire.wait('closed');
  const answer = told(await a!.answer());
  t.equal(answer.code, '57014');
  a!.send(batchBytes(INCR, ['t', 'c2']));
  await sleep(50);
  await holder!.ask(queryBytes('COMMIT'));
  t.same(told(await a!.answer()).rows, [['1']]);
  const { rows } = told(await direct.ask(queryBytes(`select key, value from kv where key like 'c%' order by 1`)));
  t.same(rows, [['c2', '1']]);
});

t.test('new connection after ADD COLUMN', async (t) => {
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 4);
  const sql = 'SELECT * FROM kv WHERE tenant_id = $1 AND key = $2';
  t.ok(await becomesMerged(live, clients, (i) => batchBytes(sql, ['t', `k${i}`])));
  await direct.ask(queryBytes(`alter table kv add column extra int default 7`));
  await direct.ask(queryBytes(`select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'`));
  await sleep(100);
  for (let i = 0; i < 5; i++) {
    const { rows, messages, code } = told(await clients[0]!.ask(batchBytes(sql, ['t', 'k1'])));
    t.same(messages.filter(({ type }) => type === 'Malformed').length, 0, `run ${i}`);
    const d = messages.find((m) => m.type === 'RowDescription') as any;
    t.same([d?.columns.length, rows[0]?.length, code], [8, 8, ''], `run ${i}`);
  }
  await direct.ask(queryBytes(`alter table kv drop column extra`));
});

t.test('malformed binds', async (t) => {
  const live = await kvRouter(t, cluster);
  const off = await kvRouter(t, cluster, { merged: { disabled: true } });
  const clients = await tickClients(live, 2);
  const sql = 'UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2';
  t.ok(await becomesMerged(live, clients, (i) => batchBytes(sql, ['t', `k${i}`, '5'])));
  const good = batchBytes(sql, ['t', 'k1', '"value"']);
  const at = good.indexOf('"value"') - 4;
  for (const length of [-2, 8, 100, 100000, 0x7fffffff]) {
    const bad = Buffer.from(good); bad.writeInt32BE(length, at);
    const res: string[] = [];
    for (const router of [live, off]) {
      const [c] = await tickClients(router, 1);
      const a = told(await c!.ask(bad));
      res.push(JSON.stringify([a.code, a.error?.S, a.error?.M, a.tags]));
    }
    t.equal(res[0], res[1], `length ${length}`);
  }
});

t.test('dead row key: a trigger added later changes the key', async (t) => {
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 4);
  const sql = `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, '1') ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`;
  t.ok(await becomesMerged(live, clients, (i) => batchBytes(sql, ['t', `k${i}`])));
  await direct.ask(queryBytes(`create function up() returns trigger language plpgsql as $$ begin new.key := upper(new.key); return new; end $$; create trigger up before insert on kv for each row execute function up()`));
  const answers = await together(clients, (i) => batchBytes(sql, ['t', `z${i}`]));
  t.comment(answers.map((a) => told(a).code + told(a).tags).join(' '));
  await direct.ask(queryBytes(`drop trigger up on kv`));
});
t.test('temp table', async (t) => {
  const live = await kvRouter(t, cluster);
  const off = await kvRouter(t, cluster, { merged: { disabled: true } });
  for (const r of [off, live]) {
    const [c] = await tickClients(r, 1);
    for (let i = 0; i < 10; i++) { await c!.ask(batchBytes(GET, ['t', 'k1'])); await sleep(2); }
    t.comment(told(await c!.ask(queryBytes('create temp table kv (like public.kv)'))).code);
    t.comment(JSON.stringify(told(await c!.ask(batchBytes(GET, ['t', 'k1']))).rows));
  }
});
