// One shard's part of what is written on several: begins its transaction, runs a statement in it, and asks whether it has written,
// all in one batch; or many statements behind a savepoint, all in one batch as well (a window).
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { forwarded, type Owed, parsing, Reply } from '../../backend/replies/reply-queue.js';
import { type StatementSource, unknownStatement } from '../../backend/replies/statement-source.js';
import { assert } from '../../base/assert.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import type { Template } from '../../sql/plan/template.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { encodeBareBind, encodeExecute, encodeParse, encodeQuery, SYNC } from '../../wire/client-messages.js';
import { encodeError } from '../../wire/server-messages.js';
import { DESCRIBE, encodeBind } from '../scatter/extended-messages.js';
import { INSTANT_SQL, type Instant, readInstant, withInstant } from '../scatter/instant.js';
import type { Send } from './asked-lane.js';
import { Branch, type BranchFailure, type BranchTarget, countOf, whyUnable } from './branch.js';
import { type BranchResult, lastRow } from './branch-reader.js';
import { CONNECTION_WAIT_MS, NO_CONNECTION } from './connection-wait.js';

export interface BranchStatement {
  readonly source: StatementSource;
  /** Of the client's own: what it, and the triggers that it runs, may leave. */
  readonly template: Template;
  /** Formats and values, as in Bind; in parts. */
  readonly parameters: readonly Buffer[];
  /** Formats of the columns that it returns, as in Bind; null: it returns no rows. */
  readonly formats: readonly number[] | null;
  /** It may be prepared. */
  readonly isAtomic: boolean;
}

export type BranchWrite =
  | { readonly kind: 'done'; readonly count: bigint; readonly hasWritten: boolean; readonly returned: BranchResult }
  | BranchFailure;

export const BRANCH_SETTINGS = `SELECT
  pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
  pg_catalog.current_setting('transaction_isolation'), pg_catalog.current_setting('transaction_read_only')`;
/** Of a question to a branch: with a mark behind it, or without. */
export const isSettings = (asked: unknown): boolean => typeof asked === 'string' && asked.startsWith(BRANCH_SETTINGS);
/** What only reads is never prepared. */
export const BEGIN_BRANCH = `SELECT CASE pg_catalog.current_setting('transaction_read_only') WHEN 'off' THEN pgkv.begin_branch() END`;
export const HAS_WRITTEN_SQL = 'SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL';
/** Of the extended protocol: where the BEGIN of a batch fails, as by a cancel, nothing behind it runs, least of all by itself. */
export const stepOf = (sql: string): Buffer =>
  Buffer.concat([encodeParse('', Buffer.from(`${sql}\0\0\0`)), encodeBareBind(''), encodeExecute('')]);
const STEP_OWED: readonly Owed[] = [Reply.parse, Reply.bind, Reply.execute].map(forwarded);
const BEGIN = stepOf('BEGIN');
/** The shard says whether it, and the role, can take part in two-phase commits. */
const MAY_PREPARE = stepOf(BEGIN_BRANCH);
/** Asks for nothing: it will not be prepared. */
const NEED_NOT = stepOf('SELECT');
const HAS_WRITTEN = stepOf(HAS_WRITTEN_SQL);
const INSTANT = encodeQuery(INSTANT_SQL);
const EXECUTE = encodeExecute('');
const STATEMENT_OWED: readonly Owed[] = [Reply.bind, Reply.execute].map(forwarded);
const RETURNING_OWED: readonly Owed[] = [Reply.bind, Reply.describePortal, Reply.execute].map(forwarded);

/** A statement of a window, and the time behind its parameters; null: it takes none. */
export interface WindowStatement {
  readonly statement: BranchStatement;
  readonly instant: Instant | null;
}

export type WindowOutcome =
  | { readonly kind: 'done'; readonly results: readonly BranchResult[]; readonly hasWritten: boolean }
  /** Something went another way than planned, and the branch is there. */
  | { readonly kind: 'undo' }
  | Extract<BranchFailure, { readonly kind: 'lost' }>;

/** How long a statement waits for a lock while others run beside it that it can be run again with. */
const BRIEF_LOCK_TIMEOUT = '100ms';
/** Where the client's own is not shorter: numbers below a second are shown in ms. */
const BRIEFLY = `pg_catalog.set_config('lock_timeout', CASE WHEN pg_catalog.current_setting('lock_timeout') ~ '^[1-9][0-9]?ms$'
  THEN pg_catalog.current_setting('lock_timeout') ELSE '${BRIEF_LOCK_TIMEOUT}' END, true)`;
const LOCK_TIMEOUT = `pg_catalog.current_setting('lock_timeout')`;
const WINDOW = 'pgkv_window';
const BEGIN_WINDOW = [
  `SAVEPOINT ${WINDOW}`,
  `SELECT pg_catalog.set_config('lock_timeout', '${BRIEF_LOCK_TIMEOUT}', true)`,
].map(stepOf);
const RELEASE_WINDOW = stepOf(`RELEASE SAVEPOINT ${WINDOW}`);
const UNDO_WINDOW = [`ROLLBACK TO SAVEPOINT ${WINDOW}`, `RELEASE SAVEPOINT ${WINDOW}`].map(stepOf);

export class WriteBranch extends Branch {
  readonly #settings: string;
  #hasBegun = false;
  /** As it is for the client, once it has begun. */
  #lockTimeout: string | null = null;
  /** It waits for locks briefly, up to what comes next. */
  #isBrief = false;
  /** The savepoint of its last window is there, so that it could be undone. */
  #hasSavepoint = false;

  /**
   * @param first the statement that it begins with
   * @param settings of its transaction
   */
  constructor(
    target: BranchTarget,
    first: BranchStatement,
    settings: string,
    clock: Clock,
    notice: (message: Buffer) => void,
  ) {
    super(target, first.template, clock, notice);
    this.#settings = settings;
  }

  /** What time it is there, outside of any transaction or in the client's block; or the error. */
  askInstant(isInBlock: boolean, told: (instant: Instant | Buffer) => void): void {
    const send: Send = (connection) => connection.send(INSTANT, forwarded(Reply.query));
    const answered = (results: readonly BranchResult[] | null): void => {
      const row = lastRow(results?.[0]);
      if (row !== null) return told(readInstant(row));
      const failure = this.failureOf(results);
      if (failure?.kind === 'failed') return told(failure.error);
      told(encodeError(failure?.kind === 'lost' ? failure.error : new PgkvError('transaction_lost'), 'ERROR'));
    };
    if (isInBlock) this.asked.askInBlock(send, 1, answered);
    else this.asked.ask(send, 1, null, answered);
  }

  /**
   * Runs a statement in the transaction, which begins with the first one.
   * @param instant behind its parameters; null: it takes none
   * @param isBrief it is the first one, and waits for locks only so long (55P03)
   */
  write(
    statement: BranchStatement,
    instant: Instant | null,
    isBrief: boolean,
    told: (outcome: BranchWrite) => void,
  ): void {
    const isFirst = !this.#hasBegun;
    const restored = this.#restored();
    const steps = isFirst ? this.#begin(statement, isBrief) : restored === null ? [] : [stepOf(restored)];
    const send: Send = (connection) => {
      this.#foresee(connection, statement);
      for (const step of steps) connection.sendAll(step, STEP_OWED);
      sendStatement(connection, statement, instant);
      connection.sendAll(HAS_WRITTEN, STEP_OWED);
      connection.send(SYNC, forwarded(Reply.sync));
    };
    const outcome = (results: readonly BranchResult[] | null): void =>
      told(this.#writeOutcome(results, steps.length, isFirst));
    // On another connection it would be committed by itself.
    if (!isFirst) return this.asked.askSame(send, 1, null, outcome);
    this.#hasBegun = true;
    this.#isBrief = isBrief;
    this.asked.ask(send, 1, null, outcome);
  }

  /** What it has done is taken back, and it is to begin anew. */
  beginAnew(done: () => void): void {
    this.rollback(() => {
      this.#hasBegun = this.#isBrief = this.#hasSavepoint = false;
      this.#lockTimeout = null;
      done();
    });
  }

  /** What has the client's own bound for locks hold again; null: it does. */
  #restored(): string | null {
    if (!this.#isBrief || this.#lockTimeout === null) return null;
    this.#isBrief = false;
    return `SET LOCAL lock_timeout = ${quoteLiteral(this.#lockTimeout)}`;
  }

  protected override beforeEnd(): string | null {
    return this.#restored();
  }

  #begin({ isAtomic }: Pick<BranchStatement, 'isAtomic'>, isBrief = false): Buffer[] {
    const settings = `${this.#settings}${isBrief ? `, ${LOCK_TIMEOUT}, ${BRIEFLY}` : `, ${LOCK_TIMEOUT}`}`;
    return [BEGIN, stepOf(settings), isAtomic ? MAY_PREPARE : NEED_NOT];
  }

  /** It has begun, and can run a window. */
  get isOpen(): boolean {
    return this.#lockTimeout !== null;
  }

  /** Begins its transaction, for what comes. @param told null: it has begun */
  open({ isAtomic }: Pick<BranchStatement, 'isAtomic'>, told: (failure: BranchFailure | null) => void): void {
    const begin = this.#begin({ isAtomic });
    const send: Send = (connection) => {
      connection.unnamed = unknownStatement;
      for (const step of begin) connection.sendAll(step, STEP_OWED);
      connection.send(SYNC, forwarded(Reply.sync));
    };
    this.#hasBegun = true;
    this.asked.ask(send, 1, null, (results) => told(results === null ? this.failureOf(null) : this.#begun(results)));
  }

  /**
   * Runs statements one behind the other, in one write, behind a savepoint. What waits for a lock waits only so long: the other
   * branches have locks of statements behind it, for which its owner may wait.
   */
  window(statements: readonly WindowStatement[], told: (outcome: WindowOutcome) => void): void {
    assert(this.#lockTimeout !== null, 'a branch begins before its first window');
    const end = stepOf(
      `SELECT pg_catalog.set_config('lock_timeout', ${quoteLiteral(this.#lockTimeout)}, true), (${HAS_WRITTEN_SQL})`,
    );
    const begin = [...(this.#hasSavepoint ? [RELEASE_WINDOW] : []), ...BEGIN_WINDOW];
    const send: Send = (connection) => {
      for (const step of begin) connection.sendAll(step, STEP_OWED);
      let parsed: StatementSource | null = null;
      for (const { statement, instant } of statements) {
        this.#foresee(connection, statement);
        sendStatement(connection, statement, instant, statement.source === parsed);
        parsed = statement.source;
      }
      connection.sendAll(end, STEP_OWED);
      connection.send(SYNC, forwarded(Reply.sync));
    };
    let isNoticed = false;
    const answered = (results: readonly BranchResult[] | null): void => {
      if (results === null) return told({ kind: 'lost', error: lostBy(this.failureOf(null)) });
      const failed = isNoticed || results.some(({ error }) => error !== null);
      if (failed) return told({ kind: 'undo' });
      const hasWritten = lastRow(results.at(-1))?.[1] === 't';
      // The client's own bound for locks holds again; where the window is undone it is as it was in front of it.
      this.#isBrief = false;
      told({ kind: 'done', results: results.slice(begin.length, -1), hasWritten });
    };
    const noticed = (): void => {
      isNoticed = true;
    };
    this.#hasSavepoint = true;
    this.asked.askSame(send, 1, null, answered, noticed);
  }

  /** As if the window had not been. @param told false: it cannot be, and the transaction is lost */
  undoWindow(told: (isUndone: boolean) => void): void {
    const send: Send = (connection) => {
      connection.unnamed = unknownStatement;
      for (const step of UNDO_WINDOW) connection.sendAll(step, STEP_OWED);
      connection.send(SYNC, forwarded(Reply.sync));
    };
    this.#hasSavepoint = false;
    this.asked.askSame(send, 1, null, (results) => told(results?.every(({ error }) => error === null) === true));
  }

  /** The session has connections to other shards: what was asked last waits for one to this only so long. */
  waitBriefly(): void {
    this.asked.waitAtMost(CONNECTION_WAIT_MS, NO_CONNECTION);
  }

  /** Runs it in the client's block, which the lane has. */
  writeInBlock(statement: BranchStatement, instant: Instant | null, told: (outcome: BranchWrite) => void): void {
    const send: Send = (connection) => {
      this.#foresee(connection, statement);
      sendStatement(connection, statement, instant);
      connection.send(SYNC, forwarded(Reply.sync));
    };
    this.asked.askInBlock(send, 1, (results) => {
      const failure = this.failureOf(results);
      if (failure !== null) return told(failure);
      const [written] = results!;
      told({ kind: 'done', count: countOf(written!.tag), hasWritten: true, returned: written! });
    });
  }

  #foresee(connection: ServerConnection, { source, template }: BranchStatement): void {
    this.asked.lane.note(template, source.text);
    connection.unnamed = unknownStatement;
  }

  /** @param steps answers in front of the statement's. @param isFirst they begin the transaction */
  #writeOutcome(results: readonly BranchResult[] | null, steps: number, isFirst: boolean): BranchWrite {
    if (results === null) return this.failureOf(results)!;
    const begun = isFirst ? this.#begun(results.slice(0, steps)) : null;
    if (begun !== null) return begun;
    const failure = this.failureOf(results);
    if (failure !== null) return failure;
    const [written, wrote] = results.slice(steps);
    const hasWritten = lastRow(wrote)?.[0] === 't';
    return { kind: 'done', count: countOf(written!.tag), hasWritten, returned: written! };
  }

  /** @param results of the steps that begin it, as far as they have come */
  #begun(results: readonly BranchResult[]): BranchFailure | null {
    const [, settings, begun] = results;
    const unable = begun?.error == null ? null : whyUnable(begun.sqlstate, begun.message);
    if (unable !== null) return { kind: 'unable', why: unable };
    const row = lastRow(settings);
    const isolation = row?.[1] ?? null;
    if (isolation !== null && isolation !== 'read committed') {
      return { kind: 'unable', why: `a transaction that is ${isolation} has no snapshot of several shards` };
    }
    const failure = this.failureOf(results);
    if (failure === null) this.#lockTimeout = row?.at(this.#isBrief ? -2 : -1) ?? null;
    return failure;
  }
}

const lostBy = (failure: BranchFailure | null): PgkvError =>
  failure?.kind === 'lost' ? failure.error : new PgkvError('transaction_lost');

/** @param isParsed it is the server's unnamed statement */
function sendStatement(
  connection: ServerConnection,
  statement: BranchStatement,
  instant: Instant | null,
  isParsed = false,
): void {
  const { source, formats, parameters: own } = statement;
  const parameters = instant === null ? own : withInstant(Buffer.concat(own), instant);
  if (!isParsed) {
    connection.send(encodeParse('', source.parseTail), parsing(source.rewritten, false, { undo: () => undefined }));
  }
  for (const part of encodeBind('', parameters, formats ?? [])) connection.output.push(part);
  if (formats !== null) connection.output.push(DESCRIBE);
  connection.sendAll(EXECUTE, formats === null ? STATEMENT_OWED : RETURNING_OWED);
}
