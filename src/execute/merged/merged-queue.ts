// The requests for one statement under one result format and settings group, from which batches are taken: while as many are
// under way as may be, the next one gathers. Owns the order in which they go (rule 3: of writes of one key one at a time).
// A request that was taken is its batch's; what is left waits until a batch ends, or a key it wants to write is free.
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import type { Clock } from '../../base/clock.js';
import type { Counters } from '../../telemetry/counters.js';
import type { LaneDeadlines } from './lane-deadlines.js';
import type { BatchHost, MergedBatch, Reruns } from './merged-batch.js';
import type { MergedRequest, RequestQueue } from './merged-request.js';
import type { MergedStatement } from './merged-statement.js';

/** From so many statements on, each by itself, the next is sent by itself at once: with more clients it would go with others'. */
const LONE_AFTER = 8;

export interface MergedLimits {
  /** Members of one batch, and bytes of their values. */
  readonly readMembersMax: number;
  readonly writeMembersMax: number;
  readonly bytesMax: number;
  /** Bytes expected of one batch's answer. */
  readonly answerBytesMax: number;
  /** Batches of one statement under way; of writes, those beside the first go only when they are full (R44). */
  readonly readsInFlight: number;
  readonly writesInFlight: number;
}

/** What a queue has of its lane. */
export interface QueueLane {
  readonly pool: NodePool;
  readonly group: PoolGroup;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly deadlines: LaneDeadlines;
  readonly limits: MergedLimits;
  /** Keys that may not be written now, by whatever statement. */
  readonly writing: Set<string>;
  newBatch(): MergedBatch;
  keepBatch(batch: MergedBatch): void;
  /** Calls `flush` soon, behind the events that are being handled. */
  schedule(queue: MergedQueue): void;
  /** Its requests are all for keys that are being written. */
  waits(queue: MergedQueue): void;
  /** A batch of writes has ended. */
  written(members: readonly MergedRequest[], reruns: Reruns): void;
  release(request: MergedRequest): void;
}

export class MergedQueue implements RequestQueue, BatchHost {
  readonly lane: QueueLane;
  readonly statement: MergedStatement;
  readonly format: number;
  readonly settings: SettingsGroup;
  readonly writes: boolean;
  /** Whether the lane has it among those it will flush. */
  scheduled = false;
  #pending: MergedRequest[] = [];
  #inFlight = 0;
  /** Batches of one, since the last at whose end there was anybody else. */
  #sentAlone = 0;

  constructor(lane: QueueLane, statement: MergedStatement, format: number, settings: SettingsGroup) {
    this.lane = lane;
    this.statement = statement;
    this.format = format;
    this.settings = settings;
    this.writes = statement.form!.plan.writes;
  }

  get isIdle(): boolean {
    return this.#pending.length === 0 && this.#inFlight === 0;
  }

  offer(request: MergedRequest): void {
    request.form = this.statement.form;
    request.key = '';
    request.sent = false;
    request.dropped = false;
    if (this.#sentAlone >= LONE_AFTER && this.#sendAlone(request)) return;
    this.#pending.push(request);
    this.lane.schedule(this);
  }

  /**
   * Where one statement has followed the other for a while, each by itself, there is nobody for whom the next one would have to
   * wait until the turn of the event loop is over. False: it may not go by itself, or not at once.
   */
  #sendAlone(request: MergedRequest): boolean {
    const { lane, settings, statement, writes } = this;
    const isFree = this.#inFlight === 0 && this.#pending.length === 0 && statement.stage === 'merged';
    // Of a group more are to come, and go with it.
    if (!isFree || request.group !== null) return false;
    if (writes) {
      request.key = this.#keyOf(request);
      if (lane.writing.has(request.key)) return false;
    }
    const connection = lane.pool.takeIdle(lane.group, settings);
    if (connection === null) return false;
    if (writes) lane.writing.add(request.key);
    this.#inFlight++;
    lane.newBatch().startOn(connection, this, [request]);
    return true;
  }

  release(request: MergedRequest): void {
    this.lane.release(request);
  }

  withdraw(_request: MergedRequest): void {
    // What a server has is not taken back.
  }

  /** Sends what waits, as far as batches may be under way. */
  flush(): void {
    while (this.#pending.length > 0 && this.#inFlight < this.#inFlightMax()) {
      const members = this.#take();
      if (members.length === 0) {
        if (this.#pending.length > 0) this.lane.waits(this);
        return;
      }
      this.#inFlight++;
      this.lane.newBatch().start(this, members);
    }
  }

  /** A commit costs the server the same for one write as for many: what waits for the one under way goes in one. */
  #inFlightMax(): number {
    const { readsInFlight, writesInFlight, writeMembersMax } = this.lane.limits;
    if (!this.writes) return readsInFlight;
    return this.#pending.length < writeMembersMax ? 1 : writesInFlight;
  }

  batchEnded(members: readonly MergedRequest[], reruns: Reruns): void {
    this.#inFlight--;
    const wasAlone = members.length === 1 && this.#inFlight === 0 && this.#pending.length === 0;
    this.#sentAlone = wasAlone ? this.#sentAlone + 1 : 0;
    if (this.writes) this.lane.written(members, reruns);
    if (this.#pending.length > 0) this.lane.schedule(this);
  }

  /** The oldest requests that fit in one batch. Of those that write the same key one goes, the others wait (rule 3). */
  #take(): MergedRequest[] {
    const { readMembersMax, writeMembersMax, bytesMax, answerBytesMax } = this.lane.limits;
    const { statement, writes } = this;
    const pending = this.#pending;
    if (pending.length === 1 && this.#takeOnly(pending[0]!)) {
      this.#pending = [];
      return pending;
    }
    const expected = Math.max(1, Math.floor(answerBytesMax / statement.answerBytes));
    const most = Math.min(writes ? writeMembersMax : readMembersMax, expected);
    const taken: MergedRequest[] = [];
    const left: MergedRequest[] = [];
    const { writing } = this.lane;
    let bytes = 0;
    let index = 0;
    let group: object | null = null;
    for (; index < pending.length; index++) {
      const request = pending[index]!;
      const isFull = taken.length >= most || bytes >= bytesMax;
      if (isFull && (group === null || request.group !== group)) break;
      if (request.dropped) continue;
      group = request.group;
      if (writes) {
        if (request.key === '') request.key = this.#keyOf(request);
        if (writing.has(request.key)) {
          left.push(request);
          continue;
        }
        writing.add(request.key);
      }
      bytes += request.bytes;
      taken.push(request);
    }
    for (; index < pending.length; index++) left.push(pending[index]!);
    this.#pending = left;
    // Rows are locked in one order by all batches.
    if (writes && taken.length > 1) taken.sort(byKey);
    return taken;
  }

  /** The same for the only one that waits. False: it is not to go. */
  #takeOnly(request: MergedRequest): boolean {
    if (request.dropped) return false;
    if (!this.writes) return true;
    if (request.key === '') request.key = this.#keyOf(request);
    const { writing } = this.lane;
    if (writing.has(request.key)) return false;
    writing.add(request.key);
    return true;
  }

  #keyOf(request: MergedRequest): string {
    const [tenant, key] = request.form!.plan.keyValues;
    const { schema, name } = this.statement.table;
    return `${schema}.${name}\0${valueText(request, tenant)}\0${valueText(request, key)}`;
  }
}

function valueText(request: MergedRequest, value: number): string {
  const start = request.offsets[2 * value]!;
  return request.bufferOf(value).toString('latin1', start, start + request.offsets[2 * value + 1]!);
}

/** By the bytes of the keys, which is one order for all batches. */
const byKey = (a: MergedRequest, b: MergedRequest): number => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
