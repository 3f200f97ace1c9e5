// Settings, roles and session users that code changes without saying so in the client's text: every way to change one ×
// every carrier of code × both protocols × what becomes of the transaction. A second client on the only server
// connection must see what a fresh session of plain Postgres sees, and the first what its own session there sees.
// A seeded part runs each time; PGKV_UNSEEN=all runs the whole product, or those with these words in their names.
import t from 'tap';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';
import { rowsOf, SqlClient } from '../support/sql-client.js';

const server = await startPostgres({ version: 'embedded' });
t.teardown(() => server.stop());
const DATABASE = 'unseen';
const admin = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
await admin.run(`create database ${DATABASE}`, 'create role bystander');
await admin.end();

/** SQL expressions that set something, for one of the session's settings `app.k`. */
const EXPRESSIONS: Readonly<Record<string, string>> = {
  'a literal name': `set_config('app.k', 'mine', false)`,
  'a name put together': `set_config('app.' || 'k', 'mine', false)`,
  'a quoted function': `"set_config"('app.k', 'mine', false)`,
  'a comment inside the call': `pg_catalog . set_config /* ' */ ('app.k', 'mine', false)`,
  'a comment inside the arguments': `set_config(/**/'app.k'/**/, 'mine', false)`,
  'an escaped function name': String.raw`U&"set\005fconfig"('app.k', 'mine', false)`,
  'an escaped literal': String.raw`set_config(E'app\x2ek', 'mine', false)`,
  'a dollar-quoted name': `set_config($n$app.k$n$, 'mine', false)`,
  'a literal in two pieces': `set_config('app.'\n'k', 'mine', false)`,
  'upper case': `SET_CONFIG('App.K', 'mine', false)`,
  'a trace of a local one': `set_config('app.' || 'k', 'mine', true)`,
  'a setting of the server': `set_config('time' || 'zone', 'Asia/Tokyo', false)`,
  'SQL in a string': `query_to_xml('select set_config(''app.k'', ''mine'', false)', true, true, '')::text`,
  'SQL put together': `query_to_xml('select set_' || 'config(''app.k'', ''mine'', false)', true, true, '')::text`,
  'a role': `set_config('ro' || 'le', 'bystander', false)`,
};

/** Statements of plpgsql. */
const STATEMENTS: Readonly<Record<string, string>> = {
  SET: `set app.k = 'mine'`,
  'SET of a quoted name': `set "app".k = 'mine'`,
  'SET of a name with a quoted end': `set app."k" to 'mine'`,
  'SET with a comment': `set/**/app.k = 'mine'`,
  'SET with a comment to the end of the line': `set -- it\n app.k = 'mine'`,
  'SET with a comment in the name': `set app/**/./**/k = 'mine'`,
  'SET SESSION': `set session app.k to 'mine'`,
  'SET SESSION of a quoted name': `set session "app"."k" to 'mine'`,
  'SET LOCAL': `set local app.k to 'mine'`,
  RESET: `reset app.k`,
  'RESET of a quoted name': `reset "app".k`,
  EXECUTE: `execute 'set app.k = ''mine'''`,
  'EXECUTE of a text put together': `execute 'se' || 't app.k = ''mine'''`,
  'EXECUTE of a format': `execute format('set %I.k = %L', 'app', 'mine')`,
  'EXECUTE of a call that is made up': `execute format('select %I(%L, %L, false)', 'set_config', 'app.k', 'mine')`,
  'an update of pg_settings': `update pg_settings set setting = 'Asia/Tokyo' where name = 'TimeZone'`,
  'SET SESSION AUTHORIZATION': `set session authorization bystander`,
  'EXECUTE of SET SESSION AUTHORIZATION': `execute 'set session authorization bystander'`,
  'EXECUTE of SET ROLE': `execute 'set role bystander'`,
  'SET "role"': `set "role" to bystander`,
};

interface Carrier {
  /** DDL in schema k that brings the code into the database. */
  readonly setup: readonly string[];
  /** What the client runs. */
  readonly run: readonly string[];
}
type Carry = (code: { readonly expression: string | null; readonly statement: string }) => Carrier | null;

const plpgsql = (name: string, statement: string, returns = 'int', value = 'return 1;') =>
  `create function ${name} returns ${returns} language plpgsql as $f$ begin ${statement}; ${value} end $f$`;
const carry = (setup: readonly string[], ...run: readonly string[]): Carrier => ({ setup, run });
const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;
const octal = (text: string): string =>
  `E'${[...text].map((char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`).join('')}'`;

const CARRIERS: Readonly<Record<string, Carry>> = {
  'the text itself': ({ expression }) => (expression === null ? null : carry([], `select ${expression}`)),
  'a DO block': ({ statement }) => carry([], `do $d$ begin ${statement}; end $d$`),
  'a DO block in quotes': ({ statement }) => carry([], `do ${quoted(`begin ${statement}; end`)}`),
  'a DO block in escapes': ({ statement }) => carry([], `do ${octal(`begin ${statement}; end`)}`),
  'a function': ({ statement }) => carry([plpgsql('k.f()', statement)], 'select k.f()'),
  'a function called by an escaped name': ({ statement }) =>
    carry([plpgsql('k.f()', statement)], String.raw`select k.U&"\0066"()`),
  'a function in SQL': ({ expression }) =>
    expression === null
      ? null
      : carry([`create function k.f() returns text language sql as $f$ select ${expression} $f$`], 'select k.f()'),
  'a function with a parsed body': ({ expression }) =>
    expression === null
      ? null
      : carry(
          [`create function k.f() returns text language sql begin atomic select ${expression}; end`],
          'select k.f()',
        ),
  'a function behind a function': ({ statement }) =>
    carry([plpgsql('k.f()', statement), plpgsql('k.g()', 'perform k.f()')], 'select k.g()'),
  'a column that is a function': ({ statement }) =>
    carry(
      ['create table k.t (a int)', 'insert into k.t values (1)', plpgsql('k.f(k.t)', statement)],
      'set search_path = k, public',
      'select t.f from t',
      'reset search_path',
    ),
  'an aggregate': ({ statement }) =>
    carry(
      [plpgsql('k.f(int, int)', statement), 'create aggregate k.total(int) (sfunc = k.f, stype = int)'],
      'select k.total(1)',
    ),
  'an operator': ({ statement }) =>
    carry(
      [plpgsql('k.f(int, int)', statement), 'create operator k.=== (function = k.f, leftarg = int, rightarg = int)'],
      'set search_path = k, public',
      'select 1 === 2',
      'reset search_path',
    ),
  'a domain': ({ statement }) =>
    carry([plpgsql('k.f()', statement), 'create domain k.d as int check (k.f() = 1)'], `select '1'::k.d`),
  'a procedure': ({ statement }) =>
    carry([`create procedure k.p() language plpgsql as $p$ begin ${statement}; end $p$`], 'call k.p()'),
  'a trigger': ({ statement }) =>
    carry(
      [
        'create table k.t (a int)',
        plpgsql('k.f()', statement, 'trigger', 'return new;'),
        'create trigger f before insert on k.t for each row execute function k.f()',
      ],
      'insert into k.t values (1)',
    ),
  'a trigger at the end of the transaction': ({ statement }) =>
    carry(
      [
        'create table k.t (a int)',
        plpgsql('k.f()', statement, 'trigger', 'return null;'),
        'create constraint trigger f after insert on k.t deferrable initially deferred for each row execute function k.f()',
      ],
      'insert into k.t values (1)',
    ),
  'a view': ({ expression }) =>
    expression === null ? null : carry([`create view k.v as select ${expression} as x`], 'select * from k.v'),
  'a view that calls a function': ({ statement }) =>
    carry([plpgsql('k.f()', statement), 'create view k.v as select k.f() as x'], 'select * from k.v'),
  'a view that is copied': ({ statement }) =>
    carry([plpgsql('k.f()', statement), 'create view k.v as select k.f() as x'], 'copy (select * from k.v) to stdout'),
  'a view in a text of several': ({ statement }) =>
    carry([plpgsql('k.f()', statement), 'create view k.v as select k.f() as x'], 'select * from k.v; select 1'),
  'a view behind a held cursor': ({ statement }) =>
    carry(
      [plpgsql('k.f()', statement), 'create view k.v as select k.f() as x'],
      'begin; declare c cursor with hold for select * from k.v; commit; close c',
    ),
  'a default': ({ expression }) =>
    expression === null
      ? null
      : carry([`create table k.t (a int, b text default ${expression})`], 'insert into k.t (a) values (1)'),
  'a function with a setting of its own': ({ statement }) =>
    carry(
      [`${plpgsql('k.f()', statement)} set app.own = '1'`],
      'select k.f()',
      `select current_setting('app.own', true)`,
    ),
  'a prepared statement': ({ expression }) =>
    expression === null ? null : carry([], `prepare p as select ${expression}`, 'execute p', 'deallocate p'),
  'a prepared function': ({ statement }) =>
    carry([plpgsql('k.f()', statement)], 'prepare p as select k.f()', 'execute p', 'deallocate p'),
};

/** The same for a temporary table, which the next session must not find. */
const TEMPORARY: Readonly<Record<string, string>> = {
  'CREATE TEMP TABLE': 'create temp table if not exists left_behind (a int)',
  'CREATE TABLE in pg_temp': 'create table if not exists pg_temp.left_behind (a int)',
  'SELECT INTO TEMP': `drop table if exists pg_temp.left_behind; execute 'select 1 as a into temp left_behind'`,
};

/** What becomes of the transaction in which it runs. */
const ENDS: Readonly<Record<string, (run: readonly string[]) => readonly string[]>> = {
  alone: (run) => run,
  committed: (run) => ['begin', ...run, 'commit'],
  'rolled back': (run) => ['begin', ...run, 'rollback'],
  'rolled back to a savepoint': (run) => ['begin', 'savepoint s', ...run, 'rollback to s', 'commit'],
};

/** How the session itself has brought the code into the database, else somebody else has. */
const MAKERS: Readonly<Record<string, (setup: readonly string[], run: readonly string[]) => readonly string[]>> = {
  itself: (setup, run) => [...setup, ...run],
  'itself, which keeps its connection': (setup, run) => ['listen pin', ...setup, ...run, 'unlisten pin'],
  'itself, within the transaction': (setup, run) => ['begin', ...setup, ...run, 'commit'],
  'itself, in a batch': (setup, run) => [[...setup, ...run].join(';')],
};

const PROBE = `select current_setting('app.k', true), current_setting('app.own', true),
  current_setting('TimeZone'), current_user, session_user,
  (select count(*) from pg_class where relname = 'left_behind' and relnamespace = pg_my_temp_schema())`;

/** The outcome of each statement: its rows, or what it was refused with. */
async function play(client: SqlClient, statements: readonly string[], extended: boolean): Promise<unknown[]> {
  const outcomes: unknown[] = [];
  for (const sql of statements) {
    const messages =
      extended && !sql.includes(';') && !sql.startsWith('copy')
        ? client.send([{ parse: sql }, { bind: [] }, { execute: '' }, 'sync'])
        : client.send([{ query: sql }]);
    const answers = await messages;
    const error = answers.find((message) => message.type === 'ErrorResponse');
    outcomes.push(error?.type === 'ErrorResponse' ? error.fields['C'] : rowsOf(answers));
  }
  return outcomes;
}

interface Case {
  readonly name: string;
  /** By another session. */
  readonly setup: readonly string[];
  readonly statements: readonly string[];
  readonly extended: boolean;
}

function cases(): Case[] {
  const ways = [
    ...Object.entries(EXPRESSIONS).map(([name, expression]) => ({
      name,
      code: { expression, statement: `perform ${expression}` },
    })),
    ...Object.entries({ ...STATEMENTS, ...TEMPORARY }).map(([name, statement]) => ({
      name,
      code: { expression: null, statement },
    })),
  ];
  const all: Case[] = [];
  for (const way of ways) {
    for (const [carriedBy, make] of Object.entries(CARRIERS)) {
      const carrier = make(way.code);
      if (carrier === null) continue;
      const chained = carrier.run.some((sql) => sql.includes('commit'));
      for (const extended of [false, true]) {
        const named = `${way.name} in ${carriedBy}, ${extended ? 'extended' : 'simple'}`;
        for (const [end, wrap] of Object.entries(ENDS)) {
          if (chained && end !== 'alone') continue;
          all.push({ name: `${named}, ${end}`, setup: carrier.setup, statements: wrap(carrier.run), extended });
        }
        if (chained || carrier.setup.length === 0) continue;
        for (const [maker, wrap] of Object.entries(MAKERS)) {
          const statements = wrap(carrier.setup, carrier.run);
          all.push({ name: `${named}, made by ${maker}`, setup: [], statements, extended });
        }
      }
    }
  }
  return all;
}

const PART = 80;
const seed = Number(process.env['PGKV_SEED'] ?? 1);
const everything = cases();
const random = new SeededRandom(seed);
const wanted = process.env['PGKV_UNSEEN'] ?? '';
const chosen =
  wanted === ''
    ? Array.from({ length: PART }, () => random.pick(everything))
    : everything.filter(({ name }) => wanted === 'all' || name.includes(wanted));

t.test(
  `nothing that code sets reaches the next session (seed ${seed}, ${chosen.length} of ${everything.length})`,
  async (t) => {
    const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
    const options = { user: server.superuser, database: DATABASE };
    const direct = await SqlClient.connect(server, options);
    const [fresh] = await play(direct, [PROBE], false);
    await direct.end();
    for (const { name, setup, statements, extended } of chosen) {
      const prepare = async (): Promise<void> => {
        const maker = await live.connect(options);
        await maker.run('drop schema if exists k cascade', 'create schema k', ...setup);
        await maker.end();
      };
      await prepare();
      const plain = await SqlClient.connect(server, options);
      const expected = await play(plain, [...statements, PROBE], extended);
      await plain.end();
      await prepare();

      const [first, second] = [await live.connect(options), await live.connect(options)];
      const seen = await play(first, [...statements, PROBE], extended);
      // Where the first session keeps the only connection, the second has it afterwards.
      const others = play(second, [PROBE], extended);
      const again = await play(first, [PROBE], extended);
      await first.end();
      t.strictSame(seen, expected, `${name}: as on the server`);
      t.strictSame(again, expected.slice(-1), `${name}: still`);
      t.strictSame(await others, [fresh], `${name}: the next session`);
      await second.end();
    }
    await live.quiet();
  },
);
