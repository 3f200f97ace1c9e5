// A look at the locks of all shards (R66) waits for none that hangs.
import t from 'tap';
import { LOOK_MS, LockLooks } from '../../../src/main/lock-looks.js';
import { QuietClock } from '../../support/quiet-clock.js';

const ROWS = [
  ['1', 'mark', '5'],
  ['2', '3.5', '1 7'],
];

t.test('a server that hangs shows nothing, and is not asked again before it has answered', async (t) => {
  const clock = new QuietClock();
  const asked: string[] = [];
  let answer: (() => void) | null = null;
  const looks = new LockLooks({
    clock,
    shardNames: () => ['a', 'b', 'c'],
    ask: (name) => {
      asked.push(name);
      if (name === 'c') return Promise.reject(new Error('no'));
      if (name === 'a' || asked.filter((one) => one === 'b').length > 1) return Promise.resolve(ROWS);
      return new Promise((resolve) => {
        answer = () => resolve(ROWS);
      });
    },
  });
  const look = async () => {
    const since = clock.now();
    let shown: readonly { readonly shardName: string }[] | null = null;
    void looks.look().then((found) => {
      shown = found;
    });
    await clock.runUntil(() => shown !== null);
    return { names: shown!.map(({ shardName }) => shardName), ms: clock.now() - since };
  };
  t.strictSame(await look(), { names: ['a'], ms: LOOK_MS });
  t.strictSame(await look(), { names: ['a'], ms: 0 });
  t.strictSame(asked, ['a', 'b', 'c', 'a', 'c']);
  answer!();
  t.strictSame(await look(), { names: ['a'], ms: 0 }, 'the answer is being read');
  t.strictSame(await look(), { names: ['a', 'b'], ms: 0 });
  t.match(await looks.look(), [
    { shardName: 'a', marks: [{ pid: 1, mark: '5' }], waits: [{ pid: 2, since: '3.5', blockers: [1, 7] }] },
    { shardName: 'b' },
  ]);
  t.equal(clock.pending, 0);
});
