// A value that is none of its parameter's type is an error for whoever sent it, whether or not its row is there: plain
// Postgres converts parameters and literals before it looks for a row. Generated: types, places in a statement, ways of
// casting and of sending, keys that are there, absent or expired; several members at once; Postgres itself is the oracle.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import type { LiveRouter } from '../support/live-router.js';
import { prepared } from '../support/merged-cases.js';
import {
  batchBytes,
  becomesMerged,
  directClient,
  queryBytes,
  type TickClient,
  tickClients,
  together,
  told,
  untilMerged,
} from '../support/merged-clients.js';
import { seeded } from '../support/seeded-random.js';

const LONG = process.env['PGKV_LONG'] === '1';
const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const MEMBERS = 8;

const cluster = await kvServers(t, 1);
const server = cluster.servers[0]!;
const direct = await directClient(server);
t.teardown(() => direct.sql.wire.destroy());

/** By type, values that it takes and values that it does not. */
const TYPES: Readonly<Record<string, { readonly good: readonly string[]; readonly bad: readonly string[] }>> = {
  jsonb: { good: ['{"a": 1}', '7'], bad: ['{bad', '', '{"a": 01}'] },
  int8: { good: ['1', ' -5 '], bad: ['x', '', '9223372036854775808', '1.5'] },
  int4: { good: ['1', '2'], bad: ['2147483648', 'one'] },
  bool: { good: ['t', 'off'], bad: ['maybe', '2'] },
  numeric: { good: ['1.50', 'NaN'], bad: ['1,5', '--1'] },
  float8: { good: ['1e3', '-0'], bad: ['1e999', 'e'] },
  timestamptz: { good: ['2099-01-01', 'infinity'], bad: ['2099-13-01', 'soon'] },
  date: { good: ['2099-01-01'], bad: ['2099-02-30', ''] },
  interval: { good: ['1 hour'], bad: ['1 fortnigh', 'x'] },
  bytea: { good: ['\\x00ff', 'a'], bad: ['\\x0', '\\xzz'] },
  uuid: { good: ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'], bad: ['a0eebc99', 'x'] },
  'text[]': { good: ['{a,b}', '{}'], bad: ['{a', 'a,b'] },
};

/** Ways of making a value of a type out of the parameter. */
const CASTS: readonly ((parameter: string, type: string) => string)[] = [
  (parameter, type) => `${parameter}::${type}`,
  (parameter, type) => `CAST(${parameter} AS ${type})`,
  (parameter, type) => `${parameter}::text::${type}`,
  (parameter, type) => `(${parameter} || '')::${type}`,
  (parameter, type) => `CAST(lower(${parameter}::text) AS ${type})`,
];
const KEY_WHERE = 'WHERE tenant_id = $1 AND key = $2';
const INSERT = 'INSERT INTO kv (tenant_id, key, value)';
const UPSERT = 'ON CONFLICT (tenant_id, key) DO UPDATE SET value =';

/** Places of an expression, with what is there besides. */
const PLACES: Readonly<Record<string, (expression: string) => string>> = {
  'what a SELECT gives': (e) => `SELECT key, ${e} FROM kv ${KEY_WHERE}`,
  'a condition of a SELECT': (e) => `SELECT key FROM kv ${KEY_WHERE} AND (${e}) IS NOT NULL`,
  'a branch of a SELECT': (e) => `SELECT CASE WHEN version > 100 THEN ${e} END FROM kv ${KEY_WHERE}`,
  'what an UPDATE sets': (e) => `UPDATE kv SET value = to_jsonb(${e}) ${KEY_WHERE}`,
  'a condition of an UPDATE': (e) => `UPDATE kv SET value = '1' ${KEY_WHERE} AND (${e}) IS NOT NULL`,
  'what an UPDATE returns': (e) => `UPDATE kv SET value = '1' ${KEY_WHERE} RETURNING ${e}, version`,
  'a condition of a DELETE': (e) => `DELETE FROM kv ${KEY_WHERE} AND (${e}) IS NOT NULL`,
  'what a DELETE returns': (e) => `DELETE FROM kv ${KEY_WHERE} RETURNING ${e}`,
  'what an INSERT gives': (e) => `${INSERT} VALUES ($1, $2, to_jsonb(${e})) ON CONFLICT DO NOTHING`,
  'what an upsert sets': (e) => `${INSERT} VALUES ($1, $2, '0') ${UPSERT} to_jsonb(${e})`,
  'a condition of an upsert': (e) => `${INSERT} VALUES ($1, $2, '0') ${UPSERT} '1' WHERE (${e}) IS NULL`,
  'what an INSERT returns': (e) => `${INSERT} VALUES ($1, $2, '0') ON CONFLICT DO NOTHING RETURNING ${e}`,
  'beside a function': (e) => `SELECT value, ${e} FROM kv_get($1, $2)`,
  'an argument of a function': (e) => `SELECT kv_put($1, $2, to_jsonb(${e}))`,
};

/** Where a bare parameter has the type of what it is compared with or assigned to. */
const BARE: readonly (readonly [type: string, sql: string])[] = [
  ['jsonb', `UPDATE kv SET value = $3 ${KEY_WHERE}`],
  ['jsonb', `UPDATE kv SET value = value || $3 ${KEY_WHERE} RETURNING value`],
  ['jsonb', `SELECT key FROM kv ${KEY_WHERE} AND value @> $3`],
  ['jsonb', `${INSERT} VALUES ($1, $2, '1') ${UPSERT} kv.value || $3`],
  ['jsonb', 'SELECT kv_put($1, $2, $3)'],
  ['int8', `UPDATE kv SET value = '1' ${KEY_WHERE} AND version = $3`],
  ['int8', `UPDATE kv SET version = $3 ${KEY_WHERE}`],
  ['int8', `DELETE FROM kv ${KEY_WHERE} AND version = $3`],
  ['int8', `SELECT version + $3 FROM kv ${KEY_WHERE}`],
  ['int8', `SELECT value FROM kv ${KEY_WHERE} LIMIT $3`],
  ['int8', 'SELECT value FROM kv_get($1, $2) WHERE version < $3'],
  ['timestamptz', `UPDATE kv SET ttl = $3 ${KEY_WHERE}`],
  ['timestamptz', `SELECT ttl FROM kv ${KEY_WHERE} AND updated_at < $3`],
  ['interval', `UPDATE kv SET ttl = now() + $3 ${KEY_WHERE}`],
  ['text[]', `SELECT value FROM kv WHERE tenant_id = $1 AND key = $2 AND value ?| $3`],
];

interface Statement {
  readonly name: string;
  readonly sql: string;
  readonly type: string;
  /**
   * The server may work it out when it plans, or once it has a row: a prepared statement by the plan it happens to have.
   */
  readonly isExpression: boolean;
}

function statements(): Statement[] {
  const found: Statement[] = BARE.map(([type, sql]) => ({ name: sql, sql, type, isExpression: false }));
  for (const [place, sqlOf] of Object.entries(PLACES)) {
    for (const type of Object.keys(TYPES)) {
      for (const [index, cast] of CASTS.entries()) {
        const sql = sqlOf(cast('$3', type));
        found.push({ name: `${place}: ${sql}`, sql, type, isExpression: index > 1 });
      }
    }
  }
  return found;
}

type Form = 'simple' | 'unnamed' | 'named';
const FORMS: readonly Form[] = ['simple', 'unnamed', 'named'];

const quoted = (value: string): string =>
  value.includes('\\') ? `E'${value.replaceAll(/['\\]/g, '\\$&')}'` : `'${value}'`;

function bytesOf(form: Form, sql: string, values: readonly string[]): Buffer {
  if (form === 'simple') return queryBytes(sql.replaceAll(/\$(\d)/g, (_, n) => quoted(values[Number(n) - 1]!)));
  return batchBytes(sql, values, form === 'named' ? { named: 'mine' } : {});
}

const FILL = `truncate kv; insert into kv (tenant_id, key, value, updated_at, ttl)
  select 't', 'k' || g, '{"n": 1}', '2026-01-01', '2099-01-01' from generate_series(0, ${MEMBERS - 1}) g`;
const forPostgres = (sql: string): string => sql.replace('(tenant_id, key) DO', '(tenant_id, key, slot) DO');
/** Without what names a place in the server's own source or in a text. */
const readable = (answer: Buffer): string => answer.toString('latin1').replaceAll(/[PR]\w+\0|F\w+\.c\0|L\d+\0/g, '');
/** The row of each key. */
const stateOf = async (): Promise<Map<string | null, string>> =>
  new Map((await direct.run('select key, value::text, ttl is null from kv')).map((row) => [row[0]!, String(row)]));

/** Half of the keys are there. */
const keyOf = (index: number): string => (index % 2 === 0 ? `k${index}` : `absent${index}`);

async function compare(
  t: Test,
  live: LiveRouter,
  clients: readonly TickClient[],
  one: Statement,
  form: Form,
  random: () => number,
) {
  const { good, bad } = TYPES[one.type]!;
  const of = (list: readonly string[]): string => list[Math.floor(random() * list.length)]!;
  const what = `${form}, ${one.name}, seed ${SEED}`;
  if (form === 'named') await together(clients, () => prepared(one.sql));
  const warm = (index: number): Buffer => bytesOf(form, one.sql, ['t', `warm${index}`, good[0]!]);
  if (!(await becomesMerged(live, clients, warm))) {
    // What could not be learnt is asked about again after a while.
    await sleep(2_100);
    await untilMerged(t, live, clients, warm, what);
  }
  // One bad value among good ones, and several at once; at keys that are there and at keys that are not.
  const wrong = new Set([Math.floor(random() * MEMBERS), Math.floor(random() * MEMBERS)]);
  const values = clients.map((_, index) => ['t', keyOf(index), of(wrong.has(index) ? bad : good)]);
  await direct.run(FILL);
  const answers = (await together(clients, (index) => bytesOf(form, one.sql, values[index]!))).map(readable);
  const state = await stateOf();
  const modes = one.isExpression && form !== 'simple' ? ['force_custom_plan', 'force_generic_plan'] : ['auto'];
  const allowed = values.map(() => new Set<string>());
  const shown = (answer: string, rows: Map<string | null, string>, index: number): string =>
    `${answer} leaves ${rows.get(keyOf(index))}`;
  for (const mode of modes) {
    await direct.run(`set plan_cache_mode = ${mode}; ${FILL}`);
    if (form === 'named') await direct.ask(prepared(forPostgres(one.sql)));
    const expected: string[] = [];
    for (const given of values) expected.push(readable(await direct.ask(bytesOf(form, forPostgres(one.sql), given))));
    const after = await stateOf();
    for (const [index, answer] of expected.entries()) allowed[index]!.add(shown(answer, after, index));
  }
  for (const [index, answer] of answers.entries()) {
    const found = shown(answer, state, index);
    if (!allowed[index]!.has(found)) t.strictSame(found, [...allowed[index]!], `${what}: ${values[index]}`);
  }
}

t.test('a bad value is an error whether or not its row is there', async (t) => {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 8 } });
  const clients = await tickClients(live, MEMBERS);
  const random = seeded(SEED);
  const all = statements().flatMap((one) => FORMS.map((form) => [one, form] as const));
  const bare = all.filter(([{ isExpression, name, sql }]) => !isExpression && name === sql);
  const drawn = LONG ? all : [...bare, ...all.filter(() => random() < 0.08)];
  let tried = 0;
  for (const [one, form] of drawn) {
    await compare(t, live, clients, one, form, random);
    tried++;
  }
  t.ok(tried > 100, `${tried} statements`);
});

t.test('as many result formats as there are columns, or one, or none', async (t) => {
  await direct.run(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, MEMBERS);
  const reads = 'SELECT key, value FROM kv WHERE tenant_id = $1 AND key = $2';
  const writes = `UPDATE kv SET value = '{"n": 1}' ${KEY_WHERE}`;
  for (const [sql, columns] of [
    [reads, 2],
    [`${writes} RETURNING key, value`, 2],
    [writes, 0],
  ] as const) {
    await untilMerged(t, live, clients, (index) => batchBytes(sql, ['t', keyOf(index)]), sql);
    for (const format of [0, 1]) {
      for (let count = 0; count <= 4; count++) {
        const resultFormats = Array.from({ length: count }, () => format);
        const question = (index: number): Buffer =>
          batchBytes(sql, ['t', keyOf(index)], { resultFormats: index === 1 ? resultFormats : [] });
        const [, answer] = await together(clients, question);
        const isRight = count < 2 || columns === 0 || count === columns;
        t.equal(told(answer!).code, isRight ? '' : '08P01', `${count} formats for ${columns} columns: ${sql}`);
        const expected = readable(await direct.ask(question(1))).replaceAll(/version.*/g, '');
        t.equal(readable(answer!), expected, `${count} of format ${format}: ${sql}`);
      }
    }
  }
});
