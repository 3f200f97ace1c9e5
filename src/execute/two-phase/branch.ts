// A shard's part of what is written on several: a transaction of its own on a lane of its own, which waits for the others before
// it ends. What the coordinator asks of it goes by the connection that has the transaction, or, once that is prepared or lost, by
// another one of the same role. What is done in it, its kinds say (WriteBranch, CopyBranch).
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { forwarded, Reply } from '../../backend/replies/reply-queue.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import type { Template } from '../../sql/plan/template.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { encodeQuery } from '../../wire/client-messages.js';
import type { ClientPort, LeasedLane } from '../leased/leased-lane.js';
import type { StatementLane } from '../leased/lent-lane.js';
import { AskedLane, type Told } from './asked-lane.js';
import type { BranchResult } from './branch-reader.js';
import type { CommitBranch } from './coordinator.js';
import type { Answer, Decision } from './protocol.js';

export interface BranchTarget {
  readonly shardName: string;
  /** A lane of the session on that shard, for this branch alone; or the one that has the client's block there, lent. */
  lane(client: ClientPort<LeasedLane>): StatementLane;
  /** Where that is the block's: another one, for what is done beside the block. */
  readonly beside?: (client: ClientPort<LeasedLane>) => StatementLane;
}

export type BranchFailure =
  | {
      readonly kind: 'failed';
      readonly error: Buffer;
      /** It had taken the values of the statement. */
      readonly isBound: boolean;
    }
  /** Why this shard cannot take part, in its words. */
  | { readonly kind: 'unable'; readonly why: string }
  /** Nothing is committed there. */
  | { readonly kind: 'lost'; readonly error: PgkvError };

/** How long a server may take over the end of a transaction. */
export const ANSWER_MS = 10_000;
const COMMIT = 'COMMIT';
const FEATURE_NOT_SUPPORTED = '0A000';
/** Its transaction is over, and was never prepared or committed. */
export const NOT_WRITTEN: Answer = { kind: 'refused', sqlstate: '40001', error: null };
/** Function, or schema, not there: an extension of before 0.3.0. */
const NOT_INSTALLED: ReadonlySet<string> = new Set(['42883', '3F000']);

export class Branch implements CommitBranch {
  readonly shardName: string;
  protected readonly asked: AskedLane;
  protected readonly clock: Clock;
  #isOwners = false;

  constructor(target: BranchTarget, template: Template, clock: Clock, notice: (message: Buffer) => void) {
    this.shardName = target.shardName;
    this.clock = clock;
    this.asked = new AskedLane({ lane: (port) => target.lane(port), template, clock, notice });
  }

  /** Where no other branch has written: nothing has to be decided. */
  commit(told: (answer: Answer) => void): void {
    this.#askIfThere([COMMIT], told);
  }

  prepare(gid: string, told: (answer: Answer) => void): void {
    this.#askEnd(this.#behindFirst([`PREPARE TRANSACTION ${quoteLiteral(gid)}`]), told);
  }

  /** What is to be said in front of a COMMIT or PREPARE, which may run what was deferred; null: nothing. */
  protected beforeEnd(): string | null {
    return null;
  }

  #behindFirst([first, ...more]: readonly [string, ...string[]]): readonly string[] {
    const before = this.beforeEnd();
    return before === null ? [first, ...more] : [`${before}; ${first}`, ...more];
  }

  decide(gid: string, told: (answer: Answer) => void): void {
    this.#askIfThere([`SELECT pgkv.decide(${quoteLiteral(gid)})`, COMMIT], told);
  }

  /** A connection that was lost has taken its transaction along. */
  rollback(told: () => void): void {
    // That there is no transaction, where its BEGIN has failed, is nobody's concern.
    this.#askEnd(
      ['ROLLBACK'],
      () => told(),
      () => undefined,
    );
  }

  /** @param first makes the session the owner's; null: it is. With it, the connection is of no use to others afterwards */
  finish(gid: string, decision: Decision, told: (answer: Answer) => void, first: string | null = null): void {
    const how = decision === 'commit' ? 'COMMIT' : 'ROLLBACK';
    const sql = [...(first === null ? [] : [first]), `${how} PREPARED ${quoteLiteral(gid)}`];
    if (first !== null) this.#isOwners = true;
    this.asked.ask(
      (connection) => {
        for (const one of sql) connection.send(encodeQuery(one), forwarded(Reply.query));
      },
      sql.length,
      ANSWER_MS,
      (results) => told(answerOf(results)),
    );
  }

  /** That has it; null: it is lost, or not there yet. */
  get connection(): ServerConnection | null {
    return this.asked.connection;
  }

  /** Its connection is gone, and with it what was not prepared. */
  get isLost(): boolean {
    return this.asked.lane.mode !== 'leased';
  }

  /** CancelRequest of the client: while it is at work. */
  cancel(): void {
    this.asked.cancel();
  }

  /** Its connection is given back, or closed where it is not at rest. */
  end(): void {
    if (this.#isOwners) this.asked.connection?.destroy('it has the role of a transaction that was prepared');
    this.asked.end();
  }

  /** What went wrong with a question; null: nothing. */
  protected failureOf(results: readonly BranchResult[] | null): BranchFailure | null {
    if (results === null) {
      const { error, message } = this.asked.refusal ?? {};
      if (message != null && error?.errorName === 'internal') return { kind: 'failed', error: message, isBound: true };
      return { kind: 'lost', error: error ?? new PgkvError('transaction_lost') };
    }
    const failed = results.find(({ error }) => error !== null);
    return failed === undefined ? null : { kind: 'failed', error: failed.error!, isBound: failed.isBound };
  }

  /** What commits: of a branch that is lost it is not sent any more, so that it is known what became of it. */
  #askIfThere(queries: readonly [string, ...string[]], told: (answer: Answer) => void): void {
    if (this.isLost) this.clock.after(0, () => told(NOT_WRITTEN));
    else this.#askEnd(this.#behindFirst(queries), told);
  }

  /** On the connection that has the transaction: it cannot be asked on another one. */
  #askEnd(queries: readonly string[], told: (answer: Answer) => void, notice?: (message: Buffer) => void): void {
    this.asked.onProgress = null;
    const ended: Told = (results) => told(answerOf(results));
    this.asked.askSame(
      (connection) => {
        for (const query of queries) connection.send(encodeQuery(query), forwarded(Reply.query));
      },
      queries.length,
      ANSWER_MS,
      ended,
      notice,
    );
  }
}

/** Why a shard cannot take part, by its answer to BEGIN_BRANCH; null: something else has failed. */
export function whyUnable(sqlstate: string, message: string): string | null {
  if (sqlstate === FEATURE_NOT_SUPPORTED) return message;
  return NOT_INSTALLED.has(sqlstate) ? 'its extension is older: run pgkv init again' : null;
}

/** Of an end of a transaction, in one statement or two: the first error counts, and a COMMIT that was none. */
export function answerOf(results: readonly BranchResult[] | null): Answer {
  if (results === null) return { kind: 'lost' };
  const failed = results.find(({ error }) => error !== null);
  if (failed !== undefined) return { kind: 'refused', sqlstate: failed.sqlstate, error: failed.error };
  const last = results.at(-1)!;
  if (last.tag === 'ROLLBACK') return { kind: 'refused', sqlstate: '25P02', error: null };
  // What stands in front of it in its text has ended when the warning comes.
  return { kind: results.some(({ isLocal }) => isLocal) ? 'local' : 'done' };
}

/** Rows, of a tag such as `UPDATE 3`. */
export const countOf = (tag: string): bigint => BigInt(tag.slice(tag.lastIndexOf(' ') + 1));
