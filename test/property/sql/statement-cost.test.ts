// What reading and routing a statement costs grows with its length and no faster, whatever it is made of, and ends at a bound:
// one login must not hold up all others (D30). Growth is asserted, not milliseconds.
import t from 'tap';
import { refusalError } from '../../../src/base/refusals.js';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { loadKeyHash } from '../../../src/cluster/key-hash.js';
import { tableScope } from '../../../src/cluster/table-scope.js';
import { evenSlotRanges } from '../../../src/config/slot-ranges.js';
import { StatementValues } from '../../../src/route/key-values.js';
import { route } from '../../../src/route/route.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { TemplateCache } from '../../../src/sql/template-cache.js';
import { highestParameter } from '../../../src/sql/text/text-parts.js';
import { encode } from '../../support/frontend-message.js';
import { literalsOf } from '../../unit/route/bind-values.js';

await loadParser();
await loadKeyHash();

const view = initialView(
  evenSlotRanges(3).map((range, index) => ({ name: `s${index}`, hashSlots: [range], nodes: [{ host: '', port: 1 }] })),
  [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
);
const scope = tableScope(view, null);

const list = (count: number, item: (index: number) => string, by = ', '): string =>
  Array.from({ length: count }, (_, index) => item(index)).join(by);
const one = "tenant_id = 't' and key = 'k'";

/** Texts of `n` parts each. */
const CONSTRUCTS: Readonly<Record<string, (n: number) => string>> = {
  aggregates: (n) => `select ${list(n, () => 'count(*)')} from kv`,
  'different aggregates': (n) => `select ${list(n, (i) => `sum(version + ${i})`)} from kv`,
  columns: (n) => `select ${list(n, () => 'key')} from kv where ${one}`,
  'named columns': (n) => `select ${list(n, (i) => `kv.key as c${i}`)} from kv`,
  statements: (n) => list(n / 4, () => `select value from kv where ${one}`, ';'),
  'keys as literals': (n) => `select key from kv where tenant_id = 't' and key in (${list(n, (i) => `'k${i}'`)})`,
  'keys as parameters': (n) => `select key from kv where tenant_id = $1 and key in (${list(n, (i) => `$${i + 2}`)})`,
  'an array of keys': (n) =>
    `select key from kv where tenant_id = 't' and key = any(array[${list(n, (i) => `'k${i}'`)}])`,
  'rows as literals': (n) =>
    `insert into kv (tenant_id, key, value) values ${list(n / 4, (i) => `('t', '{a}${i}', '1')`)}`,
  'rows with slots': (n) =>
    `insert into kv (tenant_id, key, value, slot) values ${list(n / 4, (i) => `('t', '{a}${i}', '1', null)`)}`,
  'rows as parameters': (n) =>
    `insert into kv (tenant_id, key, value) values ${list(n / 4, (i) => `($${3 * i + 1}, $${3 * i + 2}, $${3 * i + 3})`)}
     on conflict (tenant_id, key) do update set value = excluded.value`,
  pairs: (n) => `select key from kv where (tenant_id, key) in (${list(n / 2, (i) => `('t', 'k${i}')`)})`,
  or: (n) => `select key from kv where tenant_id = 't' and (${list(n / 2, (i) => `key = 'k${i}'`, ' or ')})`,
  and: (n) => `select key from kv where ${one} and ${list(n / 2, (i) => `version > ${i}`, ' and ')}`,
  'order by': (n) => `select key from kv order by ${list(n, () => 'key')}`,
  'group by': (n) => `select count(*) from kv group by ${list(n, () => 'key')}`,
  arguments: (n) => `select coalesce(${list(n, () => 'key')}) from kv`,
  comments: (n) => `select key ${list(n, () => '/* c */', ' ')} from kv where ${one}`,
  case: (n) => `select case ${list(n / 4, () => 'when true then 1', ' ')} end from kv where ${one}`,
  assignments: (n) => `update kv set ${list(n / 4, () => `value = '1'`)} where ${one}`,
  'a long literal': (n) => `select '${'x'.repeat(n * 100)}' from kv where ${one}`,
  'other tables': (n) => `select ${list(n, () => 'count(*)')} from other`,
};

function costOf(text: string): number {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 3; round++) {
    const cache = new TemplateCache({ bytesMax: 2 ** 26 });
    const before = process.cpuUsage();
    const { kv } = cache.get(text, true, scope);
    if (kv?.kind === 'kv') {
      const count = highestParameter(kv.text);
      const bind = count === 0 ? null : bindOf(count);
      route(kv, new StatementValues(text, literalsOf(text), bind), view);
    }
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

function bindOf(count: number) {
  const buffer = encode({ bind: Array.from({ length: count }, (_, index) => `k${index}`) });
  return { buffer, offset: 7, end: buffer.length, types: [] };
}

t.test('it grows as the length does', async (t) => {
  for (const [name, make] of Object.entries(CONSTRUCTS)) {
    costOf(make(400));
    const small = costOf(make(1000));
    const large = costOf(make(4000));
    t.comment(`${name}: ${small.toFixed(1)} ms, four times as long ${large.toFixed(1)} ms`);
    // Quadratic growth would be 16 times, from where it shows.
    t.ok(large <= 9 * Math.max(small, 4), `${name}: ${small.toFixed(1)} to ${large.toFixed(1)} ms`);
  }
});

t.test('it ends at a bound, which is told', async (t) => {
  const cache = new TemplateCache({ bytesMax: 2 ** 20, tokensMax: 2000 });
  for (const [name, make] of Object.entries(CONSTRUCTS)) {
    const { kv, kind } = cache.get(make(20_000), true, scope);
    if (name === 'other tables') t.equal(kv, null, 'what concerns no key-value table is passed on');
    else if (name === 'comments') t.not(kv, null);
    else if (name === 'a long literal') t.equal(kv?.kind, 'kv', 'a literal is one token');
    else {
      t.equal(kv?.kind, 'refused', `${name} ${kind}`);
      if (kv?.kind !== 'refused') continue;
      const { sqlstate, message } = refusalError(kv);
      t.equal(sqlstate, '54000', name);
      t.match(message, /more than 2000 tokens \(limits\.statement_tokens\)/);
    }
  }
  t.equal(cache.entries <= 2, true, 'nothing of them is kept');
});

t.test('a text of many megabytes is given up soon, not held in pieces', async (t) => {
  const cache = new TemplateCache({ bytesMax: 2 ** 26 });
  const before = process.memoryUsage().heapUsed;
  for (const piece of ['1,', "'a',", ' ;', '  x', '/**/a ', '(']) {
    const text = `select * from kv where ${piece.repeat(8 * 2 ** 20)}`;
    const { kv } = cache.get(text, true, scope);
    t.equal(kv?.kind, 'refused', piece);
  }
  t.ok(process.memoryUsage().heapUsed - before < 600 * 2 ** 20);
});
