// Statements that ask for a session by its pid and do nothing else, and all that only look like it.
import t from 'tap';
import { backendCallOf } from '../../../src/sql/meaning/backend-calls.js';
import { loadParser, parse } from '../../../src/sql/meaning/parse.js';

await loadParser();
const callOf = (sql: string) => {
  const parsed = parse(sql);
  if (parsed.kind !== 'parsed') throw new Error(`not parsed: ${sql}`);
  return backendCallOf(parsed.statements[0]!.node);
};
const literal = (value: number | null) => ({ kind: 'literal', value });

t.test('the pid of the session', async (t) => {
  for (const [sql, column, isQualified] of [
    ['select pg_backend_pid()', 'pg_backend_pid', false],
    ['SELECT PG_CATALOG.PG_BACKEND_PID() AS pid', 'pid', true],
    ['select "pg_backend_pid"() "Mine"', 'Mine', false],
  ] as const) {
    t.strictSame(callOf(sql), { function: 'pg_backend_pid', argument: null, timeout: null, column, isQualified }, sql);
  }
});

t.test('cancel and end of another', async (t) => {
  for (const name of ['pg_cancel_backend', 'pg_terminate_backend'] as const) {
    for (const [argument, read] of [
      ['16777217', literal(16777217)],
      ['0', literal(0)],
      ['null', literal(null)],
      ['$1', { kind: 'parameter', number: 1 }],
      ['$2::int', { kind: 'parameter', number: 2 }],
      ['cast(7 as pg_catalog.int4)', literal(7)],
      ['null::integer', literal(null)],
      ["' 16777217 '", literal(16777217)],
    ] as const) {
      const expected = { function: name, argument: read, timeout: null, column: name, isQualified: false };
      t.strictSame(callOf(`select ${name}(${argument})`), expected, argument);
    }
  }
  t.match(callOf('select pg_terminate_backend(5, 1000)'), { argument: literal(5), timeout: literal(1000) });
  const parameter = (number: number) => ({ kind: 'parameter', number });
  t.match(callOf('select pg_terminate_backend($2, $1)'), { argument: parameter(2), timeout: parameter(1) });
});

t.test('everything beside it leaves the statement to the server', async (t) => {
  for (const sql of [
    'select pg_backend_pid() + 0',
    'select pg_backend_pid(), 1',
    'select pg_backend_pid(1)',
    'select pg_backend_pid() from t',
    'select pg_backend_pid() where true',
    'select pg_backend_pid() limit 1',
    'select pg_backend_pid() order by 1',
    'select distinct pg_backend_pid()',
    'select pg_backend_pid() union select 1',
    'select pg_backend_pid() for update',
    'select pg_backend_pid() into t',
    'with a as (select 1) select pg_backend_pid()',
    'values (pg_backend_pid())',
    'select pg_backend_pid() filter (where true)',
    'select pg_backend_pid() over ()',
    'select pg_backend_pid()::text',
    'select (pg_backend_pid())[1]',
    'select public.pg_backend_pid()',
    'select a.pg_catalog.pg_backend_pid()',
    'select pg_cancel_backend()',
    'select pg_cancel_backend(1, 2)',
    'select pg_cancel_backend(1.5)',
    `select pg_cancel_backend('x')`,
    `select pg_cancel_backend('99999999999')`,
    'select pg_cancel_backend(99999999999)',
    'select pg_cancel_backend($1::bigint)',
    'select pg_cancel_backend(pid => 1)',
    'select pg_cancel_backend(variadic array[1])',
    'select pg_cancel_backend(distinct 1)',
    'select pg_cancel_backend(pid) from pg_stat_activity',
    'select pg_terminate_backend(1, random())',
    'select pg_terminate_backend(1, 2, 3)',
    'select pg_signal_backend(1)',
    'select constructor()',
    'select 1',
    'begin',
  ]) {
    t.equal(callOf(sql), null, sql);
  }
});
