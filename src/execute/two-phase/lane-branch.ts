// A branch of the client's block on one of its session's lanes, as the commit over several shards needs it (D14). What is asked goes
// by the connection that has the branch; once that is lost, what finishes a prepared branch goes by another one of the same role.
// Invariant: each question is answered once, as lost where the connection breaks or the deadline is missed.
import type { Clock, Timer } from '../../base/clock.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { TransactionStatus } from '../../wire/protocol.js';
import type { BlockAnswer, BlockQuestion } from '../leased/lane-block.js';
import type { LeasedLane } from '../leased/leased-lane.js';
import { ANSWER_MS, type Branch, NOT_WRITTEN } from './branch.js';
import type { CommitBranch } from './coordinator.js';
import type { Answer, Decision } from './protocol.js';

/** Null: the connection broke. */
export type Told = (answers: readonly BlockAnswer[] | null) => void;

/** Asks lanes, and hears of their losses. */
export interface LaneAsker {
  ask(lane: LeasedLane, questions: readonly BlockQuestion[], told: Told): void;
  /** Its connection is closed, and what it is asked answered as lost. */
  drop(lane: LeasedLane, why: string): void;
}

export interface LaneBranchOptions {
  readonly lane: LeasedLane;
  readonly asker: LaneAsker;
  readonly clock: Clock;
  /** Another connection to the shard, as the same role. */
  another(): Branch;
}

export class LaneBranch implements CommitBranch {
  readonly shardName: string;
  readonly lane: LeasedLane;
  readonly #options: LaneBranchOptions;
  #another: Branch | null = null;
  /** What was set in it stays set, though the transaction be rolled back elsewhere. */
  #isKept = false;
  /** As whom it is prepared, where that may be another role than the connection's outside of it. */
  #owner: string | null = null;
  /** Its connection is the owner's now. */
  #isOwners = false;
  #isFinishing = false;

  constructor(options: LaneBranchOptions) {
    this.lane = options.lane;
    this.shardName = options.lane.shardName ?? '';
    this.#options = options;
  }

  ask(questions: readonly BlockQuestion[], told: Told): void {
    const { clock, asker } = this.#options;
    if (!this.#isThere) return void clock.after(0, () => told(null));
    const missed = (): void => asker.drop(this.lane, 'the end of a transaction over several shards was not answered');
    const deadline: Timer = clock.after(ANSWER_MS, missed);
    asker.ask(this.lane, questions, (answers) => {
      deadline.cancel();
      told(answers);
    });
  }

  commit(told: (answer: Answer) => void): void {
    if (!this.#isThere) return this.#notSent(told);
    this.ask(['COMMIT'], (answers) => {
      this.#isKept = answers !== null && answers[0]!.failure === null;
      told(answerOf(answers));
    });
  }

  /** Settings of the block that PREPARE ends may have made it the transaction of `role`. */
  preparedAs(role: string | null): void {
    this.#owner = role;
  }

  prepare(gid: string, told: (answer: Answer) => void): void {
    this.ask([`PREPARE TRANSACTION ${quoteLiteral(gid)}`], (answers) => {
      this.#isKept = answers !== null && answers[0]!.failure === null;
      told(answerOf(answers));
    });
  }

  decide(gid: string, told: (answer: Answer) => void): void {
    if (!this.#isThere) return this.#notSent(told);
    this.ask([`SELECT pgkv.decide(${quoteLiteral(gid)})`, 'COMMIT'], (answers) => told(answerOf(answers)));
  }

  rollback(told: () => void): void {
    this.ask(['ROLLBACK'], () => told());
  }

  finish(gid: string, decision: Decision, told: (answer: Answer) => void): void {
    this.#isFinishing = true;
    if (this.#isThere && this.lane.connection!.status === TransactionStatus.idle) {
      const how = decision === 'commit' ? 'COMMIT' : 'ROLLBACK';
      const owner = this.#owner === null ? [] : [becoming(this.#owner)];
      return this.ask([...owner, `${how} PREPARED ${quoteLiteral(gid)}`], (answers) => {
        if (owner.length > 0 && answers?.[0]?.row != null) this.#isOwners = true;
        told(answerOf(answers));
      });
    }
    this.#another ??= this.#options.another();
    this.#another.finish(gid, decision, told, this.#owner === null ? null : becoming(this.#owner));
  }

  /** CancelRequest of the client: nothing that is decided is cancelled. */
  cancel(): void {
    if (!this.#isFinishing) this.lane.cancel();
  }

  /** Its connection goes back to the pool. @param keeps what was set in the block stays set */
  end(keeps: boolean): void {
    this.#another?.end();
    if (!this.#isThere) return;
    const { lane } = this;
    if (this.#isKept && !keeps) lane.block.discard('settings of a transaction that was rolled back are on it');
    else if (this.#isOwners) lane.block.discard('it has the role of a transaction that was prepared');
    else if (lane.connection!.atRest) lane.block.ended();
    else lane.block.leave();
  }

  /** What commits: of a branch that is lost it is known what became of it. */
  #notSent(told: (answer: Answer) => void): void {
    this.#options.clock.after(0, () => told(NOT_WRITTEN));
  }

  get #isThere(): boolean {
    return this.lane.mode === 'leased' && this.lane.connection !== null;
  }
}

/** Makes the session that role's, if it is not: only who has prepared a transaction may end it. */
const becoming = (role: string): string =>
  `SELECT pg_catalog.set_config('role', ${quoteLiteral(role)}, false) WHERE current_user OPERATOR(pg_catalog.<>) ${quoteLiteral(role)}`;

/** The first error counts. */
function answerOf(answers: readonly BlockAnswer[] | null): Answer {
  if (answers === null) return { kind: 'lost' };
  const error = answers.find(({ failure }) => failure !== null)?.failure ?? null;
  if (error !== null) return { kind: 'refused', sqlstate: readErrorFields(error, 0, error.length)['C'] ?? '', error };
  return { kind: answers.some(({ isLocal }) => isLocal) ? 'local' : 'done' };
}
