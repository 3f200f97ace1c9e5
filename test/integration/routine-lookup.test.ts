// What pgkv has to know of a database's routines is asked beside its clients (B19): neither locks on tables that views use,
// nor settings of a session hold anybody up, and what a session is owed by its own new code is known in time.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';

const server = await startPostgres({ version: 'embedded' });
t.teardown(() => server.stop());
const direct = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
t.teardown(() => direct.end());
await direct.run('CREATE TABLE behind_view (a int)', 'CREATE VIEW on_it AS SELECT a FROM behind_view');

/** Far above what is waited for, far below what the lock is held. */
const HELD_MS = 20_000;

t.test('a lock on a table that a view uses holds up nobody, in first use and after DDL of every kind', async (t) => {
  await direct.run('BEGIN', 'LOCK TABLE behind_view IN ACCESS EXCLUSIVE MODE');
  const live = await liveRouter(t, [server]);
  const start = performance.now();
  const [author, other] = [await live.connect(), await live.connect()];
  const ddl = [
    'CREATE TEMP TABLE own (a int)',
    'CREATE TABLE plain (id int PRIMARY KEY)',
    'CREATE TABLE with_default (id int DEFAULT 3)',
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    'CREATE VIEW other_view AS SELECT id FROM plain',
    'DROP VIEW other_view',
    'DROP FUNCTION f()',
    'DROP TABLE plain, with_default',
  ];
  for (const statement of ddl) {
    await author.run(statement);
    t.equal(await other.value('SELECT 7'), '7', statement);
  }
  t.ok(performance.now() - start < HELD_MS / 2, `${Math.round(performance.now() - start)} ms`);
  await direct.run('ROLLBACK');
});

t.test('settings of sessions and roles do not reach the look-up', async (t) => {
  await direct.run(
    'CREATE ROLE slow SUPERUSER LOGIN',
    ...[
      'enable_seqscan = off',
      'enable_indexscan = off',
      'enable_hashjoin = off',
      'jit_above_cost = 0',
      'jit = on',
    ].map((setting) => `ALTER ROLE slow SET ${setting}`),
    "ALTER ROLE slow SET statement_timeout = '1ms'",
  );
  const live = await liveRouter(t, [server]);
  const client = await live.connect({ user: 'slow' });
  await client.answers('SELECT 1');
  const beside = () =>
    direct.value(
      "SELECT count(*) FROM pg_stat_activity WHERE usename = 'slow' AND application_name = 'pgkv' AND state = 'idle'",
    );
  while ((await beside()) === '0') await sleep(5);
  t.notMatch(server.log(), /statement timeout[^\n]*\n[^\n]*pgkv_news/);
  t.pass('it ran beside the session, and was not cut off');
});

t.test('what a function sets stays with its session, from the first statement on', async (t) => {
  await direct.run(
    "CREATE FUNCTION enter(who text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.who', who, false) $$",
  );
  for (let round = 0; round < 5; round++) {
    const live = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
    const [first, second] = [await live.connect(), await live.connect()];
    await first.run(`SELECT enter('first ${round}')`);
    t.match(await second.value("SELECT coalesce(current_setting('app.who', true), '')"), /^$/);
    t.equal(await first.value("SELECT current_setting('app.who')"), `first ${round}`);
    // And code that is only a statement old.
    await first.run(
      `CREATE FUNCTION leave${round}() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.new${round}', 'x', false) $$`,
    );
    await first.run(`SELECT leave${round}()`);
    t.match(await second.value(`SELECT coalesce(current_setting('app.new${round}', true), '')`), /^$/);
    t.equal(await first.value(`SELECT current_setting('app.new${round}')`), 'x');
  }
});
