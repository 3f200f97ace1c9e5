// What is remembered of names that clients give before they have logged in: no more than names that a role can have.
import t from 'tap';
import { systemClock } from '../../../src/base/clock.js';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { RoleSource } from '../../../src/frontend/door/role-source.js';

const { shards } = initialView([{ name: 's1', hashSlots: [[0, 16_383]], nodes: [{ host: '', port: 0 }] }], []);

t.test('an answer is kept for names that a role may have, and for no longer ones', async (t) => {
  const asked: string[] = [];
  const source = new RoleSource({
    shards: () => shards,
    ask: async (_, sql) => {
      asked.push(sql);
      return [];
    },
    query: '$1',
    cacheMs: 60_000,
    clock: systemClock,
  });
  for (const [length, times] of [
    [1, 1],
    [63, 1],
    [64, 2],
    [9_000, 2],
  ] as const) {
    asked.length = 0;
    for (let login = 0; login < 2; login++) {
      const [answer] = await source.lookUp('r'.repeat(length));
      t.equal(answer?.record, null, 'there is no such role');
    }
    t.equal(asked.length, times, `asked for a name of ${length}`);
  }
});
