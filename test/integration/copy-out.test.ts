// COPY … TO STDOUT of key-value tables, of one shard and of several: the bytes that plain Postgres sends, in whatever order
// where none is asked for; refused, with the reason, where pgkv does not know how.
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { KV, type KvServers, kvRouter, kvServers, prepareShard } from '../support/kv-cluster.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';
import { SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const LONG = process.env['PGKV_LONG'] === '1';
const ROUNDS = LONG ? 3_000 : 300;

const plain = await startPostgres({ version: 'embedded' });
t.teardown(() => plain.stop());
await prepareShard(plain, [KV]);
const login = { user: plain.superuser, database: 'postgres' };

/** Where formats have something to do: escapes, quotes, what stands for NULL, the end of data. */
const WORDS = [
  '',
  '\\N',
  '\\.',
  '"',
  '""',
  'a,b',
  'a|b',
  'tab\there',
  'line\nend',
  'cr\rhere',
  'ü😀',
  "it's",
  'x',
  'NULL',
  '\\',
  '\b\f\v',
  '\x01',
];
const KEYS = WORDS.flatMap((word) => [word, `k${word}`, `${word}${word}`]);
const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;
const ROWS = KEYS.map((key, index) => {
  const value = index % 5 === 0 ? 'null' : literal(JSON.stringify({ n: index, text: key }));
  const ttl = index % 3 === 0 ? `'2099-01-01 00:00:${index % 60}+00'` : 'null';
  return `(${literal(WORDS[index % 7]!)}, ${literal(key)}, ${value}, ${ttl}, ${index})`;
});

async function fill(target: SqlClient): Promise<void> {
  for (const row of ROWS) {
    const inserted = `insert into kv (tenant_id, key, value, ttl, version) values ${row}`;
    await target.run(`${inserted} on conflict (tenant_id, key) do nothing`);
  }
}

/** pgkv knows what has expired, Postgres does not. */
async function expire({ servers }: KvServers): Promise<void> {
  for (const server of servers) {
    const client = await SqlClient.connect(server, { ...login, user: server.superuser });
    await client.run(
      `insert into kv (tenant_id, key, value, ttl) values ('gone', 'k', '1', now() - interval '1 hour')`,
    );
    await client.end();
  }
}

const here = await SqlClient.connect(plain, login);
for (const row of ROWS) {
  const inserted = `insert into kv (tenant_id, key, value, ttl, version) values ${row}`;
  await here.run(`${inserted} on conflict (tenant_id, key, slot) do nothing`);
}
await here.run(`update kv set updated_at = '2020-01-01', version = version`);

interface Told {
  readonly begin: string;
  readonly rows: readonly string[];
  readonly end: readonly string[];
}

const BINARY_HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1').toString('hex');

/** @param ordered rows stay in their order */
function told(messages: readonly BackendMessage[], ordered: boolean): Told {
  const rows: string[] = [];
  const end: string[] = [];
  let begin = '';
  for (const message of messages) {
    if (message.type === 'CopyOutResponse') begin = `${message.format} ${message.columnFormats.join()}`;
    else if (message.type === 'CopyData') rows.push(message.data.toString('hex').replace(BINARY_HEADER, ''));
    else if (message.type === 'CommandComplete') end.push(message.tag);
    else if (message.type === 'ErrorResponse')
      end.push(`${message.fields['C']} ${message.fields['M']} ${message.fields['P']}`);
    else if (message.type === 'ReadyForQuery') end.push(`ready ${message.status}`);
    else if (message.type !== 'NoticeResponse' && message.type !== 'ParameterStatus') end.push(message.type);
  }
  return { begin, rows: ordered ? rows : rows.sort(), end };
}

const COLUMNS = ['tenant_id', 'key', 'value', 'version', 'ttl', 'updated_at', 'slot'];
const OPTIONS: readonly ((random: SeededRandom) => string)[] = [
  () => '',
  () => ' (format binary)',
  () => ` (format csv)`,
  (random) => ` (delimiter '${random.pick(['|', ',', 'Q', ';'])}')`,
  (random) => ` (null '${random.pick(['', 'x', 'NULL', '\\0'])}', header)`,
  (random) => ` with csv header quote '${random.pick(["''", '"', 'x'])}' escape '${random.pick(['\\', '"', 'a'])}'`,
  (random) =>
    ` (format csv, force_quote *, null '${random.pick(['NULL', 'x', ''])}', header ${random.pick(['on', 'off', '1', 'true'])})`,
  (random) => ` (format 'csv', delimiter E'\\t', force_quote (${random.pick(['key', 'key, value', '"version"'])}))`,
  () => ` delimiters '|' with null as '-'`,
  () => ` (header true, delimiter ',', null '')`,
];
const CONDITIONS = [
  '',
  ' where version > 20',
  ` where tenant_id = 'x'`,
  ` where key like 'k%' and ttl is null`,
  ' where false',
];

/** @returns the text, and whether its rows have an order */
function drawn(random: SeededRandom): { readonly sql: string; readonly ordered: boolean } {
  const options = random.pick(OPTIONS)(random);
  const columns = COLUMNS.filter((column) => column === 'key' || random.chance(0.6));
  const list = columns.map((column) => (random.chance(0.2) ? `"${column}"` : column)).join(', ');
  const forced =
    ['key', 'value', 'version'].every((column) => columns.includes(column)) || !options.includes('force_quote (');
  const isOld = options.includes('delimiters');
  const from = ` to ${random.pick(['stdout', 'STDOUT'])}${forced ? options : ''}`;
  switch (isOld ? random.integer(2) : random.integer(5)) {
    case 0:
      return {
        sql: `copy ${options === '' ? 'binary ' : ''}kv (tenant_id, key, value, version, ttl, slot)${from}`,
        ordered: false,
      };
    case 1:
      return { sql: `copy public.kv (${list})${from}`, ordered: false };
    case 2:
      return { sql: `copy /* rows */ (select ${list} from kv${random.pick(CONDITIONS)})${from}`, ordered: false };
    case 3: {
      const direction = random.pick([' desc', '', ' desc nulls last']);
      const limits = random.pick(['', ' limit 7', ' limit 5 offset 3', ' offset 40']);
      const sql = `copy (select ${list} from kv k${random.pick(CONDITIONS)} order by k.version${direction}, k.tenant_id, k.key${limits})${from}`;
      return { sql, ordered: true };
    }
    default: {
      const keyed = `select ${list} from kv where tenant_id = ${literal(random.pick(WORDS))} and key = ${literal(random.pick(KEYS))}`;
      return { sql: `copy (${keyed})${from}`, ordered: true };
    }
  }
}

for (const shards of [1, 3]) {
  t.test(`${shards} shards (PGKV_SEED=${SEED})`, async (t) => {
    const cluster = await kvServers(t, shards, { tables: [KV] });
    const router = await kvRouter(t, cluster);
    const there = await SqlClient.connect(router, login);
    await fill(there);
    for (const server of cluster.servers) {
      const client = await SqlClient.connect(server, { ...login, user: server.superuser });
      await client.run(`update kv set updated_at = '2020-01-01'`);
      await client.end();
    }
    await expire(cluster);
    await t.test('generated', (t) => generated(t, there));
    await t.test('combined, and with parameters of other kinds', (t) => listed(t, there));
    await t.test('errors', (t) => errors(t, there, shards));
    await t.test('in blocks', (t) => blocks(t, there));
    await there.end();
  });
}

async function compare(t: Test, there: SqlClient, sql: string, ordered: boolean): Promise<void> {
  const found = told(await there.answers(sql), ordered);
  const wanted = told(await here.answers(sql), ordered);
  t.strictSame(found, wanted, sql);
}

async function generated(t: Test, there: SqlClient): Promise<void> {
  const random = new SeededRandom(SEED);
  for (let round = 0; round < ROUNDS; round++) {
    const { sql, ordered } = drawn(random);
    await compare(t, there, sql, ordered);
  }
}

async function listed(t: Test, there: SqlClient): Promise<void> {
  for (const sql of [
    `copy (select count(*), sum(version), min(key) from kv) to stdout`,
    `copy (select tenant_id, count(*) n from kv group by tenant_id order by tenant_id) to stdout (format csv, header)`,
    `copy (select tenant_id, max(version) from kv group by 1 order by 2 desc limit 3) to stdout (format binary)`,
    `copy (select key from kv order by key) to stdout (format csv)`,
    `copy (select key from kv where tenant_id = 'x' and key in ('x', 'kx', 'NULL', '"') order by key) to stdout`,
    `copy (select value ->> 'text', 'a literal' "Na me", 1.5 from kv order by version) to stdout (header)`,
    `copy (select kv_get('x', 'x')) to stdout`,
    `copy (select key as a, key as a from kv order by tenant_id, key) to stdout (format csv, force_quote (a))`,
  ]) {
    await compare(t, there, sql, true);
  }
}

async function errors(t: Test, there: SqlClient, shards: number): Promise<void> {
  for (const sql of [
    'copy kv (nothing) to stdout',
    'copy (select nothing from kv) to stdout',
    'copy (select key, 1 / 0 from kv) to stdout',
    `copy (select key from kv where version > 'x') to stdout`,
    `copy (select key from kv where tenant_id = 'x' and key = 'x' and nothing = 1) to stdout (format csv)`,
  ]) {
    const found = told(await there.answers(sql), true);
    const wanted = told(await here.answers(sql), true);
    // What fails in the middle has begun on Postgres, and on a shard.
    t.same(found.end.map(withoutRelation), wanted.end.map(withoutRelation), sql);
  }
  for (const sql of [
    `copy kv from '/nowhere'`,
    `copy kv to '/tmp/kv'`,
    `copy kv to program 'cat'`,
    `copy (insert into kv (tenant_id, key) values ('a', 'b') returning key) to stdout`,
    'copy (select 1 from kv a, kv b) to stdout',
    `copy (select kv_put('t', 'k', '1')) to stdout`,
    `copy (select key from kv where tenant_id = 'x' and key = 'x' for update) to stdout`,
    'copy kv (key, key) to stdout',
    'copy kv (key, ctid) to stdout',
    'copy kv (kv) to stdout',
    'copy (select key from kv) to stdout; select 1',
  ]) {
    t.equal(await there.fails(sql), '0A000', sql);
    t.same(await there.value('select 1'), '1');
  }
  const unknown = [`(encoding 'utf8')`, `(format xml)`, `(delimiter 'ab')`, `(header, header)`, `(quote '"')`];
  const codes = shards === 1 ? ['', '22023', '0A000', '42601', '0A000'] : unknown.map(() => '0A000');
  for (const [index, options] of unknown.entries()) {
    const answers = told(await there.answers(`copy kv to stdout ${options}`), true);
    if (codes[index] === '') t.match(answers.end, ['CopyDone', /^COPY \d+$/, 'ready I'], options);
    else t.match(answers.end, [new RegExp(`^${codes[index]} `), 'ready I'], options);
  }
  await t.rejects(there.extended('copy kv to stdout'), { code: '0A000' });
  // A sort key beside the names is no column of the copy.
  const missing = `copy (select key from kv order by version) to stdout (format csv, force_quote (version))`;
  t.equal(await there.fails(missing), '42703', missing);
  t.same(await there.value('select 1'), '1');
}

/** The SELECT that pgkv makes of a table's name has other words for a column that is not there, and a place for it. */
const withoutRelation = (line: string): string =>
  line.replace(/ of relation "kv" does not exist undefined$/, ' does not exist').replace(/ (\d+|undefined)$/, '');

async function blocks(t: Test, there: SqlClient): Promise<void> {
  await there.run('begin');
  await there.run(`insert into kv (tenant_id, key, value) values ('x', 'inside', '1')`);
  const copied = told(
    await there.answers(`copy (select value from kv where tenant_id = 'x' and key = 'inside') to stdout`),
    true,
  );
  t.same(copied, { begin: '0 0', rows: [Buffer.from('1\n').toString('hex')], end: ['CopyDone', 'COPY 1', 'ready T'] });
  await there.run('rollback');
  await there.run('begin');
  const all = told(await there.answers('copy (select count(*) from kv) to stdout'), true);
  t.same(all.end, ['CopyDone', 'COPY 1', 'ready T']);
  await there.run('commit');
  await there.run('begin');
  await there.fails('select nothing');
  for (const sql of ['copy kv to stdout', `copy (select 1 from kv where tenant_id = 'x' and key = 'x') to stdout`]) {
    t.equal(await there.fails(sql), '25P02', sql);
  }
  await there.run('rollback');
}
