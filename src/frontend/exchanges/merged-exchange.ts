// A conversation's way into the merged lane: decides whether the statement at hand may go there, reads its values, and
// takes the answer. One statement or pipeline at a time; its messages stay unread until it is answered, so that what has to be
// run by itself after all is simply taken up again. Phases:
//   idle       nothing is under way
//   offered    a statement is
//   pipelined  several are
//   returned   the statement at hand came back from the lane, and is to be run on a lease

import type { ServerLoss } from '../../backend/replies/reply-receiver.js';
import type { StatementSource, StatementSources } from '../../backend/replies/statement-source.js';
import { assert } from '../../base/assert.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { type HashSlot, type ShardView, shardOf } from '../../cluster/cluster-view.js';
import { UNREAD } from '../../cluster/key-hash.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import type { BoundStatement, BoundStatements, SharedStatement } from '../../execute/merged/bound-statements.js';
import { bindValues, literalValues } from '../../execute/merged/member-values.js';
import type { MergedLane } from '../../execute/merged/merged-lane.js';
import { MergedLearner } from '../../execute/merged/merged-learner.js';
import type { BatchSink } from '../../execute/merged/merged-request.js';
import type { Awaiting, MergedStatement } from '../../execute/merged/merged-statement.js';
import { slotOfBind } from '../../route/bound-slot.js';
import type { Route } from '../../route/route.js';
import type { Session } from '../../session/session.js';
import { type SingleStatement, singleStatement } from '../../sql/batch/batch-statement.js';
import type { KvPlan } from '../../sql/plan/kv-plan.js';
import type { Template } from '../../sql/plan/template.js';
import { canBeSaidInUtf8 } from '../../sql/text/client-encoding.js';
import { BindMessage } from '../../wire/bind-message.js';
import { Frame } from '../../wire/frame-reader.js';
import { Frontend } from '../../wire/protocol.js';
import { encodeError, READY_IDLE } from '../../wire/server-messages.js';
import type { KvStatement, KvStatements } from '../unit/kv-statements.js';
import { type SingleBatch, sameName, scanPipeline, scanSingleBatch } from '../unit/single-batch.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { ExtendedProtocol } from './extended-protocol.js';
import type { GroupServices } from './grouped-inserts.js';
import { ClientRequest, prefixOf, wholeAnswer } from './merged-answer.js';
import { MergedPipeline } from './merged-pipeline.js';

/** Of simple queries, in UTF-16 units. */
const LEARNT_TEXT_MAX = 64 * 1024;

/** Where and under what a session's statements are merged. */
export interface MergedServices extends GroupServices {
  lane(shard: ShardView): MergedLane;
  readonly bound: BoundStatements;
  readonly clock: Clock;
  readonly sources: StatementSources;
}

/** One statement of a batch, and where its key is. */
interface MergedUnit {
  readonly plan: KvPlan;
  readonly source: StatementSource;
  readonly bound: BoundStatement;
  readonly batch: SingleBatch;
  readonly shard: ShardView;
  readonly slot: HashSlot;
}

/** The Bind at hand, read once: of a pipeline once to find its shard and once for its values. */
const bind = new BindMessage();

type Keyed = Route & { kind: 'keyed' };

/** Of statements that write, those on one key, which is no NULL; of reads, all whose keys one shard holds. */
const isBatchable = ({ writes, keys }: KvPlan, { slots }: Keyed): boolean =>
  slots.length > 0 && (!writes || (slots.length === 1 && keys?.length === 1));

export class MergedExchange implements BatchSink, Awaiting, Exchange<Unit> {
  #phase: 'idle' | 'offered' | 'pipelined' | 'returned' = 'idle';
  /** The client has cancelled what is under way. */
  #cancelled = false;
  #abandoned = false;
  /** Bytes of the messages that are being answered. */
  #bytes = 0;
  readonly #context: ExchangeContext;
  readonly #session: Session;
  readonly #kv: KvStatements;
  readonly #extended: ExtendedProtocol;
  readonly #services: MergedServices;
  #request: ClientRequest;
  #pipeline: MergedPipeline | null = null;

  constructor(context: ExchangeContext, services: MergedServices, extended: ExtendedProtocol) {
    this.#context = context;
    this.#kv = context.kv;
    this.#extended = extended;
    this.#session = context.session;
    this.#services = services;
    this.#request = new ClientRequest(this);
  }

  get busy(): boolean {
    return this.#phase === 'offered' || this.#phase === 'pipelined';
  }

  /** Whether the statement at hand stands for itself: outside blocks and batches, with nothing owed and nothing kept. */
  get #mayMerge(): boolean {
    return this.#phase === 'idle' && this.#context.batch.state === 'none' && this.#standsAlone;
  }

  get #standsAlone(): boolean {
    const { batch, lanes, transaction } = this.#context;
    if (batch.hasBegunElsewhere) return false;
    return !transaction.inBlock && lanes.current.unused && lanes.current.connection?.replies.unsynced() !== true;
  }

  /** The messages at hand, [Parse] Bind [Describe] Execute Sync or a pipeline of such, are the usual case under load. */
  takeBatch(): boolean {
    if (!this.#mayMerge) return false;
    const { buffer, start } = this.#context.reader;
    this.#bytes = this.#offer(buffer, start);
    return this.#bytes > 0;
  }

  take(unit: Unit): Handling {
    assert(unit.route.kind === 'keyed' && this.offerQuery(unit, unit.route), 'only what may be merged is taken');
    return 'wait';
  }

  drained(): void {
    // An answer is written whole.
  }

  lost(_loss: ServerLoss): void {
    // Its connections are the merged lane's.
  }

  /**
   * Takes the batch or pipeline at `start`, the last messages there are, if all of it may be merged.
   * @returns its bytes; 0: it may not
   */
  #offer(buffer: Buffer, start: number): number {
    const batch = scanSingleBatch(buffer, start);
    if (batch === null) return this.#offerUnits(buffer, start);
    if (batch.end !== buffer.length) return 0;
    const unit = this.#unit(buffer, batch, null);
    if (unit === null || !this.#offerOne(unit)) return 0;
    this.#noteParsed(unit);
    return buffer.length - start;
  }

  #offerUnits(buffer: Buffer, start: number): number {
    const batches = scanPipeline(buffer, start);
    if (batches === null) return 0;
    const units: MergedUnit[] = [];
    let parsed = false;
    let last: MergedUnit | null = null;
    for (const one of batches) {
      // An unnamed statement that the pipeline itself has parsed is not the session's yet.
      if (parsed && !one.parses && one.nameEnd === one.nameStart) return 0;
      parsed ||= one.parses;
      last = this.#unit(buffer, one, last);
      if (last === null) return 0;
      units.push(last);
    }
    if (!this.#offerPipeline(units, buffer)) return 0;
    for (const unit of units) this.#noteParsed(unit);
    return buffer.length - start;
  }

  /** Leaves its Bind read. @param last the one before it, which is often the same statement */
  #unit(buffer: Buffer, batch: SingleBatch, last: MergedUnit | null): MergedUnit | null {
    if (!batch.all || !bind.readBehindNames(buffer, batch.formatsAt, batch.bindEnd)) return null;
    const isSame = last !== null && sameName(buffer, last.batch, batch);
    const source = isSame ? last.source : this.#extended.batchSource(buffer, batch, 0);
    const plan = source?.template.kv ?? null;
    if (source === null || plan === null || plan.kind === 'refused') return null;
    if (batch.parses && source.uses < 1 && !this.#leasesAreTaken()) return null;
    if (!canBeSaidInUtf8(source.rewritten ?? source)) return null;
    const bound = isSame ? last.bound : this.#services.bound.of(source, plan);
    if (bound === null) return null;
    const slot = bound.places === null ? UNREAD : slotOfBind(bound.places, bind);
    if (slot !== UNREAD) return { plan, source, bound, batch, shard: shardOf(this.#kv.view, slot), slot };
    const route = this.#kv.route(this.#kv.bound(plan, source, buffer, batch.bindStart, batch.bindEnd), this.#kv.view);
    if (route.kind !== 'keyed' || !isBatchable(plan, route)) return null;
    return { plan, source, bound, batch, shard: route.shard, slot: route.slots[0]! };
  }

  /** A text seen for the first time runs on a lease, unless there may be none for as long as other clients like. */
  #leasesAreTaken(): boolean {
    return this.#kv.view.shards.some((shard) => this.#services.lane(shard).pool.leasesAreTaken);
  }

  #noteParsed({ batch, source }: MergedUnit): void {
    if (!batch.parses) return;
    this.#session.dropDescription('');
    this.#session.unnamed.set(source);
  }

  /** Its Bind is the one that was read last. */
  #offerOne(unit: MergedUnit): boolean {
    if (this.#prepare(unit, this.#request) < 0) return false;
    this.#begin();
    return true;
  }

  /** Takes a pipeline of reads, if all of it may be merged (D12). Each of its statements is merged by itself. */
  #offerPipeline(units: readonly MergedUnit[], buffer: Buffer): boolean {
    this.#pipeline ??= new MergedPipeline({
      answered: (answer) => this.answered(answer),
      rerun: () => this.rerun(),
      failed: (error) => this.failed(error),
    });
    const pipeline = this.#pipeline;
    pipeline.begin(units.length);
    const [{ source }] = units as [MergedUnit];
    let format = -1;
    for (let index = 0; index < units.length; index++) {
      const unit = units[index]!;
      // All in one batch for each shard: see MergedPipeline.
      if (unit.plan.writes || unit.source !== source) return false;
      bind.readBehindNames(buffer, unit.batch.formatsAt, unit.batch.bindEnd);
      const own = this.#prepare(unit, pipeline.request(index));
      if (own < 0 || (index > 0 && own !== format)) return false;
      format = own;
    }
    this.#phase = 'pipelined';
    pipeline.offer();
    return true;
  }

  /**
   * Takes the values of the Bind that was read into the request, which is then ready to be offered.
   * @returns the format of its result; -1: it may not be merged
   */
  #prepare(unit: MergedUnit, request: ClientRequest): number {
    const { batch, shard, slot } = unit;
    const { shared, constants } = unit.bound;
    const known = this.#usable(shared, shard) ?? this.#askBound(shared, shard);
    if (known === null) return -1;
    const form = known.form!;
    const format = bindValues(request, form, constants, bind);
    if (format < 0 || !this.#complete(request, known, shard, slot, format)) return -1;
    request.prefix = prefixOf(form, batch.parses, batch.describes, format, false);
    return format;
  }

  /** Takes a simple query. False: it may not be merged. */
  offerQuery({ statement, template, buffer, start, end }: Unit, route: Keyed): boolean {
    if (statement === null || buffer[start] !== Frontend.query) return false;
    // `start` and `end` span the one message that is at hand.
    if (this.#phase !== 'idle' || !this.#standsAlone || !isBatchable(statement.plan, route)) return false;
    if (!canBeSaidInUtf8(statement)) return false;
    const { shard } = route;
    const slot = route.slots[0]!;
    // A shape is known by its Template.
    const known = this.#usable(template, shard) ?? this.#askSimple(statement, template, shard);
    if (known === null || !literalValues(this.#request, known.form!, statement.text, statement.literals)) return false;
    if (!this.#complete(this.#request, known, shard, slot, 0)) return false;
    this.#request.prefix = prefixOf(known.form!, false, false, 0, true);
    this.#bytes = end - start;
    this.#begin();
    return true;
  }

  /** A statement is sent on a lease: the one that came back from the lane, or one behind it, whose answer nobody awaits. */
  sentOnLease(): void {
    if (this.#phase === 'returned') this.#phase = 'idle';
    else this.#request.releaseKey();
  }

  #begin(): void {
    this.#phase = 'offered';
    this.#request.queue.offer(this.#request);
  }

  /** What was sent is not cancelled: others' statements are in it. Where it fails as a whole, it is not run again. */
  cancel(): void {
    this.#cancelled = true;
    if (this.#phase === 'pipelined' || !this.#request.withdraw()) return;
    // The old one still stands in its queue, to be passed over.
    this.#request = new ClientRequest(this);
    this.#wasCancelled();
  }

  #wasCancelled(): void {
    const error = encodeError(new PgkvError('cancelled'), 'ERROR');
    this.answered(Buffer.concat([error, READY_IDLE]));
  }

  /** What was run again by itself has ended, if anything was. */
  rerunEnded(): void {
    this.#request.releaseKey();
  }

  abandon(): void {
    this.#abandoned = true;
    this.#request.releaseKey();
    this.#request.dropped = true;
    this.#pipeline?.drop();
    this.#phase = 'idle';
  }

  completed(request: ClientRequest): void {
    this.answered(wholeAnswer(request));
  }

  answered(answer: Buffer): void {
    this.#phase = 'idle';
    this.#cancelled = false;
    const { reader, services, output, takeMessages } = this.#context;
    // It was put back when it was offered.
    if (this.#abandoned || reader.next() === Frame.none) return;
    reader.skipTo(reader.start + this.#bytes);
    services.counters.statements++;
    output.send(answer);
    takeMessages();
  }

  rerun(): void {
    if (this.#cancelled) {
      this.#request.releaseKey();
      this.#wasCancelled();
      return;
    }
    this.#phase = 'returned';
    this.#request.forgetAnswer();
    this.#context.takeMessages();
  }

  failed(error: PgkvError): void {
    this.#request.forgetAnswer();
    this.answered(Buffer.concat([encodeError(error, 'ERROR'), READY_IDLE]));
  }

  #complete(request: ClientRequest, known: MergedStatement, shard: ShardView, slot: HashSlot, format: number): boolean {
    const { lane, settings } = this.#services;
    const shared = settings(this.#session.settings);
    if (shared === null) return false;
    // A rerun that was refused may have been all that the session has sent since.
    request.releaseKey();
    request.queue = lane(shard).queue(known, format, shared);
    request.slot = slot;
    return true;
  }

  /** What is known of the statement where it may be merged now. */
  #usable(identity: object, shard: ShardView): MergedStatement | null {
    const lane = this.#services.lane(shard);
    const known = lane.statement(identity);
    return known.usable(this.#services.clock) && known.schemaEpoch === lane.pool.schemaEpoch ? known : null;
  }

  /** A statement that was unknown is merged now. */
  learnt(): void {
    if (!this.#abandoned) this.#context.lanes.current.reconsider();
  }

  /** Has it found out how a statement is merged, if that is due. */
  #askBound(shared: SharedStatement, shard: ShardView): null {
    const isKnown = shared.wasSeen || !shared.keepsLiterals || this.#leasesAreTaken();
    shared.wasSeen = true;
    if (isKnown && this.#isDue(shared, shard)) this.#learn(shared, shard, shared.template, shared.single);
    this.#services.lane(shard).statement(shared).await(this);
    return null;
  }

  #askSimple({ plan, text, literals }: KvStatement, template: Template, shard: ShardView): null {
    // It is parsed for that, with its literals: a long one waits for a shorter one of its shape.
    if (text.length <= LEARNT_TEXT_MAX && this.#isDue(template, shard)) {
      this.#learn(template, shard, template, singleStatement(plan, text, literals, [], true));
    }
    this.#services.lane(shard).statement(template).await(this);
    return null;
  }

  #isDue(identity: object, shard: ShardView): boolean {
    const { lane, clock } = this.#services;
    const on = lane(shard);
    const known = on.statement(identity);
    const isOld = known.schemaEpoch !== on.pool.schemaEpoch;
    return !known.learning && (known.stage === 'unknown' ? clock.now() >= known.retryAt : isOld);
  }

  /** @param single null: it cannot be run for many */
  #learn(identity: object, shard: ShardView, template: Template, single: SingleStatement | null): void {
    const { sources } = this.#services;
    const settings = this.#services.settings(this.#session.settings);
    if (settings === null) return;
    const lane = this.#services.lane(shard);
    const statement = lane.statement(identity);
    statement.stage = 'unknown';
    const { kv: plan } = template;
    if (single !== null && plan?.kind === 'kv') {
      new MergedLearner({ lane, statement, plan, single, template, sources, settings }).start();
    } else {
      statement.stage = 'single';
      statement.schemaEpoch = lane.pool.schemaEpoch;
    }
  }
}
