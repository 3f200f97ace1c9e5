// Statements put together at random from parts, by a seed: PGKV_DIFF_SEED=n plays others than every run's.
import { SeededRandom } from '../../support/seeded-random.js';
import type { Scenario, SqlStep, Step, Theme } from '../scenario.js';
import { anyOrder, CONTENT, REAP, ROWS } from './rows.js';

const SEED = Number(process.env['PGKV_DIFF_SEED'] ?? 20260101);
const READ_SCENARIOS = 8;
const READS_EACH = 30;
const WRITE_SCENARIOS = 6;
const WRITES_EACH = 30;

/** A statement under construction: values go in as literals of any form, or as parameters. */
class Draft {
  readonly params: string[] = [];
  readonly dice: SeededRandom;
  readonly #usesParameters: boolean;

  constructor(dice: SeededRandom) {
    this.dice = dice;
    this.#usesParameters = dice.oneIn(2);
  }

  text(value: string): string {
    if (this.#usesParameters && this.dice.integer(3) > 0)
      return this.#parameter(value) + this.dice.pick(['', '', '::text']);
    const doubled = value.replaceAll("'", "''");
    const forms = [`'${doubled}'`, `'${doubled}'::text`, `$q$${value}$q$`, `text '${doubled}'`];
    if (!value.includes('\\')) forms.push(`E'${doubled}'`);
    return this.dice.pick(forms);
  }

  number(value: number): string {
    if (this.#usesParameters && this.dice.oneIn(2)) return `${this.#parameter(String(value))}::bigint`;
    return String(value);
  }

  jsonb(value: string): string {
    if (this.#usesParameters && this.dice.oneIn(2)) return `${this.#parameter(value)}::jsonb`;
    return this.dice.pick([`'${value.replaceAll("'", "''")}'`, `'${value.replaceAll("'", "''")}'::jsonb`]);
  }

  step(sql: string, isOrdered: boolean): SqlStep {
    const noisy = this.dice.oneIn(4) ? withNoise(sql, this.dice) : sql;
    if (isOrdered) return this.params.length === 0 ? { sql: noisy } : { sql: noisy, params: this.params };
    return anyOrder(noisy, ...this.params);
  }

  #parameter(value: string): string {
    this.params.push(value);
    return `$${this.params.length}`;
  }
}

/** Other case, white space and comments between words; strings and names in quotes stay as they are. */
function withNoise(sql: string, dice: SeededRandom): string {
  const parts = sql.split(/('(?:[^']|'')*'|"[^"]*"|\$q\$.*?\$q\$)/s);
  const noise = (): string =>
    dice.pick([' ', '\n', '\t', '  ', ' /* c */ ', ' -- to the end\n', '\r\n', ' /* a /* b */ */ ']);
  return parts
    .map((part, index) => {
      if (index % 2 === 1) return part;
      const spaced = part.replace(/ /g, noise);
      return dice.oneIn(3) ? spaced.toUpperCase().replaceAll('-- TO THE END', '-- to the end') : spaced;
    })
    .join('');
}

const TENANTS = ['acme', 'beta', 'cart', '', 'Straße', 'gone', 'nobody', "it's"];
const KEYS = [
  'k01',
  'k02',
  'k05',
  'k10',
  'k10a',
  'k99',
  'text',
  'number',
  '{7}:count',
  '{7}:gone',
  '',
  'Öl',
  "a'b",
  'a\\b',
  'zzz',
];
const PAIRS: readonly (readonly [string, string])[] = [
  ...['k01', 'k02', 'k03', 'k07', 'k12', 'k20', 'k00', 'k99', "a'b", 'a\\b', 'a"b', 'é', ''].map(
    (key) => ['acme', key] as const,
  ),
  ...['number', 'text', 'list', 'void', 'object', 'gone'].map((key) => ['beta', key] as const),
  ...['{7}:count', '{7}:total', '{8}:count', '{7}:gone', '{}:none'].map((key) => ['cart', key] as const),
  ...[
    ['', ''],
    ['Straße', 'Öl'],
    ['日本', '東京🗼'],
    ['gone', 'all'],
    ['nobody', 'nothing'],
  ].map(([t, k]) => [t!, k!] as const),
];

const COLUMNS = ['tenant_id', 'key', 'version', 'value', 'ttl', 'updated_at', 'slot'];
const EXPRESSIONS = [
  'version + 1',
  'version % 4',
  'length(key)',
  'upper(key)',
  `key || '/' || tenant_id`,
  `value ->> 's'`,
  `jsonb_typeof(value)`,
  'ttl is null',
  `extract(year from updated_at)`,
  `coalesce(value ->> 'n', 'none')`,
  'version::numeric / 7',
  `case when version > 4 then 'high' end`,
  'md5(key)',
  'greatest(version, 5)',
];
const SORT_KEYS = [
  'tenant_id',
  'key',
  'version',
  'ttl',
  'updated_at',
  'slot',
  'length(key)',
  'version % 3',
  'ttl is null',
  'key collate "C"',
  'version / 2.0',
];
const AGGREGATES = [
  'count(*)',
  'count(ttl)',
  'sum(version)',
  'avg(version)',
  'min(key)',
  'max(key)',
  'max(ttl)',
  'min(version)',
  'sum(length(key))',
  'count(*) filter (where version > 3)',
  'bool_or(ttl is null)',
  'avg(version::numeric / 3)',
];

function list(dice: SeededRandom): string {
  const items = dice.some([...COLUMNS, ...EXPRESSIONS], 1 + dice.integer(4));
  if (dice.oneIn(8)) return '*';
  return items.map((item, index) => (dice.oneIn(4) ? `${item} as "c${index}"` : item)).join(', ');
}

function condition(draft: Draft): string {
  const { dice } = draft;
  switch (dice.integer(12)) {
    case 0:
      return `version > ${draft.number(dice.integer(20))}`;
    case 1:
      return `version between ${draft.number(dice.integer(5))} and ${draft.number(5 + dice.integer(10))}`;
    case 2:
      return `ttl is ${dice.pick(['null', 'not null'])}`;
    case 3:
      return `key ${dice.pick(['<', '>', '<=', '>=', '<>'])} ${draft.text(dice.pick(KEYS))}`;
    case 4:
      return `tenant_id = ${draft.text(dice.pick(TENANTS))}`;
    case 5:
      return `key like 'k%'`;
    case 6:
      return `jsonb_typeof(value) = '${dice.pick(['object', 'string', 'number'])}'`;
    case 7:
      return `(${condition(draft)} or ${condition(draft)})`;
    case 8:
      return `not (${condition(draft)})`;
    case 9:
      return `value @> '{"odd": ${dice.pick(['true', 'false'])}}'`;
    case 10:
      return `tenant_id in (${dice
        .some(TENANTS, 3)
        .map((tenant) => draft.text(tenant))
        .join(', ')})`;
    default:
      return `length(key) ${dice.pick(['=', '<', '>'])} ${draft.number(dice.integer(6))}`;
  }
}

function keyCondition(draft: Draft, [tenant, key]: readonly [string, string]): string {
  const [t, k] = [draft.text(tenant), draft.text(key)];
  return draft.dice.pick([
    `tenant_id = ${t} and key = ${k}`,
    `key = ${k} and tenant_id = ${t}`,
    `(tenant_id, key) = (${t}, ${k})`,
    `${t} = tenant_id and key in (${k})`,
    `kv.tenant_id = ${t} and (kv.key = ${k})`,
  ]);
}

function pointRead(dice: SeededRandom): SqlStep {
  const draft = new Draft(dice);
  const extra = dice.oneIn(3) ? ` and ${condition(draft)}` : '';
  return draft.step(`select ${list(dice)} from kv where ${keyCondition(draft, dice.pick(PAIRS))}${extra}`, false);
}

function severalKeys(dice: SeededRandom): SqlStep {
  const draft = new Draft(dice);
  const pairs = dice.some(PAIRS, 1 + dice.integer(5));
  const where = dice.oneIn(2)
    ? `(tenant_id, key) in (${pairs.map(([tenant, key]) => `(${draft.text(tenant)}, ${draft.text(key)})`).join(', ')})`
    : `tenant_id = ${draft.text('acme')} and key in (${pairs.map(([, key]) => draft.text(key)).join(', ')})`;
  return draft.step(`select ${list(dice)} from kv where ${where}`, false);
}

function where(draft: Draft): string {
  const count = draft.dice.integer(3);
  return count === 0 ? '' : ` where ${Array.from({ length: count }, () => condition(draft)).join(' and ')}`;
}

function rangeRead(dice: SeededRandom): SqlStep {
  const draft = new Draft(dice);
  const isOrdered = !dice.oneIn(3);
  const direction = (): string => dice.pick(['', ' desc', ' asc', ' nulls first', ' desc nulls last']);
  const keys = [...dice.some(SORT_KEYS, dice.integer(3)), 'tenant_id', 'key'].map((key) => key + direction());
  const order = isOrdered ? ` order by ${keys.join(', ')}` : '';
  const limit = isOrdered && dice.oneIn(2) ? ` limit ${draft.number(dice.integer(9))}` : '';
  const offset = isOrdered && dice.oneIn(3) ? ` offset ${draft.number(dice.integer(9))}` : '';
  // A name that is given to another column would be what ORDER BY means.
  const items = dice.some(COLUMNS, 1 + dice.integer(6)).join(', ');
  const from = where(draft);
  return draft.step(`select ${isOrdered ? items : list(dice)} from kv${from}${order}${limit}${offset}`, isOrdered);
}

function aggregate(dice: SeededRandom): SqlStep {
  const draft = new Draft(dice);
  const aggregates = dice.some(AGGREGATES, 1 + dice.integer(4)).join(', ');
  return draft.step(`select ${aggregates} from kv${where(draft)}`, true);
}

function grouped(dice: SeededRandom): SqlStep {
  const draft = new Draft(dice);
  const columns = dice.some(['tenant_id', 'version', 'ttl'], 1 + dice.integer(2)).join(', ');
  const aggregates = dice.some(AGGREGATES, 1 + dice.integer(3)).join(', ');
  const having = dice.oneIn(3) ? ` having count(*) > ${dice.integer(3)}` : '';
  const from = where(draft);
  const sql = `select ${columns}, ${aggregates} from kv${from} group by ${columns}${having} order by ${columns}`;
  return { ...draft.step(sql, true), anyOrigin: true };
}

/** Keys that are written: some are there, some have expired, some are on one shard. */
const WRITTEN: readonly (readonly [string, string])[] = [
  ['w', 'a'],
  ['w', 'b'],
  ['w', "c'd"],
  ['acme', 'k01'],
  ['acme', 'k02'],
  ['acme', 'k99'],
  ['cart', '{7}:count'],
  ['cart', '{7}:gone'],
  ['日本', '東京🗼'],
];
const VALUES = ['1', '"text"', '{"n": 1, "a": [true]}', 'null', '[]', '{"s": "it\'s"}', '-2.50'];
const RETURNING = [
  '',
  '',
  ' returning key',
  ' returning tenant_id, key, version, value',
  ' returning version + 1 as next, ttl is null',
  ' returning kv.version, updated_at = statement_timestamp()',
];
const ASSIGNMENTS = [
  `value = coalesce(value, '{}') || '{"u": 1}'`,
  'value = to_jsonb(version)',
  'value = null',
  `ttl = timestamptz '2100-01-01 00:00+00'`,
  'ttl = null',
  `ttl = statement_timestamp() - interval '1 s'`,
  'version = version + 7',
  `value = '5', version = version * 2`,
];

function write(dice: SeededRandom): SqlStep {
  const draft = new Draft(dice);
  const pair = dice.pick(WRITTEN);
  const returning = dice.pick(RETURNING);
  switch (dice.integer(6)) {
    case 0:
    case 1: {
      const values: Record<string, string> = {
        tenant_id: draft.text(pair[0]),
        key: draft.text(pair[1]),
        value: draft.jsonb(dice.pick(VALUES)),
      };
      if (dice.oneIn(3))
        values['ttl'] = dice.pick([
          'null',
          `'2100-01-01 00:00+00'`,
          `now() - interval '1 h'`,
          `now() + interval '1 h'`,
        ]);
      if (dice.oneIn(4)) values['version'] = dice.pick(['default', '5', '1 + 1']);
      const names = dice.some(Object.keys(values), 5);
      const update = `do update set ${dice.pick([`value = excluded.value`, `value = excluded.value, ttl = excluded.ttl`, `version = kv.version + 3`, `value = kv.value || excluded.value`])}`;
      const guard = dice.oneIn(3) ? ` where kv.version ${dice.pick(['<', '>', '='])} ${dice.integer(4)}` : '';
      const conflict = dice.pick([
        '',
        ' on conflict do nothing',
        ' on conflict (tenant_id, key) do nothing',
        ` on conflict (tenant_id, key) ${update}${guard}`,
        ` on conflict (key, tenant_id) ${update}`,
      ]);
      return draft.step(
        `insert into kv (${names.join(', ')}) values (${names.map((name) => values[name]).join(', ')})${conflict}${returning}`,
        true,
      );
    }
    case 2:
    case 3: {
      const set = dice.pick(ASSIGNMENTS);
      const extra = dice.oneIn(3) ? ` and version ${dice.pick(['=', '<', '>'])} ${draft.number(dice.integer(4))}` : '';
      return draft.step(`update kv set ${set} where ${keyCondition(draft, pair)}${extra}${returning}`, true);
    }
    case 4: {
      const extra = dice.oneIn(2) ? ` and version = ${draft.number(1 + dice.integer(3))}` : '';
      return draft.step(`delete from kv where ${keyCondition(draft, pair)}${extra}${returning}`, true);
    }
    default: {
      const [t, k] = [draft.text(pair[0]), draft.text(pair[1])];
      const value = draft.jsonb(dice.pick(VALUES));
      return draft.step(
        dice.pick([
          `select kv_put(${t}, ${k}, ${value})`,
          `select * from kv_cas(${t}, ${k}, ${dice.integer(3)}, ${value})`,
          `select kv_delete(${t}, ${k}), ${value} is null`,
          `select value, version, ${value} from kv_get(${t}, ${k})`,
          `select kv_touch(${t}, ${k}), ${value} is null`,
        ]),
        true,
      );
    }
  }
}

/** Of rows that were just written. */
function timelessRead(dice: SeededRandom): SqlStep {
  for (;;) {
    const step = dice.pick([rangeRead, aggregate, pointRead, severalKeys])(dice);
    if (!/updated_at|ttl|\s\*\s/i.test(step.sql)) return step;
  }
}

function reads(index: number): Scenario {
  const dice = new SeededRandom(SEED + index);
  const kinds = [pointRead, pointRead, severalKeys, rangeRead, rangeRead, aggregate, grouped];
  const steps = Array.from({ length: READS_EACH }, () => dice.pick(kinds)(dice));
  return { name: `kv: generated reads ${index + 1}`, readOnly: true, modes: [...MODES[index % 3]!], steps };
}

/** Two of the three: statements with parameters are the same in simple and in text. */
const MODES = [
  ['simple', 'binary'],
  ['text', 'binary'],
  ['simple', 'text'],
] as const;

function writes(index: number): Scenario {
  const dice = new SeededRandom(SEED + 1000 + index);
  const steps: Step[] = [];
  for (let written = 0; written < WRITES_EACH; written++) {
    steps.push(write(dice), REAP);
    if (dice.oneIn(6)) steps.push(timelessRead(dice));
  }
  return { name: `kv: generated writes ${index + 1}`, modes: [...MODES[index % 3]!], steps: [...steps, ...CONTENT] };
}

export const kvGenerated: Theme = {
  name: 'kv: generated statements',
  rows: ROWS,
  scenarios: [
    ...Array.from({ length: READ_SCENARIOS }, (_, index) => reads(index)),
    ...Array.from({ length: WRITE_SCENARIOS }, (_, index) => writes(index)),
  ],
};
