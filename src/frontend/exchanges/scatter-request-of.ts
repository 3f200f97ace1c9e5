// What is asked of the shards for one statement that reads several of them, and how their errors are told in its terms.
import {
  positionInOriginal,
  type RewrittenText,
  rewrittenText,
  type StatementSource,
  type StatementSources,
} from '../../backend/replies/statement-source.js';
import type { Clock } from '../../base/clock.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import { isRefusal } from '../../base/refusals.js';
import { type ClusterView, homeShard, type ShardView } from '../../cluster/cluster-view.js';
import { NO_PARAMETERS } from '../../execute/scatter/extended-messages.js';
import { INSTANT_SQL, parameterCount } from '../../execute/scatter/instant.js';
import type { InstantSource, ScatterRequest, ScatterTarget } from '../../execute/scatter/scatter-request.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import type { Session } from '../../session/session.js';
import type { CopyOut } from '../../sql/plan/copy-out.js';
import type { ScatterPlan } from '../../sql/plan/kv-plan.js';
import { numberedInstants } from '../../sql/scatter/instant-parameters.js';
import { numberedMembers } from '../../sql/scatter/member-parameters.js';
import type { ClientEncoding } from '../../sql/text/client-encoding.js';
import type { TextParts } from '../../sql/text/text-parts.js';
import { stringEnd } from '../../wire/client-messages.js';
import { encodeErrorResponse, readErrorFields, withoutPosition } from '../../wire/error-fields.js';
import { TypeOid } from '../../wire/type-oids.js';
import { type KvStatement, type KvStatements, rowCount } from '../unit/kv-statements.js';
import type { Unit } from '../unit/unit.js';
import type { LentLanes } from './lent-lanes.js';
import { type SplitMembers, splitMembers } from './member-split.js';

/** What reads need of the conversation. */
export interface ReadRequestContext {
  readonly session: Session;
  readonly lanes: SessionLanes;
  readonly kv: KvStatements;
  /** Those of the block's branches. */
  readonly lent?: LentLanes;
  readonly services: { readonly clock: Clock; readonly sources: StatementSources };
}

/** What a Bind brings beside names. */
export interface BoundParts {
  /** Formats and values, as they stand in it. */
  readonly parameters: Buffer;
  /** Formats of the result's columns. */
  readonly formats: readonly number[];
  /** What the client calls the statement. */
  readonly name: string;
}

/** The time is asked for outside a block. */
const NO_BLOCK: Omit<InstantSource, 'source'> = { inBlock: null, settle: (instant) => instant };

/** Of a simple query: no parameters, all columns as text. */
export const NOTHING_BOUND: BoundParts = { parameters: NO_PARAMETERS, formats: [], name: '' };

/** @param view by which it was routed, perhaps a while ago @returns the read to be run; the error where it cannot be made, which is the statement's own and never the session's end. */
export function shardReadRequest(
  statement: KvStatement,
  shards: readonly ShardView[],
  view: ClusterView,
  bound: BoundParts,
  context: ReadRequestContext,
): ScatterRequest | PgkvError {
  try {
    return requestOf(statement, shards, view, bound, context);
  } catch (error) {
    if (error instanceof PgkvError) return error;
    return new PgkvError('internal', { detail: messageOf(error), cause: error });
  }
}

function requestOf(
  statement: KvStatement,
  shards: readonly ShardView[],
  view: ClusterView,
  { parameters, formats, name }: BoundParts,
  context: ReadRequestContext,
): ScatterRequest | PgkvError {
  const { plan, values } = statement;
  if (isRefusal(plan.scatter)) return new PgkvError('internal', { detail: 'a refused statement was to be scattered' });
  const scatter = inEncoding(plan.scatter, statement.encoding);
  const limit = scatter.kind === 'sorted' ? rowCount(values, scatter.limit, 'LIMIT') : null;
  const offset = scatter.kind === 'sorted' ? rowCount(values, scatter.offset, 'OFFSET') : null;
  if (limit instanceof PgkvError) return limit;
  if (offset instanceof PgkvError) return offset;
  const { session, lanes, kv } = context;
  const { clock, sources } = context.services;
  const target = (shard: ShardView): ScatterTarget => targetOn(shard, context);
  const { members } = plan;
  const split = members == null ? null : splitMembers(statement, members, shards, view, parameters);
  return {
    plan: scatter,
    shardSource: shardSource(statement, scatter, parameters, sources, split),
    instant: scatter.hasInstant === true ? { source: sources.ownText(INSTANT_SQL, []), ...NO_BLOCK } : null,
    targets:
      split === null
        ? shards.map(target)
        : split.shards.map((own) => ({ ...target(own.shard), parameters: own.parameters })),
    home: target(homeShard(kv.view)),
    parameters,
    final:
      scatter.kind === 'sorted'
        ? null
        : {
            render: (substitute) => rendered(statement, scatter.finalText, substitute),
            // What it needs of them travels in the partial rows.
            parameters: NO_PARAMETERS,
          },
    resultFormats: formats,
    limit,
    offset: offset ?? 0n,
    byteOrder: lanes.home.byteOrder,
    encoding: statement.encoding,
    name,
    local: null,
    session,
    clock,
  };
}

/** In the block where it has a branch there, else beside it. */
function targetOn(shard: ShardView, { lanes, lent }: ReadRequestContext): ScatterTarget {
  const branch = lent?.boundOn(shard) ?? null;
  if (branch === null) return { shardName: shard.name, lane: (client) => lanes.another(shard, client) };
  return { shardName: shard.name, lane: (client) => lent!.lend(branch, client), isInBlock: true };
}

/** The home shard, for what runs there beside the session's own lane. */
export const atHome = (view: ClusterView, lanes: SessionLanes): ScatterTarget => ({
  shardName: homeShard(view).name,
  lane: (client) => lanes.another(homeShard(view), client),
});

/**
 * A read that runs as it is on the home shard, beside the session's own lane there.
 * @param local see ScatterRequest
 */
export function homeReadRequest(
  unit: Unit,
  { parameters, formats, name }: BoundParts,
  context: ReadRequestContext,
  local: NonNullable<ScatterRequest['local']>,
): ScatterRequest {
  const { source, text } = unit;
  const { session, lanes, kv, services } = context;
  const { clock, sources } = services;
  const { encoding } = kv.reading;
  const home = atHome(unit.view, lanes);
  return {
    plan: { kind: 'sorted', shardText: [text], sortKeys: [], recoded: null, limit: null, offset: null },
    shardSource: source ?? sources.ownText(text, [], encoding),
    targets: [home],
    home,
    parameters,
    final: null,
    resultFormats: formats,
    limit: null,
    offset: 0n,
    instant: null,
    byteOrder: lanes.home.byteOrder,
    encoding,
    name,
    local,
    session,
    clock,
  };
}

/** What every shard runs: shared between sessions, so that it is prepared once per connection. */
function shardSource(
  statement: KvStatement,
  { hasInstant }: ScatterPlan,
  parameters: Buffer,
  sources: StatementSources,
  split: SplitMembers | null,
): StatementSource {
  const text = rewrittenText(shardTextOf(statement, parameters));
  if (split !== null) return sources.ownText(text, split.types, statement.encoding);
  const declared = statement.source?.parameterTypes ?? [];
  const types = hasInstant === true ? typesWithInstant(declared, parameters) : declared;
  return sources.ownText(text, types, statement.encoding);
}

/** Types of the client's parameters and of the instant behind them. */
export function typesWithInstant(declared: readonly number[], parameters: Buffer): number[] {
  const types = [...declared];
  while (types.length < parameterCount(parameters)) types.push(TypeOid.unspecified);
  return [...types, TypeOid.timestamptz, TypeOid.timestamptz];
}

function rendered(statement: KvStatement, parts: TextParts, substitute: (part: string) => string): string {
  const substituted = parts.map((part) => (typeof part === 'string' ? substitute(part) : part));
  const { text, literals, encoding } = statement;
  return rewrittenText({ parts: substituted, text, literals, encoding });
}

/** What the Bind message `buffer[start, end)` brings, copied; null where it is malformed. */
export function boundParts(buffer: Buffer, start: number, end: number): BoundParts | null {
  const portalEnd = stringEnd(buffer, start + 5, end);
  const nameEnd = portalEnd < 0 ? -1 : stringEnd(buffer, portalEnd + 1, end);
  if (nameEnd < 0 || nameEnd + 3 > end) return null;
  let at = nameEnd + 1;
  const first = at;
  at += 2 + buffer.readUInt16BE(at) * 2;
  if (at + 2 > end) return null;
  const count = buffer.readUInt16BE(at);
  at += 2;
  for (let n = 0; n < count; n++) {
    if (at + 4 > end) return null;
    const length = buffer.readInt32BE(at);
    at += 4 + Math.max(length, 0);
    if (at > end) return null;
  }
  const parameters = Buffer.from(buffer.subarray(first, at));
  if (at + 2 > end) return null;
  const formats: number[] = [];
  for (let left = buffer.readUInt16BE(at); left > 0; left--) {
    at += 2;
    if (at + 2 > end) return null;
    formats.push(buffer.readInt16BE(at));
  }
  return { parameters, formats, name: buffer.toString('utf8', portalEnd + 1, nameEnd) };
}

/** What sorts is compared as servers have it: where the client's encoding is another, it is not sent in that one. */
const inEncoding = (plan: ScatterPlan, { isUtf8 }: ClientEncoding): ScatterPlan =>
  isUtf8 || plan.kind !== 'sorted' || plan.recoded === null ? plan : { ...plan, ...plan.recoded };

/** The text that the shards run, and what it was made from. @param parameters the client's */
export function shardTextOf({ plan, text, literals, encoding }: KvStatement, parameters: Buffer): RewrittenText {
  if (isRefusal(plan.scatter)) return { parts: plan.text, text, literals, encoding };
  const { shardText, hasInstant } = inEncoding(plan.scatter, encoding);
  if (plan.members != null) {
    const parts = numberedMembers(shardText, plan.members, parameterCount(parameters));
    return { parts, text, literals, encoding };
  }
  const parts = hasInstant === true ? numberedInstants(shardText, parameterCount(parameters) + 1) : shardText;
  return { parts, text, literals, encoding };
}

/** An error of a shard, its position told as one in the client's own text. @param copy that the text is part of */
export function placedError(message: Buffer, rewritten: RewrittenText | null, copy: CopyOut | null = null): Buffer {
  if (rewritten === null) return message;
  const fields = readErrorFields(message, 0, message.length);
  const position = fields['P'];
  if (position === undefined) return message;
  if (copy?.before === null) return withoutPosition(message);
  const place = positionInOriginal(rewritten, Number(position)) + (copy?.before ?? 0);
  return encodeErrorResponse({ ...fields, P: String(place) });
}
