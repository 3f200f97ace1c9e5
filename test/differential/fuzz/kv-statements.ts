// Statements on key-value tables for the fuzzer: by one key, by several, by none, right and wrong.
import type { Random } from './random.js';
import type { Statement, Touch } from './script.js';
import { type Form, float8, form, int4, int8, json, nullOf, type Slot, TYPES, text } from './slots.js';

/** The keys a session works on: its own, so that sessions never wait for each other. */
export interface Keys {
  readonly tenant: string;
  /** Keys of one tag lie on one shard. */
  readonly tag: string;
}

/** So chosen that every tenant has keys on each of three and of five shards. */
export const TAGS = ['a', 'b', 'c', 'h', 'i', 'j', 'm', 'o'];
const VALUES = ['1', '-2.5', '"text"', '{"n": 1}', '[1, 2]', 'null', 'true'];
const BAD_VALUES = ['{bad', '', '[1'];

const keyOf = (random: Random, { tag }: Keys): string => `{${tag}}${random.between(1, 3)}`;

/** A key of the tag at hand, now and then of another. */
function someKey(random: Random, keys: Keys): string {
  return random.chance(0.1) ? `{${random.pick(TAGS)}}${random.between(1, 3)}` : keyOf(random, keys);
}

const value = (random: Random): Slot => {
  if (random.chance(0.04)) return nullOf(TYPES.jsonb);
  return json(random.pick(random.chance(0.05) ? BAD_VALUES : VALUES));
};

const plain = (touch: Touch, sql: string): Form => ({ pieces: [sql], slots: [], touch });

const on = (tenant: string, keys: readonly string[], writes: boolean): Touch => ({
  kind: 'keys',
  keys: keys.map((key) => [tenant, key] as const),
  writes,
});

type Maker = (random: Random, keys: Keys) => Form;

const KEYED_READS: readonly (readonly [number, Maker])[] = [
  [
    6,
    (random, { tenant, ...keys }) => {
      const key = someKey(random, { tenant, ...keys });
      const what = random.pick([
        'value',
        'key, version',
        'value, version',
        'tenant_id, key, value',
        'version + 1 as next',
      ]);
      const more = random.pick(['', '', '', ' for update', ' limit 1', ' order by key', ' and version > 0']);
      const writes = more === ' for update';
      return form(
        on(tenant, [key], writes),
      )`select ${what} from kv where tenant_id = ${text(tenant)} and key = ${text(key)}${more}`;
    },
  ],
  [
    2,
    (random, keys) => {
      const key = someKey(random, keys);
      return form(on(keys.tenant, [key], false))`select value, version from kv_get(${text(keys.tenant)}, ${text(key)})`;
    },
  ],
  [
    1,
    (random, keys) => {
      const key = someKey(random, keys);
      return form(
        on(keys.tenant, [key], false),
      )`select count(*), max(version) from kv where tenant_id = ${text(keys.tenant)} and key = ${text(key)}`;
    },
  ],
  [
    1,
    (random, keys) => {
      const key = someKey(random, keys);
      const end = random.pick([int8(1), float8(1), int4(0), text('1')]);
      return form(
        on(keys.tenant, [key], false),
      )`select value from kv where tenant_id = ${text(keys.tenant)} and key = ${text(key)} limit ${end}`;
    },
  ],
];

const KEYED_WRITES: readonly (readonly [number, Maker])[] = [
  [
    5,
    (random, keys) => {
      const key = someKey(random, keys);
      const more = random.pick([
        '',
        ' returning version',
        ' returning key, value',
        ' on conflict do nothing',
        ' on conflict (tenant_id, key) do update set value = excluded.value, version = kv.version + 1',
        ' on conflict (tenant_id, key) do update set value = excluded.value returning value',
      ]);
      return form(
        on(keys.tenant, [key], true),
      )`insert into kv (tenant_id, key, value) values (${text(keys.tenant)}, ${text(key)}, ${value(random)})${more}`;
    },
  ],
  [
    4,
    (random, keys) => {
      const key = someKey(random, keys);
      const more = random.pick(['', '', ' and version = 1', ' returning value, version', ' returning version']);
      return form(
        on(keys.tenant, [key], true),
      )`update kv set value = ${value(random)} where tenant_id = ${text(keys.tenant)} and key = ${text(key)}${more}`;
    },
  ],
  [
    3,
    (random, keys) => {
      const key = someKey(random, keys);
      const more = random.pick(['', '', ' and version = 1', ' returning key, version']);
      return form(
        on(keys.tenant, [key], true),
      )`delete from kv where tenant_id = ${text(keys.tenant)} and key = ${text(key)}${more}`;
    },
  ],
  [
    3,
    (random, keys) => {
      const key = someKey(random, keys);
      return form(on(keys.tenant, [key], true))`select kv_put(${text(keys.tenant)}, ${text(key)}, ${value(random)})`;
    },
  ],
  [
    2,
    (random, keys) => {
      const key = someKey(random, keys);
      const expected = int8(random.between(0, 3));
      return form(
        on(keys.tenant, [key], true),
      )`select applied, version, value from kv_cas(${text(keys.tenant)}, ${text(key)}, ${expected}, ${value(random)})`;
    },
  ],
  [
    2,
    (random, keys) => {
      const key = someKey(random, keys);
      const call = random.pick(['kv_delete', 'kv_incr']);
      return form(on(keys.tenant, [key], true))`select ${call}(${text(keys.tenant)}, ${text(key)})`;
    },
  ],
  [
    1,
    (random, keys) => {
      const [one, other] = [`{${keys.tag}}1`, `{${keys.tag}}4`];
      return form(
        on(keys.tenant, [one, other], true),
      )`insert into kv (tenant_id, key, value) values (${text(keys.tenant)}, ${text(one)}, ${value(random)}), (${text(keys.tenant)}, ${text(other)}, ${value(random)}) on conflict do nothing`;
    },
  ],
];

const WIDE: readonly (readonly [number, Maker])[] = [
  [
    3,
    (random, { tenant }) =>
      form({
        kind: 'every',
        writes: false,
      })`select ${random.pick(['count(*)', 'count(*), sum(version)', 'min(key), max(key)', 'count(distinct value)'])} from kv where tenant_id = ${text(tenant)}`,
  ],
  [
    3,
    (random, { tenant }) => {
      const end = random.pick(['', ' limit 3', ' limit 2 offset 1', ' limit all']);
      return form({
        kind: 'every',
        writes: false,
      })`select key, value from kv where tenant_id = ${text(tenant)} order by key${end}`;
    },
  ],
  [
    1,
    (random, { tenant }) => {
      const count = random.pick([int8(2), int4(3), float8(2)]);
      return form({
        kind: 'every',
        writes: false,
      })`select key from kv where tenant_id = ${text(tenant)} order by key limit ${count}`;
    },
  ],
  [
    1,
    (_, { tenant }) =>
      form({
        kind: 'every',
        writes: false,
      })`select key from kv where tenant_id = ${text(tenant)} and version > ${int8(1)}`,
  ],
  [
    2,
    (random, keys) => {
      const list = random.list(random.between(2, 4), () => `{${random.pick(TAGS)}}${random.between(1, 3)}`);
      const [first, second] = [list[0]!, list[1]!];
      return form(
        on(keys.tenant, [first, second], false),
      )`select key, value from kv where tenant_id = ${text(keys.tenant)} and key in (${text(first)}, ${text(second)}) order by key`;
    },
  ],
  [2, copyOut],
];

const EVERY: Touch = { kind: 'every', writes: false };
const COPIED = 'tenant_id, key, version, value';

/** COPY … TO STDOUT of rows on all shards, or of one key's; it takes no parameters. */
function copyOut(random: Random, keys: Keys): Form {
  const { tenant } = keys;
  const key = someKey(random, keys);
  const columns = random.pick([COPIED, 'key', 'value, key', 'version, key, value']);
  const how = random.pick(['', '', ' (format csv)', ' with (format csv, header)', ' (format binary)', " (null '-')"]);
  return random.weighted<() => Form>([
    [2, () => plain(EVERY, `copy kv (${columns}) to stdout${how}`)],
    [2, () => plain(EVERY, `copy (select ${columns} from kv where tenant_id = '${tenant}') to stdout${how}`)],
    [2, () => plain(EVERY, `copy (select ${columns} from kv order by tenant_id, key) to stdout${how}`)],
    [1, () => plain(EVERY, `copy (select ${columns} from kv order by key desc, tenant_id limit 4) to stdout${how}`)],
    [
      1,
      () => plain(EVERY, `copy (select count(*), max(version) from kv where tenant_id = '${tenant}') to stdout${how}`),
    ],
    [1, () => plain(EVERY, 'copy (select 1 / (version - version) from kv) to stdout')],
    [
      2,
      () =>
        plain(
          on(tenant, [key], false),
          `copy (select ${columns} from kv where tenant_id = '${tenant}' and key = '${key}') to stdout${how}`,
        ),
    ],
  ])();
}

/** Rows on several shards, of which at most one can be there. */
function wideInsert(random: Random, keys: Keys): Form {
  const fresh = random.list(random.between(1, 3), () => `{${random.pick(TAGS)}}n${random.between(0, 1e9)}`);
  const rows = [keyOf(random, keys), ...fresh];
  const more = random.pick([
    '',
    '',
    ' returning key, value',
    ' on conflict do nothing',
    ' on conflict (tenant_id, key) do update set value = excluded.value returning key',
  ]);
  const head = form(on(keys.tenant, rows, true))`insert into kv (tenant_id, key, value) values `;
  const values = rows.map((key) => form(head.touch)`(${text(keys.tenant)}, ${text(key)}, ${value(random)})`);
  const pieces = [...head.pieces];
  for (const [at, row] of values.entries()) {
    pieces[pieces.length - 1] += `${at === 0 ? '' : ', '}${row.pieces[0]}`;
    pieces.push(...row.pieces.slice(1));
  }
  pieces[pieces.length - 1] += more;
  return { pieces, slots: values.flatMap(({ slots }) => slots), touch: head.touch };
}

/** UPDATE and DELETE of rows on several shards, which are a transaction of their own. */
const WIDE_WRITES: readonly (readonly [number, Maker])[] = [
  [4, wideInsert],
  [
    3,
    (random, keys) => {
      const [first, second] = [keyOf(random, keys), `{${random.pick(TAGS)}}2`];
      const change = random.pick(['delete from kv', `update kv set value = '[0]'`]);
      const more = random.pick(['', '', ' returning key, version', ' and version = 1']);
      return form(
        on(keys.tenant, [first, second], true),
      )`${change} where tenant_id = ${text(keys.tenant)} and key in (${text(first)}, ${text(second)})${more}`;
    },
  ],
  [
    3,
    (random, { tenant }) => {
      const more = random.pick(['', '', ' returning key', ' returning version, value', ' and value is not null']);
      return form({
        kind: 'every',
        writes: true,
      })`update kv set value = ${value(random)} where tenant_id = ${text(tenant)} and version > ${int8(random.between(0, 3))}${more}`;
    },
  ],
  [
    2,
    (random, { tenant }) => {
      const more = random.pick(['', '', ' returning key', ` and key > '{h}'`]);
      return form({
        kind: 'every',
        writes: true,
      })`delete from kv where tenant_id = ${text(tenant)} and version > ${int8(random.between(1, 3))}${more}`;
    },
  ],
  [
    1,
    (_, { tenant }) =>
      form({
        kind: 'every',
        writes: true,
      })`update kv set value = to_jsonb(1 / (version - ${int8(1)})) where tenant_id = ${text(tenant)}`,
  ],
];

const WRONG: readonly (readonly [number, Maker])[] = [
  [
    2,
    (random, keys) => {
      const key = someKey(random, keys);
      return form(
        on(keys.tenant, [key], false),
      )`select 1 / (version - version) from kv where tenant_id = ${text(keys.tenant)} and key = ${text(key)}`;
    },
  ],
  [
    2,
    (random, keys) => {
      const key = someKey(random, keys);
      return form(
        on(keys.tenant, [key], false),
      )`select nothing from kv where tenant_id = ${text(keys.tenant)} and key = ${text(key)}`;
    },
  ],
  [
    1,
    (random, keys) => {
      const key = someKey(random, keys);
      return form(
        on(keys.tenant, [key], true),
      )`update kv set value = ${json(random.pick(BAD_VALUES))} where tenant_id = ${text(keys.tenant)} and key = ${text(key)}`;
    },
  ],
  [
    1,
    (_, { tenant }) =>
      form(on(tenant, ['{a}9'], true))`insert into kv (tenant_id, key) values (${text(tenant)}, ${nullOf(TYPES.text)})`,
  ],
  [1, () => form({ kind: 'unsupported', what: 'LOCK' })`lock table kv`],
  [1, () => form({ kind: 'unsupported', what: 'cursor' })`declare k cursor for select key from kv`],
  [1, () => form({ kind: 'unsupported', what: 'two tables' })`select count(*) from kv, note`],
  [1, () => form({ kind: 'unsupported', what: 'PREPARE' })`prepare q as select key from kv`],
  [1, () => form({ kind: 'unsupported', what: 'subquery' })`select * from note where text in (select key from kv)`],
];

/** In a block it opens a branch on all shards, wherever its rows are, one of which at most is wrong: of several on several shards the error of any is told. */
export function copyIn(random: Random, { tenant }: Keys): { readonly statement: Statement; readonly rows: string } {
  const how = random.pick(['', '', ' (format csv)', " with (delimiter '|', null '-')", ' (format csv, header)']);
  const by = how.includes('csv') ? ',' : how.includes('|') ? '|' : '\t';
  const isNew = random.chance(0.7);
  const keys = random.list(
    random.between(1, 5),
    (at) => `{${random.pick(TAGS)}}${at}${isNew ? random.between(0, 1e9) : 1}`,
  );
  const unique = [...new Set(isNew ? keys : keys.slice(0, 1))];
  const lines = unique.map((key) => [tenant, key, String(random.between(0, 9))].join(by));
  const wrong = random.weighted<string | null>([
    [8, null],
    [1, [tenant, '{a}x', '{bad'].join(by)],
    [1, [tenant, '{a}x'].join(by)],
    [1, [tenant, '{a}x', '1', '2'].join(by)],
  ]);
  if (wrong !== null && isNew) lines.splice(random.between(0, lines.length), 0, wrong);
  if (how.includes('header')) lines.unshift(['a', 'b', 'c'].join(by));
  return {
    statement: { sql: `copy kv (tenant_id, key, value) from stdin${how}`, touch: { kind: 'every', writes: true } },
    rows: lines.map((line) => `${line}\n`).join(''),
  };
}

export function kvStatement(random: Random, keys: Keys): Form {
  const makers = random.weighted([
    [8, KEYED_READS],
    [9, KEYED_WRITES],
    [4, WIDE],
    [2, WIDE_WRITES],
    [2, WRONG],
  ]);
  return random.weighted(makers)(random, keys);
}

/** One that runs everywhere, by itself and in a block on the shard of the tag. */
export function keyedStatement(random: Random, keys: Keys): Form {
  return random.weighted(random.chance(0.5) ? KEYED_READS : KEYED_WRITES)(random, keys);
}
