// The order in which rows of several shards are merged is Postgres's own ORDER BY, for every type that may be a sort key.
import t from 'tap';
import { ScatterBench } from '../support/scatter-bench.js';

const bench = await ScatterBench.start(t, 3);
const VALUES_PER_TYPE = 200;

let seed = 20_261_123;
/** Uniform in [0, below), the same numbers each time. */
function random(below: number): number {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
  return Math.floor((seed / 0x1_0000_0000) * below);
}
const pick = <T>(values: readonly T[]): T => values[random(values.length)]!;
const digits = (count: number): string => Array.from({ length: count }, () => random(10)).join('');
const hex = (bytes: number): string => Array.from({ length: bytes * 2 }, () => random(16).toString(16)).join('');
const sign = (): string => pick(['', '-']);
const day = (): string => `${1000 + random(9000)}-${1 + random(12)}-${1 + random(28)}`;
const time = (): string => `${random(24)}:${random(60)}:${random(60)}.${digits(6)}`;
const CHARACTERS = [
  'a',
  'b',
  'B',
  'ä',
  'ß',
  ' ',
  '\u0001',
  'é',
  '\uffff',
  '\u{10000}',
  '\u{1f600}',
  '"',
  "'",
  '\\',
  '~',
];
const string = (most: number): string => Array.from({ length: random(most) }, () => pick(CHARACTERS)).join('');
const number = (): string =>
  pick([
    () => `${sign()}${digits(1 + random(40))}`,
    () => `${sign()}${digits(1 + random(9))}.${digits(1 + random(30))}`,
    () => `${sign()}0.${'0'.repeat(random(30))}${digits(4)}`,
    () => `${sign()}${1 + random(9)}e${random(200) - 100}`,
    () => `${sign()}1${'0'.repeat(random(13))}.${'0'.repeat(random(9))}`,
    () => `${random(3)}.${'0'.repeat(random(5))}`,
  ])();

/** Remarkable values first, then a way to make more. */
const TYPES: Readonly<Record<string, [readonly string[], () => string]>> = {
  bool: [['t', 'f'], () => pick(['t', 'f'])],
  int2: [['-32768', '32767', '0', '-1'], () => `${sign()}${random(32768)}`],
  int4: [['-2147483648', '2147483647', '0', '-1'], () => `${sign()}${random(2 ** 31)}`],
  int8: [
    [
      '-9223372036854775808',
      '9223372036854775807',
      '4294967296',
      '4294967295',
      '-4294967296',
      '-4294967297',
      '0',
      '-1',
    ],
    () => `${sign()}${digits(1 + random(18))}`,
  ],
  oid: [['0', '4294967295', '2147483648', '2147483647'], () => String(random(2 ** 32))],
  xid8: [['0', '18446744073709551615', '9223372036854775808'], () => `1${digits(random(19))}`],
  pg_lsn: [['0/0', 'FFFFFFFF/FFFFFFFF'], () => `${hex(4)}/${hex(4)}`],
  money: [['-92233720368547758.08', '92233720368547758.07'], () => `${sign()}${digits(1 + random(15))}.${digits(2)}`],
  float4: [
    ['NaN', 'Infinity', '-Infinity', '0', '-0', '1e-45', '3.4e38'],
    () => `${sign()}${digits(5)}e${random(60) - 30}`,
  ],
  float8: [
    ['NaN', 'Infinity', '-Infinity', '0', '-0', '5e-324', '1.7e308'],
    () => `${sign()}${digits(9)}e${random(400) - 200}`,
  ],
  numeric: [
    [
      'NaN',
      'Infinity',
      '-Infinity',
      '0',
      '0.000',
      '-0.1',
      '1',
      '1.0',
      '10000',
      '9999.9999',
      '1e-131',
      '1e131',
      '-1e131',
    ],
    number,
  ],
  text: [['', 'a', 'aa', 'A'], () => string(8)],
  varchar: [['', 'a', 'aa', 'A'], () => string(4)],
  name: [['', 'a', 'A'], () => string(6)],
  '"char"': [['', 'a', 'A', '\\377', '\\200'], () => pick(['z', '~', '\\201', '\\001'])],
  bytea: [['\\x', '\\x00', '\\xff', '\\x0000'], () => `\\x${hex(random(6))}`],
  uuid: [['00000000-0000-0000-0000-000000000000'], () => hex(16)],
  date: [['infinity', '-infinity', '4713-01-01 BC', '5874897-12-31', '2000-01-01', '1999-12-31'], day],
  time: [['00:00', '24:00'], time],
  timestamp: [['infinity', '-infinity', '4713-01-01 BC', '294276-12-31 23:59:59.999999'], () => `${day()} ${time()}`],
  timestamptz: [['infinity', '-infinity', '4713-01-02 BC', '294276-12-31'], () => `${day()} ${time()}+${random(12)}`],
};

const quote = (text: string): string => `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

for (const [type, [remarkable, more]] of Object.entries(TYPES)) {
  t.test(`sort keys of type ${type}`, async (t) => {
    const values: (string | null)[] = [...remarkable, ...remarkable, null, null, null];
    while (values.length < VALUES_PER_TYPE) values.push(more());
    const rows = values.map((value, place) => ({
      sql: `(${value === null ? 'null' : `${quote(value)}::${type}`}, ${place})`,
      shard: random(bench.shards.length),
    }));
    const collation = type === 'text' || type === 'varchar' ? 'collate "C"' : '';
    for (const [index, { query }] of bench.shards.entries()) {
      const own = rows.filter(({ shard }) => shard === index).map(({ sql }) => sql);
      await query(`drop table if exists part, whole; create table part (v ${type} ${collation}, place int);
        create table whole (like part); insert into part values ${own}; insert into whole values ${rows.map(({ sql }) => sql)}`);
    }
    for (const descending of [false, true]) {
      for (const nullsFirst of [false, true]) {
        const order = `v ${descending ? 'desc' : 'asc'} nulls ${nullsFirst ? 'first' : 'last'}, place desc`;
        const expected = await bench.shards[0]!.query(`select place::text as shown from whole order by ${order}`);
        const client = await bench.answer({
          text: `select place::text as shown, v, place from part order by ${order}`,
          sortKeys: [
            { descending, nullsFirst, needsByteOrder: true },
            { descending: true, nullsFirst: false, needsByteOrder: false },
          ],
        });
        t.same(client.error, null);
        t.same(client.values, expected, order);
      }
    }
  });
}
