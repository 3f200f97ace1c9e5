// One shard's part of COPY … FROM STDIN: a transaction of its own, into which rows flow until all are there, and which then waits
// for the others; or a part of the client's block, on the lane of its branch. Stages:
//   opening   expired rows are removed (beside a block), the transaction is begun, the server is asked to copy
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
import { encodeQuery, encodeQueryBytes } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import { AskedLane } from '../two-phase/asked-lane.js';
import { ANSWER_MS, Branch, type BranchFailure, type BranchTarget, countOf, whyUnable } from '../two-phase/branch.js';
import { type BranchResult, lastRow } from '../two-phase/branch-reader.js';
import { BEGIN_BRANCH, HAS_WRITTEN_SQL } from '../two-phase/write-branch.js';

export interface CopyStatement {
  readonly template: Template;
  readonly text: string;
  /** What the shard runs, in the client's encoding. */
  readonly copy: Buffer;
  /** Removes some of the rows that have expired, and says how many. */
  readonly reap: string;
  /** There are other shards: the transaction may have to be prepared. */
  readonly isShared: boolean;
  /** Of its transactions. */
  readonly settings: string;
  /** It is run in the client's block, which decides what becomes of it. */
  readonly isInBlock: boolean;
}

export type CopyOutcome =
  | { readonly kind: 'copied'; readonly rows: bigint; readonly hasWritten: boolean }
  | BranchFailure;

type Stage = 'opening' | 'copying' | 'closing' | 'copied' | 'failed';

/** Rows that have expired are removed in so many transactions at most, and so many in each. */
const REAPS_MAX = 10_000;
export const REAPED_ROWS = 2_000;
/** Beside a block, which holds connections of the same pools, one to remove them by is awaited no longer. */
const REAPER_PATIENCE_MS = 500;
/** The slots are right: the trigger that would compute each once more need not. */
const SLOTS_ARE_RIGHT = `SELECT pg_catalog.set_config('pgkv.router', 'on', true)`;
/** In the answer to the settings. */
const ISOLATION = 1;
/** The rest of a block is none of its concern. */
const SLOTS_ARE_OPEN = encodeQuery(`SELECT pg_catalog.set_config('pgkv.router', 'off', true)`);
const IN_BLOCK = [encodeQuery(SLOTS_ARE_RIGHT)];
/** In front of BEGIN_BRANCH: BEGIN, settings, slots. */
const BEGIN_STEPS = 3;
const HAS_WRITTEN = encodeQuery(HAS_WRITTEN_SQL);
const COPY_DONE = Buffer.from([Frontend.copyDone, 0, 0, 0, 4]);
const GIVE_UP = 'another part of the COPY has failed';
const GIVEN_UP: CopyOutcome = { kind: 'failed', error: Buffer.alloc(0), isBound: true };

export interface CopyBranchClient {
  /** It takes rows, or takes more of them again. */
  progressed(): void;
  ended(branch: CopyBranch, outcome: CopyOutcome): void;
  notice(message: Buffer): void;
}

export class CopyBranch extends Branch {
  readonly #statement: CopyStatement;
  readonly #client: CopyBranchClient;
  /** Removes expired rows: another one where a block is open on the branch's own; none where the block would miss them in its snapshot. */
  readonly #reaper: AskedLane;
  #stage: Stage = 'opening';
  #reaps = 0;
  #givesUp = false;

  constructor(target: BranchTarget, statement: CopyStatement, clock: Clock, client: CopyBranchClient) {
    super(target, statement.template, clock, (message) => client.notice(message));
    this.#statement = statement;
    this.#client = client;
    const { beside } = target;
    const { template } = statement;
    const notice = (message: Buffer): void => client.notice(message);
    this.#reaper = beside === undefined ? this.asked : new AskedLane({ lane: beside, template, clock, notice });
  }

  get takesRows(): boolean {
    return this.#stage === 'copying';
  }

  /** Its server does not keep up. */
  get isBlocked(): boolean {
    return this.asked.connection?.output.blocked === true;
  }

  open(): void {
    if (this.#givesUp) return this.#end(GIVEN_UP);
    if (this.#statement.isInBlock && this.#reaper === this.asked) return this.#reaped(null);
    const reap = encodeQuery(this.#statement.reap);
    this.#reaper.ask(
      (connection) => {
        this.#reaper.lane.note(this.#statement.template, this.#statement.text);
        connection.send(reap, forwarded(Reply.query));
      },
      1,
      null,
      (results) => this.#reaped(results),
    );
    if (this.#reaper !== this.asked) this.#reaper.expireWaiting(REAPER_PATIENCE_MS);
  }

  #reaped(results: readonly BranchResult[] | null): void {
    const { template, text, isShared, isInBlock, settings } = this.#statement;
    // Beside a block nothing depends on it but whether rows that have expired are in the way.
    if (results === null && !isInBlock) {
      const { error, message } = this.#reaper.refusal ?? {};
      if (message != null && error?.errorName === 'internal')
        return this.#end({ kind: 'failed', error: message, isBound: true });
      return this.#end({ kind: 'lost', error: error ?? new PgkvError('transaction_lost') });
    }
    // Who may not delete may copy all the same; what else is wrong, the COPY will meet, too.
    const isMore = results?.at(-1)?.tag === `DELETE ${REAPED_ROWS}` && ++this.#reaps < REAPS_MAX;
    if (this.#givesUp) return this.#end(GIVEN_UP);
    if (isMore) return this.open();
    const queries = isInBlock ? IN_BLOCK : beginOf(settings, isShared);
    if (this.#reaper !== this.asked) this.#reaper.end();
    if (isInBlock && !this.asked.hasBlock) return this.#end(this.failureOf(null)!);
    // That transaction is over: it may be another connection.
    this.asked.ask(
      (connection) => {
        this.asked.lane.note(template, text);
        for (const query of queries) connection.send(query, forwarded(Reply.query));
      },
      queries.length,
      null,
      (begun) => this.#begun(begun),
    );
  }

  #begun(results: readonly BranchResult[] | null): void {
    if (this.#givesUp) return this.#end(GIVEN_UP);
    const branch = results?.[BEGIN_STEPS];
    if (branch?.error != null) {
      const why = whyUnable(branch.sqlstate, branch.message);
      if (why !== null) return this.#end({ kind: 'unable', why });
    }
    const failure = this.failureOf(results);
    if (failure !== null) return this.#end(failure);
    const isolation = lastRow(results![1])?.[ISOLATION];
    const { isShared, isInBlock } = this.#statement;
    if (isolation !== 'read committed' && isShared && !isInBlock) {
      const why = `a transaction that is ${isolation} has no snapshot of several shards`;
      return this.#end({ kind: 'unable', why });
    }
    this.asked.onProgress = () => this.#progressed();
    this.asked.askSame(
      (connection) => connection.send(encodeQueryBytes(this.#statement.copy), forwarded(Reply.query)),
      1,
      null,
      (copied) => this.#copied(copied),
    );
  }

  #progressed(): void {
    const { connection } = this.asked;
    if (this.#stage === 'opening' && connection?.copyIn === true) {
      this.#stage = 'copying';
      if (this.#givesUp) return this.#stop(copyFail(GIVE_UP));
    }
    if (this.#stage === 'copying') this.#client.progressed();
  }

  /** CopyData messages, which are handed over. */
  rows(bytes: Buffer): void {
    const { connection } = this.asked;
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
    this.asked.cancel();
    if (this.#reaper !== this.asked) this.#reaper.cancel();
    this.hurry();
  }

  /** Nothing is won by waiting for it. */
  hurry(): void {
    this.asked.expire(ANSWER_MS);
    if (this.#reaper !== this.asked) this.#reaper.expire(ANSWER_MS);
  }

  override end(): void {
    if (this.#reaper !== this.asked) this.#reaper.end();
    super.end();
  }

  /** Its outcome says nothing. */
  get hasGivenUp(): boolean {
    return this.#givesUp;
  }

  #stop(message: Buffer): void {
    this.#stage = 'closing';
    const connection = this.asked.connection as ServerConnection;
    connection.copyIn = false;
    connection.output.push(message);
    connection.output.flush();
  }

  #copied(results: readonly BranchResult[] | null): void {
    const failure = this.failureOf(results);
    if (failure !== null) return this.#end(failure);
    const rows = countOf(results![0]!.tag);
    this.asked.askSame(
      (connection) => connection.send(this.#statement.isInBlock ? SLOTS_ARE_OPEN : HAS_WRITTEN, forwarded(Reply.query)),
      1,
      null,
      (wrote) => {
        const lost = this.failureOf(wrote);
        this.#end(lost ?? { kind: 'copied', rows, hasWritten: lastRow(wrote![0])?.[0] === 't' });
      },
    );
  }

  #end(outcome: CopyOutcome): void {
    this.#stage = outcome.kind === 'copied' ? 'copied' : 'failed';
    this.#client.ended(this, outcome);
  }
}

const beginOf = (settings: string, isShared: boolean): readonly Buffer[] =>
  ['BEGIN', settings, SLOTS_ARE_RIGHT, ...(isShared ? [BEGIN_BRANCH] : [])].map(encodeQuery);

function copyFail(reason: string): Buffer {
  const text = Buffer.from(`${reason}\0`);
  const head = Buffer.from([Frontend.copyFail, 0, 0, 0, 0]);
  head.writeInt32BE(text.length + 4, 1);
  return Buffer.concat([head, text]);
}
