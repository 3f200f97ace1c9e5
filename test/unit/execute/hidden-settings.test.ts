// What a session ran before the routines of its database were known is judged, when they are, as if they had been all along.
import t from 'tap';
import { type Routines, readRoutines } from '../../../src/backend/pool/routines.js';
import { HiddenSettings } from '../../../src/execute/leased/hidden-settings.js';
import { SeededRandom } from '../../support/seeded-random.js';

const EPOCH = 4;

/** Routines as they are read, from rows of the look-up's answer. */
function routines(rows: readonly (readonly [string, string])[], epoch = EPOCH): Routines {
  let read: Routines | null = null;
  const query = readRoutines(epoch, (found) => {
    read = found;
  });
  for (const row of rows) query.row([...row]);
  query.ready();
  return read!;
}

const ASSUMED: Routines = { ...routines([], -1), isAssumed: true, makesUpUnseen: true, writesLeaveState: true };
const PIECES = [
  'make',
  'up',
  '_',
  '$1',
  ' ',
  '.',
  '(',
  "'",
  'SELECT ',
  'É',
  '7',
  'MAKER',
  'SET a.b = 1; ',
  'DO $$ ',
  '$$',
];

t.test('judged anew, it comes out as it would have at once', async (t) => {
  const counts = { none: 0, assumed: 0, proven: 0 };
  for (let seed = 0; seed < 3_000; seed++) {
    const random = new SeededRandom(seed);
    const word = (): string => Array.from({ length: random.between(1, 4) }, () => random.pick(PIECES)).join('');
    const makers = random.some(['make', 'up', 'makeup', 'maker_$1', '7', 'x9'], random.integer(3));
    const known = routines([
      ...makers.map((name) => ['d', name] as const),
      ...(random.oneIn(10) ? ([['t', 'm']] as const) : []),
    ]);
    const [atOnce, later] = [new HiddenSettings(), new HiddenSettings()];
    for (let statement = random.between(1, 4); statement > 0; statement--) {
      const text = word();
      atOnce.note(text, known, EPOCH);
      later.note(text, ASSUMED, EPOCH);
    }
    t.not(later.kind, 'none');
    later.judge(known);
    counts[later.kind]++;
    if (later.kind !== atOnce.kind) t.fail(`PGKV_SEED=${seed}: ${later.kind} instead of ${atOnce.kind}`);
  }
  t.ok(counts.none > 100 && counts.proven > 100, JSON.stringify(counts));
});

t.test(
  'routines that were read before later DDL tell nothing of what ran, and words beyond the bound are not judged',
  async (t) => {
    const hidden = new HiddenSettings();
    hidden.note('SELECT 1', ASSUMED, EPOCH);
    t.notOk(hidden.judge(routines([], EPOCH - 1)));
    t.notOk(hidden.judge(ASSUMED));
    t.equal(hidden.kind, 'assumed');
    hidden.note('SELECT 2', ASSUMED, EPOCH + 1);
    t.notOk(hidden.judge(routines([])), 'what ran last decides');
    t.ok(hidden.judge(routines([], EPOCH + 2)));
    t.equal(hidden.kind, 'none');
    for (let n = 0; n < 20_000; n++) hidden.note(`INSERT INTO kv VALUES (${n})`, ASSUMED, EPOCH);
    t.equal(hidden.kind, 'proven');
    t.notOk(hidden.judge(routines([])), 'nothing was assumed any more');
    t.equal(hidden.kind, 'proven');
  },
);
