// What clients see of the merged lane (D11): nothing but its speed. Answers are those that each statement gets by itself,
// to the byte, whoever else is in its batch; and batches there are.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { KvTable } from '../../src/cluster/kv-table.js';
import { encodeAll } from '../support/frontend-message.js';
import { BLOBS, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import type { LiveRouter } from '../support/live-router.js';
import {
  batchBytes,
  becomesMerged,
  directClient,
  grants,
  queryBytes,
  seeded,
  type TickClient,
  tickClients,
  together,
  told,
  untilMerged,
} from '../support/merged-clients.js';

const LONG = process.env['PGKV_LONG'] === '1';
const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const ADMIN_ROWS = 100;

const special = (name: string): KvTable => ({ schema: 'public', name, valueType: 'jsonb' });
const TABLES = [
  KV,
  BLOBS,
  special('checked'),
  special('triggered'),
  special('ruled'),
  special('secured'),
  special('growing'),
];
const cluster = await kvServers(t, 1, { tables: TABLES });
const server = cluster.servers[0]!;
const direct = await directClient(server);
t.teardown(() => direct.sql.wire.destroy());

/** Runs SQL on the server itself. */
async function onServer(sql: string): Promise<readonly (string | null)[][]> {
  const { code, error, rows } = told(await direct.ask(queryBytes(sql)));
  if (code !== '') throw new Error(`${code} ${error!['M']}: ${sql}`);
  return rows;
}

/** Keys k0 …, in part with a ttl, and e0 …, which have expired; versions begin at 1. */
const FILL = `truncate kv, blobs;
  insert into kv (tenant_id, key, value, updated_at, ttl)
    select 't', 'k' || g, jsonb_build_object('n', g), '2026-01-01', case when g % 3 = 0 then timestamptz '2099-01-01' end
    from generate_series(0, ${ADMIN_ROWS - 1}) g;
  insert into kv (tenant_id, key, value, updated_at, ttl)
    select 't', 'e' || g, '"expired"', '2026-01-01', '2026-01-01' from generate_series(0, 31) g;
  insert into blobs (tenant_id, key, value, updated_at)
    select 't', 'k' || g, decode(lpad(to_hex(g), 4, '0'), 'hex'), '2026-01-01' from generate_series(0, ${ADMIN_ROWS - 1}) g`;

const GET = 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2';
const INCR = 'SELECT kv_incr($1, $2)';
const UPSERT =
  'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value, version = kv.version + 1';

// ---------------------------------------------------------------- batches there are

t.test('64 clients, one turn of the event loop: a few statements, a few commits', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 64);
  for (const [name, sql, values] of [
    ['reads', GET, (index: number) => ['t', `k${index}`]],
    ['upserts', UPSERT, (index: number) => ['t', `u${index}`, `${index}`]],
    ['function calls', INCR, (index: number) => ['t', `i${index}`]],
    ['deletes', 'DELETE FROM kv WHERE tenant_id = $1 AND key = $2', (index: number) => ['t', `u${index}`]],
  ] as const) {
    const bytes = (index: number) => batchBytes(sql, values(index));
    await untilMerged(t, live, clients, bytes);
    const [before] = (await onServer('select pg_current_xact_id()'))[0]!;
    const grantsBefore = grants(live);
    const answers = await together(clients, bytes);
    const [after] = (await onServer('select pg_current_xact_id()'))[0]!;
    t.same(
      answers.flatMap((answer) => told(answer).code || []),
      [],
    );
    const transactions = Number(BigInt(after!) - BigInt(before!)) - 1;
    t.ok(grants(live) - grantsBefore <= 4, `${name}: ${grants(live) - grantsBefore} statements`);
    t.ok(transactions <= 4, `${name}: ${transactions} transactions that wrote`);
  }
});

// ---------------------------------------------------------------- the same bytes

type Value = string | Buffer | null;

interface Case {
  readonly name: string;
  readonly sql: string;
  /** How values travel in binary; those not named, as text. */
  readonly types: readonly ('text' | 'int8' | 'jsonb' | 'bytea' | 'text[]')[];
  readonly values: (index: number) => readonly (string | null)[];
  /** Statements, of all members' that may go out beyond one: those that have to be run by themselves. */
  readonly alone?: number;
  /** It is not merged. */
  readonly leased?: boolean;
  /** Postgres itself knows nothing of expiry, so it is asked of tables without such rows. */
  readonly knowsExpiry?: boolean;
}

const MEMBERS = 16;
const OIDS = { text: 25, int8: 20, jsonb: 3802, bytea: 17, 'text[]': 1009 } as const;

/** Every key in turn is there, is not, has expired, is NULL. */
const anyKey = (index: number): string | null =>
  index % 8 === 7 ? `e${index}` : index % 4 === 3 ? `absent${index}` : `k${index}`;
const keyOrNull = (index: number): string | null => (index === 5 ? null : anyKey(index));
const KEY_WHERE = 'WHERE tenant_id = $1 AND key = $2';
const SHOWN = 'tenant_id, key, version, value, ttl IS NULL AS lasts, slot';

const CASES: readonly Case[] = [
  {
    name: 'a read of one column',
    sql: GET,
    types: ['text', 'text'],
    values: (index) => ['t', keyOrNull(index)],
    alone: 1,
  },
  { name: 'a read of all', sql: `SELECT * FROM kv ${KEY_WHERE}`, types: [], values: (index) => ['t', anyKey(index)] },
  {
    name: 'a read of expressions',
    sql: `SELECT upper(key), value->>'n' AS n, version + $3, $3 * 2 AS twice, 'text', 7 AS seven, NULL, true FROM kv ${KEY_WHERE}`,
    types: ['text', 'text', 'int8'],
    values: (index) => ['t', anyKey(index), index === 2 ? null : String((index + 1) * 1_000_000_000_000)],
  },
  {
    name: 'a read under a condition on its value',
    sql: `SELECT key FROM kv ${KEY_WHERE} AND value @> $3 AND version < $4`,
    types: ['text', 'text', 'jsonb', 'int8'],
    values: (index) => ['t', anyKey(index), `{"n": ${index - (index % 2)}}`, '5'],
  },
  {
    name: 'a read of several keys',
    sql: `SELECT key, value FROM kv WHERE tenant_id = $1 AND key IN ($2, $3)`,
    types: ['text', 'text', 'text'],
    // In the order in which they lie in the table.
    values: (index) => ['t', index % 4 === 3 ? `absent${index}` : `k${10 + index}`, `k${40 + index}`],
  },
  {
    name: 'a read of a list of keys',
    sql: `SELECT key, value FROM kv WHERE tenant_id = $1 AND key = ANY ($2)`,
    types: ['text', 'text[]'],
    values: (index) => [
      't',
      `{${Array.from({ length: 1 + (index % 5) }, (_, n) => `k${10 + index + n * 7}`).join()},NULL}`,
    ],
  },
  {
    name: 'a read of several keys in an order',
    sql: `SELECT key, value FROM kv WHERE tenant_id = $1 AND key IN ($2, $3) ORDER BY key DESC LIMIT 5`,
    types: ['text', 'text', 'text'],
    values: (index) => ['t', anyKey(index), `k${index + 20}`],
    leased: true,
  },
  {
    name: 'an upsert',
    sql: UPSERT,
    types: ['text', 'text', 'jsonb'],
    values: (index) => ['t', anyKey(index), index === 3 ? null : `{"new": ["${index}", "ü'\\\\"]}`],
  },
  {
    name: 'an upsert that returns what is there now',
    sql: `${UPSERT} RETURNING ${SHOWN}`,
    types: ['text', 'text', 'jsonb'],
    values: (index) => ['t', anyKey(index), `[${index}]`],
  },
  {
    name: 'an upsert under a condition, with a value of its own in DO UPDATE',
    sql: `INSERT INTO kv AS o (tenant_id, key, value, ttl) VALUES ($1, $2, $3, NULL) ON CONFLICT (tenant_id, key)
      DO UPDATE SET value = o.value || $4, version = o.version + 10 WHERE o.version = 1 RETURNING key, value, version`,
    types: ['text', 'text', 'jsonb', 'jsonb'],
    values: (index) => ['t', anyKey(index), '{}', `{"added": ${index}}`],
  },
  {
    name: 'a plain insert, which conflicts for most',
    sql: 'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)',
    types: ['text', 'text', 'jsonb'],
    values: (index) => ['t', anyKey(index), `${index}`],
    alone: MEMBERS,
  },
  {
    name: 'a plain insert of new keys, which returns them',
    sql: `INSERT INTO kv (tenant_id, key, value, ttl) VALUES ($1, $2, $3, '2099-01-01') RETURNING ${SHOWN}`,
    types: ['text', 'text', 'jsonb'],
    values: (index) => ['t', `new ${index}`, `${index}`],
  },
  {
    name: 'an insert that does nothing on a conflict',
    sql: `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING key, version`,
    types: ['text', 'text', 'jsonb'],
    values: (index) => ['t', anyKey(index), `${index}`],
  },
  {
    name: 'an update',
    sql: `UPDATE kv SET value = $3 ${KEY_WHERE}`,
    types: ['text', 'text', 'jsonb'],
    values: (index) => ['t', anyKey(index), `"${index}"`],
  },
  {
    name: 'an update of one version',
    sql: `UPDATE kv AS o SET value = jsonb_set(o.value, '{n}', $3) ${KEY_WHERE} AND version = $4 RETURNING o.version, value`,
    types: ['text', 'text', 'jsonb', 'int8'],
    values: (index) => ['t', anyKey(index), `${index + 100}`, String(1 + (index % 2))],
  },
  {
    name: 'an update that sets the version',
    sql: `UPDATE kv SET value = $3, version = version + 1 ${KEY_WHERE} AND version = $4`,
    types: ['text', 'text', 'jsonb', 'int8'],
    values: (index) => ['t', anyKey(index), null, String(1 + (index % 2))],
  },
  { name: 'a delete', sql: `DELETE FROM kv ${KEY_WHERE}`, types: ['text', 'text'], values: (i) => ['t', anyKey(i)] },
  {
    name: 'a delete that returns what was there',
    sql: `DELETE FROM kv ${KEY_WHERE} AND version = $3 RETURNING *`,
    types: ['text', 'text', 'int8'],
    values: (index) => ['t', anyKey(index), String(1 + (index % 5 === 4 ? 1 : 0))],
  },
  {
    name: 'an upsert of bytes',
    sql: `${UPSERT.replaceAll('kv', 'blobs')} RETURNING key, value, version`,
    types: ['text', 'text', 'bytea'],
    values: (index) => ['t', anyKey(index), index === 2 ? '' : `\\x00ff${'5c27'.repeat(index)}`],
  },
  {
    name: 'a read of bytes',
    sql: 'SELECT value, length(value), key FROM blobs WHERE tenant_id = $1 AND key = $2 AND value <> $3',
    types: ['text', 'text', 'bytea'],
    values: (index) => ['t', anyKey(index), '\\x0002'],
  },
  ...(
    [
      ['kv_get', 'SELECT value, version, ttl FROM kv_get($1, $2)', []],
      ['kv_put', 'SELECT kv_put($1, $2, $3)', ['jsonb']],
      ['kv_put with a ttl', `SELECT kv_put($1, $2, $3, interval '1 hour')`, ['jsonb']],
      ['kv_cas', 'SELECT * FROM kv_cas($1, $2, $3, $4)', ['int8', 'jsonb']],
      ['kv_delete', 'SELECT kv_delete($1, $2)', []],
      ['kv_merge', 'SELECT * FROM kv_merge($1, $2, $3)', ['jsonb']],
      ['kv_expire', `SELECT kv_expire($1, $2, '1 day')`, []],
      ['kv_expire_at', `SELECT kv_expire_at($1, $2, '2098-01-01')`, []],
      ['kv_persist', 'SELECT kv_persist($1, $2)', []],
      ['kv_touch', 'SELECT kv_touch($1, $2)', []],
      ['kv_slot', 'SELECT kv_slot($1, $2)', []],
    ] as const
  ).map(([name, sql, more]): Case => {
    const values = (index: number): string[] =>
      more.map((type) => (type === 'int8' ? String(index % 3) : `{"f": ${index}}`));
    const key = name === 'kv_merge' ? (index: number) => `k${index}` : anyKey;
    return {
      name,
      sql,
      types: ['text', 'text', ...more],
      values: (index) => ['t', key(index), ...values(index)],
      knowsExpiry: true,
      // It reads no table.
      leased: name === 'kv_slot',
    };
  }),
  {
    name: 'kv_incr',
    sql: 'SELECT kv_incr($1, $2, $3)',
    types: ['text', 'text', 'int8'],
    values: (index) => ['t', `counter ${index}`, `${index + 2}`],
    knowsExpiry: true,
  },
];

/** Ways of sending the same statement. */
const FORMS = ['simple', 'unnamed', 'unnamed, not described', 'named', 'named, binary results', 'all binary'] as const;
type Form = (typeof FORMS)[number];

function inBinary(type: Case['types'][number] | undefined, value: string | null): Value {
  if (value === null) return null;
  switch (type) {
    case 'int8': {
      const bytes = Buffer.alloc(8);
      bytes.writeBigInt64BE(BigInt(value));
      return bytes;
    }
    case 'jsonb':
      return Buffer.from(`\u0001${value}`);
    case 'bytea':
      return Buffer.from(value.slice(2), 'hex');
    default:
      // An array stays text beside others in binary.
      return type === 'text[]' ? value : Buffer.from(value);
  }
}

function literal(type: Case['types'][number] | undefined, value: string | null): string {
  if (value === null) return 'NULL';
  return type === 'int8' ? value : value.includes('\\') ? `E'${value.replaceAll(/['\\]/g, '\\$&')}'` : `'${value}'`;
}

const NAME = 'mine';

function bytesOf(form: Form, { types, values, ...rest }: Case, index: number, isDirect: boolean): Buffer {
  const sql = isDirect ? forPostgres(rest.sql) : rest.sql;
  const given = values(index);
  switch (form) {
    case 'simple':
      return queryBytes(sql.replaceAll(/\$(\d+)/g, (_, n) => literal(types[Number(n) - 1], given[Number(n) - 1]!)));
    case 'unnamed':
      return batchBytes(sql, given);
    case 'unnamed, not described':
      return batchBytes(sql, given, { describes: false });
    case 'named':
      return batchBytes(sql, given, { named: NAME });
    case 'named, binary results':
      return batchBytes(sql, given, { named: NAME, resultFormats: [1] });
    case 'all binary': {
      const binary = given.map((value, n) => inBinary(types[n], value));
      return batchBytes(sql, binary, { types: types.map((type) => OIDS[type]), resultFormats: [1] });
    }
  }
}

/** Widening the arbiter is what pgkv does. */
const forPostgres = (sql: string): string =>
  sql
    .replace('(tenant_id, key) DO', '(tenant_id, key, slot) DO')
    .replace('(tenant_id, key)\n      DO', '(tenant_id, key, slot)\n      DO');

const STATE = `select tenant_id, key, version, value::text, ttl is null or ttl > now(), ttl is null, slot from kv where ttl is null or ttl > now()
  union all select tenant_id, key, version, value::text, true, true, slot from blobs order by 1, 2, 4`;

interface Outcome {
  readonly answers: readonly string[];
  readonly state: string;
}

const isNamed = (form: Form): boolean => form.startsWith('named');
/** All clients prepare it under the same name, as drivers do. */
const prepared = (sql: string): Buffer =>
  encodeAll([{ close: 'statement', name: NAME }, { parse: sql, name: NAME }, 'sync']);

const reads = ({ sql }: Case): boolean => /^SELECT (?!\* FROM kv_|kv_)/.test(sql) || sql.includes('kv_get');

/** Fresh keys each time, so that inserts meet no conflict. */
function elsewhere(one: Case): Case {
  let attempts = 0;
  return {
    ...one,
    values: (index) => {
      const [tenant, , ...more] = one.values(index);
      return one.types[1] === 'text[]' ? [tenant!, `{w${index}}`] : [tenant!, `w${attempts++}`, ...more];
    },
  };
}

/** Answers of each case in each form, from one router. */
async function outcomes(t: Test, merges: boolean): Promise<Map<string, Outcome>> {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 8 }, merged: { disabled: !merges } });
  const clients = await tickClients(live, MEMBERS);
  const found = new Map<string, Outcome>();
  for (const one of CASES) {
    const { name: what, leased = false, alone = 0 } = one;
    await onServer(FILL);
    for (const form of FORMS) {
      const name = `${what}, ${form}`;
      const away = elsewhere(one);
      if (isNamed(form)) await together(clients, () => prepared(one.sql));
      if (merges && !leased) await untilMerged(t, live, clients, (index) => bytesOf(form, away, index, false), name);
      if (!reads(one)) await onServer(FILL);
      const before = grants(live);
      const answers = await together(clients, (index) => bytesOf(form, one, index, false));
      const statements = grants(live) - before;
      if (merges && !leased && statements > 2 + alone) t.fail(`${name}: ${statements} statements`);
      const state = JSON.stringify(await onServer(STATE));
      found.set(name, { answers: answers.map((answer) => answer.toString('latin1')), state });
    }
  }
  return found;
}

let merged = new Map<string, Outcome>();

t.test('every kind of statement is merged, in every form', async (t) => {
  merged = await outcomes(t, true);
});

t.test('the same answers, to the byte, as without merging', async (t) => {
  const unmerged = await outcomes(t, false);
  for (const [name, outcome] of unmerged) {
    t.strictSame(readable(merged.get(name)!.answers), readable(outcome.answers), name);
    t.equal(merged.get(name)!.state, outcome.state, `${name}: what the table holds`);
  }
});

t.test('the same answers, to the byte, as from Postgres', async (t) => {
  const client = await directClient(server);
  for (const one of CASES) {
    const fill = one.knowsExpiry === true ? FILL : `${FILL}; delete from kv where ttl < now()`;
    await onServer(fill);
    for (const form of FORMS) {
      if (!reads(one)) await onServer(fill);
      if (isNamed(form)) await client.ask(prepared(forPostgres(one.sql)));
      const answers: string[] = [];
      for (let index = 0; index < MEMBERS; index++) {
        answers.push((await client.ask(bytesOf(form, one, index, true))).toString('latin1'));
      }
      const state = JSON.stringify(await onServer(STATE));
      const name = `${one.name}, ${form}`;
      t.strictSame(readable(merged.get(name)!.answers), readable(answers), name);
      t.equal(merged.get(name)!.state, state, `${name}: what the table holds`);
    }
  }
  client.sql.wire.destroy();
});

/** Without what names a place in the server's own source or text. */
const readable = (answers: readonly string[]): string[] => answers.map((answer) => answer.replaceAll(/P\d+\0/g, ''));

// ---------------------------------------------------------------- whose answer it is

t.test('each of 200 clients gets the answers to its own statements', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 200);
  const random = seeded(SEED);
  const before = grants(live);
  let left = LONG ? 1_000_000 : 100_000;
  const wanted = left;
  const wrong: string[] = [];
  const converse = async (client: TickClient, index: number): Promise<void> => {
    const key = `own ${index}`;
    let written = '';
    for (let turn = 0; left > 0 && wrong.length < 5; turn++) {
      left--;
      const nonce = `<${index}.${turn}>`;
      let question: Buffer;
      /** What the answer has to hold, and all of that kind that it may. */
      let expected = nonce;
      switch (Math.floor(random() * 8)) {
        case 0:
          question = batchBytes('SELECT $3::text AS nonce, value FROM kv WHERE tenant_id = $1 AND key = $2', [
            't',
            'k1',
            nonce,
          ]);
          break;
        case 1:
          question = queryBytes(
            `SELECT '${nonce}' AS nonce, key FROM kv WHERE tenant_id = 't' AND key = 'k${index % 9}'`,
          );
          break;
        case 2:
          question = batchBytes(`${UPSERT} RETURNING value`, ['t', key, `"${nonce}"`], { describes: false });
          written = nonce;
          break;
        case 3:
          question = queryBytes(
            `INSERT INTO kv (tenant_id, key, value) VALUES ('t', '${key}', '"${nonce}"') ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING value`,
          );
          written = nonce;
          break;
        case 4:
          question = batchBytes('SELECT * FROM kv_merge($1, $2, $3)', ['t', turn % 50 === 0 ? 'object of all' : `object ${index}`, `{"n": "${nonce}"}`], {
            resultFormats: [1],
          });
          break;
        case 5:
          question = batchBytes(GET, ['t', key], { resultFormats: [1], describes: false });
          expected = written;
          break;
        case 6:
          question = batchBytes('SELECT key FROM kv WHERE tenant_id = $1 AND key = $2', ['t', nonce]);
          expected = '';
          break;
        default:
          question = queryBytes(`SELECT value FROM kv WHERE tenant_id = 't' AND key = '${key}'`);
          expected = written;
      }
      const answer = (await client.ask(question)).toString('latin1');
      const nonces = answer.match(/<\d+\.\d+>/g) ?? [];
      const isRight = expected === '' ? nonces.length === 0 : nonces.length === 1 && nonces[0] === expected;
      if (!isRight || answer.includes('SERROR')) wrong.push(`wanted ${expected || 'none'}: ${answer}`);
    }
  };
  await Promise.all(clients.map(converse));
  t.same(wrong, [], `seed ${SEED}`);
  const statements = grants(live) - before;
  t.ok(statements < wanted / 3, `${wanted} answers by ${statements} statements`);
});

// ---------------------------------------------------------------- members that fail

/** Fields that say what went wrong; not where in the server's source, nor in which text. */
function fields(error: Readonly<Record<string, string>> | null): string {
  if (error === null) return 'no error';
  const { F, L, R, P, q, p, ...said } = error;
  return JSON.stringify(said).replaceAll(/\d{4}-\d\d-\d\d [0-9:.]+\+00/g, 'then');
}

const FAILING = `INSERT INTO checked (tenant_id, key, value) VALUES ($1, $2, $3)
  ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING value, key`;

t.test("a member that fails gets Postgres's error, the others their results", async (t) => {
  await onServer(`alter table checked add constraint small check (value <> '"bad"')`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 32);
  const cases: readonly (readonly [
    name: string,
    sql: string,
    good: (i: number) => string[],
    bad: (i: number) => string[] | null,
  ])[] = [
    [
      'a constraint and a cast',
      FAILING,
      (i) => ['t', `c${i}`, `${i}`],
      (i) => (i % 7 === 1 ? ['t', `c${i}`, '"bad"'] : i % 7 === 4 ? ['t', `c${i}`, '{"unfinished'] : null),
    ],
    [
      'a division by zero in the select list',
      'SELECT $3::int4 / $4::int4 AS ratio, key FROM kv WHERE tenant_id = $1 AND key = $2',
      (i) => ['t', `k${i}`, `${i * 10}`, '2'],
      (i) => (i === 9 ? ['t', 'k9', '1', '0'] : null),
    ],
    [
      'a cast of what is stored',
      `SELECT (value->>'n')::int4 AS n FROM checked WHERE tenant_id = $1 AND key = $2`,
      (i) => ['t', `d${i}`],
      (i) => (i === 3 ? ['t', 'text'] : null),
    ],
    [
      'a key that is there',
      'INSERT INTO checked (tenant_id, key, value) VALUES ($1, $2, $3)',
      (i) => ['t', `fresh${i}`, `${i}`],
      (i) => (i % 10 === 2 ? ['t', `d${i}`, '1'] : null),
    ],
  ];
  for (const [name, sql, good, bad] of cases) {
    const fill = `truncate checked; insert into checked (tenant_id, key, value) values ('t', 'text', '{"n": "x"}');
      insert into checked (tenant_id, key, value) select 't', 'd' || g, '{"n": 5}' from generate_series(0, 31) g`;
    await onServer(fill);
    let attempt = 0;
    await untilMerged(t, live, clients, (i) =>
      batchBytes(sql, [
        good(i)[0]!,
        `${good(i)[1]}${sql.startsWith('INSERT') ? `-${attempt++}` : ''}`,
        ...good(i).slice(2),
      ]),
    );
    await onServer(fill);
    const values = (i: number) => bad(i) ?? good(i);
    const answers = (await together(clients, (i) => batchBytes(sql, values(i)))).map(told);
    const held = await onServer('select key, value, version from checked order by 1');
    await onServer(fill);
    for (const [i, answer] of answers.entries()) {
      const own = told(await direct.ask(batchBytes(forPostgres(sql), values(i))));
      t.equal(fields(answer.error), fields(own.error), `${name}, member ${i}`);
      t.same([answer.rows, answer.tags], [own.rows, own.tags], `${name}, member ${i}`);
      t.equal(answer.code !== '', bad(i) !== null);
    }
    t.same(held, await onServer('select key, value, version from checked order by 1'), `${name}: what the table holds`);
  }
});

const banned = { since: 0, live: null as LiveRouter | null, clients: [] as TickClient[] };
const someFail = (i: number): Buffer => batchBytes(FAILING, ['t', `b${i}`, i === 0 ? '"bad"' : '1']);
const noneFails = (i: number): Buffer => batchBytes(FAILING, ['t', `b${i}`, '1']);

t.test('a statement that keeps failing leaves the lane', async (t) => {
  // Its router lives to the end of the file, where the statement is to come back.
  const live = await kvRouter(t.parent as Test, cluster, { pool: { sizeMax: 8 } });
  const clients = await tickClients(live, 16);
  await untilMerged(t, live, clients, noneFails);
  for (let round = 0; round < 6; round++) {
    const codes = (await together(clients, someFail)).map((answer) => told(answer).code);
    t.same(codes, ['23514', ...new Array(15).fill('')]);
  }
  const before = grants(live);
  await together(clients, noneFails);
  t.equal(grants(live) - before, clients.length, 'each by itself');
  Object.assign(banned, { since: performance.now(), live, clients });
});

// ---------------------------------------------------------------- one key, many writers

t.test('writes of one key in one turn are all applied', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 64);
  const statements: readonly (readonly [name: string, sql: string])[] = [
    [
      'update',
      `UPDATE kv SET value = jsonb_build_object('n', (value->>'n')::int4 + 1) WHERE tenant_id = $1 AND key = $2 RETURNING value->>'n'`,
    ],
    [
      'upsert',
      `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, '{"n": 1}') ON CONFLICT (tenant_id, key)
         DO UPDATE SET value = jsonb_build_object('n', (kv.value->>'n')::int4 + 1) RETURNING value->>'n'`,
    ],
    ['function', INCR],
  ];
  for (const [name, sql] of statements) {
    const key = name === 'update' ? 'k0' : `sum of ${name}`;
    await untilMerged(t, live, clients, (i) => batchBytes(sql, ['t', `k${i + 1}`]));
    const seen: number[] = [];
    for (let round = 0; round < 3; round++) {
      for (const answer of await together(clients, () => batchBytes(sql, ['t', key]))) {
        seen.push(Number(told(answer).rows[0]?.[0]));
      }
    }
    t.same(
      seen.sort((a, b) => a - b),
      Array.from({ length: 192 }, (_, n) => n + 1),
      `${name}: each has seen a count of its own`,
    );
  }
});

t.test('two routers write the same keys: rows are locked in one order', async (t) => {
  await onServer(FILL);
  const options = { pool: { sizeMax: 6 } };
  const one = await kvRouter(t, cluster, options);
  const ofOne = await tickClients(one, 40);
  // All its sockets are there before the other router begins to count its own.
  await Promise.all(ofOne.map((client) => client.ask(queryBytes('SELECT pg_sleep(0.01)'))));
  await t.test('together', async (t) => {
    const other = await kvRouter(t, cluster, options);
    const ofOther = await tickClients(other, 40);
    const random = seeded(SEED);
    const write = (n: number) =>
      n % 2 === 0
        ? batchBytes('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2', [
            't',
            `k${Math.floor(random() * 50)}`,
            `${n}`,
          ])
        : batchBytes(UPSERT, ['t', `k${Math.floor(random() * 50)}`, `${n}`]);
    for (const [live, clients] of [
      [one, ofOne],
      [other, ofOther],
    ] as const) {
      await untilMerged(
        t,
        live,
        clients.filter((_, n) => n % 2 === 0),
        () => write(0),
      );
      await untilMerged(
        t,
        live,
        clients.filter((_, n) => n % 2 === 1),
        () => write(1),
      );
    }
    const [versions] = (await onServer(`select sum(version) from kv where key like 'k%'`))[0]!;
    const logged = server.log().length;
    const codes = new Set<string>();
    const ROUNDS = 40;
    await Promise.all(
      [ofOne, ofOther].map(async (clients) => {
        for (let round = 0; round < ROUNDS; round++) {
          for (const answer of await together(clients, write)) codes.add(told(answer).code);
        }
      }),
    );
    t.same([...codes], [''], `seed ${SEED}`);
    const [after] = (await onServer(`select sum(version) from kv where key like 'k%'`))[0]!;
    t.equal(Number(after) - Number(versions), 80 * ROUNDS, 'each write was applied once');
    const crossed =
      server
        .log()
        .slice(logged)
        .match(/lock timeout|deadlock detected/g)?.length ?? 0;
    t.ok(crossed <= 4, `${crossed} batches met others crosswise`);
  });
});

// ---------------------------------------------------------------- settings, roles, tables

t.test('24 groups of settings: answers in the settings of each client', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const groups: string[] = [];
  for (const zone of ['UTC', 'Asia/Tokyo', 'America/New_York', 'Asia/Kolkata']) {
    for (const style of ['ISO, MDY', 'German, DMY', 'SQL, DMY']) {
      for (const digits of ['1', '-8']) {
        groups.push(`SET timezone = '${zone}'; SET datestyle = '${style}'; SET extra_float_digits = ${digits}`);
      }
    }
  }
  t.equal(groups.length, 24);
  // A literal of a time is read when the text is parsed, under the settings in force then.
  const sql = `SELECT ttl, version / 3.0::float8 AS third, timestamptz '2026-07-01 10:00' AS at, '03/04/2026'::date AS day, $3::timestamptz AS given
    FROM kv WHERE tenant_id = $1 AND key = $2`;
  const values = ['t', 'k3', '03.04.2026 05:06'];
  const expected: (readonly (string | null)[])[] = [];
  for (const group of groups) {
    const { rows } = told(await direct.ask(Buffer.concat([queryBytes(group), batchBytes(sql, values)]), 2));
    expected.push(rows[0]!);
  }
  await onServer('RESET ALL');
  const clients = await tickClients(live, 48);
  await together(clients, (i) => queryBytes(groups[i % 24]!));
  t.equal(new Set(expected.map((row) => row.join())).size, 24);
  for (let round = 0; round < 8; round++) {
    const answers = await together(clients, () => batchBytes(sql, values));
    for (const [i, answer] of answers.entries()) {
      const { rows, code } = told(answer);
      if (code !== '' || String(rows[0]) !== String(expected[i % 24])) {
        t.same([code, rows[0]], ['', expected[i % 24]], `round ${round}, ${groups[i % 24]}`);
      }
    }
    await sleep(5);
  }
  // Changed under way, and changed back.
  await together(clients, (i) => queryBytes(i % 2 === 0 ? 'RESET ALL' : groups[(i + 5) % 24]!));
  const answers = await together(clients, () => batchBytes(sql, values));
  for (const [i, answer] of answers.entries()) {
    t.same(told(answer).rows[0], expected[i % 2 === 0 ? 0 : (i + 5) % 24]);
  }
});

t.test('other settings are honoured, by leases', async (t) => {
  await onServer(FILL);
  await onServer(`drop role if exists lane_reader; create role lane_reader login; grant select on kv to lane_reader`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const update = (i: number) =>
    batchBytes('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2', ['t', `k${i}`, '1']);
  await untilMerged(t, live, clients, update);
  for (const [set, expected] of [
    ['SET search_path = public, pg_catalog', ''],
    ['SET ROLE lane_reader', '42501'],
    [`SET statement_timeout = '40ms'`, '57014'],
    [`SET lock_timeout = '30ms'`, '55P03'],
    [`SET default_transaction_isolation = 'serializable'`, ''],
    ['SET default_transaction_read_only = on', '25006'],
    ['SET synchronous_commit = off', ''],
  ] as const) {
    await together(clients.slice(0, 4), () => queryBytes(set));
    const waits = set.includes('timeout');
    if (waits)
      await onServer(`begin; select 1 from kv where tenant_id = 't' and key in ('k0', 'k1', 'k2', 'k3') for update`);
    const before = grants(live);
    const codes = (await together(clients, update)).map((answer) => told(answer).code);
    if (waits) await onServer('commit');
    t.same(codes, [...new Array(4).fill(expected), ...new Array(4).fill('')], set);
    t.ok(grants(live) - before >= 5, `${set}: each by itself`);
    await together(clients.slice(0, 4), () => queryBytes('RESET ROLE; RESET ALL'));
  }
});

t.test('no privilege crosses from one role to another', async (t) => {
  await onServer(FILL);
  await onServer(`drop role if exists lane_writer; create role lane_writer login; grant all on kv to lane_writer`);
  const live = await kvRouter(t, cluster);
  const writers = await tickClients(live, 16, { user: 'lane_writer' });
  const readers = await tickClients(live, 16, { user: 'lane_reader' });
  const both = writers.flatMap((writer, i) => [writer, readers[i]!]);
  await untilMerged(t, live, both, (i) => batchBytes(GET, ['t', `k${i}`]));
  const update = (i: number) =>
    batchBytes('UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2', ['t', `k${i}`, '"mine"']);
  for (let round = 0; round < 8; round++) {
    const codes = (await together(both, update)).map((answer) => told(answer).code);
    t.same(
      codes,
      both.map((_, i) => (i % 2 === 0 ? '' : '42501')),
    );
    const reads = (await together(both, (i) => batchBytes(GET, ['t', `k${i}`]))).map(told);
    t.same(
      reads.map(({ rows }) => rows),
      both.map((_, i) => [[i % 2 === 0 ? '"mine"' : `{"n": ${i}}`]]),
    );
  }
});

t.test('tables with triggers, rules or row-level security are not merged', async (t) => {
  await onServer(`create table log (what text);
    create function note() returns trigger language plpgsql security definer as $$ begin insert into public.log values (tg_table_name); return null; end $$;
    create trigger noting after update on triggered for each statement execute function note();
    create rule noting as on update to ruled do also insert into log values ('ruled');
    create policy own on secured using (tenant_id = current_user); alter table secured enable row level security;
    grant all on secured, triggered, ruled, log to lane_writer, lane_reader;
    insert into triggered (tenant_id, key, value) select 't', 'k' || g, '0' from generate_series(0, 15) g;
    insert into ruled (tenant_id, key, value) select 't', 'k' || g, '0' from generate_series(0, 15) g;
    insert into secured (tenant_id, key, value) select u, 'k' || g, to_jsonb(u) from generate_series(0, 15) g, unnest(array['lane_reader', 'lane_writer']) u`);
  const live = await kvRouter(t, cluster);
  const writers = await tickClients(live, 8, { user: 'lane_writer' });
  const readers = await tickClients(live, 8, { user: 'lane_reader' });
  const clients = [...writers, ...readers];
  for (const table of ['triggered', 'ruled']) {
    const update = (i: number) =>
      batchBytes(`UPDATE ${table} SET value = $3 WHERE tenant_id = $1 AND key = $2`, ['t', `k${i}`, '1']);
    t.notOk(await becomesMerged(live, clients, update, 12), table);
    const [count] = (await onServer(`select count(*) from log where what = '${table}'`))[0]!;
    t.equal(count, String(12 * clients.length), `${table}: each statement was noted`);
  }
  const read = (i: number) =>
    batchBytes('SELECT value FROM secured WHERE tenant_id = $1 AND key = $2', [
      i % 3 === 0 ? 'lane_reader' : 'lane_writer',
      `k${i}`,
    ]);
  t.notOk(await becomesMerged(live, clients, read, 12), 'secured');
  const answers = (await together(clients, read)).map((answer) => told(answer).rows);
  t.same(
    answers,
    clients.map((_, i) => (i % 3 === 0 ? (i >= 8 ? [['"lane_reader"']] : []) : i < 8 ? [['"lane_writer"']] : [])),
  );
});

// ---------------------------------------------------------------- tables that change, values of all sizes

t.test('columns are added and dropped on the server under load: no client sees an error', async (t) => {
  await onServer(`insert into growing (tenant_id, key, value) select 't', 'k' || g, '1' from generate_series(0, 31) g`);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 32);
  const questions: readonly ((i: number) => Buffer)[] = [
    (i) => batchBytes('SELECT * FROM growing WHERE tenant_id = $1 AND key = $2', ['t', `k${i}`]),
    (i) =>
      batchBytes('UPDATE growing SET value = $3 WHERE tenant_id = $1 AND key = $2 RETURNING *', ['t', `k${i}`, '2']),
    (i) =>
      batchBytes(
        'INSERT INTO growing (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value',
        ['t', `k${i}`, '2'],
      ),
    (i) => queryBytes(`SELECT * FROM growing WHERE tenant_id = 't' AND key = 'k${i}'`),
  ];
  const group = (n: number): TickClient[] => clients.slice(8 * n, 8 * n + 8);
  for (const [n, question] of questions.entries()) await untilMerged(t, live, group(n), question);
  let done = false;
  const problems = new Set<string>();
  let answered = 0;
  const load = clients.map(async (client, i) => {
    const question = questions[Math.floor(i / 8)]!(i);
    while (!done) {
      const { messages, rows, code, error } = told(await client.ask(question));
      answered++;
      const described = messages.find(({ type }) => type === 'RowDescription');
      const columns = described?.type === 'RowDescription' ? described.columns.length : 0;
      if (code !== '') problems.add(`${code} ${error!['M']} ${error!['D']}`);
      if (messages.some(({ type }) => type === 'Malformed')) problems.add('malformed');
      if (rows.some((row) => row.length !== columns)) problems.add(`${columns} columns, rows of ${rows[0]!.length}`);
    }
  });
  const other = await directClient(server);
  for (const change of [
    'add column extra int default 7',
    'add column more text',
    'drop column extra, add column last jsonb',
    'drop column more',
  ]) {
    await sleep(150);
    const { code, error } = told(await other.ask(queryBytes(`alter table growing ${change}`)));
    t.equal(code, '', error?.['M'] ?? change);
  }
  await sleep(150);
  done = true;
  await Promise.all(load);
  t.same([...problems], [], `${answered} answers`);
  // Also where connections are made only now.
  await onServer(
    `select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query like '%growing%'`,
  );
  other.sql.wire.destroy();
  for (const [n, question] of questions.entries()) {
    for (const client of group(n)) await client.ask(question(0));
    await untilMerged(t, live, group(n), question);
    const answers = (await together(group(n), question)).map(told);
    t.notOk(answers.some(({ messages, code }) => code !== '' || messages.some(({ type }) => type === 'Malformed')));
    if (n !== 2) t.same([...new Set(answers.map(({ rows }) => rows[0]?.length))], [8]);
  }
});

t.test('values of 1 byte to 1 MiB in one mix, and 64 answers of 1 MiB', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 64);
  const random = seeded(SEED);
  const sizes = clients.map(() => Math.floor(2 ** (random() * 20)));
  const filled = (i: number, size: number): string => `"${String.fromCharCode(97 + (i % 26)).repeat(size)}"`;
  await untilMerged(t, live, clients, (i) => batchBytes(UPSERT, ['t', `v${i}`, '1']));
  await untilMerged(t, live, clients, (i) => batchBytes(GET, ['t', `v${i}`]));
  for (const answer of await together(clients, (i) => batchBytes(UPSERT, ['t', `v${i}`, filled(i, sizes[i]!)]))) {
    t.equal(told(answer).code, '');
  }
  for (let round = 0; round < 2; round++) {
    const answers = await together(clients, (i) => batchBytes(GET, ['t', `v${i}`]));
    const wrong = answers.filter((answer, i) => told(answer).rows[0]?.[0] !== filled(i, sizes[i]!));
    t.same(wrong.length, 0, `seed ${SEED}`);
  }
  const MIB = 1024 * 1024;
  await onServer(
    `update kv set value = to_jsonb(repeat(chr(97 + substr(key, 2)::int4 % 26), ${MIB})) where key like 'v%'`,
  );
  const before = process.memoryUsage().rss;
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss - before);
  }, 5);
  for (const sql of [GET, 'UPDATE kv SET ttl = NULL WHERE tenant_id = $1 AND key = $2 RETURNING value']) {
    const answers = await together(clients, (i) => batchBytes(sql, ['t', `v${i}`]));
    const wrong = answers.filter((answer, i) => answer.indexOf(filled(i, MIB)) < 0);
    t.equal(wrong.length, 0, sql);
  }
  clearInterval(watch);
  // The clients of this test keep 64 MiB of answers themselves, in parts that they join.
  t.ok(most < 500 * MIB, `${Math.round(most / MIB)} MiB more`);
  await onServer('truncate kv');
});

t.test('a statement that left the lane comes back', async (t) => {
  const { live, clients, since } = banned;
  await sleep(Math.max(0, since + 10_500 - performance.now()));
  t.ok(await becomesMerged(live!, clients, noneFails, 5));
});
