// Statements of the extended protocol on one key whose values stand in the text, as parameters, or in any mix of the two, in every
// way of writing a literal; and what several clients that send one at the same time give it.
import type { SeededRandom } from './seeded-random.js';

export interface LiteralStatement {
  readonly sql: string;
  /** For each client, the values of the parameters. */
  readonly values: readonly (readonly (string | null)[])[];
  /** It may fail, by itself or for what is there, and what fails leaves the lane for a while. */
  readonly mayFail: boolean;
  /** Its rows may come in another order. */
  readonly anyOrder: boolean;
}

const TENANTS = ['t', 't', "o'brien", 'müller', 'a\\b', '😀', 'x{y}z', 'two\nlines'] as const;
export const FILL = `truncate kv; insert into kv (tenant_id, key, value, updated_at)
  select t, 'k' || g, jsonb_build_object('n', g), '2026-01-01'
  from unnest(array[${[...new Set(TENANTS)].map((tenant) => quoted(tenant)).join(', ')}]) t, generate_series(0, 9) g;
  insert into kv (tenant_id, key, value, updated_at) select 't', '{g}' || g, '[]', '2026-01-01' from generate_series(0, 9) g`;

type Form = (text: string, random: SeededRandom) => string;

function quoted(text: string): string {
  const doubled = text.replaceAll("'", "''");
  return doubled.includes('\\') ? `E'${doubled.replaceAll('\\', '\\\\')}'` : `'${doubled}'`;
}
const plain: Form = (text) => `'${text.replaceAll("'", "''")}'`;
const escaped: Form = (text) =>
  `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\n', '\\n').replace('t', '\\t').replace('\\t', 't')}'`;
const hex = (code: number, digits: number): string => code.toString(16).padStart(digits, '0');
const byBytes: Form = (text) => `E'${[...Buffer.from(text)].map((byte) => `\\x${hex(byte, 2)}`).join('')}'`;
const byOctal: Form = (text) =>
  `e'${[...Buffer.from(text)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')}'`;
const byNumber: Form = (text) => `E'${[...text].map((one) => `\\U${hex(one.codePointAt(0)!, 8)}`).join('')}'`;
const unicode: Form = (text) => `U&'${[...text].map((one) => `\\+${hex(one.codePointAt(0)!, 6)}`).join('')}'`;
const unicodeOtherwise: Form = (text) =>
  `u&'${[...text].map((one, at) => (at % 2 === 1 && /[a-z]/.test(one) ? one : `!+${hex(one.codePointAt(0)!, 6)}`)).join('')}' UESCAPE '!'`;
const dollars: Form = (text) => `$$${text}$$`;
const tagged: Form = (text) => `$q$${text}$q$`;
const inParts: Form = (text) =>
  `'${text.slice(0, 1).replaceAll("'", "''")}' \n '${text.slice(1).replaceAll("'", "''")}'`;
const QUOTINGS: readonly Form[] = [
  ...[plain, plain, plain, escaped, byBytes, byOctal, byNumber, unicode, unicodeOtherwise],
  ...[dollars, tagged, inParts],
];

/** Surrogates are not to be cut apart. */
const isCuttable = (text: string): boolean => !/^[\ud800-\udbff]/.test(text) && text.length > 1;

function anyQuoting(text: string, random: SeededRandom): string {
  const form = random.pick(QUOTINGS);
  return form === inParts && !isCuttable(text) ? plain(text, random) : form(text, random);
}

/** A text as a literal, with a type or without. */
function textLiteral(text: string, random: SeededRandom): string {
  const literal = anyQuoting(text, random);
  switch (random.integer(14)) {
    case 0:
      return `${literal}::text`;
    case 1:
      return `${literal}::varchar`;
    case 2:
      return `text ${literal}`;
    case 3:
      return `pg_catalog.text ${literal}`;
    case 4:
      return `varchar ${literal}`;
    case 5:
      return `character varying ${literal}`;
    case 6:
      return `CAST(${literal} AS text)`;
    case 7:
      return `(${literal})`;
    case 8:
      return `${literal} COLLATE "C"`;
    default:
      return literal;
  }
}

/** Puts one statement together: each value by a parameter or as a literal. */
class Draft {
  readonly random: SeededRandom;
  readonly members: readonly (string | null)[][];
  #count = 0;

  constructor(random: SeededRandom, members: number) {
    this.random = random;
    this.members = Array.from({ length: members }, () => []);
  }

  /** One for all. */
  parameter(value: string | null, cast = ''): string {
    return this.parameters(() => value, cast);
  }

  parameters(value: (member: number) => string | null, cast = ''): string {
    for (const [index, member] of this.members.entries()) member.push(value(index));
    return `$${++this.#count}${cast}`;
  }

  either(value: string, literal: () => string, cast = ''): string {
    return this.random.oneIn(2) ? this.parameter(value, cast) : literal();
  }
}

interface Key {
  readonly tenant: string;
  readonly key: string;
  /** For each member. */
  readonly keys: readonly string[];
}

function keyOf(draft: Draft, inserts: boolean): Key {
  const { random, members } = draft;
  const tenant = random.pick(TENANTS);
  const isLiteral = random.oneIn(3);
  const isOne = isLiteral || random.oneIn(4);
  const first = random.integer(9);
  const any = (index: number): string =>
    random.oneIn(8)
      ? `{tag}'k${index}`
      : random.oneIn(6)
        ? `ключ ${index}`
        : `${inserts && random.oneIn(2) ? 'new' : 'k'}${index}`;
  const keys = isOne
    ? members.map(() => any(first)).fill(any(first))
    : members.map((_, index) => any((first + index) % 10));
  const tenantText = random.oneIn(4) ? draft.parameter(tenant) : textLiteral(tenant, random);
  const key = isLiteral ? textLiteral(keys[0]!, random) : draft.parameters((index) => keys[index]!);
  return { tenant: tenantText, key, keys };
}

const JSONS = ['{"a": 1}', '[1, "ü\'s"]', '"x"', 'null', '{"n": 3, "b": "\\\\"}', '12.50'] as const;

function jsonText(draft: Draft): string {
  const { random } = draft;
  const value = random.pick(JSONS);
  return draft.either(value, () => {
    const literal = anyQuoting(value, random);
    return random.pick([
      literal,
      literal,
      `${literal}::jsonb`,
      `jsonb ${literal}`,
      `CAST(${literal} AS jsonb)`,
      `(${literal})`,
    ]);
  });
}

const number = (draft: Draft, value: number): string =>
  draft.either(String(value), () =>
    draft.random.pick([String(value), `'${value}'`, `${value}::int8`, `'${value}'::bigint`, `0x${hex(value, 1)}`]),
  );

const LASTING = [
  "'2099-01-01 00:00+00'",
  "timestamptz '2099-01-01'",
  "'2099-01-01'::timestamptz",
  "now() + interval '1 h'",
  "now() + '1 day'::interval",
  'NULL',
  "'infinity'",
];
function ttl(draft: Draft): string {
  return draft.random.oneIn(4) ? draft.parameter('2099-01-01 00:00:00+00') : draft.random.pick(LASTING);
}

/** A condition on the key. `t` is how its columns are called. */
function whereOf({ random }: Draft, { tenant, key }: Key, changes: boolean, t = ''): string {
  const conditions = [`${t}tenant_id = ${tenant}`, `${t}key = ${key}`];
  if (random.oneIn(5)) conditions.reverse();
  if (!changes && random.oneIn(8)) return `(${t}tenant_id, ${t}key) = (${tenant}, ${key})`;
  if (!changes && random.oneIn(8)) return `${tenant} = ${t}tenant_id AND ${key} = ${t}key`;
  return conditions.join(' AND ');
}

const SHOWN = [
  'value',
  'value, version',
  'key, tenant_id',
  '*',
  "value ->> 'n' AS n, version + 1",
  "'x' AS x, 7, 1.5, true, NULL, value",
];
const returning = ({ random }: Draft): string =>
  random.oneIn(2)
    ? ''
    : ` RETURNING ${random.pick(['value, version', 'key, version', "version, 'done' AS what, 5", 'tenant_id', 'ttl IS NULL AS lasts'])}`;

function select(draft: Draft): string {
  const { random } = draft;
  const alias = random.oneIn(4) ? 'k' : '';
  // Lists are read by the shape of their own; `*` names updated_at, which differs.
  const shown = random.pick(SHOWN).replace('*', 'key, value');
  const more = random.integer(6);
  const condition = whereOf(draft, keyOf(draft, false), false, alias === '' ? '' : 'k.');
  const also =
    more === 0 ? ` AND version >= ${number(draft, 1)}` : more === 1 ? ` AND value @> ${jsonText(draft)}` : '';
  return `SELECT ${shown} FROM kv ${alias} WHERE ${condition}${also}${random.oneIn(6) ? ' LIMIT 1' : ''}`;
}

function insert(draft: Draft): string {
  const { random } = draft;
  const { tenant, key } = keyOf(draft, true);
  const value = jsonText(draft);
  const lasts = random.oneIn(3) ? ttl(draft) : null;
  const columns = `tenant_id, key, value${lasts === null ? '' : ', ttl'}`;
  const values = `${tenant}, ${key}, ${value}${lasts === null ? '' : `, ${lasts}`}`;
  const conflict = random.pick([
    () => ' ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value',
    () => ` ON CONFLICT (tenant_id, key) DO UPDATE SET value = ${jsonText(draft)}`,
    () =>
      ` ON CONFLICT (tenant_id, key) DO UPDATE SET value = kv.value, ttl = ${ttl(draft)} WHERE kv.version < ${number(draft, 50)}`,
    () => ' ON CONFLICT DO NOTHING',
    () => '',
  ])();
  return `INSERT INTO kv (${columns}) VALUES (${values})${conflict}${returning(draft)}`;
}

function update(draft: Draft): string {
  const { random } = draft;
  const value = jsonText(draft);
  const sets = random.pick([
    () => `value = ${value}`,
    () => `value = ${value}, ttl = ${ttl(draft)}`,
    () => `value = kv.value || ${value}::jsonb`,
  ])();
  const also = random.oneIn(3) ? ` AND version = ${number(draft, random.between(1, 3))}` : '';
  return `UPDATE kv SET ${sets} WHERE ${whereOf(draft, keyOf(draft, false), true)}${also}${returning(draft)}`;
}

function remove(draft: Draft): string {
  const also = draft.random.oneIn(3) ? ` AND version = ${number(draft, draft.random.between(1, 3))}` : '';
  return `DELETE FROM kv WHERE ${whereOf(draft, keyOf(draft, false), true)}${also}${returning(draft)}`;
}

function call(draft: Draft): string {
  const { random } = draft;
  const { tenant, key } = keyOf(draft, true);
  return random.pick([
    () => `SELECT value, version FROM kv_get(${tenant}, ${key})`,
    () => `SELECT kv_put(${tenant}, ${key}, ${jsonText(draft)})`,
    () => `SELECT kv_put(${tenant}, ${key}, ${jsonText(draft)}, interval '1 hour')`,
    () => `SELECT * FROM kv_cas(${tenant}, ${key}, ${random.pick(['1', "'1'", '2::int8'])}, ${jsonText(draft)})`,
    () => `SELECT kv_delete(${tenant}, ${key})`,
    () => `SELECT * FROM kv_merge(${tenant}, ${key}, ${draft.either('{"m": 1}', () => `'{"m": 1}'`)})`,
    () => `SELECT kv_expire(${tenant}, ${key}, '1 day')`,
    () => `SELECT kv_expire_at(${tenant}, ${key}, timestamptz '2098-01-01')`,
    () => `SELECT kv_touch(${tenant}, ${key})`,
  ])();
}

/** With something in it that is no value of its place's type. */
function wrong(draft: Draft): string {
  const key = keyOf(draft, false);
  const where = whereOf(draft, key, true);
  return draft.random.pick([
    `UPDATE kv SET value = '{bad' WHERE ${where}`,
    `UPDATE kv SET ttl = 'tomorrowish' WHERE ${where}`,
    `DELETE FROM kv WHERE ${where} AND version = '1.5'`,
    `SELECT value FROM kv WHERE ${where} AND version = 'x'`,
    `SELECT value::int4 FROM kv WHERE ${where} AND value = '[1' RETURNING key`,
    `INSERT INTO kv (tenant_id, key, value, ttl) VALUES (${key.tenant}, ${key.key}, '1', 'x')`,
    `INSERT INTO kv (tenant_id, key, value) VALUES (${key.tenant}, ${key.key}, 5)`,
    `SELECT kv_put(${key.tenant}, ${key.key}, 5)`,
    `SELECT * FROM kv_cas(${key.tenant}, ${key.key}, 'one', '1')`,
  ]);
}

/** Reads of several keys of one shard, in whatever order. */
function list(draft: Draft): string {
  const { random } = draft;
  const tenant = random.oneIn(4) ? draft.parameter('t') : textLiteral('t', random);
  const keys = random.pick([
    () => `IN (${textLiteral('{g}1', random)}, ${draft.parameters((index) => `{g}${index + 2}`)})`,
    () => `IN (${textLiteral('{g}1', random)}, ${textLiteral('{g}absent', random)}, '{g}4')`,
    () => `= ANY ('{"{g}1","{g}7","{g}3"}')`,
    () => `= ANY (${draft.parameters((index) => `{"{g}${index}","{g}9"}`)})`,
    () => `= ANY (ARRAY[${textLiteral('{g}2', random)}, ${draft.parameters((index) => `{g}${index + 3}`)}])`,
  ])();
  return `SELECT key, value FROM kv WHERE tenant_id = ${tenant} AND key ${keys}`;
}

const KINDS = [
  select,
  select,
  select,
  insert,
  insert,
  insert,
  update,
  update,
  remove,
  call,
  call,
  list,
  wrong,
] as const;

const isPlainInsert = (sql: string): boolean => sql.startsWith('INSERT') && !sql.includes('ON CONFLICT');

/** Draws a statement for so many members. */
export function drawStatement(random: SeededRandom, members: number): LiteralStatement {
  const kind = random.pick(KINDS);
  const draft = new Draft(random, members);
  const sql = kind(draft);
  return { sql, values: draft.members, mayFail: kind === wrong || isPlainInsert(sql), anyOrder: kind === list };
}
