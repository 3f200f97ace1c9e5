// What is asked of a write over several shards, and who hears of it (spread-write.ts).
import type { Clock, Random } from '../../base/clock.js';
import type { Instant } from '../scatter/instant.js';
import type { BranchTarget } from './branch.js';
import type { BranchResult } from './branch-reader.js';
import type { LockContention } from './lock-contention.js';
import type { LockWatch } from './lock-watch.js';
import type { PreparedSlots } from './prepared-slots.js';
import type { BranchStatement } from './write-branch.js';

export interface SpreadBranch {
  readonly target: BranchTarget;
  readonly statement: BranchStatement;
  /** An error of that shard, its place told as one in the client's own text. */
  place(error: Buffer): Buffer;
}

/** Of a block it is run in. */
export interface InBlock {
  /** What counts of the time that was told: the block's is what it was before. */
  settle(instant: Instant): Instant;
}

export interface SpreadRequest {
  /** What each shard is to run. */
  readonly branches: readonly SpreadBranch[];
  /** The statement takes the time as its last two parameters: one for all shards. */
  readonly hasInstant: boolean;
  /** All shards commit it or none; else each by itself, all at one time. */
  readonly isAtomic: boolean;
  /** In the client's block, whose branches the targets are, and which decides: it ends when it is written. */
  readonly inBlock: InBlock | null;
  /** Ends it where it waits for others over shards that wait for it. */
  readonly watch: LockWatch;
  /** The table that it is on, and what is known of locks there. */
  readonly table: string;
  readonly contention: LockContention;
  readonly slots: PreparedSlots;
  readonly clusterId: string;
  /** That logged in. */
  readonly role: string;
  readonly clock: Clock;
  readonly random: Random;
}

/** What the shards have said to the statement. */
export interface SpreadResult {
  /** Of all shards. */
  readonly count: bigint;
  /** By branch, as in the request. */
  readonly returned: readonly BranchResult[];
}

export interface SpreadClient {
  /** It has run on all shards, and waits for `commit` or `rollBack`; told, alone of all, though the client is gone. */
  written(result: SpreadResult): void;
  committed(): void;
  /** ErrorResponse, as a shard or pgkv words it. */
  failed(error: Buffer): void;
  notice(message: Buffer): void;
}

/** Of a statement of a window, which runs on one shard. */
export interface WindowClient {
  /** All have run, as they are told in their order; as of `SpreadClient.written`. */
  written(results: readonly SpreadResult[]): void;
  /** None has: they are to be run one behind the other. */
  undone(): void;
  failed(error: Buffer): void;
}
