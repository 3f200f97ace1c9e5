// Queues of one statement, one for each settings group: they are found again, and those that nobody is in do not pile up.
import t from 'tap';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { MERGED_LIMITS, MergedLane } from '../../../src/execute/merged/merged-lane.js';
import type { MergedRequest, RequestQueue } from '../../../src/execute/merged/merged-request.js';
import { MergedStatement } from '../../../src/execute/merged/merged-statement.js';

const KEPT = 16;

t.test('queues that nobody is in are dropped when there are many', async (t) => {
  const registry = new SettingsRegistry();
  // Nothing is ever sent: what is offered waits.
  const options = { limits: MERGED_LIMITS, later: () => undefined, share: null };
  const lane = new MergedLane(options as unknown as ConstructorParameters<typeof MergedLane>[0]);
  const statement = new MergedStatement();
  statement.form = { plan: { writes: false } } as unknown as MergedStatement['form'];
  const queue = (zone: number): RequestQueue =>
    lane.queue(statement, 0, registry.intern(new Map([['timezone', `zone ${zone}`]])));
  const busy = queue(3);
  busy.offer({} as MergedRequest);
  const first = queue(0);
  t.equal(queue(0), first);
  for (let zone = 0; zone < 10 * KEPT; zone++) {
    t.equal(queue(zone), queue(zone), 'it is found again');
    const { size } = statement.queues[0];
    t.ok(size <= KEPT + 1, `${size} queues`);
  }
  t.equal(queue(3), busy, 'somebody is in it');
  t.not(queue(0), first, 'made anew');
});
