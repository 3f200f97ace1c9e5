// D28 through the router: whatever a client does, its rows land on their shard with their slot; only pgkv's own shared
// connections are trusted with slots, and no client can pass for one. And the heartbeats of a cluster.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { SqlClient } from '../support/sql-client.js';

await loadKeyHash();
const SHARDS = 3;
const servers = await kvServers(t, SHARDS, { tables: [KV], stated: true });
const shardOf = (key: string) => Math.floor((hashSlotOf('t', key) * SHARDS) / 16_384);
const keys = Array.from({ length: 60 }, (_, index) => `k${index}`);
const direct = async (index: number) =>
  SqlClient.connect(servers.servers[index]!, { user: servers.servers[index]!.superuser, database: 'postgres' });

t.test('every lane writes on shards that check', async (t) => {
  const live = await kvRouter(t, servers);
  const clients = await Promise.all([live.connect(), live.connect(), live.connect()]);
  const client = clients[0]!;
  const insert = `insert into kv (tenant_id, key, value) values ($1, $2, $3)
    on conflict (tenant_id, key) do update set value = excluded.value`;
  for (let round = 0; round < 4; round++) {
    await Promise.all(
      clients.map(async (each, number) => {
        for (const key of keys.filter((_, index) => index % clients.length === number)) {
          await each.extended(insert, ['t', key, `${round}`]);
        }
      }),
    );
  }
  await client.run('begin', `insert into kv (tenant_id, key, value) values ('t', 'block', '1')`, 'commit');
  await client.run(
    `insert into kv (tenant_id, key, value, slot) values ('t', 'stated', '1', ${hashSlotOf('t', 'stated')})`,
  );
  await client.run(`insert into kv (tenant_id, key, value) values ('t', '{same}1', '1'), ('t', '{same}2', '1')`);
  await client.rows(`select kv_put('t', 'put', '1')`);
  await client.rows(`select * from kv_put_many('{t,t}', '{"{same}3","{same}4"}', '{1,2}')`);
  for (let index = 0; index < SHARDS; index++) {
    const server = await direct(index);
    t.equal(
      await server.value(
        'select count(*) from kv where slot <> pgkv.slot(tenant_id, key) or not slot <@ pgkv.owned_slots()',
      ),
      '0',
    );
    t.ok(Number(await server.value('select count(*) from kv')) > 5);
    await server.end();
  }
});

t.test('a client cannot lay a row on a shard that does not own it, nor with a wrong slot', async (t) => {
  const live = await kvRouter(t, servers);
  const client = await live.connect();
  const foreign = keys.find((key) => shardOf(key) === 2)!;
  const slot = hashSlotOf('t', foreign);
  // What pgkv cannot read runs on the home shard.
  for (const [columns, values] of [
    ['tenant_id, key', `''t'', ''${foreign}''`],
    ['tenant_id, key, slot', `''t'', ''${foreign}'', ${slot}`],
    ['tenant_id, key, slot', `''t'', ''${foreign}'', 1`],
  ]) {
    const sql = `do $$ begin execute 'insert into k' || 'v (${columns}) values (${values})'; end $$`;
    t.equal(await client.fails(sql), '23514', sql);
    t.equal(await client.fails(`begin; ${sql}`), '23514', sql);
    await client.run('rollback');
  }
});

t.test("pgkv.router is no client's to set", async (t) => {
  const live = await kvRouter(t, servers);
  const client = await live.connect();
  for (const sql of [
    'set pgkv.router = on',
    'SET LOCAL "pgkv"."router" TO \'on\'',
    'set session pgkv.Router to on',
    `select set_config('pgkv.router', 'on', false)`,
    `select set_config('PGKV.ROUTER', 'on', true) from kv where tenant_id = 't' and key = 'k1'`,
    'begin; set pgkv.router = on',
    `alter role postgres set pgkv.router = on`,
    `alter database postgres set "pgkv.router" = 'on'`,
    `do $$ begin set pgkv.router = on; end $$`,
    `create function pass() returns void language sql set pgkv.router = 'on' as 'select'`,
    `create function pass() returns void language sql as 'set pgkv . router = on'`,
  ]) {
    const error = await client.failsWith(sql);
    t.match([error.code, error.fields['D']], ['0A000', 'PGKV-090'], sql);
    await client.run('rollback');
    t.equal(await client.value(`select coalesce(current_setting('pgkv.router', true), 'unset')`), 'unset', sql);
  }
  for (const startup of [
    { options: '-c pgkv.router=on' },
    { options: '--pgkv.router=on' },
    { options: '-c\\ pgkv\\.router=on' },
    { 'pgkv.router': 'on' },
    { 'PGKV.Router': 'on' },
  ]) {
    await t.rejects(
      live.connect({ parameters: startup as unknown as Record<string, string> }),
      /pgkv\.router is set by pgkv alone/,
      JSON.stringify(startup),
    );
  }
  t.equal(await client.value(`select 'pgkv.router is a text like any other'`), 'pgkv.router is a text like any other');
});

t.test('each shard has a heartbeat, and a clock that goes back is found without a write', async (t) => {
  const live = await kvRouter(t, servers);
  const shards = await Promise.all(servers.servers.map((_, index) => direct(index)));
  t.teardown(() => Promise.all(shards.map((shard) => shard.end())));
  const until = async (shard: SqlClient, condition: string) => {
    while ((await shard.value(`select coalesce((${condition}), false)`)) !== 't') await sleep(20);
  };
  for (const shard of shards) await until(shard, "select now() - at < interval '10 s' from pgkv.heartbeat");
  await shards[1]!.run(`create or replace function pgkv.clock() returns bigint language sql volatile
    return floor(date_part('epoch', clock_timestamp()) * 1024000)::bigint - 3600::bigint * 1024000`);
  await until(shards[1]!, `pg_sequence_last_value('pgkv.version_offset') >= 3590::bigint * 1024000`);
  while (
    !live.logged('warn').some(({ shard, msg }) => shard === 's2' && /clock of the shard has gone back/.test(`${msg}`))
  ) {
    await sleep(20);
  }
  t.strictSame(
    live
      .logged('warn')
      .filter(({ msg }) => /clock of the shard/.test(`${msg}`))
      .map(({ shard }) => shard),
    ['s2'],
    'of that shard alone, once',
  );
});

t.test('init is advised where a server refuses the heartbeat, not where it is gone', async (t) => {
  const live = await kvRouter(t, servers);
  const home = await direct(0);
  const lineOf = async (shard: string) => {
    for (;;) {
      const line = live.logged('warn').find((each) => each['shard'] === shard && /no heartbeat/.test(`${each['msg']}`));
      if (line !== undefined) return line;
      await sleep(20);
    }
  };
  await home.run('alter function pgkv.beat() rename to away');
  t.match(await lineOf('s1'), { msg: /run pgkv init again/, reason: /function pgkv\.beat\(\) does not exist/ });
  await home.run('alter function pgkv.away() rename to beat');
  await home.end();
  await servers.servers[2]!.stop();
  t.notMatch(await lineOf('s3'), { msg: /init/ });
});
