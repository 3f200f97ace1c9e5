// A branch of the client's block, as its COMMIT needs it: with another connection to the same shard for what is left to finish.
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { type LaneAsker, LaneBranch } from '../../execute/two-phase/lane-branch.js';
import { WriteBranch } from '../../execute/two-phase/write-branch.js';
import type { ExchangeContext } from './exchange-context.js';

export function laneBranch(lane: LeasedLane, asker: LaneAsker, context: ExchangeContext): LaneBranch {
  const { services, lanes, kv, output } = context;
  const { clock, sources } = services;
  const shardName = lane.shardName ?? '';
  const shard = kv.view.shards.find(({ name }) => name === shardName);
  const statement = { source: sources.ownText('', []), parameters: [], formats: null, isAtomic: true };
  const target = { shardName, lane: (client: WriteBranch): LeasedLane => lanes.another(shard!, client) };
  const another = (): WriteBranch => new WriteBranch(target, statement, clock, (message) => output.send(message));
  return new LaneBranch({ lane, clock, asker, another });
}
