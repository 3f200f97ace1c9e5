// What tests of the merged lane run: rows that are there, have expired or are not, and one statement of each kind that is
// merged, in each form in which drivers send it.
import { encodeAll } from './frontend-message.js';
import { batchBytes, queryBytes } from './merged-clients.js';

const ROWS = 64;

/** Keys k0 …, in part with a ttl, and e0 …, which have expired; versions begin at 1. */
export const FILL = `truncate kv;
  insert into kv (tenant_id, key, value, updated_at, ttl)
    select 't', 'k' || g, jsonb_build_object('n', g), '2026-01-01', case when g % 3 = 0 then timestamptz '2099-01-01' end
    from generate_series(0, ${ROWS - 1}) g;
  insert into kv (tenant_id, key, value, updated_at, ttl)
    select 't', 'e' || g, '"expired"', '2026-01-01', '2026-01-01' from generate_series(0, 31) g`;
const FILL_BYTES = `truncate blobs;
  insert into blobs (tenant_id, key, value, updated_at)
    select 't', 'k' || g, decode(lpad(to_hex(g), 4, '0'), 'hex'), '2026-01-01' from generate_series(0, ${ROWS - 1}) g`;

export const GET = 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2';
export const INCR = 'SELECT kv_incr($1, $2)';
export const UPSERT =
  'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value, version = kv.version + 1';

type Value = string | Buffer | null;

export interface Case {
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

export const MEMBERS = 8;
const OIDS = { text: 25, int8: 20, jsonb: 3802, bytea: 17, 'text[]': 1009 } as const;

/** Every key in turn is there, is not, has expired, is NULL. */
const anyKey = (index: number): string | null =>
  index % 8 === 7 ? `e${index}` : index % 4 === 3 ? `absent${index}` : `k${index}`;
const keyOrNull = (index: number): string | null => (index === 5 ? null : anyKey(index));
const KEY_WHERE = 'WHERE tenant_id = $1 AND key = $2';
const SHOWN = 'tenant_id, key, version, value, ttl IS NULL AS lasts, slot';

export const CASES: readonly Case[] = [
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
    // What has expired is met, and taken away by one that runs by itself.
    alone: 1,
  },
  {
    name: 'an upsert that returns what is there now',
    sql: `${UPSERT} RETURNING ${SHOWN}`,
    types: ['text', 'text', 'jsonb'],
    values: (index) => ['t', anyKey(index), `[${index}]`],
    // What has expired is met, and taken away by one that runs by itself.
    alone: 1,
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
export const FORMS = [
  'simple',
  'unnamed',
  'unnamed, not described',
  'named',
  'named, binary results',
  'all binary',
] as const;
export type Form = (typeof FORMS)[number];

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

export function bytesOf(form: Form, { types, values, ...rest }: Case, index: number, isDirect: boolean): Buffer {
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
export const forPostgres = (sql: string): string =>
  sql
    .replace('(tenant_id, key) DO', '(tenant_id, key, slot) DO')
    .replace('(tenant_id, key)\n      DO', '(tenant_id, key, slot)\n      DO');

export const isNamed = (form: Form): boolean => form.startsWith('named');
/** All clients prepare it under the same name, as drivers do. */
export const prepared = (sql: string): Buffer =>
  encodeAll([{ close: 'statement', name: NAME }, { parse: sql, name: NAME }, 'sync']);

export const reads = ({ sql }: Case): boolean => /^SELECT (?!\* FROM kv_|kv_)/.test(sql) || sql.includes('kv_get');

/** Fresh keys each time, so that inserts meet no conflict. */
export function elsewhere(one: Case): Case {
  let attempts = 0;
  return {
    ...one,
    values: (index) => {
      const [tenant, , ...more] = one.values(index);
      return one.types[1] === 'text[]' ? [tenant!, `{w${index}}`] : [tenant!, `w${attempts++}`, ...more];
    },
  };
}

/** Puts back what there is before each case. */
export const fillFor = ({ sql }: Case): string => (sql.includes('blobs') ? FILL_BYTES : FILL);
