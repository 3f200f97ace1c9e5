// Sessions over four shards: where transactions, batches, settings and pinned state go while statements on keys move
// from shard to shard; and what a shard that is down takes with it.
import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { initialView } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { encodeCancel, type FrontendMessage } from '../support/frontend-message.js';
import { evenSpread, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { rowsOf, SqlClient, tagsOf } from '../support/sql-client.js';

const SHARDS = 4;
await loadKeyHash();
const cluster = await kvServers(t, SHARDS);
const view = initialView(
  evenSpread(SHARDS, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
  [KV],
);
/** Keys of tenant `t`, one on each shard, the home shard's first. */
const KEYS = Array.from({ length: SHARDS }, (_, shard) => {
  for (let n = 0; ; n++) if (view.shardOfSlot[hashSlotOf('t', `key${n}`)] === shard) return `key${n}`;
});
const [ON_HOME, ON_1, ON_2, ON_3] = KEYS as [string, string, string, string];

const read = (key: string): string => `select value from kv where tenant_id = 't' and key = '${key}'`;
const write = (key: string, value: string): string =>
  `insert into kv (tenant_id, key, value) values ('t', '${key}', '${value}')
   on conflict (tenant_id, key) do update set value = excluded.value`;
const codes = (messages: readonly { type: string }[]): string[] =>
  messages.map((message) => {
    const { type } = message;
    if (type === 'ErrorResponse') return (message as unknown as { fields: Record<string, string> }).fields['C']!;
    return type === 'ReadyForQuery' ? (message as unknown as { status: string }).status : type;
  });

/** A CancelRequest for the client's session. */
async function cancel(client: SqlClient): Promise<void> {
  const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const socket = connect(live.port, live.host);
  socket.end(encodeCancel(data.pid, data.key));
  await once(socket, 'close');
}

const live = await kvRouter(t, cluster);
t.beforeEach(async () => {
  const client = await live.connect();
  for (const key of KEYS) await client.run(write(key, '0'));
  await client.end();
  await live.quiet();
});

t.test('each key is on the server of its shard, and nowhere else', async (t) => {
  for (const [index, server] of cluster.servers.entries()) {
    const direct = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
    t.same(await direct.rows('select key, slot from kv'), [[KEYS[index], String(hashSlotOf('t', KEYS[index]!))]]);
    await direct.end();
  }
});

t.test('a transaction takes the shard of its first key, whatever neutral statements stand before it', async (t) => {
  const client = await live.connect();
  await client.run('begin isolation level repeatable read', 'select 1', "set local lock_timeout = '777ms'");
  await client.run('savepoint early');
  t.same(await client.rows('show lock_timeout'), [['777ms']]);
  await client.run(write(ON_2, '1'));
  t.equal(client.status, 'T');
  t.same(await client.rows('show lock_timeout'), [['777ms']], 'settings came along');
  t.same(await client.rows('show transaction_isolation'), [['repeatable read']]);
  await client.run('rollback to savepoint early');
  t.same(await client.rows(read(ON_2)), [['0']], 'savepoints came along');
  await client.run(write(ON_2, '2'), 'commit');
  t.same(await client.rows(read(ON_2)), [['2']]);
  t.same(await client.rows('show lock_timeout'), [['0']]);
  await client.end();
});

t.test('BEGIN is answered before any server hears of it', async (t) => {
  const client = await live.connect();
  await client.run('select 1');
  const used = live.router.pools.map((pool) => pool.openCount - pool.idleCount);
  t.same(tagsOf(await client.answers('begin')), ['BEGIN']);
  t.equal(client.status, 'T');
  t.same(
    live.router.pools.map((pool) => pool.openCount - pool.idleCount),
    used,
    'no connection is held',
  );
  t.same(tagsOf(await client.answers('commit')), ['COMMIT']);
  t.same(tagsOf(await client.answers('start transaction', 'rollback')), ['START TRANSACTION', 'ROLLBACK']);
  t.equal(client.status, 'I');
  await client.run('begin');
  const [warning] = (await client.answers('begin')).filter(({ type }) => type === 'NoticeResponse');
  t.ok(warning, 'Postgres itself warns of a second BEGIN');
  await client.run('rollback');
  await client.end();
});

t.test('a transaction that would leave its shard is refused and fails, and nothing of it stays', async (t) => {
  const client = await live.connect();
  await client.run('begin', write(ON_1, '5'));
  const error = await client.failsWith(write(ON_2, '5'));
  t.equal(error.code, '0A000');
  t.match(error.message, /shard s3/);
  t.equal(error.fields['D'], 'PGKV-080', 'the rule');
  t.match(error.fields['H'], /\{tag\}/);
  t.equal(client.status, 'E');
  t.equal(await client.fails(read(ON_1)), '25P02');
  t.same(tagsOf(await client.answers('commit')), ['ROLLBACK']);
  t.same(await client.rows(read(ON_1)), [['0']]);
  t.same(await client.rows(read(ON_2)), [['0']]);
  await client.end();
});

t.test('a refusal in a block that no server knows of fails the block', async (t) => {
  const client = await live.connect();
  await client.run('begin');
  t.equal(await client.fails('truncate kv'), '0A000');
  t.equal(client.status, 'E');
  t.equal(await client.fails('select 1'), '25P02');
  await client.run('rollback');
  t.equal(client.status, 'I');
  t.same(await client.rows('select 1'), [['1']]);
  await client.end();
});

t.test('a block that cannot leave its shard is told where the key is, in every form of the statement', async (t) => {
  const forms = (key: string): readonly (readonly FrontendMessage[])[] => {
    const literal = { parse: `select kv_incr('t', '${key}')` };
    const parameters = { parse: 'update kv set value = $1 where tenant_id = $2 and key = $3' };
    const bound = { bind: ['1', 't', key] };
    return [
      [{ query: literal.parse }],
      [literal, { bind: [] }, { execute: '' }, 'sync'],
      [literal, { describe: 'statement', name: '' }, { bind: [] }, { describe: 'portal' }, { execute: '' }, 'sync'],
      [literal, 'sync', { bind: [] }, { execute: '' }, 'sync'],
      [parameters, bound, { execute: '' }, 'sync'],
      [parameters, { describe: 'statement', name: '' }, 'sync', bound, { execute: '' }, 'sync'],
    ];
  };
  for (const [index, key] of KEYS.entries()) {
    for (const [form, messages] of forms(key).entries()) {
      const client = await live.connect();
      const other = KEYS[(index + 1) % SHARDS]!;
      await client.run('begin', write(other, '1'));
      const { messages: answers } = await client.wire.exchange(messages);
      const error = answers.find(({ type }) => type === 'ErrorResponse');
      const said = error?.type === 'ErrorResponse' ? error.fields['M']! : 'nothing';
      t.match(said, new RegExp(`the statement's key is on shard s${index + 1}\\b`), `${key}, form ${form}`);
      await client.run('rollback');
      await client.end();
    }
  }
});

t.test('tables of the home shard and keys of other shards do not meet in one transaction', async (t) => {
  const client = await live.connect();
  await client.run('create table if not exists ordinary (a int)');
  await client.run('begin', 'insert into ordinary values (1)');
  t.equal(await client.fails(read(ON_1)), '0A000');
  await client.run('rollback');
  await client.run('begin', read(ON_1));
  t.equal(await client.fails('select * from ordinary'), '0A000');
  await client.run('rollback', 'begin', 'insert into ordinary values (2)', write(ON_HOME, '3'), 'commit');
  t.same(await client.rows('select a from ordinary'), [['2']]);
  t.same(await client.rows(read(ON_HOME)), [['3']]);
  await client.end();
});

t.test('several statements in one query are one transaction on one shard', async (t) => {
  const client = await live.connect();
  t.equal(await client.fails(`${write(ON_3, '7')}; select 1/0`), '22012');
  t.same(await client.rows(read(ON_3)), [['0']]);
  await client.run(`begin; ${write(ON_3, '8')}; commit`);
  t.same(await client.rows(read(ON_3)), [['8']]);
  t.equal(await client.fails(`${write(ON_3, '9')}; ${write(ON_1, '9')}`), '0A000');
  t.same(await client.rows(read(ON_3)), [['8']]);
  await client.end();
});

t.test('settings reach every shard; state of the session stays where it is', async (t) => {
  const client = await live.connect();
  await client.run("set timezone = 'Asia/Tokyo'", "select set_config('app.who', 'me', false)");
  for (const key of KEYS) {
    const sql = `select current_setting('timezone'), current_setting('app.who') from kv where tenant_id = 't' and key = '${key}'`;
    t.same(await client.rows(sql), [['Asia/Tokyo', 'me']]);
  }
  await client.run('create temp table mine (a int)', 'insert into mine values (1)', 'listen news');
  t.same(await client.rows(read(ON_2)), [['0']]);
  await client.run("set timezone = 'Asia/Seoul'");
  t.same(await client.rows(`select current_setting('timezone') from kv where tenant_id = 't' and key = '${ON_3}'`), [
    ['Asia/Seoul'],
  ]);
  t.same(await client.rows('select a from mine'), [['1']], 'the connection with the temporary table was kept');
  t.same(await client.rows('show timezone'), [['Asia/Seoul']]);
  const other = await live.connect();
  await other.run("notify news, 'hello'");
  await client.run('select 1');
  t.ok(client.wire.received.some((message) => message.type === 'NotificationResponse'));
  await other.end();
  await client.end();
});

t.test(
  'a setting made in a block is taken along when the block goes to its shard, and undone by ROLLBACK',
  async (t) => {
    const client = await live.connect();
    await client.run('begin', "set timezone = 'Asia/Tokyo'", read(ON_2));
    t.same(await client.rows('show timezone'), [['Asia/Tokyo']]);
    await client.run('rollback');
    t.same(await client.rows('show timezone'), [['UTC']]);
    await client.run('begin', "set timezone = 'Asia/Tokyo'", read(ON_2), 'commit');
    t.same(await client.rows('show timezone'), [['Asia/Tokyo']]);
    t.same(await client.rows(`select current_setting('timezone') from kv where tenant_id = 't' and key = '${ON_1}'`), [
      ['Asia/Tokyo'],
    ]);
    await client.end();
  },
);

const point = (key: string) =>
  [{ parse: 'select value from kv where tenant_id = $1 and key = $2' }, { bind: ['t', key] }, { execute: '' }] as const;
const upsert = (key: string, value: string) =>
  [
    {
      parse:
        'insert into kv (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = excluded.value',
    },
    { bind: ['t', key, value] },
    { execute: '' },
  ] as const;

t.test('reads of several shards in one batch come in order', async (t) => {
  const client = await live.connect();
  for (const key of KEYS) await client.run(write(key, JSON.stringify(key)));
  const answers = await client.send([
    ...KEYS.flatMap(point),
    { parse: 'select 7' },
    { bind: [] },
    { execute: '' },
    'sync',
  ]);
  t.same(
    rowsOf(answers).map(([value]) => value),
    [...KEYS.map((key) => JSON.stringify(key)), '7'],
  );
  t.same(codes(answers).at(-1), 'I');
  await client.end();
});

t.test('an error in one part of a batch skips the rest, whatever shard it is for', async (t) => {
  const client = await live.connect();
  const answers = await client.send([
    ...point(ON_1),
    { parse: 'select 1 / (version - version) from kv where tenant_id = $1 and key = $2' },
    { bind: ['t', ON_2] },
    { execute: '' },
    ...point(ON_3),
    'sync',
  ]);
  t.equal(rowsOf(answers).length, 1);
  t.same(codes(answers).slice(-2), ['22012', 'I']);
  t.same(await client.rows('select 1'), [['1']]);
  await client.end();
});

t.test('writes of several shards in one batch are refused, and none is applied', async (t) => {
  const client = await live.connect();
  const answers = await client.send([...upsert(ON_1, '1'), ...upsert(ON_2, '1'), 'sync']);
  t.same(codes(answers).slice(-2), ['0A000', 'I']);
  t.same(await client.rows(read(ON_1)), [['0']]);
  t.same(await client.rows(read(ON_2)), [['0']]);
  const fine = await client.send([...upsert(ON_1, '1'), ...upsert(ON_1, '2'), ...point(ON_1), 'sync']);
  t.same(rowsOf(fine), [['2']]);
  await client.end();
});

t.test('BEGIN and the first statement may come in one batch, as from JDBC', async (t) => {
  const client = await live.connect();
  const begin = [{ parse: 'BEGIN' }, { bind: [] }, { execute: '', rows: 0 }] as const;
  await client.send([...begin, ...upsert(ON_2, '4'), 'sync']);
  t.equal(client.status, 'T');
  t.same(await client.rows(read(ON_2)), [['4']]);
  await client.send([{ parse: 'ROLLBACK' }, { bind: [] }, { execute: '' }, 'sync']);
  t.same(await client.rows(read(ON_2)), [['0']]);
  // BEGIN by itself begins at home, and moves.
  await client.send([...begin, 'sync']);
  t.equal(client.status, 'T');
  await client.send([...upsert(ON_3, '4'), 'sync']);
  await client.run('commit');
  t.same(await client.rows(read(ON_3)), [['4']]);
  await client.end();
});

t.test('prepared statements are bound to keys of any shard', async (t) => {
  const client = await live.connect();
  await client.send([{ parse: 'select value from kv where tenant_id = $1 and key = $2', name: 'p' }, 'sync']);
  for (const key of [...KEYS, ...KEYS]) {
    const answers = await client.send([{ bind: ['t', key], statement: 'p' }, { execute: '' }, 'sync']);
    t.same(rowsOf(answers), [['0']]);
  }
  await client.end();
});

t.test('rows of all shards come through a portal in parts', async (t) => {
  const client = await live.connect();
  const answers = await client.send([
    { parse: 'select key from kv where version >= $1 order by key' },
    { bind: ['0'], portal: 'all' },
    { describe: 'portal', name: 'all' },
    { execute: 'all', rows: 3 },
    { execute: 'all', rows: 3 },
    'sync',
  ]);
  t.same(codes(answers), [
    'ParseComplete',
    'BindComplete',
    'RowDescription',
    'DataRow',
    'DataRow',
    'DataRow',
    'PortalSuspended',
    'DataRow',
    'CommandComplete',
    'I',
  ]);
  t.same(rowsOf(answers).flat(), [...KEYS].sort());
  await client.end();
});

t.test(
  'reads of all shards stand beside a block that has not begun anywhere, and in one that has see its rows',
  async (t) => {
    const client = await live.connect();
    await client.run('begin');
    t.same(await client.rows('select count(*) from kv'), [['4']]);
    t.equal(client.status, 'T');
    await client.run(write(ON_1, '1'));
    t.same(await client.rows(`select count(*) from kv where value = '1'`), [['1']]);
    await client.run('rollback', 'begin isolation level serializable');
    t.equal(await client.fails('select count(*) from kv'), '0A000');
    await client.run('rollback');
    await client.end();
  },
);

t.test('a cancel ends a read of all shards', async (t) => {
  const client = await live.connect();
  const slow = client.answers('select count(*) from kv where pg_sleep(5) is not null');
  setTimeout(() => void cancel(client), 150);
  t.equal(codes(await slow).at(-2), '57014');
  t.same(await client.rows('select count(*) from kv'), [['4']]);
  await client.end();
});

t.test('a client that vanishes in the middle of a read of all shards leaves nothing', async () => {
  const client = await live.connect();
  client.wire.send({ query: 'select count(*) from kv where pg_sleep(0.3) is not null' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  client.wire.destroy();
  await live.quiet();
});

t.test('of a shard that is down only its own keys are missing', async (t) => {
  const lame = await kvServers(t, 3);
  const router = await kvRouter(t, lame, { servers: { connectTimeoutMs: 1_000 } });
  const client = await router.connect();
  const lameView = initialView(
    evenSpread(3, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
    [KV],
  );
  const keys = [0, 1, 2].map((shard) => {
    for (let n = 0; ; n++) if (lameView.shardOfSlot[hashSlotOf('t', `k${n}`)] === shard) return `k${n}`;
  });
  for (const key of keys) await client.run(write(key, '1'));
  await lame.servers[1]!.stop();
  const lost = await client.failsWith(read(keys[1]!));
  t.ok(['08006', '08007'].includes(lost.code), lost.code);
  const error = await client.failsWith(read(keys[1]!));
  t.equal(error.code, '08006');
  t.match(error.fields['D'], /shard s2/);
  t.same(await client.rows(read(keys[0]!)), [['1']]);
  t.same(await client.rows(read(keys[2]!)), [['1']]);
  const missing = await client.failsWith('select count(*) from kv');
  t.equal(missing.code, '08006');
  t.match(missing.fields['D'], /shard "s2"/);
  await client.run('begin');
  t.equal(await client.fails(write(keys[1]!, '2')), '08006');
  t.equal(client.status, 'E');
  await client.run('rollback', write(keys[0]!, '2'));
  await client.end();
});

t.test('what pgkv answers itself leaves a failed block to the server that has it', async (t) => {
  const live = await kvRouter(t, await kvServers(t, 2));
  const client = await live.connect();
  for (const own of ['show pgkv.version', 'explain (route) select 1']) {
    await client.run('begin');
    t.equal(await client.fails('select 1/0'), '22012');
    t.equal(await client.fails(own), '25P02', own);
    t.same(await client.run('rollback'), ['ROLLBACK']);
    t.same(await client.run('select 1'), ['SELECT 1'], 'the session goes on');
  }
  await client.end();
});

t.test(
  'settings that a server does not take any more: who has state on that connection is told that it is lost',
  async (t) => {
    const directs = await Promise.all(
      cluster.servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: 'postgres' })),
    );
    for (const direct of directs) await direct.run('create role passing; grant all on kv to passing');
    const client = await live.connect();
    await client.run('create temporary table mine (a int)');
    await client.run('begin', write(ON_1, '1'), 'set role passing', 'commit');
    await directs[0]!.run('drop owned by passing; drop role passing');
    const { messages, outcome } = await client.wire.exchange([{ query: 'select * from mine' }], 'closed');
    t.equal(outcome, 'reached', 'the session ends');
    const error = messages.find(({ type }) => type === 'ErrorResponse');
    t.match(error, { fields: { S: 'FATAL', C: '08006' } });
    t.match(JSON.stringify(error), /had state on that connection/);
    for (const direct of directs.slice(1)) await direct.run('drop owned by passing; drop role passing');
    await Promise.all(directs.map((direct) => direct.end()));
    await live.quiet();
  },
);

t.test('a cancel reaches a statement behind which its batch goes on elsewhere', async (t) => {
  const client = await live.connect();
  const [home] = cluster.servers;
  const direct = await SqlClient.connect(home!, { user: home!.superuser, database: 'postgres' });
  const running = "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(600)'";
  for (const behind of ['select key from kv', 'show pgkv.version']) {
    client.wire.send(
      ...[{ parse: 'select pg_sleep(600)' }, { bind: [] }, { execute: '' }],
      ...[{ parse: behind }, { bind: [] }, { execute: '' }],
      'sync',
    );
    while ((await direct.value(running)) === '0');
    await cancel(client);
    const { messages } = await client.wire.wait(1);
    t.same(codes(messages).slice(-2), ['57014', 'I'], behind);
  }
  await client.end();
  await direct.end();
});
