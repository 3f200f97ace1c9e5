// Faults around merged statements (D11): one member's cancel, lock or vanishing is nobody else's; whatever byte the server
// is lost at, each member is told the truth about its own write, which was applied at most once.
import type { Socket } from 'node:net';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { eventually, reset } from '../support/bystander.js';
import type { Fault, FaultProxy } from '../support/fault-proxy.js';
import { DATABASE, faultyShard } from '../support/faulty-shard.js';
import { cstring, encodeCancel, frame, int16, int32 } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter, type RouterOverrides } from '../support/live-router.js';
import { stretched } from '../support/machine-speed.js';
import {
  batchBytes,
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
import { WireClient } from '../support/wire-client.js';

const LONG = process.env['PGKV_LONG'] === '1';
const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const MEMBERS = 64;

const { server, catalog, routerBehindProxy } = await faultyShard(t);

const direct = await directClient(server, DATABASE);
/** For locks. */
const holder = await directClient(server, DATABASE);
t.teardown(() => {
  for (const client of [direct, holder]) client.sql.wire.destroy();
});

const onServer = (sql: string) => direct.run(sql);

const INCR = 'SELECT kv_incr($1, $2)';
const GET = 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2';
const SET = `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`;
const incr = (i: number): Buffer => batchBytes(INCR, ['t', `c${i}`]);

/** Counters by key. */
async function counts(): Promise<Map<string, number>> {
  const rows = await onServer(`select key, value::text from kv where tenant_id = 't'`);
  return new Map(rows.map(([key, value]) => [key!, Number(value)]));
}

const router = (t: Test, overrides: RouterOverrides = {}): Promise<LiveRouter> =>
  liveRouter(t, [server], overrides, { catalog });
const clientsOf = (live: LiveRouter, count: number): Promise<TickClient[]> =>
  tickClients(live, count, { database: DATABASE });

async function cancel(live: LiveRouter, client: TickClient): Promise<void> {
  const data = client.sql.wire.received.find(({ type }) => type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const wire = await WireClient.open(live);
  wire.sendBytes(encodeCancel(data.pid, data.key));
  await wire.wait('closed');
  wire.destroy();
}

// ---------------------------------------------------------------- cancels

t.test('a member that is cancelled before it was sent is not run, the others are', async (t) => {
  await onServer('truncate kv');
  const live = await router(t, { pool: { sizeMax: 1 } });
  const clients = await clientsOf(live, 8);
  await untilMerged(t, live, clients, incr);
  const before = await counts();
  const { counters } = live.router;
  const { mergedReruns } = counters;
  const [owner] = await clientsOf(live, 1);
  await owner!.ask(queryBytes('BEGIN; SELECT 1'));
  for (const [i, client] of clients.entries()) client.send(incr(i));
  await sleep(20);
  await cancel(live, clients[3]!);
  const began = performance.now();
  t.equal(told(await clients[3]!.answer()).code, '57014');
  const waited = performance.now() - began;
  t.ok(waited < (await stretched(1_000)), 'it is told at once');
  // The same session goes on: what it sends now is not what was cancelled.
  clients[3]!.send(incr(100));
  await sleep(20);
  await owner!.ask(queryBytes('COMMIT'));
  const answers = await Promise.all(clients.map((client) => client.answer()));
  t.same(answers.map((answer) => told(answer).code).join(''), '');
  const after = await counts();
  for (const [i] of clients.entries()) t.equal(after.get(`c${i}`), before.get(`c${i}`)! + (i === 3 ? 0 : 1), `c${i}`);
  t.equal(after.get('c100'), 1);
  await live.quiet().catch(() => undefined);
  t.equal(counters.mergedReruns, mergedReruns, 'nothing was sent twice');
});

t.test(
  'a member that is cancelled while its batch waits for a lock gets 57014, the others their results',
  async (t) => {
    await onServer('truncate kv');
    const live = await router(t);
    const clients = await clientsOf(live, 12);
    await untilMerged(t, live, clients, incr);
    const before = await counts();
    await holder.run('begin; lock table kv in exclusive mode');
    const logged = server.log().length;
    for (const [i, client] of clients.entries()) client.send(incr(i));
    await sleep(20);
    await cancel(live, clients[0]!);
    await sleep(150);
    t.notMatch(server.log().slice(logged), 'due to user request', 'what others wait for is not cancelled');
    // By now the batch has failed by lock_timeout, and its members wait by themselves.
    await cancel(live, clients[1]!);
    const codes = await Promise.all(clients.slice(0, 2).map(async (client) => told(await client.answer()).code));
    await holder.run('commit');
    t.same(codes, ['57014', '57014']);
    const answers = await Promise.all(clients.slice(2).map((client) => client.answer()));
    t.same(answers.map((answer) => told(answer).code).join(''), '');
    const after = await counts();
    for (const [i] of clients.entries()) t.equal(after.get(`c${i}`), before.get(`c${i}`)! + (i < 2 ? 0 : 1), `c${i}`);
  },
);

t.test('cancels at any moment: only who is cancelled is, and it is told the truth', async (t) => {
  await onServer('truncate kv');
  const live = await router(t);
  const clients = await clientsOf(live, 32);
  await untilMerged(t, live, clients, incr);
  const random = seeded(SEED);
  let cancelled = 0;
  for (let round = 0; round < (LONG ? 400 : 40); round++) {
    const before = await counts();
    const victims = new Set(Array.from({ length: 4 }, () => Math.floor(random() * clients.length)));
    for (const [i, client] of clients.entries()) client.send(incr(i));
    if (random() < 0.5) await turn();
    const cancels = [...victims].map((i) => cancel(live, clients[i]!));
    const codes = (await Promise.all(clients.map((client) => client.answer()))).map((answer) => told(answer).code);
    await Promise.all(cancels);
    const after = await counts();
    for (const [i, code] of codes.entries()) {
      if (code !== '' && !(code === '57014' && victims.has(i))) t.fail(`c${i}: ${code}, seed ${SEED}`);
      if (code === '57014') cancelled++;
      const applied = after.get(`c${i}`)! - (before.get(`c${i}`) ?? 0);
      if (applied !== (code === '' ? 1 : 0)) t.fail(`c${i}: told "${code}", applied ${applied} times, seed ${SEED}`);
    }
  }
  t.comment(`${cancelled} were cancelled`);
});

// ---------------------------------------------------------------- clients that vanish

t.test('clients that vanish at any byte harm no other, and leave nothing', async (t) => {
  await onServer('truncate kv');
  const live = await router(t);
  const stable = await clientsOf(live, 24);
  await untilMerged(t, live, stable, incr);
  const random = seeded(SEED);
  for (let round = 0; round < (LONG ? 200 : 20); round++) {
    const before = await counts();
    const vanishing = await clientsOf(live, 12);
    const all = [...stable, ...vanishing].map((client, i) => ({ client, i, at: random() })).sort((a, b) => a.at - b.at);
    for (const { client, i } of all) {
      const bytes = incr(i);
      client.send(i < stable.length ? bytes : bytes.subarray(0, 1 + Math.floor(random() * bytes.length)));
    }
    if (random() < 0.7) await turn();
    for (const client of vanishing) {
      if (random() < 0.5) reset(client.sql.wire.socket as Socket);
      else client.sql.wire.destroy();
    }
    const answers = await Promise.all(stable.map((client) => client.answer()));
    const after = await counts();
    for (const [i, answer] of answers.entries()) {
      const { rows, code } = told(answer);
      const count = after.get(`c${i}`)!;
      if (code !== '' || rows[0]?.[0] !== String(count) || count !== (before.get(`c${i}`) ?? 0) + 1) {
        t.fail(`c${i}: ${code} ${rows}, count ${count}, seed ${SEED}`);
      }
    }
  }
  for (const client of stable) client.sql.wire.destroy();
  await live.quiet();
});

// ---------------------------------------------------------------- locks

t.test('an idle transaction that holds one key holds up writes of that key only', async (t) => {
  await onServer(`truncate kv; insert into kv (tenant_id, key, value) values ('t', 'held', '0')`);
  const live = await router(t);
  const clients = await clientsOf(live, 32);
  await untilMerged(t, live, clients, incr);
  /** Milliseconds of each statement of all clients. */
  const load = async (forMs: number): Promise<number[]> => {
    const times: number[] = [];
    const end = performance.now() + forMs;
    await Promise.all(
      clients.map(async (client, i) => {
        while (performance.now() < end) {
          const began = performance.now();
          const { code } = told(await client.ask(incr(i)));
          if (code !== '') throw new Error(`a stranger was told ${code}`);
          times.push(performance.now() - began);
        }
      }),
    );
    return times.sort((a, b) => a - b);
  };
  const p99 = (times: readonly number[]): number => times[Math.floor(times.length * 0.99)]!;
  const median = (times: readonly number[]): number => times[times.length >> 1]!;
  const calm = await load(800);
  await holder.run(`begin; update kv set value = '1' where key = 'held'`);
  const held = await clientsOf(live, 4);
  const impatient = (await clientsOf(live, 1))[0]!;
  await impatient.ask(queryBytes(`SET lock_timeout = '60ms'`));
  const before = grants(live);
  // In one batch with strangers', which is given up for its sake.
  held[0]!.send(batchBytes(INCR, ['t', 'held']));
  const began = performance.now();
  const first = await together(clients, incr);
  t.same([...new Set(first.map((answer) => told(answer).code))], ['']);
  const waited = performance.now() - began;
  t.ok(waited < (await stretched(1_000)), 'its own batch is not held up for long');
  const working = load(1500);
  // More writers of that key come one after the other: they wait in line, and hold up no further batch.
  const joining = (async () => {
    for (const client of held.slice(1)) {
      await sleep(300);
      client.send(batchBytes(INCR, ['t', 'held']));
    }
  })();
  t.equal(
    told(await impatient.ask(batchBytes(INCR, ['t', 'held']))).code,
    '55P03',
    'who set lock_timeout is told of it',
  );
  const stalled = await working;
  await joining;
  const statements = grants(live) - before;
  t.comment(
    `p99 ${p99(calm).toFixed(1)} ms, with a lock held ${p99(stalled).toFixed(1)} ms, at most ${stalled.at(-1)!.toFixed(0)} ms`,
  );
  t.ok(statements < stalled.length / 3, `${stalled.length} writes of strangers by ${statements} statements`);
  // The median: what else the machine does meanwhile decides the slowest.
  t.ok(median(stalled) <= 2 * median(calm) + (await stretched(30)), 'strangers go on as before');
  // Nor does any of them wait for the lock: that is still held here.
  t.ok(stalled.length > calm.length / 2);
  // lock_timeout of merged connections is 100 ms: a batch that met the lock shows.
  const lateIn = (times: readonly number[]): number => times.filter((time) => time >= 100).length;
  await holder.run('commit');
  const answers = await Promise.all(held.map((client) => client.answer()));
  t.same(
    answers.map((answer) => told(answer).rows[0]?.[0]).sort(),
    ['2', '3', '4', '5'],
    'those who waited have written',
  );
  // On a busy machine as many are late without a lock, in proportion, be it before or behind.
  const after = await load(800);
  const rate = Math.max(...[calm, after].map((times) => lateIn(times) / times.length));
  const [late, lateAnyway] = [lateIn(stalled), Math.ceil(2 * rate * stalled.length)];
  t.ok(
    late <= clients.length + lateAnyway,
    `${late} writes of strangers waited for 100 ms, ${lateAnyway} would anyway`,
  );
});

/** Has what is sent meanwhile meet a lock on `key`, and lets go of it. */
async function whileLocked(key: string, send: () => void): Promise<void> {
  await holder.run(`begin; update kv set value = '1' where key = '${key}'`);
  send();
  await sleep(200);
  await holder.run('commit');
}

/** Fails where the answer does not come soon: nothing is locked any more. */
async function soon(t: Test, client: TickClient, bytes: Buffer, what: string): Promise<void> {
  const late = sleep(3_000).then(() => null);
  const answer = await Promise.race([client.ask(bytes), late]);
  t.equal(answer === null ? 'nothing came' : told(answer).code, '', what);
}

t.test('a key that met a lock is free again, whatever its writer goes on with', async (t) => {
  await onServer(`truncate kv; insert into kv (tenant_id, key, value)
    select 't', k, '0' from unnest(array['kept', 'next', 'begun', 'other']) k`);
  const live = await router(t);
  const clients = await clientsOf(live, 16);
  await untilMerged(t, live, clients, incr);
  const [writer, stranger] = clients as [TickClient, TickClient];
  const write = (key: string): Buffer => batchBytes(INCR, ['t', key]);

  // Its connection stays with it from here on. Behind DDL the statement is learnt anew.
  await writer.ask(queryBytes('create temp table mine (a int)'));
  await untilMerged(t, live, clients, incr);
  await whileLocked('kept', () => writer.send(write('kept')));
  t.equal(told(await writer.answer()).code, '');
  await soon(t, stranger, write('kept'), 'behind a session that keeps its connection');
  await soon(t, writer, write('kept'), 'and by that one itself');
  await soon(t, writer, write('next'), 'which then writes another');
  writer.sql.wire.destroy();
  await soon(t, stranger, write('kept'), 'and leaves');

  const [, , beginner] = clients as [TickClient, TickClient, TickClient];
  const query = (key: string): Buffer => queryBytes(`SELECT kv_incr('t', '${key}')`);
  await untilMerged(t, live, clients.slice(2), (index) => query(`c${index}`));
  await whileLocked('begun', () => beginner.send(Buffer.concat([query('begun'), queryBytes('begin'), query('other')])));
  t.equal(told(await beginner.answer(3)).code, '');
  await soon(t, stranger, query('begun'), 'behind a session that is in a transaction');
  t.equal(told(await beginner.ask(queryBytes('commit'))).code, '');
});

t.test('drain waits for merged statements that are under way', async (t) => {
  await onServer(`truncate kv; insert into kv (tenant_id, key, value) values ('t', 'slow', '0')`);
  const live = await router(t);
  const clients = await clientsOf(live, 8);
  await untilMerged(t, live, clients, incr);
  await holder.run(`begin; update kv set value = '1' where key = 'slow'`);
  const [client] = clients as [TickClient];
  client.send(batchBytes(INCR, ['t', 'slow']));
  await sleep(40);
  const drained = live.router.drain();
  await sleep(30);
  await holder.run('commit');
  t.same(told(await client.answer()).rows, [['2']]);
  await drained;
});

// ---------------------------------------------------------------- a server that is lost

interface Struck {
  readonly live: LiveRouter;
  readonly proxy: FaultProxy;
  readonly clients: TickClient[];
}

async function behindProxy(t: Test, count = MEMBERS, sizeMax = 1): Promise<Struck> {
  const overrides = { pool: { sizeMax }, servers: { connectTimeoutMs: 2_000 } };
  const { live, proxy } = await routerBehindProxy(t, overrides);
  return { live, proxy, clients: await clientsOf(live, count) };
}

/** Sends one batch into the fault, which strikes once: what is run again behind it is not struck. */
async function into(proxy: FaultProxy, fault: Fault, ask: () => Promise<Buffer[]>): Promise<Buffer[]> {
  proxy.arm(fault);
  let asked = true;
  const disarm = async (): Promise<void> => {
    while (asked && !proxy.struck) await turn();
    proxy.disarm();
  };
  const disarmed = disarm();
  const answers = await ask();
  asked = false;
  await disarmed;
  return answers;
}

/** Bytes of one batch, once its statement is prepared. */
async function bytesOf({ proxy }: Struck, side: 'request' | 'answer', ask: () => Promise<Buffer[]>): Promise<number> {
  proxy.arm({ kind: 'stall', side, after: Number.MAX_SAFE_INTEGER });
  await ask();
  const { passed } = proxy;
  proxy.disarm();
  return passed;
}

/** Nothing of it runs on the server any more. */
async function atRest(t: Test): Promise<void> {
  await eventually(t, 'the server is at rest', async () => {
    const rows = await onServer(
      `select 1 from pg_stat_activity where state <> 'idle' and pid <> pg_backend_pid() and datname = '${DATABASE}' and backend_type = 'client backend'`,
    );
    return rows.length === 0;
  });
}

for (const side of ['answer', 'request'] as const) {
  t.test(`the connection is cut at bytes of the ${side} of a batch of ${MEMBERS} writes`, async (t) => {
    await onServer('truncate kv');
    const struck = await behindProxy(t);
    const { live, proxy, clients } = struck;
    const ask = () => together(clients, incr);
    await untilMerged(t, live, clients, incr);
    const bytes = await bytesOf(struck, side, ask);
    const stride = LONG ? 1 : Math.ceil(bytes / 40);
    const random = seeded(SEED);
    const seen = new Map<string, number>();
    let expected = await counts();
    let elsewhere = 0;
    for (let after = LONG ? 0 : Math.floor(random() * stride); after <= bytes; after += stride) {
      // The connection is there and knows the statement; where a batch is in doubt the next one begins anew.
      await ask();
      const before = await counts();
      const answers = (await into(proxy, { kind: 'cut', side, after, reset: random() < 0.3 }, ask)).map(told);
      await atRest(t);
      expected = await counts();
      // Health, heartbeat and recovery have connections of their own: what cut one of those has cut no batch.
      const missed = side === 'answer' && after < bytes && answers.every(({ code }) => code === '');
      for (const [i, { code, rows }] of answers.entries()) {
        const applied = expected.get(`c${i}`)! - before.get(`c${i}`)!;
        seen.set(code, (seen.get(code) ?? 0) + 1);
        const isTrue =
          code === ''
            ? applied === 1 && rows[0]?.[0] === String(expected.get(`c${i}`))
            : code === '08007'
              ? applied <= 1
              : applied === 0;
        if (!isTrue)
          t.fail(
            `cut at ${after} of ${bytes}: c${i} was told "${code}" ${rows}, applied ${applied} times, seed ${SEED}`,
          );
        if (!['', '08006', '08007'].includes(code)) t.fail(`cut at ${after}: ${code}`);
        if (code === '' && side === 'answer' && after < bytes && !missed)
          t.fail(`cut at ${after} of ${bytes}: a success`);
      }
      if (!missed) continue;
      after -= stride;
      if (++elsewhere > 20) {
        t.fail(`cut at ${after} of ${bytes}: no batch is struck`);
        break;
      }
    }
    t.ok(seen.get('08007')! > MEMBERS, `${bytes} bytes, ${JSON.stringify([...seen])}`);
  });
}

t.test('a batch of reads whose connection is cut is read again: no client sees it', async (t) => {
  await onServer(
    `truncate kv; insert into kv (tenant_id, key, value) select 't', 'c' || g, to_jsonb(g) from generate_series(0, 63) g`,
  );
  const struck = await behindProxy(t);
  const { live, proxy, clients } = struck;
  const question = (i: number) => batchBytes(GET, ['t', `c${i}`]);
  const ask = () => together(clients, question);
  await untilMerged(t, live, clients, question);
  const bytes = await bytesOf(struck, 'answer', ask);
  for (let after = 0; after < bytes; after += Math.ceil(bytes / 8)) {
    await ask();
    const answers = (await into(proxy, { kind: 'cut', side: 'answer', after }, ask)).map(told);
    t.same(
      answers.map(({ rows, code }) => rows[0]?.[0] ?? code),
      clients.map((_, i) => String(i)),
      `cut at ${after}`,
    );
  }
});

const READY = frame('Z', Buffer.from('I'));
const warning = (code: string, routine = 'SyncRepWaitForLSN'): Buffer =>
  frame(
    'N',
    cstring('SWARNING'),
    cstring('VWARNING'),
    cstring(`C${code}`),
    cstring('Mcanceling wait for synchronous replication due to user request'),
    cstring(`R${routine}`),
    Buffer.alloc(1),
  );

for (const members of [MEMBERS, 1]) {
  t.test(
    `nothing is acknowledged before ReadyForQuery, nor behind the warning of a commit that is not safe: ${members}`,
    async (t) => {
      await onServer('truncate kv');
      const struck = await behindProxy(t, members);
      const { live, proxy, clients } = struck;
      // The answer is as long for every value.
      const write = (i: number) => batchBytes(SET, ['t', `c${i}`, '1']);
      const ask = () => together(clients, write);
      for (let i = 0; i < 12; i++) await ask();
      await untilMerged(t, live, clients, write);
      const bytes = await bytesOf(struck, 'answer', ask);
      const before = grants(live);
      const { counters } = live.router;
      let again = 0;
      const codesOf = async (fault: Fault): Promise<string[]> => {
        for (let attempt = 1; ; attempt++) {
          await ask();
          const batches = counters.mergedBatches;
          const answers = await into(proxy, fault, ask);
          await sleep(5);
          const codes = [...new Set(answers.map((answer) => told(answer).code))];
          // On a slow machine they may not all have come in one turn, and the fault may have met a connection of the health checks.
          const isStruck = counters.mergedBatches - batches === 1 && (fault.kind === 'say' || codes.join() !== '');
          if (isStruck || attempt === 10) return codes;
          again++;
        }
      };
      const behindCommand = bytes - READY.length;
      t.same(
        await codesOf({ kind: 'cut', side: 'answer', after: behindCommand }),
        ['08007'],
        'ReadyForQuery is missing',
      );
      t.same(await codesOf({ kind: 'cut', side: 'answer', after: bytes - 1 }), ['08007'], 'its last byte is missing');
      t.same(
        await codesOf({ kind: 'say', after: behindCommand, bytes: Buffer.concat([warning('01000'), READY]) }),
        ['08007'],
        'the warning',
      );
      t.same(
        await codesOf({ kind: 'say', after: behindCommand, bytes: Buffer.concat([warning('00000'), READY]) }),
        [''],
        'another notice',
      );
      const ofTrigger = warning('01000', 'exec_stmt_raise');
      t.same(
        await codesOf({ kind: 'say', after: behindCommand, bytes: Buffer.concat([ofTrigger, READY]) }),
        [''],
        'another warning',
      );
      t.ok(grants(live) - before < 40 + 6 * again, 'none of it was run again');
      // The connection is none that anybody may use: it said what it was not asked.
      const alien = frame('D', int16(2), int32(1), Buffer.from('t'), int32(4), Buffer.from('none'));
      t.same(
        await codesOf({
          kind: 'say',
          after: 5,
          bytes: Buffer.concat([alien, frame('C', cstring('INSERT 0 1')), READY]),
        }),
        members === 1 ? ['08007'] : ['08007'],
        'rows of nobody',
      );
      await untilMerged(t, live, clients, write);
      t.same(
        await codesOf({ kind: 'say', after: 0, bytes: Buffer.concat([frame('C', cstring('INSERT 0 64')), READY]) }),
        ['08007'],
        'an answer out of order',
      );
      t.same([...new Set((await ask()).map((answer) => told(answer).code))], [''], 'it goes on');
    },
  );
}

t.test('reads are answered whatever is noticed, and read again where the answer is not theirs', async (t) => {
  await onServer(
    `truncate kv; insert into kv (tenant_id, key, value) select 't', 'c' || g, '7' from generate_series(0, 7) g`,
  );
  // Room for leases beside it: no connection is closed to make some.
  const struck = await behindProxy(t, 8, 20);
  const { live, proxy, clients } = struck;
  const question = (i: number) => batchBytes(GET, ['t', `c${i}`]);
  const ask = () => together(clients, question);
  await untilMerged(t, live, clients, question);
  const bytes = await bytesOf(struck, 'answer', ask);
  const say = { kind: 'say', after: bytes - READY.length, bytes: Buffer.concat([warning('01000'), READY]) } as const;
  const nobodys = frame('D', int16(2), int32(8), int32(0), int32(999), int32(1), Buffer.from('8'));
  const alien = Buffer.concat([nobodys, frame('C', cstring('SELECT 1')), READY]);
  const backends = async (): Promise<(string | null)[]> =>
    (await onServer(`select pid from pg_stat_activity where backend_type = 'client backend'`)).map(([pid]) => pid!);
  const before = await backends();
  for (const fault of [say, { kind: 'say', after: 5, bytes: alien }] as const) {
    const answers = await into(proxy, fault, ask);
    t.same(
      answers.map((answer) => told(answer).rows),
      clients.map(() => [['7']]),
    );
    if (fault === say) t.same((await backends()).filter((pid) => before.includes(pid)).sort(), before.sort());
  }
  await eventually(t, 'a connection with such an answer is not used again (rule 8)', async () => {
    const left = await backends();
    return before.some((pid) => !left.includes(pid));
  });
});
