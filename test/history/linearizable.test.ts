// The checker of histories on histories that are known to be good, or bad, and against a search without any cleverness.
import t from 'tap';
import { SeededRandom } from '../support/seeded-random.js';
import { linearize, type Operation } from './linearizable.js';

/** A register: writes set it, reads say what it holds. */
const write = (value: string, call: number, end: number): Operation => ({
  call,
  end,
  step: () => value,
  what: `write ${value}`,
});
const read = (value: string, call: number, end: number): Operation => ({
  call,
  end,
  step: (state) => (state === value ? state : null),
  what: `read ${value}`,
});
const swap = (from: string, to: string, call: number, end: number): Operation => ({
  call,
  end,
  step: (state) => (state === from ? to : null),
  what: `swap ${from} ${to}`,
});
const UNKNOWN = Number.POSITIVE_INFINITY;

const kindOf = (operations: readonly Operation[]): string => linearize('0', operations).kind;

const GOOD: Readonly<Record<string, readonly Operation[]>> = {
  'one after the other': [write('1', 0, 1), read('1', 2, 3), write('2', 4, 5), read('2', 6, 7)],
  'a read beside a write sees it or not': [write('1', 0, 10), read('0', 1, 2), read('1', 3, 4)],
  'writes beside each other in either order': [write('1', 0, 10), write('2', 0, 10), read('1', 11, 12)],
  'an unknown write that has happened': [write('1', 0, UNKNOWN), read('0', 1, 2), read('1', 3, 4), read('1', 5, 6)],
  'an unknown write that has not': [write('1', 0, UNKNOWN), read('0', 10, 11)],
  'an unknown write that comes late': [write('1', 0, UNKNOWN), write('2', 1, 2), read('2', 3, 4), read('1', 5, 6)],
  'a chain of swaps out of their order': [
    swap('1', '2', 0, 9),
    swap('2', '3', 0, 9),
    swap('0', '1', 0, 9),
    read('3', 10, 11),
  ],
  'nothing at all': [],
};

const BAD: Readonly<Record<string, readonly Operation[]>> = {
  'a write is lost': [write('1', 0, 1), read('0', 2, 3)],
  'a read goes back': [write('1', 0, 10), read('1', 1, 2), read('0', 3, 4)],
  'nobody wrote it': [write('1', 0, 1), read('7', 2, 3)],
  'a write happens twice': [write('1', 0, 1), write('2', 2, 3), read('2', 4, 5), read('1', 6, 7)],
  'an unknown write happens twice': [
    write('1', 0, UNKNOWN),
    read('1', 1, 2),
    write('2', 3, 4),
    read('2', 5, 6),
    read('1', 7, 8),
  ],
  'an unknown write before it was asked for': [read('1', 0, 1), write('1', 2, UNKNOWN)],
  'two swaps from one state': [swap('0', '1', 0, 9), swap('0', '2', 0, 9)],
  'a read of what is overwritten': [write('1', 0, 1), write('2', 2, 3), read('1', 4, 5)],
};

t.test('good histories have an order', async (t) => {
  for (const [name, operations] of Object.entries(GOOD)) t.equal(kindOf(operations), 'linearizable', name);
});

t.test('bad ones have none, and where they end shows', async (t) => {
  for (const [name, operations] of Object.entries(BAD)) {
    const { kind, order } = linearize('0', operations);
    t.equal(kind, 'impossible', name);
    t.ok(order.length < operations.length, name);
  }
});

t.test('what takes too long is undecided, not good', async (t) => {
  const many = Array.from({ length: 24 }, (_, n) => write(String(n), 0, 100));
  t.equal(linearize('0', [...many, read('none', 101, 102)], 10_000).kind, 'undecided');
});

/** Every order there is. */
function hasOrder(state: string, operations: readonly Operation[]): boolean {
  const known = operations.filter(({ end }) => end !== UNKNOWN);
  if (known.length === 0) return true;
  const firstEnd = Math.min(...known.map(({ end }) => end));
  return operations.some((operation) => {
    if (operation.call > firstEnd) return false;
    const next = operation.step(state);
    return (
      next !== null &&
      hasOrder(
        next,
        operations.filter((other) => other !== operation),
      )
    );
  });
}

t.test('agrees with a search of all orders on random histories', async (t) => {
  const seen = { good: 0, bad: 0 };
  for (let seed = 1; seed <= 3_000; seed++) {
    const random = new SeededRandom(seed);
    const operations = Array.from({ length: 1 + random.integer(6) }, () => {
      const call = random.integer(10);
      const end = call + 1 + random.integer(5);
      const value = String(random.integer(3));
      if (random.chance(0.45)) return read(value, call, end);
      const unknown = random.chance(0.25) ? UNKNOWN : end;
      return random.chance(0.3) ? swap(String(random.integer(3)), value, call, end) : write(value, call, unknown);
    });
    const expected = hasOrder('0', operations);
    if (expected) seen.good++;
    else seen.bad++;
    if ((kindOf(operations) === 'linearizable') !== expected) t.fail(`seed ${seed} is ${expected ? 'good' : 'bad'}`);
  }
  t.ok(seen.good > 300 && seen.bad > 300, JSON.stringify(seen));
});

t.test('what an atomic object has answered is always good, however long', async (t) => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = new SeededRandom(seed);
    let state = '0';
    const operations: Operation[] = [];
    for (let at = 10; at < 90; at++) {
      const call = at - random.integer(10);
      const end = at + 0.5 + random.integer(10);
      if (random.chance(0.5)) operations.push(read(state, call, end));
      else {
        state = String(at);
        operations.push(write(state, call, random.chance(0.05) ? UNKNOWN : end));
      }
    }
    if (kindOf(operations) !== 'linearizable') t.fail(`seed ${seed}`);
  }
  t.pass('all of them');
});
