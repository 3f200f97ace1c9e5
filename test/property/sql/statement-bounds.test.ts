// Hostile and big-but-honest texts of every kind, from hundreds of parts to megabytes: reading one never throws, grows no faster
// than its length, costs at most some tens of milliseconds for each megabyte, and leaves the parser to other clients' new
// statements. Costs are CPU time, and limits are multiples of what lexing an ordinary megabyte takes here and now.
import t from 'tap';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { tableScope } from '../../../src/cluster/table-scope.js';
import { evenSlotRanges } from '../../../src/config/slot-ranges.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { TemplateCache } from '../../../src/sql/template-cache.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';

await loadParser();

const view = initialView(
  evenSlotRanges(3).map((range, index) => ({ name: `s${index}`, hashSlots: [range], nodes: [{ host: '', port: 1 }] })),
  [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
);
const scope = tableScope(view, null);

const list = (count: number, item: (index: number) => string, by = ', '): string =>
  Array.from({ length: count }, (_, index) => item(index)).join(by);
const nest = (n: number, open: string, close: string, core: string): string => open.repeat(n) + core + close.repeat(n);

/** Texts of `n` parts on a table. */
const KINDS: Readonly<Record<string, (n: number, table: string) => string>> = {
  'target list': (n, table) => `select ${list(n, () => 'count(*)')} from ${table}`,
  'different columns': (n, table) => `select ${list(n, (i) => `a${i}`)} from ${table}`,
  'list of literals': (n, table) =>
    `select 1 from ${table} where tenant_id = 't' and key in (${list(n, (i) => `'k${i}'`)})`,
  'list of parameters': (n, table) =>
    `select 1 from ${table} where tenant_id = $1 and key in (${list(n, (i) => `$${i + 2}`)})`,
  rows: (n, table) => `insert into ${table} (tenant_id, key, value) values ${list(n, (i) => `('t', 'k${i}', '{}')`)}`,
  parentheses: (n, table) => `select ${nest(n, '(', ')', '1')} from ${table}`,
  'open parentheses': (n, table) => `select 1 from ${table} where ${'('.repeat(n)}`,
  operators: (n, table) => `select ${list(n, () => '1', '+')} from ${table}`,
  conditions: (n, table) => `select 1 from ${table} where ${list(n, (i) => `value = ${i}`, ' and ')}`,
  'derived tables': (n, table) => `select * from ${nest(n, '(select * from ', ') a', table)}`,
  subqueries: (n, table) => `select ${nest(n, '(select ', ')', '1')} from ${table}`,
  case: (n, table) => `select ${nest(n, 'case when true then ', ' end', '1')} from ${table}`,
  arrays: (n, table) => `select ${nest(n, 'array[', ']', '1')} from ${table}`,
  calls: (n, table) => `select ${nest(n, 'abs(', ')', '1')} from ${table}`,
  not: (n, table) => `select 1 from ${table} where ${'not '.repeat(n)} true`,
  casts: (n, table) => `select 1${'::int'.repeat(n)} from ${table}`,
  statements: (n, table) => list(n, () => `select * from ${table}`, ';'),
  'statements on keys': (n, table) =>
    list(n, (i) => `insert into ${table} (tenant_id, key, value) values ('t', 'k', '${i}')`, ';\n'),
  'unlike statements on keys': (n, table) =>
    list(n, (i) => `select value as a${i} from ${table} where tenant_id = 't' and key = 'k${i}'`, ';'),
  'calls on keys': (n, table) => list(n, (i) => `select ${table}_put('t', 'k', '${i}')`, ';'),
  'mixed statements': (n, table) =>
    list(
      n,
      (i) => [`select value from ${table} where tenant_id = 't' and key = 'k'`, 'select 1', 'show timezone'][i % 3]!,
      ';',
    ),
  executes: (n, table) => `${list(n, (i) => `execute a${i}`, ';')}; select 1 from ${table}`,
  'sort keys': (n, table) => `select key from ${table} order by ${list(n, () => 'key')}`,
  instants: (n, table) => `select ${list(n, () => 'now()')} from ${table}`,
  'hexadecimal digits': (n, table) => `select 0x${'1f'.repeat(n * 5)} from ${table}`,
  'digits of a parameter': (n, table) => `select $${'1'.repeat(n * 10)} from ${table}`,
  'strings that go on': (n, table) => `select ${"'a'\n".repeat(n)} from ${table}`,
  union: (n, table) => list(n, () => `select 1 from ${table}`, ' union all '),
  with: (n, table) => `with ${list(n, (i) => `a${i} as (select 1 from ${table})`)} select 1`,
  joins: (n, table) => `select 1 from ${table} ${list(n, (i) => `cross join ${table} a${i}`, ' ')}`,
  signs: (n, table) => `select 1 ${'+'.repeat(n * 3)} 1 from ${table}`,
  'other signs': (n, table) => `select 1 ${'@+'.repeat(n)} 1 from ${table}`,
  minus: (n, table) => `select ${'- '.repeat(n)} 1 from ${table}`,
  'long string': (n, table) => `select '${'x'.repeat(n * 10)}' from ${table}`,
  'several bytes': (n, table) => `select '${'é€𝄞'.repeat(n * 3)}', ${list(n, (i) => `"é${i}"`)} from ${table}`,
  'long comment': (n, table) => `select 1 /*${'x'.repeat(n * 10)}*/ from ${table}`,
  comments: (n, table) => `select 1 ${'/**/ '.repeat(n)} from ${table}`,
  'nested comments': (n, table) => `select 1 ${nest(n, '/*', '*/', '')} from ${table}`,
  'open comments': (n, table) => `select 1 from ${table} ${'/*'.repeat(n)}`,
  dollar: (n, table) => `select $a$${'x $b$ '.repeat(n)}$a$ from ${table}`,
  'open dollars': (n, table) => `select 1 from ${table} where ${list(n, (i) => `$a${i}$`, ' ')}`,
  'long name': (n, table) => `select "${'x'.repeat(n * 10)}" from ${table}`,
  'escaped names': (n, table) => `select ${'u&"" '.repeat(n)} from ${table}`,
  'escaped names and a backslash': (n, table) => `select ${'u&"a" '.repeat(n)} '\\' from ${table}`,
  blanks: (n, table) => `select 1 ${' '.repeat(n * 10)} from ${table}`,
  'drop owned': (n, table) => `select 1 from ${table} ${`drop${' '.repeat(20)}x owned `.repeat(n / 4)}`,
  'the name in names': (n, table) => `select ${list(n, () => 'xkvx')} from ${table}`,
};

/** As they come off a socket: flat. */
const textOf = (kind: string, n: number, table: string): string => Buffer.from(KINDS[kind]!(n, table)).toString('utf8');

function cpuMs(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** CPU time of reading a text for the first time; once more where it is over the limit, since others may have been at work. */
function costOf(text: string, limit: number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 2 && least > limit; round++) {
    const cache = new TemplateCache({ bytesMax: 2 ** 26 });
    least = Math.min(
      least,
      cpuMs(() => cache.get(text, true, scope)),
    );
  }
  return least;
}

const megabyte = Buffer.from(list(100_000, (i) => `word${i % 10}`, ' '))
  .toString()
  .slice(0, 2 ** 20);
let newShapes = 0;
const isLong = process.env['PGKV_LONG'] !== undefined;

t.test('it is read in bounded time, and others go on', async (t) => {
  for (let round = 0; round < 5; round++) lexShape(megabyte, true);
  const unit = Math.min(...Array.from({ length: 5 }, () => cpuMs(() => lexShape(megabyte, true))));
  t.comment(`a megabyte is lexed in ${unit.toFixed(1)} ms`);
  // Code that has never run costs more once.
  for (let round = 0; round < 3; round++) {
    for (const kind of Object.keys(KINDS)) costOf(textOf(kind, 500, 'kv'), 0);
  }
  for (const kind of Object.keys(KINDS)) {
    for (const table of ['kv', 'other']) {
      await loadParser();
      const costs: string[] = [];
      // What is not on a key-value table differs only in what is not read at all.
      for (const n of table === 'kv' || isLong ? [100, 2_000, 5_000, 8_000, 30_000, 400_000] : [5_000, 400_000]) {
        const text = textOf(kind, n, table);
        // What is read in full is bounded by its tokens, the rest by its bytes.
        const limit = 40 * unit + 8 * unit * (text.length / 2 ** 20) + 20;
        const cost = costOf(text, limit);
        costs.push(`${n}: ${cost.toFixed(0)}`);
        if (cost > limit) t.fail(`${kind} on ${table}, ${n} parts: ${cost.toFixed(0)} ms, at most ${limit.toFixed(0)}`);
        // A statement nobody has sent yet, which must find a parser.
        const { kv } = new TemplateCache({ bytesMax: 2 ** 20 }).get(
          `select value as c${newShapes++} from kv where tenant_id = $1 and key = $2`,
          true,
          scope,
        );
        if (kv?.kind !== 'kv') t.fail(`${kind} on ${table}, ${n} parts: another client's statement is not read`);
      }
      t.comment(`${kind} on ${table}: ${costs.join(', ')} ms`);
    }
  }
  t.pass('all kinds were read');
});
