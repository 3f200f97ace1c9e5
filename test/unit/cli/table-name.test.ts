// Names of tables on the command line: what SQL would read from them, and nothing else.
import t from 'tap';
import { qualified, quotedName, schemaName, tableName } from '../../../src/cli/table-name.js';
import { SeededRandom } from '../../support/seeded-random.js';

t.test('names are read as in SQL', async (t) => {
  for (const [text, schema, name] of [
    ['kv', null, 'kv'],
    ['KV', null, 'kv'],
    ['app.kv', 'app', 'kv'],
    ['App.KV_2$', 'app', 'kv_2$'],
    ['"app.kv"', null, 'app.kv'],
    ['"App"."k""v"', 'App', 'k"v'],
    ['app."My Table"', 'app', 'My Table'],
    ['größe', null, 'größe'],
  ] as const) {
    t.strictSame(tableName(text), { schema, name }, text);
  }
  for (const text of [
    '',
    '.',
    'a.',
    '.a',
    'a.b.c',
    '"',
    '"a',
    '""',
    'a"b',
    '"a"b',
    'k v',
    "k'v",
    '1a',
    'a;b',
    'a..b',
  ]) {
    t.throws(() => tableName(text), /as in SQL/, text);
  }
  t.equal(schemaName('"My.Schema"'), 'My.Schema');
  t.throws(() => schemaName('a.b'), /as in SQL/);
});

t.test('name and --schema may not contradict one another', async (t) => {
  t.strictSame(qualified(tableName('kv'), undefined), { schema: 'public', name: 'kv' });
  t.strictSame(qualified(tableName('kv'), 'app'), { schema: 'app', name: 'kv' });
  t.strictSame(qualified(tableName('app.kv'), 'app'), { schema: 'app', name: 'kv' });
  t.throws(() => qualified(tableName('app.kv'), 'other'), /in schema app, --schema says other/);
});

t.test('whatever a table is called, its quoted name is read back', async (t) => {
  const random = new SeededRandom(7);
  const letters = ['a', 'B', '"', '.', ' ', '_', '$', '7', 'ü', "'", '\\'];
  const word = () =>
    Array.from(
      { length: 1 + Math.floor(random.fraction() * 6) },
      () => letters[Math.floor(random.fraction() * 11)],
    ).join('');
  for (let round = 0; round < 500; round++) {
    const table = { schema: round % 3 === 0 ? 'public' : word(), name: word() };
    t.strictSame(qualified(tableName(quotedName(table)), undefined), table, quotedName(table));
  }
});
