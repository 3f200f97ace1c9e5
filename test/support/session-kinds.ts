// The kinds of state a session can have, as statements: how it comes about, how it shows, how it ends. The same
// statements on the server itself say what a session must see of its own state; a session that has none says what
// every other must see.

export interface StateKind {
  readonly name: string;
  readonly make: readonly string[];
  /** Shows the state; its answer to a session without it must differ, unless `leavesNothing`. */
  readonly probe: readonly string[];
  readonly undo: readonly string[];
  /** Default: one in which no code is hidden. */
  readonly database?: typeof HIDDEN_CODE;
  /** The state lives in one server session: nobody else gets that connection before it has ended. */
  readonly pins?: true;
  /** After `make` nothing is left. */
  readonly leavesNothing?: true;
  /** `undo` does not let the connection go: only the end of the session does. */
  readonly pinsToTheEnd?: true;
}

/** Objects the kinds use, run once on the server by its superuser. */
export const STATE_KINDS_SETUP = `
  create role app_reader nologin;
  create role app_owner nologin superuser;
  grant pg_read_all_data to app_reader;
  create schema one; create schema two;
  create table one.place as select 'one' as name;
  create table two.place as select 'two' as name;
  create table items (id int primary key, note text);
  create sequence numbers;
  create function set_path() returns void language plpgsql as $$
    begin set search_path = one, public; end $$;
  create function set_note(value text) returns text language sql as $$
    select set_config('work_mem', value, false) $$;
  create function with_own_setting() returns text language plpgsql set work_mem = '3MB' as $$
    begin return current_setting('work_mem'); end $$;
  create function make_temp() returns void language plpgsql as $$
    begin create temp table made_inside (x int); end $$;
  create function lock_inside() returns void language plpgsql as $$
    begin perform pg_advisory_lock(4711); end $$;
  create procedure set_path_by_call() language plpgsql as $$ begin set search_path = two; end $$;
`;

/** A database in which statements run code that they do not show: every one of them has to be suspected there. */
export const HIDDEN_CODE = 'hidden_code';
export const HIDDEN_CODE_SETUP = `
  create schema two;
  create table two.place as select 'two' as name;
  create table watched (id int);
  create function on_watched() returns trigger language plpgsql as $$
    begin perform set_config('search_path', 'two, public', false); return new; end $$;
  create trigger watched before insert on watched for each row execute function on_watched();
  create table watched_locks (id int);
  create function on_watched_locks() returns trigger language plpgsql as $$
    begin perform pg_advisory_lock(4712); return new; end $$;
  create trigger watched before insert on watched_locks for each row execute function on_watched_locks();
  create function default_with_effect() returns int language plpgsql as $$
    begin perform set_config('extra_float_digits', '-3', false); return 1; end $$;
  create table with_default (id int default default_with_effect());
  create view with_effect as select default_with_effect() as id;
  create function quiet_caller() returns int language sql as $$ select default_with_effect() $$;
  create function compare_with_effect(a int, b int) returns bool language plpgsql as $$
    begin perform quiet_caller(); return a = b; end $$;
  create operator === (function = compare_with_effect, leftarg = int, rightarg = int);
  create table secured (id int);
  create rule noisy as on insert to secured do also select pg_advisory_lock(4713) from (select quiet_caller()) q;
`;

const PLACE = 'select name from place';
const ADVISORY = `select classid, objid, mode from pg_locks
  where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2, 3`;
/** The temporary schema itself stays once it has been made: an error would say "no such schema" or "no such object". */
const inTemp = (catalog: string, schemaColumn: string) =>
  `select count(*) from ${catalog} where ${schemaColumn} = pg_my_temp_schema()`;
const FLOAT = 'select 1/3.0::float8';

/** A setting that is carried from connection to connection. */
const carried = (name: string, value: string, probe: string = `show ${name}`): StateKind => ({
  name: `SET ${name}`,
  make: [`set ${name} = ${value}`],
  probe: [probe],
  undo: [`reset ${name}`],
});

export const STATE_KINDS: readonly StateKind[] = [
  carried('search_path', 'one, public', PLACE),
  carried('TimeZone', `'Asia/Tokyo'`, `select timestamptz '2026-01-01 00:00:00+00'`),
  carried('DateStyle', `'German'`, `select date '2026-01-31'`),
  carried('IntervalStyle', 'sql_standard', `select interval '1 day 2 hours'`),
  carried('extra_float_digits', '-5', FLOAT),
  carried('bytea_output', 'escape', `select '\\x00ff'::bytea`),
  carried('client_encoding', `'LATIN1'`, `select 'a' || chr(228)`),
  carried('statement_timeout', `'60ms'`, 'select pg_sleep(0.15)'),
  carried('lock_timeout', `'7s'`),
  carried('idle_in_transaction_session_timeout', `'71s'`),
  carried('work_mem', `'7MB'`),
  carried('default_transaction_isolation', 'serializable', 'show transaction_isolation'),
  carried('default_transaction_read_only', 'on', 'show transaction_read_only'),
  carried('standard_conforming_strings', 'off', `select 'a\\\\b'`),
  carried('escape_string_warning', 'off'),
  carried('client_min_messages', 'error', 'create table if not exists items (id int)'),
  carried('plan_cache_mode', 'force_custom_plan'),
  carried('enable_indexscan', 'off', 'explain (costs off) select * from items where id = 1'),
  carried('synchronous_commit', 'remote_write'),
  carried('row_security', 'off'),
  carried('default_text_search_config', `'pg_catalog.german'`, `select to_tsvector('die Katzen')`),
  carried('application_name', `'somebody'`),
  carried('jit', 'off'),
  carried('xmloption', 'document', `select '<a/><b/>' is document`),
  carried('transform_null_equals', 'on', 'select null = null'),
  carried('session_replication_role', 'replica'),
  carried('app.tenant', `'t1'`, `select current_setting('app.tenant', true)`),
  carried('"App.Quoted"', `'a ''b'' \\c'`, `select current_setting('app.quoted', true)`),
  {
    name: 'SET TIME ZONE',
    make: ["set time zone interval '+05:30' hour to minute"],
    probe: [`select timestamptz '2026-01-01 00:00:00+00'`],
    undo: ['set time zone default'],
  },
  { name: 'SET NAMES', make: [`set names 'LATIN1'`], probe: ['show client_encoding'], undo: ['set names default'] },
  { name: 'SET SCHEMA', make: [`set schema 'two'`], probe: [PLACE], undo: ['reset search_path'] },
  {
    name: 'SET ROLE',
    make: ['set role app_reader'],
    probe: ['select current_user, session_user', 'select count(*) from pg_authid where false'],
    undo: ['reset role'],
  },
  {
    name: 'SET ROLE to another role after the first, then NONE',
    make: ['set role app_reader', 'select 1', 'set role app_owner', 'select 1', 'set role none'],
    probe: ['select current_user, session_user'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'a setting that the role set afterwards may not see',
    make: [`set dynamic_library_path = '/nowhere'`, 'set role app_reader'],
    probe: ['select current_user', 'show dynamic_library_path'],
    undo: ['reset role', 'reset dynamic_library_path'],
    pins: true,
    pinsToTheEnd: true,
  },
  {
    name: 'a setting that the role set afterwards may not set',
    make: [`set session_replication_role = 'replica'`, 'set role app_reader'],
    probe: ['select current_user', 'show session_replication_role'],
    undo: ['reset role', 'reset session_replication_role'],
  },
  {
    name: 'session characteristics',
    make: ['set session characteristics as transaction isolation level repeatable read, read only, deferrable'],
    probe: ['show transaction_isolation', 'show transaction_read_only', 'show transaction_deferrable'],
    undo: ['set session characteristics as transaction isolation level read committed, read write, not deferrable'],
  },
  {
    name: 'SET that was rolled back',
    make: ['begin', 'set search_path = one', `set app.rolled = 'x'`, 'rollback'],
    probe: [PLACE, 'show search_path'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET that was rolled back by an error',
    make: ['begin', 'set search_path = one', 'select 1/0', 'commit'],
    probe: [PLACE],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET in a simple query whose later statement failed',
    make: ['set search_path = one; select 1/0'],
    probe: [PLACE],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET in a simple query of several statements',
    make: [`select 1; set search_path = one; set app.multi = 'm'; select 2`],
    probe: [PLACE, `select current_setting('app.multi', true)`],
    undo: ['reset search_path; reset app.multi'],
  },
  {
    name: 'SET LOCAL that was committed',
    make: ['begin', 'set local search_path = one', 'select 1', 'commit'],
    probe: [PLACE],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET LOCAL of a custom setting',
    make: ['begin', `set local app.local = 'l'`, 'commit'],
    probe: [`select current_setting('app.local', true)`],
    undo: [],
  },
  {
    name: 'SET inside a savepoint that was rolled back, over an earlier SET',
    make: [
      'begin',
      'set search_path = one',
      'savepoint s',
      'set search_path = two',
      `set app.savepoint = 'x'`,
      'rollback to s',
      'commit',
    ],
    probe: [PLACE],
    undo: ['reset search_path'],
  },
  {
    name: 'SET inside a released savepoint',
    make: ['begin', 'savepoint s', 'set search_path = two', 'release s', 'commit'],
    probe: [PLACE],
    undo: ['reset search_path'],
  },
  {
    name: 'set_config for the session',
    make: [`select set_config('search_path', 'two', false), set_config('app.c', 'v', false)`],
    probe: [PLACE, `select current_setting('app.c', true)`],
    undo: [`select set_config('search_path', null, false), set_config('app.c', null, false)`],
  },
  {
    name: 'set_config for the transaction',
    make: ['begin', `select set_config('search_path', 'two', true)`, PLACE, 'commit'],
    probe: [PLACE],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'set_config of a setting whose name is computed',
    make: [`select set_config('app.' || 'computed', 'v', false)`],
    probe: [`select current_setting('app.computed', true)`],
    undo: ['reset app.computed'],
    pins: true,
    pinsToTheEnd: true,
  },
  {
    name: 'UPDATE pg_settings',
    make: [`update pg_settings set setting = 'two' where name = 'search_path'`],
    probe: [PLACE],
    undo: ['reset search_path'],
  },
  {
    name: 'SET in a DO block',
    make: ["do $$ begin set search_path = two; perform set_config('work_mem', '9MB', false); end $$"],
    probe: [PLACE, 'show work_mem'],
    undo: ['reset search_path', 'reset work_mem'],
  },
  {
    name: 'SET of a custom setting in a DO block',
    make: [`do $$ begin perform set_config('app.inside', 'i', false); end $$`],
    probe: [`select current_setting('app.inside', true)`],
    undo: ['reset app.inside'],
  },
  { name: 'SET in a function', make: ['select set_path()'], probe: [PLACE], undo: ['reset search_path'] },
  {
    name: 'set_config in a SQL function',
    make: [`select set_note('11MB')`],
    probe: ['show work_mem'],
    undo: ['reset work_mem'],
  },
  {
    name: 'SET in a procedure',
    make: ['call set_path_by_call()'],
    probe: [`select name from one.place`, 'show search_path'],
    undo: ['reset search_path'],
  },
  {
    name: 'a function with settings of its own',
    make: ['select with_own_setting()'],
    probe: ['show work_mem'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET in a trigger',
    database: HIDDEN_CODE,
    make: ['insert into watched values (1)'],
    probe: [PLACE],
    undo: ['reset search_path'],
  },
  {
    name: 'SET in a default expression',
    database: HIDDEN_CODE,
    make: ['insert into with_default default values'],
    probe: [FLOAT],
    undo: ['reset extra_float_digits'],
  },
  {
    name: 'SET in a view',
    database: HIDDEN_CODE,
    make: ['select id from with_effect'],
    probe: [FLOAT],
    undo: ['reset extra_float_digits'],
  },
  {
    name: 'SET in a function that an operator calls in two steps',
    database: HIDDEN_CODE,
    make: ['select 1 === 1'],
    probe: [FLOAT],
    undo: ['reset extra_float_digits'],
  },
  {
    name: 'what a rule adds to a statement',
    database: HIDDEN_CODE,
    make: ['insert into secured values (1)'],
    probe: [ADVISORY, FLOAT],
    undo: ['select pg_advisory_unlock_all()', 'reset extra_float_digits'],
    pins: true,
  },
  {
    name: 'SET, then RESET',
    make: ['set search_path = one', PLACE, 'reset search_path'],
    probe: [PLACE],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET, then SET TO DEFAULT',
    make: ['set search_path = one', PLACE, 'set search_path to default'],
    probe: [PLACE],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET, then RESET ALL',
    make: ['set search_path = one', 'set work_mem = 999', 'set role app_reader', 'reset all'],
    probe: [PLACE, 'show work_mem', 'select current_user'],
    undo: ['reset role'],
  },
  {
    name: 'SET, then DISCARD ALL',
    make: ['set search_path = one', 'set role app_reader', 'create temp table t (x int)', 'listen x', 'discard all'],
    probe: [PLACE, 'select current_user', 'table t', 'select pg_listening_channels()'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'SET SESSION AUTHORIZATION',
    make: ['set session authorization app_reader'],
    probe: ['select current_user, session_user'],
    undo: ['reset session authorization'],
    pins: true,
    pinsToTheEnd: true,
  },
  {
    name: 'temporary table',
    make: ['create temp table t (x int)', 'insert into t values (7)'],
    probe: ['select x from t'],
    undo: ['drop table t'],
    pins: true,
  },
  {
    name: 'temporary table made by a SELECT',
    make: ['select 8 as x into temp t'],
    probe: ['select x from t'],
    undo: ['discard temp'],
    pins: true,
  },
  {
    name: 'temporary table made by CREATE TABLE AS in a transaction',
    make: ['begin', 'create temp table t as select 9 as x', 'commit'],
    probe: ['select x from t'],
    undo: ['drop table t'],
    pins: true,
  },
  {
    name: 'temporary table whose transaction was rolled back',
    make: ['begin', 'create temp table t (x int)', 'rollback'],
    probe: ['select x from t'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'temporary table with ON COMMIT DROP',
    make: ['begin', 'create temp table t (x int) on commit drop', 'insert into t values (1)', 'table t', 'commit'],
    probe: ['select x from t'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'temporary table that hides another',
    make: ["create temp table items as select 1 as id, 'mine' as note"],
    probe: ['select note from items'],
    undo: ['drop table pg_temp.items'],
    pins: true,
  },
  {
    name: 'temporary table made by a function',
    make: ['select make_temp()'],
    probe: ['select count(*) from made_inside'],
    undo: ['drop table made_inside'],
    pins: true,
  },
  {
    name: 'temporary table made by a DO block',
    make: ['do $$ begin create temp table t as select 5 as x; end $$'],
    probe: ['select x from t'],
    undo: ['drop table t'],
    pins: true,
  },
  {
    name: 'table made with pg_temp first in search_path',
    make: ['set search_path = pg_temp, public', 'create table t as select 6 as x'],
    probe: ['select x from t', 'show search_path'],
    undo: ['drop table t', 'reset search_path'],
    pins: true,
  },
  {
    name: 'temporary view',
    make: ['create temp view v as select 5 as x'],
    probe: ['select x from v'],
    undo: ['drop view v'],
    pins: true,
  },
  {
    name: 'temporary function',
    make: ['create function pg_temp.f() returns int language sql as $$ select 42 $$'],
    probe: [inTemp('pg_proc', 'pronamespace')],
    undo: ['drop function pg_temp.f()'],
    pins: true,
  },
  {
    name: 'temporary type',
    make: [`create type pg_temp.mood as enum ('sad')`],
    probe: [inTemp('pg_type', 'typnamespace')],
    undo: ['drop type pg_temp.mood'],
    pins: true,
  },
  {
    name: 'temporary domain',
    make: ['create domain pg_temp.small as int check (value < 10)'],
    probe: [inTemp('pg_type', 'typnamespace')],
    undo: ['drop domain pg_temp.small'],
    pins: true,
  },
  {
    name: 'temporary operator',
    make: ['create operator pg_temp.@@@ (function = int4pl, leftarg = int, rightarg = int)'],
    probe: [inTemp('pg_operator', 'oprnamespace')],
    undo: ['drop operator pg_temp.@@@ (int, int)'],
    pins: true,
  },
  {
    name: 'temporary text search configuration',
    make: ['create text search configuration pg_temp.mine (copy = pg_catalog.simple)'],
    probe: [inTemp('pg_ts_config', 'cfgnamespace')],
    undo: ['drop text search configuration pg_temp.mine'],
    pins: true,
  },
  {
    name: 'temporary sequence',
    make: ['create temp sequence mine'],
    probe: [`select is_called from mine`],
    undo: ['drop sequence mine'],
    pins: true,
  },
  {
    name: 'LISTEN',
    make: ['listen news', 'listen weather'],
    probe: ['select channel from pg_listening_channels() channel order by 1'],
    undo: ['unlisten news', 'unlisten weather'],
    pins: true,
  },
  {
    name: 'LISTEN, then UNLISTEN *',
    make: ['listen news', 'listen weather', 'unlisten *'],
    probe: ['select channel from pg_listening_channels() channel'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'LISTEN that was rolled back',
    make: ['begin', 'listen news', 'rollback'],
    probe: ['select channel from pg_listening_channels() channel'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'cursor WITH HOLD',
    make: ['begin', 'declare c cursor with hold for select generate_series(1, 100)', 'commit'],
    probe: ['fetch 0 from c'],
    undo: ['close c'],
    pins: true,
  },
  {
    name: 'cursor WITH HOLD read to its end and closed by CLOSE ALL',
    make: ['declare c cursor with hold for select generate_series(1, 3)', 'fetch all from c'],
    probe: ['select name from pg_cursors where is_holdable'],
    undo: ['close all'],
    pins: true,
  },
  {
    name: 'cursor without HOLD',
    make: ['begin', 'declare c cursor for select 1', 'fetch 1 from c', 'commit'],
    probe: ['fetch 0 from c'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'PREPARE',
    make: ['prepare p (int) as select $1 + 1'],
    probe: ['execute p (1)'],
    undo: ['deallocate p'],
    pins: true,
  },
  {
    name: 'PREPARE, then DEALLOCATE ALL',
    make: ['prepare p as select 1', 'prepare q as select 2', 'deallocate all'],
    probe: ['execute p', 'execute q', 'select count(*) from pg_prepared_statements'],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'EXECUTE of a prepared statement that calls a function with an effect',
    make: ['prepare p as select set_path()', 'execute p', 'deallocate p'],
    probe: [PLACE],
    undo: ['reset search_path'],
  },
  {
    name: 'advisory lock of the session',
    make: ['select pg_advisory_lock(1234)'],
    probe: [ADVISORY],
    undo: ['select pg_advisory_unlock(1234)'],
    pins: true,
  },
  {
    name: 'shared advisory lock of the session',
    make: ['select pg_advisory_lock_shared(12, 34)'],
    probe: [ADVISORY],
    undo: ['select pg_advisory_unlock_shared(12, 34)'],
    pins: true,
  },
  {
    name: 'advisory lock taken several times',
    make: [
      'select pg_advisory_lock(77), pg_advisory_lock(77), pg_try_advisory_lock(77)',
      'select pg_advisory_unlock(77)',
    ],
    probe: [ADVISORY],
    undo: ['select pg_advisory_unlock(77)', 'select pg_advisory_unlock(77)'],
    pins: true,
  },
  {
    name: 'advisory lock taken in a transaction that was rolled back',
    make: ['begin', 'select pg_advisory_lock(78)', 'rollback'],
    probe: [ADVISORY],
    undo: ['select pg_advisory_unlock_all()'],
    pins: true,
  },
  {
    name: 'advisory lock of a transaction',
    make: ['begin', 'select pg_advisory_xact_lock(79)', ADVISORY, 'commit'],
    probe: [ADVISORY],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'advisory lock taken by a function',
    make: ['select lock_inside()'],
    probe: [ADVISORY],
    undo: ['select pg_advisory_unlock(4711)'],
    pins: true,
  },
  {
    name: 'advisory lock taken by a trigger',
    database: HIDDEN_CODE,
    make: ['insert into watched_locks values (1)'],
    probe: [ADVISORY],
    undo: ['select pg_advisory_unlock(4712)'],
    pins: true,
  },
  {
    name: 'setseed',
    make: ['select setseed(0.25)', 'select random()'],
    probe: ['select random() = 0'], // the state itself has a test of its own
    undo: [],
    leavesNothing: true,
    pins: true,
    pinsToTheEnd: true,
  },
  {
    name: 'LOAD',
    make: [`load 'auto_explain'`],
    probe: [`select count(*) from pg_settings where name like 'auto_explain.%' and category like 'Custom%'`],
    undo: [],
    pins: true,
    pinsToTheEnd: true,
  },
  {
    name: 'large object descriptor',
    make: ['begin', 'select lo_open(lo_create(0), 131072)', 'commit'],
    probe: [`select lo_tell(0)`],
    undo: [],
    leavesNothing: true,
  },
  {
    name: 'DISCARD PLANS',
    make: ['set plan_cache_mode = force_generic_plan', 'discard plans'],
    probe: ['show plan_cache_mode'],
    undo: ['reset plan_cache_mode'],
  },
  {
    name: 'an error in a transaction, then its end',
    make: ['begin', 'select no_such_column', 'select 1', 'rollback'],
    probe: ['select 1'],
    undo: [],
    leavesNothing: true,
  },
];
