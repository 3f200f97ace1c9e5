// Which databases have to be left for a text: generated from the statements that Postgres refuses while others are connected.
import t from 'tap';
import { databasesToLeave } from '../../../src/sql/meaning/database-statements.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';

await loadParser();

const FORMS: readonly (readonly [form: (name: string) => string, leaves: boolean])[] = [
  [(name) => `DROP DATABASE ${name}`, true],
  [(name) => `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`, true],
  [(name) => `ALTER DATABASE ${name} RENAME TO z`, true],
  [(name) => `ALTER DATABASE ${name} SET TABLESPACE fast`, true],
  [(name) => `CREATE DATABASE z TEMPLATE ${name}`, true],
  [(name) => `CREATE DATABASE z OWNER o TEMPLATE = ${name} ENCODING 'UTF8'`, true],
  [(name) => `ALTER DATABASE ${name} SET work_mem = '1MB'`, false],
  [(name) => `ALTER DATABASE ${name} CONNECTION LIMIT 3`, false],
  [(name) => `ALTER DATABASE ${name} OWNER TO o`, false],
  [(name) => `COMMENT ON DATABASE ${name} IS 'DROP DATABASE y'`, false],
  [(name) => `DROP TABLE ${name} /* database */`, false],
];
const NAMES: readonly (readonly [written: string, meant: string])[] = [
  ['d', 'd'],
  ['Mixed', 'mixed'],
  ['"Mixed"', 'Mixed'],
  ['"a b""c"', 'a b"c'],
];

t.test('each form, each spelling of a name, alone and behind another', async (t) => {
  for (const [form, leaves] of FORMS) {
    for (const [written, meant] of NAMES) {
      t.strictSame(databasesToLeave(form(written)), leaves ? [meant] : [], form(written));
      t.strictSame(databasesToLeave(`DROP DATABASE first; ${form(written)}`), leaves ? ['first', meant] : ['first']);
    }
  }
});

t.test('without a template it is template1; what cannot be read names none', async (t) => {
  t.strictSame(databasesToLeave('CREATE DATABASE z'), ['template1']);
  t.strictSame(databasesToLeave('DROP DATABASE'), []);
  t.strictSame(databasesToLeave('SELECT 1'), []);
});
