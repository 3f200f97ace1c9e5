// What a block over several shards may not do, and what becomes of it when something stands in its way (D14, D31, R57).
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FaultProxy } from '../support/fault-proxy.js';
import { encode, encodeCancel, type FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf, valueFrom } from '../support/kv-extension.js';
import { GRANTS } from '../support/spread-servers.js';
import type { SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 2, { stated: true });
const proxy = await FaultProxy.start(cluster.servers[1]!);
t.teardown(() => proxy.down());
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
type Admin = (typeof admins)[number];
for (const admin of admins) await admin.query(GRANTS);
const live = await kvRouter(t, { ...cluster, servers: [cluster.servers[0]!, proxy.standInFor(cluster.servers[1]!)] });
const setup = await live.connect({ user: 'app' });
for (let n = 0; n < 20; n++) await setup.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'k${n}', '0')`);
const onShard = async (index: number) =>
  String((await rowsOf(admins[index]!, 'SELECT key FROM kv ORDER BY key LIMIT 1'))[0]![0]);
const [HERE, THERE] = [await onShard(0), await onShard(1)];
const set = (key: string, value: number) => `UPDATE kv SET value = '${value}' WHERE tenant_id = 'a' AND key = '${key}'`;
const values = () => setup.rows(`SELECT value FROM kv WHERE tenant_id = 'a' AND key IN ('${HERE}', '${THERE}')`);
const valueAt = (key: string) => setup.value(`SELECT value FROM kv WHERE tenant_id = 'a' AND key = '${key}'`);
const reset = () => setup.run(set(HERE, 0), set(THERE, 0));
const prepared = async () =>
  (await Promise.all(admins.map((admin) => rowsOf(admin, 'SELECT gid FROM pg_prepared_xacts')))).flat();
const bytesOf = (...messages: readonly FrontendMessage[]) => Buffer.concat(messages.map(encode));
async function cancel(client: SqlClient): Promise<void> {
  const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const request = await WireClient.open(live);
  request.sendBytes(encodeCancel(data.pid, data.key));
  await request.wait('closed');
  request.destroy();
}
const asBefore = (admin: Admin) => admin.query('DROP TRIGGER IF EXISTS late ON kv; DROP FUNCTION IF EXISTS at_end()');
t.beforeEach(async () => {
  for (const admin of admins) await asBefore(admin);
  await reset();
});

t.test('by its setting, its isolation level and its role it stays on one shard', async (t) => {
  const client = await live.connect({ user: 'app' });
  const refusedAs = async (rule: string, message: RegExp) => {
    await client.run(set(HERE, 1));
    t.match(await client.failsWith(set(THERE, 1)), { code: '0A000', fields: { D: rule, M: message } });
    t.equal(client.status, 'E');
    await client.run('ROLLBACK');
    t.strictSame(await values(), [['0'], ['0']]);
  };
  await client.run(`SET pgkv.cross_shard = 'refuse'`, 'BEGIN');
  await refusedAs('PGKV-080', /key is on shard s2/);
  await client.run(`SET pgkv.cross_shard = 'per_shard'`, 'BEGIN');
  await refusedAs('PGKV-084', /cross_shard = per_shard is/);
  await client.run('RESET pgkv.cross_shard');
  for (const level of ['REPEATABLE READ', 'SERIALIZABLE']) {
    await client.run(`BEGIN ISOLATION LEVEL ${level}`);
    await refusedAs('PGKV-080', /isolation level/);
  }
  for (const admin of admins) {
    await admin.query('REVOKE app FROM pgkv_recover');
    await client.run('BEGIN');
    await refusedAs('PGKV-084', /missing on this shard: GRANT app TO pgkv_recover/);
    await admin.query('GRANT app TO pgkv_recover');
  }
  await client.run('BEGIN', set(HERE, 2), set(THERE, 2), 'COMMIT');
  t.strictSame(await values(), [['2'], ['2']]);
  await client.end();
});

t.test('a text of several statements that ends it is refused before it has run on any shard', async (t) => {
  const client = await live.connect({ user: 'app' });
  const texts = ['BEGIN; COMMIT', `BEGIN; SET LOCAL app.name = 'x'; COMMIT`, 'SAVEPOINT a; COMMIT', 'BEGIN; ROLLBACK'];
  for (const text of [...texts, 'SELECT 1; COMMIT', `SET app.name = 'x'; COMMIT; BEGIN`]) {
    await client.run('BEGIN', set(HERE, 1), set(THERE, 1));
    t.match(await client.failsWith(text), { code: '0A000', fields: { D: 'PGKV-080' } }, text);
    t.equal(client.status, 'E', text);
    await client.run('ROLLBACK');
    t.strictSame(await values(), [['0'], ['0']], text);
  }
  await client.run('BEGIN', set(HERE, 1), set(THERE, 1));
  t.equal(await client.fails('SELECT 1 FROM kv WHERE ('), '42601', 'what cannot be parsed');
  await client.run('ROLLBACK');
  await client.end();
});

t.test('what is for all shards is said on each once, whatever comes behind it in its batch', async (t) => {
  const client = await live.connect({ user: 'app' });
  const update = `UPDATE kv SET value = $2 WHERE tenant_id = 'a' AND key = $1`;
  const named = { s: 'SAVEPOINT a', r: 'ROLLBACK TO a', l: `SET LOCAL app.name = 'x'` };
  for (const [name, parse] of Object.entries(named)) await client.send([{ parse, name }, 'sync']);
  const run = (statement: string) => [{ bind: [], statement }, { execute: '' }] as const;
  const keyed = (key: string, value: string) => [{ parse: update }, { bind: [key, value] }, { execute: '' }] as const;
  for (const [first, other] of [
    [HERE, THERE],
    [THERE, HERE],
  ] as const) {
    await client.run('BEGIN', set(first, 1), set(other, 1));
    const said = await client.send([...run('s'), ...run('l'), ...keyed(first, '2'), ...keyed(other, '2'), 'sync']);
    t.strictSame(
      said.filter(({ type }) => type === 'ErrorResponse'),
      [],
    );
    for (const key of [first, other]) {
      await client.run(`SELECT FROM kv WHERE tenant_id = 'a' AND key = '${key}'`);
      t.equal(await client.value(`SELECT current_setting('app.name', true)`), 'x');
    }
    const back = await client.send([...run('r'), ...keyed(first, '3'), 'sync']);
    t.strictSame(
      back.filter(({ type }) => type === 'ErrorResponse'),
      [],
    );
    await client.run('COMMIT');
    t.strictSame([await valueAt(first), await valueAt(other)], ['3', '1']);
    await reset();
  }
  await client.end();
});

t.test('a statement for all shards may come in parts, and one that is not executed next is refused', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const sql of ['SAVEPOINT a', 'COMMIT', 'ROLLBACK']) {
    await client.run('BEGIN', set(HERE, 1), set(THERE, 1));
    const bytes = bytesOf({ parse: sql }, { bind: [] }, { describe: 'portal' }, { execute: '' });
    for (let at = 0; at < bytes.length; at++) {
      client.wire.sendBytes(bytes.subarray(at, at + 1));
      await sleep(1);
    }
    const answers = await client.send(['sync']);
    t.strictSame(
      answers.filter(({ type }) => type === 'ErrorResponse'),
      [],
      sql,
    );
    t.equal(client.status, sql.startsWith('SAVEPOINT') ? 'T' : 'I');
    if (client.status === 'T') await client.run('ROLLBACK');
  }
  await client.run('BEGIN', set(HERE, 1), set(THERE, 1));
  const answers = await client.send([{ parse: 'SAVEPOINT a' }, { bind: [] }, 'flush', { execute: '' }, 'sync']);
  t.match(
    answers.filter(({ type }) => type === 'ErrorResponse'),
    [{ fields: { C: '0A000' } }],
  );
  await client.run('ROLLBACK');
  await reset();
  await client.run('BEGIN', set(HERE, 1), set(THERE, 1));
  client.wire.send({ parse: 'COMMIT' }, { bind: [] });
  await client.wire.end();
  t.strictSame(await values(), [['0'], ['0']]);
});

t.test('a refusal leaves its savepoints good, and a constraint that is deferred fails its COMMIT', async (t) => {
  const client = await live.connect({ user: 'app' });
  await admins[1]!.query('REVOKE app FROM pgkv_recover');
  await client.run('BEGIN', set(HERE, 3), 'SAVEPOINT a');
  t.equal(await client.fails(set(THERE, 3)), '0A000');
  await admins[1]!.query('GRANT app TO pgkv_recover');
  await client.run('ROLLBACK TO a', set(THERE, 4), 'COMMIT');
  t.strictSame(new Set((await values()).flat()), new Set(['3', '4']));
  await reset();
  for (const admin of admins) {
    await admin.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
      CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`);
    await client.run('BEGIN', set(HERE, 5), set(THERE, 5));
    t.equal(await client.fails('COMMIT'), 'P0001');
    t.equal(client.status, 'I');
    await admin.query('DROP TRIGGER late ON kv; DROP FUNCTION refuse()');
    t.strictSame(await values(), [['0'], ['0']]);
  }
  await client.end();
});

t.test('a cancel reaches the branch that waits', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const key of [HERE, THERE]) {
    const holder = await live.connect({ user: 'app' });
    await holder.run('BEGIN', set(key, 6));
    await client.run('BEGIN', set(key === HERE ? THERE : HERE, 6), 'SAVEPOINT a');
    const waiting = client.fails(set(key, 7));
    const waits = `SELECT count(*)::int FROM pg_stat_activity WHERE wait_event_type = 'Lock'`;
    while ((await valueFrom(admins[key === HERE ? 0 : 1]!, waits)) === 0);
    await cancel(client);
    t.equal(await waiting, '57014');
    await client.run('ROLLBACK TO a');
    await holder.run('ROLLBACK');
    await holder.end();
    await client.run(set(key, 7), 'ROLLBACK');
  }
  await client.end();
});

t.test('two that wait for each other over shards end', async (t) => {
  const [one, other] = [await live.connect({ user: 'app' }), await live.connect({ user: 'app' })];
  await one.run('BEGIN', set(HERE, 8));
  await other.run('BEGIN', set(THERE, 9));
  const ends = await Promise.all(
    [one.run(set(THERE, 8)), other.run(set(HERE, 9))].map((end) =>
      end.then(
        () => 'done',
        (error: { code: string }) => error.code,
      ),
    ),
  );
  t.strictSame(
    ends.filter((end) => end !== 'done'),
    ['40P01'],
    ends.join(),
  );
  await one.run('ROLLBACK');
  await other.run('ROLLBACK');
  for (const client of [one, other]) await client.end();
});

t.test('a notification is told if it commits, and what was set is so on all shards', async (t) => {
  const [client, listener] = [await live.connect({ user: 'app' }), await live.connect({ user: 'app' })];
  await listener.run('LISTEN news');
  for (const [end, heard] of [
    ['ROLLBACK', 0],
    ['COMMIT', 1],
  ] as const) {
    await client.run('BEGIN', set(THERE, 1), `SET app.name = '${end}'`, `NOTIFY news, '${end}'`, set(HERE, 1), end);
    await listener.run('SELECT 1');
    t.equal(listener.wire.received.filter(({ type }) => type === 'NotificationResponse').length, heard, end);
    const name = `SELECT current_setting('app.name', true) AS name`;
    for (const key of [HERE, THERE]) {
      await client.run('BEGIN', `SELECT value FROM kv WHERE tenant_id = 'a' AND key = '${key}'`);
      t.equal((await client.value(name)) === 'COMMIT', heard === 1, `${end}: on the shard of ${key}`);
      await client.run('COMMIT');
    }
  }
  for (const one of [client, listener]) await one.end();
});

t.test('a branch that is lost while the block is at another one fails it', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const next of [set(HERE, 3), set(THERE, 3), 'SAVEPOINT a', 'COMMIT']) {
    await client.run('BEGIN', set(THERE, 2), set(HERE, 2));
    await proxy.down();
    await proxy.up();
    t.equal(await client.fails(next), '40001', next);
    if (next !== 'COMMIT') {
      t.equal(await client.fails(set(HERE, 4)), '25P02');
      await client.run('ROLLBACK');
    }
    t.equal(client.status, 'I');
    t.strictSame(await values(), [['0'], ['0']]);
  }
  await client.end();
});
/** Runs `sql` when a transaction that has changed a row of the shard ends. */
const atItsEnd = (admin: Admin, sql: string) =>
  admin.query(`CREATE FUNCTION at_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${sql}; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_end()`);
const nameOn = async (client: SqlClient, key: string) => {
  await client.run('BEGIN', `SELECT value FROM kv WHERE tenant_id = 'a' AND key = '${key}'`);
  const name = await client.value(`SELECT coalesce(current_setting('app.name', true), '')`);
  await client.run('COMMIT');
  return name;
};

t.test('a COMMIT that fails has told nothing and set nothing, on what only read as well', async (t) => {
  const [client, listener] = [await live.connect({ user: 'app' }), await live.connect({ user: 'app' })];
  await listener.run('LISTEN news');
  const read = (key: string) => `SELECT value FROM kv WHERE tenant_id = 'a' AND key = '${key}'`;
  for (const [index, key] of [HERE, THERE].entries()) {
    await atItsEnd(admins[index]!, `RAISE 'not today'`);
    const other = key === HERE ? THERE : HERE;
    for (const say of [`NOTIFY news, 'x'`, `SET app.name = 'kept'`]) {
      await client.run('BEGIN', read(other), set(key, 1), say);
      t.equal(await client.fails('COMMIT'), 'P0001');
    }
    await asBefore(admins[index]!);
    for (const where of [HERE, THERE]) t.equal(await nameOn(client, where), '', `set on the shard of ${where}`);
    await listener.run('SELECT 1');
    t.equal(listener.wire.received.filter(({ type }) => type === 'NotificationResponse').length, 0, 'told');
  }
  for (const one of [client, listener]) await one.end();
});

t.test('a warning at its end is none of the standbys', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const admin of admins) await atItsEnd(admin, `RAISE WARNING 'mind that'`);
  await client.run('BEGIN', set(HERE, 1), set(THERE, 1));
  t.strictSame(await client.run('COMMIT'), ['COMMIT']);
  for (const admin of admins) await asBefore(admin);
  t.strictSame(await values(), [['1'], ['1']]);
  await client.end();
});

t.test('it is committed as the role that it has at its end', async (t) => {
  for (const admin of admins) {
    await admin.query(`CREATE ROLE other; GRANT other TO app; GRANT ALL ON kv TO other; GRANT other TO pgkv_recover`);
  }
  const client = await live.connect({ user: 'app' });
  for (const say of ['SET LOCAL ROLE other', 'SET ROLE other']) {
    await client.run('BEGIN', set(HERE, 1), set(THERE, 1), say);
    const from = performance.now();
    t.strictSame(await client.run('COMMIT'), ['COMMIT'], say);
    t.ok(performance.now() - from < 2_000, 'at once');
    t.strictSame(await values(), [['1'], ['1']]);
    t.strictSame(await prepared(), []);
    for (const key of [HERE, THERE]) {
      await client.run('BEGIN', set(key, 2));
      t.equal(await client.value('SELECT current_user'), say.includes('LOCAL') ? 'app' : 'other', say);
      await client.run('ROLLBACK');
    }
    await client.run('RESET ROLE');
    await reset();
  }
  await client.end();
  // For whom the recoverer cannot act.
  const superuser = await live.connect({ user: cluster.servers[0]!.superuser });
  await superuser.run('BEGIN', 'SET LOCAL ROLE app', set(HERE, 3), set(THERE, 3), 'SET LOCAL ROLE NONE');
  t.match(await superuser.failsWith('COMMIT'), { code: '0A000', fields: { D: 'PGKV-084' } });
  t.strictSame(await values(), [['0'], ['0']]);
  t.strictSame(await prepared(), []);
  await superuser.end();
});

t.test('a connection that is lost behind PREPARE takes no session along', async (t) => {
  const client = await live.connect({ user: 'app' });
  await atItsEnd(admins[0]!, 'PERFORM pg_sleep(0.5)');
  for (const say of [`SET app.name = 'x'`, 'SET LOCAL ROLE other']) {
    await client.run('BEGIN', set(HERE, 4), set(THERE, 4), say);
    const ends = client.run('COMMIT');
    // The answer to PREPARE is there: what decides is under way.
    const decides = `SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep'`;
    while ((await valueFrom(admins[0]!, decides)) === 0);
    t.equal((await prepared()).length, 1);
    await proxy.down();
    await proxy.up();
    t.strictSame(await ends, ['COMMIT'], say);
    t.strictSame(await values(), [['4'], ['4']]);
    t.strictSame(await prepared(), []);
    t.equal(await client.value('SELECT current_user'), 'app');
    t.equal(await nameOn(client, THERE), 'x');
    await reset();
  }
  await asBefore(admins[0]!);
  await client.end();
});

t.test('its isolation level counts, wherever it comes from', async (t) => {
  const client = await live.connect({ user: 'app' });
  const usual = async (admin: Admin, sql: string, level: string) => {
    await admin.query(sql);
    await admin.query('SELECT pg_reload_conf()');
    while ((await valueFrom(admin, 'SHOW default_transaction_isolation')) !== level);
  };
  for (const [index, key] of [HERE, THERE].entries()) {
    const admin = admins[index]!;
    await usual(admin, `ALTER SYSTEM SET default_transaction_isolation = 'repeatable read'`, 'repeatable read');
    for (const first of [HERE, THERE]) {
      await client.run('BEGIN', set(first, 1));
      const error = await client.failsWith(set(first === HERE ? THERE : HERE, 1));
      t.match(error, { code: '0A000', fields: { D: 'PGKV-080', M: /repeatable read/ } }, `by the shard of ${key}`);
      await client.run('ROLLBACK');
    }
    await usual(admin, 'ALTER SYSTEM RESET default_transaction_isolation', 'read committed');
  }
  await client.run('BEGIN', set(HERE, 1), set(THERE, 1), 'COMMIT');
  await client.end();
});

t.test(
  'AND CHAIN hands the options of a failed block on as one server does, on whatever shard, or is refused',
  async (t) => {
    const client = await live.connect({ user: 'app' });
    const read = (key: string) => `SELECT value FROM kv WHERE tenant_id = 'a' AND key = '${key}'`;
    // A server has forgotten them by then, unless it failed behind a savepoint.
    for (const [begin, said] of [
      [['BEGIN READ ONLY'], 'COMMIT'],
      [['BEGIN READ ONLY', 'SAVEPOINT a'], '25006'],
      [['BEGIN', 'SET TRANSACTION READ ONLY', 'SAVEPOINT a', 'SAVEPOINT b'], '25006'],
      [['BEGIN READ ONLY', 'SAVEPOINT a', 'RELEASE a'], 'COMMIT'],
      [[`BEGIN READ ONLY; SAVEPOINT a; ${read(HERE)}`], '0A000'],
    ] as const) {
      for (const failing of [[read(HERE), 'SELECT 1 / 0'], [`SET work_mem = 'much'`]]) {
        await client.run(...begin, ...failing.slice(0, -1));
        await client.fails(failing.at(-1)!);
        const text = `COMMIT AND CHAIN; ${set(THERE, 1)}`;
        if (said === 'COMMIT') await client.run(text);
        else t.equal(await client.fails(text), said, `${begin.join('; ')}; ${failing.at(-1)}`);
        await client.run('ROLLBACK');
        t.strictSame(await values(), [['0'], ['0']], begin.join());
      }
    }
    await client.end();
  },
);

t.test('nothing is left prepared', async (t) => {
  t.strictSame(await prepared(), []);
  await setup.end();
});
