// The statements that bring a connection to its settings, against what a server makes of them: whatever was set before, with
// or without time-outs taken off first, and whether taking them off succeeded or not, what holds in the end is what was asked for.
import t from 'tap';
import { endsWhenIdle, settingsChangeSql, timeOutsOf } from '../../../src/backend/connection/settings-change.js';
import { type SettingsGroup, SettingsRegistry } from '../../../src/backend/connection/settings-group.js';

const registry = new SettingsRegistry();
const NAMES = ['statement_timeout', 'lock_timeout', 'transaction_timeout', 'work_mem', 'role', 'app.x'];

/** Applies the set_config calls to what is set, as a server would. */
function applied(before: ReadonlyMap<string, string>, sql: string | null): Map<string, string> {
  const after = new Map(before);
  for (const [, name, value] of (sql ?? '').matchAll(/set_config\('([^']*)', (NULL|'[^']*'), false\)/g)) {
    if (value === 'NULL') after.delete(name!);
    else after.set(name!, value!.slice(1, -1));
  }
  return after;
}

/** Every choice of none, one or another value for each name. */
function* groups(): Generator<SettingsGroup> {
  for (let choice = 0; choice < 3 ** NAMES.length; choice += 5) {
    const values = NAMES.flatMap((name, index): [string, string][] => {
      const which = Math.floor(choice / 3 ** index) % 3;
      return which === 0 ? [] : [[name, `v${which}`]];
    });
    yield registry.intern(new Map(values));
  }
}

t.test('from any settings to any others', async (t) => {
  const timeOuts = ['statement_timeout', 'lock_timeout', 'transaction_timeout'];
  let wrong = 0;
  let count = 0;
  for (const from of groups()) {
    for (const to of groups()) {
      for (const relieved of [[], timeOuts]) {
        const sql = settingsChangeSql(from, to, relieved);
        const taken = new Map(from.values);
        for (const name of relieved) taken.set(name, '0');
        for (const before of [from.values, taken]) {
          // Those that were not to be relieved still hold.
          if (before === taken && relieved.length === 0) continue;
          count++;
          const after = [...applied(before, sql)].sort();
          if (JSON.stringify(after) !== JSON.stringify([...to.values].sort())) wrong++;
        }
      }
    }
  }
  t.equal(wrong, 0, `of ${count}`);
});

t.test(
  'a role that may not set the rest comes off first and on last, but for the time-out that counts at once',
  async (t) => {
    const from = registry.intern(
      new Map([
        ['role', 'a'],
        ['work_mem', '1MB'],
      ]),
    );
    const to = registry.intern(
      new Map([
        ['role', 'b'],
        ['transaction_timeout', '5s'],
        ['work_mem', '2MB'],
      ]),
    );
    const order = [...settingsChangeSql(from, to)!.matchAll(/set_config\('([^']*)'/g)].map(([, name]) => name);
    t.strictSame(order, ['role', 'work_mem', 'role', 'transaction_timeout']);
  },
);

t.test('time-outs by release; a session that ends when idle', async (t) => {
  for (const [version, count] of [
    ['15.4 (Debian 15.4-1)', 2],
    ['17beta1', 3],
    ['18.4', 3],
    ['', 2],
  ] as const) {
    t.equal(timeOutsOf(new Map([['server_version', version]])).length, count, version);
  }
  const idle = (value: string) => registry.intern(new Map([['idle_session_timeout', value]]));
  t.strictSame([registry.empty, idle('0'), idle('1s')].map(endsWhenIdle), [false, false, true]);
});
