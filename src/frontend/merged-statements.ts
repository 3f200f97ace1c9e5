// A conversation's way into the merged lane: decides whether the statement at hand may go there, reads its values, and
// takes the answer. One statement at a time; the message stays unread until it is answered, so that a statement that has
// to be run by itself after all is simply taken up again.

import type { SettingsGroup } from '../backend/settings-group.js';
import type { StatementSource, StatementSources } from '../backend/statement-source.js';
import type { Clock } from '../base/clock.js';
import { PgkvError } from '../base/errors.js';
import type { HashSlot, ShardView } from '../cluster/cluster-view.js';
import type { MergedLane } from '../execute/merged/merged-lane.js';
import { MergedLearner } from '../execute/merged/merged-learner.js';
import { MergedPipeline } from '../execute/merged/merged-pipeline.js';
import { type MergedClient, MergedRequest, VALUES_MAX } from '../execute/merged/merged-request.js';
import type { MergedStatement } from '../execute/merged/merged-statement.js';
import { TypeOid } from '../execute/scatter/builtin-types.js';
import { literalValue } from '../route/key-values.js';
import type { Route } from '../route/route.js';
import type { Session } from '../session/session.js';
import type { KvPlan } from '../sql/kv-plan.js';
import { singleStatement } from '../sql/merge-statement.js';
import { LITERAL_STRIDE } from '../sql/shape-lexer.js';
import { encodeError, READY_IDLE } from '../wire/server-messages.js';
import type { ExtendedProtocol } from './extended-protocol.js';
import type { KvStatement, KvStatements } from './kv-statements.js';
import { type SingleBatch, scanPipeline, scanSingleBatch } from './single-batch.js';

export interface MergedHost {
  /** The message at hand was answered with these bytes; `bytes` of it are to be skipped. */
  answered(answer: Buffer): void;
  /** The message is to be taken up again, and run on a lease. */
  rerun(): void;
}

/** Where and under what a session's statements are merged. */
export interface MergedServices {
  lane(shard: ShardView): MergedLane;
  settings(of: SettingsGroup): SettingsGroup | null;
  readonly clock: Clock;
  readonly sources: StatementSources;
}

/** One statement of a batch, and where its key is. */
export interface MergedUnit {
  readonly statement: KvStatement;
  readonly source: StatementSource;
  readonly batch: SingleBatch;
  readonly shard: ShardView;
  readonly slot: HashSlot;
}

type Keyed = Route & { kind: 'keyed' };

/** Of statements that write, those on one key, which is no NULL; of reads, all whose keys one shard holds. */
const isMergeable = ({ writes, keys }: KvPlan, { slots }: Keyed): boolean =>
  slots.length > 0 && (!writes || (slots.length === 1 && keys?.length === 1));

/** Values of one statement beyond this are not gathered with others'. */
const VALUE_BYTES_MAX = 64 * 1024;
const JSONB_OID = 3802;
const NULL_LENGTH = -1;

export class MergedStatements implements MergedClient {
  /** A statement is under way. */
  busy = false;
  /** The client has cancelled what is under way. */
  #cancelled = false;
  readonly #host: MergedHost;
  readonly #session: Session;
  readonly #kv: KvStatements;
  readonly #extended: ExtendedProtocol;
  readonly #services: MergedServices;
  #request: MergedRequest;
  #pipeline: MergedPipeline | null = null;

  constructor(
    host: MergedHost,
    session: Session,
    services: MergedServices,
    kv: KvStatements,
    extended: ExtendedProtocol,
  ) {
    this.#kv = kv;
    this.#extended = extended;
    this.#host = host;
    this.#session = session;
    this.#services = services;
    this.#request = new MergedRequest(this);
  }

  /**
   * Takes the batch or pipeline at `start`, the last messages there are, if all of it may be merged.
   * @returns its bytes; 0: it may not
   */
  offer(buffer: Buffer, start: number): number {
    const batch = scanSingleBatch(buffer, start);
    if (batch !== null && batch.end !== buffer.length) return 0;
    const batches = batch === null ? scanPipeline(buffer, start) : [batch];
    if (batches === null) return 0;
    const units: MergedUnit[] = [];
    let parsed = false;
    for (const one of batches) {
      // An unnamed statement that the pipeline itself has parsed is not the session's yet.
      if (parsed && !one.parses && one.nameEnd === one.nameStart) return 0;
      parsed ||= one.parses;
      const unit = this.#unit(buffer, one);
      if (unit === null) return 0;
      units.push(unit);
    }
    if (!(units.length === 1 ? this.#offerOne(units[0]!, buffer) : this.#offerPipeline(units, buffer))) return 0;
    for (const unit of units) this.#noteParsed(unit);
    return buffer.length - start;
  }

  #unit(buffer: Buffer, batch: SingleBatch): MergedUnit | null {
    if (!batch.all) return null;
    const source = this.#extended.batchSource(buffer, batch);
    const plan = source?.template.kv ?? null;
    if (source === null || plan === null || plan.kind === 'refused') return null;
    const statement = this.#kv.bound(plan, source, buffer, batch.bindStart, batch.bindEnd);
    const route = this.#kv.route(statement);
    if (route.kind !== 'keyed' || !isMergeable(plan, route)) return null;
    return { statement, source, batch, shard: route.shard, slot: route.slots[0]! };
  }

  #noteParsed({ batch, source }: MergedUnit): void {
    if (!batch.parses) return;
    this.#session.dropDescription('');
    this.#session.unnamed.set(source);
  }

  #offerOne(unit: MergedUnit, buffer: Buffer): boolean {
    const offer = this.#prepare(unit, buffer, this.#request);
    if (offer === null) return false;
    this.busy = true;
    offer();
    return true;
  }

  /** Takes a pipeline of reads, if all of it may be merged (D12). Each of its statements is merged by itself. */
  #offerPipeline(units: readonly MergedUnit[], buffer: Buffer): boolean {
    const pipeline = new MergedPipeline(units.length, {
      answered: (answer) => this.answered(answer),
      rerun: () => this.rerun(),
    });
    const offers: (() => void)[] = [];
    const [first] = units;
    const format = resultFormat(buffer, first!.batch.bindEnd, first!.batch.formatsAt);
    for (const [index, unit] of units.entries()) {
      const { statement, source, batch } = unit;
      // All in one batch for each shard: see MergedPipeline.
      if (statement.plan.writes || source !== first!.source) return false;
      if (resultFormat(buffer, batch.bindEnd, batch.formatsAt) !== format) return false;
      const offer = this.#prepare(unit, buffer, pipeline.request(index));
      if (offer === null) return false;
      offers.push(offer);
    }
    this.busy = true;
    this.#pipeline = pipeline;
    for (const offer of offers) offer();
    return true;
  }

  /** Reads the values into the request; what is returned sends it on its way. */
  #prepare(
    { statement, source, batch, shard, slot }: MergedUnit,
    buffer: Buffer,
    request: MergedRequest,
  ): (() => void) | null {
    const known = this.#usable(statement, source, shard);
    if (known === null) return null;
    const format = resultFormat(buffer, batch.bindEnd, batch.formatsAt);
    if (format < 0 || !bindValues(request, known, buffer, batch)) return null;
    return this.#offer(request, known, shard, slot, format, known.prefix(batch.parses, batch.describes, format, false));
  }

  /** The same for a simple query. @param identity stands for its shape: its Template */
  offerQuery(statement: KvStatement, identity: object, route: Keyed): boolean {
    if (!isMergeable(statement.plan, route)) return false;
    const { shard } = route;
    const slot = route.slots[0]!;
    const known = this.#usable(statement, identity, shard);
    if (known === null || !literalValues(this.#request, known, statement)) return false;
    const offer = this.#offer(this.#request, known, shard, slot, 0, known.prefix(false, false, 0, true));
    if (offer === null) return false;
    this.busy = true;
    offer();
    return true;
  }

  /** CancelRequest: whether the statement was taken back before it was sent. */
  cancel(): void {
    if (!this.busy) return;
    // What was sent is not cancelled: others' statements are in it. Where it fails as a whole, it is not run again.
    this.#cancelled = true;
    if (this.#pipeline !== null || !this.#request.withdraw()) return;
    // The old one still stands in its queue, to be passed over.
    this.#request = new MergedRequest(this);
    this.#wasCancelled();
  }

  #wasCancelled(): void {
    const error = encodeError(new PgkvError('cancelled'), 'ERROR');
    this.answered(Buffer.concat([error, READY_IDLE]));
  }

  /** The client is gone. */
  abandon(): void {
    this.#request.dropped = true;
    this.#pipeline?.drop();
    this.#pipeline = null;
    this.busy = false;
  }

  answered(answer: Buffer): void {
    this.busy = this.#cancelled = false;
    this.#pipeline = null;
    this.#host.answered(answer);
  }

  rerun(): void {
    if (this.#cancelled) {
      this.#wasCancelled();
      return;
    }
    this.busy = false;
    this.#pipeline = null;
    this.#host.rerun();
  }

  unknown(detail: string): void {
    const error = encodeError(new PgkvError('outcome_unknown', { detail }), 'ERROR');
    this.answered(Buffer.concat([error, READY_IDLE]));
  }

  #offer(
    request: MergedRequest,
    known: MergedStatement,
    shard: ShardView,
    slot: HashSlot,
    format: number,
    prefix: Buffer,
  ): (() => void) | null {
    const { lane, settings } = this.#services;
    const shared = settings(this.#session.settings);
    if (shared === null) return null;
    request.statement = known;
    request.slot = slot;
    request.prefix = prefix;
    return () => lane(shard).offer(request, format, shared);
  }

  /** What is known of the statement where it may be merged; else null, and where nothing is known it is found out. */
  #usable(statement: KvStatement, identity: object, shard: ShardView): MergedStatement | null {
    const { lane, clock, settings } = this.#services;
    const on = lane(shard);
    const known = on.statement(identity);
    if (known.usable(clock.now()) && known.schemaEpoch === on.pool.schemaEpoch) return known;
    const isOld = known.schemaEpoch !== on.pool.schemaEpoch;
    const isDue = known.stage === 'unknown' ? clock.now() >= known.retryAt : isOld;
    if (!known.learning && isDue) {
      const shared = settings(this.#session.settings);
      if (shared !== null) this.#learn(on, known, statement, shared);
    }
    return null;
  }

  #learn(lane: MergedLane, known: MergedStatement, statement: KvStatement, settings: SettingsGroup): void {
    const { plan, text, literals, source } = statement;
    known.stage = 'unknown';
    const single = singleStatement(plan, text, literals, source?.parameterTypes ?? [], source === null);
    if (single === null) {
      known.stage = 'single';
      known.schemaEpoch = lane.pool.schemaEpoch;
      return;
    }
    new MergedLearner({ lane, statement: known, plan, single, sources: this.#services.sources, settings }).start();
  }
}

/** Values as they stand in the Bind: text as it is, some types of binary as text. */
function bindValues(request: MergedRequest, known: MergedStatement, buffer: Buffer, batch: SingleBatch): boolean {
  const { types, plan } = known.form!;
  const count = plan.refs.length;
  // The message was walked to its end by resultFormat: every value lies within it.
  const formats = buffer.readUInt16BE(batch.formatsAt);
  let at = batch.formatsAt + 2 + 2 * formats;
  if (buffer.readUInt16BE(at) !== count || (formats > 1 && formats !== count)) return false;
  for (let format = 0; format < formats; format++) {
    if (buffer.readUInt16BE(batch.formatsAt + 2 + 2 * format) > 1) return false;
  }
  at += 2;
  const { offsets } = request;
  let converted: Buffer[] | null = null;
  let bytes = 0;
  for (let value = 0; value < count; value++) {
    const length = buffer.readInt32BE(at);
    at += 4;
    const isBinary = formats > 0 && buffer.readUInt16BE(batch.formatsAt + 2 + (formats === 1 ? 0 : 2 * value)) === 1;
    offsets[2 * value] = at;
    offsets[2 * value + 1] = length < 0 ? NULL_LENGTH : length;
    if (length > 0 && isBinary && !isTextual(types[value]!)) {
      if (types[value] === JSONB_OID && buffer[at] === 1) {
        offsets[2 * value] = at + 1;
        offsets[2 * value + 1] = length - 1;
      } else {
        const text = binaryToText(types[value]!, buffer, at, length);
        if (text === null) return false;
        // Put behind the message's own bytes below.
        converted ??= [];
        offsets[2 * value] = -1 - converted.length;
        offsets[2 * value + 1] = text.length;
        converted.push(text);
      }
    }
    bytes += Math.max(0, offsets[2 * value + 1]!);
    if (length > 0) at += length;
  }
  if (bytes > VALUE_BYTES_MAX) return false;
  request.bytes = bytes;
  request.buffer = converted === null ? buffer : withConverted(buffer, converted, offsets, count);
  return true;
}

function literalValues(request: MergedRequest, known: MergedStatement, { text, literals }: KvStatement): boolean {
  const { refs } = known.form!.plan;
  const values: string[] = [];
  let bytes = 0;
  for (const [index, ref] of refs.entries()) {
    if (ref.kind !== 'literal') return false;
    const at = ref.index * LITERAL_STRIDE;
    const value = literalValue(text.slice(literals[at], literals[at + 1]), literals[at + 2]!);
    if (value === null) return false;
    const length = Buffer.byteLength(value);
    request.offsets[2 * index] = bytes;
    request.offsets[2 * index + 1] = length;
    bytes += length;
    values.push(value);
  }
  if (bytes > VALUE_BYTES_MAX || refs.length > VALUES_MAX) return false;
  request.bytes = bytes;
  request.buffer = Buffer.from(values.join(''), 'utf8');
  return true;
}

/** One format for all result columns: 0 or 1; -1 where they differ, or where the message is not as it should be. */
function resultFormat(buffer: Buffer, bindEnd: number, formatsAt: number): number {
  if (formatsAt + 2 > bindEnd) return -1;
  let at = formatsAt + 2 + 2 * buffer.readUInt16BE(formatsAt);
  if (at + 2 > bindEnd) return -1;
  let left = buffer.readUInt16BE(at);
  at += 2;
  for (; left > 0; left--) {
    if (at + 4 > bindEnd) return -1;
    at += 4 + Math.max(0, buffer.readInt32BE(at));
  }
  if (at + 2 > bindEnd) return -1;
  const count = buffer.readUInt16BE(at);
  if (at + 2 + 2 * count !== bindEnd) return -1;
  if (count === 0) return 0;
  const format = buffer.readUInt16BE(at + 2);
  for (let index = 1; index < count; index++) if (buffer.readUInt16BE(at + 2 + 2 * index) !== format) return -1;
  return format > 1 ? -1 : format;
}

const isTextual = (type: number): boolean =>
  type === TypeOid.text || type === TypeOid.varchar || type === TypeOid.unknown;

/** A value in binary format as its text; null for types that are not read here. */
function binaryToText(type: number, buffer: Buffer, at: number, length: number): Buffer | null {
  switch (type) {
    case TypeOid.int8:
      return length === 8 ? Buffer.from(buffer.readBigInt64BE(at).toString(), 'latin1') : null;
    case TypeOid.int4:
      return length === 4 ? Buffer.from(String(buffer.readInt32BE(at)), 'latin1') : null;
    case TypeOid.int2:
      return length === 2 ? Buffer.from(String(buffer.readInt16BE(at)), 'latin1') : null;
    case TypeOid.bool:
      return length === 1 ? Buffer.from(buffer[at] === 0 ? 'f' : 't', 'latin1') : null;
    case TypeOid.bytea:
      return Buffer.from(`\\x${buffer.toString('hex', at, at + length)}`, 'latin1');
    default:
      return null;
  }
}

/** All values in one buffer: converted ones stand behind the others, and their offsets are put right. */
function withConverted(buffer: Buffer, converted: readonly Buffer[], offsets: Int32Array, count: number): Buffer {
  const joined = Buffer.concat([buffer, ...converted]);
  const starts: number[] = [];
  let at = buffer.length;
  for (const { length } of converted) {
    starts.push(at);
    at += length;
  }
  for (let value = 0; value < count; value++) {
    const offset = offsets[2 * value]!;
    if (offset < 0) offsets[2 * value] = starts[-1 - offset]!;
  }
  return joined;
}
