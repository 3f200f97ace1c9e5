// Statements of the fuzzer beside those on key-value tables: transaction control, ordinary and temporary tables, state of
// the session, catalogues, errors.
import type { Random } from './random.js';
import type { Touch } from './script.js';
import { type Form, form, int4, text } from './slots.js';

const NONE: Touch = { kind: 'none' };
const HOME: Touch = { kind: 'home' };
const CONTROL: Touch = { kind: 'control' };
const CATALOG: Touch = { kind: 'catalog' };

const plain = (touch: Touch, sql: string): Form => ({ pieces: [sql], slots: [], touch });

const BEGINS = [
  'begin',
  'begin',
  'begin',
  'BEGIN',
  'start transaction',
  'begin work',
  'begin isolation level repeatable read',
  'begin isolation level serializable',
  'begin read only',
  'start transaction read only',
  'begin isolation level read committed, read write',
  '/* c */ begin -- d',
];
const ENDS = [
  'commit',
  'commit',
  'commit',
  'end',
  'rollback',
  'rollback',
  'abort',
  'commit and chain',
  'rollback and chain',
  'commit and no chain',
  'ROLLBACK WORK',
];
const SAVEPOINTS = ['a', 'b', 'C'];

export const beginning = (random: Random): Form => plain(CONTROL, random.pick(BEGINS));
export const ending = (random: Random): Form => plain(CONTROL, random.pick(ENDS));

export function savepoint(random: Random): Form {
  const name = random.pick(SAVEPOINTS);
  const verb = random.pick([
    'savepoint',
    'savepoint',
    'rollback to',
    'rollback to savepoint',
    'release',
    'release savepoint',
  ]);
  return plain(CONTROL, `${verb} ${name}`);
}

const preparation = (random: Random): Form => {
  const name = random.pick(['q1', 'q2', 'P1']);
  return random.weighted<Form>([
    [3, plain(HOME, `prepare ${name} as select ${random.between(1, 9)} as n`)],
    [4, plain(HOME, `execute ${name}`)],
    [2, plain(NONE, `deallocate ${name}`)],
    [1, plain(NONE, 'deallocate all')],
  ]);
};

const SETTINGS = [
  "work_mem = '3MB'",
  "datestyle = 'German'",
  "timezone = 'Asia/Tokyo'",
  "app.user = 'x'",
  'lock_timeout = 0',
];
const SHOWN = ['work_mem', 'datestyle', 'timezone', 'transaction_isolation', 'transaction_read_only', 'search_path'];

const setting = (random: Random): Form =>
  random.weighted<Form>([
    [3, plain(NONE, `set ${random.pick(SETTINGS)}`)],
    [3, plain(NONE, `set local ${random.pick(SETTINGS)}`)],
    [4, plain(NONE, `show ${random.pick(SHOWN)}`)],
    [1, plain(NONE, `reset ${random.pick(['work_mem', 'datestyle', 'all'])}`)],
    [2, form(NONE)`select set_config('app.user', ${text('y')}, ${random.pick(['true', 'false'])})`],
    [2, plain(NONE, "select current_setting('app.user', true), current_setting('work_mem')")],
    [1, plain(NONE, 'set transaction isolation level repeatable read')],
    [1, plain(NONE, 'set transaction read only')],
    [1, plain(NONE, 'set constraints all deferred')],
  ]);

const state = (random: Random, session: number): Form =>
  random.weighted<Form>([
    [2, plain(HOME, 'listen c')],
    // Where the session listens, a transaction that does not go on is one that still listens.
    [2, plain(HOME, random.pick(['unlisten c', 'unlisten *']))],
    [2, plain(HOME, `notify c, '${random.between(1, 9)}'`)],
    [1, plain(NONE, 'discard plans')],
    [1, plain(HOME, 'discard all')],
    [1, plain(HOME, random.pick(['discard sequences', 'discard temp']))],
    [1, plain(NONE, 'close all')],
    [
      2,
      plain(
        HOME,
        random.pick([
          'declare k cursor for select generate_series(1, 5)',
          'fetch 2 from k',
          'close k',
          'fetch all from k',
        ]),
      ),
    ],
    [1, plain(HOME, `select pg_try_advisory_xact_lock(${session})`)],
    [1, plain(NONE, random.pick(['select pg_advisory_unlock_all()', `select pg_advisory_unlock(${session})`]))],
    [1, plain(HOME, `select pg_advisory_lock(${session})`)],
    [
      4,
      plain(
        HOME,
        random.pick([
          'create temp table scratch (n int)',
          'create temp table scratch (n int) on commit drop',
          'insert into scratch values (1), (2)',
          'select count(*) from scratch',
          'drop table scratch',
        ]),
      ),
    ],
    [1, plain(HOME, `do $$ begin raise notice 'done'; end $$`)],
    [1, plain(HOME, `do $$ begin perform 1 / 0; end $$`)],
    [1, plain({ kind: 'unsupported', what: 'two-phase commit' }, `prepare transaction 'g'`)],
  ]);

const table = (random: Random, session: number): Form => {
  const id = int4(100 * session + random.between(1, 4));
  return random.weighted<Form>([
    [3, form(HOME)`insert into note (id, text) values (${id}, ${text('n')})`],
    [1, form(HOME)`insert into note (id, text) values (${id}, ${text('n')}) returning id`],
    [2, form(HOME)`update note set text = ${text('m')} where id = ${id}`],
    [2, form(HOME)`delete from note where id = ${id}`],
    [3, form(HOME)`select text from note where id = ${id}`],
    [1, plain(HOME, `select count(*) from note where id between ${100 * session} and ${100 * session + 99}`)],
    [1, plain(HOME, 'copy (select 1, 2) to stdout')],
  ]);
};

const catalogue = (random: Random): Form =>
  plain(
    CATALOG,
    random.pick([
      `select relkind from pg_class where relname = 'kv'`,
      `select count(*) from pg_attribute where attrelid = 'kv'::regclass and attnum > 0`,
      `select count(*) from pg_class where relname = 'note'`,
      `select table_name from information_schema.tables where table_schema = 'public' order by table_name`,
      `select 'note'::regclass::text`,
    ]),
  );

const harmless = (random: Random): Form =>
  random.weighted<Form>([
    [3, plain(NONE, 'select 1')],
    [2, form(NONE)`select ${int4(random.between(1, 9))}::int + 1 as n, ${text('é')}::text as t`],
    [1, plain(NONE, 'select generate_series(1, 4) as n')],
    [1, plain(NONE, '')],
    [1, plain(NONE, 'select now() = statement_timestamp() is not null')],
    [1, plain(NONE, 'select null::int as n, true as b')],
  ]);

const wrong = (random: Random): Form =>
  random.weighted<Form>([
    [
      6,
      plain(
        NONE,
        random.pick(['select 1 / 0', 'select nothing', 'selec 1', "select 'x'::int", 'commit foo', 'select (']),
      ),
    ],
    // Where there is no such table is for the home shard to say.
    [1, plain(HOME, 'select * from nowhere')],
  ]);

/** Anything that names no key-value table and ends no block. */
export function sessionStatement(random: Random, session: number): Form {
  return random.weighted<() => Form>([
    [4, () => setting(random)],
    [3, () => state(random, session)],
    [3, () => table(random, session)],
    [2, () => preparation(random)],
    [2, () => catalogue(random)],
    [4, () => harmless(random)],
    [3, () => wrong(random)],
  ])();
}
