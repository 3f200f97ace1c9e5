// Reads of the home shard's catalogues in a block on another shard, by each form of the protocol: as with one Postgres that has the
// same tables. Generated: what the block has said and set × statements, with parameters and errors × the messages that bring
// them; each to Postgres and through pgkv, the same answers and the same block behind them. Losses of either connection under
// such reads are fault/loss's (the kind "catalogue").
import t from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';
import type { WireAddress } from '../support/wire-client.js';

await loadKeyHash();
const LONG = process.env['PGKV_LONG'] === '1';
const SEED = Number(process.env['PGKV_SEED'] ?? 1);
/** Sessions at a time. */
const TOGETHER = 6;
/** Of the second shard of two. */
const KEY = Array.from({ length: 100 }, (_, n) => `k${n}`).find((key) => hashSlotOf('a', key) >= 8192)!;
const WRITE = `update kv set value = '1' where tenant_id = 'a' and key = '${KEY}'`;
const SETTING_UP = [
  'create role other',
  'grant all on schema public to public',
  "create table plain (a int primary key, b text default 'told')",
  'create table other_plain (a int)',
  'create view seen as select * from plain',
  "create type mood as enum ('good', 'bad')",
];

/** Said in the block, in front of the write and behind it. */
const STATES: Readonly<Record<string, { readonly before?: string; readonly behind?: string }>> = {
  plain: {},
  'time-outs': { before: "set local statement_timeout = '31s'", behind: "set local lock_timeout = '17s'" },
  'of the session': { behind: "set work_mem = '2MB'" },
  'a role': { behind: 'set local role other' },
  'a path': { before: 'set local search_path = pg_catalog' },
  'a custom setting': { behind: "set local app.own = 'é'''" },
  'by set_config': { behind: "select set_config('work_mem', '3MB', true), set_config('app.own', 'x', true)" },
  'taken back': { behind: "savepoint a; set local work_mem = '5MB'; set local app.own = 'z'; rollback to a" },
  'a zone and a style': { before: "set local timezone = 'Asia/Tokyo'", behind: "set local datestyle = 'German, DMY'" },
  savepoint: { behind: 'savepoint a' },
  'read only': { behind: 'set transaction read only' },
};

interface Statement {
  readonly sql: string;
  readonly values?: readonly (string | null)[];
}

const STATEMENTS: Readonly<Record<string, Statement>> = {
  parameter: { sql: 'select relname, relkind from pg_class where relname = $1', values: ['plain'] },
  'typed parameter': {
    sql: 'select a.attname, $2::int from pg_catalog.pg_attribute a where attnum < $2 and attrelid = $1::regclass order by 1',
    values: ['public.plain', '3'],
  },
  'information schema': {
    sql: 'select column_name, column_default from information_schema.columns where table_name = $1 order by ordinal_position',
    values: ['plain'],
  },
  settings: {
    sql: `select current_setting('work_mem'), current_setting('app.own', true), current_user::text, current_setting('search_path'),
      current_setting('statement_timeout'), current_setting('lock_timeout'), timestamptz '2020-01-02 03:04+00', session_user::text
      from pg_class where relname = 'plain'`,
  },
  cast: { sql: "select 'public.plain'::regclass::text, 'good'::public.mood" },
  'by path': { sql: "select to_regclass('plain')::text, to_regtype('mood')::text, current_schema()" },
  rights: { sql: "select has_table_privilege('public.plain', 'select')" },
  'many rows': {
    sql: "select attname from pg_attribute where attrelid = 'pg_class'::regclass and attnum > 0 order by attnum",
  },
  'no rows': { sql: "select oid from pg_class where relname = 'gone'" },
  'no column': { sql: 'select nope from pg_class' },
  'no type': { sql: "select 'x'::public.gone from pg_class" },
  'a row fails': { sql: "select 1 / (relnatts - relnatts) from pg_class where relname = 'plain'" },
  'a value fails': { sql: 'select relname from pg_class where relnatts = $1::int', values: ['x'] },
  'too few values': { sql: "select $1::text, $2::text from pg_class where relname = 'plain'", values: ['x'] },
  'a name fails': { sql: "select 'public.gone'::regclass" },
  'row too many': { sql: 'select (select relname from pg_class)' },
};

const parse = (sql: string, name = ''): FrontendMessage => ({ parse: sql, name });
const bind = (values: readonly (string | null)[], statement = '', portal = ''): FrontendMessage => ({
  bind: values,
  statement,
  portal,
});
const describe = (what: 'statement' | 'portal', name = ''): FrontendMessage => ({ describe: what, name });
const execute = (portal = '', rows = 0): FrontendMessage => ({ execute: portal, rows });
/** One statement, without values. */
const whole = (sql: string): Packet => [parse(sql), bind([]), execute()];

/** A packet, and how many messages of which type end the wait for it; by default one ReadyForQuery for each Sync. */
type Packet = readonly FrontendMessage[];
/** Before the block, in it, behind its end. */
interface Form {
  readonly before?: Packet;
  readonly inBlock: readonly Packet[];
  readonly after?: Packet;
}

const FORMS: Readonly<Record<string, (statement: Required<Statement>) => Form>> = {
  batch: ({ sql, values }) => ({ inBlock: [[parse(sql), bind(values), describe('portal'), execute(), 'sync']] }),
  'without describe': ({ sql, values }) => ({ inBlock: [[parse(sql), bind(values), execute(), 'sync']] }),
  named: ({ sql, values }) => ({
    inBlock: [
      [parse(sql, 'own'), describe('statement', 'own'), 'sync'],
      [bind(values, 'own'), execute(), 'sync'],
      [bind(values, 'own'), describe('portal'), execute(), 'sync'],
      [{ close: 'statement', name: 'own' }, 'sync'],
      [bind(values, 'own'), execute(), 'sync'],
    ],
  }),
  'unnamed, in batches': ({ sql, values }) => ({
    inBlock: [
      [parse(sql), describe('statement'), 'sync'],
      [bind(values), execute(), 'sync'],
    ],
  }),
  'prepared before': ({ sql, values }) => ({
    before: [parse(sql, 'own'), 'sync'],
    inBlock: [
      [describe('statement', 'own'), 'sync'],
      [bind(values, 'own'), execute(), 'sync'],
    ],
  }),
  'run behind the block': ({ sql, values }) => ({
    inBlock: [[parse(sql, 'own'), 'sync']],
    after: [describe('statement', 'own'), bind(values, 'own'), execute(), 'sync'],
  }),
  'name taken': ({ sql }) => ({
    before: [parse('select 1', 'own'), 'sync'],
    inBlock: [
      [parse(sql, 'own'), 'sync'],
      [bind([], 'own'), execute(), 'sync'],
    ],
  }),
  'portal in parts': ({ sql, values }) => ({
    inBlock: [
      [parse(sql), bind(values, '', 'c'), execute('c', 2), 'flush', execute('c', 2), 'sync'],
      [execute('c', 0), { close: 'portal', name: 'c' }, 'sync'],
      [execute('c', 0), 'sync'],
    ],
  }),
  'between others': ({ sql, values }) => ({
    inBlock: [
      [
        ...whole(WRITE),
        parse(sql, 'own'),
        describe('statement', 'own'),
        bind(values, 'own'),
        execute(),
        ...whole('select 7'),
        ...whole(WRITE),
        'sync',
      ],
    ],
  }),
  'with the end': ({ sql, values }) => ({
    inBlock: [[parse(sql), bind(values), execute(), parse('commit'), bind([]), execute(), 'sync']],
  }),
  'batches in one packet': ({ sql, values }) => ({
    inBlock: [
      [parse(sql), bind(values), execute(), 'sync', parse(WRITE), bind([]), execute(), 'sync', { query: 'select 3' }],
    ],
  }),
  'an error before': ({ sql, values }) => ({
    inBlock: [[parse('select 1/0'), bind([]), execute(), parse(sql), bind(values), execute(), 'sync']],
  }),
};

/**
 * In a failed block a server still counts the values of a Bind, and one that failed by its values has left a portal that is an empty
 * query. pgkv knows neither: a Bind fails where its portal is executed.
 */
const BIND_FAILS = new Set(['a value fails', 'too few values']);
const BINDS_AGAIN = new Set(['named', 'portal in parts']);
const LEFT = `select coalesce(string_agg(name, ' '), ''), current_setting('app.own', true) from pg_settings where source = 'session'`;

/** What may differ is left out: numbers of tables of the client's own, and BindComplete in front of an error (see docs/LIMITS.md). */
function told(messages: readonly BackendMessage[]): string[] {
  const lines = messages.flatMap((message): string[] => {
    switch (message.type) {
      case 'ErrorResponse':
        return [`error ${message.fields['C']} ${message.fields['M']}, at ${message.fields['P']}`];
      case 'NoticeResponse':
        return [`notice ${message.fields['C']}`];
      case 'RowDescription':
        return [message.columns.map(({ name, typeOid, format }) => `${name} ${oid(typeOid)} ${format}`).join(', ')];
      case 'DataRow':
        return [message.values.map((value) => value?.toString() ?? 'NULL').join('|')];
      case 'CommandComplete':
        return [message.tag];
      case 'ParameterDescription':
        return [`parameters ${message.typeOids.map(oid).join(' ')}`];
      case 'ReadyForQuery':
        return [`ready ${message.status}`];
      case 'ParameterStatus':
        return [];
      default:
        return [message.type];
    }
  });
  const error = lines.findIndex((line) => line.startsWith('error'));
  return lines.filter((line, index) => line !== 'BindComplete' || error < 0 || index > error);
}
/** Those of the client's own types differ. */
const oid = (number: number): number => (number < 16_384 ? number : 16_384);

async function play(
  address: WireAddress,
  login: { user: string; database: string },
  form: Form,
  said: { readonly before?: string; readonly behind?: string },
): Promise<string[]> {
  const client = await SqlClient.connect(address, login);
  const lines: string[] = [];
  const say = async (packet: Packet): Promise<void> => void lines.push(...told(await client.send(packet)));
  if (form.before !== undefined) await say(form.before);
  const { before = 'select 1', behind = 'select 1' } = said;
  await client.answers('begin', before, WRITE, behind);
  for (const packet of form.inBlock) await say(packet);
  await say([{ query: WRITE }]);
  await say([{ query: "select current_user, current_setting('work_mem'), current_setting('app.own', true)" }]);
  await say([{ query: 'commit' }]);
  if (form.after !== undefined) await say(form.after);
  await say([{ query: 'select 4' }]);
  await client.end();
  return lines;
}

t.test('reads beside a block by the extended protocol', { timeout: 600_000 }, async (t) => {
  const cluster = await kvServers(t, 2);
  const plain = await startPostgres({ version: 'embedded' });
  t.teardown(() => plain.stop());
  const login = { user: plain.superuser, database: 'postgres' };
  const router = await kvRouter(t, cluster);
  const [home, elsewhere, model] = await Promise.all(
    [...cluster.servers, plain].map((server) => SqlClient.connect(server, login)),
  );
  await model!.run('create table kv (tenant_id text, key text, value jsonb)');
  for (const client of [home!, model!]) await client.run(...SETTING_UP);
  await elsewhere!.run('create role other');
  for (const client of [home!, elsewhere!, model!]) await client.run('grant all on kv to public');
  // All kinds in all forms, each in a state of its own; in the long form in all of them.
  const sessions = Object.keys(STATEMENTS).flatMap((kind, row) =>
    Object.keys(FORMS).flatMap((form, column) =>
      Object.keys(STATES)
        .filter(() => !BIND_FAILS.has(kind) || !BINDS_AGAIN.has(form))
        .filter((_, index) => LONG || (row + column + SEED) % Object.keys(STATES).length === index)
        .map((state) => ({ state, kind, form })),
    ),
  );
  t.comment(`${sessions.length} sessions, seed ${SEED}`);
  while (sessions.length > 0) {
    const played = sessions.splice(0, TOGETHER).map(async ({ state, kind, form }) => {
      const { sql, values = [] } = STATEMENTS[kind]!;
      const made = FORMS[form]!({ sql, values });
      const [ours, theirs] = await Promise.all(
        [router, plain].map((address) => play(address, login, made, STATES[state]!)),
      );
      t.strictSame(ours, theirs, `${state}: ${kind}: ${form}`);
    });
    await Promise.all(played);
  }
  const strangers = await Promise.all(Array.from({ length: TOGETHER }, () => SqlClient.connect(router, login)));
  const left = await Promise.all(strangers.map((stranger) => stranger.rows(LEFT)));
  for (const rows of left) t.strictSame(rows, [['', null]], 'nothing is left to others');
  await Promise.all(strangers.map((stranger) => stranger.end()));
  await Promise.all([home!, elsewhere!, model!].map((client) => client.end()));
});

t.test('time-outs of the block hold for what runs beside it', { timeout: 120_000 }, async (t) => {
  const cluster = await kvServers(t, 2);
  const login = { user: cluster.servers[0]!.superuser, database: 'postgres' };
  const router = await kvRouter(t, cluster);
  const home = await SqlClient.connect(cluster.servers[0]!, login);
  await home.run('create table plain (a int)');
  const slow = "select count(pg_sleep(20)) from pg_class where relname = 'plain'";
  const locked =
    "select pg_get_indexdef('plain_pkey'::regclass), 'plain'::regclass, count(*) from pg_locks where pg_relation_size('plain') >= 0";
  const holder = await SqlClient.connect(cluster.servers[0]!, login);
  await home.run('alter table plain add primary key (a)');
  await holder.run('begin', 'lock table plain in access exclusive mode');
  const forms = (sql: string): readonly Packet[] => [
    [{ query: sql }],
    [parse(sql), bind([]), execute(), 'sync'],
    [parse(sql), bind([]), describe('portal'), execute(), 'sync'],
    [parse(sql), bind([], '', 'c'), execute('c', 1), 'sync'],
  ];
  for (const [set, sql, code] of [
    ["set local statement_timeout = '200ms'", slow, '57014'],
    ["set statement_timeout = '200ms'", slow, '57014'],
    ["set local lock_timeout = '200ms'", locked, '55P03'],
    ["select set_config('lock_timeout', '200ms', true)", locked, '55P03'],
  ] as const) {
    for (const packet of forms(sql)) {
      for (const said of [
        ['begin', set, WRITE],
        ['begin', WRITE, set],
      ]) {
        const client = await SqlClient.connect(router, login);
        await client.run(...said);
        const answers = await client.send(packet);
        const error = answers.find((message) => message.type === 'ErrorResponse');
        t.equal(
          error?.type === 'ErrorResponse' && error.fields['C'],
          code,
          `${said.join('; ')}: ${JSON.stringify(packet)}`,
        );
        t.equal(client.status, 'E');
        await client.run('rollback');
        await client.end();
      }
    }
  }
  await holder.run('rollback');
  await Promise.all([holder.end(), home.end()]);
});
