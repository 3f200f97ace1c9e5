// A statement over several shards that asks for the time has one answer, whatever the shards' clocks say: the same columns and
// rows as one Postgres server gives, and one instant in all of them.
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { evenSpread, fixedCatalog, KV } from '../support/kv-cluster.js';
import { liveRouter } from '../support/live-router.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';
import { FAKETIME, steppedServer } from '../support/stepped-clock.js';

const HOUR = 3_600_000;
const OFFSETS = [0, 2 * HOUR, -2 * HOUR];
const LOGIN = { user: 'postgres', database: 'postgres', parameters: { TimeZone: 'Asia/Kathmandu' } };

const EXPRESSIONS = [
  'now()',
  'NOW ( )',
  'pg_catalog.now()',
  'transaction_timestamp()',
  'statement_timestamp()',
  'current_timestamp',
  'CURRENT_TIMESTAMP(0)',
  'current_timestamp(3)',
  'localtimestamp',
  'localtimestamp(2)',
  'current_date',
  'current_time',
  'current_time(1)',
  'localtime',
  'localtime(0)',
  'now()::date',
  `(now() AT TIME ZONE 'UTC')`,
  `now() - interval '1 day'`,
  `date_trunc('hour', now())`,
  'extract(epoch from now())',
  `coalesce(now(), '2020-01-01')`,
  `age(timestamptz '2020-01-01 00:00:00Z')`,
  `age(timestamp '2020-01-01')`,
] as const;

/** With `e` in them; every column called so, or without a name of its own, has one value in all rows. */
const FORMS: readonly ((e: string) => string)[] = [
  (e) => `select ${e} from kv`,
  (e) => `select ${e}, ${e} as e, key from kv order by key`,
  (e) => `select key, ${e} e from kv order by ${e}, key desc`,
  (e) => `select *, ${e} as e from kv order by e desc, key limit 4 offset 1`,
  (e) => `select min(${e}) as e, max(${e}) as e, count(*), ${e} as e from kv`,
  (e) =>
    `select tenant_id, ${e}, count(*), min(${e}) = max(${e}) as same, ${e} = max(${e}) as known from kv group by tenant_id order by 1`,
  (e) => `select key from kv where ${e} = ${e} order by key /* now() */ -- now()`,
  (e) => `select ${e} = ${e} as same, 'now()' as text, key from kv where tenant_id = 't1' order by key`,
  (e) => `(select ${e} as "now()" from kv)`,
];

interface Answer {
  readonly columns: unknown;
  /** Without what a clock says. */
  readonly rows: unknown[];
  /** How many different values the columns of times have. */
  readonly instants: number[];
}

function answerOf(messages: readonly BackendMessage[]): Answer {
  const error = errorOf(messages);
  if (error !== null) {
    const { F: _file, L: _line, R: _routine, ...fields } = error.fields;
    return { columns: fields, rows: [], instants: [] };
  }
  const description = messages.find((message) => message.type === 'RowDescription');
  const columns = description?.type === 'RowDescription' ? description.columns : [];
  const known = new Set(['tenant_id', 'key', 'value', 'version', 'ttl', 'slot', 'count', 'same', 'known', 'text']);
  const timed = columns.map(({ name }) => !known.has(name));
  const rows = rowsOf(messages);
  const hidden = rows.map((row) =>
    row.map((value, index) => (timed[index] || columns[index]?.name === 'updated_at' ? 'time' : value)),
  );
  return {
    // Of the home shard, or of none.
    columns: columns.map(({ tableOid: _table, columnNumber: _number, ...column }) => column),
    rows: hidden,
    instants: timed.flatMap((isTime, index) => {
      const isHeld = columns[index]?.name === 'updated_at';
      return isTime && !isHeld ? [new Set(rows.map((row) => row[index])).size] : [];
    }),
  };
}

const ways = (sql: string): readonly (readonly FrontendMessage[])[] => [
  [{ query: sql }],
  [{ parse: sql }, { bind: [] }, { describe: 'portal' }, { execute: '' }, 'sync'],
];

t.test('three shards with three clocks', { skip: FAKETIME === undefined ? 'no faketime here' : false }, async (t) => {
  const stepped = await Promise.all(OFFSETS.map(() => steppedServer(t, 'embedded', 'faketime')));
  const servers = stepped.map(({ server }) => server);
  const plainServer = (await steppedServer(t, 'embedded', 'faketime')).server;
  const admins = await Promise.all([...servers, plainServer].map((server) => SqlClient.connect(server, LOGIN)));
  t.teardown(() => Promise.all(admins.map((admin) => admin.end())));
  for (const admin of admins) {
    await admin.run(`select pgkv.create_table('public.kv', 'jsonb')`, 'alter table kv alter version set default 1');
  }
  const state = evenSpread(servers.length, [KV]);
  const router = await liveRouter(t, servers, { pool: { sizeMax: 8 } }, { catalog: fixedCatalog(state) });
  const client = await router.connect(LOGIN);
  const plain = admins.at(-1)!;
  for (let n = 0; n < 18; n++) {
    const insert = `insert into kv (tenant_id, key, value) values ('t${n % 3}', 'k${n}', '${n}')`;
    for (const one of [client, plain]) await one.run(insert);
  }
  for (const admin of admins.slice(0, -1))
    t.ok(Number(await admin.value('select count(*) from kv')) > 1, 'all have rows');
  await Promise.all(stepped.map(({ step }, index) => step(OFFSETS[index]!)));

  await t.test('every form of every function: columns and rows of one server, and one instant', async (t) => {
    for (const e of EXPRESSIONS) {
      for (const form of FORMS) {
        const sql = form(e);
        for (const messages of ways(sql)) {
          const [own, one] = [answerOf(await client.send(messages)), answerOf(await plain.send(messages))];
          // Values of time with time zone and intervals are not sorted over shards.
          const isUnsorted =
            /order by (e|age|current_time(\(1\))?)\b/.test(sql) && /current_time(\(1\))? |age\(/.test(sql);
          if (isUnsorted && own.rows.length === 0) t.match(own.columns, { C: '0A000' }, sql);
          else t.strictSame(own, one, `${messages.length > 1 ? 'extended: ' : ''}${sql}`);
        }
      }
    }
  });

  await t.test("it is the home shard's", async (t) => {
    const before = Number(await admins[0]!.value('select extract(epoch from clock_timestamp())'));
    const values = await client.rows(
      'select extract(epoch from now()), extract(epoch from statement_timestamp()) from kv',
    );
    const after = Number(await admins[0]!.value('select extract(epoch from clock_timestamp())'));
    t.equal(values.length, 18);
    for (const value of values.flat()) t.ok(Number(value) >= before && Number(value) <= after, `${value}`);
    t.match(values[0]![0], /\.\d{6}$/, 'to the microsecond');
    const clocks = await client.rows('select clock_timestamp() from kv');
    t.ok(new Set(clocks.flat()).size > 3, "clock_timestamp() is each shard's own");
  });

  await t.test('parameters beside it, of every kind of declaration', async (t) => {
    for (const types of [[], [25], [25, 20], [25, 0], [25, 20, 23]]) {
      const sql =
        "select key, now() e, $2::int8 as count from kv where tenant_id = $1 and updated_at < current_timestamp + interval '9 hours' order by key limit 3";
      const bind = types.length > 2 ? ['t1', '7', '8'] : ['t1', '7'];
      for (const resultFormats of [[], [1], [0, 1, 0]]) {
        const messages: FrontendMessage[] = [
          { parse: sql, types },
          { bind, resultFormats },
          { describe: 'portal' },
          { execute: '' },
          'sync',
        ];
        t.strictSame(
          answerOf(await client.send(messages)),
          answerOf(await plain.send(messages)),
          `${types} ${resultFormats}`,
        );
      }
    }
    for (const [sql, bind] of [
      ['select max(now()) > $1::timestamptz as known, count(*) from kv where tenant_id <> $2', ['2020-01-01Z', 't1']],
      ['select now() > $1 as known, key from kv order by key limit $2', ['2020-01-01Z', '4']],
    ] as const) {
      const messages: FrontendMessage[] = [
        { parse: sql },
        { bind: [...bind] },
        { describe: 'portal' },
        { execute: '' },
        'sync',
      ];
      t.strictSame(answerOf(await client.send(messages)), answerOf(await plain.send(messages)), sql);
    }
    // A portal that is read in parts keeps its instant.
    const parts = [{ execute: 'p', rows: 5 }, { execute: 'p', rows: 5 }, { execute: 'p' }] as const;
    const messages: FrontendMessage[] = [
      { parse: 'select now() from kv' },
      { bind: [], portal: 'p' },
      ...parts,
      'sync',
    ];
    const rows = rowsOf(await client.send(messages));
    t.equal(rows.length, 18);
    t.equal(new Set(rows.flat()).size, 1);
  });

  await t.test("errors stand where they stand in the client's text", async (t) => {
    for (const sql of [
      'select now(), 1 / (version - version) from kv',
      'select now(), nothing from kv',
      'select current_timestamp(2), now() + true from kv',
      'select now() e from kv where nothing = 1 order by now()',
    ]) {
      const [own, one] = [answerOf(await client.send([{ query: sql }])), answerOf(await plain.send([{ query: sql }]))];
      t.strictSame(own, one, sql);
    }
  });

  await t.test('what has expired is judged by that instant, too, and else by each shard', async (t) => {
    const hour = `timestamptz 'epoch' + interval '1 second' * ${Math.round(Date.now() / 1000) + 3600}`;
    for (const admin of admins) await admin.run(`update kv set ttl = ${hour}`);
    t.equal(await client.value('select count(*) + 0 * extract(epoch from max(now())) from kv').then(Number), 18);
    t.equal(await client.value('select count(*) from kv where ttl > now()'), '18');
    t.equal(await client.value("select count(*) from kv where ttl < now() + interval '2 hours'"), '18');
    t.equal((await client.rows('select now() from kv')).length, 18);
    const ahead = await admins[1]!.value('select count(*) from kv');
    t.equal(
      await client.value('select count(*) from kv'),
      `${18 - Number(ahead)}`,
      'the shard that is ahead sees none',
    );
    for (const admin of admins) await admin.run('update kv set ttl = null');
  });

  await t.test("inside a block it is the block's", async (t) => {
    const of = async (sql: string) => new Set((await client.rows(sql)).flat());
    await client.run('begin');
    const begun = await client.value('select now()');
    await client.value('select pg_sleep(0.01)');
    const [beside, statement] = [await of('select now() from kv'), await of('select statement_timestamp() from kv')];
    t.strictSame([...beside], [begun], 'opened on a server');
    t.equal(statement.size, 1);
    t.not([...statement][0], begun, 'statement_timestamp() goes on');
    t.strictSame([...(await of('select current_timestamp from kv'))], [begun]);
    t.equal(await client.value('select now()'), begun);
    await client.run('commit');
    await client.run('begin');
    const first = await of('select now() from kv');
    await new Promise((resolve) => setTimeout(resolve, 5));
    t.strictSame(await of('select transaction_timestamp() from kv'), first, 'held back: the first answer counts');
    await client.run('commit', 'begin');
    t.notSame(await of('select now() from kv'), first, 'another block, another time');
    await client.run('rollback');
  });
  await client.end();
  await router.quiet();
});
