// What clients see of the merged lane (D11): nothing but its speed. Answers are those that each statement gets by itself,
// to the byte, whoever else is in its batch; and batches there are.
import t, { type Test } from 'tap';
import { encodeAll } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
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

const cluster = await kvServers(t, 1);
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
    types: ['text', 'text', 'text'],
    values: (index) => ['t', `counter ${index}`, `${index}.50`],
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
