// COMMIT of the client's block on the lanes of its branches (D14): each with another connection to its shard for what is left to finish.
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { BlockCommit } from '../../execute/two-phase/block-commit.js';
import { Branch, type BranchTarget } from '../../execute/two-phase/branch.js';
import { type LaneAsker, LaneBranch } from '../../execute/two-phase/lane-branch.js';
import { NEUTRAL_TEMPLATE } from '../../sql/plan/template.js';
import type { AskedLanes } from './asked-lanes.js';
import type { ExchangeContext } from './exchange-context.js';

/** @param over all branches have ended. Error: what the client is told; null: it is committed */
export function commitOf(
  context: ExchangeContext,
  asked: AskedLanes,
  over: (error: Buffer | null) => void,
): BlockCommit {
  const { transaction, lanes, services, session, kv } = context;
  const { branches, settings } = transaction;
  // What cannot be prepared is on the home shard, where all is that names no key.
  const ordered = [
    ...branches.filter((lane) => lane !== lanes.home),
    ...branches.filter((lane) => lane === lanes.home),
  ];
  const asker: LaneAsker = {
    ask: (lane, questions, told) => asked.ask(lane, questions, told),
    drop: (lane, why) => {
      lane.block.discard(why);
      asked.answer(lane, null);
    },
  };
  for (const lane of ordered) lane.block.ends();
  const parts = ordered.map((lane) => laneBranch(lane, asker, context));
  return new BlockCommit({
    branches: parts,
    lastHoldsMore: ordered.at(-1) === lanes.home && (lanes.home.holdsState || lanes.home.block.mayDoMore),
    sets: settings !== 'nothing',
    clusterId: kv.view.clusterId ?? '',
    role: session.user,
    slots: services.preparedSlots,
    clock: services.clock,
    random: services.random,
    over: (error) => {
      transaction.endedTogether();
      for (const part of parts) part.end(error === null || settings === 'nothing');
      over(error);
    },
  });
}

function laneBranch(lane: LeasedLane, asker: LaneAsker, context: ExchangeContext): LaneBranch {
  const { services, lanes, kv, output } = context;
  const { clock } = services;
  const shardName = lane.shardName ?? '';
  const shard = kv.view.shards.find(({ name }) => name === shardName);
  const target: BranchTarget = { shardName, lane: (client) => lanes.another(shard!, client) };
  const another = (): Branch => new Branch(target, NEUTRAL_TEMPLATE, clock, (message) => output.send(message));
  return new LaneBranch({ lane, clock, asker, another });
}
