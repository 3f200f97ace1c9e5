// One shard's part of COPY … FROM STDIN: a transaction of its own, into which rows flow until all are there, and which then waits
// for the others. Stages:
//   opening   expired rows are removed, the transaction is begun, the server is asked to copy
//   copying   it takes rows
//   closing   it was told that there are no more, or that it is to give up
//   copied    it has them all, and waits for the commit
//   failed    it has none
// Invariant: `ended` is called once, when it is copied or failed.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { forwarded, Reply } from '../../backend/replies/reply-queue.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import type { Template } from '../../sql/plan/template.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { encodeQuery, encodeQueryBytes } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import { AskedLane } from '../two-phase/asked-lane.js';
import { type BranchResult, lastRow } from '../two-phase/branch-reader.js';
import type { CommitBranch } from '../two-phase/coordinator.js';
import type { Answer, Decision } from '../two-phase/protocol.js';
import type { BranchTarget } from '../two-phase/write-branch.js';

export interface CopyStatement {
  readonly template: Template;
  readonly text: string;
  /** What the shard runs, in the client's encoding. */
  readonly copy: Buffer;
  /** Removes some of the rows that have expired, and says how many. */
  readonly reap: string;
  /** There are other shards: the transaction may have to be prepared. */
  readonly isShared: boolean;
}

export type CopyOutcome =
  | { readonly kind: 'copied'; readonly rows: bigint; readonly hasWritten: boolean }
  | { readonly kind: 'failed'; readonly error: Buffer }
  /** Why this shard cannot take part, in its words. */
  | { readonly kind: 'unable'; readonly why: string }
  /** Nothing is committed there. */
  | { readonly kind: 'lost'; readonly error: PgkvError };

type Stage = 'opening' | 'copying' | 'closing' | 'copied' | 'failed';

/** Rows that have expired are removed in so many transactions at most, and so many in each. */
const REAPS_MAX = 10_000;
export const REAPED_ROWS = 2_000;
/** A transaction that waits for a lock of one that waits for us elsewhere would wait for ever: no server sees the circle. */
const LOCK_TIMEOUT = '5s';
/** The slots are right: the trigger that would compute each once more need not. */
const SETTINGS = `SELECT
  pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
  pg_catalog.set_config('lock_timeout', CASE pg_catalog.current_setting('lock_timeout')
    WHEN '0' THEN '${LOCK_TIMEOUT}' ELSE pg_catalog.current_setting('lock_timeout') END, true),
  pg_catalog.set_config('pgkv.router', 'on', true),
  pg_catalog.current_setting('transaction_isolation')`;
const ISOLATION = 3;
const BEGIN_ALONE = [encodeQuery('BEGIN'), encodeQuery(SETTINGS)];
const BEGIN = [...BEGIN_ALONE, encodeQuery('SELECT pgkv.begin_branch()')];
const HAS_WRITTEN = encodeQuery('SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL');
const COMMIT = encodeQuery('COMMIT');
const ROLLBACK = encodeQuery('ROLLBACK');
const COPY_DONE = Buffer.from([Frontend.copyDone, 0, 0, 0, 4]);
const GIVE_UP = 'another part of the COPY has failed';
const GIVEN_UP: CopyOutcome = { kind: 'failed', error: Buffer.alloc(0) };
const FEATURE_NOT_SUPPORTED = '0A000';
/** Function, or schema, not there: an extension of before 0.3.0. */
const NOT_INSTALLED: ReadonlySet<string> = new Set(['42883', '3F000']);
const ANSWER_MS = 10_000;

export interface CopyBranchClient {
  /** It takes rows, or takes more of them again. */
  progressed(): void;
  ended(branch: CopyBranch, outcome: CopyOutcome): void;
  notice(message: Buffer): void;
}

export class CopyBranch implements CommitBranch {
  readonly shardName: string;
  readonly #asked: AskedLane;
  readonly #statement: CopyStatement;
  readonly #client: CopyBranchClient;
  #stage: Stage = 'opening';
  #reaps = 0;
  #hasBegun = false;
  #givesUp = false;

  constructor(target: BranchTarget, statement: CopyStatement, clock: Clock, client: CopyBranchClient) {
    this.shardName = target.shardName;
    this.#statement = statement;
    this.#client = client;
    this.#asked = new AskedLane({
      lane: (port) => target.lane(port),
      template: statement.template,
      clock,
      notice: (message) => client.notice(message),
    });
  }

  get takesRows(): boolean {
    return this.#stage === 'copying';
  }

  /** Its server does not keep up. */
  get isBlocked(): boolean {
    return this.#asked.connection?.output.blocked === true;
  }

  open(): void {
    if (this.#givesUp) return this.#end(GIVEN_UP);
    const reap = encodeQuery(this.#statement.reap);
    this.#asked.ask(
      (connection) => {
        this.#asked.lane.note(this.#statement.template, this.#statement.text);
        connection.send(reap, forwarded(Reply.query));
      },
      1,
      null,
      (results) => this.#reaped(results),
    );
  }

  #reaped(results: readonly BranchResult[] | null): void {
    if (results === null) return this.#end(this.#failureOf(results)!);
    // Who may not delete may copy all the same; what else is wrong, the COPY will meet, too.
    const isMore = results.at(-1)!.tag === `DELETE ${REAPED_ROWS}` && ++this.#reaps < REAPS_MAX;
    if (this.#givesUp) return this.#end(GIVEN_UP);
    if (isMore) return this.open();
    const { template, text, isShared } = this.#statement;
    const queries = isShared ? BEGIN : BEGIN_ALONE;
    this.#hasBegun = true;
    // That transaction is over: it may be another connection.
    this.#asked.ask(
      (connection) => {
        this.#asked.lane.note(template, text);
        for (const query of queries) connection.send(query, forwarded(Reply.query));
      },
      queries.length,
      null,
      (begun) => this.#begun(begun),
    );
  }

  #begun(results: readonly BranchResult[] | null): void {
    if (this.#givesUp) return this.#end(GIVEN_UP);
    const branch = results?.[2];
    if (branch?.error != null) {
      const { sqlstate, message } = branch;
      if (sqlstate === FEATURE_NOT_SUPPORTED) return this.#end({ kind: 'unable', why: message });
      if (NOT_INSTALLED.has(sqlstate))
        return this.#end({ kind: 'unable', why: 'its extension is older: run pgkv init again' });
    }
    const failure = this.#failureOf(results);
    if (failure !== null) return this.#end(failure);
    const isolation = lastRow(results![1])?.[ISOLATION];
    if (isolation !== 'read committed' && this.#statement.isShared) {
      const why = `a transaction that is ${isolation} has no snapshot of several shards`;
      return this.#end({ kind: 'unable', why });
    }
    this.#asked.onProgress = () => this.#progressed();
    this.#asked.askSame(
      (connection) => connection.send(encodeQueryBytes(this.#statement.copy), forwarded(Reply.query)),
      1,
      null,
      (copied) => this.#copied(copied),
    );
  }

  #progressed(): void {
    const { connection } = this.#asked;
    if (this.#stage === 'opening' && connection?.copyIn === true) {
      this.#stage = 'copying';
      if (this.#givesUp) return this.#stop(copyFail(GIVE_UP));
    }
    if (this.#stage === 'copying') this.#client.progressed();
  }

  /** CopyData messages, which are handed over. */
  rows(bytes: Buffer): void {
    const { connection } = this.#asked;
    if (this.#stage !== 'copying' || connection === null) return;
    connection.output.push(bytes);
    connection.output.flush();
  }

  /** There are no more rows. */
  close(): void {
    if (this.#stage === 'copying') this.#stop(COPY_DONE);
  }

  /** The COPY fails as a whole, whatever this branch has to say: what it waits for, as a connection or a lock, it need not wait for. */
  giveUp(): void {
    if (this.#stage === 'copied' || this.#stage === 'failed') return;
    this.#givesUp = true;
    if (this.#stage === 'copying') this.#stop(copyFail(GIVE_UP));
    this.#asked.cancel();
    this.hurry();
  }

  /** Nothing is won by waiting for it. */
  hurry(): void {
    this.#asked.expire(ANSWER_MS);
  }

  /** Its transaction is gone with its connection. */
  get isLost(): boolean {
    return this.#asked.connection === null;
  }

  /** Its outcome says nothing. */
  get hasGivenUp(): boolean {
    return this.#givesUp;
  }

  #stop(message: Buffer): void {
    this.#stage = 'closing';
    const connection = this.#asked.connection as ServerConnection;
    connection.copyIn = false;
    connection.output.push(message);
    connection.output.flush();
  }

  #copied(results: readonly BranchResult[] | null): void {
    const failure = this.#failureOf(results);
    if (failure !== null) return this.#end(failure);
    const rows = rowsOf(results![0]!.tag);
    this.#asked.askSame(
      (connection) => connection.send(HAS_WRITTEN, forwarded(Reply.query)),
      1,
      null,
      (wrote) => {
        const lost = this.#failureOf(wrote);
        this.#end(lost ?? { kind: 'copied', rows, hasWritten: lastRow(wrote![0])?.[0] === 't' });
      },
    );
  }

  #failureOf(results: readonly BranchResult[] | null): CopyOutcome | null {
    if (results === null) {
      const { error, message } = this.#asked.refusal ?? {};
      if (message != null && error?.errorName === 'internal') return { kind: 'failed', error: message };
      return { kind: 'lost', error: error ?? new PgkvError('transaction_lost') };
    }
    const failed = results.find(({ error }) => error !== null);
    return failed === undefined ? null : { kind: 'failed', error: failed.error! };
  }

  #end(outcome: CopyOutcome): void {
    this.#stage = outcome.kind === 'copied' ? 'copied' : 'failed';
    this.#client.ended(this, outcome);
  }

  // The end of its transaction.

  commit(told: (answer: Answer) => void): void {
    this.#askEnd([COMMIT], told);
  }

  prepare(gid: string, told: (answer: Answer) => void): void {
    this.#askEnd([encodeQuery(`PREPARE TRANSACTION ${quoteLiteral(gid)}`)], told);
  }

  decide(gid: string, told: (answer: Answer) => void): void {
    this.#askEnd([encodeQuery(`SELECT pgkv.decide(${quoteLiteral(gid)})`), COMMIT], told);
  }

  /** A connection that was lost has taken its transaction along. */
  rollback(told: () => void): void {
    if (!this.#hasBegun) return told();
    this.#askEnd([ROLLBACK], () => told());
  }

  finish(gid: string, decision: Decision, told: (answer: Answer) => void): void {
    const query = encodeQuery(`${decision === 'commit' ? 'COMMIT' : 'ROLLBACK'} PREPARED ${quoteLiteral(gid)}`);
    this.#asked.ask(
      (connection) => connection.send(query, forwarded(Reply.query)),
      1,
      ANSWER_MS,
      (results) => told(answerOf(results)),
    );
  }

  end(): void {
    this.#asked.end();
  }

  #askEnd(queries: readonly Buffer[], told: (answer: Answer) => void): void {
    this.#asked.onProgress = null;
    this.#asked.askSame(
      (connection) => {
        for (const query of queries) connection.send(query, forwarded(Reply.query));
      },
      queries.length,
      ANSWER_MS,
      (results) => told(answerOf(results)),
    );
  }
}

function copyFail(reason: string): Buffer {
  const text = Buffer.from(`${reason}\0`);
  const head = Buffer.from([Frontend.copyFail, 0, 0, 0, 0]);
  head.writeInt32BE(text.length + 4, 1);
  return Buffer.concat([head, text]);
}

/** Of an end of a transaction, in one statement or two: the first error counts, and a COMMIT that was none. */
function answerOf(results: readonly BranchResult[] | null): Answer {
  if (results === null) return { kind: 'lost' };
  const failed = results.find(({ error }) => error !== null);
  if (failed !== undefined) return { kind: 'refused', sqlstate: failed.sqlstate, error: failed.error };
  const last = results.at(-1)!;
  if (last.tag === 'ROLLBACK') return { kind: 'refused', sqlstate: '25P02', error: null };
  return { kind: last.isLocal ? 'local' : 'done' };
}

/** Of a tag such as `COPY 3`. */
const rowsOf = (tag: string): bigint => BigInt(tag.slice(tag.lastIndexOf(' ') + 1));
