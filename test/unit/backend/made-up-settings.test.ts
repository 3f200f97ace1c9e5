// Code that may set what nobody can ask for, and code that is proven not to. What Postgres makes of the patterns is tried
// in test/integration/unseen-settings.test.ts.
import t from 'tap';
import { customNamesIn, makesUpNames } from '../../../src/backend/pool/made-up-settings.js';

const PROVEN: readonly (readonly [code: string, names: readonly string[]])[] = [
  [`update t set a = 1, "B" = 2 where c = 3`, []],
  [`update t set "B" = 2`, []],
  [`insert into t values (1) on conflict (a) do update set (b, c) = (1, 2)`, []],
  [`begin set search_path to one, two; set local work_mem = '4MB'; reset work_mem; end`, []],
  [`set session authorization default`, []],
  [`set time zone 'UTC'`, []],
  [`alter table t alter column a set not null`, []],
  [`update t set session = 1`, []],
  [`perform set_config('work_mem', '1MB', false)`, []],
  [`perform pg_catalog.set_config('App.User', v, true)`, ['app.user']],
  [`SELECT set_config('app.user'::text, 'x'::text, false) AS set_config`, ['app.user']],
  [`set app.user = 'x'; set session a.b.c to default; reset app.z;`, ['app.user', 'a.b.c', 'app.z']],
  [`update t set a.b = 1`, ['a.b']],
  [`execute 'analyze t';`, []],
  [`execute 'select count(*) from t where a = $1' into n using a;`, []],
  [`execute format('create table %I (a int)', n)`, []],
  [`execute format('insert into %1$I.%2$I (a, b) values (%3$L, $1)', s, n, v) using w`, []],
  [`create trigger a before insert on t for each row execute function f()`, []],
  [`grant execute on function f() to r`, []],
];

const MADE_UP: readonly string[] = [
  `set_config('app.' || k, v, false)`,
  `set_config(k, v, false)`,
  `set_config ($1, $2, $3)`,
  `"set_config"('app.k', 'x', false)`,
  `set_config/**/('app.k', 'x', false)`,
  `set_config(/**/'app.k', 'x', false)`,
  `set_config(E'app\\x2ek', 'x', false)`,
  `set_config(''app.k'', ''x'', false)`,
  `'set_config'::regproc`,
  `set "app".k = 1`,
  `set app."k" = 1`,
  `set/**/app.k = 1`,
  `set app/**/.k = 1`,
  `set app . k = 1`,
  `set session/**/app.k = 1`,
  `set session "app".k = 1`,
  `set session app .k = 1`,
  `set -- \n app.k = 1`,
  `set äpp.k = 1`,
  `set appä.k = 1`,
  `reset "app".k`,
  `execute k`,
  `execute 'set ' || k`,
  `execute 'analyze t' || k;`,
  `execute E'\\163et app.k = 1';`,
  `execute $q$set app.k = 1$q$`,
  `execute format('set %I.k = 1', n)`,
  `execute format('%s', n)`,
  `execute format('select %I(1)', n)`,
  `execute format('select %I.%I(1)', n)`,
  `execute format(k, n)`,
  `execute format('a %' || k, n)`,
  `query_to_xml(k, true, true, '')`,
  `select * from crosstab(k)`,
  `select u&"\\0066"()`,
  `select setseed(0.5)`,
  `load 'x'`,
  `set seed = 0.5`,
  `do language plpython3u $$ pass $$`,
  `do E'\\163'`,
];

t.test('what is proven names what it sets', async (t) => {
  for (const [code, names] of PROVEN) {
    t.equal(makesUpNames(code), false, code);
    t.strictSame(customNamesIn(code), names, code);
  }
});

t.test('everything else is suspected, in any case', async (t) => {
  for (const code of MADE_UP) {
    t.ok(makesUpNames(code), code);
    t.ok(makesUpNames(`do $$ begin perform 1; ${code}; end $$`), `${code} in a block`);
    if (!/[äE]/.test(code)) t.ok(makesUpNames(code.toUpperCase()), code.toUpperCase());
  }
});

t.test('long texts are read in time that grows with their length', async (t) => {
  for (const piece of [`execute '`, `execute format('%i`, `set `, `set_config('a.b'`, `'' `, `reset a.b, `]) {
    const time = (count: number): number => {
      const text = piece.repeat(count);
      const start = process.cpuUsage();
      makesUpNames(text);
      customNamesIn(text);
      return process.cpuUsage(start).user + 1_000;
    };
    time(2_000);
    t.ok(time(64_000) < 200 * time(4_000), piece);
  }
});
