// What is sent to the shards for one statement of what is written on several, and how their answers become one. In a batch that
// writes on several shards it may be one that a single shard runs, and a read.

import { rewrittenText } from '../../backend/replies/statement-source.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import { parameterCount } from '../../execute/scatter/instant.js';
import type { BranchTarget } from '../../execute/two-phase/branch.js';
import type { BranchResult } from '../../execute/two-phase/branch-reader.js';
import type { BranchStatement } from '../../execute/two-phase/write-branch.js';
import type { SpreadRequest, SpreadResult } from '../../execute/two-phase/write-request.js';
import type { SpreadPlan } from '../../sql/plan/kv-plan.js';
import { numberedInstants } from '../../sql/scatter/instant-parameters.js';
import { encodeErrorResponse, readErrorFields } from '../../wire/error-fields.js';
import { Backend } from '../../wire/protocol.js';
import type { KvStatement } from '../unit/kv-statements.js';
import type { Unit } from '../unit/unit.js';
import { asBegun } from './block-instant.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';
import { type BoundParts, placedError, typesWithInstant } from './scatter-request-of.js';
import { shardInserts, type TimedInsert, visibleColumns } from './spread-insert.js';
import { byMembers } from './spread-members.js';

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
  /** It was bound in a block, and runs in that. */
  readonly isInBlock: boolean;
  /** It returns rows; null: a shard will say so. */
  readonly returns: boolean | null;
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

/** On one shard a statement runs as it is, but by the clock of its batch. */
const onOneShard = (planned: SpreadPlan | null): SpreadPlan =>
  planned?.hasInstant === true && planned.insert === null ? planned : ONE_SHARDS;
const ONE_SHARDS: SpreadPlan = { returns: true, insert: null, hasInstant: false, text: null };
const TAGS = { select: 'SELECT', function: 'SELECT', insert: 'INSERT 0', update: 'UPDATE', delete: 'DELETE' } as const;

/** What the branches are, and how what they return becomes one. */
interface Parts {
  readonly branches: SpreadRequest['branches'];
  description(told: Buffer): Buffer;
  rows(returned: readonly BranchResult[]): readonly Buffer[];
}

/** What is the same on all shards. */
type How = Pick<BranchStatement, 'template' | 'isAtomic'>;

function statementOf(unit: Unit, bound: BoundParts, context: ExchangeContext): SpreadStatement | PgkvError {
  const { route, statement, view } = unit;
  const planned = statement?.plan.spread ?? null;
  const spread = route.kind === 'keyed' ? onOneShard(planned) : planned;
  const isOurs = route.kind === 'spread' || route.kind === 'keyed';
  if (!isOurs || statement === null || spread === null || view.clusterId === null) {
    return new PgkvError('internal', { detail: 'a statement that is none of several shards was to be spread' });
  }
  const shards = route.kind === 'keyed' ? [route.shard] : route.shards;
  const { services, session, transaction } = context;
  const how = { template: unit.template, isAtomic: crossShard(session).kind === '2pc' };
  const isInBlock = transaction.inBlock;
  const target = (shard: ShardView): BranchTarget => ({
    shardName: shard.name,
    lane: laneFor(shard, context),
  });
  const { insert, returns, hasInstant } = spread;
  const members = route.kind === 'spread' ? (statement.plan.members ?? null) : null;
  const parts =
    members !== null
      ? byMembers(statement, { ...spread, members }, shards, { target, view, bound, how })
      : insert === null
        ? alike(statement, spread, shards.map(target), bound, context, how)
        : byRows({ insert, hasInstant }, statement, shards, target, view, bound, how);
  if (parts instanceof PgkvError) return parts;
  const verb = TAGS[statement.plan.verb];
  return {
    request: {
      branches: parts.branches,
      hasInstant,
      isAtomic: how.isAtomic,
      inBlock: isInBlock ? { settle: (instant) => asBegun(transaction, instant) } : null,
      watch: services.lockWatch,
      table: `${statement.plan.table.schema}.${statement.plan.table.name}`,
      contention: services.lockContention,
      slots: services.preparedSlots,
      clusterId: view.clusterId,
      role: session.user,
      clock: services.clock,
      random: services.random,
    },
    isInBlock,
    returns: planned?.returns ?? null,
    answer: ({ count, returned }) => {
      const told = returned[0]!.description;
      const isOfRows = returns && told![0] === Backend.rowDescription;
      return {
        description: isOfRows ? parts.description(told!) : null,
        rows: isOfRows ? parts.rows(returned) : [],
        count,
      };
    },
    tag: (count) => `${verb} ${count}`,
  };
}

/** Of its own; or, in a block, that of the block's branch, which there is. */
export function laneFor(shard: ShardView, { lanes, lent, transaction }: ExchangeContext): BranchTarget['lane'] {
  if (!transaction.inBlock) return (client) => lanes.another(shard, client);
  return (client) => lent.lend(lanes.of(shard), client);
}

/** Every shard runs the same. */
function alike(
  statement: KvStatement,
  { returns, hasInstant, text }: SpreadPlan,
  targets: readonly BranchTarget[],
  bound: BoundParts,
  { services, kv }: ExchangeContext,
  how: How,
): Parts {
  const declared = statement.source?.parameterTypes ?? [];
  const types = hasInstant ? typesWithInstant(declared, bound.parameters) : declared;
  const parts = text === null ? {} : { parts: numberedInstants(text, parameterCount(bound.parameters) + 1) };
  const rewritten = { ...kv.rewrite(statement), ...parts };
  const shared = {
    source: services.sources.ownText(rewrittenText(rewritten), types, statement.encoding),
    parameters: [bound.parameters],
    formats: returns ? bound.formats : null,
    ...how,
  };
  const place = (error: Buffer): Buffer => namedError(placedError(error, rewritten), bound.name);
  return {
    branches: targets.map((target) => ({ target, statement: shared, place })),
    description: (told) => told,
    rows: (returned) => returned.flatMap(({ rows }) => rows),
  };
}

const UNNAMED = 'prepared statement ""';

/** The shards have it without its name, which an error may say: that a Bind has too few parameters, or too many. */
function namedError(error: Buffer, name: string): Buffer {
  const fields = name === '' ? {} : readErrorFields(error, 0, error.length);
  const { M: message = '' } = fields;
  if (!message.includes(UNNAMED)) return error;
  return encodeErrorResponse({ ...fields, M: message.replace(UNNAMED, () => `prepared statement "${name}"`) });
}

/** Every shard gets its rows. */
function byRows(
  plan: TimedInsert,
  statement: KvStatement,
  shards: readonly ShardView[],
  target: (shard: ShardView) => BranchTarget,
  view: ClusterView,
  bound: BoundParts,
  how: How,
): Parts | PgkvError {
  const inserts = shardInserts(plan, statement, shards, view, bound);
  if (inserts instanceof PgkvError) return inserts;
  return {
    branches: inserts.map((own) => ({
      target: target(own.shard),
      statement: { ...own.statement, ...how },
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
