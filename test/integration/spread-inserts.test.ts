// INSERTs of several rows over several shards (D14): the same statements to plain Postgres and through pgkv, by both protocols,
// get the same answers, rows in the order of VALUES, and leave the same rows; what fails on one shard is nowhere.
import t, { type Test } from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { literal, type SpreadServers, said, spreadServers, TENANTS } from '../support/spread-servers.js';
import { errorOf, tagsOf } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const STATEMENTS = Number(process.env['PGKV_STATEMENTS'] ?? 80);

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  for (const shards of version === '15' ? [3] : [1, 3, 5])
    t.test(`Postgres ${version}, ${shards} shards`, skip, (t) => inserts(t, version, shards));
}

async function inserts(t: Test, version: '15' | 'embedded', shards: number): Promise<void> {
  const servers = await spreadServers(t, version, shards);
  const { client, plain, rows, prepared } = servers;
  await t.test(`the same rows and answers as on one server (seed ${SEED})`, async (t) => {
    const random = new SeededRandom(SEED, shards);
    for (let n = 0; n < STATEMENTS; n++) {
      if (random.oneIn(6)) for (const one of [client, plain]) await one.run('DELETE FROM kv');
      const { text, messages } = random.oneIn(2) ? simple(random) : extended(random, n);
      for (const batch of messages) {
        const [here, there] = await Promise.all([client, plain].map((of) => said(of, batch)));
        if (!t.strictSame(here, there, `${text} ${JSON.stringify(batch)}`)) return;
      }
      if (!t.strictSame(await rows(client), await rows(plain), text)) return;
    }
    t.strictSame(await prepared(), []);
  });
  if (shards > 1) await more(t, servers);
}

async function more(t: Test, { client, plain, admins, rows, prepared }: SpreadServers): Promise<void> {
  const keys = Array.from({ length: 9 }, (_, n) => `('acme', 'e${n}')`).join();

  t.test('rows that have expired do not stand in the way', async (t) => {
    await client.run('DELETE FROM kv');
    await client.run(`INSERT INTO kv (tenant_id, key) VALUES ${keys}`);
    for (const admin of admins) await admin.query(`UPDATE kv SET ttl = now() - interval '1 hour'`);
    const told = await client.rows(`INSERT INTO kv (tenant_id, key) VALUES ${keys} RETURNING key, ttl`);
    t.strictSame(
      told,
      Array.from({ length: 9 }, (_, n) => [`e${n}`, null]),
    );
    t.equal(await client.value('SELECT count(*) FROM kv'), '9');
  });

  t.test('a key that is there on one shard leaves nothing on any', async (t) => {
    await client.run('DELETE FROM kv', `INSERT INTO kv (tenant_id, key) VALUES ('acme', 'e4')`);
    const before = await rows(client);
    t.equal(await client.fails(`INSERT INTO kv (tenant_id, key) VALUES ${keys}`), '23505');
    t.strictSame(await rows(client), before);
    t.strictSame(await prepared(), []);
  });

  t.test('all shards are told one time', async (t) => {
    await client.run('DELETE FROM kv');
    const timed = keys.replaceAll(')', `, statement_timestamp() + interval '1 day', to_jsonb(now()))`);
    await client.run(`INSERT INTO kv (tenant_id, key, ttl, value) VALUES ${timed}`);
    const times = async (what: string) =>
      (await client.rows(`SELECT ${what}, count(*) FROM kv GROUP BY ${what}`)).length;
    t.strictSame([await times('ttl'), await times('value')], [1, 1]);
    await client.run(
      `UPDATE kv SET ttl = transaction_timestamp() + interval '2 days', value = to_jsonb(LOCALTIMESTAMP(3))`,
    );
    t.strictSame([await times('ttl'), await times('value')], [1, 1]);
    const bound = `UPDATE kv SET ttl = now() + $2, value = $1 WHERE age(ttl) < $2 AND ttl - interval '2 days' <= now()`;
    const messages: FrontendMessage[] = [{ parse: bound }, { bind: ['"x"', '5 days'] }, { execute: '' }, 'sync'];
    t.strictSame(tagsOf(await client.send(messages)), ['UPDATE 9']);
    t.strictSame([await times('ttl'), await times('value')], [1, 1]);
    t.match(await client.failsWith(`UPDATE kv SET value = '1' WHERE now() > nonsense`), {
      fields: { C: '42703', P: '41' },
    });
  });

  t.test('a parameter in several rows and unlike places has to have a type', async (t) => {
    for (const one of [client, plain]) await one.run('DELETE FROM kv');
    const two = (types: number[]): FrontendMessage[] => [
      {
        parse: `INSERT INTO kv (tenant_id, key, value, version) VALUES ('acme', 'e1', to_jsonb($1 + 1), 1), ('acme', 'e2', '2', $1), ('acme', 'e3', '3', 3)`,
        types,
      },
      { bind: ['7'] },
      { execute: '' },
      'sync',
    ];
    t.match(errorOf(await client.send(two([])))?.fields, { C: '0A000', D: 'PGKV-065', M: /parameter \$1 stands/ });
    const [here, there] = await Promise.all([client, plain].map((of) => said(of, two([23]))));
    t.strictSame(here, there);
    t.strictSame(await rows(client), await rows(plain));
  });
}

interface Statement {
  readonly text: string;
  /** By batch. */
  readonly messages: readonly FrontendMessage[][];
}

type Write = (column: 'text' | 'jsonb' | 'timestamptz', value: string | null) => string;

const ORDERS = [
  ['tenant_id', 'key', 'value'],
  ['value', 'key', 'tenant_id'],
  ['tenant_id', 'ttl', 'key', 'value'],
  ['key', 'version', 'tenant_id', 'value'],
];
const RETURNING = [
  '',
  '',
  ' RETURNING key',
  ' RETURNING tenant_id, key, value',
  ` RETURNING value ->> 'n' AS n, 1 + 1`,
];

/** @param write puts a value into the text */
function statement(random: SeededRandom, write: Write): { readonly text: string; readonly columns: number } {
  const columns = random.pick(ORDERS);
  const count = random.between(2, 7);
  // One of a kind: of several errors Postgres tells the first row's.
  const badRow = random.oneIn(6) ? random.integer(count) : -1;
  const bad = random.pick(['key', 'value']);
  const shared = random.oneIn(3) ? random.pick(TENANTS) : null;
  const tenant = shared === null ? null : write('text', shared);
  const row = (index: number): string => {
    const isBad = index === badRow;
    const values = columns.map((column) => {
      switch (column) {
        case 'tenant_id':
          return tenant ?? write('text', random.pick(TENANTS));
        case 'key':
          return isBad && bad === 'key' ? write('text', null) : write('text', `k${random.integer(60)}`);
        case 'ttl':
          return random.pick([
            () => 'DEFAULT',
            () => write('timestamptz', '2099-01-01 00:00:00+00'),
            () => `now() + interval '${random.between(1, 9)} hours'`,
            () => `CURRENT_DATE + ${random.between(2, 9)}`,
          ])();
        case 'version':
          return random.oneIn(2) ? 'DEFAULT' : `${random.between(1, 9)}`;
        default:
          if (isBad && bad === 'value') return write('jsonb', '{"n": ');
          return random.pick([() => write('jsonb', `{"n": ${index}}`), () => write('jsonb', null), () => 'DEFAULT'])();
      }
    });
    return `(${values.join(random.pick([',', ', ']))})`;
  };
  const rows = Array.from({ length: count }, (_, index) => row(index));
  const nothing = [() => 'ON CONFLICT DO NOTHING', () => 'ON CONFLICT (tenant_id, key) DO NOTHING'];
  const any = [
    ...nothing,
    () => '',
    () => 'ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value',
    () => `ON CONFLICT (tenant_id, key) DO UPDATE SET value = ${write('jsonb', '{"n": 70}')}`,
    () => `ON CONFLICT (tenant_id, key) DO UPDATE SET value = '{"n": 71}' WHERE (kv.value ->> 'n')::int % 2 = 0`,
  ];
  const conflict = random.pick(badRow < 0 ? any : nothing)();
  const returning = random.pick(RETURNING);
  const alias = random.oneIn(4) && !conflict.includes('kv.') ? ' AS "a b"' : '';
  return {
    text: `INSERT INTO kv${alias} (${columns.join(', ')}) VALUES ${rows.join(random.pick([',', ' , ']))} ${conflict}${returning}`,
    columns: returning === '' ? 0 : returning.split(',').length,
  };
}

const written = (value: string | null): string => (value === null ? 'NULL' : literal(value));

function simple(random: SeededRandom): Statement {
  const { text } = statement(random, (_, value) => written(value));
  return { text, messages: [[{ query: text }]] };
}

const OIDS = { text: 25, jsonb: 3802, timestamptz: 1184 };

function extended(random: SeededRandom, n: number): Statement {
  const types: number[] = [];
  const values: (string | Buffer | null)[] = [];
  const declared = random.oneIn(3);
  const { text, columns } = statement(random, (type, value) => {
    if (random.oneIn(4)) return written(value);
    types.push(declared ? OIDS[type] : 0);
    const isBinary = value !== null && type !== 'timestamptz' && random.oneIn(3);
    const head = type === 'jsonb' ? [Buffer.from([1])] : [];
    values.push(isBinary ? Buffer.concat([...head, Buffer.from(value)]) : value);
    return `$${values.length}`;
  });
  const name = random.oneIn(2) ? `s${n}` : '';
  const resultFormats = random.pick([[], [0], [1], Array.from({ length: columns }, () => random.integer(2))]);
  const formats = values.map((value) => (Buffer.isBuffer(value) ? 1 : 0));
  const parse: FrontendMessage = { parse: text, name, types: declared ? types : [] };
  const bind: FrontendMessage = { bind: values, formats, statement: name, resultFormats };
  const describe: FrontendMessage = { describe: 'portal' };
  const execute: FrontendMessage = { execute: '' };
  return {
    text,
    messages: random.pick<FrontendMessage[][]>([
      [[parse, bind, execute, 'sync']],
      [[parse, bind, describe, execute, 'sync']],
      [
        [parse, { describe: 'statement', name }, 'sync'],
        [bind, describe, execute, 'sync'],
      ],
      [[parse, bind, describe, { execute: '', rows: 2 }, execute, 'sync']],
      [[parse, bind, { execute: '', rows: 2 }, 'sync']],
    ]),
  };
}
