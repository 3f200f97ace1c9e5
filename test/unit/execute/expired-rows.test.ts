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

const MEMBERS = 400_000;
const SIZES = [1, 4, 8, 64, 256];

t.test('few of them are run by themselves, whatever the size of batches', async (t) => {
  for (const share of [1 / 1_000, 1 / 200, 1 / 64, 1 / 24]) {
    for (const size of SIZES) {
      const { twice, reaped } = play(new ExpiredRows(), MEMBERS / size, size, share);
      t.equal(reaped, 0, `${share} in batches of ${size}`);
      t.ok(Math.abs(twice - MEMBERS * share) < size, `${share} in batches of ${size}: ${twice} ran twice`);
    }
  }
});

t.test('where many are met nearly all reap', async (t) => {
  for (const share of [1 / 4, 0.9, 1]) {
    for (const size of SIZES) {
      const { twice, reaped } = play(new ExpiredRows(), MEMBERS / size, size, share);
      t.ok(twice < MEMBERS / 100, `${share} in batches of ${size}: ${twice} ran twice`);
      t.ok(reaped > 0.95 * MEMBERS, `${share} in batches of ${size}: ${reaped} reaped`);
    }
  }
});

t.test('it is forgotten when none is met any more', async (t) => {
  const rows = new ExpiredRows();
  play(rows, 100_000, 8, 1);
  play(rows, 100_000, 8, 0);
  t.equal(play(rows, 10_000, 8, 0).reaped, 0);
  // As many as for the first time.
  play(rows, 2, 8, 1);
  t.equal(play(rows, 1_000, 8, 0).reaped, 256);
});
