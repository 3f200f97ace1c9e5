// Statements that would take effect on one shard only, on a real cluster: refused in either protocol, alone or among others, with
// nothing done on any server; and in a database without key-value tables exactly what the server itself answers.
import t from 'tap';
import { initialView } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { evenSpread, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf, SqlClient } from '../support/sql-client.js';

const SHARDS = 3;
await loadKeyHash();
const cluster = await kvServers(t, SHARDS, { tables: [KV] });
const view = initialView(
  evenSpread(SHARDS, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
  [KV],
);
const keyOn = (shard: number): string => {
  for (let n = 0; ; n++) if (view.shardOfSlot[hashSlotOf('t', `k${n}`)] === shard) return `k${n}`;
};
const [ON_HOME, ON_1] = [keyOn(0), keyOn(1)] as const;
const PINNED = (key: string): string => `tenant_id = 't' and key = '${key}'`;

const live = await kvRouter(t, cluster);
const superuser = await Promise.all(
  cluster.servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: 'postgres' })),
);
t.teardown(() => Promise.all(superuser.map((client) => client.end())));
for (const server of superuser) {
  await server.run('create role mate', 'create schema mine', 'create table mine.note (id int)', 'create sequence s');
  await server.run('create database plain');
}

/** All that the statements below could change, as text. */
const STATE = `select (select array_agg((nspname, nspacl, nspowner) order by nspname)::text from pg_namespace where nspname !~ '^pg_'),
  (select array_agg((relname, relacl, relowner, reloptions) order by relname)::text from pg_class where relnamespace in ('public'::regnamespace, 'mine'::regnamespace)),
  (select array_agg((defaclrole, defaclacl))::text from pg_default_acl), (select count(*) from pg_prepared_xacts),
  (select count(*) from pg_extension), (select count(*) from pg_publication), (select count(*) from kv), (select last_value from s)`;
const stateOf = (): Promise<unknown> => Promise.all(superuser.map((server) => server.rows(STATE)));

const REFUSED: readonly string[] = [
  "prepare transaction 'x'",
  "commit prepared 'x'",
  "rollback prepared 'x'",
  'grant select on all tables in schema public to mate',
  'revoke usage on schema public from mate',
  'alter default privileges grant select on tables to mate',
  'alter schema public owner to mate',
  'drop schema public cascade',
  'drop extension if exists pgkv cascade',
  'drop owned by mate',
  'reassign owned by mate to current_user',
  'create publication p for all tables',
  'drop index kv_ttl_idx',
  'reindex index kv_pkey',
  "select pg_total_relation_size('kv')",
  "select query_to_xml('select * from kv', true, true, '')",
  "select pgkv.create_table('more')",
  `select value, pg_notify('c', 'x') from kv where ${PINNED(ON_1)}`,
  `update kv set value = to_jsonb(nextval('s')) where ${PINNED(ON_1)}`,
  `select pg_advisory_lock(1) from kv where ${PINNED(ON_1)}`,
  `insert into kv (tenant_id, key, value) values ('t', '${ON_1}', to_jsonb(nextval('s')))`,
];

t.test('they are refused alone, among others, in a block and in both protocols, and nothing is done', async (t) => {
  const client = await live.connect();
  const before = await stateOf();
  for (const sql of REFUSED) {
    t.match(await client.failsWith(sql), { code: '0A000', fields: { D: /^PGKV-0\d\d$/, H: /./ } }, sql);
    t.match(await client.fails(`begin; select 1; ${sql}`), '0A000', `in one text: ${sql}`);
    if (client.status !== 'I') await client.run('rollback');
    const answers = await client.send([{ parse: sql }, { bind: [] }, { execute: '' }, 'sync']);
    t.match(errorOf(answers)?.code, '0A000', `extended: ${sql}`);
    t.equal(answers.filter(({ type }) => type === 'ErrorResponse').length, 1, 'one error');
    await client.run('begin', `select value from kv where ${PINNED(ON_HOME)}`);
    t.equal(await client.fails(sql), '0A000', `in a block: ${sql}`);
    t.equal(client.status, 'E', sql);
    await client.run('rollback');
  }
  t.same(await stateOf(), before, 'no server has changed');
  t.same(await client.rows('select 1'), [['1']]);
  await client.end();
});

t.test('a transaction that was to be prepared is rolled back, and its key is free', async (t) => {
  const client = await live.connect();
  await client.run('begin', `insert into kv (tenant_id, key, value) values ('t', '${ON_1}', '1')`);
  t.equal(await client.fails("prepare transaction 'x'"), '0A000');
  t.equal(client.status, 'E');
  t.same(await client.run('commit'), ['ROLLBACK']);
  t.same(await client.rows(`select count(*) from kv where ${PINNED(ON_1)}`), [['0']]);
  await client.end();
});

t.test('in a database without key-value tables each is what the server makes of it', async (t) => {
  const through = await live.connect({ database: 'plain' });
  const [home] = cluster.servers;
  const direct = await SqlClient.connect(home!, { user: home!.superuser, database: 'plain' });
  const outcome = async (client: SqlClient, sql: string): Promise<string> => {
    const answers = await client.answers(sql);
    return answers
      .map((message) =>
        message.type === 'ErrorResponse' ? JSON.stringify([message.fields['C'], message.fields['M']]) : message.type,
      )
      .join(' ');
  };
  await direct.run('create table kv (tenant_id text, key text primary key, value jsonb)', 'create sequence s');
  const twoPhase = [
    'begin',
    "prepare transaction 'one'",
    "commit prepared 'one'",
    'begin',
    "prepare transaction 'two'",
    "rollback prepared 'two'",
    "commit prepared 'none'",
  ];
  const others = REFUSED.filter((sql) => !/owned|schema public|^drop|prepare/.test(sql));
  const all = [...twoPhase, ...others.flatMap((one) => ['begin', one, 'rollback'])];
  const outcomes = async (client: SqlClient): Promise<string[]> => {
    const found: string[] = [];
    for (const sql of all) found.push(`${sql}: ${await outcome(client, sql)}`);
    return found;
  };
  // One after the other: names of prepared transactions are the server's.
  t.same(await outcomes(through), await outcomes(direct));
  await through.end();
  await direct.end();
});

t.test('a syntax error is worded by Postgres, whether or not the text concerns a key-value table', async (t) => {
  const client = await live.connect();
  for (const sql of [
    'selec value from kv',
    'grant select on all tables in schema to public',
    `select from kv where ${PINNED(ON_1)} and and`,
    'prepare transaction x',
    `select 'kv'${' ,'.repeat(15_000)}`,
    'drop schema',
  ]) {
    const [simple, direct] = [await client.failsWith(sql), await superuser[0]!.failsWith(sql)];
    t.same([simple.code, simple.message], ['42601', direct.message], sql.slice(0, 60));
    const answers = await client.send([{ parse: sql }, { bind: [] }, { execute: '' }, 'sync']);
    t.equal(errorOf(answers)?.code, '42601', `extended: ${sql.slice(0, 60)}`);
  }
  await client.end();
});
