// COPY into key-value tables beside what else happens: expired rows, encodings, locks, cancels, clients that go, blocks and batches
// in which it may not stand, and data of any size.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { encodeAll, encodeCancel, type FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, valueFrom } from '../support/kv-extension.js';
import { GRANTS } from '../support/spread-servers.js';
import { errorOf, SqlClient, tagsOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const ADDER = 'CREATE ROLE adder LOGIN; GRANT adder TO pgkv_recover; GRANT INSERT ON kv TO adder';
const COPY = 'copy kv (tenant_id, key, value) from stdin';

const cluster = await kvServers(t, 3, { stated: true });
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of admins) await admin.query(`${GRANTS}; ${ADDER}`);
const live = await kvRouter(t, cluster);
const connect = (user = 'app'): Promise<SqlClient> => SqlClient.connect(live, { user, database: 'postgres' });
const client = await connect();
t.teardown(() => client.end());

const outcomeOf = (answers: readonly BackendMessage[]): string => {
  const last = answers.findLast(({ type }) => type === 'CommandComplete' || type === 'ErrorResponse');
  if (last?.type === 'CommandComplete') return last.tag;
  return last?.type === 'ErrorResponse' ? `${last.fields['C']} ${last.fields['D'] ?? ''}` : 'nothing';
};
const copied = async (data: string | Buffer, sql = COPY, by = client): Promise<string> =>
  outcomeOf(await by.send([{ query: sql }, { copyData: data }, 'copyDone']));
const lines = (tenant: string, count: number): string =>
  Array.from({ length: count }, (_, n) => `${tenant}\tk${n}\t${n}\n`).join('');
const counted = async (tenant: string): Promise<number> =>
  Number(await client.value(`select count(*) from kv where tenant_id = '${tenant}'`));

async function cancel(running: SqlClient): Promise<void> {
  const data = running.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const request = await WireClient.open(live);
  request.sendBytes(encodeCancel(data.pid, data.key));
  await request.wait('closed');
  request.destroy();
}

t.test('rows that have expired are no rows', async (t) => {
  for (let n = 0; n < 50; n++)
    await client.run(`insert into kv (tenant_id, key, value, ttl) values ('old', 'x${n}', '0', now() - interval '1 hour')
      on conflict (tenant_id, key) do nothing`);
  const data = Array.from({ length: 50 }, (_, n) => `old\tx${n}\t1\n`).join('');
  t.equal(await copied(data), 'COPY 50');
  t.equal(await counted('old'), 50);
  // Those that have not are.
  t.match(await copied('old\tx7\t2\n'), /^23505 /);
});

t.test('so they are where there are many', async (t) => {
  for (const admin of admins) {
    await admin.query(`ALTER TABLE kv DISABLE TRIGGER pgkv_slot; INSERT INTO kv (tenant_id, key, value, ttl, slot)
      SELECT 'many', 'k' || n, '0', now() - interval '1 hour', pgkv.slot('many', 'k' || n) FROM generate_series(1, 15000) n
      WHERE pgkv.slot('many', 'k' || n) <@ pgkv.owned_slots(); ALTER TABLE kv ENABLE TRIGGER pgkv_slot`);
  }
  const data = Array.from({ length: 15_000 }, (_, n) => `many\tk${n + 1}\t1\n`).join('');
  t.equal(await copied(data), 'COPY 15000');
});

t.test('what comes of a message that was refused in its midst is nobody else’s', async (t) => {
  const keeps = await connect();
  await keeps.run('create temp table kept (n int)');
  const kept = await keeps.value('select pg_backend_pid()');
  // Refused at once, by what stands at its beginning.
  const bad = `x\ty\t1\nx\tz\t1\r${'z'.repeat(300_000)}`;
  const message = encodeAll([{ copyData: bad }]);
  for (const cut of [6, 40, 5_000, 200_000]) {
    await keeps.send([{ query: COPY }], { type: 'CopyInResponse' });
    const answered = keeps.wire.wait(1);
    keeps.wire.sendBytes(message.subarray(0, cut));
    await sleep(100);
    keeps.wire.sendBytes(message.subarray(cut));
    keeps.wire.send('copyDone');
    t.match(outcomeOf((await answered).messages), /^22P04/, `cut at ${cut}`);
    t.equal(await keeps.value('select count(*) from kept'), '0');
  }
  t.equal(await keeps.value('select pg_backend_pid()'), kept);
  await keeps.end();
});

t.test('one who gives up waits for nobody', async (t) => {
  const holder = await connectTo(t, cluster.servers[1]!);
  await holder.query('BEGIN; LOCK TABLE kv IN SHARE MODE');
  const waiting = await connect();
  await waiting.run(`set lock_timeout = '1h'`);
  const answer = waiting.send([{ query: COPY }, { copyData: lines('waits', 300) }, 'copyDone']);
  const waits = `SELECT count(*)::int FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%'`;
  while ((await valueFrom(admins[1]!, waits)) === 0) await sleep(10);
  await cancel(waiting);
  t.match(outcomeOf(await answer), /^57014/);
  await holder.query('ROLLBACK');
  t.equal(await counted('waits'), 0);
  await waiting.end();
});

t.test('who may insert may copy', async (t) => {
  const adder = await connect('adder');
  t.equal(await copied(lines('adder', 20), COPY, adder), 'COPY 20');
  t.equal(await counted('adder'), 20);
  await adder.end();
});

t.test('keys are those of the text, whatever the encoding', async (t) => {
  const latin = await connect();
  await latin.run('set client_encoding = latin1');
  const keys = Array.from({ length: 40 }, (_, n) => `\xe4\xf6\xfc${n}`);
  const data = Buffer.from(keys.map((key) => `l\xe4tin\t${key}\t1\n`).join(''), 'latin1');
  t.equal(await copied(data, COPY, latin), 'COPY 40');
  await latin.end();
  for (const key of keys)
    t.equal(await client.value(`select value from kv where tenant_id = 'lätin' and key = '${key}'`), '1');
  const sjis = await connect();
  await sjis.run('set client_encoding = sjis');
  t.equal(await sjis.fails(COPY), '0A000');
  await sjis.end();
});

t.test('where it may not stand it is refused before any data is asked for', async (t) => {
  for (const [before, sql, code] of [
    [`set pgkv.cross_shard = 'refuse'`, COPY, 'PGKV-061'],
    [null, `${COPY}; select 1`, 'PGKV-002'],
    [null, `${COPY} (freeze)`, 'PGKV-088'],
    [null, `${COPY} (on_error ignore)`, 'PGKV-088'],
    [null, `${COPY} where length(key) > 1`, 'PGKV-088'],
    [null, `${COPY} where ttl > 'now'`, 'PGKV-088'],
    [null, `${COPY} where key = 'a'::text`, 'PGKV-088'],
    [null, `${COPY} (format csv, delimiter '1')`, 'PGKV-088'],
    [null, `copy kv from '/tmp/rows'`, 'PGKV-002'],
    [null, `copy kv from program 'cat'`, 'PGKV-002'],
  ] as const) {
    if (before !== null) await client.run(before);
    const error = await client.failsWith(sql);
    t.equal(error.fields['D'], code, sql);
    if (before !== null) await client.run('reset pgkv.cross_shard');
  }
  // Options that no server knows are Postgres's to refuse.
  t.equal(await client.fails(`${COPY} (format xml)`), '22023');
  t.equal(await client.fails('copy kv (tenant_id, key, nothing) from stdin'), '42703');
  t.equal(await client.fails('copy kv (tenant_id, key, key) from stdin'), '42701');
});

t.test(
  'it may stand behind what is parsed in a batch without a Sync, as asyncpg sends it, not behind what has run',
  async (t) => {
    const parsed: FrontendMessage[] = [
      { parse: 'select key from kv limit 1', name: 'ahead' },
      { describe: 'statement', name: 'ahead' },
    ];
    for (const isInBlock of [false, true]) {
      const tenant = `behind ${isInBlock}`;
      if (isInBlock) await client.run('begin');
      const copy: FrontendMessage[] = [{ query: COPY }, { copyData: lines(tenant, 30) }, 'copyDone'];
      const answers = await client.send([...parsed, ...copy]);
      t.equal(errorOf(answers), null);
      t.strictSame(tagsOf(answers), ['COPY 30']);
      t.ok(answers.some(({ type }) => type === 'RowDescription'));
      if (isInBlock) await client.run('commit');
      t.equal(await counted(tenant), 30);
      await client.send([{ close: 'statement', name: 'ahead' }, 'sync']);
    }
    const behind = await client.send([{ parse: 'select 1' }, { bind: [] }, { execute: '' }, { query: COPY }]);
    t.equal(errorOf(behind)?.fields['D'], 'PGKV-089');
  },
);

t.test('WHERE takes rows on each shard', async (t) => {
  for (const [where, count] of [
    [`key >= 'k5' and key <= 'k8'`, 4],
    [`key in ('k1', 'k7') or value = '3'`, 3],
    [`tenant_id <> 'where'`, 0],
    [`not (value is null) and key like 'k1%'`, 11],
    [`key between 'k10' and 'k19'`, 10],
  ] as const) {
    await client.run(`delete from kv where tenant_id = 'where'`);
    t.equal(await copied(lines('where', 20), `${COPY} where ${where}`), `COPY ${count}`, where);
    t.equal(await counted('where'), count);
  }
  t.match(await copied('w\tx\t1\n', `${COPY} where nothing = 1`), /PGKV-088/);
});

t.test('by the extended protocol it is answered as by Postgres', async (t) => {
  // One ReadyForQuery, whatever is sent.
  const send = (messages: FrontendMessage[]) => client.send(messages, 1);
  const types = (answers: readonly BackendMessage[]): string[] => answers.map(({ type }) => type);
  const begin = (sql: string): FrontendMessage[] => [
    { parse: sql },
    { bind: [] },
    { describe: 'portal' },
    { execute: '' },
  ];
  const data = (tenant: string): FrontendMessage[] => [{ copyData: lines(tenant, 25) }, 'copyDone'];
  const told = ['ParseComplete', 'BindComplete', 'NoData', 'CopyInResponse', 'CommandComplete', 'ReadyForQuery'];
  // Some drivers send a Sync behind the Execute, which a server in a copy passes over.
  for (const [n, early] of [[], ['sync'] as const, ['flush', 'sync'] as const].entries()) {
    const answers = await send([...begin(COPY), ...early, ...data(`extended ${n}`), 'sync']);
    t.strictSame(types(answers), told);
    t.equal(await counted(`extended ${n}`), 25);
  }
  await send([{ parse: COPY, name: 'load' }, { describe: 'statement', name: 'load' }, 'sync']);
  for (const n of [0, 1]) {
    const run: FrontendMessage[] = [{ bind: [], statement: 'load', portal: 'p' }, { execute: 'p' }];
    t.strictSame(tagsOf(await send([...run, ...data(`named ${n}`), 'sync'])), ['COPY 25']);
    t.equal(await counted(`named ${n}`), 25);
  }
  t.equal(errorOf(await send([{ parse: COPY, name: 'load' }, 'sync']))?.code, '42P05');
  for (const [end, code] of [
    [[{ copyData: 'bad\ta\t1\nbad\tb\t{\n' }, 'copyDone'], '22P02'],
    [[{ copyData: 'bad\ta\t1\n' }, { copyFail: 'no more' }], '57014'],
    [[{ copyData: 'bad\ta\t1\n' }, 'copyDone', { parse: 'select 1' }, { bind: [] }, { execute: '' }], '0A000'],
    [[{ copyData: 'bad\ta\t1\n' }, 'copyDone', { query: 'select 1' }], '0A000'],
  ] as [FrontendMessage[], string][]) {
    const answers = await send([...begin(COPY), ...end, 'sync']);
    t.equal(errorOf(answers)?.code, code);
    t.equal(types(answers).filter((type) => type === 'ReadyForQuery').length, 1);
    t.equal(await counted('bad'), 0);
  }
  t.equal(errorOf(await send([...begin(`${COPY} (format xml)`), 'sync']))?.code, '22023');
  for (const [end, count] of [
    ['rollback', 0],
    ['commit', 25],
  ] as const) {
    await client.run('begin');
    t.strictSame(tagsOf(await send([...begin(COPY), ...data('in block'), 'sync'])), ['COPY 25']);
    t.equal(await counted('in block'), 25);
    await client.run(end);
    t.equal(await counted('in block'), count);
  }
  const asked = await send([...begin(COPY), ...data('flushed'), 'flush', 'sync']);
  t.strictSame(types(asked), told);
});

t.test('a client that goes behind its data, before its Sync, leaves nothing', async (t) => {
  const other = await connect();
  other.wire.send({ parse: COPY }, { bind: [] }, { execute: '' }, { copyData: lines('gone', 9) }, 'copyDone');
  await sleep(50);
  other.wire.destroy();
  const open = `SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`;
  for (const admin of admins) while (Number(await valueFrom(admin, open)) > 0) await sleep(5);
  t.equal(await counted('gone'), 0);
});

t.test('a wrong slot is refused, and told with its line', async (t) => {
  const [error] = (
    await client.send([
      { query: 'copy kv (tenant_id, key, slot) from stdin' },
      { copyData: 'w\ta\t\\N\nw\tb\t0\n' },
      'copyDone',
    ])
  ).filter(({ type }) => type === 'ErrorResponse');
  t.match(error, { fields: { D: 'PGKV-072', W: 'COPY kv, line 2' } });
  t.equal(await counted('w'), 0);
});

t.test('a client that goes in the middle leaves nothing', async (t) => {
  for (const goes of ['end', 'destroy'] as const) {
    const going = await connect();
    await going.send([{ query: COPY }], { type: 'CopyInResponse' });
    await going.send([{ copyData: lines(goes, 1000) }], 0).catch(() => undefined);
    if (goes === 'end') await going.end().catch(() => undefined);
    else going.wire.destroy();
  }
  const busy = `SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'copy %' AND state = 'active'`;
  for (const admin of admins) while ((await valueFrom(admin, busy)) !== 0) await sleep(10);
  t.equal(await counted('end'), 0);
  t.equal(await counted('destroy'), 0);
});

t.test('a cancel takes all of it back', async (t) => {
  const running = await connect();
  await running.send([{ query: COPY }], { type: 'CopyInResponse' });
  const answer = running.send([{ copyData: lines('cancelled', 100) }], 1);
  await cancel(running);
  t.match(outcomeOf(await answer), /^57014/);
  // Data that was on its way is passed over, as Postgres does.
  t.equal(outcomeOf(await running.send([{ copyData: 'x' }, 'copyDone', { query: 'select 1' }])), 'SELECT 1');
  t.equal(await counted('cancelled'), 0);
  await running.end();
});

t.test('a message that has no place in it ends the session, as with Postgres', async (t) => {
  const lost = await connect();
  await lost.send([{ query: COPY }], { type: 'CopyInResponse' });
  const answers = await lost.send([{ query: 'select 1' }], 'closed');
  t.match(outcomeOf(answers), /^08P01/);
});

t.test('a lock on one shard is waited for', async (t) => {
  const holder = await connectTo(t, cluster.servers[1]!);
  await holder.query('BEGIN; LOCK TABLE kv IN SHARE MODE');
  const waiting = copied(lines('locked', 300));
  const WAITS = 'SELECT count(*)::int AS waits FROM pg_locks WHERE NOT granted';
  while ((await holder.query(WAITS)).rows[0].waits === 0);
  await holder.query('ROLLBACK');
  t.equal(await waiting, 'COPY 300');
  t.equal(await counted('locked'), 300);
});

t.test('much data flows through little memory', async (t) => {
  const rows = 60_000;
  const value = `{"text": "${'x'.repeat(400)}"}`;
  const before = process.memoryUsage().rss;
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss - before);
  }, 20);
  const big = await connect();
  await big.send([{ query: COPY }], { type: 'CopyInResponse' });
  for (let n = 0; n < rows; n += 500) {
    const data = Array.from({ length: 500 }, (_, more) => `big\tk${n + more}\t${value}\n`).join('');
    big.wire.send({ copyData: data });
    await big.wire.drained();
  }
  t.equal(outcomeOf(await big.send(['copyDone'], 1)), `COPY ${rows}`);
  clearInterval(watch);
  t.equal(await counted('big'), rows);
  t.comment(`${Math.round((rows * value.length) / 2 ** 20)} MiB of data, ${Math.round(most / 2 ** 20)} MiB of memory`);
  await big.end();
});
