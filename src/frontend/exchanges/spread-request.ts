// What is sent to the shards for one statement that writes on several, and how their answers become one.
import { rewrittenText } from '../../backend/replies/statement-source.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import { parameterCount } from '../../execute/scatter/instant.js';
import type { BranchTarget } from '../../execute/two-phase/branch.js';
import type { BranchResult } from '../../execute/two-phase/branch-reader.js';
import type { SpreadRequest, SpreadResult } from '../../execute/two-phase/spread-write.js';
import type { SpreadPlan } from '../../sql/plan/kv-plan.js';
import { numberedInstants } from '../../sql/scatter/instant-parameters.js';
import type { KvStatement } from '../unit/kv-statements.js';
import type { Unit } from '../unit/unit.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';
import { type BoundParts, placedError, typesWithInstant } from './scatter-request-of.js';
import { shardInserts, type TimedInsert, visibleColumns } from './spread-insert.js';

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
  answer(result: SpreadResult): SpreadAnswer;
  tag(count: bigint | number): string;
}

/** The error where it cannot be made, which is the statement's own and never the session's end. */
export function spreadStatement(unit: Unit, bound: BoundParts, context: ExchangeContext): SpreadStatement | PgkvError {
  try {
    return statementOf(unit, bound, context);
  } catch (error) {
    if (error instanceof PgkvError) return error;
    return new PgkvError('internal', { detail: messageOf(error), cause: error });
  }
}

/** What the branches are, and how what they return becomes one. */
interface Parts {
  readonly branches: SpreadRequest['branches'];
  description(told: Buffer): Buffer;
  rows(returned: readonly BranchResult[]): readonly Buffer[];
}

function statementOf(unit: Unit, bound: BoundParts, context: ExchangeContext): SpreadStatement | PgkvError {
  const { route, statement, view } = unit;
  const spread = statement?.plan.spread ?? null;
  if (route.kind !== 'spread' || statement === null || spread === null || view.clusterId === null) {
    return new PgkvError('internal', { detail: 'a write of one shard was to be spread' });
  }
  const { services, session, lanes } = context;
  const isAtomic = crossShard(session).kind === '2pc';
  const target = (shard: ShardView): BranchTarget => ({
    shardName: shard.name,
    lane: (client) => lanes.another(shard, client),
  });
  const { insert, returns, hasInstant } = spread;
  const parts =
    insert === null
      ? alike(statement, spread, route.shards.map(target), bound, context, isAtomic)
      : byRows({ insert, hasInstant }, statement, route.shards, target, view, bound, isAtomic);
  if (parts instanceof PgkvError) return parts;
  const verb = insert === null ? statement.plan.verb.toUpperCase() : 'INSERT 0';
  return {
    request: {
      branches: parts.branches,
      hasInstant,
      isAtomic,
      clusterId: view.clusterId,
      role: session.user,
      clock: services.clock,
      random: services.random,
    },
    returns,
    answer: ({ count, returned }) => ({
      description: returns ? parts.description(returned[0]!.description!) : null,
      rows: returns ? parts.rows(returned) : [],
      count,
    }),
    tag: (count) => `${verb} ${count}`,
  };
}

/** Every shard runs the same. */
function alike(
  statement: KvStatement,
  { returns, hasInstant, text }: SpreadPlan,
  targets: readonly BranchTarget[],
  bound: BoundParts,
  { services, kv }: ExchangeContext,
  isAtomic: boolean,
): Parts {
  const declared = statement.source?.parameterTypes ?? [];
  const types = hasInstant ? typesWithInstant(declared, bound.parameters) : declared;
  const parts = text === null ? {} : { parts: numberedInstants(text, parameterCount(bound.parameters) + 1) };
  const rewritten = { ...kv.rewrite(statement), ...parts };
  const shared = {
    source: services.sources.ownText(rewrittenText(rewritten), types, statement.encoding),
    parameters: [bound.parameters],
    formats: returns ? bound.formats : null,
    isAtomic,
  };
  const place = (error: Buffer): Buffer => placedError(error, rewritten);
  return {
    branches: targets.map((target) => ({ target, statement: shared, place })),
    description: (told) => told,
    rows: (returned) => returned.flatMap(({ rows }) => rows),
  };
}

/** Every shard gets its rows. */
function byRows(
  plan: TimedInsert,
  statement: KvStatement,
  shards: readonly ShardView[],
  target: (shard: ShardView) => BranchTarget,
  view: ClusterView,
  bound: BoundParts,
  isAtomic: boolean,
): Parts | PgkvError {
  const inserts = shardInserts(plan, statement, shards, view, bound);
  if (inserts instanceof PgkvError) return inserts;
  return {
    branches: inserts.map((own) => ({
      target: target(own.shard),
      statement: { ...own.statement, isAtomic },
      place: (error) => own.place(error),
    })),
    description: visibleColumns,
    rows: (returned) =>
      inserts
        .flatMap((own, index) => own.ordered(returned[index]!))
        .sort(([one], [other]) => one - other)
        .map(([, row]) => row),
  };
}
