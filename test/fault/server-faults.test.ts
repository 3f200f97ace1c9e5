// Servers that go away at every byte of a conversation: the client always gets a definite answer, what it says is true,
// and the session, or the next one, goes on.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { eventually } from '../support/bystander.js';
import { ask, batch, type Ending, endingOf, FaultBench, struckBy } from '../support/fault-bench.js';
import type { Fault, FaultProxy } from '../support/fault-proxy.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { SqlClient } from '../support/sql-client.js';

const bench = await FaultBench.start(t);

interface Scenario {
  readonly name: string;
  readonly messages: (id: number) => readonly FrontendMessage[];
  readonly writes: boolean;
  /** Repeated with the same text, which pgkv then prepares under a name of its own. */
  readonly warmUp?: boolean;
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'a simple read', messages: (id) => [{ query: `SELECT ${id}, 'some text'` }], writes: false },
  { name: 'a simple write', messages: (id) => [{ query: `INSERT INTO written VALUES (${id})` }], writes: true },
  {
    name: 'a batch, first time',
    messages: (id) => batch(`INSERT INTO written VALUES ($1) /* ${id} */`, [String(id)], [23]),
    writes: true,
  },
  {
    name: 'a batch, prepared',
    messages: (id) => batch('INSERT INTO written VALUES ($1) RETURNING id', [String(id)], [23]),
    writes: true,
    warmUp: true,
  },
  {
    name: 'a read, prepared',
    messages: (id) => batch('SELECT $1::text', [String(id)]),
    writes: false,
    warmUp: true,
  },
];

/** Of ReadyForQuery: with the tag before it, all is said. */
const READY_BYTES = 6;
/** Every second byte unless it is long, but for the end: loss.test.ts has other places of far more statements. */
const STEP = process.env['PGKV_LONG'] === '1' ? 1 : 2;

/** How many bytes of that side one run of a scenario has, measured on the proxy. */
async function bytesOf(
  live: LiveRouter,
  proxy: FaultProxy,
  side: 'request' | 'answer',
  scenario: Scenario,
): Promise<number> {
  const client = await bench.connect(live);
  if (scenario.warmUp) for (let run = 0; run < 3; run++) await ask(client, scenario.messages(bench.nextId()));
  else await client.value('SELECT 1');
  proxy.arm({ kind: 'stall', side, after: Number.MAX_SAFE_INTEGER });
  await ask(client, scenario.messages(bench.nextId()));
  const bytes = proxy.passed;
  proxy.disarm();
  await client.end();
  return bytes;
}

for (const side of ['answer', 'request'] as const) {
  for (const scenario of SCENARIOS) {
    t.test(`${scenario.name}: the connection is cut at every byte of the ${side}`, async (t) => {
      const { live, proxy } = await bench.behindProxy(t);
      const bytes = await bytesOf(live, proxy, side, scenario);
      t.ok(bytes > 15 && bytes < 400, `${bytes} bytes`);
      let client = await bench.connect(live);
      const seen = new Set<string>();
      for (let after = 0; after <= bytes; after += after < bytes - 2 * READY_BYTES ? STEP : 1) {
        await client.value('SELECT 1');
        if (scenario.warmUp) for (let run = 0; run < 2; run++) await ask(client, scenario.messages(bench.nextId()));
        const id = bench.nextId();
        const fault: Fault = { kind: 'cut', side, after, reset: after % 3 === 2 };
        const ending = await struckBy(proxy, fault, () => ask(client, scenario.messages(id)));
        t.ok(proxy.struck, 'the fault struck');
        seen.add(`${ending.outcome} ${ending.code}`.trim());
        if (scenario.writes) await bench.agrees(t, `cut at ${after}`, ending, id);
        else t.match(ending, { outcome: /done|error|lost/, code: /^(08006)?$/ }, `cut at ${after}`);
        if (ending.outcome === 'done') {
          t.ok(after >= bytes - READY_BYTES, 'only an answer that lacks nothing but ReadyForQuery is a success');
        }
        client = await bench.goesOn(t, live, client, ending);
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
  const { live, proxy } = await bench.behindProxy(t);
  const statements = (id: number): readonly string[] => [
    'BEGIN',
    `INSERT INTO written VALUES (${id})`,
    'SELECT 1',
    'COMMIT',
  ];
  const codes = new Set<string>();
  let client = await bench.connect(live);
  let after = 0;
  for (let unbroken = false; !unbroken; after++) {
    await client.value('SELECT 1');
    const id = bench.nextId();
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
    await bench.agrees(t, `cut at ${after}, in ${at}`, ending, id);
    if (ending.code === '40001' && ending.status === 'E') {
      t.match(await ask(client, [{ query: 'SELECT 1' }]), { code: '25P02', status: 'E' });
      t.match(await ask(client, batch('SELECT 1')), { code: '25P02', status: 'E' });
      t.match(await ask(client, [{ query: 'ROLLBACK' }]), { outcome: 'done', status: 'I' });
      ending = { ...ending, status: 'I' };
    }
    client = await bench.goesOn(t, live, client, ending);
  }
  t.ok(after > 60, `${after} places`);
  // Where a row had been passed on in part, the client's connection had to be closed.
  const expected =
    /^(BEGIN error (0800[67]|40001)|INSERT error 40001|SELECT error 40001|SELECT lost |COMMIT error (40001|08007)|COMMIT done )$/;
  t.same(
    [...codes].filter((code) => !expected.test(code)),
    [],
  );
  for (const code of ['INSERT error 40001', 'SELECT error 40001', 'COMMIT error 40001', 'COMMIT error 08007']) {
    t.ok(codes.has(code), `${code} occurred`);
  }
  await client.end();
});

t.test('a transaction that ends otherwise is cut at every byte of its answers', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  for (const kind of ['COMMIT AND CHAIN', 'PREPARE TRANSACTION', 'ROLLBACK AND CHAIN'] as const) {
    const codes = new Set<string>();
    let client = await bench.connect(live);
    for (let after = 0, unbroken = false; !unbroken; after++) {
      await client.value('SELECT 1');
      const id = bench.nextId();
      const last = kind === 'PREPARE TRANSACTION' ? `${kind} 'p${id}'` : kind;
      await client.run('BEGIN', `INSERT INTO written VALUES (${id})`);
      proxy.arm({ kind: 'cut', side: 'answer', after });
      let ending = await ask(client, [{ query: last }]);
      unbroken = !proxy.struck;
      proxy.disarm();
      codes.add(`${ending.outcome} ${ending.code}`);
      if (ending.status === 'T' || ending.status === 'E') {
        const { status } = await ask(client, [{ query: 'ROLLBACK' }]);
        ending = { ...ending, status };
      }
      const prepared = await bench.direct.value(`SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'p${id}'`);
      if (prepared === '1') await bench.direct.run(`COMMIT PREPARED 'p${id}'`);
      if (kind === 'ROLLBACK AND CHAIN') t.notOk(await bench.isThere(id), `cut at ${after}`);
      else await bench.agrees(t, `${kind} cut at ${after}`, ending, id);
      client = await bench.goesOn(t, live, client, ending);
    }
    t.ok(codes.has('done '), kind);
    const lost = kind === 'ROLLBACK AND CHAIN' ? /^(done |error (40001|08007))$/ : /^(done |error 08007)$/;
    t.same(
      [...codes].filter((code) => !lost.test(code)),
      [],
      kind,
    );
    await client.end();
  }
});

t.test('a connection that makes room for another role or database is replaced by one, not two', async (t) => {
  const live = await liveRouter(t, [bench.server], { pool: { sizeMax: 2 } });
  const clients = await Promise.all([bench.connect(live), bench.connect(live)]);
  await Promise.all(clients.map((client) => client.run('SELECT pg_sleep(0.05)')));
  t.equal(live.router.pool.idleCount, 2);
  const other = await live.connect({ database: 'postgres' });
  t.equal(await other.value('SELECT 1'), '1');
  await Promise.all(clients.map((client) => client.run('SELECT pg_sleep(0.05)')));
  t.ok(live.router.pool.openCount <= 2, `${live.router.pool.openCount} are open`);
  for (const client of [...clients, other]) await client.end();
});

t.test('what is lost between an answer and its Sync or COMMIT is not acknowledged', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  const cutNow = async () => {
    const before = live.router.pool.openCount;
    proxy.arm({ kind: 'cut', side: 'answer', after: 0 });
    await bench.direct.run(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = '${bench.login.database}'`,
    );
    await eventually(t, 'the connection is gone', () => live.router.pool.openCount < before);
    proxy.disarm();
  };
  const insert = (id: number): readonly FrontendMessage[] => [
    { parse: 'INSERT INTO written VALUES ($1)', types: [23] },
    { bind: [String(id)] },
    { execute: '' },
  ];

  const client = await bench.connect(live);
  const flushed = bench.nextId();
  await client.send([...insert(flushed), 'flush'], { type: 'CommandComplete' });
  await cutNow();
  const ending = await ask(client, ['sync']);
  t.not(ending.outcome, 'done', 'the Sync is not answered as if the batch had been committed');
  t.notOk(await bench.isThere(flushed));

  const kept = await bench.goesOn(t, live, client, ending);
  const inBlock = bench.nextId();
  await kept.run('BEGIN', `INSERT INTO written VALUES (${inBlock})`);
  await cutNow();
  t.match(await ask(kept, [{ query: 'COMMIT' }]), { outcome: 'error', code: '40001', status: 'I' });
  t.notOk(await bench.isThere(inBlock));
  t.equal(await kept.value('SELECT 1'), '1');

  const last = bench.nextId();
  await kept.run('BEGIN', `INSERT INTO written VALUES (${last})`);
  await cutNow();
  t.match(await ask(kept, batch('SELECT 1')), { code: '40001', status: 'E' });
  t.match(await ask(kept, [{ functionCall: 1, args: [] }]), { code: '25P02', status: 'E' });
  t.match(
    await ask(kept, [{ query: 'ROLLBACK AND CHAIN' }]),
    { outcome: 'done', status: 'T' },
    'a server that has the block as a failed one ends it and begins another',
  );
  t.match(await ask(kept, batch('ROLLBACK')), { outcome: 'done', status: 'I' });
  t.notOk(await bench.isThere(last));
  await kept.end();
});

t.test('pipelines: each statement gets its answer, and a write behind a ROLLBACK is never called safe', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  let client = await bench.connect(live);
  for (let after = 0; after < 120; after += 3) {
    const [a, b, c] = [bench.nextId(), bench.nextId(), bench.nextId()];
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
      if (ending !== undefined) await bench.agrees(t, `pipeline cut at ${after}, write ${index}`, ending, id);
    }
    t.notOk(await bench.isThere(a), 'the transaction was not committed');
    const end = endings.at(-1)!;
    if (end.status === 'E') t.match(await ask(client, [{ query: 'ROLLBACK' }]), { status: 'I' });
    client = await bench.goesOn(t, live, client, end.status === 'E' ? { ...end, status: 'I' } : end);
  }
  await client.end();
});

t.test('a COPY whose server goes away is reported, and not applied in part', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  let client = await bench.connect(live);
  for (const [side, after] of [
    ['request', 40],
    ['request', 300],
    ['answer', 0],
    ['answer', 3],
    ['answer', 17],
  ] as const) {
    await client.value('SELECT 1');
    const id = bench.nextId();
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
    await bench.agrees(t, `COPY, ${side} cut at ${after}`, ending, id);
    client = await bench.goesOn(t, live, client, ending);
  }
  await client.end();
});

t.test('answers that come byte by byte are the same answers', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
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
  const twoBatches: readonly FrontendMessage[] = [
    ...batch('SELECT $1::int4 + 1', ['41']),
    ...batch('SELECT $1::int4 + 1', ['1']),
  ];
  const answers = async (client: SqlClient) => {
    const messages = [
      ...(await client.answers(...statements)),
      ...(await client.send(twoBatches)),
      ...(await client.send(twoBatches)),
    ];
    return messages.filter(({ type }) => type !== 'ParameterStatus');
  };
  const plain = await SqlClient.connect(bench.server, bench.login);
  const expected = await answers(plain);
  await plain.end();
  for (const bytes of [1, 7]) {
    proxy.arm({ kind: 'drip', bytes });
    // Two sessions in turn on one connection: settings are carried over and asked for, too.
    const [a, b] = [await bench.connect(live), await bench.connect(live)];
    t.strictSame(await answers(a), expected);
    t.strictSame(await answers(b), expected);
    t.equal(await a.value('SHOW DateStyle'), 'German, DMY');
    await Promise.all([a.end(), b.end()]);
    proxy.disarm();
  }
});
