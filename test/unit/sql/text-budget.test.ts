// One bound for several caches: what they hold is counted as it is, once where it is shared, and the oldest go.
import t from 'tap';
import { stringBytes, TextBudget, type Weight } from '../../../src/sql/text-budget.js';
import { SeededRandom } from '../../support/seeded-random.js';

interface Entry {
  readonly own: number;
  readonly part: { readonly bytes: number };
}

const weigh = ({ own, part }: Entry): Weight => ({ own, shared: part, sharedBytes: part.bytes });
const entry = (own: number, part: Entry['part'] = { bytes: 100 }): Entry => ({ own, part });

t.test('what is shared is counted once, as long as one has it', async (t) => {
  const budget = new TextBudget(1_000_000);
  const one = budget.cache(1, weigh);
  const other = budget.cache(1, weigh);
  const part = { bytes: 10_000 };
  one.set('a', entry(0, part));
  const alone = budget.bytes;
  other.set('b', entry(0, part));
  t.ok(budget.bytes - alone < 200, 'an entry more');
  one.evict();
  t.ok(budget.bytes > 10_000, 'the other one still has it');
  other.evict();
  t.equal(budget.bytes, 0);
});

t.test('the least recently used go first, of the cache that has most of its share', async (t) => {
  const budget = new TextBudget(100_000);
  const small = budget.cache(1, weigh);
  const large = budget.cache(9, weigh);
  small.set('small', entry(1000));
  for (let n = 0; n < 60; n++) {
    large.set(`large ${n}`, entry(2000));
    large.get('large 0');
  }
  t.ok(small.get('small') !== undefined);
  t.ok(large.get('large 0') !== undefined, 'was used all the time');
  t.equal(large.get('large 1'), undefined);
  t.ok(large.get('large 59') !== undefined);
  t.ok(budget.bytes <= 100_000 && budget.bytes > 80_000, `${budget.bytes} bytes`);
});

t.test('what is too large is not kept, and pushes nobody out', async (t) => {
  const budget = new TextBudget(100_000);
  const cache = budget.cache(1, weigh);
  cache.set('a', entry(1000));
  cache.set('x'.repeat(40_000), entry(0));
  cache.set('b', entry(40_000));
  cache.set('c', entry(0, { bytes: 40_000 }));
  t.equal(cache.size, 1);
});

t.test('what grows later counts as well, and no longer when it has gone', async (t) => {
  const budget = new TextBudget(100_000);
  const cache = budget.cache(1, weigh);
  const part = { bytes: 100 };
  cache.set('a', entry(0, part));
  budget.grew(part, 20_000);
  budget.grew({}, 20_000);
  t.ok(budget.bytes > 20_000 && budget.bytes < 21_000);
  budget.grew(part, 100_000);
  t.equal(cache.size, 0, 'it had to go');
  t.equal(budget.bytes, 0);
});

t.test('who wants to know hears once that they fill up', async (t) => {
  let heard = 0;
  const budget = new TextBudget(100_000, () => heard++);
  const cache = budget.cache(1, weigh);
  for (let n = 0; n < 10; n++) cache.set(`${n}`, entry(1000));
  t.equal(heard, 0);
  for (let n = 0; n < 200; n++) cache.set(`more ${n}`, entry(1000));
  t.equal(heard, 1);
});

t.test('whatever is done, the bytes are those of the entries', async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new SeededRandom(seed);
    const budget = new TextBudget(20_000);
    const caches = [budget.cache(1, weigh), budget.cache(2, weigh), budget.cache(5, weigh)];
    const parts = Array.from({ length: 12 }, () => ({ bytes: random.between(0, 900) }));
    for (let step = 0; step < 400; step++) {
      const cache = random.pick(caches);
      const key = `key ${random.between(0, 30)}`;
      const what = random.between(0, 9);
      if (what < 6) cache.set(key, entry(random.between(0, 600), random.pick(parts)));
      else if (what < 9) cache.get(key);
      else cache.evict();
      if (budget.bytes > 20_000) return t.fail(`seed ${seed}: ${budget.bytes} bytes`);
    }
    while (caches.some(({ size }) => size > 0)) for (const cache of caches) if (cache.size > 0) cache.evict();
    if (budget.bytes !== 0) return t.fail(`seed ${seed}: ${budget.bytes} bytes are left of nothing`);
  }
  t.pass();
});

t.test('strings weigh what V8 takes for them', async (t) => {
  t.equal(stringBytes('abc'), 19);
  t.equal(stringBytes('ÿé'), 18);
  t.equal(stringBytes('abc→'), 24);
});
