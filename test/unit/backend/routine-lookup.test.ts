// How a look-up of routines fares where the server is not there to answer it: whose fault it is decides how long the worst is
// assumed of all code, which costs sessions their pooling.
import t from 'tap';
import { PoolGroup } from '../../../src/backend/pool/pool-group.js';
import { RoutineLookup } from '../../../src/backend/pool/routine-lookup.js';
import { StatementRefused } from '../../../src/backend/pool/service-query.js';
import { PgkvError } from '../../../src/base/errors.js';
import { QuietClock } from '../../support/quiet-clock.js';

type Answer = PgkvError | (string | null)[][];

const lost = (): PgkvError => new PgkvError('server_unreachable', { detail: 'the connection broke' });
const unreachable = (): PgkvError => new PgkvError('server_unreachable', { detail: 'no login', cause: lost() });
const refused = (): PgkvError =>
  new PgkvError('server_unreachable', { detail: 'no', cause: new StatementRefused('42501', 'no') });
const stopping = (): PgkvError =>
  new PgkvError('server_unreachable', { detail: 'no', cause: new PgkvError('shutting_down') });

/** Looks up with a server that answers questions like this, then with a fingerprint and no routines. */
async function lookUp(answers: (() => Answer)[]) {
  const clock = new QuietClock();
  let asked = 0;
  const control = async (): Promise<(string | null)[][]> => {
    asked++;
    const answer = answers.shift()?.() ?? [['b', '']];
    if (answer instanceof PgkvError) throw answer;
    return answer;
  };
  const lookup = new RoutineLookup(clock, control, () => 1);
  const group = new PoolGroup('key', 'u', new Map([['user', 'u']]), { kind: 'none' });
  let isKnown = lookup.ensure(group, () => {
    isKnown = true;
  });
  await clock.runUntil(() => isKnown);
  return { routines: group.routines!, asked, ms: clock.now(), pending: clock.pending };
}

t.test('one whose connection broke is tried again, and nothing is assumed meanwhile', async (t) => {
  for (const failure of [lost, unreachable]) {
    const { routines, ms, pending } = await lookUp(Array.from({ length: 6 }, () => failure));
    t.notOk(routines.writesLeaveState || routines.makesUpUnseen, 'known');
    t.ok(ms > 0 && ms < 1_000, `${ms} ms`);
    t.equal(pending, 0, 'nobody is patient any longer');
  }
});

t.test('a server that stays away: the worst is assumed when patience is over, and it is asked no more', async (t) => {
  const { routines, asked, ms } = await lookUp(Array.from({ length: 1_000 }, () => lost));
  t.ok(routines.writesLeaveState && routines.makesUpUnseen, 'assumed');
  t.equal(ms, 2_000);
  t.ok(asked < 100, `${asked} questions`);
});

t.test('one that was refused, or that nobody may ask any more, is not tried again at once', async (t) => {
  for (const failure of [refused, stopping]) {
    const { routines, asked, ms } = await lookUp([failure, failure]);
    t.ok(routines.writesLeaveState, 'assumed');
    t.same({ asked, ms }, { asked: 1, ms: 0 });
  }
});

/** A session has assumed the worst, holds its connection, and nobody else asks. */
function assuming(answers: (() => Answer)[]) {
  const clock = new QuietClock();
  let asked = 0;
  const control = async (): Promise<(string | null)[][]> => {
    asked++;
    const answer = answers.shift()?.() ?? [['b', '']];
    if (answer instanceof PgkvError) throw answer;
    return answer;
  };
  const lookup = new RoutineLookup(clock, control, () => 1);
  const group = new PoolGroup('key', 'u', new Map([['user', 'u']]), { kind: 'none' });
  return { clock, lookup, group, asked: () => asked };
}

t.test('what was assumed is told to be known as soon as the server answers, though nobody asks for it', async (t) => {
  for (const failures of [1, 2, 7]) {
    const { clock, lookup, group, asked } = assuming(Array.from({ length: failures }, () => refused));
    let isGoodToGo = lookup.ensure(group, () => {
      isGoodToGo = true;
    });
    await clock.runUntil(() => isGoodToGo);
    t.ok(group.routines!.isAssumed && group.routines!.epoch !== 1, 'it is asked again before each lease');
    let known = 0;
    for (let session = 0; session < 3; session++) {
      lookup.whenKnown(group, (read) => {
        // Whatever has gone through since it was asked for, this is what is judged by.
        group.routines = null;
        if (!read.isAssumed && read.epoch === 1) known++;
      });
    }
    await clock.runUntil(() => known > 0);
    t.equal(known, 3);
    t.equal(clock.now(), failures * 1_000);
    t.equal(clock.pending, 0);
    t.ok(asked() <= failures + 3, `${asked()} questions`);
  }
});

t.test('nobody is left who assumed something: the server is asked no more', async (t) => {
  const { clock, lookup, group, asked } = assuming(Array.from({ length: 100 }, () => refused));
  let isGoodToGo = lookup.ensure(group, () => {
    isGoodToGo = true;
  });
  await clock.runUntil(() => isGoodToGo);
  const callOff = [1, 2].map(() => lookup.whenKnown(group, () => t.fail('called off')));
  await clock.runUntil(() => asked() === 4);
  for (const off of callOff) off();
  t.equal(clock.pending, 0);
});

t.test('a database that nobody uses any more is forgotten, and read anew for whoever comes back', async (t) => {
  const names = Array.from({ length: 50 }, (_, index) => `d${index}`);
  const { clock, lookup, asked } = assuming([]);
  const groups = names.map(
    (database) =>
      new PoolGroup(
        database,
        'u',
        new Map([
          ['user', 'u'],
          ['database', database],
        ]),
        { kind: 'none' },
      ),
  );
  const know = async (group: PoolGroup): Promise<number> => {
    const before = asked();
    let isKnown = lookup.ensure(group, () => {
      isKnown = true;
    });
    await clock.runUntil(() => isKnown);
    return asked() - before;
  };
  for (const group of groups) t.ok((await know(group)) > 0);
  lookup.keep(new Set(names));
  for (const group of groups) t.equal(await know(group), 0, 'still known');
  lookup.keep(new Set(['d7']));
  for (const group of groups) t.equal((await know(group)) === 0, group.database === 'd7', group.database);
  // Not while somebody waits for it.
  lookup.keep(new Set());
  let isKnown = lookup.ensure(groups[0]!, () => {
    isKnown = true;
  });
  lookup.keep(new Set());
  await clock.runUntil(() => isKnown);
  t.equal(await know(groups[0]!), 0);
});
