// One statement on the shards that it concerns, each in its branch (R72). Ways:
//   briefly    all at once, while each waits for a lock only so long: where one has met a lock of somebody else, nothing is told, and all
//              of it is to be run again
//   at once    the same with the locks that the transaction holds already, so that it cannot be run again: a circle is found by R66
//   in order   one shard behind the other, in the same order for all: those that want the same keys queue at the first
// Invariant: it ends once, when nothing of it is under way.
import type { Clock } from '../../base/clock.js';
import { readErrorFields } from '../../wire/error-fields.js';
import type { Instant } from '../scatter/instant.js';
import type { BranchFailure } from './branch.js';
import { placeOf } from './first-failure.js';
import type { BranchStatement, BranchWrite, WriteBranch } from './write-branch.js';

export type RunWay = 'briefly' | 'at once' | 'in order';

export interface RunPart {
  readonly branch: WriteBranch;
  readonly statement: BranchStatement;
  /** An error of that shard, its place told as one in the client's own text. */
  place(error: Buffer): Buffer;
}

export interface RunFailure {
  readonly write: BranchFailure;
  readonly place: RunPart['place'];
}

export type RunEnd =
  | { readonly kind: 'written' }
  | { readonly kind: 'failed'; readonly failure: RunFailure }
  /** Somebody has locked what it wants. */
  | { readonly kind: 'met locks' };

export interface RunOptions {
  readonly parts: readonly RunPart[];
  /** Behind the parameters; null: it takes none. */
  readonly instant: Instant | null;
  readonly way: RunWay;
  /** In the client's block, which has the branches. */
  readonly isInBlock: boolean;
  /** The session has connections to other shards: for one more it waits only so long. */
  readonly waitsBriefly: boolean;
  readonly clock: Clock;
  over(end: RunEnd): void;
}

/** The others may wait for locks, for nothing, once they had the time to find an error that comes before the one that is known. */
const FIND_MS = 20;
const LOCK_NOT_AVAILABLE = '55P03';

export class SpreadRun {
  readonly #options: RunOptions;
  /** In the order of the shards, where they are run in order. */
  readonly #parts: readonly RunPart[];
  /** What became of each, so far. */
  readonly writes = new Map<WriteBranch, BranchWrite>();
  readonly #busy = new Set<WriteBranch>();
  #failure: (RunFailure & { readonly at: number }) | null = null;
  #metLocks = false;
  #isCancelled = false;
  #isOver = false;

  constructor(options: RunOptions) {
    this.#options = options;
    const { parts, way } = options;
    this.#parts = way === 'in order' ? [...parts].sort(byShard) : parts;
  }

  start(): void {
    if (this.#options.way === 'in order') this.#next(0);
    else for (const part of this.#parts) this.#write(part, () => this.#endIfAll());
  }

  /** CancelRequest of the client. */
  cancel(): void {
    this.#isCancelled = true;
    for (const branch of this.#busy) branch.cancel();
  }

  #next(index: number): void {
    const part = this.#parts[index];
    if (part === undefined || this.#failure !== null || this.#isCancelled) return this.#end();
    this.#write(part, () => this.#next(index + 1));
  }

  #write({ branch, statement, place }: RunPart, done: () => void): void {
    const { instant, isInBlock, way, waitsBriefly } = this.#options;
    const told = (write: BranchWrite): void => {
      this.#busy.delete(branch);
      this.writes.set(branch, write);
      if (write.kind !== 'done') this.#failed(write, place);
      done();
    };
    this.#busy.add(branch);
    if (isInBlock) branch.writeInBlock(statement, instant, told);
    else branch.write(statement, instant, way === 'briefly', told);
    if (waitsBriefly) branch.waitBriefly();
  }

  #failed(write: BranchFailure, place: RunPart['place']): void {
    const { way, clock } = this.#options;
    const code = write.kind === 'failed' ? readErrorFields(write.error, 0, write.error.length)['C'] : '';
    if (way === 'briefly' && code === LOCK_NOT_AVAILABLE) {
      // The others wait as briefly. A cancel that comes late would meet what runs in their connections next.
      this.#metLocks = true;
      return;
    }
    if (this.#failure === null) clock.after(FIND_MS, () => this.#cancelOthers());
    const at = placeOf(write);
    if (this.#failure === null || at < this.#failure.at) this.#failure = { write, place, at };
  }

  #cancelOthers(): void {
    if (!this.#isOver) for (const branch of this.#busy) branch.cancel();
  }

  #endIfAll(): void {
    // Those that waited for a connection have answered within their cancel, the last one for all.
    if (!this.#isOver && this.writes.size === this.#parts.length) this.#end();
  }

  #end(): void {
    this.#isOver = true;
    const { over } = this.#options;
    if (this.#failure !== null) over({ kind: 'failed', failure: this.#failure });
    else over({ kind: this.#metLocks ? 'met locks' : 'written' });
  }
}

const byShard = (one: RunPart, other: RunPart): number =>
  one.branch.shardName < other.branch.shardName ? -1 : one.branch.shardName > other.branch.shardName ? 1 : 0;
