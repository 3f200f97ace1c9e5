// Servers that break, stall or talk nonsense at every point: the client always gets a definite answer, and what it says
// is true. Safe errors (08006, 40001) mean that nothing was written, an acknowledged write is there, and only 08007
// leaves it open.
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { eventually, reset, serverAtRest } from '../support/bystander.js';
import { type Fault, FaultProxy, type Script } from '../support/fault-proxy.js';
import { cstring, type FrontendMessage, frame, int16, int32 } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import { type Exchange, WireClient } from '../support/wire-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
const LOGIN = { user: server.superuser, database: 'postgres' };
const direct = await SqlClient.connect(server, LOGIN);
t.teardown(() => direct.end());
await direct.run('CREATE TABLE written (id int)');

/** Found for health checks, which no fault touches. */
const PROBE = { user: server.superuser, database: 'template1' };

async function behindProxy(t: Test, overrides = {}): Promise<{ live: LiveRouter; proxy: FaultProxy }> {
  const proxy = await FaultProxy.start(server);
  const settings = { pool: { sizeMax: 1 }, servers: { connectTimeoutMs: 400 }, ...overrides };
  // Torn down behind the router, which would else be left by its servers first.
  t.teardown(() => proxy.down());
  const live = await liveRouter(t, [proxy.standInFor(server)], settings, { probeAs: PROBE });
  return { live, proxy };
}

const ROLLBACK_FIRST = 'writes pipelined behind a ROLLBACK are told 40001 though they may have been committed';

let lastId = 0;
const isThere = async (id: number): Promise<boolean> =>
  (await direct.value(`SELECT count(*) FROM written WHERE id = ${id}`)) === '1';

/** How one statement or batch ended for the client. */
interface Ending {
  /** `lost`: the connection was closed without an error. */
  readonly outcome: 'done' | 'error' | 'lost';
  readonly code: string;
  /** I, T or E; '' when the connection is over. */
  readonly status: string;
}

function endingOf({ messages, outcome }: Exchange): Ending {
  if (outcome === 'timeout') throw new Error(`no definite answer: ${JSON.stringify(messages)}`);
  const last = messages.at(-1);
  const status = last?.type === 'ReadyForQuery' ? last.status : '';
  const error = errorOf(messages);
  if (error !== null) return { outcome: 'error', code: error.code, status };
  return { outcome: outcome === 'reached' ? 'done' : 'lost', code: '', status };
}

const ask = async (client: SqlClient, messages: readonly FrontendMessage[], readies = 1): Promise<Ending> =>
  endingOf(await client.wire.exchange(messages, readies, 3_000));

/** Runs `ask` with a fault that strikes within it; the connection to the server is there before. */
async function struckBy(proxy: FaultProxy, fault: Fault, run: () => Promise<Ending>): Promise<Ending> {
  proxy.arm(fault);
  const ending = await run();
  proxy.disarm();
  return ending;
}

/** Whether what the client was told of its write agrees with what the server holds. */
async function agrees(t: Test, what: string, ending: Ending, id: number, todo?: string): Promise<void> {
  await serverAtRest(t, server, { direct });
  const there = await isThere(id);
  const told = `${what}: told ${ending.outcome} ${ending.code}, the row is ${there ? 'there' : 'not there'}`;
  if (ending.outcome === 'done') t.ok(there, told);
  else if (['08006', '40001', '25P02'].includes(ending.code)) t.notOk(there, told, todo === undefined ? {} : { todo });
  else t.ok(ending.code === '08007' || ending.outcome === 'lost', told);
}

/** The session goes on, or a new one can be had at once. */
async function goesOn(t: Test, live: LiveRouter, client: SqlClient, ending: Ending): Promise<SqlClient> {
  if (ending.status === '') {
    client.wire.destroy();
    return live.connect();
  }
  t.equal(ending.status, 'I');
  t.equal(await client.value('SELECT 7'), '7');
  return client;
}

interface Scenario {
  readonly name: string;
  readonly messages: (id: number) => readonly FrontendMessage[];
  readonly writes: boolean;
  /** Repeated with the same text, which pgkv then prepares under a name of its own. */
  readonly warmUp?: boolean;
}

const extended = (
  sql: string,
  parameters: readonly string[],
  types: readonly number[] = [],
): readonly FrontendMessage[] => [
  { parse: sql, types },
  { bind: parameters },
  { describe: 'portal' },
  { execute: '' },
  'sync',
];

const SCENARIOS: readonly Scenario[] = [
  { name: 'a simple read', messages: (id) => [{ query: `SELECT ${id}, 'some text'` }], writes: false },
  { name: 'a simple write', messages: (id) => [{ query: `INSERT INTO written VALUES (${id})` }], writes: true },
  {
    name: 'a batch, first time',
    messages: (id) => extended(`INSERT INTO written VALUES ($1) /* ${id} */`, [String(id)], [23]),
    writes: true,
  },
  {
    name: 'a batch, prepared',
    messages: (id) => extended('INSERT INTO written VALUES ($1) RETURNING id', [String(id)], [23]),
    writes: true,
    warmUp: true,
  },
  {
    name: 'a read, prepared',
    messages: (id) => extended('SELECT $1::text', [String(id)]),
    writes: false,
    warmUp: true,
  },
];

/** How many bytes of that side one run of a scenario has, measured on the proxy. */
async function bytesOf(
  live: LiveRouter,
  proxy: FaultProxy,
  side: 'request' | 'answer',
  scenario: Scenario,
): Promise<number> {
  const client = await live.connect();
  if (scenario.warmUp) for (let run = 0; run < 3; run++) await ask(client, scenario.messages(++lastId));
  else await client.value('SELECT 1');
  proxy.arm({ kind: 'stall', side, after: Number.MAX_SAFE_INTEGER });
  await ask(client, scenario.messages(++lastId));
  const bytes = proxy.passed;
  proxy.disarm();
  await client.end();
  return bytes;
}

for (const side of ['answer', 'request'] as const) {
  for (const scenario of SCENARIOS) {
    t.test(`${scenario.name}: the connection is cut at every byte of the ${side}`, async (t) => {
      const { live, proxy } = await behindProxy(t);
      const bytes = await bytesOf(live, proxy, side, scenario);
      t.ok(bytes > 15 && bytes < 400, `${bytes} bytes`);
      let client = await live.connect();
      const seen = new Set<string>();
      for (let after = 0; after <= bytes; after++) {
        await client.value('SELECT 1');
        if (scenario.warmUp) for (let run = 0; run < 2; run++) await ask(client, scenario.messages(++lastId));
        const id = ++lastId;
        const fault: Fault = { kind: 'cut', side, after, reset: after % 3 === 2 };
        const ending = await struckBy(proxy, fault, () => ask(client, scenario.messages(id)));
        t.ok(proxy.struck, 'the fault struck');
        seen.add(`${ending.outcome} ${ending.code}`.trim());
        if (scenario.writes) await agrees(t, `cut at ${after}`, ending, id);
        else t.match(ending, { outcome: /done|error|lost/, code: /^(08006)?$/ }, `cut at ${after}`);
        if (ending.outcome === 'done') t.equal(after, bytes, 'only the whole answer is a success');
        client = await goesOn(t, live, client, ending);
      }
      await client.end();
      t.same(
        [...seen].filter((ending) => !['done', 'lost', 'error 08006', 'error 08007'].includes(ending)),
        [],
      );
      t.ok(seen.has(scenario.writes ? 'error 08007' : 'error 08006'), [...seen].join());
    });
  }
}

t.test('a transaction is cut at every byte of its answers', async (t) => {
  const { live, proxy } = await behindProxy(t);
  const statements = (id: number): readonly string[] => [
    'BEGIN',
    `INSERT INTO written VALUES (${id})`,
    'SELECT 1',
    'COMMIT',
  ];
  const codes = new Set<string>();
  let client = await live.connect();
  let after = 0;
  for (let unbroken = false; !unbroken; after++) {
    await client.value('SELECT 1');
    const id = ++lastId;
    proxy.arm({ kind: 'cut', side: 'answer', after });
    let ending: Ending = { outcome: 'done', code: '', status: 'I' };
    let at = '';
    for (const sql of statements(id)) {
      at = sql.split(' ')[0]!;
      ending = await ask(client, [{ query: sql }]);
      if (ending.outcome !== 'done') break;
      // Also strike while nothing is under way.
      if (proxy.struck) await sleep(2);
    }
    unbroken = !proxy.struck;
    proxy.disarm();
    codes.add(`${at} ${ending.outcome} ${ending.code}`);
    // A BEGIN, though it wrote nothing, may be called unknown.
    await agrees(t, `cut at ${after}, in ${at}`, ending, id);
    if (ending.code === '40001' && ending.status === 'E') {
      t.match(await ask(client, [{ query: 'SELECT 1' }]), { code: '25P02', status: 'E' });
      t.match(await ask(client, extended('SELECT 1', [])), { code: '25P02', status: 'E' });
      t.match(await ask(client, [{ query: 'ROLLBACK' }]), { outcome: 'done', status: 'I' });
      ending = { ...ending, status: 'I' };
    }
    client = await goesOn(t, live, client, ending);
  }
  t.ok(after > 60, `${after} places`);
  // Where a row had been passed on in part, the client's connection had to be closed.
  const expected =
    /^(BEGIN error 0800[67]|INSERT error 40001|SELECT error 40001|SELECT lost |COMMIT error (40001|08007)|COMMIT done )$/;
  t.same(
    [...codes].filter((code) => !expected.test(code)),
    [],
  );
  for (const code of ['INSERT error 40001', 'SELECT error 40001', 'COMMIT error 40001', 'COMMIT error 08007']) {
    t.ok(codes.has(code), `${code} occurred`);
  }
  await client.end();
});

t.test('what is lost between an answer and its Sync or COMMIT is not acknowledged', async (t) => {
  const { live, proxy } = await behindProxy(t);
  const cutNow = async () => {
    const before = live.router.pool.openCount;
    proxy.arm({ kind: 'cut', side: 'answer', after: 0 });
    await direct.run(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'`,
    );
    await eventually(t, 'the connection is gone', () => live.router.pool.openCount < before);
    proxy.disarm();
  };
  const insert = (id: number): readonly FrontendMessage[] => [
    { parse: 'INSERT INTO written VALUES ($1)', types: [23] },
    { bind: [String(id)] },
    { execute: '' },
  ];

  const client = await live.connect();
  const flushed = ++lastId;
  await client.send([...insert(flushed), 'flush'], { type: 'CommandComplete' });
  await cutNow();
  const ending = await ask(client, ['sync']);
  t.not(ending.outcome, 'done', 'the Sync is not answered as if the batch had been committed');
  t.notOk(await isThere(flushed));

  const kept = await goesOn(t, live, client, ending);
  const inBlock = ++lastId;
  await kept.run('BEGIN', `INSERT INTO written VALUES (${inBlock})`);
  await cutNow();
  t.match(await ask(kept, [{ query: 'COMMIT' }]), { outcome: 'error', code: '40001', status: 'I' });
  t.notOk(await isThere(inBlock));
  t.equal(await kept.value('SELECT 1'), '1');

  const last = ++lastId;
  await kept.run('BEGIN', `INSERT INTO written VALUES (${last})`);
  await cutNow();
  t.match(await ask(kept, extended('SELECT 1', [])), { code: '40001', status: 'E' });
  t.match(await ask(kept, [{ functionCall: 1, args: [] }]), { code: '25P02', status: 'E' });
  t.match(
    await ask(kept, [{ query: 'ROLLBACK AND CHAIN' }]),
    { code: '25P02', status: 'E' },
    'no new transaction can be begun here',
  );
  t.match(await ask(kept, extended('ROLLBACK', [])), { outcome: 'done', status: 'I' });
  t.notOk(await isThere(last));
  await kept.end();
});

t.test('pipelines: each statement gets its answer, and a write behind a ROLLBACK is never called safe', async (t) => {
  const { live, proxy } = await behindProxy(t);
  let client = await live.connect();
  for (let after = 0; after < 120; after += 3) {
    const [a, b, c] = [++lastId, ++lastId, ++lastId];
    await client.run('BEGIN', `INSERT INTO written VALUES (${a})`);
    const pipeline = ['ROLLBACK', `INSERT INTO written VALUES (${b})`, `INSERT INTO written VALUES (${c})`];
    proxy.arm({ kind: 'cut', side: 'answer', after });
    client.wire.send(...pipeline.map((query) => ({ query })));
    const endings: Ending[] = [];
    for (let statement = 0; statement < 3 && endings.at(-1)?.status !== ''; statement++) {
      endings.push(endingOf(await client.wire.wait(1, 3_000)));
    }
    proxy.disarm();
    for (const [index, id] of [b, c].entries()) {
      const ending = endings[index + 1];
      if (ending !== undefined) await agrees(t, `pipeline cut at ${after}, write ${index}`, ending, id, ROLLBACK_FIRST);
    }
    t.notOk(await isThere(a), 'the transaction was not committed');
    const end = endings.at(-1)!;
    if (end.status === 'E') t.match(await ask(client, [{ query: 'ROLLBACK' }]), { status: 'I' });
    client = await goesOn(t, live, client, end.status === 'E' ? { ...end, status: 'I' } : end);
  }
  await client.end();
});

t.test('a COPY whose server goes away is reported, and not applied in part', async (t) => {
  const { live, proxy } = await behindProxy(t);
  let client = await live.connect();
  for (const [side, after] of [
    ['request', 40],
    ['request', 300],
    ['answer', 0],
    ['answer', 3],
    ['answer', 17],
  ] as const) {
    await client.value('SELECT 1');
    const id = ++lastId;
    proxy.arm({ kind: 'cut', side, after });
    client.wire.send(
      { query: 'COPY written FROM STDIN' },
      { copyData: `${id}\n` },
      { copyData: '7\n'.repeat(300) },
      'copyDone',
    );
    const ending = endingOf(await client.wire.wait(1, 3_000));
    proxy.disarm();
    t.equal(ending.outcome, 'error', `${side} cut at ${after}`);
    await agrees(t, `COPY, ${side} cut at ${after}`, ending, id);
    client = await goesOn(t, live, client, ending);
  }
  await client.end();
});

t.test('nonsense in the middle of a session costs that statement and that connection only', async (t) => {
  const { live, proxy } = await behindProxy(t);
  const row = frame('D', int16(1), int32(1), Buffer.from('1'));
  const ready = frame('Z', Buffer.from('I'));
  const complete = frame('C', cstring('SELECT 1'));
  const head = (tag: string, length: number) => Buffer.concat([Buffer.from(tag), int32(length)]);
  const cases: readonly [name: string, bytes: Buffer][] = [
    ['an unknown type', Buffer.from([0xff, 0, 0, 0, 4])],
    ['type 0', Buffer.alloc(5)],
    ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ...[0, 3, -1, -(2 ** 31)].map((length): [string, Buffer] => [`a length of ${length}`, head('C', length)]),
    ['an error of 2 GB', head('E', 2 ** 31 - 1)],
    ['a description of 65 MB', head('T', 65 * 2 ** 20)],
    ['an answer to another question', frame('2')],
    ['ParseComplete to a simple query', frame('1')],
    ['a row of nobody', Buffer.concat([ready, row])],
    ['a second ReadyForQuery', Buffer.concat([complete, ready, ready])],
    ['a ReadyForQuery without a status', frame('Z')],
    ['a ReadyForQuery of an unknown status', frame('Z', Buffer.from('X'))],
    ['a ReadyForQuery with more behind', frame('Z', Buffer.from('II'))],
    ['an authentication request', frame('R', int32(0))],
    ['a cancel key', frame('K', int32(1), int32(2))],
    ['NegotiateProtocolVersion', frame('v', int32(0), int32(0))],
    ['a ParameterStatus without an end', frame('S', Buffer.from('TimeZone'))],
    ['a ParameterStatus of one text', frame('S', cstring('TimeZone'))],
    [
      'an ERROR that nobody asked for',
      Buffer.concat([complete, ready, frame('E', cstring('SERROR'), Buffer.alloc(1))]),
    ],
  ];
  let client = await live.connect();
  for (const [name, bytes] of cases) {
    await client.value('SELECT 1');
    const connections = proxy.connections;
    const ending = await struckBy(proxy, { kind: 'say', after: 0, bytes }, () => ask(client, [{ query: 'SELECT 1' }]));
    t.match(ending, { outcome: /done|error/, code: /^(08006)?$/, status: 'I' }, name);
    client = await goesOn(t, live, client, ending);
    t.equal(proxy.connections, connections + 1, `${name}: the connection was replaced`);
  }
  // A type byte that Postgres uses, the length of a message of 2 GB: rows are passed on as they come, so the client has
  // it in part and cannot be told more.
  const ending = await struckBy(
    proxy,
    { kind: 'say', after: 0, bytes: Buffer.concat([head('D', 0x7fffffff), Buffer.alloc(9)]) },
    async () => {
      client.wire.send({ query: 'SELECT 1' });
      await sleep(50);
      for (const connection of live.router.pool.connections()) connection.destroy('the test cuts it');
      return endingOf(await client.wire.wait('closed', 3_000));
    },
  );
  t.equal(ending.status, '');
  client.wire.destroy();
});

t.test("a FATAL error is passed on in the server's words, and ends the session as it does there", async (t) => {
  const { live, proxy } = await behindProxy(t);
  const client = await live.connect();
  await client.value('SELECT 1');
  const bytes = frame(
    'E',
    cstring('SFATAL'),
    cstring('VFATAL'),
    cstring('C57P01'),
    cstring('Mgoing away'),
    Buffer.alloc(1),
  );
  const ending = await struckBy(proxy, { kind: 'say', after: 0, bytes }, () => ask(client, [{ query: 'SELECT 1' }]));
  t.same(ending, { outcome: 'error', code: '57P01', status: '' });
  client.wire.destroy();
});

t.test('a server that stalls holds its client only; when that goes, the place is free', async (t) => {
  const { live, proxy } = await behindProxy(t, { pool: { sizeMax: 2, waitTimeoutMs: 600 } });
  const [a, b] = [await live.connect(), await live.connect()];
  await a.run('BEGIN', 'SELECT 1');
  await b.value('SELECT 1');
  proxy.arm({ kind: 'stall', side: 'answer', after: 3 });
  b.wire.send({ query: 'SELECT 1' });
  await eventually(t, 'the fault strikes', () => proxy.struck);
  proxy.disarm();
  const c = await live.connect();
  t.equal(await c.fails('SELECT 1'), '53300', 'both places are taken');
  // After a FIN, which may be half a close, the answer would be awaited, as by Postgres.
  reset(b.wire.socket as Socket);
  t.equal(await c.value('SELECT 1'), '1', 'now one is free');
  t.equal(await a.value('SELECT 1'), '1', 'the transaction was not touched');
  await a.run('COMMIT');
  await Promise.all([a.end(), c.end()]);
});

t.test('answers that come byte by byte are the same answers', async (t) => {
  const { live, proxy } = await behindProxy(t);
  const statements = [
    `SET DateStyle = 'German'; SET app.name = 'x''\\\\y'`,
    'SELECT g, repeat(chr(64 + g), 40), NULL FROM generate_series(1, 20) g',
    `SELECT set_config('work_mem', '5MB', false)`,
    `SELECT date '2026-01-02', current_setting('app.name')`,
    'SELECT 1/0',
    "DO $$ BEGIN RAISE NOTICE 'noted'; END $$",
    'SELECT 1; SELECT 2; SELECT no_such_column',
    "COPY (SELECT 1, 'two') TO STDOUT",
    'BEGIN; SELECT 1',
    'ROLLBACK',
    'SHOW work_mem',
  ];
  const batch: readonly FrontendMessage[] = [
    ...extended('SELECT $1::int4 + 1', ['41']),
    ...extended('SELECT $1::int4 + 1', ['1']),
  ];
  const answers = async (client: SqlClient) => {
    const messages = [
      ...(await client.answers(...statements)),
      ...(await client.send(batch)),
      ...(await client.send(batch)),
    ];
    return messages.filter(({ type }) => type !== 'ParameterStatus');
  };
  const plain = await SqlClient.connect(server, LOGIN);
  const expected = await answers(plain);
  await plain.end();
  for (const bytes of [1, 7]) {
    proxy.arm({ kind: 'drip', bytes });
    // Two sessions in turn on one connection: settings are carried over and asked for, too.
    const [a, b] = [await live.connect(), await live.connect()];
    t.strictSame(await answers(a), expected);
    t.strictSame(await answers(b), expected);
    t.equal(await a.value('SHOW DateStyle'), 'German, DMY');
    await Promise.all([a.end(), b.end()]);
    proxy.disarm();
  }
});

t.test('a server that fails during the login', async (t) => {
  const { live, proxy } = await behindProxy(t);
  const say =
    (...bytes: readonly Buffer[]): Script =>
    (socket) =>
      void socket.write(Buffer.concat(bytes));
  const asks = (method: number, data: Buffer = Buffer.alloc(0)) => frame('R', int32(method), data);
  const okay = asks(0);
  const fatal = frame(
    'E',
    cstring('SFATAL'),
    cstring('VFATAL'),
    cstring('C57P03'),
    cstring('Mstarting up'),
    Buffer.alloc(1),
  );
  const cases: readonly [name: string, script: Script, code: string][] = [
    ['closes at once', (socket) => void socket.end(), '08006'],
    ['resets', (socket) => void socket.resetAndDestroy(), '08006'],
    ['says nothing', () => undefined, '08006'],
    ['lets pgkv in and says nothing more', say(okay), '08006'],
    ['half a message', say(Buffer.from('5200000008', 'hex')), '08006'],
    ['refuses', say(fatal), '57P03'],
    ['refuses and closes', (socket) => void socket.end(fatal), '57P03'],
    ['refuses behind AuthenticationOk', say(okay, fatal), '57P03'],
    ['asks for a password', say(asks(3)), '08006'],
    ['asks for an MD5 password', say(asks(5, int32(1))), '08006'],
    ['asks for Kerberos', say(asks(7)), '08006'],
    ['asks for what nobody knows', say(asks(99)), '08006'],
    ['asks for SASL without a mechanism', say(asks(10, Buffer.alloc(1))), '08006'],
    ['asks for SCRAM', say(asks(10, Buffer.concat([cstring('SCRAM-SHA-256'), Buffer.alloc(1)]))), '08006'],
    ['goes on with a SASL exchange that never began', say(asks(11, Buffer.from('r=x'))), '08006'],
    ['ends a SASL exchange that never began', say(asks(12, Buffer.from('v=x'))), '08006'],
    ['is ready before it has let pgkv in', say(frame('K', int32(1), int32(2)), frame('Z', Buffer.from('I'))), '08006'],
    ['an authentication request without a number', say(frame('R')), '08006'],
    ['a cancel key without a key', say(okay, frame('K')), '08006'],
    ['a ParameterStatus without an end', say(okay, frame('S', Buffer.from('TimeZone'))), '08006'],
    ['a row', say(okay, frame('D', int16(0))), '08006'],
    ['a row of 2 GB', say(okay, Buffer.concat([Buffer.from('D'), int32(0x7fffffff)])), '08006'],
    ['HTTP', say(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')), '08006'],
    ['a length of 0', say(Buffer.from('5200000000', 'hex')), '08006'],
    ['a length of 2 GB', say(Buffer.from('457fffffff', 'hex')), '08006'],
  ];
  for (const [name, script, code] of cases) {
    proxy.script = script;
    const client = await WireClient.open(live);
    const began = performance.now();
    const { messages, outcome } = await client.startUp(LOGIN);
    client.destroy();
    t.equal(outcome, 'closed', name);
    t.match(errorOf(messages)?.fields, { S: 'FATAL', C: code }, name);
    t.ok(performance.now() - began < 2_000, `${name}: in time`);
    t.equal(live.router.pool.openCount, 0, `${name}: nothing is kept`);
  }
  proxy.script = null;
  const client = await live.connect();
  t.equal(await client.value('SELECT 1'), '1', 'as soon as the server is well, so is pgkv');
  await client.end();
});

t.test('a login cut at every seventh byte of the greeting', async (t) => {
  const { live, proxy } = await behindProxy(t, { pool: { sizeMax: 1, idleTimeoutMs: 1 } });
  for (let after = 0; ; after += 7) {
    await eventually(t, 'no connection is open', () => live.router.pool.openCount === 0);
    proxy.arm({ kind: 'cut', side: 'answer', after });
    const client = await WireClient.open(live);
    const { messages, outcome } = await client.startUp(LOGIN);
    const { struck } = proxy;
    proxy.disarm();
    client.destroy();
    if (!struck) {
      t.equal(outcome, 'reached');
      t.ok(after > 300, `${after} bytes`);
      break;
    }
    // At its very last byte the login is through, and the client greeted, before the connection goes.
    if (outcome === 'closed') t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '08006' }, `cut at ${after}`);
  }
  await live.quiet();
});

t.test('what a server says right behind its greeting is heard', async (t) => {
  const { live, proxy } = await behindProxy(t);
  const status = (name: string, value: string) => frame('S', cstring(name), cstring(value));
  const greeting = [
    frame('R', int32(0)),
    ...Object.entries({
      server_version: '15.0',
      client_encoding: 'UTF8',
      standard_conforming_strings: 'on',
      TimeZone: 'UTC',
    }).map(([name, value]) => status(name, value)),
    frame('K', int32(1), int32(2)),
    frame('Z', Buffer.from('I')),
  ];
  const told = status('TimeZone', 'Europe/Berlin');
  const answer = Buffer.concat([frame('C', cstring('SET')), frame('Z', Buffer.from('I'))]);
  const sockets: Socket[] = [];
  proxy.script = (socket, chunk) => {
    if (sockets.includes(socket)) {
      // The second half of the message that the greeting's packet ended with, then the answer.
      if (chunk[0] === 0x51) socket.write(answer);
      return;
    }
    sockets.push(socket);
    socket.write(Buffer.concat([...greeting, told.subarray(0, 9)]));
    setTimeout(() => socket.write(told.subarray(9)), 30);
  };
  const client = await live.connect();
  await sleep(60);
  t.same(await client.run('SELECT 1'), ['SET'], 'the stream is read on where it was left');
  t.equal(client.told('TimeZone'), 'Europe/Berlin');
  t.equal(sockets.length, 1);
  await client.end();
  proxy.script = null;
});

t.test('TLS that is not given as asked for', async (t) => {
  const cases: readonly [name: string, answer: Buffer][] = [
    ['nothing', Buffer.alloc(0)],
    ['S and silence', Buffer.from('S')],
    ['bytes behind the answer', Buffer.from('N!')],
    ['another letter', Buffer.from('X')],
    ['an error instead of an answer', Buffer.from('E')],
  ];
  for (const tls of ['prefer', 'require'] as const) {
    const { live, proxy } = await behindProxy(t, { servers: { tls, connectTimeoutMs: 300 } });
    for (const [name, answer] of cases) {
      proxy.sslAnswer = answer;
      const client = await WireClient.open(live);
      const { messages, outcome } = await client.startUp(LOGIN);
      client.destroy();
      t.equal(outcome, 'closed');
      t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '08006' }, `${tls}: ${name}`);
    }
    await proxy.down();
  }
});
