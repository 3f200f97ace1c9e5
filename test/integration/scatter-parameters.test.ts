// Parameters, row counts and keys of reads over several shards in every form in which clients send them: answered as by plain
// Postgres, or refused; never by one shard alone, and never at the cost of the session.
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage, Value } from '../support/frontend-message.js';
import { KV, kvRouter, kvServers, prepareShard } from '../support/kv-cluster.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';

const plain = await startPostgres({ version: 'embedded' });
t.teardown(() => plain.stop());
await prepareShard(plain, [KV]);
const login = { user: plain.superuser, database: 'postgres' };
const cluster = await kvServers(t, 3, { tables: [KV] });
const router = await kvRouter(t, cluster);

function told(messages: readonly BackendMessage[]): string[] {
  return messages.flatMap((message) => {
    switch (message.type) {
      case 'DataRow':
        return [`row ${message.values.map((value) => value?.toString('hex') ?? 'NULL').join('|')}`];
      case 'CommandComplete':
        return [`tag ${message.tag}`];
      case 'ErrorResponse':
        return [`error ${message.fields['S']} ${message.fields['C']}`];
      case 'ReadyForQuery':
        return [`ready ${message.status}`];
      default:
        return [];
    }
  });
}

async function pair(parameters: Readonly<Record<string, string>> = {}) {
  const there = await SqlClient.connect(router, { ...login, parameters });
  const here = await SqlClient.connect(plain, { ...login, parameters });
  return {
    /** Both answers; `refused` where pgkv says 0A000 and the session goes on. */
    async send(messages: readonly FrontendMessage[]): Promise<{ found: string[]; wanted: string[] }> {
      return { found: told(await there.send(messages)), wanted: told(await here.send(messages)) };
    },
    async end(): Promise<void> {
      await there.end();
      await here.end();
    },
  };
}

const REFUSED = ['error ERROR 0A000', 'ready I'];

t.test('rows are written', async (t) => {
  const { send, end } = await pair();
  for (let key = 0; key < 40; key++) {
    const sql = `insert into kv (tenant_id, key, value) values ('t', 'k${key}', '${key}')`;
    const { found, wanted } = await send([{ query: sql }]);
    t.same(found, wanted);
  }
  await send([{ query: `insert into kv (tenant_id, key, value) values ('t', 'NULL', '1'), ('t', 'null', '2')` }]);
  for (const key of ['NULL', 'null']) {
    await send([
      {
        query: `insert into kv (tenant_id, key, value) values ('t', '${key}', '1') on conflict (tenant_id, key) do nothing`,
      },
    ]);
  }
  await end();
});

const extended = (
  parse: string,
  types: readonly number[],
  bind: readonly Value[],
  formats?: readonly number[],
): FrontendMessage[] => [
  { parse, types },
  formats === undefined ? { bind } : { bind, formats },
  { execute: '' },
  'sync',
];

t.test('more parameters declared than used, and any number of values', async (t) => {
  const { send, end } = await pair();
  const texts: readonly (readonly [string, number])[] = [
    ['select key from kv where key > $1 order by key', 1],
    ['select count(*) from kv where key > $1', 1],
    ['select count(*) as "$5", 1 as a$7 from kv', 0],
    [`select key from kv where tenant_id = 't' and key = any('{k1,k2,k3,k4}') order by key`, 0],
  ];
  for (const [text, used] of texts) {
    for (let declared = 0; declared <= 3; declared++) {
      for (let given = 0; given <= 4; given++) {
        const types = Array.from({ length: declared }, () => 25);
        const values = Array.from({ length: given }, () => 'k2');
        const { found, wanted } = await send(extended(text, types, values));
        t.same(found, wanted, `${text} uses ${used}, ${declared} declared, ${given} given`);
      }
    }
  }
  await end();
});

t.test('row counts in every spelling and type', async (t) => {
  const { send, end } = await pair();
  for (const count of [
    '2',
    '0x2',
    '0X1f',
    '1_0',
    '0b11',
    '0o17',
    '007',
    '0',
    '2.5',
    "'3'",
    '(2)',
    '1+1',
    'null',
    'all',
    '-1',
    '9999999999',
    '0x1FFFFFFFF',
    '1e1',
  ]) {
    for (const clause of [`limit ${count}`, `offset ${count}`, `limit ${count} offset ${count}`]) {
      const { found, wanted } = await send([{ query: `select key from kv order by key ${clause}` }]);
      if (found.join() !== REFUSED.join()) t.same(found, wanted, clause);
      const read = await send([{ query: 'select 1' }]);
      t.same(read.found, read.wanted, `the session lives on behind ${clause}`);
    }
  }
  const eight = Buffer.alloc(8);
  const float = Buffer.alloc(8);
  float.writeDoubleBE(3);
  eight.writeBigInt64BE(3n);
  const four = Buffer.from([0, 0, 0, 3]);
  const two = Buffer.from([0, 3]);
  for (const where of [
    '',
    'where 0 < $1::float8',
    'where 0 < $1::float4',
    'where $1::text is not null',
    'where $1::int8 > 0',
    'where $1::numeric > 0',
  ]) {
    for (const limit of ['limit $1', 'limit $1::int8', 'limit $1::int4', 'offset $1', 'limit $1 offset $1']) {
      for (const [value, types] of [
        [eight, []],
        [float, []],
        [four, []],
        [two, []],
        ['3', []],
        [eight, [20]],
        [float, [701]],
        [four, [23]],
        [null, []],
      ] as const) {
        const { found, wanted } = await send(
          extended(`select key from kv ${where} order by key ${limit}`, types, [value]),
        );
        if (found.join() !== REFUSED.join())
          t.same(found, wanted, `${where} ${limit} ${String(value?.toString('hex'))} ${types.join()}`);
      }
    }
  }
  const direct = await send(extended('select key from kv order by key limit $1', [], [eight]));
  t.equal(direct.found.length, 5, 'the usual case is no refusal');
  await end();
});

t.test('NULL in a list is what array_nulls says, however that was set', async (t) => {
  const list = `select key from kv where tenant_id = 't' and key = any('{NULL,null,k1,k2}') order by key`;
  const bound = `select key from kv where tenant_id = 't' and key = any($1) order by key`;
  const byParameter = extended(bound, [], ['{NULL,null,k1,k2}']);
  for (const parameters of [{}, { array_nulls: 'off' }, { options: '-c array_nulls=off' }] as const) {
    const { send, end } = await pair(parameters);
    const steps: FrontendMessage[][] = [
      [{ query: list }],
      byParameter,
      [{ query: 'set array_nulls = off' }],
      [{ query: list }],
      byParameter,
      [{ query: 'set array_nulls = on' }],
      byParameter,
      [{ query: 'begin' }],
      [{ query: 'set local array_nulls = off' }],
      [{ query: list }],
      byParameter,
      [{ query: 'rollback' }],
      [{ query: list }],
    ];
    for (const step of steps) {
      const { found, wanted } = await send(step);
      // A read beside a transaction with settings of its own, and what follows it there.
      const isRefused = found[0] === REFUSED[0] || (found.includes('ready E') && !wanted.includes('ready E'));
      if (isRefused) t.ok(wanted.includes('ready T'), `refused ${JSON.stringify(step)}`);
      else t.same(found, wanted, JSON.stringify([parameters, step]));
    }
    await end();
  }
});

t.test('a text that pgkv cannot parse, and that names a table in escapes, is not run unread', async (t) => {
  const { send, end } = await pair();
  for (const name of ['U&"k\\0076"', 'u&"\\006bv"', 'U&"k!0076" uescape \'!\'', 'U&"\\006B\\0076"']) {
    for (const sql of [
      `select count(*) from ${name}`,
      `select count(*) from ${name} nonsense in here`,
      `table ${name} garbage (`,
    ]) {
      const { found, wanted } = await send([{ query: sql }]);
      if (found[0] !== REFUSED[0]) t.same(found, wanted, sql);
    }
  }
  await end();
});
