// The merged lane (D11): statements on one key, of many clients, run as few. One lane per server and log-in: all its
// connections belong to the clients' own role, so that privileges and policies are those of each client. Requests queue by
// statement, result format and settings (merged-queue.ts). What comes in during one turn of the event loop goes out together
// behind it, unless one comes after the other, each alone (R37); while as many batches as may be are under way, the next one
// gathers. No timers but that of lane-deadlines.ts.
// Owns what its queues share: which keys are being written, and whose turn it is. Invariant: a key in `writing` belongs to
// one batch under way, or to one member that runs by itself.

import { LRUCache } from 'lru-cache';
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import type { Clock } from '../../base/clock.js';
import type { Counters } from '../../telemetry/counters.js';
import { nameOfForm } from './form-name.js';
import type { LaneDeadlines } from './lane-deadlines.js';
import { MergedBatch, type Reruns } from './merged-batch.js';
import { type MergedLimits, MergedQueue, type QueueLane } from './merged-queue.js';
import type { MergedRequest, RequestQueue } from './merged-request.js';
import { MergedStatement } from './merged-statement.js';

/**
 * A batch of reads is worth most of what it can be at 64 members; more of them under way keep servers and clients at work at
 * the same time (pipelines: 0.85 instead of 0.66 of direct with 256 members and two under way). A commit costs the same
 * for any number: one batch of writes is under way, and another only when it is full (R44).
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

/** Batches that have ended and wait to be used again: as many as are under way at a time with few clients, who feel it. */
const BATCHES_KEPT = 4;

/** Statements that other workers may find in a lane. */
const NAMED_MAX = 1_024;

/** Where requests wait that would wait in the queue if this process were alone. */
export type ShareQueue = (own: MergedQueue) => RequestQueue;

export class MergedLane implements QueueLane {
  readonly pool: NodePool;
  readonly group: PoolGroup;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly deadlines: LaneDeadlines;
  readonly limits: MergedLimits;
  readonly #later: (task: () => void) => void;
  readonly #share: ShareQueue | null;
  #scheduled: MergedQueue[] = [];
  /**
   * Keys that batches under way write, of whatever statement: a second write would only wait for the first one's lock. And
   * keys of members that run by themselves since their batch failed: somebody may keep such a key locked for long, and
   * each batch with a write of it would wait for nothing, strangers with it.
   */
  readonly writing = new Set<string>();
  /** Queues whose requests wait for such keys. */
  readonly #waiting = new Set<MergedQueue>();

  readonly #batches: MergedBatch[] = [];
  readonly #statements = new WeakMap<object, MergedStatement>();
  readonly #named: LRUCache<string, WeakRef<MergedStatement>> | null;

  /** @param later runs a task behind the events that are being handled: setImmediate */
  constructor(options: {
    pool: NodePool;
    group: PoolGroup;
    clock: Clock;
    counters: Counters;
    deadlines: LaneDeadlines;
    limits: MergedLimits;
    later: (task: () => void) => void;
    share: ShareQueue | null;
  }) {
    this.pool = options.pool;
    this.group = options.group;
    this.clock = options.clock;
    this.counters = options.counters;
    this.deadlines = options.deadlines;
    this.limits = options.limits;
    this.#later = options.later;
    this.#share = options.share;
    this.#named = options.share === null ? null : new LRUCache({ max: NAMED_MAX });
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

  /** Other workers may find it from now on. */
  learnt(statement: MergedStatement): void {
    this.#named?.set(nameOfForm(statement.form!, statement.table), new WeakRef(statement));
  }

  /** A statement that clients of this worker use, by what others call it. */
  find(name: string): MergedStatement | null {
    const found = this.#named?.get(name)?.deref();
    // It may have been learnt otherwise since.
    const isSo = found?.stage === 'merged' && nameOfForm(found.form!, found.table) === name;
    return isSo ? found : null;
  }

  /** Where requests for a statement wait under a result format and settings. */
  queue(statement: MergedStatement, format: number, settings: SettingsGroup): RequestQueue {
    const known = statement.queues[format === 1 ? 1 : 0].get(settings);
    if (known !== undefined) return known;
    const queues = statement.ownQueues(format === 1 ? 1 : 0);
    if (queues.size >= QUEUES_KEPT) {
      for (const [group, queue] of queues) if (queue.isIdle) queues.delete(group);
    }
    const own = new MergedQueue(this, statement, format, settings);
    const added = this.#share === null ? own : this.#share(own);
    queues.set(settings, added);
    return added;
  }

  newBatch(): MergedBatch {
    return this.#batches.pop() ?? new MergedBatch();
  }

  keepBatch(batch: MergedBatch): void {
    if (this.#batches.length < BATCHES_KEPT) this.#batches.push(batch);
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

  waits(queue: MergedQueue): void {
    this.#waiting.add(queue);
  }

  written(members: readonly MergedRequest[], reruns: Reruns): void {
    for (const member of members) {
      const runsAgain = reruns === 'all' || (reruns === 'absent' && member.rows === 0);
      if (runsAgain && !member.dropped) member.holdsKey = true;
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
}
