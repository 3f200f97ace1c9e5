// The one way of every message that brings or names a statement: Unit → Route → where it may run now → the Exchange that
// answers it. Pure of sockets and of what stands in texts: it goes by the Unit, the open block and the open batch.
import type { RewrittenText } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { isRefusal, refusalError, refuse } from '../../base/refusals.js';
import { homeShard, type ShardView } from '../../cluster/cluster-view.js';
import type { Handling } from '../../execute/exchange.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { Template } from '../../sql/plan/template.js';
import { Frontend } from '../../wire/protocol.js';
import type { BlockBranches } from '../exchanges/block-branches.js';
import type { CopyInExchange } from '../exchanges/copy-in-exchange.js';
import { CopyPortal } from '../exchanges/copy-portal.js';
import type { ExchangeContext } from '../exchanges/exchange-context.js';
import type { LeasedExchange } from '../exchanges/leased-exchange.js';
import type { MergedExchange } from '../exchanges/merged-exchange.js';
import type { OwnAnswers } from '../exchanges/own-answers.js';
import type { OwnExchange } from '../exchanges/own-exchange.js';
import type { OwnPortals } from '../exchanges/own-portals.js';
import type { ShardPlacement } from '../exchanges/placement.js';
import type { ScatterExchange } from '../exchanges/scatter-exchange.js';
import type { SpreadExchange } from '../exchanges/spread-exchange.js';
import { batchAhead } from '../unit/batch-ahead.js';
import type { CopiedStatement } from '../unit/kv-statements.js';
import type { Unit } from '../unit/unit.js';

/** Those among whom a unit is given away. */
export interface Way {
  readonly context: ExchangeContext;
  readonly placement: ShardPlacement;
  readonly branches: BlockBranches;
  readonly portals: OwnPortals;
  readonly answers: OwnAnswers;
  readonly own: OwnExchange;
  readonly leased: LeasedExchange;
  readonly scatter: ScatterExchange;
  readonly spread: SpreadExchange;
  readonly copyIn: CopyInExchange;
  /** Null where statements are not merged. */
  readonly merged: MergedExchange | null;
}

type KeyedRoute = Extract<Unit['route'], { readonly kind: 'keyed' }>;

const CHAINED =
  'AND CHAIN would take over options of a failed transaction, of which not all that was said in it is known';
const BY_PGKV = 'pgkv itself answers the statement';
const OPTIONS_LOST = refusalError(refuse('leaves_shard', { why: CHAINED }));
const ON_HOME = 'the statement is for the home shard';
const keyIsOn = ({ name }: { readonly name: string }): string => `the statement's key is on shard ${name}`;

export function handleUnit(way: Way, unit: Unit): Handling {
  const handled = handle(way, unit);
  if (handled !== 'wait') way.branches.taken();
  return handled;
}

function handle(way: Way, unit: Unit): Handling {
  const { placement, portals, own, leased, branches } = way;
  if (placement.edgeIsOpen || placement.awaitsSettings(unit)) return 'wait';
  branches.checkLoss();
  const behind = way.spread.behind(unit);
  if (behind !== null) return behind;
  if (unit.type === Frontend.query && unit.template.kind !== 'empty') portals.queryComes();
  if (portals.has(unit)) {
    const { kind } = way.context.transaction.state;
    if ((kind === 'failed' || kind === 'lost') && portals.isRefusedInFailed(unit)) {
      if (own.owns(unit)) return here(way, unit, BY_PGKV, () => own.take(unit), true);
      return way.answers.refuse(unit, new PgkvError('transaction_failed'));
    }
    const portal = unit.type === Frontend.execute ? portals.named(unit) : null;
    if (portal instanceof CopyPortal) return copyBound(way, unit, portal);
    if (unit.type === Frontend.execute) way.context.batch.begunElsewhere(true);
    return here(way, unit, BY_PGKV, () => portals.take(unit), true);
  }
  const left = portals.leftBehind(unit);
  if (left !== null) return way.answers.refuse(unit, left);
  // The block is open on a server all the same, or no server has it.
  if (own.owns(unit)) return here(way, unit, BY_PGKV, () => own.take(unit), true);
  const onBranches = branches.before(unit);
  // Wherever it would belong, it has been said on all branches but this.
  if (onBranches === 'said') return leased.take(unit);
  if (onBranches instanceof PgkvError) return leased.askServer(unit, onBranches);
  if (onBranches !== null) return onBranches;
  // 25P02, wherever it would belong: the server that has the failed block says so.
  if (placement.blockFailed) {
    const obstacle = unit.placed && goesOnHere(unit.template) ? whereBlockIs(way, unit) : null;
    if (obstacle !== null) return way.answers.refuse(unit, obstacle);
    if (!goesOnElsewhere(unit)) return leased.take(unit, textWhereBlockIs(way, unit, goesOnHere(unit.template)));
    // Its server knows them.
    if (placement.losesOptions(unit)) {
      const isHere = unit.template.statementNames.length === 0 && whereBlockIs(way, unit) === null;
      return isHere ? leased.take(unit, textWhereBlockIs(way, unit, true)) : way.answers.refuse(unit, OPTIONS_LOST);
    }
    return unit.route.kind === 'refused' ? way.answers.refuse(unit, refusalError(unit.route)) : placement.leaveFailed();
  }
  if (way.context.transaction.isLeft && placement.losesOptions(unit)) return way.answers.refuse(unit, OPTIONS_LOST);
  if (!unit.placed) return leased.take(unit);
  // Its savepoints are made anew where it may be ended, and what a server refuses in it is told in Postgres's words.
  if (placement.failedUnopened && !endsAndGoesOn(unit.template))
    return onLane(way, unit, way.context.lanes.home, ON_HOME);
  if (unit.template.copyIn !== null && unit.type !== Frontend.query) return copyNamed(way, unit);
  switch (unit.type) {
    case Frontend.query:
      return query(way, unit);
    case Frontend.functionCall:
      return functionCall(way, unit);
    case Frontend.parse:
      return parse(way, unit);
    case Frontend.bind:
      return bind(way, unit);
    default:
      // What is asked of portals goes where they were bound.
      if (unit.type === Frontend.flush || (unit.source === null && way.context.lanes.current.busy))
        return unit.type === Frontend.close ? close(way, unit) : leased.take(unit);
      if (unit.type === Frontend.describe && unit.template.kv === null && isReadElsewhere(way, unit))
        return beside(way, unit);
      return onLane(way, unit, laneForParse(way, unit, unit.template.kv !== null).target, ON_HOME);
  }
}

/** On the shard of its keys the server copies; from several, pgkv writes what a read gives. */
function copy(way: Way, unit: Unit, copied: CopiedStatement): Handling {
  const { route } = unit;
  if (route.kind === 'refused') return way.answers.refuse(unit, refusalError(route));
  if (route.kind !== 'keyed') return onShards(way, unit);
  return onLane(way, unit, laneOfKeys(way, route), keyIsOn(route.shard), () =>
    way.leased.take(unit, way.context.kv.rewriteCopy(unit.text, copied)),
  );
}

function query(way: Way, unit: Unit): Handling {
  const { context, leased, merged } = way;
  if (unit.copied !== null) return copy(way, unit, unit.copied);
  if (unit.template.copyIn !== null) return copyInto(way, unit);
  const { route, statement, template } = unit;
  switch (route.kind) {
    case 'refused':
      if (template.kv?.kind !== 'refused' || template.kv.asksServer !== true)
        return way.answers.refuse(unit, refusalError(route));
      return onLane(way, unit, context.lanes.home, ON_HOME, () => leased.askServer(unit, refusalError(route)));
    case 'keyed': {
      if (merged?.offerQuery(unit, route) === true) return 'wait';
      return onLane(way, unit, laneOfKeys(way, route), keyIsOn(route.shard), () =>
        leased.take(unit, context.kv.rewrite(statement!)),
      );
    }
    case 'multi-keyed':
    case 'scattered':
      return onShards(way, unit);
    case 'spread':
      return way.spread.offerQuery(unit) ? 'wait' : spread(way, unit);
    default:
      // A text of several statements may end the block, and is run as one.
      if (template.readsCatalogue && template.kinds.length === 1 && way.placement.openElsewhere)
        return beside(way, unit);
      return onLane(way, unit, way.placement.laneFor(template), ON_HOME);
  }
}

/** Ends a failed block, and has more behind that, which may belong elsewhere, or names statements that can be prepared only outside of it. */
const goesOnElsewhere = ({ placed, template }: Unit): boolean =>
  endsAndGoesOn(template) && (placed || template.statementNames.length > 0);

const endsAndGoesOn = ({ kind, kinds, endsFailure }: Template): boolean =>
  kind === 'multi' && endsFailure && kinds[0] !== 'savepoint';

/** Goes on from a savepoint of the block, on the server that has it. */
const goesOnHere = ({ kind, kinds, endsFailure }: Template): boolean =>
  kind === 'multi' && endsFailure && kinds[0] === 'savepoint';

/** Why a text that ends a failure and goes on cannot run where its block is; null: it can. */
function whereBlockIs(way: Way, { route, template }: Unit): PgkvError | null {
  const { context, placement } = way;
  if (route.kind === 'refused') return refusalError(route);
  if (route.kind === 'keyed') {
    const isThere = laneOfKeys(way, route) === context.lanes.current;
    return isThere ? null : refusalError(refuse('leaves_shard', { why: keyIsOn(route.shard) }));
  }
  const isHere = template.kv !== null || placement.laneFor(template) === context.lanes.current;
  return isHere ? null : refusalError(refuse('leaves_shard', { why: ON_HOME }));
}

/** Such a text as its shard gets it; null: as the client sent it. */
function textWhereBlockIs({ context }: Way, unit: Unit, goesOn: boolean): RewrittenText | null {
  const { type, placed, route, statement } = unit;
  const isOnKeys = type === Frontend.query && placed && route.kind === 'keyed' && goesOn;
  return isOnKeys && statement !== null ? context.kv.rewrite(statement) : null;
}

function functionCall(way: Way, unit: Unit): Handling {
  if (unit.route.kind === 'refused') return way.answers.refuse(unit, refusalError(unit.route));
  const { current, home } = way.context.lanes;
  return onLane(way, unit, current.busy ? current : home, ON_HOME);
}

function parse(way: Way, unit: Unit): Handling {
  const { route, template } = unit;
  const { kv } = template;
  // A server says that one Parse takes one statement.
  const isAsked = kv?.kind === 'refused' && (kv.asksServer || template.kinds.length > 1);
  if (route.kind === 'refused' && !isAsked) return way.answers.refuse(unit, refusalError(route));
  if (kv === null && isReadElsewhere(way, unit)) return beside(way, unit);
  const lane = laneForParse(way, unit, kv !== null);
  way.leased.bindIsPlaced = lane.isPlaced;
  return onLane(way, unit, lane.target, lane.why);
}

/** A batch that begins with a Close, behind another that is still answered, may belong elsewhere. */
function close(way: Way, unit: Unit): Handling {
  const { context, leased, placement } = way;
  if (placement.batchOpen || context.transaction.inBlock) return leased.take(unit);
  const shard = batchAhead(unit.buffer, unit.start, context.named, context.kv, unit.view);
  return shard === null ? leased.take(unit) : onLane(way, unit, context.lanes.of(shard), keyIsOn(shard));
}

function bind(way: Way, unit: Unit): Handling {
  const { placement } = way;
  const { route } = unit;
  switch (route.kind) {
    case 'refused':
      return way.answers.refuse(unit, refusalError(route));
    case 'keyed':
      if (way.spread.takesKeyed(unit)) return spread(way, unit);
      return onLane(way, unit, laneOfKeys(way, route), keyIsOn(route.shard));
    case 'multi-keyed':
    case 'scattered':
      return onShards(way, unit);
    case 'spread':
      return spread(way, unit);
    default: {
      if (unit.template.readsCatalogue && placement.openElsewhere) return beside(way, unit);
      const { target, isPlaced, why } = laneForParse(way, unit, false);
      if (!placement.batchOpen) way.leased.bindIsPlaced = isPlaced;
      return onLane(way, unit, target, why);
    }
  }
}

/** A statement that is to be prepared or described; a block that is bound nowhere goes home with it. */
const isReadElsewhere = ({ placement, context }: Way, { template }: Unit): boolean =>
  template.readsCatalogue && placement.openElsewhere && !context.transaction.movable;

/** A read of home's catalogues while a block is open on another shard. */
function beside(way: Way, unit: Unit): Handling {
  const { placement, context } = way;
  const obstacle = placement.mayReadBeside();
  // A block that is bound nowhere can go there; one that reads snapshots gets a branch there.
  if (obstacle !== null && (context.transaction.movable || placement.readsSnapshots))
    return onLane(way, unit, context.lanes.home, ON_HOME);
  if (obstacle !== null) return way.answers.refuse(unit, obstacle);
  const ended = placement.endSegment('the statement is for the home shard', true);
  if (ended === 'wait') return 'wait';
  if (ended !== null) return way.answers.refuse(unit, ended);
  const isRun = unit.type === Frontend.query || unit.type === Frontend.bind;
  return isRun ? way.scatter.takeAtHome(unit) : way.scatter.prepareAtHome(unit);
}

/** In a block it is run on the branches that it has on each of those shards, which are opened first. */
function onBranches(way: Way, unit: Unit, shards: readonly ShardView[], why: string, act: () => Handling): Handling {
  const { context, branches } = way;
  const { transaction, lanes, lent } = context;
  if (transaction.movable) {
    const isThere = shards.some((shard) => lanes.of(shard) === lanes.current);
    const first = isThere ? lanes.current : lanes.of(shards[0]!);
    return onLane(way, unit, first, why, () => {
      const begun = branches.begin();
      if (Buffer.isBuffer(begun)) return way.answers.refuse(unit, begun);
      return begun === 'wait' ? 'wait' : onBranches(way, unit, shards, why, act);
    });
  }
  const further = shards.find((shard) => lent.laneOf(shard) === null);
  if (further !== undefined) return onLane(way, unit, lanes.of(further), why, () => 'wait');
  return here(way, unit, why, act, true);
}

/** A read of several shards, which runs beside the lanes, but where the client's block has a branch. */
function onShards(way: Way, unit: Unit): Handling {
  const { route, statement, copied, view } = unit;
  const where = way.placement.scattered();
  if (where instanceof PgkvError) return way.answers.refuse(unit, where);
  const why = 'the statement reads several shards';
  const take = (): Handling => way.scatter.take(unit);
  if (where === 'beside' || !('shards' in route)) return here(way, unit, why, take, true);
  const scatter = (copied?.statement ?? statement)?.plan.scatter;
  // What makes one answer of all is run at home, under the same settings.
  const isCombined = scatter !== undefined && !isRefusal(scatter) && scatter.kind === 'combine';
  const home = homeShard(view);
  const shards = isCombined && !route.shards.includes(home) ? [...route.shards, home] : route.shards;
  return onBranches(way, unit, shards, why, take);
}

/** A write on several shards, which is a transaction of its own, or a part of the client's block. */
function spread(way: Way, unit: Unit): Handling {
  const obstacle = way.spread.obstacle(unit);
  if (obstacle !== null) return way.answers.refuse(unit, obstacle);
  const why = 'the statement writes on several shards';
  const { route } = unit;
  if (way.context.transaction.inBlock && route.kind === 'spread')
    return onBranches(way, unit, route.shards, why, () => way.spread.take(unit));
  return here(way, unit, why, () => way.spread.take(unit));
}

/** COPY FROM STDIN: rows may belong on any shard. */
function copyInto(way: Way, unit: Unit): Handling {
  return copyBy(way, unit, unit.template, () => way.copyIn.take(unit));
}

/** The same by an Execute. */
function copyBound(way: Way, unit: Unit, { template }: CopyPortal): Handling {
  return copyBy(way, unit, template, () => {
    way.context.batch.begunElsewhere(true);
    return way.portals.take(unit);
  });
}

function copyBy(way: Way, unit: Unit, template: Template, take: () => Handling): Handling {
  const obstacle = way.copyIn.obstacle({ template, view: unit.view }, way.placement.batchHasRun);
  if (obstacle !== null) return way.answers.refuse(unit, obstacle);
  const why = 'the statement copies to several shards';
  if (way.context.transaction.inBlock) return onBranches(way, unit, unit.view.shards, why, take);
  return here(way, unit, why, take);
}

/** What only prepares it. */
function copyNamed(way: Way, unit: Unit): Handling {
  const obstacle = way.copyIn.obstacle(unit, false);
  if (obstacle !== null) return way.answers.refuse(unit, obstacle);
  return here(way, unit, BY_PGKV, () => way.copyIn.prepare(unit), true);
}

/** Has something done without the current lane, once nothing is owed there. @param beside a block goes on there */
function here(way: Way, unit: Unit, why: string, act: () => Handling, beside = false): Handling {
  const ended = way.placement.endSegment(why, beside);
  if (ended === 'wait') return 'wait';
  if (ended !== null) return way.answers.refuse(unit, ended);
  return act();
}

/** Where a statement on keys goes. One that names no key, as where all are NULL, is answered alike by every shard. */
function laneOfKeys({ context: { lanes } }: Way, { shard, slots }: KeyedRoute): LeasedLane {
  return slots.length === 0 && lanes.current.busy ? lanes.current : lanes.of(shard);
}

/** Has it done on the lane `target`; see ShardPlacement.move. */
function onLane(
  way: Way,
  unit: Unit,
  target: LeasedLane,
  why: string,
  act: () => Handling = () => way.leased.take(unit),
): Handling {
  const placed = way.placement.move(target, why);
  if (placed === 'ready') return act();
  return placed === 'wait' ? 'wait' : way.answers.refuse(unit, placed);
}

const isAlikeEverywhere = ({ movable, releases, readsCatalogue }: Template): boolean =>
  movable && !releases && !readsCatalogue;

/** Where a message goes, and why, for who is told that it cannot go there. */
interface Place {
  readonly target: LeasedLane;
  readonly isPlaced: boolean;
  readonly why: string;
}

/**
 * A batch begins where its first key is, as far as it has arrived.
 * @returns isPlaced: what the Bind behind the Parse at hand binds belongs to that lane as well
 */
function laneForParse(way: Way, unit: Unit, isKv: boolean): Place {
  const { context, placement } = way;
  const { lanes, named, kv, transaction } = context;
  const { template } = unit;
  if (placement.batchOpen && isKv) return { target: lanes.current, isPlaced: true, why: ON_HOME };
  if (!placement.batchOpen && (isKv || isAlikeEverywhere(template))) {
    const shard = batchAhead(unit.buffer, unit.start, named, kv, unit.view);
    if (shard !== null) return { target: lanes.of(shard), isPlaced: true, why: keyIsOn(shard) };
    const { state } = transaction;
    if (isKv) return { target: state.kind === 'open' ? state.branch : lanes.home, isPlaced: false, why: ON_HOME };
  }
  return { target: placement.laneFor(template), isPlaced: true, why: ON_HOME };
}
