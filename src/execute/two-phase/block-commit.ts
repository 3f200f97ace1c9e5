// COMMIT of a block that has branches on several shards (D14, D31). Branches that have written nothing commit plainly; then the
// only writer does, or the coordinator commits all writers together. Stages:
//   asking     the branches are asked whether they have written, and, where their role may have changed, whether that can take part
//   ending     it is being committed, or taken back
//   over       told
// Invariant: the client hears of the end once, and of a commit only when every shard shows it.
import type { Clock, Random } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { encodeError } from '../../wire/server-messages.js';
import { failureOf } from './branch-failure.js';
import { Coordinator, type Outcome } from './coordinator.js';
import { newGid } from './gid.js';
import type { LaneBranch } from './lane-branch.js';
import type { Answer } from './protocol.js';
import { invisibleOn, outcomeUnknown } from './spread-write.js';
import { BEGIN_BRANCH, BRANCH_SETTINGS, HAS_WRITTEN_SQL } from './write-branch.js';

export interface BlockCommitOptions {
  /** Of which the last may hold what cannot be prepared: notifications, temporary tables, cursors WITH HOLD. */
  readonly branches: readonly LaneBranch[];
  /** It does so, perhaps. */
  readonly lastHoldsMore: boolean;
  /** The block has set something, perhaps its role, which ends with PREPARE. */
  readonly sets: boolean;
  readonly clusterId: string;
  /** That logged in. */
  readonly role: string;
  readonly clock: Clock;
  readonly random: Random;
  /** @param error null: it is committed */
  readonly over: (error: Buffer | null) => void;
}

/** How long the client waits for a shard to show what is decided. */
const FINISH_MS = 10_000;

type Stage = 'asking' | 'ending' | 'over';

export class BlockCommit {
  readonly #options: BlockCommitOptions;
  readonly #writers: LaneBranch[] = [];
  #stage: Stage = 'asking';
  #failure: Buffer | null = null;
  #isCancelled = false;

  constructor(options: BlockCommitOptions) {
    this.#options = options;
  }

  start(): void {
    const { branches, lastHoldsMore, sets } = this.#options;
    const wrote = new Set<LaneBranch>();
    this.#each(
      branches,
      (branch, done) => {
        const questions = [BRANCH_SETTINGS, `${HAS_WRITTEN_SQL}, current_user`];
        branch.ask(questions, (answers) => {
          this.#failure ??= failureOf(questions, answers);
          const [hasWritten, role] = answers?.[1]?.row ?? [];
          if (sets) branch.preparedAs(role ?? null);
          if (hasWritten === 't' || (lastHoldsMore && branch === branches.at(-1))) wrote.add(branch);
          done();
        });
      },
      () => {
        this.#writers.push(...branches.filter((branch) => wrote.has(branch)));
        if (sets && this.#failure === null && this.#writers.length > 1) this.#askRoles();
        else this.#asked();
      },
    );
  }

  /** Whether the recoverer can act for whoever the branches belong to by now. */
  #askRoles(): void {
    const ask = (branch: LaneBranch, done: () => void): void =>
      branch.ask([BEGIN_BRANCH], (answers) => {
        this.#failure ??= failureOf([BEGIN_BRANCH], answers);
        done();
      });
    this.#each(this.#writers, ask, () => this.#asked());
  }

  /** As long as nothing is decided. */
  cancel(): void {
    if (this.#stage !== 'asking' && this.#stage !== 'ending') return;
    this.#isCancelled = true;
    for (const branch of this.#options.branches) branch.cancel();
  }

  #asked(): void {
    this.#stage = 'ending';
    if (this.#failure === null && this.#isCancelled) this.#failure = errorOf(new PgkvError('cancelled'));
    const failure = this.#failure;
    const { branches } = this.#options;
    const rollBack = (branch: LaneBranch, done: () => void): void => branch.rollback(done);
    if (failure !== null) return this.#each(branches, rollBack, () => this.#end(failure));
    const readers = branches.filter((branch) => !this.#writers.includes(branch));
    // What has only been read is there whatever becomes of its transaction.
    this.#each(
      readers,
      (branch, done) => branch.commit(done),
      () => this.#commitWriters(),
    );
  }

  #commitWriters(): void {
    const writers = this.#writers;
    const [only] = writers;
    if (only === undefined) return this.#end(null);
    if (writers.length === 1) return only.commit((answer) => this.#committed(only.shardName, answer));
    const { clusterId, role, clock, random } = this.#options;
    new Coordinator({
      gid: newGid(clusterId, writers.at(-1)!.shardName, role, random),
      branches: writers,
      clock,
      finishMs: FINISH_MS,
      over: (outcome) => this.#end(this.#errorOf(outcome)),
    }).start();
  }

  /** The only writer. */
  #committed(shard: string, answer: Answer): void {
    if (answer.kind === 'done') this.#end(null);
    else if (answer.kind === 'refused') this.#end(answer.error ?? LOST);
    else this.#end(outcomeUnknown(shard));
  }

  #errorOf(outcome: Outcome): Buffer | null {
    switch (outcome.kind) {
      case 'committed':
        return null;
      case 'invisible':
        return invisibleOn(outcome.shards);
      case 'unknown':
        return outcomeUnknown(outcome.shard);
      case 'aborted': {
        const { shard, answer } = outcome;
        if (answer.kind === 'refused' && answer.error !== null) return answer.error;
        const message = `the transaction was rolled back on all shards: shard "${shard}" could not prepare it`;
        return errorOf(new PgkvError('transaction_lost', { message }));
      }
    }
  }

  #each(branches: readonly LaneBranch[], act: (branch: LaneBranch, done: () => void) => void, over: () => void): void {
    let left = branches.length;
    if (left === 0) return over();
    for (const branch of branches) {
      act(branch, () => {
        if (--left === 0) over();
      });
    }
  }

  #end(error: Buffer | null): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    this.#options.over(error);
  }
}

const errorOf = (error: PgkvError): Buffer => encodeError(error, 'ERROR');
const LOST = errorOf(new PgkvError('transaction_lost'));
