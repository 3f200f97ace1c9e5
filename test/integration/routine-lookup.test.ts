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

t.test(
  'while the look-up is refused sessions that write keep their connections, and share them again afterwards',
  async (t) => {
    await direct.run(
      'CREATE ROLE app LOGIN',
      'CREATE TABLE written (id int)',
      'GRANT ALL ON written TO app',
      'REVOKE SELECT ON pg_rewrite FROM PUBLIC',
    );
    const live = await liveRouter(t, [server], { pool: { sizeMax: 2, waitTimeoutMs: HELD_MS } });
    const clients = await Promise.all(Array.from({ length: 6 }, () => live.connect({ user: 'app' })));
    const write = (client: SqlClient): Promise<unknown> => client.run('INSERT INTO written VALUES (1)');
    // Two of them get connections, and keep them: what their writes have left nobody knows.
    const writes = clients.map(write);
    await Promise.race(writes);
    const rows = () => direct.value('SELECT count(*) FROM written');
    while ((await rows()) !== '2') await sleep(20);
    // As long as who holds a connection waits for an answer, and longer.
    await sleep(2_500);
    t.equal(await rows(), '2', 'the others wait');
    await direct.run('GRANT SELECT ON pg_rewrite TO PUBLIC');
    await Promise.all(writes);
    for (let round = 0; round < 3; round++) await Promise.all(clients.map(write));
    t.equal(await rows(), '24');
  },
);

t.test('what code has set under a made-up name meanwhile stays with its session', async (t) => {
  await direct.run(
    `CREATE OR REPLACE FUNCTION make_up() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN EXECUTE 'SET app.made' || NEW.id || ' = 1'; RETURN NEW; END $$`,
    'CREATE TABLE guarded (id int)',
    'CREATE TRIGGER t BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION make_up()',
    'GRANT ALL ON guarded TO app',
    'REVOKE SELECT ON pg_rewrite FROM PUBLIC',
  );
  const live = await liveRouter(t, [server], { pool: { sizeMax: 2 } });
  const [first, second] = [await live.connect({ user: 'app' }), await live.connect({ user: 'app' })];
  await first.run('INSERT INTO guarded VALUES (1)');
  await direct.run('GRANT SELECT ON pg_rewrite TO PUBLIC');
  await sleep(2_500);
  for (let round = 0; round < 3; round++) {
    t.equal(await second.value("SELECT current_setting('app.made1', true) IS NULL"), 't');
    t.equal(await first.value("SELECT current_setting('app.made1', true)"), '1');
  }
  await direct.run('DROP TABLE guarded', 'DROP FUNCTION make_up()');
});
