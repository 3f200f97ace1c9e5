// Shares of a pool, held against what they promise in random orders of requests, returns and lost connections.
import t from 'tap';
import type { ServerConnection } from '../../../src/backend/connection/server-connection.js';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { type LeaseRequest, PoolGroup } from '../../../src/backend/pool/pool-group.js';
import { Shares } from '../../../src/backend/pool/shares.js';

const settings = new SettingsRegistry().empty;
/** Park and Miller's; a failure names its seed. */
const generator = (seed: number) => {
  let state = seed + 1;
  return (below: number): number => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
};

t.test('one in five is kept from leases; small pools share nothing', async (t) => {
  const kept = [1, 4, 5, 9, 10, 20, 100].map((size) => size - new Shares(size, 1).leasesMax);
  t.strictSame(kept, [0, 0, 1, 1, 2, 4, 20]);
});

t.test('never more leases than there may be, and a role above its share gets none while others wait', async (t) => {
  for (let seed = 0; seed < 200; seed++) {
    const draw = generator(seed);
    const share = [0.1, 0.5, 0.8, 1][draw(4)]!;
    const shares = new Shares(1 + draw(30), share);
    const perRole = Math.max(1, Math.floor(shares.leasesMax * share));
    // Two groups of one role in one database, and one of it in another.
    const groups = ['a/d/1', 'a/d/2', 'b/d/1', 'a/e/1'].map((key) => {
      const [user, database] = key.split('/');
      return new PoolGroup(key, user!, new Map([['database', database!]]), { kind: 'none' });
    });
    const held: { readonly connection: ServerConnection; readonly roleKey: string; readonly isLease: boolean }[] = [];
    let connections = 0;
    let faults = 0;
    for (let step = 0; step < 200; step++) {
      const group = groups[draw(groups.length)]!;
      const what = draw(4);
      if (what === 0 && held.length > 0) shares.ended(held.splice(draw(held.length), 1)[0]!.connection);
      else if (what === 1) {
        const request = {
          group,
          settings,
          queuedAt: 0,
          granted: () => undefined,
          refused: () => undefined,
        } as LeaseRequest;
        group.add(request);
        if (draw(2) === 0) group.remove(request);
      } else {
        const purpose = what === 2 ? undefined : 'merged';
        const room = shares.room(group, groups);
        const leases = held.filter(({ isLease }) => isLease);
        const ofRole = leases.filter(({ roleKey }) => roleKey === group.roleKey).length;
        const othersWait = groups.some((other) => other.roleKey !== group.roleKey && other.leaseWaiting > 0);
        const most = Math.min(shares.leasesMax, othersWait ? perRole - ofRole + leases.length : shares.leasesMax);
        if (room !== Math.max(0, Math.min(most, shares.leasesMax) - leases.length)) faults++;
        if (purpose === undefined && room === 0) continue;
        const connection = { number: connections++ } as unknown as ServerConnection;
        const request = {
          group,
          settings,
          queuedAt: 0,
          granted: () => undefined,
          refused: () => undefined,
        } as LeaseRequest;
        shares.granted(purpose === undefined ? request : { ...request, purpose }, connection);
        held.push({ connection, roleKey: group.roleKey, isLease: purpose === undefined });
      }
      if (shares.held !== held.filter(({ isLease }) => isLease).length || shares.held > shares.leasesMax) faults++;
    }
    if (faults > 0) t.fail(`seed ${seed}: ${faults} times`);
  }
  t.pass('200 seeds');
});
