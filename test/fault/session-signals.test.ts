// A session is cancelled or ended by its pid, and a server connection is ended by the operator, at every moment a session can be
// in. What the client is told is compared with Postgres; nothing of an ended session stays on a server or in the router.
import t, { type Test } from 'tap';
import { eventually } from '../support/bystander.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import type { LiveRouter } from '../support/live-router.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';
import type { WireAddress } from '../support/wire-client.js';

const DATABASE = 'postgres';
const cluster = await kvServers(t, 2);
const [home] = cluster.servers;
const admins = await Promise.all(
  cluster.servers.map((one) => SqlClient.connect(one, { user: one.superuser, database: DATABASE })),
);
t.teardown(() => Promise.all(admins.map((admin) => admin.end())));
for (const admin of admins) await admin.run('create table lines (n int)', 'create table counted (n int)');
await admins[0]!.run('insert into counted values (0)');

interface Moment {
  readonly name: string;
  /** Brings the session there; all of it has been answered when the last one is sent. */
  readonly before?: readonly FrontendMessage[];
  /** Sent last, and not answered when the signal comes: it runs. */
  readonly running?: readonly FrontendMessage[];
  /** The session holds something on its server connection. */
  readonly holds: boolean;
}

const SLEEP = { query: 'select pg_sleep(60)' } as const;

const MOMENTS: readonly Moment[] = [
  { name: 'idle', holds: false },
  { name: 'idle, with a setting', before: [{ query: `set work_mem = '3MB'` }], holds: false },
  { name: 'idle, with a temporary table', before: [{ query: 'create temp table kept (x int)' }], holds: true },
  { name: 'idle, listening', before: [{ query: 'listen news' }], holds: true },
  {
    name: 'idle, with an advisory lock',
    before: [{ query: 'select pg_advisory_lock(77)' }],
    holds: true,
  },
  {
    name: 'idle in a block that has written',
    before: [{ query: 'begin' }, { query: 'update counted set n = n + 1' }],
    holds: true,
  },
  {
    name: 'idle in a failed block',
    before: [{ query: 'begin' }, { query: 'insert into counted values (1)' }, { query: 'select 1/0' }],
    holds: true,
  },
  { name: 'running', running: [SLEEP], holds: true },
  {
    name: 'running a batch',
    running: [{ parse: 'select pg_sleep(60)' }, { bind: [] }, { execute: '' }, 'sync'],
    holds: true,
  },
  {
    name: 'running in a block that has written',
    before: [{ query: 'begin' }, { query: 'update counted set n = n + 1' }],
    running: [SLEEP],
    holds: true,
  },
  {
    name: 'running a write',
    running: [{ query: 'insert into counted select 1 from pg_sleep(60)' }],
    holds: true,
  },
  {
    name: 'running, with more behind it in the pipeline',
    running: [SLEEP, { query: 'insert into counted values (7)' }],
    holds: true,
  },
  {
    name: 'copying in',
    before: [],
    running: [{ query: 'copy lines from stdin' }, { copyData: '1\n' }],
    holds: true,
  },
];

interface Session {
  readonly client: SqlClient;
  /** Where its messages begin. */
  readonly from: number;
}

/** Opens a session of that name and brings it to the moment. */
async function reach(address: WireAddress, moment: Moment, name: string): Promise<Session> {
  const login = { user: home!.superuser, database: DATABASE, parameters: { application_name: name } };
  const client = await SqlClient.connect(address, login);
  const from = client.wire.received.length;
  for (const message of moment.before ?? []) await client.wire.exchange([message]);
  if (moment.running !== undefined) {
    client.wire.send(...moment.running);
    const copies = moment.name.startsWith('copying');
    const where = copies ? `query ilike 'copy%'` : `wait_event = 'PgSleep'`;
    const sql = `select count(*) from pg_stat_activity where application_name = '${name}' and state = 'active' and ${where}`;
    while ((await admins[0]!.value(sql)) === '0') await new Promise((resolve) => setTimeout(resolve, 2));
    if (copies) await client.wire.wait({ type: 'CopyInResponse' });
  }
  return { client, from };
}

/** Without what the server has not flushed of the statement that ran, nor where in it the signal came. */
function told({ client, from }: Session): unknown[] {
  const messages = client.wire.received.slice(from);
  const ready = messages.findLastIndex(({ type }) => type === 'ReadyForQuery');
  return messages.flatMap((message, index): unknown[] => {
    if (message.type !== 'ErrorResponse') return index > ready ? [] : [message];
    const { F: _file, L: _line, R: _routine, W: _where, ...fields } = message.fields;
    return [{ type: message.type, fields }];
  });
}

/** Nothing that the session had begun is left on the servers. */
async function gone(t: Test, name: string): Promise<void> {
  await eventually(t, `nothing of "${name}" is left`, async () => {
    const busy = `select count(*) from pg_stat_activity where application_name = '${name}' and (state <> 'idle' or backend_xid is not null)`;
    const locks = `select count(*) from pg_locks where locktype = 'advisory' and objid = 77`;
    return (await admins[0]!.value(busy)) === '0' && (await admins[0]!.value(locks)) === '0';
  });
}

let names = 0;

t.test('ended by its pid at every moment', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 10 } });
  const caller = await router.connect();
  for (const moment of MOMENTS) {
    const answers: unknown[] = [];
    for (const [who, address] of [
      [admins[0]!, home!],
      [caller, router],
    ] as const) {
      const name = `ended ${++names}`;
      const session = await reach(address, moment, name);
      t.equal(await who.value(`select pg_terminate_backend(${session.client.wire.pid}, 5000)`), 't');
      await session.client.wire.wait('closed');
      answers.push(told(session));
      await gone(t, name);
    }
    t.strictSame(answers[1], answers[0], moment.name);
  }
  t.equal(await admins[0]!.value('select sum(n) from counted'), '0', 'nothing of them was committed');
  await caller.end();
  await router.quiet();
});

t.test('cancelled by its pid at every moment', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 10 } });
  const caller = await router.connect();
  // Postgres does not look for a cancel while it waits for lines.
  for (const moment of MOMENTS.filter(({ name }) => name !== 'copying in')) {
    const answers: unknown[] = [];
    for (const [who, address] of [
      [admins[0]!, home!],
      [caller, router],
    ] as const) {
      const name = `cancelled ${++names}`;
      const session = await reach(address, moment, name);
      t.equal(await who.value(`select pg_cancel_backend(${session.client.wire.pid})`), 't');
      // Behind a statement that ran the answer comes by itself.
      const owed = (moment.running ?? []).filter(
        (one) => one === 'sync' || (typeof one === 'object' && 'query' in one),
      );
      if (owed.length > 0) await session.client.wire.wait(owed.length);
      await session.client.wire.exchange([{ query: 'rollback' }]);
      await session.client.wire.exchange([{ query: 'select 5' }]);
      answers.push(told(session));
      await session.client.end();
      await gone(t, name);
    }
    t.strictSame(answers[1], answers[0], moment.name);
  }
  await admins[0]!.run('delete from counted where n = 7');
  t.equal(await admins[0]!.value('select sum(n) from counted'), '0');
  await caller.end();
  await router.quiet();
});

t.test('an operator who ends the server connection ends the client where Postgres would', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 10 } });
  for (const moment of MOMENTS) {
    const answers: unknown[] = [];
    for (const address of [home!, router]) {
      const name = `operator ${++names}`;
      const session = await reach(address, moment, name);
      const isAtRest = () => router.router.pool.openCount === router.router.pool.idleCount;
      if (address === router && !moment.holds) await eventually(t, 'pgkv knows that nothing was left', isAtRest);
      const ended = await admins[0]!.rows(
        `select pid, pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = '${name}'`,
      );
      if (address === router && !moment.holds) {
        // Its connection, if it is still called after it, was nobody's.
        const pids = new Set(ended.map(([pid]) => Number(pid)));
        const isOpen = () =>
          router.router.pools.some((pool) => [...pool.connections()].some(({ pid }) => pids.has(pid)));
        await eventually(t, 'the pool has noticed', () => !isOpen());
        t.equal(await session.client.value('select 5'), '5', `${moment.name}: goes on`);
        await session.client.end();
        continue;
      }
      t.equal(ended.length, 1, moment.name);
      await session.client.wire.wait('closed');
      answers.push(told(session));
    }
    if (answers.length === 2) t.strictSame(answers[1], answers[0], moment.name);
  }
  await router.quiet();
});

const pidOf = (client: SqlClient): number => client.wire.pid!;

async function ends(t: Test, caller: SqlClient, victim: SqlClient, moment: string): Promise<void> {
  t.equal(await caller.value(`select pg_terminate_backend(${pidOf(victim)})`), 't', moment);
  const { messages } = await victim.wire.wait('closed');
  t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '57P01' }, `${moment}: it is told`);
}

t.test('a session that waits for a server connection', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 1 } });
  const [holder, waiter, caller] = [await router.connect(), await router.connect(), await router.connect()];
  await holder.run('begin', 'select count(*) from counted');
  const waits = () => eventually(t, 'it waits', () => router.router.pool.waitingCount === 1);
  waiter.wire.send({ query: 'select 2 from counted' });
  await waits();
  t.equal(await caller.value(`select pg_cancel_backend(${pidOf(waiter)})`), 't', 'the caller needs no connection');
  t.equal(errorOf((await waiter.wire.wait(1)).messages)?.code, '57014');
  waiter.wire.send({ query: 'select 2 from counted' });
  await waits();
  await ends(t, caller, waiter, 'waiting');
  t.equal(router.router.pool.waitingCount, 0);
  await holder.run('commit');
  for (const client of [holder, caller]) await client.end();
  await router.quiet();
});

/** Keys of that shard, by asking where they go. */
async function keyOn(router: LiveRouter, shard: string): Promise<string> {
  const client = await router.connect();
  for (let n = 0; ; n++) {
    const lines = await client.rows(`explain (route) select value from kv where tenant_id = 't' and key = 'k${n}'`);
    if (lines.flat().some((line) => line?.startsWith(`Shard: ${shard},`))) {
      await client.end();
      return `k${n}`;
    }
  }
}

t.test('a session in the merged lane, on one shard beyond home, and scattered', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 10 } });
  const [holder, caller] = [await router.connect(), await router.connect()];
  const key = await keyOn(router, 's2');
  const at = `tenant_id = 't' and key = '${key}'`;
  await caller.run(`insert into kv (tenant_id, key, value) values ('t', '${key}', '1')`);
  const update = `update kv set value = '2' where ${at}`;
  // Merged once its types are known; held up by a lock, so that it is under way when the signal comes.
  for (let n = 0; n < 5; n++) await caller.run(update);
  const stuck = `select count(*) from pg_stat_activity where wait_event_type = 'Lock'`;
  for (const scattered of [false, true]) {
    const statement = scattered ? 'select count(*), sum(version) from kv' : update;
    for (const call of ['pg_cancel_backend', 'pg_terminate_backend']) {
      const name = `${call}, ${scattered ? 'scattered' : 'merged'}`;
      const victim = await router.connect();
      if (scattered) await admins[1]!.run('begin', 'lock table kv');
      else await holder.run('begin', `select value from kv where ${at} for update`);
      victim.wire.send({ query: statement });
      await eventually(t, `${name}: it waits on the server`, async () => (await admins[1]!.value(stuck)) !== '0');
      if (call === 'pg_cancel_backend') {
        t.equal(await caller.value(`select pg_cancel_backend(${pidOf(victim)})`), 't');
        t.equal(errorOf((await victim.wire.wait(1)).messages)?.code, '57014', name);
        t.equal(await victim.value('select 3'), '3');
        await victim.end();
      } else await ends(t, caller, victim, name);
      if (scattered) await admins[1]!.run('commit');
      else await holder.run('rollback');
      await eventually(t, 'nothing waits', async () => (await admins[1]!.value(stuck)) === '0');
    }
  }
  t.same(rowsOf(await caller.send([{ query: `select count(*) from kv` }])), [['1']]);
  await holder.end();
  await caller.end();
  await router.quiet();
});
