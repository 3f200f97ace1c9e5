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
import { commitTogether, forEach } from './commit-together.js';
import type { LaneBranch } from './lane-branch.js';
import type { PreparedSlots } from './prepared-slots.js';
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
  readonly slots: PreparedSlots;
  readonly clock: Clock;
  readonly random: Random;
  /** @param error null: it is committed */
  readonly over: (error: Buffer | null) => void;
}

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
    forEach(
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
    forEach(this.#writers, ask, () => this.#asked());
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
    if (failure !== null) return forEach(branches, rollBack, () => this.#end(failure));
    const readers = branches.filter((branch) => !this.#writers.includes(branch));
    const together = { ...this.#options, what: 'transaction' as const, isCancelled: () => this.#isCancelled };
    commitTogether(readers, this.#writers, together, (error) => this.#end(error));
  }

  #end(error: Buffer | null): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    this.#options.over(error);
  }
}

const errorOf = (error: PgkvError): Buffer => encodeError(error, 'ERROR');
