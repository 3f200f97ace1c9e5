// The pid that a client is greeted with is its session's: pg_backend_pid() says it, and pg_cancel_backend() and
// pg_terminate_backend() reach the session by it. The same messages to Postgres and to pgkv, answers compared but for pids.
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { type FrontendMessage, int32 } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import type { WireAddress } from '../support/wire-client.js';

const cluster = await kvServers(t, 2);
const [server] = cluster.servers;
const DATABASE = 'postgres';
const admins = await Promise.all(
  cluster.servers.map((one) => SqlClient.connect(one, { user: one.superuser, database: DATABASE })),
);
t.teardown(() => Promise.all(admins.map((admin) => admin.end())));
for (const admin of admins) {
  await admin.run(
    'create role app login',
    'create role other login',
    'create role signaller login in role pg_signal_backend',
    'create role member login in role app',
    'create role noinherit login noinherit in role app',
    'create role barred login',
    'create schema odd',
    `create function odd.pg_backend_pid() returns int language sql as 'select 42'`,
    'grant usage on schema odd to public',
    'grant all on kv to app, member',
    'create table plain (id int)',
    'grant all on plain to app',
  );
}

/** An absent session: no pid of a server, and of no session of pgkv's either. */
const ABSENT = 16_777_216 * 100 + 5;

interface Pair {
  readonly caller: SqlClient;
  readonly victim: SqlClient;
}

/** What stands in messages for the pids of the two sessions. */
type Script = (pids: { own: number; other: number }) => readonly FrontendMessage[];

const pidOf = (client: SqlClient): number => client.wire.pid!;

function plain(messages: readonly BackendMessage[], { own, other }: { own: number; other: number }): unknown[] {
  const names = new Map([
    [`${own}`, 'OWN'],
    [`${other}`, 'OTHER'],
    [`${ABSENT}`, 'ABSENT'],
  ]);
  // Whole numbers: a server's pid may be found within others, as 2501 in 42501.
  const word = (text: string): string => text.replace(/\d+/g, (number) => names.get(number) ?? number);
  return messages.map((message) => {
    if (message.type === 'DataRow') {
      return {
        type: message.type,
        values: message.values.map((value) => {
          if (value === null) return null;
          if (value.length === 4 && value.equals(int32(own))) return 'binary OWN';
          return word(value.toString('latin1'));
        }),
      };
    }
    if (message.type !== 'ErrorResponse' && message.type !== 'NoticeResponse') return message;
    const { F: _file, L: _line, R: _routine, C, ...fields } = message.fields;
    const words = Object.fromEntries(Object.entries(fields).map(([k, v]) => [k, word(v)]));
    return { type: message.type, fields: { C, ...words } };
  });
}

/** Runs `act` on a fresh pair of sessions of each, and compares what both clients of the pair were told. */
async function compare(
  t: Test,
  name: string,
  pgkv: WireAddress,
  act: (pair: Pair) => Promise<void>,
  users: { caller?: string; victim?: string } = {},
): Promise<void> {
  const told: unknown[] = [];
  for (const address of [server!, pgkv]) {
    const connect = (user: string) => SqlClient.connect(address, { user, database: DATABASE, timeoutMs: 5_000 });
    const caller = await connect(users.caller ?? 'app');
    const victim = await connect(users.victim ?? 'app');
    const pids = { own: pidOf(caller), other: pidOf(victim) };
    const [a, b] = [caller.wire.received.length, victim.wire.received.length];
    await act({ caller, victim }).catch((error: unknown) => told.push(String(error)));
    told.push([
      plain(caller.wire.received.slice(a), pids),
      plain(victim.wire.received.slice(b), { own: pids.other, other: pids.own }),
    ]);
    caller.wire.destroy();
    victim.wire.destroy();
  }
  t.strictSame(told[1], told[0], name);
}

const pids = ({ caller, victim }: Pair) => ({ own: pidOf(caller), other: pidOf(victim) });

async function say(client: SqlClient, messages: readonly FrontendMessage[]): Promise<void> {
  await client.wire.exchange(messages);
}

const batch = (sql: string, bind: readonly (string | Buffer | null)[] = [], more: object = {}): FrontendMessage[] => [
  { parse: sql, ...('types' in more ? { types: more.types as number[] } : {}) },
  { bind, ...('resultFormats' in more ? { resultFormats: more.resultFormats as number[] } : {}) },
  { describe: 'portal' },
  { execute: '' },
  'sync',
];

/** Each asks for the pid of the session. */
const PID_SCRIPTS: Readonly<Record<string, Script>> = {
  simple: () => [{ query: 'select pg_backend_pid()' }],
  'simple, named, qualified': () => [{ query: 'SELECT pg_catalog.pg_backend_pid() AS "Mine" ;' }],
  extended: () => batch('select pg_backend_pid()'),
  'extended, twice in one packet': () => [...batch('select pg_backend_pid()'), ...batch('select pg_backend_pid() x')],
  'binary result': () => batch('select pg_backend_pid() as p', [], { resultFormats: [1] }),
  'statement described': () => [
    { parse: 'select pg_backend_pid()', name: 's' },
    { describe: 'statement', name: 's' },
    'sync',
    { bind: [], statement: 's', resultFormats: [1] },
    { describe: 'portal' },
    { execute: '' },
    'sync',
    { close: 'statement', name: 's' },
    'sync',
  ],
  'described in the batch that runs it': () => [
    { parse: 'select pg_backend_pid()', name: 's' },
    { describe: 'statement', name: 's' },
    { bind: [], statement: 's' },
    { execute: '' },
    'sync',
  ],
  'the name is taken': () => [
    { parse: 'select pg_backend_pid()', name: 's' },
    'sync',
    { parse: 'select pg_backend_pid()', name: 's' },
    'sync',
  ],
  'one row at a time': () => [
    { parse: 'select pg_backend_pid()' },
    { bind: [] },
    { execute: '', rows: 1 },
    { execute: '', rows: 1 },
    { execute: '' },
    'sync',
  ],
  'two rows at a time': () => [
    { parse: 'select pg_backend_pid()' },
    { bind: [] },
    { execute: '', rows: 2 },
    { execute: '' },
    'sync',
  ],
  'a parameter too many': () => batch('select pg_backend_pid()', ['1']),
  'a declared parameter': () => batch('select pg_backend_pid()', ['1'], { types: [23] }),
  'two result formats': () => batch('select pg_backend_pid()', [], { resultFormats: [0, 1] }),
  'a result format there is not': () => batch('select pg_backend_pid()', [], { resultFormats: [7] }),
  'a named portal': () => [
    { parse: 'select pg_backend_pid()' },
    { bind: [], portal: 'p' },
    { bind: [], portal: 'p' },
    { execute: 'p' },
    'sync',
  ],
  'in a batch that reads': () => [...batch('select 1').slice(0, -1), ...batch('select pg_backend_pid()')],
  'behind an error': () => [...batch('select 1/0').slice(0, -1), ...batch('select pg_backend_pid()')],
  'behind an error, in another batch': () => [...batch('select 1/0'), ...batch('select pg_backend_pid()')],
  'before an error': () => [...batch('select pg_backend_pid()').slice(0, -1), ...batch('select 1/0')],
  'executed behind a statement of the server': () => [
    { parse: 'select pg_backend_pid()' },
    { bind: [], portal: 'own' },
    { parse: 'select 7' },
    { bind: [], portal: 'theirs' },
    { execute: 'theirs' },
    { execute: 'own' },
    'sync',
  ],
  'executed behind an error of the server': () => [
    { parse: 'select pg_backend_pid()' },
    { bind: [], portal: 'own' },
    { parse: 'select 1/0' },
    { bind: [], portal: 'theirs' },
    { execute: 'theirs' },
    { execute: 'own' },
    'sync',
  ],
  'a block around it': () => [{ query: 'begin' }, ...batch('select pg_backend_pid()'), { query: 'commit' }],
};

/** What the session is in before; each leaves answers that are compared as well. */
const BEFORE: Readonly<Record<string, readonly FrontendMessage[]>> = {
  nothing: [],
  'a block': [{ query: 'begin' }],
  'a block that has written': [{ query: 'begin' }, { query: 'insert into plain values (1)' }],
  'a failed block': [{ query: 'begin' }, { query: 'select 1/0' }],
  'a block, in one packet with it': [...batch('begin')],
  'a temporary table': [{ query: 'create temp table kept (x int)' }],
};

t.test('the pid of the session, in every form and state', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 8 } });
  for (const [name, script] of Object.entries(PID_SCRIPTS)) {
    for (const [state, before] of Object.entries(BEFORE)) {
      await compare(t, `${name}; before: ${state}`, router, async (pair) => {
        const messages = script(pids(pair));
        if (state.includes('one packet')) await say(pair.caller, [...before, ...messages]);
        else {
          for (const one of before) await say(pair.caller, [one]);
          await say(pair.caller, messages);
        }
        await say(pair.caller, [{ query: 'rollback' }]);
        await say(pair.caller, [{ query: 'select 5' }]);
      });
    }
  }
});

t.test('elsewhere in a statement it is the pid of the server connection, which fits pg_stat_activity', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 8 } });
  const client = await router.connect({ user: 'app' });
  t.equal(await client.value('select pg_backend_pid()'), `${client.wire.pid}`);
  for (const sql of [
    'select count(*) from pg_stat_activity where pid = pg_backend_pid()',
    'select count(*) from pg_stat_activity where pid = (select pg_backend_pid())',
  ]) {
    t.equal(await client.value(sql), '1', sql);
  }
  t.not(await client.value('select pg_backend_pid() + 0'), `${client.wire.pid}`);
  await client.run('set search_path = odd, pg_catalog');
  t.equal(await client.value('select pg_backend_pid()'), '42', 'another function comes first');
  t.equal(await client.value('select pg_catalog.pg_backend_pid()'), `${client.wire.pid}`);
});

const CALLS = ['pg_cancel_backend', 'pg_terminate_backend'] as const;

/** Each asks for something to be done to the session `target`. */
const SIGNAL_SCRIPTS: Readonly<Record<string, (call: string, target: string) => readonly FrontendMessage[]>> = {
  simple: (call, target) => [{ query: `select ${call}(${target})` }],
  'simple, named': (call, target) => [{ query: `SELECT pg_catalog.${call}(${target}::int4) AS "Done"` }],
  'a string': (call, target) => [{ query: `select ${call}('${target}')` }],
  extended: (call, target) => batch(`select ${call}(${target})`),
  parameter: (call, target) => batch(`select ${call}($1)`, [target]),
  'parameter, binary': (call, target) => batch(`select ${call}($1)`, [int32(Number(target))], { resultFormats: [1] }),
  'declared parameter': (call, target) => batch(`select ${call}($1::int) as x`, [target], { types: [23] }),
  'a parameter of another type': (call, target) => batch(`select ${call}($1)`, [target], { types: [20] }),
  'NULL as parameter': (call) => batch(`select ${call}($1)`, [null]),
  'no number': (call) => batch(`select ${call}($1)`, ['x']),
  'too few parameters': (call) => batch(`select ${call}($1)`, []),
  'described first': (call, target) => [
    { parse: `select ${call}($1)`, name: 's' },
    { describe: 'statement', name: 's' },
    'sync',
    { bind: [target], statement: 's' },
    { describe: 'portal' },
    { execute: '' },
    'sync',
  ],
};

const TIMED: Readonly<Record<string, (target: string) => readonly FrontendMessage[]>> = {
  'with a time-out': (target) => [{ query: `select pg_terminate_backend(${target}, 5000)` }],
  'with a time-out as parameter': (target) => batch('select pg_terminate_backend($1, $2)', [target, '5000']),
  'with a negative time-out': (target) => [{ query: `select pg_terminate_backend(${target}, -1)` }],
  'with a negative time-out as parameter': (target) => batch('select pg_terminate_backend($1, $2)', [target, '-1']),
  'with NULL as time-out': (target) => [{ query: `select pg_terminate_backend(${target}, null)` }],
};

t.test('another session is reached: idle, and nobody where there is none', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 8 } });
  const settled = async ({ victim }: Pair): Promise<void> => {
    // The end of a session comes by itself; one that is left answers.
    if (!victim.wire.closed) await victim.wire.exchange([{ query: 'select 9' }]);
  };
  const run = async (name: string, messages: (target: string) => readonly FrontendMessage[], ends: boolean) => {
    for (const absent of [false, true]) {
      await compare(t, `${name}${absent ? ', absent' : ''}`, router, async (pair) => {
        const target = absent ? `${ABSENT}` : `${pids(pair).other}`;
        await say(pair.caller, messages(target));
        if (ends && !absent) await pair.victim.wire.wait('closed', 2_000);
        else await settled(pair);
        await say(pair.caller, [{ query: 'select 5' }]);
      });
    }
  };
  const harmless = new Set(['a parameter of another type', 'NULL as parameter', 'no number', 'too few parameters']);
  for (const call of CALLS) {
    for (const [name, script] of Object.entries(SIGNAL_SCRIPTS)) {
      const ends = call === 'pg_terminate_backend' && !harmless.has(name);
      await run(`${call}, ${name}`, (target) => script(call, target), ends);
    }
  }
  for (const [name, script] of Object.entries(TIMED)) await run(name, script, !/negative|NULL/.test(name));
});

t.test('a block of the caller goes on, and fails, as with Postgres', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 8 } });
  for (const [state, before] of Object.entries(BEFORE)) {
    for (const caller of ['app', 'other']) {
      for (const script of ['simple', 'parameter']) {
        await compare(
          t,
          `${caller}, ${script}; before: ${state}`,
          router,
          async (pair) => {
            if (caller === 'other' && state.includes('written')) return;
            const messages = SIGNAL_SCRIPTS[script]!('pg_cancel_backend', `${pids(pair).other}`);
            if (state.includes('one packet')) await say(pair.caller, [...before, ...messages]);
            else {
              for (const one of before) await say(pair.caller, [one]);
              await say(pair.caller, messages);
            }
            await say(pair.caller, [{ query: 'select 5' }]);
            await say(pair.caller, [{ query: 'commit' }]);
          },
          { caller },
        );
      }
    }
  }
});

t.test('the session itself', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 8 } });
  for (const [name, messages] of Object.entries({
    'simple cancel': (own: number) => [{ query: `select pg_cancel_backend(${own})` }],
    'extended cancel': (own: number) => batch('select pg_cancel_backend($1)', [`${own}`]),
    'cancel in a block': (own: number) => [{ query: 'begin' }, { query: `select pg_cancel_backend(${own})` }],
  })) {
    await compare(t, name, router, async (pair) => {
      await say(pair.caller, messages(pids(pair).own));
      await say(pair.caller, [{ query: 'rollback' }]);
    });
  }
  for (const [name, messages] of Object.entries({
    'simple end': (own: number) => [{ query: `select pg_terminate_backend(${own})` }, { query: 'select 1' }],
    'extended end': (own: number) => batch('select pg_terminate_backend($1)', [`${own}`]),
  })) {
    await compare(t, name, router, async (pair) => {
      await pair.caller.wire.exchange(messages(pids(pair).own), 'closed');
    });
  }
});

t.test('only who has the right', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 8 } });
  const superuser = server!.superuser;
  const callers = ['app', 'other', 'signaller', 'member', 'noinherit', superuser];
  for (const call of CALLS) {
    for (const caller of callers) {
      for (const victim of ['app', superuser]) {
        await compare(
          t,
          `${caller} asks for ${call} of ${victim}`,
          router,
          async (pair) => {
            const answer = await pair.caller.send([{ query: `select ${call}(${pids(pair).other})` }]);
            if (call === 'pg_terminate_backend' && errorOf(answer) === null) await pair.victim.wire.wait('closed');
            await say(pair.caller, batch(`select ${call}($1)`, [`${ABSENT}`]));
          },
          { caller, victim },
        );
      }
    }
  }
  for (const admin of admins) await admin.run('revoke execute on function pg_cancel_backend(int) from public');
  await compare(t, 'the function may not be called', router, async (pair) => {
    await say(pair.caller, [{ query: `select pg_cancel_backend(${pids(pair).other})` }]);
    await say(pair.caller, [{ query: `select pg_cancel_backend(${ABSENT})` }]);
  });
  for (const admin of admins) await admin.run('grant execute on function pg_cancel_backend(int) to public');
  await compare(
    t,
    'the role that was taken on counts',
    router,
    async (pair) => {
      await say(pair.caller, [{ query: 'set role other' }]);
      await say(pair.caller, [{ query: `select pg_cancel_backend(${pids(pair).other})` }]);
      await say(pair.caller, [{ query: 'reset role' }]);
      await say(pair.caller, [{ query: `select pg_cancel_backend(${pids(pair).other})` }]);
    },
    { caller: superuser },
  );
  await compare(t, 'warnings are not wanted', router, async (pair) => {
    await say(pair.caller, [{ query: 'set client_min_messages = error' }]);
    await say(pair.caller, [{ query: `select pg_cancel_backend(${ABSENT})` }]);
  });
});
