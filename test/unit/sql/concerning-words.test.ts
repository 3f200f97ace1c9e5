import t from 'tap';
import { concernsByWords } from '../../../src/sql/text/concerning-words.js';

const CONCERNING = [
  "prepare transaction 'x'",
  'commit   prepared x',
  'rollback\n\tprepared x',
  'grant select on all tables in schema public to x',
  'revoke all on all routines\n in  schema a from b',
  'alter default privileges',
  'alter schema a rename to b',
  'drop extension pgkv',
  'drop owned by x',
  'reassign/* c */owned by x',
  'reassign -- c\nowned by x',
  'alter -- c\n\n  schema a',
  'all tables in /**/ schema',
  "select pgkv.create_table('x')",
  'select drop_table(1)',
];
const NOT = [
  'create schema a',
  'select schema from t',
  'start transaction',
  'select my_owned, dropped owned',
  'drop ownedx',
  'drop table in schema',
  'set session characteristics as transaction read only',
  'create extension x',
  'all views in schema',
  'xprepare transaction',
  'create_tables',
];

t.test('words of statements that concern tables they do not name', async (t) => {
  for (const text of CONCERNING) t.ok(concernsByWords(text), text);
  for (const text of NOT) t.notOk(concernsByWords(text), text);
});
