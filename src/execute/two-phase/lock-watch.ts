// Ends transactions over several shards that wait for each other, which no server sees (R66). Where a statement of one has been
// under way for a while without an answer, the locks of all shards are looked at, once for all that wait; a circle that was
// there at two looks, by the same waits, is a true one, and its youngest transaction ends by 40P01. Each process ends its own
// transactions, and all come to the same victim. Invariants: one look at a time; nothing is asked while nobody waits, and less often
// while what waits is at work, not for a lock; nothing is cancelled that was not under way when the look began.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { Clock, Random, Timer } from '../../base/clock.js';
import { quoted } from './commit-together.js';
import { type LockMark, LockMarks } from './lock-mark.js';
import { lasting, type ShardLocks, type Victim, victims, type WaitGraph, waitGraph } from './wait-graph.js';

/** A lane that has a branch. */
export interface WatchedPart {
  readonly shardName: string | null;
  readonly connection: ServerConnection | null;
  cancel(): void;
}

export interface WatchedTransaction {
  readonly mark: LockMark;
  readonly isOver: boolean;
  readonly parts: readonly WatchedPart[];
  /** One of them has failed for the sake of others. */
  ended?(): void;
}

export interface LocksLook {
  /** Of all shards that answer in time. */
  look(): Promise<readonly ShardLocks[]>;
}

export interface LockWatchOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly looks: LocksLook;
  ended(detail: string): void;
}

/** Two without an answer, and two looks: under a second. */
const TICK_MS = 300;
/** Between looks that show no wait of this process's own: whoever has been at work for long, and waits then, is seen in 1.2 s. */
const TICKS_BETWEEN_MAX = 4;

/** Whose servers are at work, with the bytes that they had answered. */
type AtWork = ReadonlyMap<ServerConnection, number>;
const NOBODY: AtWork = new Map();

export class LockWatch {
  readonly #options: LockWatchOptions;
  readonly #marks: LockMarks;
  readonly #watched = new Set<WatchedTransaction>();
  /** At the last tick. */
  #atWork = NOBODY;
  /** Those of them that had not said a word since the tick before. */
  #silent: ReadonlySet<ServerConnection> = new Set();
  #before: WaitGraph | null = null;
  #timer: Timer | null = null;
  #isLooking = false;
  #ticksBetween = 1;
  #ticksSince = 0;

  constructor(options: LockWatchOptions) {
    this.#options = options;
    this.#marks = new LockMarks(options.clock, options.random);
  }

  newMark(): LockMark {
    return this.#marks.next();
  }

  /** Until it is over, or forgotten. */
  watch(transaction: WatchedTransaction): void {
    this.#watched.add(transaction);
    this.#timer ??= this.#options.clock.after(TICK_MS, () => this.#tick());
  }

  /** Nobody will say that it is over. */
  forget(transaction: WatchedTransaction): void {
    this.#watched.delete(transaction);
    if (this.#watched.size > 0) return;
    this.#timer?.cancel();
    this.#timer = null;
    this.#rest();
  }

  #tick(): void {
    this.#timer = null;
    for (const one of this.#watched) if (one.isOver) this.#watched.delete(one);
    if (this.#watched.size === 0) return this.#rest();
    this.#timer = this.#options.clock.after(TICK_MS, () => this.#tick());
    const before = this.#silent;
    this.#listen();
    const silent = [...this.#silent];
    if (silent.length === 0) return this.#askNothing();
    if (silent.some((connection) => !before.has(connection))) this.#ticksBetween = 1;
    this.#ticksSince++;
    if (!this.#isLooking && this.#ticksSince >= this.#ticksBetween) this.#look();
  }

  /** Nothing is watched. */
  #rest(): void {
    this.#atWork = NOBODY;
    this.#silent = new Set();
    this.#askNothing();
  }

  #askNothing(): void {
    this.#before = null;
    this.#ticksBetween = 1;
    this.#ticksSince = 0;
  }

  #listen(): void {
    const atWork = new Map<ServerConnection, number>();
    const silent = new Set<ServerConnection>();
    for (const { parts } of this.#watched) {
      for (const { connection } of parts) {
        if (connection === null || connection.replies.length === 0) continue;
        const { bytesReceived } = connection;
        if (this.#atWork.get(connection) === bytesReceived) silent.add(connection);
        atWork.set(connection, bytesReceived);
      }
    }
    this.#atWork = atWork;
    this.#silent = silent;
  }

  #look(): void {
    const atWork = this.#atWork;
    this.#isLooking = true;
    this.#ticksSince = 0;
    this.#options.looks.look().then(
      (shards) => this.#seen(shards, atWork),
      () => this.#seen([], atWork),
    );
  }

  /** @param atWork when the look began */
  #seen(shards: readonly ShardLocks[], atWork: AtWork): void {
    this.#isLooking = false;
    // Over meanwhile.
    if (this.#silent.size === 0) return;
    this.#ticksBetween = this.#isAnyOwn(shards) ? 1 : Math.min(2 * this.#ticksBetween, TICKS_BETWEEN_MAX);
    const before = this.#before;
    const graph = waitGraph(shards);
    this.#before = graph;
    if (before === null) return;
    for (const victim of victims(lasting(before, graph))) this.#end(victim, atWork);
  }

  /** Someone of this process waits for a lock. */
  #isAnyOwn(shards: readonly ShardLocks[]): boolean {
    const waits = new Map(shards.map(({ shardName, waits }) => [shardName, new Set(waits.map(({ pid }) => pid))]));
    for (const { parts } of this.#watched) {
      for (const { shardName, connection } of parts) {
        if (connection !== null && waits.get(shardName ?? '')?.has(connection.pid)) return true;
      }
    }
    return false;
  }

  /** Where it is of this process. What it waited in, as the look has shown, may have ended since: what it runs by now is spared. */
  #end({ mark, waits, count, shardNames }: Victim, atWork: AtWork): void {
    const found = [...this.#watched].find((one) => one.mark === mark && !one.isOver);
    const stillWaiting = found?.parts.filter(({ shardName, connection }) => {
      if (connection === null || connection.replies.length === 0) return false;
      if (atWork.get(connection) !== connection.bytesReceived) return false;
      return waits.some((wait) => wait.shardName === shardName && wait.pid === connection.pid);
    });
    if (found === undefined || stillWaiting === undefined || stillWaiting.length === 0) return;
    const detail = `It is the last to have reached a second shard, of ${count} transactions that wait for each other on shards ${quoted(shardNames)}.`;
    for (const part of stillWaiting) {
      part.connection!.deadlock = { detail, told: () => found.ended?.() };
      part.cancel();
    }
    this.#before = null;
    this.#options.ended(detail);
  }
}
