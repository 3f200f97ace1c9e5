// A branch of the client's block, as its COMMIT needs it: with another connection to the same shard for what is left to finish.
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { Branch, type BranchTarget } from '../../execute/two-phase/branch.js';
import { type LaneAsker, LaneBranch } from '../../execute/two-phase/lane-branch.js';
import { NEUTRAL_TEMPLATE } from '../../sql/plan/template.js';
import type { ExchangeContext } from './exchange-context.js';

export function laneBranch(lane: LeasedLane, asker: LaneAsker, context: ExchangeContext): LaneBranch {
  const { services, lanes, kv, output } = context;
  const { clock } = services;
  const shardName = lane.shardName ?? '';
  const shard = kv.view.shards.find(({ name }) => name === shardName);
  const target: BranchTarget = { shardName, lane: (client) => lanes.another(shard!, client) };
  const another = (): Branch => new Branch(target, NEUTRAL_TEMPLATE, clock, (message) => output.send(message));
  return new LaneBranch({ lane, clock, asker, another });
}
