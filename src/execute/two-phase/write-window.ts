// Statements of one batch that write, each on one shard, run side by side: each branch gets its own in one write, in the client's order.
// It is told only what one server would have said: where anything goes another way than planned (an error, a notice, a lock that is
// waited for), all branches go back to where they were, and the statements are to be run one behind the other. So no lock of a
// statement is kept while one in front of it waits: clients that lock keys in one order do not wait for each other in a circle.
// Stages: opening (branches begin), running, undoing. Invariant: it ends once, when nothing of it is under way on any branch.
import type { Instant } from '../scatter/instant.js';
import type { BranchFailure } from './branch.js';
import type { BranchResult } from './branch-reader.js';
import { forEach } from './commit-together.js';
import type { BranchStatement, WindowOutcome, WriteBranch } from './write-branch.js';

/** In the client's order. */
export interface WindowPart {
  readonly branch: WriteBranch;
  readonly statement: BranchStatement;
  /** It takes the time. */
  readonly hasInstant: boolean;
}

export type WindowEnd =
  /** What each statement has given, in the client's order. */
  | { readonly kind: 'written'; readonly results: readonly BranchResult[]; readonly writers: readonly WriteBranch[] }
  | { readonly kind: 'undone' }
  /** The transaction has failed; null: a branch is lost. */
  | { readonly kind: 'failed'; readonly branch: WriteBranch; readonly failure: BranchFailure | null };

export class WriteWindow {
  readonly #parts: readonly WindowPart[];
  readonly #branches: readonly WriteBranch[];
  readonly #instant: Instant | null;
  readonly #over: (end: WindowEnd) => void;
  /** At work. */
  readonly #busy = new Set<WriteBranch>();
  #failed: WindowEnd | null = null;

  /** @param over called once, later */
  constructor(parts: readonly WindowPart[], instant: Instant | null, over: (end: WindowEnd) => void) {
    this.#parts = parts;
    this.#branches = [...new Set(parts.map(({ branch }) => branch))];
    this.#instant = instant;
    this.#over = over;
  }

  /** @param isFurther the transaction has connections: it waits for others only so long */
  start(isFurther: boolean): void {
    this.#each(
      this.#branches.filter(({ isOpen }) => !isOpen),
      (branch, done) => {
        const { statement } = this.#parts.find((part) => part.branch === branch)!;
        branch.open(statement, (failure) => {
          if (failure !== null) this.#failed ??= { kind: 'failed', branch, failure };
          done();
        });
        if (isFurther) branch.waitBriefly();
      },
      () => this.#run(),
    );
  }

  /** CancelRequest of the client. */
  cancel(): void {
    for (const branch of this.#busy) branch.cancel();
  }

  #run(): void {
    const outcomes = new Map<WriteBranch, WindowOutcome>();
    this.#each(
      this.#branches,
      (branch, done) => {
        const own = this.#parts.filter((part) => part.branch === branch);
        const statements = own.map(({ statement, hasInstant }) => ({
          statement,
          instant: hasInstant ? this.#instant : null,
        }));
        branch.window(statements, (outcome) => {
          if (outcome.kind === 'lost') this.#failed ??= { kind: 'failed', branch, failure: outcome };
          outcomes.set(branch, outcome);
          done();
        });
      },
      () => this.#ran(outcomes),
    );
  }

  #ran(outcomes: ReadonlyMap<WriteBranch, WindowOutcome>): void {
    const given = new Map<WriteBranch, Iterator<BranchResult>>();
    const writers: WriteBranch[] = [];
    for (const [branch, outcome] of outcomes) {
      if (outcome.kind !== 'done') return this.#undo();
      if (outcome.hasWritten) writers.push(branch);
      given.set(branch, outcome.results[Symbol.iterator]());
    }
    const results = this.#parts.map(({ branch }) => given.get(branch)!.next().value as BranchResult);
    this.#over({ kind: 'written', results, writers });
  }

  #undo(): void {
    this.#each(
      this.#branches,
      (branch, done) =>
        branch.undoWindow((isUndone) => {
          if (!isUndone) this.#failed ??= { kind: 'failed', branch, failure: null };
          done();
        }),
      () => this.#over({ kind: 'undone' }),
    );
  }

  /** @param over what follows, unless the transaction has failed by then */
  #each(
    branches: readonly WriteBranch[],
    act: (branch: WriteBranch, done: () => void) => void,
    over: () => void,
  ): void {
    forEach(
      branches,
      (branch, done) => {
        this.#busy.add(branch);
        act(branch, () => {
          this.#busy.delete(branch);
          done();
        });
      },
      () => (this.#failed === null ? over() : this.#over(this.#failed)),
    );
  }
}
