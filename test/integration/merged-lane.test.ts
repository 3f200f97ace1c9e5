// What clients see of the merged lane (D11) beside their answers: that there are batches at all, and whose errors, keys,
// settings, privileges and table changes touch whom.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { KvTable } from '../../src/cluster/kv-table.js';
import { encodeAll } from '../support/frontend-message.js';
import { BLOBS, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import type { LiveRouter } from '../support/live-router.js';
import { FILL, forPostgres, GET, INCR, UPSERT } from '../support/merged-cases.js';
import {
  batchBytes,
  becomesMerged,
  directClient,
  grants,
  queryBytes,
  type TickClient,
  tickClients,
  together,
  told,
  untilMerged,
} from '../support/merged-clients.js';
import { seeded } from '../support/seeded-random.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);

const special = (name: string): KvTable => ({ schema: 'public', name, valueType: 'jsonb' });
const TABLES = [
  KV,
  BLOBS,
  special('checked'),
  special('triggered'),
  special('ruled'),
  special('secured'),
  special('growing'),
];
const cluster = await kvServers(t, 1, { tables: TABLES });
const server = cluster.servers[0]!;
const direct = await directClient(server);
t.teardown(() => direct.sql.wire.destroy());

const onServer = (sql: string) => direct.run(sql);

await onServer(`create role lane_reader login; grant select on kv to lane_reader;
  create role lane_writer login; grant all on kv to lane_writer`);

// ---------------------------------------------------------------- batches there are

t.test('64 clients, one turn of the event loop: a few statements, a few commits', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 64);
  for (const [name, sql, values] of [
    ['reads', GET, (index: number) => ['t', `k${index}`]],
    ['upserts', UPSERT, (index: number) => ['t', `u${index}`, `${index}`]],
    ['function calls', INCR, (index: number) => ['t', `i${index}`]],
    ['deletes', 'DELETE FROM kv WHERE tenant_id = $1 AND key = $2', (index: number) => ['t', `u${index}`]],
  ] as const) {
    const bytes = (index: number) => batchBytes(sql, values(index));
    await untilMerged(t, live, clients, bytes);
    const [before] = (await onServer('select pg_current_xact_id()'))[0]!;
    const grantsBefore = grants(live);
    const answers = await together(clients, bytes);
    const [after] = (await onServer('select pg_current_xact_id()'))[0]!;
    t.same(
      answers.flatMap((answer) => told(answer).code || []),
      [],
    );
    const transactions = Number(BigInt(after!) - BigInt(before!)) - 1;
    t.ok(grants(live) - grantsBefore <= 4, `${name}: ${grants(live) - grantsBefore} statements`);
    t.ok(transactions <= 4, `${name}: ${transactions} transactions that wrote`);
  }
});

t.test('identical reads of one batch are asked once, and each client gets the answer', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 48);
  await untilMerged(t, live, clients, (index) => batchBytes(GET, ['t', `k${index}`]));
  const [pool] = live.router.pools;
  const ask = async (keyOf: (index: number) => string): Promise<{ sent: number; rows: string[] }> => {
    const before = pool!.bytesOut;
    const answers = await together(clients, (index) => batchBytes(GET, ['t', keyOf(index)]));
    return { sent: pool!.bytesOut - before, rows: answers.map((answer) => JSON.stringify(told(answer).rows)) };
  };
  const apart = await ask((index) => `k${10 + index}`);
  const alike = await ask(() => 'k17');
  t.equal(new Set(apart.rows).size, clients.length);
  t.same([...new Set(alike.rows)], [apart.rows[7]]);
  t.same([...new Set((await ask(() => 'nowhere')).rows)], ['[]']);
  const mixed = await ask((index) => (index % 3 === 0 ? 'k17' : `k${10 + index}`));
  t.same(
    mixed.rows,
    apart.rows.map((rows, index) => (index % 3 === 0 ? apart.rows[7] : rows)),
  );
  t.ok(alike.sent < apart.sent / 3, `${alike.sent} bytes for one key, ${apart.sent} for ${clients.length}`);
});

// ---------------------------------------------------------------- members that fail

/** Fields that say what went wrong; not where in the server's source, nor in which text. */
function fields(error: Readonly<Record<string, string>> | null): string {
  if (error === null) return 'no error';
  const { F, L, R, P, q, p, ...said } = error;
  return JSON.stringify(said).replaceAll(/\d{4}-\d\d-\d\d [0-9:.]+\+00/g, 'then');
}

const FAILING = `INSERT INTO checked (tenant_id, key, value) VALUES ($1, $2, $3)
  ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING value, key`;

t.test("a member that fails gets Postgres's error, the others their results", async (t) => {
  await onServer(`alter table checked add constraint small check (value <> '"bad"')`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 32);
  const cases: readonly (readonly [
    name: string,
    sql: string,
    good: (i: number) => string[],
    bad: (i: number) => string[] | null,
  ])[] = [
    [
      'a constraint and a cast',
      FAILING,
      (i) => ['t', `c${i}`, `${i}`],
      (i) => (i % 7 === 1 ? ['t', `c${i}`, '"bad"'] : i % 7 === 4 ? ['t', `c${i}`, '{"unfinished'] : null),
    ],
    [
      'a division by zero in the select list',
      'SELECT $3::int4 / $4::int4 AS ratio, key FROM kv WHERE tenant_id = $1 AND key = $2',
      (i) => ['t', `k${i}`, `${i * 10}`, '2'],
      (i) => (i === 9 ? ['t', 'k9', '1', '0'] : null),
    ],
    [
      'a cast of what is stored',
      `SELECT (value->>'n')::int4 AS n FROM checked WHERE tenant_id = $1 AND key = $2`,
      (i) => ['t', `d${i}`],
      (i) => (i === 3 ? ['t', 'text'] : null),
    ],
    [
      'a key that is there',
      'INSERT INTO checked (tenant_id, key, value) VALUES ($1, $2, $3)',
      (i) => ['t', `fresh${i}`, `${i}`],
      (i) => (i % 10 === 2 ? ['t', `d${i}`, '1'] : null),
    ],
  ];
  for (const [name, sql, good, bad] of cases) {
    const fill = `truncate checked; insert into checked (tenant_id, key, value) values ('t', 'text', '{"n": "x"}');
      insert into checked (tenant_id, key, value) select 't', 'd' || g, '{"n": 5}' from generate_series(0, 31) g`;
    await onServer(fill);
    let attempt = 0;
    await untilMerged(t, live, clients, (i) =>
      batchBytes(sql, [
        good(i)[0]!,
        `${good(i)[1]}${sql.startsWith('INSERT') ? `-${attempt++}` : ''}`,
        ...good(i).slice(2),
      ]),
    );
    await onServer(fill);
    const values = (i: number) => bad(i) ?? good(i);
    const answers = (await together(clients, (i) => batchBytes(sql, values(i)))).map(told);
    const held = await onServer('select key, value, version from checked order by 1');
    await onServer(fill);
    for (const [i, answer] of answers.entries()) {
      const own = told(await direct.ask(batchBytes(forPostgres(sql), values(i))));
      t.equal(fields(answer.error), fields(own.error), `${name}, member ${i}`);
      t.same([answer.rows, answer.tags], [own.rows, own.tags], `${name}, member ${i}`);
      t.equal(answer.code !== '', bad(i) !== null);
    }
    t.same(held, await onServer('select key, value, version from checked order by 1'), `${name}: what the table holds`);
  }
});

t.test('a malformed Bind of a merged statement is refused as by Postgres, and the session goes on', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 4);
  const sql = 'UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2';
  const question = (i: number) => batchBytes(sql, ['t', `k${i}`, '"value"']);
  await untilMerged(t, live, clients, question);
  const bad: Buffer[] = [-2, 8, 100, 0x7fffffff].map((length) => {
    const bytes = Buffer.from(question(0));
    bytes.writeInt32BE(length, bytes.indexOf('"value"') - 4);
    return bytes;
  });
  bad.push(encodeAll([{ parse: sql }, { bind: ['t', 'k0', '1'], formats: [2, 0, 0] }, { execute: '' }, 'sync']));
  for (const bytes of bad) {
    const own = told(await direct.ask(bytes));
    const answer = told(await clients[0]!.ask(bytes));
    t.not(own.code, '');
    t.same([fields(answer.error), answer.tags], [fields(own.error), own.tags]);
    t.same(told(await clients[0]!.ask(question(0))).tags, ['UPDATE 1']);
  }
});

const banned = { since: 0, live: null as LiveRouter | null, clients: [] as TickClient[] };
const someFail = (i: number): Buffer => batchBytes(FAILING, ['t', `b${i}`, i === 0 ? '"bad"' : '1']);
const noneFails = (i: number): Buffer => batchBytes(FAILING, ['t', `b${i}`, '1']);

t.test('a statement that keeps failing leaves the lane', async (t) => {
  // Its router lives to the end of the file, where the statement is to come back.
  const live = await kvRouter(t.parent as Test, cluster, { pool: { sizeMax: 8 } });
  const clients = await tickClients(live, 16);
  await untilMerged(t, live, clients, noneFails);
  for (let round = 0; round < 6; round++) {
    const codes = (await together(clients, someFail)).map((answer) => told(answer).code);
    t.same(codes, ['23514', ...new Array(15).fill('')]);
  }
  const before = grants(live);
  await together(clients, noneFails);
  t.equal(grants(live) - before, clients.length, 'each by itself');
  Object.assign(banned, { since: performance.now(), live, clients });
});

// ---------------------------------------------------------------- one key, many writers

t.test('writes of one key in one turn are all applied', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 64);
  const statements: readonly (readonly [name: string, sql: string])[] = [
    [
      'update',
      `UPDATE kv SET value = jsonb_build_object('n', (value->>'n')::int4 + 1) WHERE tenant_id = $1 AND key = $2 RETURNING value->>'n'`,
    ],
    [
      'upsert',
      `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, '{"n": 1}') ON CONFLICT (tenant_id, key)
         DO UPDATE SET value = jsonb_build_object('n', (kv.value->>'n')::int4 + 1) RETURNING value->>'n'`,
    ],
    ['function', INCR],
  ];
  for (const [name, sql] of statements) {
    const key = name === 'update' ? 'k0' : `sum of ${name}`;
    const warm = name === 'update' ? 'k' : `of ${name} `;
    await untilMerged(t, live, clients, (i) => batchBytes(sql, ['t', `${warm}${i + 1}`]));
    const seen: number[] = [];
    for (let round = 0; round < 3; round++) {
      for (const answer of await together(clients, () => batchBytes(sql, ['t', key]))) {
        seen.push(Number(told(answer).rows[0]?.[0]));
      }
    }
    t.same(
      seen.sort((a, b) => a - b),
      Array.from({ length: 192 }, (_, n) => n + 1),
      `${name}: each has seen a count of its own`,
    );
  }
});

t.test('two routers write the same keys: rows are locked in one order', async (t) => {
  await onServer(FILL);
  // Below five none is kept from leases: all its sockets are there before the other router begins to count its own.
  const options = { pool: { sizeMax: 4 } };
  const one = await kvRouter(t, cluster, options);
  const ofOne = await tickClients(one, 40);
  await Promise.all(ofOne.map((client) => client.ask(queryBytes('SELECT pg_sleep(0.01)'))));
  await t.test('together', async (t) => {
    const other = await kvRouter(t, cluster, options);
    const ofOther = await tickClients(other, 40);
    const random = seeded(SEED);
    const write = (n: number) =>
      n % 2 === 0
        ? batchBytes('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2', [
            't',
            `k${Math.floor(random() * 50)}`,
            `${n}`,
          ])
        : batchBytes(UPSERT, ['t', `k${Math.floor(random() * 50)}`, `${n}`]);
    for (const [live, clients] of [
      [one, ofOne],
      [other, ofOther],
    ] as const) {
      await untilMerged(
        t,
        live,
        clients.filter((_, n) => n % 2 === 0),
        () => write(0),
      );
      await untilMerged(
        t,
        live,
        clients.filter((_, n) => n % 2 === 1),
        () => write(1),
      );
    }
    const versions = async () => Number((await onServer(`select sum(version) from kv where key like 'k%'`))[0]![0]);
    const before = await versions();
    const codes = new Set<string>();
    const everybody = [...ofOne, ...ofOther];
    const round = async (): Promise<void> => {
      for (const answer of await together(everybody, write)) codes.add(told(answer).code);
    };
    for (let left = 20; left > 0; left--) await round();
    const logged = server.log().length;
    // Batches of both, in the middle of their keys at one time: in another order than others' they would meet crosswise.
    for (let left = 10; left > 0; left--) {
      await onServer(`begin; select 1 from kv where key in ('k2', 'k35') for update`);
      const written = round();
      await sleep(30);
      await onServer('commit');
      await written;
    }
    t.same([...codes], [''], `seed ${SEED}`);
    t.equal((await versions()) - before, 30 * everybody.length, 'each write was applied once');
    const crossed =
      server
        .log()
        .slice(logged)
        .match(/lock timeout|deadlock detected/g) ?? [];
    t.ok(crossed.length <= 4, `${crossed.length} batches met others crosswise`);
  });
});

// ---------------------------------------------------------------- settings, roles, tables

t.test('a statement is learnt under the settings of who sends it', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 4);
  await together(clients, () => queryBytes(`SET timezone = 'Asia/Tokyo'`));
  // The literal of a time is read when the text is parsed, which is long before a batch is sent.
  const question = (i: number) =>
    batchBytes(`SELECT timestamptz '2026-07-01 10:00' AS at FROM kv WHERE tenant_id = $1 AND key = $2`, ['t', `k${i}`]);
  await untilMerged(t, live, clients, question);
  for (const answer of await together(clients, question)) t.same(told(answer).rows, [['2026-07-01 10:00:00+09']]);
});

t.test('24 groups of settings: answers in the settings of each client', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const groups: string[] = [];
  for (const zone of ['Asia/Tokyo', 'UTC', 'America/New_York', 'Asia/Kolkata']) {
    for (const style of ['ISO, MDY', 'German, DMY', 'SQL, DMY']) {
      for (const digits of ['1', '-8']) {
        groups.push(`SET timezone = '${zone}'; SET datestyle = '${style}'; SET extra_float_digits = ${digits}`);
      }
    }
  }
  t.equal(groups.length, 24);
  const usual = groups.findIndex((group) => /UTC.*ISO.*= 1$/.test(group));
  // A literal of a time is read when the text is parsed, under the settings in force then.
  const sql = `SELECT ttl, version / 3.0::float8 AS third, timestamptz '2026-07-01 10:00' AS at, '03/04/2026'::date AS day, $3::timestamptz AS given
    FROM kv WHERE tenant_id = $1 AND key = $2`;
  const values = ['t', 'k3', '03.04.2026 05:06'];
  const expected: (readonly (string | null)[])[] = [];
  for (const group of groups) {
    const { rows } = told(await direct.ask(Buffer.concat([queryBytes(group), batchBytes(sql, values)]), 2));
    expected.push(rows[0]!);
  }
  await onServer('RESET ALL');
  const clients = await tickClients(live, 48);
  await together(clients, (i) => queryBytes(groups[i % 24]!));
  t.equal(new Set(expected.map((row) => row.join())).size, 24);
  for (let round = 0; round < 8; round++) {
    const answers = await together(clients, () => batchBytes(sql, values));
    for (const [i, answer] of answers.entries()) {
      const { rows, code } = told(answer);
      if (code !== '' || String(rows[0]) !== String(expected[i % 24])) {
        t.same([code, rows[0]], ['', expected[i % 24]], `round ${round}, ${groups[i % 24]}`);
      }
    }
    await sleep(5);
  }
  // Changed under way, and changed back.
  await together(clients, (i) => queryBytes(i % 2 === 0 ? 'RESET ALL' : groups[(i + 5) % 24]!));
  const answers = await together(clients, () => batchBytes(sql, values));
  for (const [i, answer] of answers.entries()) {
    t.same(told(answer).rows[0], expected[i % 2 === 0 ? usual : (i + 5) % 24]);
  }
});

t.test('other settings are honoured, by leases', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const update = (i: number) =>
    batchBytes('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2', ['t', `k${i}`, '1']);
  await untilMerged(t, live, clients, update);
  for (const [set, expected] of [
    ['SET search_path = public, pg_catalog', ''],
    ['SET ROLE lane_reader', '42501'],
    [`SET statement_timeout = '40ms'`, '57014'],
    [`SET lock_timeout = '30ms'`, '55P03'],
    [`SET default_transaction_isolation = 'serializable'`, ''],
    ['SET default_transaction_read_only = on', '25006'],
    ['SET synchronous_commit = off', ''],
  ] as const) {
    await together(clients.slice(0, 4), () => queryBytes(set));
    const waits = set.includes('timeout');
    if (waits)
      await onServer(`begin; select 1 from kv where tenant_id = 't' and key in ('k0', 'k1', 'k2', 'k3') for update`);
    const before = grants(live);
    const codes = (await together(clients, update)).map((answer) => told(answer).code);
    if (waits) await onServer('commit');
    t.same(codes, [...new Array(4).fill(expected), ...new Array(4).fill('')], set);
    t.ok(grants(live) - before >= 5, `${set}: each by itself`);
    await together(clients.slice(0, 4), () => queryBytes('RESET ROLE; RESET ALL'));
  }
});

t.test('no privilege crosses from one role to another', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const writers = await tickClients(live, 16, { user: 'lane_writer' });
  const readers = await tickClients(live, 16, { user: 'lane_reader' });
  const both = writers.flatMap((writer, i) => [writer, readers[i]!]);
  await untilMerged(t, live, both, (i) => batchBytes(GET, ['t', `k${i}`]));
  const update = (i: number) =>
    batchBytes('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2', ['t', `k${i}`, '"mine"']);
  for (let round = 0; round < 8; round++) {
    const codes = (await together(both, update)).map((answer) => told(answer).code);
    t.same(
      codes,
      both.map((_, i) => (i % 2 === 0 ? '' : '42501')),
    );
    const reads = (await together(both, (i) => batchBytes(GET, ['t', `k${i}`]))).map(told);
    t.same(
      reads.map(({ rows }) => rows),
      both.map((_, i) => [[i % 2 === 0 ? '"mine"' : `{"n": ${i}}`]]),
    );
  }
});

t.test('tables with triggers, rules or row-level security are not merged', async (t) => {
  await onServer(`create table log (what text);
    create function note() returns trigger language plpgsql security definer as $$ begin insert into public.log values (tg_table_name); return null; end $$;
    create trigger noting after update on triggered for each statement execute function note();
    create rule noting as on update to ruled do also insert into log values ('ruled');
    create policy own on secured using (tenant_id = current_user); alter table secured enable row level security;
    grant all on secured, triggered, ruled, log to lane_writer, lane_reader;
    insert into triggered (tenant_id, key, value) select 't', 'k' || g, '0' from generate_series(0, 15) g;
    insert into ruled (tenant_id, key, value) select 't', 'k' || g, '0' from generate_series(0, 15) g;
    insert into secured (tenant_id, key, value) select u, 'k' || g, to_jsonb(u) from generate_series(0, 15) g, unnest(array['lane_reader', 'lane_writer']) u`);
  const live = await kvRouter(t, cluster);
  const writers = await tickClients(live, 8, { user: 'lane_writer' });
  const readers = await tickClients(live, 8, { user: 'lane_reader' });
  const clients = [...writers, ...readers];
  for (const table of ['triggered', 'ruled']) {
    const update = (i: number) =>
      batchBytes(`UPDATE ${table} SET value = $3 WHERE tenant_id = $1 AND key = $2`, ['t', `k${i}`, '1']);
    t.notOk(await becomesMerged(live, clients, update, 12), table);
    const [count] = (await onServer(`select count(*) from log where what = '${table}'`))[0]!;
    t.equal(count, String(12 * clients.length), `${table}: each statement was noted`);
  }
  const read = (i: number) =>
    batchBytes('SELECT value FROM secured WHERE tenant_id = $1 AND key = $2', [
      i % 3 === 0 ? 'lane_reader' : 'lane_writer',
      `k${i}`,
    ]);
  t.notOk(await becomesMerged(live, clients, read, 12), 'secured');
  const answers = (await together(clients, read)).map((answer) => told(answer).rows);
  t.same(
    answers,
    clients.map((_, i) => (i % 3 === 0 ? (i >= 8 ? [['"lane_reader"']] : []) : i < 8 ? [['"lane_writer"']] : [])),
  );
});

// ---------------------------------------------------------------- tables that change, values of all sizes

t.test('columns are added and dropped on the server under load: no client sees an error', async (t) => {
  await onServer(`insert into growing (tenant_id, key, value) select 't', 'k' || g, '1' from generate_series(0, 31) g`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 32);
  const questions: readonly ((i: number) => Buffer)[] = [
    (i) => batchBytes('SELECT * FROM growing WHERE tenant_id = $1 AND key = $2', ['t', `k${i}`]),
    (i) =>
      batchBytes('UPDATE growing SET value = $3 WHERE tenant_id = $1 AND key = $2 RETURNING *', ['t', `k${i}`, '2']),
    (i) =>
      batchBytes(
        'INSERT INTO growing (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value',
        ['t', `k${i}`, '2'],
      ),
    (i) => queryBytes(`SELECT * FROM growing WHERE tenant_id = 't' AND key = 'k${i}'`),
  ];
  const group = (n: number): TickClient[] => clients.slice(8 * n, 8 * n + 8);
  for (const [n, question] of questions.entries()) await untilMerged(t, live, group(n), question);
  let done = false;
  const problems = new Set<string>();
  let answered = 0;
  const load = clients.map(async (client, i) => {
    const question = questions[Math.floor(i / 8)]!(i);
    while (!done) {
      const { messages, rows, code, error } = told(await client.ask(question));
      answered++;
      const described = messages.find(({ type }) => type === 'RowDescription');
      const columns = described?.type === 'RowDescription' ? described.columns.length : 0;
      if (code !== '') problems.add(`${code} ${error!['M']} ${error!['D']}`);
      if (messages.some(({ type }) => type === 'Malformed')) problems.add('malformed');
      if (rows.some((row) => row.length !== columns)) problems.add(`${columns} columns, rows of ${rows[0]!.length}`);
    }
  });
  const other = await directClient(server);
  for (const change of [
    'add column extra int default 7',
    'add column more text',
    'drop column extra, add column last jsonb',
    'drop column more',
  ]) {
    await sleep(150);
    const { code, error } = told(await other.ask(queryBytes(`alter table growing ${change}`)));
    t.equal(code, '', error?.['M'] ?? change);
  }
  await sleep(150);
  done = true;
  await Promise.all(load);
  t.same([...problems], [], `${answered} answers`);
  // Also where the change and the loss of connections come between two statements.
  await onServer('alter table growing add column latest int default 5');
  await onServer(
    `select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query like '%growing%'`,
  );
  other.sql.wire.destroy();
  await sleep(50);
  for (const [n, question] of questions.entries()) {
    const [one] = group(n);
    for (let turn = 0; turn < 3; turn++) {
      const { messages, rows, code } = told(await one!.ask(question(0)));
      t.equal(code, '');
      t.notOk(messages.some(({ type }) => type === 'Malformed'));
      if (n !== 2) t.equal(rows[0]?.length, 9);
    }
    // What could not be learnt while a column came or went is tried again 2 s later.
    let isMerged = await becomesMerged(live, group(n), question);
    for (let tries = 0; !isMerged && tries < 40; tries++) {
      await sleep(250);
      isMerged = await becomesMerged(live, group(n), question);
    }
    t.ok(isMerged, `statement ${n} is merged again`);
    const answers = (await together(group(n), question)).map(told);
    t.notOk(answers.some(({ messages, code }) => code !== '' || messages.some(({ type }) => type === 'Malformed')));
    if (n !== 2) t.same([...new Set(answers.map(({ rows }) => rows[0]?.length))], [9]);
  }
});

t.test('values of 1 byte to 1 MiB in one mix, and 64 answers of 1 MiB', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 64);
  const random = seeded(SEED);
  const sizes = clients.map(() => Math.floor(2 ** (random() * 20)));
  const filled = (i: number, size: number): string => `"${String.fromCharCode(97 + (i % 26)).repeat(size)}"`;
  await untilMerged(t, live, clients, (i) => batchBytes(UPSERT, ['t', `v${i}`, '1']));
  await untilMerged(t, live, clients, (i) => batchBytes(GET, ['t', `v${i}`]));
  for (const answer of await together(clients, (i) => batchBytes(UPSERT, ['t', `v${i}`, filled(i, sizes[i]!)]))) {
    t.equal(told(answer).code, '');
  }
  for (let round = 0; round < 2; round++) {
    const answers = await together(clients, (i) => batchBytes(GET, ['t', `v${i}`]));
    const wrong = answers.filter((answer, i) => told(answer).rows[0]?.[0] !== filled(i, sizes[i]!));
    t.same(wrong.length, 0, `seed ${SEED}`);
  }
  const MIB = 1024 * 1024;
  await onServer(
    `update kv set value = to_jsonb(repeat(chr(97 + substr(key, 2)::int4 % 26), ${MIB})) where key like 'v%'`,
  );
  const before = process.memoryUsage().rss;
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss - before);
  }, 5);
  for (const sql of [GET, 'UPDATE kv SET ttl = NULL WHERE tenant_id = $1 AND key = $2 RETURNING value']) {
    const answers = await together(clients, (i) => batchBytes(sql, ['t', `v${i}`]));
    const wrong = answers.filter((answer, i) => answer.indexOf(filled(i, MIB)) < 0);
    t.equal(wrong.length, 0, sql);
  }
  clearInterval(watch);
  // The clients of this test keep 64 MiB of answers themselves, in parts that they join.
  t.ok(most < 500 * MIB, `${Math.round(most / MIB)} MiB more`);
  await onServer('truncate kv');
});

t.test('a statement that left the lane comes back', async (t) => {
  const { live, clients, since } = banned;
  await sleep(Math.max(0, since + 10_500 - performance.now()));
  t.ok(await becomesMerged(live!, clients, noneFails));
});
