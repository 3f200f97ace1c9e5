// Portals that no server knows, in one session with those that servers have: a name stands for one of them, there are not more than
// so many, and nothing is said of them but in answer to a message.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { OWN_PORTALS_MAX } from '../../src/frontend/exchanges/own-portals.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 2);
const login = { user: cluster.servers[0]!.superuser, database: 'postgres' };

const OWN = ['show pgkv.version', 'select key from kv'];

t.test('there are not more than so many', async (t) => {
  const router = await kvRouter(t, cluster);
  for (const text of OWN) {
    const client = await WireClient.connect(router, login);
    await client.query('begin');
    await client.exchange([{ parse: text, name: 's' }, 'sync']);
    const binds = (count: number): FrontendMessage[] =>
      Array.from({ length: count }, (_, at) => ({ bind: [], statement: 's', portal: `p${at}` }));
    const { messages } = await client.exchange([...binds(OWN_PORTALS_MAX + 1), 'sync']);
    t.equal(messages.filter(({ type }) => type === 'BindComplete').length, OWN_PORTALS_MAX, text);
    t.equal(errorOf(messages)?.code, '54000', text);
    client.destroy();
  }
  await router.quiet();
});

t.test('the name of one is taken for a portal of a server', async (t) => {
  const router = await kvRouter(t, cluster);
  for (const text of OWN) {
    const client = await WireClient.connect(router, login);
    await client.query('begin');
    await client.exchange([{ parse: text, name: 'own' }, { parse: 'select 1', name: 'other' }, 'sync']);
    await client.exchange([{ bind: [], statement: 'own', portal: 'p' }, 'sync']);
    const { messages } = await client.exchange([
      { bind: [], statement: 'other', portal: 'p' },
      { execute: 'p' },
      'sync',
    ]);
    t.equal(errorOf(messages)?.code, '42P03', text);
    client.destroy();
  }
  await router.quiet();
});

t.test('messages about them are answered as a server answers them', async (t) => {
  const router = await kvRouter(t, cluster);
  const seed = await router.connect();
  await seed.run("insert into kv (tenant_id, key, value) values ('a', 'k', '1'), ('a', 'l', '1')");
  await seed.end();
  const [server] = cluster.servers;
  const own = 'select 1 / (version - 2) as q from kv order by key';
  /** The same, as plain Postgres is asked. */
  const plain = "select 1 / (v - 2) as q from (values (1, 'k'), (1, 'l')) t(v, key) order by key";
  const failing = (text: string): string => text.replace('- 2', '- 1');
  const open = (text: string): FrontendMessage[][] => [
    [{ query: 'begin' }],
    [{ query: 'savepoint s' }],
    [{ parse: text }, { bind: [], portal: 'p' }, { bind: [], portal: 'r' }, 'sync'],
  ];
  const cases: Readonly<Record<string, (text: string) => FrontendMessage[][]>> = {
    'a negative count of rows': (text) => [
      ...open(text),
      [{ execute: 'p', rows: -1 }, { execute: 'r', rows: 1 }, 'sync'],
    ],
    'one is described, and another executed': (text) => [
      ...open(text),
      [{ describe: 'portal', name: 'p' }, { execute: 'r' }, 'sync'],
      [{ describe: 'portal', name: 'p' }, { execute: 'p' }, 'sync'],
    ],
    'one that has failed is executed again': (text) => [
      ...open(failing(text)),
      [{ execute: 'p' }, 'sync'],
      [{ query: 'rollback to s' }],
      [{ execute: 'p' }, 'sync'],
      [{ query: 'rollback' }],
    ],
  };
  for (const [name, messages] of Object.entries(cases)) {
    const play = async (address: { host: string; port: number }, text: string): Promise<string[]> => {
      const client = await WireClient.connect(address, { ...login, timeoutMs: 5_000 });
      const heard: string[] = [];
      for (const one of messages(text)) {
        const { messages: answers, outcome } = await client.exchange(one);
        heard.push(...answers.map(({ type }) => type), outcome, errorOf(answers)?.code ?? '');
        if (outcome !== 'reached') break;
      }
      client.destroy();
      return heard;
    };
    t.same(await play(router, own), await play(server!, plain), name);
  }
  await router.quiet();
});

t.test('a shard is lost while a read of it is suspended: the client hears of it when it asks for more', async (t) => {
  const router = await kvRouter(t, cluster);
  const seed = await router.connect();
  for (let tenant = 0; tenant < 20; tenant++) {
    await seed.run(`insert into kv (tenant_id, key, value) values ('${tenant}', 'k', '1')`);
  }
  await seed.end();
  const shard = await SqlClient.connect(cluster.servers[1]!, login);
  for (const next of ['execute', 'query', 'rollback'] as const) {
    await shard.run('begin; lock table kv');
    const client = await WireClient.connect(router, login);
    await client.query('begin');
    const first = await client.exchange([
      { parse: 'select key from kv' },
      { bind: [], portal: 'p' },
      { execute: 'p', rows: 1 },
      'sync',
    ]);
    t.ok(first.messages.some(({ type }) => type === 'PortalSuspended'));
    const waiting = "from pg_stat_activity where wait_event_type = 'Lock'";
    while ((await shard.value(`select count(*) ${waiting}`)) === '0') await turn();
    await shard.run(`select pg_terminate_backend(pid, 10000) ${waiting}`);
    // Another session's read behind it: by then pgkv has heard of the loss.
    await shard.run('rollback');
    const other = await router.connect();
    await other.run('select count(*) from kv');
    await other.end();
    t.equal(client.received.at(-1)?.type, 'ReadyForQuery', `${next}: nothing is said that was not asked for`);
    const answer =
      next === 'execute'
        ? (await client.exchange([{ execute: 'p' }, 'sync'])).messages
        : await client.query(
            next === 'query' ? "select value from kv where tenant_id = '1' and key = 'k'" : 'rollback',
          );
    t.equal(errorOf(answer)?.code, next === 'execute' ? '08006' : undefined, next);
    client.destroy();
  }
  await shard.end();
  await router.quiet();
});

t.test('a block with a named portal stays on its server', async (t) => {
  const router = await kvRouter(t, cluster);
  const key: FrontendMessage[] = [
    { parse: 'select value from kv where tenant_id = $1 and key = $2' },
    { bind: ['a', 'k'] },
    { execute: '' },
    'sync',
  ];
  const elsewhere = await keyOf(router, 1);
  const portals: readonly (readonly [string, FrontendMessage[]])[] = [
    ['bound', [{ bind: [], portal: 'pp' }, 'sync']],
    ['read in part', [{ bind: [], portal: 'pp' }, { execute: 'pp', rows: 1 }, 'sync']],
  ];
  for (const [name, messages] of portals) {
    const client = await WireClient.connect(router, login);
    await client.query('begin');
    await client.exchange([{ parse: 'select generate_series(1, 5)' }, ...messages]);
    // A statement on a key of another shard is refused; on one of its own the portal is read on behind it.
    const asked = key.map((one) => (typeof one === 'object' && 'bind' in one ? { bind: ['a', elsewhere] } : one));
    t.equal(errorOf((await client.exchange(asked)).messages)?.code, '0A000', name);
    client.destroy();
    const other = await WireClient.connect(router, login);
    await other.query('begin');
    await other.exchange([{ parse: 'select generate_series(1, 5)' }, ...messages]);
    await other.query('select count(*) from pg_class');
    const read = await other.exchange([{ execute: 'pp' }, 'sync']);
    t.equal(errorOf(read.messages), null, name);
    t.ok(read.messages.filter(({ type }) => type === 'DataRow').length >= 4, 'the rest of its rows');
    other.destroy();
  }
  await router.quiet();
});

t.test(
  'clients.idle_in_transaction_timeout_ms counts blocks that no server has, and portals suspended in them',
  async (t) => {
    const router = await kvRouter(t, cluster, { clients: { idleInTransactionTimeoutMs: 300 } });
    const suspended: FrontendMessage[] = [
      { parse: 'select key from kv' },
      { bind: [], portal: 'p' },
      { execute: 'p', rows: 1 },
      'sync',
    ];
    for (const messages of [[], suspended]) {
      const client = await router.connect();
      await client.run('begin');
      // On a slow machine the time may be over before all of the answer is there.
      const { messages: first } = await client.wire.exchange(messages);
      const { messages: told, outcome } = await client.wire.wait('closed');
      t.equal(outcome, 'reached');
      t.equal(errorOf([...first, ...told])?.code, '25P03', `${messages.length} messages behind BEGIN`);
    }
    // Who waits for an answer is not idle, and has all the time from then on.
    const shard = await SqlClient.connect(cluster.servers[1]!, login);
    await shard.run('begin; lock table kv');
    const client = await router.connect();
    await client.run('begin');
    const asked = client.run('select count(*) from kv');
    await sleep(1_200);
    await shard.run('rollback');
    await asked;
    await client.run('select count(*) from kv', 'commit');
    await client.end();
    await shard.end();
    await router.quiet();
  },
);

/** In front, in a batch of its own; what is run again. */
const AGAIN: readonly (readonly [before: string, sql: string])[] = [
  ['', 'begin'],
  ['', 'start transaction read only'],
  ['', 'commit'],
  ['', 'rollback and no chain'],
  ['', ''],
  ['', 'show work_mem'],
  ['begin', 'begin'],
  ['begin', 'commit'],
  ['begin', 'savepoint a'],
  ['begin', "set local work_mem = '2MB'"],
  ['begin', 'select count(*) from kv'],
  ['begin; select 1 / 0', 'rollback'],
  ['begin; select 1 / 0', ''],
  ['', 'select count(*) from kv'],
  ['', 'select pg_backend_pid() is null'],
];

t.test('a portal that is run again', async (t) => {
  const alone = await kvServers(t, 1);
  const router = await kvRouter(t, cluster);
  for (const [before, sql] of AGAIN) {
    for (const portal of ['', 'p']) {
      for (const rows of [0, 1]) {
        for (const between of [[], ['sync']] as FrontendMessage[][]) {
          const [ours, theirs] = await Promise.all(
            [router, alone.servers[0]!].map(async (address) => {
              const client = await WireClient.connect(address, login);
              if (before !== '') await client.exchange([{ query: before }]);
              const execute: FrontendMessage = { execute: portal, rows };
              const messages: FrontendMessage[] = [{ parse: sql }, { bind: [], portal }, execute, ...between, execute];
              const answers = (await client.exchange([...messages, execute, 'sync'])).messages;
              client.destroy();
              return answers.flatMap((message) => {
                if (message.type === 'ErrorResponse') return [`${message.fields['C']} ${message.fields['M']}`];
                if (message.type === 'ReadyForQuery') return [message.status];
                if (message.type === 'NoticeResponse' || message.type === 'ParameterStatus') return [];
                return [message.type === 'CommandComplete' ? message.tag : message.type];
              });
            }),
          );
          t.strictSame(ours, theirs, `${before}; ${sql}, portal "${portal}", ${rows} rows, ${between.length} Sync`);
        }
      }
    }
  }
  await router.quiet();
});

async function keyOf(router: Awaited<ReturnType<typeof kvRouter>>, shard: 0 | 1): Promise<string> {
  const { port } = cluster.servers[shard]!;
  const client = await router.connect();
  for (let n = 0; ; n++) {
    const rows = await client.rows(`explain (route) select value from kv where tenant_id = 'a' and key = 'x${n}'`);
    if (rows.some(([line]) => line?.includes(`port ${port}`) || line?.includes(`:${port}`))) {
      await client.end();
      return `x${n}`;
    }
  }
}
