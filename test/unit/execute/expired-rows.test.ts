// When INSERTs go back from hoping that nothing expired stands in their way to reaping it, and for how long.
import t from 'tap';
import { ExpiredRows } from '../../../src/execute/merged/expired-rows.js';

/** Plays batches of one size, of whose members a share has met an expired row. @returns members that ran twice, and that reaped */
function play(rows: ExpiredRows, batches: number, size: number, share: number): { twice: number; reaped: number } {
  let [twice, reaped, due] = [0, 0, 0];
  for (let batch = 0; batch < batches; batch++) {
    due += size * share;
    const absent = Math.floor(due);
    due -= absent;
    if (rows.takeReaping(size)) reaped += size;
    else {
      rows.met(absent, size);
      twice += absent;
    }
  }
  return { twice, reaped };
}

t.test('few of them are run by themselves', async (t) => {
  for (const size of [64, 256]) {
    t.same(play(new ExpiredRows(), 1_000, size, 1 / 32), { twice: (1_000 * size) / 32, reaped: 0 }, `${size}`);
  }
});

t.test('where most are met nearly all reap, whatever the size of batches', async (t) => {
  for (const size of [1, 2, 8, 64, 256]) {
    const members = 1_000_000;
    const { twice, reaped } = play(new ExpiredRows(), members / size, size, 0.9);
    t.ok(twice < members / 100, `${size}: ${twice} ran twice`);
    t.ok(reaped > 0.95 * members, `${size}: ${reaped} reaped`);
  }
});

t.test('one of many who come alone costs few others anything', async (t) => {
  const members = 1_000_000;
  const { twice, reaped } = play(new ExpiredRows(), members, 1, 1 / 1_000);
  t.ok(twice < members / 900, `${twice} ran twice`);
  t.ok(reaped < members / 3, `${reaped} reaped`);
});

t.test('it is forgotten when none is met any more', async (t) => {
  const rows = new ExpiredRows();
  play(rows, 100_000, 8, 1);
  play(rows, 100_000, 8, 0);
  t.equal(play(rows, 10_000, 8, 0).reaped, 0);
  t.same(play(rows, 1, 8, 1).twice, 8, 'and the next to be met are met as for the first time');
  t.ok(play(rows, 256 / 8, 8, 0).reaped === 256);
});
