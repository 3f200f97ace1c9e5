// Ends transactions over several shards that wait for each other, which no server sees (R66). Where a statement of one has been
// under way for a while without an answer, the locks of all shards are looked at, once for all that wait; a circle that was
// there at two looks, by the same waits, is a true one, and its youngest transaction ends by 40P01. Each process ends its own
// transactions, and all come to the same victim. Invariant: one look at a time; nothing is asked while nobody waits.
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

export interface LockWatchOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Of all shards that answer. */
  look(): Promise<readonly ShardLocks[]>;
  ended(detail: string): void;
}

/** Two without an answer, and two looks: under a second. */
const TICK_MS = 300;

export class LockWatch {
  readonly #options: LockWatchOptions;
  readonly #marks: LockMarks;
  readonly #watched = new Set<WatchedTransaction>();
  /** Bytes that those had answered, at the last tick, whose server is at work. */
  #atWork = new Map<ServerConnection, number>();
  #before: WaitGraph | null = null;
  #timer: Timer | null = null;
  #isLooking = false;

  constructor(options: LockWatchOptions) {
    this.#options = options;
    this.#marks = new LockMarks(options.clock, options.random);
  }

  newMark(): LockMark {
    return this.#marks.next();
  }

  /** Until it is over. */
  watch(transaction: WatchedTransaction): void {
    this.#watched.add(transaction);
    this.#timer ??= this.#options.clock.after(TICK_MS, () => this.#tick());
  }

  #tick(): void {
    this.#timer = null;
    for (const one of this.#watched) if (one.isOver) this.#watched.delete(one);
    const isSomeoneWaiting = this.#someoneWaits();
    if (!isSomeoneWaiting) this.#before = null;
    else if (!this.#isLooking) this.#look();
    if (this.#watched.size > 0) this.#timer = this.#options.clock.after(TICK_MS, () => this.#tick());
  }

  /** A server has been at work since the last tick, without a word. */
  #someoneWaits(): boolean {
    const atWork = new Map<ServerConnection, number>();
    let found = false;
    for (const { parts } of this.#watched) {
      for (const { connection } of parts) {
        if (connection === null || connection.replies.length === 0) continue;
        const { bytesReceived } = connection;
        if (this.#atWork.get(connection) === bytesReceived) found = true;
        atWork.set(connection, bytesReceived);
      }
    }
    this.#atWork = atWork;
    return found;
  }

  #look(): void {
    this.#isLooking = true;
    const seen = (graph: WaitGraph | null): void => {
      this.#isLooking = false;
      const before = this.#before;
      this.#before = graph;
      if (before !== null && graph !== null) for (const victim of victims(lasting(before, graph))) this.#end(victim);
    };
    this.#options.look().then(
      (shards) => seen(waitGraph(shards)),
      () => seen(null),
    );
  }

  /** Where it is of this process. */
  #end({ mark, waits, count, shardNames }: Victim): void {
    const found = [...this.#watched].find((one) => one.mark === mark && !one.isOver);
    if (found === undefined) return;
    const isWaiting = ({ shardName, connection }: WatchedPart): boolean =>
      waits.some((wait) => wait.shardName === shardName && wait.pid === connection?.pid);
    const detail = `It is the last begun of ${count} transactions that wait for each other, on shards ${quoted(shardNames)}.`;
    for (const part of found.parts.filter(isWaiting)) {
      part.connection!.deadlock = { detail, told: () => found.ended?.() };
      part.cancel();
    }
    this.#before = null;
    this.#options.ended(detail);
  }
}
