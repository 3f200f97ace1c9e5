// The merged lane (D11): statements on one key, of many clients, run as few. One lane per server and log-in: all its
// connections belong to the clients' own role, so that privileges and policies are those of each client. Requests queue by
// statement, result format and settings. What comes in during one turn of the event loop goes out together behind it;
// while as many batches as may be are under way, the next one gathers. No timers.

import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import type { Clock } from '../../base/clock.js';
import type { Counters } from '../../telemetry/counters.js';
import { MergedBatch } from './merged-batch.js';
import type { MergedRequest } from './merged-request.js';
import { MergedStatement } from './merged-statement.js';

export interface MergedLimits {
  /** Members of one batch, and bytes of their values. */
  readonly readMembersMax: number;
  readonly writeMembersMax: number;
  readonly bytesMax: number;
  /** Bytes expected of one batch's answer. */
  readonly answerBytesMax: number;
  /** Batches of one statement under way. */
  readonly readsInFlight: number;
  readonly writesInFlight: number;
}

/**
 * A batch of reads is worth most of what it can be at 64 members; more of them under way keep servers and clients at work at
 * the same time (pipelines: 0.85 instead of 0.66 of direct with 256 members and two under way). A commit costs the same
 * for any number.
 */
export const MERGED_LIMITS: MergedLimits = {
  readMembersMax: 64,
  writeMembersMax: 256,
  bytesMax: 256 * 1024,
  answerBytesMax: 1024 * 1024,
  readsInFlight: 3,
  writesInFlight: 2,
};

/**
 * Queues of one statement and format, one for each settings group, from which on those that nobody is in are dropped:
 * sessions' settings come and go. More than there are groups at a time (merged-lanes.ts).
 */
const QUEUES_KEPT = 16;

export class MergedLane {
  readonly pool: NodePool;
  readonly group: PoolGroup;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly limits: MergedLimits;
  readonly #later: (task: () => void) => void;
  #scheduled: MergedQueue[] = [];
  /**
   * Keys that batches under way write, of whatever statement: a second write would only wait for the first one's lock. And
   * keys of members that run by themselves since their batch failed: somebody may keep such a key locked for long, and
   * each batch with a write of it would wait for nothing, strangers with it.
   */
  readonly writing = new Set<string>();
  /** Queues whose requests wait for such keys. */
  readonly #waiting = new Set<MergedQueue>();

  readonly #statements = new WeakMap<object, MergedStatement>();

  /** @param later runs a task behind the events that are being handled: setImmediate */
  constructor(options: {
    pool: NodePool;
    group: PoolGroup;
    clock: Clock;
    counters: Counters;
    limits: MergedLimits;
    later: (task: () => void) => void;
  }) {
    this.pool = options.pool;
    this.group = options.group;
    this.clock = options.clock;
    this.counters = options.counters;
    this.limits = options.limits;
    this.#later = options.later;
  }

  /** What is known of a statement, by what stands for it elsewhere: a StatementSource or a Template. */
  statement(identity: object): MergedStatement {
    let statement = this.#statements.get(identity);
    if (statement === undefined) {
      statement = new MergedStatement();
      this.#statements.set(identity, statement);
    }
    return statement;
  }

  /** Where requests for a statement wait under a result format and settings. */
  queue(statement: MergedStatement, format: number, settings: SettingsGroup): MergedQueue {
    const first = statement.queues[format] ?? null;
    let count = 0;
    for (let queue = first; queue !== null; queue = queue.next) {
      if (queue.settings === settings) return queue;
      count++;
    }
    const added = new MergedQueue(this, statement, format, settings);
    if (first === null) statement.queues[format] = added;
    else {
      if (count >= QUEUES_KEPT) first.dropIdle();
      added.next = first.next;
      first.next = added;
    }
    return added;
  }

  schedule(queue: MergedQueue): void {
    if (queue.scheduled) return;
    queue.scheduled = true;
    this.#scheduled.push(queue);
    if (this.#scheduled.length === 1) this.#later(this.#flush);
  }

  readonly #flush = (): void => {
    const queues = this.#scheduled;
    this.#scheduled = [];
    for (const queue of queues) {
      queue.scheduled = false;
      queue.flush();
    }
  };

  /** The queue's requests are all for keys that are being written. */
  waits(queue: MergedQueue): void {
    this.#waiting.add(queue);
  }

  /** A batch has ended; with `reruns` its members run by themselves now. */
  written(members: readonly MergedRequest[], reruns: boolean): void {
    for (const member of members) {
      if (reruns && !member.dropped) member.holdsKey = true;
      else this.writing.delete(member.key);
    }
    this.#wake();
  }

  release(request: MergedRequest): void {
    request.holdsKey = false;
    this.writing.delete(request.key);
    this.#wake();
  }

  #wake(): void {
    for (const queue of this.#waiting) this.schedule(queue);
    this.#waiting.clear();
  }

  giveBack(connection: ServerConnection): void {
    this.pool.release(connection, this.group);
  }
}

/** Requests for one statement under one format and settings group. */
export class MergedQueue {
  readonly lane: MergedLane;
  readonly statement: MergedStatement;
  readonly format: number;
  readonly settings: SettingsGroup;
  readonly writes: boolean;
  pending: MergedRequest[] = [];
  scheduled = false;
  /** The queue for the next settings group of the same statement. */
  next: MergedQueue | null = null;
  #inFlight = 0;

  constructor(lane: MergedLane, statement: MergedStatement, format: number, settings: SettingsGroup) {
    this.lane = lane;
    this.statement = statement;
    this.format = format;
    this.settings = settings;
    this.writes = statement.form!.plan.writes;
  }

  /** Of those behind this one, the queues that nobody is in: they are made again when they are needed. */
  dropIdle(): void {
    let kept: MergedQueue = this;
    while (kept.next !== null) {
      const { next } = kept;
      if (next.pending.length === 0 && next.#inFlight === 0) kept.next = next.next;
      else kept = next;
    }
  }

  /** Takes a request; its client hears of it later, never from within this call. */
  offer(request: MergedRequest): void {
    request.form = this.statement.form;
    request.key = '';
    request.sent = false;
    request.dropped = false;
    this.pending.push(request);
    this.lane.schedule(this);
  }

  /** Sends what waits, as far as batches may be under way. */
  flush(): void {
    const { readsInFlight, writesInFlight } = this.lane.limits;
    const inFlightMax = this.writes ? writesInFlight : readsInFlight;
    while (this.pending.length > 0 && this.#inFlight < inFlightMax) {
      const members = this.#take();
      if (members.length === 0) {
        if (this.pending.length > 0) this.lane.waits(this);
        return;
      }
      this.#inFlight++;
      new MergedBatch(this, members).start();
    }
  }

  /** @param members as they were taken, those that were dropped later included */
  batchEnded(members: readonly MergedRequest[], reruns: boolean): void {
    this.#inFlight--;
    if (this.writes) this.lane.written(members, reruns);
    if (this.pending.length > 0) this.lane.schedule(this);
  }

  /** The oldest requests that fit in one batch. Of those that write the same key one goes, the others wait (rule 3). */
  #take(): MergedRequest[] {
    const { readMembersMax, writeMembersMax, bytesMax, answerBytesMax } = this.lane.limits;
    const { pending, statement, writes } = this;
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
        if (request.key === '') request.key = keyOf(request);
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
    this.pending = left;
    // Rows are locked in one order by all batches.
    if (writes && taken.length > 1) taken.sort(byKey);
    return taken;
  }
}

function keyOf({ statement, form, buffer, offsets }: MergedRequest): string {
  const [tenant, key] = form!.plan.keyValues;
  const part = (value: number): string =>
    value < 0 ? '' : buffer.toString('latin1', offsets[2 * value], offsets[2 * value]! + offsets[2 * value + 1]!);
  const { schema, name } = statement.table;
  return `${schema}.${name}\0${part(tenant)}\0${part(key)}`;
}

/** By the bytes of the keys, which is one order for all batches. */
const byKey = (a: MergedRequest, b: MergedRequest): number => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
