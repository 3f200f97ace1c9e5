// What rows of several shards are sorted by is sorted as servers sort it, by their encoding, whether or not the client's has its
// characters: a key that is not shown is never converted for the client. Rows, orders and encodings are generated; the same
// statements go to plain Postgres.
//   PGKV_SEED=7            that seed
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { KV, kvRouter, kvServers, prepareShard } from '../support/kv-cluster.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const STATEMENTS = process.env['PGKV_LONG'] ? 1_000 : 60;
const ROWS = 60;
const ENCODINGS = ['LATIN1', 'LATIN9', 'WIN1251', 'KOI8R', 'EUC_JP', 'SJIS', 'GB18030', 'EUC_TW', 'UTF8', 'SQL_ASCII'];
const CHARACTERS = ['a', 'b', 'B', 'é', 'ß', 'ж', 'Я', '漢', '字', '€', '\u{1f600}', ' ', '~', '"', '\u0001'];
/** Keys to sort by: every type that text may come as, and others. */
const KEYS = [
  'key',
  'tenant_id',
  'kv.key',
  'upper(key) collate "C"',
  `key || tenant_id collate "C"`,
  `nullif(key, 'a') collate "C"`,
  'key::varchar',
  'key::varchar(2)',
  'key::name',

  `(value->>'s') collate "C"`,
  'value::text collate "C"',
  'substr(key, 2) collate "C"',
  'length(key)',
  `(value->>'n')::int % 3`,
  `(value->>'n')::numeric / 7`,
  `convert_to(key, 'UTF8')`,
  `(value->>'n')::float8`,
  'key > tenant_id',
  `case when length(key) > 3 then key end collate "C"`,
  `coalesce(value->>'s', tenant_id) collate "C"`,
];
const SHOWN = [
  `(value->>'n')::int as n`,
  `length(key) as l, value->'n' as n`,
  `value->>'n' as "key"`,
  `1 as one, value->'n'`,
];

interface Statement {
  readonly text: string;
  readonly binary: boolean;
  readonly extended: boolean;
}

function statementOf(random: SeededRandom): Statement {
  const direction = (): string => random.pick(['', '', ' desc', ' asc', ' nulls first', ' desc nulls last']);
  const keys = Array.from({ length: random.between(1, 3) }, () => `${random.pick(KEYS)}${direction()}`);
  const end = random.pick(['', '', ' limit 7', ' limit 5 offset 3', ' offset 40']);
  // The last key tells all rows apart, so that there is one right order.
  const text = `select ${random.pick(SHOWN)} from kv order by ${keys.join(', ')}, (value->>'n')::int${end}`;
  return { text, binary: random.chance(0.3), extended: random.chance(0.5) };
}

const told = (messages: readonly BackendMessage[]): string[] => {
  const error = errorOf(messages);
  if (error !== null) return [`error ${error.code} ${error.message}`];
  return rowsOf(messages).map((row) => row.join('|'));
};

function messagesOf({ text, binary, extended }: Statement): FrontendMessage[] {
  if (!extended) return [{ query: text }];
  return [{ parse: text }, { bind: [], resultFormats: [binary ? 1 : 0] }, { execute: '' }, 'sync'];
}

t.test('hidden sort keys under the encodings of clients', { timeout: 600_000 }, async (t) => {
  t.comment(`PGKV_SEED=${SEED}`);
  const random = new SeededRandom(SEED);
  const plain = await startPostgres({ version: 'embedded' });
  t.teardown(() => plain.stop());
  await prepareShard(plain, [KV]);
  const cluster = await kvServers(t, 3, { tables: [KV] });
  const router = await kvRouter(t, cluster);
  const login = { user: plain.superuser, database: 'postgres' };
  const addresses = [plain, router];
  const writers = await Promise.all(addresses.map((address) => SqlClient.connect(address, login)));
  const word = (most: number): string =>
    Array.from({ length: random.between(1, most) }, () => random.pick(CHARACTERS)).join('');
  for (let n = 0; n < ROWS; n++) {
    const s = random.chance(0.2) ? null : word(3);
    const value = JSON.stringify(s === null ? { n } : { n, s }).replaceAll("'", "''");
    const text = `insert into kv (tenant_id, key, value) values ('${word(2)}', '${word(5)}${n}', '${value}')`;
    for (const writer of writers) await writer.run(text);
  }
  for (const name of ENCODINGS) {
    const clients = await Promise.all(
      addresses.map((address) => SqlClient.connect(address, { ...login, parameters: { client_encoding: name } })),
    );
    for (let count = STATEMENTS / ENCODINGS.length; count > 0; count--) {
      const statement = statementOf(random);
      const [wanted, found] = await Promise.all(
        clients.map(async (client) => told(await client.send(messagesOf(statement)))),
      );
      if (!t.same(found, wanted, `${name}: ${statement.text}`)) return;
    }
    for (const client of clients) await client.end();
  }
  for (const writer of writers) await writer.end();
  await router.quiet();
});
