// What is sent to the shards for one statement that writes on several, and how their answers become one.
import { type RewrittenText, rewrittenText } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { ShardView } from '../../cluster/cluster-view.js';
import type { SpreadRequest, SpreadResult } from '../../execute/two-phase/spread-write.js';
import type { BranchTarget } from '../../execute/two-phase/write-branch.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { BoundParts } from './scatter-request-of.js';

/** What the client is told of a statement that is written. */
export interface SpreadAnswer {
  /** RowDescription; null: it returns no rows. */
  readonly description: Buffer | null;
  /** Whole DataRow messages. */
  readonly rows: readonly Buffer[];
  readonly count: bigint;
}

export interface SpreadStatement {
  readonly request: SpreadRequest;
  /** It returns rows. */
  readonly returns: boolean;
  /** By which places in errors are found in the client's text. */
  readonly rewritten: RewrittenText;
  answer(result: SpreadResult): SpreadAnswer;
  tag(count: bigint | number): string;
}

export function spreadStatement(unit: Unit, bound: BoundParts, context: ExchangeContext): SpreadStatement | PgkvError {
  const { route, statement, view } = unit;
  if (route.kind !== 'spread' || statement === null || view.clusterId === null) {
    return new PgkvError('internal', { detail: 'a write of one shard was to be spread' });
  }
  const { services, session, lanes, kv } = context;
  const { plan, encoding, source } = statement;
  const rewritten = kv.rewrite(statement);
  const returns = plan.spread?.returns === true;
  const shared = {
    source: services.sources.ownText(rewrittenText(rewritten), source?.parameterTypes ?? [], encoding),
    parameters: [bound.parameters],
    formats: returns ? bound.formats : null,
  };
  const target = (shard: ShardView): BranchTarget => ({
    shardName: shard.name,
    lane: (client) => lanes.another(shard, client),
  });
  return {
    request: {
      branches: route.shards.map((shard) => ({ target: target(shard), statement: shared })),
      clusterId: view.clusterId,
      role: session.user,
      clock: services.clock,
      random: services.random,
    },
    returns,
    rewritten,
    answer: ({ count, returned }) => ({
      description: returns ? returned[0]!.description : null,
      rows: returned.flatMap(({ rows }) => rows),
      count,
    }),
    tag: (count) => `${plan.verb.toUpperCase()} ${count}`,
  };
}
