// One shard's part of the INSERTs of several clients that are written in one transaction: begins it, runs them, and, where another
// shard decides, prepares it, all in one write. What the coordinator asks of it means the same as of any branch; only the answer to
// its preparing tells that it was not written, too. Stages of what is sent in that write, once each: nothing, asked, answered.
import { forwarded, type Owed, Reply } from '../../backend/replies/reply-queue.js';
import { unknownStatement } from '../../backend/replies/statement-source.js';
import { assert } from '../../base/assert.js';
import type { Clock } from '../../base/clock.js';
import { Effect, type Template } from '../../sql/plan/template.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { encodeQuery, SYNC } from '../../wire/client-messages.js';
import { ANSWER_MS, answerOf, Branch, type BranchTarget, countOf, NOT_WRITTEN } from './branch.js';
import { type BranchResult, lastRow } from './branch-reader.js';
import type { Answer } from './protocol.js';
import { stepOf } from './write-branch.js';

/** A member's statement for one shard: Parse and Bind of the unnamed statement and portal, in parts. */
export type GroupStatement = readonly Buffer[];

const STEP_OWED: readonly Owed[] = [Reply.parse, Reply.bind, Reply.execute].map(forwarded);
/** A stranger's lock must not hold up everybody: who waits for one, waits alone. */
const LOCK_TIMEOUT = '100ms';
/** One statement, since many of them cost more than what they do. The slots that are given are right. */
const SETTINGS = `SELECT pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
  pg_catalog.set_config('lock_timeout', '${LOCK_TIMEOUT}', true), pg_catalog.set_config('pgkv.router', 'on', true),
  pg_catalog.current_setting('transaction_isolation'), pgkv.begin_branch()`;
/** In SETTINGS. */
const ISOLATION = 3;
const BEGIN = [stepOf('BEGIN'), stepOf(SETTINGS)];

export class GroupBranch extends Branch {
  readonly #template: Template;
  readonly #statements: readonly GroupStatement[];
  #written: Answer | null = null;
  #onWritten: ((answer: Answer) => void) | null = null;
  /** Rows by statement. */
  counts: readonly bigint[] = [];
  /** May not take part, though nothing has failed. */
  isUnfit = false;

  /** @param template of one of them: they are alike in what they may leave */
  constructor(
    target: BranchTarget,
    template: Template,
    statements: readonly GroupStatement[],
    clock: Clock,
    notice: () => void,
  ) {
    super(target, template, clock, notice);
    this.#template = template;
    this.#statements = statements;
  }

  /** Of the branch that decides: what it writes is sent while the others prepare. */
  write(): void {
    this.#write([], (answer) => {
      this.#written = answer;
      this.#onWritten?.(answer);
    });
  }

  override prepare(gid: string, told: (answer: Answer) => void): void {
    this.#write([stepOf(`PREPARE TRANSACTION ${quoteLiteral(gid)}`)], told);
  }

  /** @param isAgreed all that the others have said allows it */
  decideIf(gid: string, isAgreed: () => boolean, told: (answer: Answer) => void): void {
    const notWritten = (): void => told(NOT_WRITTEN);
    this.#whenWritten((isThere) => {
      if (!isThere) this.clock.after(0, notWritten);
      else if (isAgreed()) this.decide(gid, told);
      else super.rollback(notWritten);
    });
  }

  override rollback(told: () => void): void {
    this.#whenWritten((isThere) => (isThere ? super.rollback(told) : void this.clock.after(0, told)));
  }

  /** @param then isThere: its transaction is open */
  #whenWritten(then: (isThere: boolean) => void): void {
    assert(this.#onWritten === null, 'one thing is done once it is written');
    const written = this.#written;
    this.#onWritten = ({ kind }) => then(kind === 'done' || kind === 'local');
    if (written !== null) this.#onWritten(written);
  }

  /** Where it fails its transaction is rolled back before that is told. */
  #write(more: readonly Buffer[], told: (answer: Answer) => void): void {
    this.asked.ask(
      (connection) => {
        connection.unnamed = unknownStatement;
        // What triggers leave behind is the client's whose rows they are for. This is answered as a transaction that has failed.
        if ((this.asked.lane.note(this.#template, '') & Effect.unknown) !== 0) {
          return connection.send(encodeQuery('ROLLBACK'), forwarded(Reply.query));
        }
        for (const step of BEGIN) connection.sendAll(step, STEP_OWED);
        for (const parts of this.#statements) {
          for (const part of parts.slice(0, -1)) connection.output.push(part);
          connection.sendAll(parts.at(-1)!, STEP_OWED);
        }
        for (const step of more) connection.sendAll(step, STEP_OWED);
        connection.send(SYNC, forwarded(Reply.sync));
      },
      1,
      ANSWER_MS,
      (results) => this.#answered(results, told),
    );
  }

  #answered(results: readonly BranchResult[] | null, told: (answer: Answer) => void): void {
    const answer = answerOf(results);
    if (results === null || answer.kind === 'refused') {
      return results === null ? told(answer) : super.rollback(() => told(answer));
    }
    const first = BEGIN.length;
    this.counts = results.slice(first, first + this.#statements.length).map(({ tag }) => countOf(tag));
    this.isUnfit = lastRow(results[first - 1])?.[ISOLATION] !== 'read committed';
    told(answer);
  }
}
