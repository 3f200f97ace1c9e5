// Commits the branches of one transaction over several shards atomically (D14). Pure: connections, clock and timers are
// handed in. States:
//   preparing  all branches but the last are told PREPARE TRANSACTION
//   deciding   all are prepared; the last branch writes the decision and commits: that commit is the decision
//   finishing  decided and known: the prepared branches are told COMMIT PREPARED, or ROLLBACK PREPARED, again and again
//   over       the client was told; what is unfinished is the recoverer's
// Invariant: the decision is sent once, and only when every other branch is prepared; without it nothing can commit, so that
// an abort may be told as soon as it is certain that it will not be sent.
import { assert } from '../../base/assert.js';
import type { Clock, Timer } from '../../base/clock.js';
import { type Answer, type Decision, isAbsent, PROTOCOL, type ProtocolRules } from './protocol.js';

/** Each call is answered once, never from within. What is asked of a branch that is lost goes by another connection. */
export interface CommitBranch {
  readonly shardName: string;
  /** PREPARE TRANSACTION, on the branch's own connection. */
  prepare(gid: string, told: (answer: Answer) => void): void;
  /** The decision and COMMIT, in one write, on the branch's own connection. */
  decide(gid: string, told: (answer: Answer) => void): void;
  /** ROLLBACK of what is not prepared; a connection that is lost has rolled back, or will. */
  rollback(told: () => void): void;
  /** COMMIT PREPARED or ROLLBACK PREPARED. */
  finish(gid: string, decision: Decision, told: (answer: Answer) => void): void;
}

export type Outcome =
  | { readonly kind: 'committed' }
  /** Decided, but not yet visible on these shards. */
  | { readonly kind: 'invisible'; readonly shards: readonly string[] }
  /** Nothing was or will be committed. */
  | { readonly kind: 'aborted'; readonly shard: string; readonly answer: Answer }
  /** Only the server of the decision knows; or it has committed, and its standby has not confirmed that. */
  | { readonly kind: 'unknown' | 'unconfirmed'; readonly shard: string };

export interface CoordinatorOptions {
  readonly gid: string;
  /** Two at least, each of which has written; the last gets the decision. */
  readonly branches: readonly CommitBranch[];
  readonly clock: Clock;
  /** How long the client waits for the prepared branches to be finished once the decision is known. */
  readonly finishMs: number;
  /** @param left branches may be prepared still: for the recoverer to look at */
  readonly over: (outcome: Outcome, left: boolean) => void;
  readonly rules?: ProtocolRules;
}

type State =
  | { readonly kind: 'preparing' }
  | { readonly kind: 'deciding' }
  | { readonly kind: 'finishing'; readonly outcome: Outcome; readonly decision: Decision }
  | { readonly kind: 'over' };

const RETRY_MIN_MS = 10;
const RETRY_MAX_MS = 500;

export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #rules: ProtocolRules;
  readonly #last: CommitBranch;
  /** Told to prepare, and not answered yet. */
  readonly #preparing = new Set<CommitBranch>();
  readonly #prepared = new Set<CommitBranch>();
  /** Decided, and not finished. */
  readonly #unfinished = new Set<CommitBranch>();
  readonly #timers = new Set<Timer>();
  #state: State = { kind: 'preparing' };
  /** A PREPARE was lost: it may be carried out after all. */
  #mayBePrepared = false;
  #rollingBack = false;

  constructor(options: CoordinatorOptions) {
    assert(options.branches.length > 1, 'one branch commits by itself');
    this.#options = options;
    this.#rules = options.rules ?? PROTOCOL;
    this.#last = options.branches.at(-1)!;
  }

  get phase(): State['kind'] {
    return this.#state.kind;
  }

  start(): void {
    const { gid, branches } = this.#options;
    const others = branches.slice(0, -1);
    for (const branch of others) this.#preparing.add(branch);
    for (const branch of others) branch.prepare(gid, (answer) => this.#wasPrepared(branch, answer));
  }

  /** The router stops: nothing more is sent or told. */
  abandon(): void {
    this.#state = { kind: 'over' };
    this.#clearTimers();
  }

  #wasPrepared(branch: CommitBranch, answer: Answer): void {
    this.#preparing.delete(branch);
    const isPrepared = this.#rules.isPrepared(answer);
    if (isPrepared || answer.kind === 'local') this.#prepared.add(branch);
    else if (answer.kind === 'lost') this.#mayBePrepared = true;
    const state = this.#state;
    switch (state.kind) {
      case 'preparing':
        if (!isPrepared) this.#abort(branch.shardName, answer);
        else if (this.#preparing.size === 0) this.#decide();
        return;
      case 'finishing':
        // Aborted meanwhile.
        if (this.#prepared.has(branch)) {
          this.#unfinished.add(branch);
          this.#finish(branch, RETRY_MIN_MS);
        }
        this.#tellIfFinished();
        return;
      case 'over':
        return;
      case 'deciding':
        assert(false, 'all were prepared');
    }
  }

  #decide(): void {
    this.#state = { kind: 'deciding' };
    this.#last.decide(this.#options.gid, (answer) => this.#wasDecided(answer));
  }

  #wasDecided(answer: Answer): void {
    if (this.#state.kind !== 'deciding') return;
    const shard = this.#last.shardName;
    const decision = this.#rules.decided(answer);
    if (decision === null) this.#end({ kind: answer.kind === 'local' ? 'unconfirmed' : 'unknown', shard }, true);
    else if (decision === 'commit') this.#begin({ kind: 'committed' }, decision);
    else this.#begin({ kind: 'aborted', shard, answer }, decision);
  }

  /** The decision is not sent any more. */
  #abort(shard: string, answer: Answer): void {
    this.#rollingBack = true;
    this.#begin({ kind: 'aborted', shard, answer }, 'abort');
    this.#last.rollback(() => {
      this.#rollingBack = false;
      this.#tellIfFinished();
    });
  }

  #begin(outcome: Outcome, decision: Decision): void {
    this.#state = { kind: 'finishing', outcome, decision };
    for (const branch of this.#prepared) this.#unfinished.add(branch);
    for (const branch of [...this.#unfinished]) this.#finish(branch, RETRY_MIN_MS);
    this.#timers.add(this.#options.clock.after(this.#options.finishMs, () => this.#giveUp()));
    this.#tellIfFinished();
  }

  #finish(branch: CommitBranch, retryMs: number): void {
    const state = this.#state;
    if (state.kind !== 'finishing') return;
    branch.finish(this.#options.gid, state.decision, (answer) => {
      const isFinished = this.#rules.isFinished(answer, state.decision);
      if (isFinished || isAbsent(answer)) {
        this.#unfinished.delete(branch);
        this.#mayBePrepared ||= !isFinished;
        this.#tellIfFinished();
        return;
      }
      if (this.#state.kind !== 'finishing') return;
      const timer = this.#options.clock.after(retryMs, () => {
        this.#timers.delete(timer);
        this.#finish(branch, Math.min(2 * retryMs, RETRY_MAX_MS));
      });
      this.#timers.add(timer);
    });
  }

  #tellIfFinished(): void {
    const state = this.#state;
    if (state.kind !== 'finishing' || this.#preparing.size > 0 || this.#rollingBack) return;
    if (state.decision === 'commit' ? this.#rules.isVisible(this.#unfinished.size) : this.#unfinished.size === 0) {
      this.#end(state.outcome, this.#mayBePrepared || this.#unfinished.size > 0);
    }
  }

  #giveUp(): void {
    const state = this.#state;
    if (state.kind !== 'finishing') return;
    const shards = [...this.#unfinished].map(({ shardName }) => shardName);
    this.#end(state.decision === 'commit' ? { kind: 'invisible', shards } : state.outcome, true);
  }

  #end(outcome: Outcome, left: boolean): void {
    this.#state = { kind: 'over' };
    this.#clearTimers();
    this.#options.over(outcome, left);
  }

  #clearTimers(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }
}
