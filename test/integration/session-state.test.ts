// Nothing a session leaves behind reaches another, and each keeps its own, whichever connection serves it. What a
// session must see is taken from the server itself: the same statements on a connection of its own.

import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import {
  HIDDEN_CODE,
  HIDDEN_CODE_SETUP,
  STATE_KINDS,
  STATE_KINDS_SETUP,
  type StateKind,
} from '../support/session-kinds.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
const direct = (database = 'postgres') => SqlClient.connect(server, { user: server.superuser, database });
const setup = await direct();
await setup.run(STATE_KINDS_SETUP, `create database ${HIDDEN_CODE}`);
await setup.end();
const setupHidden = await direct(HIDDEN_CODE);
await setupHidden.run(HIDDEN_CODE_SETUP);
await setupHidden.end();

/** OIDs of tables made in one run differ from those of the next. */
const comparable = (messages: readonly BackendMessage[]): unknown[] =>
  messages.map((message) =>
    message.type === 'RowDescription'
      ? { ...message, columns: message.columns.map((column) => ({ ...column, tableOid: 0 })) }
      : message,
  );

const answers = async (client: SqlClient, statements: readonly string[]) =>
  comparable(await client.answers(...statements));

interface Expected {
  readonly fresh: unknown[];
  readonly made: unknown[];
  readonly own: unknown[];
  readonly undone: unknown[];
}

async function onTheServer(kind: StateKind): Promise<Expected> {
  const first = await direct(kind.database);
  const fresh = await answers(first, kind.probe);
  await first.end();
  const client = await direct(kind.database);
  const made = await answers(client, kind.make);
  const own = await answers(client, kind.probe);
  await client.answers(...kind.undo);
  const undone = await answers(client, kind.probe);
  await client.end();
  return { fresh, made, own, undone };
}

async function holds(t: Test, what: string, condition: () => boolean): Promise<void> {
  const end = performance.now() + 2_000;
  while (!condition() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 5));
  t.ok(condition(), what);
}

async function checkKind(t: Test, live: LiveRouter, kind: StateKind, size: number): Promise<void> {
  const { pool } = live.router;
  const { fresh, made, own, undone } = await onTheServer(kind);
  if (kind.leavesNothing) t.strictSame(own, fresh, 'the probe shows nothing');
  else t.notSame(own, fresh, 'the probe shows the state');
  const database = kind.database ?? 'postgres';
  const [a, b] = [await live.connect({ database }), await live.connect({ database })];
  t.strictSame(await answers(b, kind.probe), fresh, 'before');

  t.strictSame(await answers(a, kind.make), made, 'making it is answered as by the server');
  if (kind.pins) {
    await holds(t, 'the session keeps its connection', () => pool.idleCount === pool.openCount - 1);
    const meanwhile = answers(b, kind.probe);
    t.strictSame(await answers(a, kind.probe), own, 'its session sees it');
    if (size === 1) t.equal(pool.waitingCount, 1, 'the other waits');
    else t.strictSame(await meanwhile, fresh, 'the other sees nothing of it');
    await a.answers(...kind.undo);
    t.strictSame(await answers(a, kind.probe), undone, 'it has ended');
    if (kind.pinsToTheEnd) await a.end();
    t.strictSame(await meanwhile, fresh, 'the other sees nothing of it afterwards');
  } else {
    for (let round = 0; round < 2; round++) {
      await holds(t, 'the connection goes back', () => pool.idleCount === pool.openCount);
      t.strictSame(await answers(b, kind.probe), fresh, 'the other sees nothing of it');
      t.strictSame(await answers(a, kind.probe), own, 'its session sees it');
    }
    const both = await Promise.all([answers(a, kind.probe), answers(b, kind.probe)]);
    t.strictSame(both, [own, fresh], 'both at the same time');
    await a.answers(...kind.undo);
    t.strictSame(await answers(a, kind.probe), undone, 'it has ended');
  }
  await holds(t, 'no pin is left', () => pool.idleCount === pool.openCount);
  t.strictSame(await answers(b, kind.probe), fresh, 'the other afterwards');

  // Again, and this time its session goes without a word.
  const c = await live.connect({ database });
  await c.answers(...kind.make);
  c.wire.destroy();
  t.strictSame(await answers(b, kind.probe), fresh, 'the other after its session vanished');
  await b.end();
  if (!a.wire.closed) await a.end();
  await live.quiet();
}

for (const size of [1, 2]) {
  t.test(`state of a session, pool of ${size}`, async (t) => {
    const live = await liveRouter(t, [server], { pool: { sizeMax: size } });
    for (const kind of STATE_KINDS) {
      await t.test(kind.name, (t) => checkKind(t, live, kind, size));
    }
  });
}

const idle = (live: LiveRouter) => live.router.pool.idleCount === live.router.pool.openCount;

t.test('what is not a table of statements, pool of 1', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const pair = async (t: Test) => {
    const clients = [await live.connect(), await live.connect()] as const;
    // Where a test fails half-way its clients must not spoil the next one's.
    t.teardown(() => clients.map((client) => client.wire.destroy()));
    return clients;
  };
  const finish = async (...clients: readonly SqlClient[]) => {
    for (const client of clients) if (!client.wire.closed) await client.end();
    await live.quiet();
  };

  await t.test('ParameterStatus tells each client what holds for it', async (t) => {
    const [a, b] = await pair(t);
    const names = ['TimeZone', 'DateStyle', 'IntervalStyle', 'client_encoding', 'application_name'];
    const agrees = async (client: SqlClient, who: string) => {
      for (const name of names) t.equal(client.told(name), await client.value(`show ${name}`), `${who}: ${name}`);
    };
    await a.run(`set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set application_name = 'a'`);
    await agrees(b, 'b');
    await agrees(a, 'a');
    await b.run(`set client_encoding = 'LATIN1'`, 'begin', `set local timezone = 'Europe/Rome'`, 'rollback');
    await agrees(a, 'a');
    await agrees(b, 'b');
    await a.run('reset all');
    await agrees(a, 'a');
    await agrees(b, 'b');
    t.equal(a.told('TimeZone'), 'UTC');
    await finish(a, b);
  });

  await t.test("settings of the start-up packet and of options=-c are each client's own", async (t) => {
    const a = await live.connect({ parameters: { TimeZone: 'Asia/Tokyo', 'app.start': 'a' } });
    const b = await live.connect({ parameters: { options: '-c work_mem=5MB -c app.start=b' } });
    const c = await live.connect();
    const seen = async (client: SqlClient) =>
      (
        await client.rows(
          `select current_setting('TimeZone'), current_setting('work_mem'), current_setting('app.start', true)`,
        )
      )[0];
    for (let round = 0; round < 2; round++) {
      t.strictSame(await seen(a), ['Asia/Tokyo', '4MB', 'a']);
      t.strictSame(await seen(b), ['UTC', '5MB', 'b']);
      t.strictSame(await seen(c), ['UTC', '4MB', null]);
    }
    await b.run('set work_mem = 999', 'reset work_mem');
    t.strictSame(await seen(b), ['UTC', '5MB', 'b'], 'RESET goes back to the start-up value');
    await finish(a, b, c);
  });

  await t.test("application_name is each client's own, also on the server", async (t) => {
    const a = await live.connect({ parameters: { application_name: 'first' } });
    const b = await live.connect({ parameters: { application_name: 'second' } });
    const c = await live.connect();
    const shown = 'select application_name from pg_stat_activity where pid = pg_backend_pid()';
    for (let round = 0; round < 2; round++) {
      t.strictSame([await a.value(shown), await b.value(shown), await c.value(shown)], ['first', 'second', '']);
    }
    await a.run(`set application_name = 'changed'`);
    t.strictSame([await b.value(shown), await a.value(shown)], ['second', 'changed']);
    await a.run('reset application_name');
    t.strictSame(
      [await b.value(shown), await a.value(shown)],
      ['second', 'first'],
      "RESET goes back to the client's own",
    );
    await a.run('discard all');
    t.strictSame([await c.value(shown), await a.value(shown)], ['', 'first']);
    await finish(a, b, c);
  });

  await t.test('protocol-level statements of one name and different texts', async (t) => {
    const [a, b] = await pair(t);
    const parse = (client: SqlClient, text: string) => client.send([{ parse: text, name: 's1' }, 'sync']);
    const execute = async (client: SqlClient) =>
      rowsOf(await client.send([{ bind: [], statement: 's1' }, { execute: '' }, 'sync']))[0]?.[0];
    await parse(a, `select 'a'`);
    await parse(b, `select 'b'`);
    for (let round = 0; round < 3; round++) {
      t.equal(await execute(a), 'a');
      t.equal(await execute(b), 'b');
    }
    t.equal(errorOf(await parse(a, 'select 2'))?.code, '42P05', 'the name is taken');
    t.equal(await execute(a), 'a', 'and still what it was');
    await a.send([{ close: 'statement', name: 's1' }, 'sync']);
    t.equal(errorOf(await a.send([{ bind: [], statement: 's1' }, 'sync']))?.code, '26000');
    t.equal(await execute(b), 'b', 'closing one is not closing the other');
    await parse(a, `select 'again'`);
    t.equal(await execute(a), 'again');
    await finish(a, b);
  });

  await t.test('settings decide what a protocol-level statement means, whoever parsed the text first', async (t) => {
    const [a, b] = await pair(t);
    // Names are looked up again when search_path has changed; literals are read once, when the statement is parsed.
    for (const [setting, forA, forB, text, seenByA, seenByB] of [
      ['search_path', 'one', 'two', 'select name from place', 'one', 'two'],
      ['datestyle', `'ISO, DMY'`, `'ISO, MDY'`, `select date '01/02/2026'`, '2026-02-01', '2026-01-02'],
    ] as const) {
      await a.run(`set ${setting} = ${forA}`);
      await b.run(`set ${setting} = ${forB}`);
      for (let round = 0; round < 3; round++) {
        t.strictSame(await a.extended(text), [[seenByA]], setting);
        t.strictSame(await b.extended(text), [[seenByB]], setting);
      }
      for (const client of [a, b]) await client.send([{ parse: text, name: setting }, 'sync']);
      const execute = async (client: SqlClient) =>
        rowsOf(await client.send([{ bind: [], statement: setting }, { execute: '' }, 'sync']));
      for (let round = 0; round < 3; round++) {
        t.strictSame(await execute(a), [[seenByA]], setting);
        t.strictSame(await execute(b), [[seenByB]], setting);
      }
      await a.run('reset all');
      await b.run('reset all');
    }
    await finish(a, b);
  });

  await t.test('EXECUTE and DEALLOCATE reach protocol-level statements of their own session only', async (t) => {
    const [a, b] = await pair(t);
    await a.send([{ parse: 'select $1::int + 1', name: 'plus' }, 'sync']);
    await b.send([{ parse: 'select $1::int + 2', name: 'plus' }, 'sync']);
    t.equal(await a.value('execute plus (10)'), '11');
    t.equal(await b.value('execute plus (10)'), '12');
    await a.run('deallocate plus');
    t.equal(await a.fails('execute plus (10)'), '26000');
    t.equal(errorOf(await a.send([{ bind: ['1'], statement: 'plus' }, 'sync']))?.code, '26000');
    t.equal(await b.value('execute plus (10)'), '12');
    await a.send([{ parse: 'select $1::int + 3', name: 'plus' }, 'sync']);
    t.equal(await a.value('execute plus (10)'), '13', 'the name is free again');
    await a.run('deallocate all');
    t.equal(await a.fails('execute plus (10)'), '26000');
    t.equal(await b.value('execute plus (10)'), '12', 'ALL is all of the session');
    await b.run('discard all');
    t.equal(errorOf(await b.send([{ bind: ['1'], statement: 'plus' }, 'sync']))?.code, '26000');
    await holds(t, 'no pin', () => idle(live));
    await finish(a, b);
  });

  await t.test('a SQL-level statement and a protocol-level one of another session share a name', async (t) => {
    const [a, b] = await pair(t);
    await a.send([{ parse: `select 'protocol'`, name: 'shared' }, 'sync']);
    await b.run(`prepare shared as select 'sql'`);
    const waiting = a.send([{ bind: [], statement: 'shared' }, { execute: '' }, 'sync']);
    t.equal(await b.value('execute shared'), 'sql');
    await b.run('deallocate shared');
    t.strictSame(rowsOf(await waiting), [['protocol']]);
    await finish(a, b);
  });

  await t.test('the unnamed statement lasts over Syncs with other clients in between', async (t) => {
    const [a, b] = await pair(t);
    const run = async (client: SqlClient, value: string) =>
      rowsOf(await client.send([{ bind: [value] }, { execute: '' }, 'sync']))[0]?.[0];
    await a.send([{ parse: `select 'a' || $1` }, 'sync']);
    await b.send([{ parse: `select 'b' || $1` }, 'sync']);
    t.equal(await run(a, '1'), 'a1');
    t.equal(await run(b, '1'), 'b1');
    await b.run('select 1');
    t.equal(errorOf(await b.send([{ bind: ['1'] }, 'sync']))?.code, '26000', 'a simple query ends it');
    t.equal(await run(a, '2'), 'a2', 'for its own client only');
    const c = await live.connect();
    await a.send([{ parse: `select 'a again' || $1` }, 'sync']);
    t.equal(errorOf(await c.send([{ bind: ['1'] }, { execute: '' }, 'sync']))?.code, '26000', 'a new client has none');
    t.equal(errorOf(await c.send([{ describe: 'statement' }, 'sync']))?.code, '26000');
    t.equal(await run(a, '3'), 'a again3');
    t.equal(errorOf(await a.send([{ parse: 'select nothing from nowhere' }, 'sync']))?.code, '42P01');
    t.equal(errorOf(await a.send([{ bind: ['1'] }, 'sync']))?.code, '26000', 'a failed Parse leaves none');
    await finish(a, b, c);
  });

  await t.test('portals end with their transaction and are seen by their session only', async (t) => {
    const [a, b] = await pair(t);
    const open = [
      { parse: 'select generate_series(1, 5)' },
      { bind: [], portal: 'p' },
      { execute: 'p', rows: 2 },
    ] as const;
    const first = await a.send([{ query: 'begin' }, ...open, 'sync'], 2);
    t.strictSame(rowsOf(first), [['1'], ['2']]);
    const other = b.send([{ execute: 'p' }, 'sync']);
    t.strictSame(rowsOf(await a.send([{ execute: 'p', rows: 2 }, 'sync'])), [['3'], ['4']]);
    await a.run('commit');
    t.equal(errorOf(await other)?.code, '34000');
    t.equal(errorOf(await a.send([{ execute: 'p' }, 'sync']))?.code, '34000');
    t.strictSame(rowsOf(await a.send([...open, 'sync'])), [['1'], ['2']]);
    t.equal(
      errorOf(await b.send([{ execute: 'p' }, 'sync']))?.code,
      '34000',
      'one of an implicit transaction ends at Sync',
    );
    await finish(a, b);
  });

  await t.test('notifications reach those who listen, and nobody else', async (t) => {
    const wide = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
    const [a, b] = [await wide.connect(), await wide.connect()];
    const heard = (client: SqlClient) =>
      client.wire.received.flatMap((message) =>
        message.type === 'NotificationResponse' ? [`${message.channel}:${message.payload}`] : [],
      );
    await a.run('listen news');
    await b.run(`notify news, 'one'`);
    await a.wire.wait({ type: 'NotificationResponse' });
    t.strictSame(heard(a), ['news:one']);
    await b.run('begin', `notify news, 'two'`);
    t.strictSame(heard(a), ['news:one'], 'not before the commit');
    await b.run('commit');
    await a.wire.wait({ type: 'NotificationResponse' });
    await a.run('unlisten news');
    await b.run(`notify news, 'three'`, 'select 1');
    await a.run('select 1');
    t.strictSame(heard(a), ['news:one', 'news:two']);
    t.strictSame(heard(b), []);
    await a.run('listen self', `notify self, 'me'`);
    t.strictSame(heard(a).slice(2), ['self:me'], 'its own as well');
    const self = a.wire.received.findLast((message) => message.type === 'NotificationResponse');
    t.ok(self?.type === 'NotificationResponse' && self.pid > 0);
    await a.run('unlisten *');
    await a.end();
    await b.end();
  });

  await t.test('setseed makes random numbers of its own session predictable only', async (t) => {
    const numbers = 'select random(), random()';
    const server1 = await direct();
    await server1.run('select setseed(0.5)');
    const seeded = await server1.rows(numbers);
    await server1.end();
    for (const end of ['end', 'destroy', 'discard all'] as const) {
      const [a, b] = await pair(t);
      await a.run('select setseed(0.5)');
      if (end === 'end') t.strictSame(await a.rows(numbers), seeded);
      if (end === 'end') await a.end();
      else if (end === 'destroy') a.wire.destroy();
      else await a.run('discard all').then(() => void a.end());
      t.notSame(await b.rows(numbers), seeded, end);
      await finish(b);
    }
  });

  await t.test('currval and lastval see what their own session drew', async (t) => {
    const [a, b] = await pair(t);
    await a.run(`select setval('numbers', 100)`);
    t.equal(await a.value(`select nextval('numbers')`), '101');
    t.equal(await a.value('select lastval()'), '101');
    const other = b.fails(`select currval('numbers')`);
    t.equal(await a.value(`select currval('numbers')`), '101');
    await a.end();
    t.equal(await other, '55000');
    t.equal(await b.value(`select nextval('numbers')`), '102');
    await b.run('discard sequences');
    t.equal(await b.fails('select lastval()'), '55000', 'its own word');
    await b.run('discard all');
    await holds(t, 'DISCARD ALL lets the connection go', () => idle(live));
    t.equal(await b.value(`select nextval('numbers')`), '103');
    await b.end();
    const c = await live.connect();
    t.equal(await c.fails('select lastval()'), '55000', 'a value drawn by a session before');
    await finish(c);
  });

  await t.test('nextval alone does not keep a connection', async (t) => {
    const [a, b] = await pair(t);
    await a.run(`select nextval('numbers')`);
    await holds(t, 'free', () => idle(live));
    await b.run(`select nextval('numbers')`);
    await finish(a, b);
  });

  await t.test('notices reach the client whose statement raised them', async (t) => {
    const [a, b] = await pair(t);
    const notices = (client: SqlClient) =>
      client.wire.received.flatMap((message) => (message.type === 'NoticeResponse' ? [message.fields['M']] : []));
    await Promise.all([
      a.run(`do $$ begin raise notice 'for a'; end $$`),
      b.run(`do $$ begin raise notice 'for b'; end $$`),
    ]);
    await a.run(`set client_min_messages = error`, `do $$ begin raise notice 'for nobody'; end $$`);
    await b.run(`do $$ begin raise notice 'for b again'; end $$`);
    t.strictSame(notices(a), ['for a']);
    t.strictSame(notices(b), ['for b', 'for b again']);
    await finish(a, b);
  });

  await t.test('a large object descriptor ends with its transaction', async (t) => {
    const [a, b] = await pair(t);
    const oid = await a.value(`select lo_from_bytea(0, 'text')`);
    await a.run('begin');
    const descriptor = await a.value(`select lo_open(${oid}, 131072)`);
    t.equal(await a.value(`select convert_from(loread(${descriptor}, 10), 'UTF8')`), 'text');
    await a.run('commit');
    t.equal(await b.fails(`select loread(${descriptor}, 10)`), '42704');
    t.equal(await a.fails(`select loread(${descriptor}, 10)`), '42704');
    await a.run(`select lo_unlink(${oid})`);
    await finish(a, b);
  });

  for (const [name, begin] of [
    ['in a transaction', (a: SqlClient) => a.run('begin', 'insert into items values (500)', `set search_path = one`)],
    [
      'in a failed transaction',
      (a: SqlClient) => a.run('begin', 'insert into items values (500)').then(() => a.fails('select 1/0')),
    ],
    [
      'with a batch that has no Sync',
      (a: SqlClient) =>
        a.send([{ parse: 'insert into items values (500)' }, { bind: [] }, { execute: '' }, 'flush'], {
          type: 'CommandComplete',
        }),
    ],
    [
      'with a batch that failed and has no Sync',
      (a: SqlClient) => a.send([{ parse: 'select nothing' }, 'flush'], { type: 'ErrorResponse' }),
    ],
    [
      'with a portal suspended',
      (a: SqlClient) =>
        a.send(
          [{ parse: 'select generate_series(1, 9)' }, { bind: [], portal: 'p' }, { execute: 'p', rows: 1 }, 'flush'],
          { type: 'PortalSuspended' },
        ),
    ],
    [
      'in COPY FROM STDIN',
      (a: SqlClient) =>
        a.send([{ query: 'copy items from stdin' }, { copyData: '500\tx\n' }], { type: 'CopyInResponse' }),
    ],
    [
      'in COPY FROM STDIN of the extended protocol',
      (a: SqlClient) =>
        a.send([{ parse: 'copy items from stdin' }, { bind: [] }, { execute: '' }, 'flush'], {
          type: 'CopyInResponse',
        }),
    ],
    [
      'in the middle of a COPY message',
      async (a: SqlClient) => {
        await a.send([{ query: 'copy items from stdin' }], { type: 'CopyInResponse' });
        a.wire.sendBytes(Buffer.from([0x64, 0, 0, 0, 100, 0x35, 0x30]));
      },
    ],
    [
      'in COPY TO STDOUT',
      (a: SqlClient) =>
        a.send([{ query: 'copy (select generate_series(1, 300000)) to stdout' }], { type: 'CopyOutResponse' }),
    ],
    [
      'in the middle of a statement',
      async (a: SqlClient) =>
        a.wire.send({ query: 'insert into items values (500); select pg_sleep(0.2); select 1/0' }),
    ],
    ['in the middle of a message', async (a: SqlClient) => a.wire.sendBytes(Buffer.from([0x51, 0, 0, 0, 50, 0x53]))],
    [
      'with a lock and a cursor',
      (a: SqlClient) =>
        a.run('select pg_advisory_lock(9)', 'begin', 'declare c cursor with hold for select 1', 'commit'),
    ],
  ] as const) {
    for (const how of ['a reset', 'an end', 'Terminate'] as const) {
      // Inside a message Terminate is part of it.
      if (how === 'Terminate' && name.includes('message')) continue;
      await t.test(`a client vanishes ${name}, by ${how}`, async (t) => {
        const [a, b] = await pair(t);
        await begin(a);
        if (how === 'a reset') (a.wire.socket as Socket).resetAndDestroy();
        else if (how === 'an end') a.wire.socket.end();
        else a.wire.send('terminate');
        t.strictSame(await b.rows('select count(*) from items where id = 500'), [['0']], 'nothing of it was committed');
        t.equal(await b.value('show search_path'), '"$user", public');
        // The server finds out by itself that the connection is gone.
        const locks = `select 1 from pg_locks where locktype = 'advisory'`;
        for (let tries = 0; tries < 40 && (await b.rows(locks)).length > 0; tries++) await sleep(50);
        t.strictSame(await b.rows(locks), []);
        a.wire.destroy();
        await finish(b);
      });
    }
  }

  await t.test('two clients with different settings make progress side by side', async (t) => {
    const [a, b] = await pair(t);
    await a.run('set search_path = one');
    await b.run(`set search_path = two; set timezone = 'Asia/Tokyo'`);
    const both = [
      [a, 'one'],
      [b, 'two'],
    ] as const;
    await Promise.all(
      both.map(async ([client, name]) => {
        for (let round = 0; round < 30; round++) {
          if ((await client.value('select name from place')) !== name) throw new Error(`${name} saw another's`);
          if (round % 3 === 0) await client.run('begin', 'select name from place', 'commit');
        }
      }),
    );
    t.pass('sixty statements');
    await finish(a, b);
  });
});
