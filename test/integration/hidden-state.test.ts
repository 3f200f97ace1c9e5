// State that a statement's text does not show: built-in functions called by views, rules, defaults, constraints and
// policies; sequence state behind writes that drew nothing; texts pipelined behind what changes how they are read.
// Two clients share one server connection; the second must never see what the first left.
import t from 'tap';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { rowsOf, SqlClient } from '../support/sql-client.js';

const server = await startPostgres({ version: 'embedded' });
t.teardown(() => server.stop());

/** Each on a database of its own: where one is found, every write or read of that database is looked behind. */
const HIDDEN: Readonly<Record<string, { readonly made: string; readonly used: string }>> = {
  'a view that sets a setting': {
    made: `create view v as select set_config('timezone', 'Asia/Tokyo', false) as z`,
    used: 'select * from v',
  },
  'a default that sets a setting': {
    made: `create table d (a int, z text default set_config('timezone', 'Asia/Tokyo', false))`,
    used: 'insert into d (a) values (1)',
  },
  'a check that sets a setting': {
    made: `create table c (a int check (set_config('timezone', 'Asia/Tokyo', false) is not null))`,
    used: 'insert into c values (1)',
  },
  'a rule that sets a setting': {
    made: `create table r (a int);
      create rule seen as on insert to r do also select set_config('timezone', 'Asia/Tokyo', false)`,
    used: 'insert into r values (1)',
  },
};

let database = 0;
for (const [name, { made, used }] of Object.entries(HIDDEN)) {
  t.test(`${name} leaves nothing to the next client`, async (t) => {
    const here = `hidden_${++database}`;
    const admin = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
    await admin.run(`create database ${here}`);
    await admin.end();
    const maker = await SqlClient.connect(server, { user: server.superuser, database: here });
    await maker.run(made);
    await maker.end();
    const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
    const first = await live.connect({ user: server.superuser, database: here });
    const second = await live.connect({ user: server.superuser, database: here });
    const before = await second.value('show timezone');
    await first.run(used);
    t.equal(await first.value('show timezone'), 'Asia/Tokyo', 'it is the setting of the client that did it');
    t.equal(await second.value('show timezone'), before);
    await first.end();
    await second.end();
    await live.quiet();
  });
}

t.test('lastval() behind a write that drew nothing shows no value of another client', async (t) => {
  const admin = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
  await admin.run('create sequence numbers; create table plain (a int); insert into plain values (1)');
  await admin.run('create table numbered (id serial, a int)');
  await admin.end();
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const options = { user: server.superuser, database: 'postgres' };
  const first = await live.connect(options);
  const second = await live.connect(options);
  await first.run(`select nextval('numbers')`);
  await second.run('update plain set a = 2');
  t.equal(await second.fails('select lastval()'), '55000');
  await second.end();
  await first.run(`select nextval('numbers')`);
  const third = await live.connect(options);
  await third.run('begin');
  await third.run('update plain set a = 3');
  t.equal(await third.fails('select lastval()'), '55000', 'nor inside a transaction');
  await third.run('rollback');
  await third.run('begin');
  await third.run('insert into numbered (a) values (1)');
  t.equal(await third.value('select lastval()'), '1', 'but its own');
  await third.run('commit');
  await third.end();
  await first.end();
  await live.quiet();
});

t.test('a text pipelined behind SET standard_conforming_strings is read with the new meaning', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
  const options = { user: server.superuser, database: 'postgres' };
  const first = await live.connect(options);
  const second = await live.connect(options);
  const before = await second.value('show timezone');
  // Read the old way, the first string ends at the backslash and set_config stands inside the second.
  const hidden = String.raw`select 'a\', set_config($$timezone$$, $$Asia/Tokyo$$, false), '' as "\'"`;
  const plain = String.raw`select 'a\' || ', set_config('timezone', 'Asia/Tokyo', false), 'b'`;
  for (const text of [hidden, plain]) {
    await first.send([{ query: 'set standard_conforming_strings = off' }, { query: text }], 2);
    const own = rowsOf(await first.send([{ query: 'show timezone' }], 1))[0]?.[0];
    const direct = await SqlClient.connect(server, options);
    await direct.send([{ query: 'set standard_conforming_strings = off' }, { query: text }], 2);
    t.equal(own, await direct.value('show timezone'), 'what the server itself makes of it');
    await direct.end();
    await first.run('reset timezone', 'reset standard_conforming_strings');
  }
  t.equal(await second.value('show timezone'), before);
  await first.end();
  await second.end();
  await live.quiet();
});
