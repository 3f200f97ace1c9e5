// Lanes that are let go of: whatever goes wrong meanwhile, messages are taken again behind it.
import t from 'tap';
import { RestingLanes } from '../../../src/frontend/exchanges/resting-lanes.js';

type Context = ConstructorParameters<typeof RestingLanes>[0];

t.test('what throws lets go of the conversation all the same', async (t) => {
  let resumed = 0;
  const lanes = new RestingLanes({ lent: {} as Context['lent'], resume: () => resumed++ });
  t.throws(() =>
    lanes.undisturbed(() => {
      t.ok(lanes.busy);
      throw new Error('the lane is none of the session');
    }),
  );
  t.notOk(lanes.busy);
  lanes.undisturbed(() => undefined);
  t.equal(resumed, 1);
});
