// Plans for several shards against Postgres itself: the same rows lie in one table and spread over four; what the plan
// makes of the four answers has to be what Postgres says of the one. Merging and combining are done here in the plainest
// way there is, so that only the plans are under test.

import pg from 'pg';
import t, { type Test } from 'tap';
import { isRefusal } from '../../src/base/refusals.js';
import { loadParser, parse } from '../../src/sql/meaning/parse.js';
import type { CombinePlan, SortedPlan, ValueRef } from '../../src/sql/plan/kv-plan.js';
import { planScatter } from '../../src/sql/scatter/scatter-plan.js';
import { findClauses } from '../../src/sql/text/clauses.js';
import { LITERAL_STRIDE, lexShape } from '../../src/sql/text/shape-lexer.js';
import type { TextParts } from '../../src/sql/text/text-parts.js';
import { tokensOf } from '../../src/sql/text/text-tokens.js';
import { startPostgres } from '../support/postgres-server.js';

await loadParser();

const SHARDS = 4;

interface Answer {
  readonly fields: readonly { readonly name: string; readonly type: number }[];
  readonly rows: readonly (readonly (string | null)[])[];
}

interface Statement {
  readonly text: string;
  readonly values: readonly (string | null)[];
  readonly literals: readonly string[];
}

class Database {
  private readonly client: pg.Client;
  readonly isByteOrdered: boolean;

  constructor(client: pg.Client, isByteOrdered: boolean) {
    this.client = client;
    this.isByteOrdered = isByteOrdered;
  }

  async run(schema: string, text: string, values: readonly (string | null)[] = []): Promise<Answer> {
    await this.client.query(`SET search_path = ${schema}`);
    const config = {
      text,
      values: usedValues(text, values),
      rowMode: 'array' as const,
      types: { getTypeParser: () => (value: string) => value },
    };
    const { fields, rows } = await this.client.query<(string | null)[]>(config as unknown as pg.QueryArrayConfig);
    return { fields: fields.map(({ name, dataTypeID }) => ({ name, type: dataTypeID })), rows };
  }

  /** The rows of all answers in a temporary table, with the placeholders of `finalText` pointing at it. */
  async combine(plan: CombinePlan, answers: readonly Answer[], literals: readonly string[]): Promise<Answer> {
    const [first] = answers;
    if (first === undefined) throw new Error('no shard');
    const types: string[] = [];
    for (const { type } of first.fields) {
      const { rows } = await this.client.query<{ name: string }>('SELECT format_type($1, -1) AS name', [type]);
      types.push(rows[0]!.name);
    }
    await this.client.query('DROP TABLE IF EXISTS partial_rows');
    await this.client.query(`CREATE TEMP TABLE partial_rows (${types.map((type, i) => `c${i} ${type}`).join(', ')})`);
    const places = types.map((_, i) => `$${i + 1}`).join(', ');
    for (const row of answers.flatMap(({ rows }) => rows)) {
      await this.client.query(`INSERT INTO partial_rows VALUES (${places})`, [...row]);
    }
    const strings = plan.finalText.map((part) =>
      typeof part === 'number'
        ? part
        : part
            .replace(/\{type:(\d+)\}/g, (_, n) => types[Number(n)]!)
            .replace(/\{(\d+)\}/g, 'r.c$1')
            .replaceAll('{rows}', 'pg_temp.partial_rows AS r'),
    );
    return this.run('whole', render(strings, literals));
  }
}

/** A value is sent only where the text mentions it: Postgres does not know the type of the others. */
function usedValues(text: string, values: readonly (string | null)[]): (string | null)[] {
  const highest = Math.max(0, ...[...text.matchAll(/\$(\d+)/g)].map(([, n]) => Number(n)));
  return values.slice(0, highest);
}

const render = (parts: TextParts, literals: readonly string[]): string =>
  parts.map((part) => (typeof part === 'number' ? literals[part] : part)).join('');

function planOf(text: string): { plan: SortedPlan | CombinePlan; literals: readonly string[] } {
  const parsed = parse(text);
  const shape = lexShape(text, true);
  if (parsed.kind !== 'parsed' || shape === null) throw new Error(`does not parse: ${text}`);
  const { node } = parsed.statements[0]!;
  const tokens = tokensOf(text, shape.literals);
  const clauses = findClauses(tokens);
  if (!('SelectStmt' in node) || clauses === null) throw new Error(`no SELECT: ${text}`);
  const [from] = node.SelectStmt.fromClause ?? [];
  const range = from !== undefined && 'RangeVar' in from ? from.RangeVar : {};
  const alias = range.alias?.aliasname ?? range.relname ?? '';
  const table = { schema: 'public', name: 'kv', valueType: 'jsonb' } as const;
  const plan = planScatter({ text, tokens, clauses, select: node.SelectStmt, alias, table, oldestServerMajor: 15 });
  if (isRefusal(plan)) throw new Error(`refused: ${text}\n${plan.reason}`);
  const literals: string[] = [];
  for (let i = 0; i < shape.literals.length; i += LITERAL_STRIDE) {
    literals.push(text.slice(shape.literals[i], shape.literals[i + 1]));
  }
  return { plan, literals };
}

const BY_BYTES = new Set([25, 1043, 1042, 19]);
const BY_INTEGER = new Set([20, 21, 23, 26]);
const BY_NUMBER = new Set([700, 701, 1700]);
/** The text form of bool, bytea, uuid, dates and times (in UTC, ISO) sorts as the values do. */
const BY_TEXT = new Set([16, 17, 2950, 1082, 1114, 1184]);

function compareValues(one: string, other: string, type: number): number {
  if (BY_INTEGER.has(type)) return Number(BigInt(one) - BigInt(other));
  if (BY_NUMBER.has(type)) return Number(one) - Number(other);
  if (BY_BYTES.has(type)) return Buffer.compare(Buffer.from(one), Buffer.from(other));
  if (BY_TEXT.has(type)) return one < other ? -1 : one > other ? 1 : 0;
  throw new Error(`no order for type ${type}`);
}

function merge(plan: SortedPlan, answers: readonly Answer[], { values, literals }: Statement): Answer {
  const shown = answers[0]!.fields.length - plan.sortKeys.length;
  const types = answers[0]!.fields.slice(shown).map(({ type }) => type);
  const compare = (one: readonly (string | null)[], other: readonly (string | null)[]): number => {
    for (const [i, key] of plan.sortKeys.entries()) {
      const a = one[shown + i]!;
      const b = other[shown + i]!;
      if (a === null && b === null) continue;
      if (a === null || b === null) return (a === null) === key.nullsFirst ? -1 : 1;
      const order = compareValues(a, b, types[i]!);
      if (order !== 0) return key.descending ? -order : order;
    }
    return 0;
  };
  // Streams as sorted as the plan promises: always the smallest head goes next.
  const queues = answers.map(({ rows }) => [...rows]);
  const merged: (readonly (string | null)[])[] = [];
  for (;;) {
    const heads = queues.filter((queue) => queue.length > 0);
    if (heads.length === 0) break;
    const least = heads.reduce((best, queue) => (compare(queue[0]!, best[0]!) < 0 ? queue : best));
    merged.push(least.shift()!);
  }
  const number = (reference: ValueRef | null): number | null => {
    if (reference === null || reference.kind === 'null') return null;
    const value = reference.kind === 'literal' ? literals[reference.index] : values[reference.number - 1];
    return value === null || value === undefined ? null : Number(value);
  };
  const offset = number(plan.offset) ?? 0;
  const limit = number(plan.limit) ?? merged.length;
  const wanted = merged.slice(offset, offset + limit);
  return { fields: answers[0]!.fields.slice(0, shown), rows: wanted.map((row) => row.slice(0, shown)) };
}

/** Deterministic, so that a failure comes again. */
function generator(seed: number): <Item>(items: readonly Item[]) => Item {
  let state = seed;
  return (items) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return items[Math.floor((state / 2 ** 32) * items.length)]!;
  };
}

const TABLE = `(tenant_id text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, version bigint NOT NULL, value jsonb,
  ttl timestamptz, updated_at timestamptz NOT NULL, slot int NOT NULL, PRIMARY KEY (tenant_id, key, slot))`;

const KEYS = ['a', 'B', 'b', 'A', 'é', 'z', 'Z', '_', '-', '日本', '\u{1f600}', '\uffee', 'ab', 'a b', '', '10', '9'];

async function fill(client: pg.Client): Promise<void> {
  for (const schema of ['whole', ...Array.from({ length: SHARDS }, (_, i) => `s${i}`)]) {
    await client.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.kv ${TABLE}`);
  }
  const pick = generator(7);
  let count = 0;
  for (const tenant of ['t1', 'T1', 't2', 'ünder']) {
    for (const key of KEYS) {
      count++;
      const value = {
        n: pick([1, 2.5, -3, 1e6, null]),
        name: pick([...KEYS, null]),
        tags: pick([[], ['x'], ['x', 'y']]),
        on: pick([true, false]),
      };
      const row = [
        tenant,
        key,
        pick([1, 2, 3, 9007199254740993n, -5]).toString(),
        pick([JSON.stringify(value), JSON.stringify(value), JSON.stringify(value), null]),
        pick([null, '2100-01-01 00:00:00+00', '2101-06-01 12:00:00.5+00']),
        pick(['2026-01-01 00:00:00+00', '2026-01-01 00:00:00.25+00', '1999-12-31 23:59:59+00']),
        (count * 3989) % 16384,
      ];
      const insert = (schema: string, values: unknown[]) =>
        client.query(`INSERT INTO ${schema}.kv VALUES ($1, $2, $3, $4, $5, $6, $7)`, values);
      await insert('whole', row);
      // Shard 3 is left empty.
      const shard = pick([0, 1, 2]);
      await insert(`s${shard}`, row);
      if (count % 3 === 0) await insert(`s${shard}`, [tenant, `${key} expired`, 77, '{}', '2001-01-01', row[5], 1]);
    }
  }
}

const ORDERED: readonly (readonly [text: string, ...values: (string | null)[]])[] = [
  ['SELECT * FROM kv ORDER BY tenant_id, key LIMIT 10'],
  ['SELECT * FROM kv ORDER BY tenant_id DESC, key DESC'],
  ['SELECT * FROM kv ORDER BY 1, 2'],
  ['SELECT *, version + 1 AS next FROM kv ORDER BY next DESC, key, tenant_id'],
  ['SELECT key, tenant_id FROM kv ORDER BY 2 DESC, 1'],
  ['SELECT key AS tenant_id, tenant_id AS key FROM kv ORDER BY key, tenant_id'],
  ['SELECT tenant_id AS key, k.key AS "Key" FROM kv k ORDER BY key, "Key"'],
  ['SELECT upper(key) AS key, tenant_id FROM kv ORDER BY key, tenant_id, kv.key, length(kv.key)'],
  ['SELECT lower(key) FROM kv ORDER BY lower, kv.key, tenant_id'],
  ['SELECT value->>\'name\' FROM kv ORDER BY "?column?" DESC NULLS LAST, tenant_id, key'],
  ['SELECT key FROM kv ORDER BY value->>\'name\' COLLATE "C", tenant_id, key LIMIT 7'],
  ["SELECT key FROM kv ORDER BY (value->>'n')::numeric NULLS FIRST, tenant_id, key LIMIT 20 OFFSET 3"],
  ["SELECT key FROM kv ORDER BY (value->>'n')::float8 DESC, tenant_id, key OFFSET 60"],
  ["SELECT key FROM kv ORDER BY (value->>'on')::bool, tenant_id, key"],
  ['SELECT tenant_id, key FROM kv ORDER BY ttl, updated_at DESC, key, tenant_id'],
  ['SELECT tenant_id, key FROM kv ORDER BY ttl NULLS FIRST, key, tenant_id LIMIT 30'],
  ['SELECT tenant_id, key FROM kv ORDER BY ttl DESC NULLS LAST, key, tenant_id LIMIT 30'],
  ['SELECT version FROM kv ORDER BY -version, tenant_id, key'],
  ['SELECT FROM kv ORDER BY key LIMIT 4'],
  ['SELECT generate_series(1, 3) AS g, slot FROM kv ORDER BY g DESC, slot LIMIT 80'],
  ['SELECT generate_series(1, 2) + 1 AS g, generate_series(1, 3), slot FROM kv ORDER BY slot, g, 2'],
  ['SELECT slot FROM kv ORDER BY slot, generate_series(1, 2) LIMIT 5 OFFSET 2'],
  ['SELECT jsonb_object_keys(value) AS k, slot FROM kv ORDER BY k DESC, slot'],
  ['SELECT key FROM kv WHERE version = 1 OR version = 2 ORDER BY slot'],
  ['SELECT key FROM kv WHERE version IS DISTINCT FROM 1 ORDER BY slot FETCH FIRST 3 ROWS ONLY'],
  ['SELECT key FROM kv ORDER BY slot OFFSET 2 ROWS FETCH NEXT 3 ROWS ONLY'],
  ['SELECT key FROM kv ORDER BY slot LIMIT ALL OFFSET 5'],
  ['SELECT key FROM kv ORDER BY slot LIMIT NULL'],
  ['SELECT key FROM kv ORDER BY slot LIMIT 0'],
  ['SELECT key FROM kv ORDER BY slot LIMIT 5 OFFSET 1000'],
  ['SELECT key FROM kv ORDER BY slot LIMIT $1 OFFSET $2', '5', '6'],
  ['SELECT key FROM kv ORDER BY slot LIMIT $1 OFFSET $2', null, '6'],
  ['SELECT key FROM kv ORDER BY slot LIMIT $1 OFFSET $2', '5', null],
  ['SELECT key FROM kv ORDER BY slot LIMIT $1 OFFSET $2', '9223372036854775807', '9223372036854775807'],
  ['SELECT key FROM kv ORDER BY slot LIMIT $1 OFFSET $2', '9223372036854775807', '3'],
  ['SELECT key FROM kv ORDER BY slot LIMIT $1::int', '3'],
  ['SELECT key FROM kv ORDER BY slot LIMIT CAST($1 AS bigint) OFFSET 2', '3'],
  ['SELECT key FROM kv ORDER BY slot LIMIT 2 OFFSET $1', '3'],
  ['SELECT key FROM kv WHERE tenant_id = $1 ORDER BY key', 't1'],
  ['SELECT key FROM kv WHERE tenant_id = $2 AND version >= $1 ORDER BY key LIMIT $3', '2', 't1', '3'],
  [
    "SELECT tenant_id || '/' || key AS id, value -> 'tags' FROM kv AS k ORDER BY (tenant_id || '/' || key) COLLATE \"C\"",
  ],
  ["SELECT key, jsonb_array_elements_text(value->'tags') AS tag FROM kv WHERE value IS NOT NULL ORDER BY slot LIMIT 9"],
  ["SELECT key, value->'tags'->>0 AS tag FROM kv ORDER BY CASE WHEN version > 1 THEN slot ELSE -slot END"],
  ["SELECT key FROM kv ORDER BY key IN ('a', 'b') DESC, slot"],
  ["SELECT key /* a */ , - -1, 2 - -1, 'x'\n'y', $$z$$ -- end\n FROM kv WHERE key<>'it''s' ORDER BY slot;"],
  ['SELECT "kv"."key" AS "from", 1 AS where FROM kv ORDER BY "from", tenant_id'],
  ["SELECT to_jsonb(kv) - 'updated_at' FROM kv ORDER BY slot LIMIT 3"],
  ['SELECT key FROM ONLY kv ORDER BY slot LIMIT 3'],
  ['SELECT ALL key FROM kv ORDER BY slot LIMIT 3'],
  ['SELECT key FROM kv ORDER BY length(key), md5(key || tenant_id) COLLATE "C"'],
  ['SELECT updated_at::date AS d, key FROM kv ORDER BY d DESC, slot'],
  ['SELECT key FROM kv ORDER BY key = $1 DESC, slot LIMIT 4', 'b'],
  ['SELECT key, version FROM kv ORDER BY version, version DESC, slot'],
  ["SELECT key FROM kv ORDER BY decode(md5(key), 'hex'), slot"],
];

const UNORDERED: readonly (readonly [text: string, ...values: (string | null)[]])[] = [
  ['SELECT * FROM kv'],
  ['SELECT * FROM kv WHERE false'],
  ['SELECT key, version FROM kv WHERE value IS NULL'],
  ['SELECT key FROM kv WHERE value @> \'{"on": true}\''],
  ["SELECT key FROM kv WHERE key LIKE 'a%' OR value ? 'n'"],
  ['SELECT k.* FROM kv k WHERE k.slot BETWEEN $1 AND $2', '100', '9000'],
  ["SELECT key FROM kv WHERE tenant_id > 'T' AND updated_at < now()"],
  ['SELECT key, version FROM kv ORDER BY version'],
  ["SELECT key, value->>'n' AS n FROM kv ORDER BY n NULLS FIRST"],
  ['SELECT generate_series(1, 2), key FROM kv'],
  ['SELECT NOT (version > 1), version::text::int8 % 2 FROM kv'],
  ["SELECT key::varchar(1), coalesce(value->>'name', key), greatest(version, 2), nullif(version, 1) FROM kv"],
];

const AGGREGATED: readonly (readonly [text: string, ...values: (string | null)[]])[] = [
  ['SELECT count(*) FROM kv'],
  ['SELECT count(*) FROM kv WHERE false'],
  ['SELECT count(*), count(value), count(ttl) AS ttls FROM kv'],
  ['SELECT COUNT ( * ) + 1 FROM kv'],
  ['SELECT pg_catalog.count(*) FROM kv'],
  ['SELECT sum(version), sum(slot), sum(version::numeric), sum(version::int2::int) FROM kv WHERE version < 100'],
  ["SELECT sum((value->>'n')::numeric), sum((value->>'n')::float8), avg((value->>'n')::float8) FROM kv"],
  ['SELECT avg(version), avg(slot), avg(version::numeric), avg(slot::float8) FROM kv WHERE version < 100'],
  ['SELECT avg(version) FROM kv'],
  ["SELECT avg((value->>'n')::numeric(10,3)) FROM kv"],
  [
    "SELECT avg(updated_at - timestamptz '2000-01-01 00:00:00+00'), sum(updated_at - timestamptz '2026-01-01 00:00:00+00') FROM kv",
  ],
  ['SELECT sum(version), avg(version), min(version), max(key), bool_and(true), every(false) FROM kv WHERE false'],
  ['SELECT min(key), max(key), min(tenant_id), max(tenant_id) FROM kv'],
  ["SELECT min(value->>'name'), max(value->>'name') FROM kv"],
  ['SELECT min((value->>\'name\') COLLATE "C"), max(lower(key) COLLATE "C") FROM kv'],
  ['SELECT min(value->>\'name\' COLLATE "C"), max((value->>\'name\') COLLATE "default") FROM kv'],
  ['SELECT min(ttl), max(ttl), min(updated_at), max(version), min(slot) FROM kv'],
  ['SELECT min(length(key)), max(version::text) FROM kv'],
  ["SELECT bool_and((value->>'on')::bool), bool_or((value->>'on')::bool), every(version > 0) FROM kv"],
  ["SELECT count(*) FILTER (WHERE version > 1), avg(slot) FILTER (WHERE key <> 'a') FROM kv"],
  ["SELECT round(avg(slot), 2), count(*)::int, -count(*), count(*) > 5, count(*)::text || ' rows' FROM kv"],
  ["SELECT CASE WHEN count(*) > 10 THEN 'many' ELSE 'few' END, coalesce(max(ttl), now()) IS NULL FROM kv"],
  ['SELECT greatest(max(slot), 3), nullif(count(*), 0), ARRAY[count(*), sum(slot)], ROW(1, count(*)) FROM kv'],
  ["SELECT 'x', 1, NULL, true, count(*) FROM kv"],
  ["SELECT now() IS NULL, current_date > '2000-01-01', count(*) FROM kv"],
  ['SELECT count(*) FROM kv HAVING count(*) > 5'],
  ['SELECT count(*) FROM kv HAVING count(*) > 5000'],
  ['SELECT 1 FROM kv HAVING true'],
  ['SELECT 1 AS one FROM kv HAVING false'],
  ['SELECT count(*) FROM kv LIMIT 0'],
  ['SELECT count(*) FROM kv OFFSET 1'],
  ['SELECT count(*) FROM kv HAVING count(*) > $1', '5'],
  ['SELECT count(*) + $1::int FROM kv WHERE version > $2', '5', '1'],
  ['SELECT $1::text AS label, count(*) FROM kv', 'rows'],
  ['SELECT count(*) FROM kv WHERE tenant_id = $1', 't1'],
  ['SELECT tenant_id, count(*) FROM kv GROUP BY tenant_id ORDER BY tenant_id'],
  ['SELECT tenant_id, count(*) FROM kv GROUP BY 1 ORDER BY 1 DESC'],
  ['SELECT tenant_id AS t, count(*) AS n FROM kv GROUP BY t ORDER BY n DESC, t'],
  ['SELECT key FROM kv GROUP BY key ORDER BY key'],
  ['SELECT key, key, kv.key AS other FROM kv GROUP BY kv.key ORDER BY other'],
  ['SELECT upper(tenant_id) AS tenant_id, count(*) FROM kv GROUP BY kv.tenant_id ORDER BY tenant_id, kv.tenant_id'],
  ["SELECT upper(key), min(key), key || '!' FROM kv GROUP BY key ORDER BY upper(key), key LIMIT 10 OFFSET 2"],
  ['SELECT key FROM kv GROUP BY key ORDER BY count(*) DESC, max(version), key LIMIT 5'],
  ['SELECT version, slot % 2 FROM kv GROUP BY version, slot ORDER BY version, slot'],
  ['SELECT version, count(*) FROM kv GROUP BY version HAVING count(*) > 2 AND version <> 1 ORDER BY version'],
  ['SELECT version, count(*) FROM kv GROUP BY version HAVING version = ANY (ARRAY[1, 2]) ORDER BY version'],
  [
    'SELECT ttl, updated_at, count(*), avg(slot) FROM kv GROUP BY ttl, updated_at ORDER BY ttl NULLS FIRST, updated_at DESC',
  ],
  ['SELECT value, count(*) FROM kv GROUP BY value ORDER BY value'],
  ['SELECT tenant_id, count(*) FROM kv GROUP BY tenant_id ORDER BY 2, 1 LIMIT $1 OFFSET $2', '2', '1'],
  ['SELECT tenant_id, count(*) FROM kv GROUP BY tenant_id ORDER BY count(*) FETCH FIRST 1 ROW WITH TIES'],
  ['SELECT tenant_id FROM kv GROUP BY tenant_id HAVING count(*) = $1::int8 ORDER BY 1', '17'],
  ["SELECT k.tenant_id, count(*) FROM kv AS k GROUP BY k.tenant_id HAVING max(k.key) > 'a' ORDER BY k.tenant_id"],
  ['SELECT tenant_id, sum(version), avg(version) AS a FROM kv GROUP BY tenant_id ORDER BY a, tenant_id'],
  ['SELECT count(*), count(*) FROM kv ORDER BY count'],
  ['SELECT tenant_id, generate_series(1, 2), count(*) FROM kv GROUP BY tenant_id ORDER BY 1, 2'],
  ["SELECT max(tenant_id) < 'b', max(tenant_id) || min(key) FROM kv"],
  ["SELECT min(key) = 'A', max(key) > 'zz', min(value->>'name') < 'B' FROM kv"],
  ["SELECT tenant_id FROM kv GROUP BY tenant_id HAVING tenant_id < 'a' ORDER BY tenant_id"],
  ['SELECT cast(count(*) AS numeric(10,2)) "The ""count""", max(slot) AS "from" FROM kv'],
  ['SELECT pg_typeof(count(*)), pg_typeof(sum(version)), pg_typeof(avg(slot)), pg_typeof(sum(slot)) FROM kv'],
  [
    "SELECT extract(year FROM max(updated_at)), max(updated_at) AT TIME ZONE 'utc', date_trunc('day', min(ttl)) FROM kv",
  ],
  ['SELECT sum(slot::real), min(slot::real), sum(1), sum(NULL::int), count(NULL) FROM kv'],
  ['SELECT - sum(slot), sum(slot) - -1, sum(- slot)*-1 FROM kv'],
];

const PREDICATES = [
  '',
  'WHERE version > 1',
  'WHERE version < 3 OR slot > 8000',
  "WHERE key >= 'a'",
  'WHERE ttl IS NULL',
  "WHERE (value->>'on')::bool",
  "WHERE NOT key LIKE '%b%' AND tenant_id <> 'T1'",
];
const LIMITS = ['', 'LIMIT 5', 'LIMIT 7 OFFSET 4', 'OFFSET 50', 'OFFSET 3 LIMIT 100'];
const SORTS = [
  'version',
  'version DESC',
  'ttl',
  'ttl DESC',
  'ttl NULLS FIRST',
  'updated_at',
  'slot % 5',
  'length(key)',
  'key DESC',
];
const ITEMS = ['*', 'key', 'version AS key', 'kv.slot', "value->>'name' AS name", 'upper(key)', 'version * 2', 'ttl'];
const GROUPS = ['tenant_id', 'key', 'version', 'ttl', 'updated_at', 'value'];
const AGGREGATES = [
  'count(*)',
  'sum(version)',
  'avg(slot)',
  'min(key)',
  "max(value->>'name')",
  'sum(slot) FILTER (WHERE version > 1)',
  "avg((value->>'n')::numeric)",
  'count(ttl) * 2',
  "bool_or(key > 'b')",
  'max(version) - min(version)',
];
const HAVINGS = ['', 'HAVING count(*) > 1', "HAVING sum(slot) > 5000 OR max(key) < 'b'", 'HAVING min(version) <> 3'];

function generated(): string[] {
  const pick = generator(42);
  const texts: string[] = [];
  for (let i = 0; i < 120; i++) {
    const items = [pick(ITEMS), pick(ITEMS.slice(3))].join(', ');
    const order = `ORDER BY ${pick(SORTS)}, ${pick(SORTS)}, kv.tenant_id, kv.key`;
    texts.push(`SELECT ${items} FROM kv ${pick(PREDICATES)} ${order} ${pick(LIMITS)}`);
    const groups = [...new Set([pick(GROUPS), pick(GROUPS)])];
    const aggregates = [pick(AGGREGATES), pick(AGGREGATES)];
    texts.push(
      `SELECT ${[...groups, ...aggregates].join(', ')} FROM kv ${pick(PREDICATES)} GROUP BY ${groups.join(', ')} ` +
        `${pick(HAVINGS)} ORDER BY ${pick(['', `${pick(AGGREGATES)} DESC, `])}${groups.join(', ')} ${pick(LIMITS)}`,
    );
    texts.push(`SELECT ${aggregates.join(', ')} FROM kv ${pick(PREDICATES)} ${pick(HAVINGS)}`);
  }
  return texts;
}

/** Here all shards are one server, which has one time. */
const onOneServer = (text: string): string => text.replaceAll(/\$6553[45]/g, 'pg_catalog.now()');

async function check(t: Test, database: Database, text: string, values: readonly (string | null)[], total: boolean) {
  const { plan, literals } = planOf(text);
  const answers: Answer[] = [];
  for (let i = 0; i < SHARDS; i++)
    answers.push(await database.run(`s${i}`, onOneServer(render(plan.shardText, literals)), values));
  const expected = await database.run('whole', text, values);
  if (plan.kind === 'sorted') {
    const types = answers[0]!.fields.slice(-plan.sortKeys.length).map(({ type }) => type);
    const needsOwnOrder = plan.sortKeys.some((key, i) => key.needsByteOrder && BY_BYTES.has(types[i]!));
    if (needsOwnOrder && !database.isByteOrdered) return;
  }
  const got =
    plan.kind === 'sorted'
      ? merge(plan, answers, { text, values, literals })
      : await database.combine(plan, answers, literals);
  t.strictSame(got.fields, expected.fields, `${text}: columns`);
  if (total) t.strictSame(got.rows, expected.rows, text);
  else t.strictSame(sortedRows(got), sortedRows(expected), text);
}

const sortedRows = ({ rows }: Answer): string[] => rows.map((row) => JSON.stringify(row)).sort();

const COLLATIONS = [
  { name: 'C', create: "CREATE DATABASE c_order TEMPLATE template0 LOCALE 'C'" },
  {
    name: 'ICU',
    create: "CREATE DATABASE icu_order TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'",
  },
];

t.test('what is put together from four shards is what Postgres says of one table', async (t) => {
  const server = await startPostgres({ version: 'embedded' });
  t.teardown(() => server.stop());
  const connect = async (name: string) => {
    const client = new pg.Client({ host: server.host, port: server.port, user: server.superuser, database: name });
    await client.connect();
    t.teardown(() => client.end());
    return client;
  };
  const admin = await connect('postgres');
  for (const { name, create } of COLLATIONS) {
    await admin.query(create);
    const client = await connect(create.split(' ')[2]!);
    await fill(client);
    const database = new Database(client, name === 'C');

    await t.test(`rows in an order, collation ${name}`, async (t) => {
      for (const [text, ...values] of ORDERED) await check(t, database, text, values, true);
    });
    await t.test(`rows in any order, collation ${name}`, async (t) => {
      for (const [text, ...values] of UNORDERED) await check(t, database, text, values, false);
    });
    await t.test(`aggregates, collation ${name}`, async (t) => {
      for (const [text, ...values] of AGGREGATED) await check(t, database, text, values, true);
    });
    await t.test(`generated statements, collation ${name}`, async (t) => {
      for (const text of generated()) {
        const isOrdered = !/avg|sum|count|min|max/.test(text) || text.includes('ORDER BY');
        await check(t, database, text, [], isOrdered);
      }
    });
  }

  await t.test('a LIMIT or OFFSET below zero gets the error Postgres gives', async (t) => {
    const client = await connect('c_order');
    const database = new Database(client, true);
    for (const [text, code, ...values] of [
      ['SELECT key FROM kv LIMIT $1 OFFSET $2', '2201W', '-1', '5'],
      ['SELECT key FROM kv LIMIT $1', '2201W', '-1'],
      ['SELECT key FROM kv LIMIT 3 OFFSET $1', '2201X', '-1'],
      ['SELECT key FROM kv OFFSET $1', '2201X', '-1'],
    ] as const) {
      const { plan, literals } = planOf(text);
      await t.rejects(database.run('whole', text, values), { code });
      await t.rejects(database.run('s0', render(plan.shardText, literals), values), { code }, text);
    }
  });
});
