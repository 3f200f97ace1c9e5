// One shard's part of a statement that writes on several: a transaction of its own on a lane of its own, which waits for the
// others before it ends. What the coordinator asks of it goes by the connection that has the transaction, or, once that is
// prepared or lost, by another one of the same role. Invariant: one question at a time is under way, and each is answered
// once: by the server, or as lost when the connection breaks or the deadline is missed.
import type { ServerConnection, ServerLoss } from '../../backend/connection/server-connection.js';
import type { ReportedParameters } from '../../backend/replies/parameter-status.js';
import { forwarded, type Owed, parsing, Reply } from '../../backend/replies/reply-queue.js';
import { type StatementSource, unknownStatement } from '../../backend/replies/statement-source.js';
import { assert } from '../../base/assert.js';
import type { Clock, Timer } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { encodeBareBind, encodeExecute, encodeParse, encodeQuery, SYNC } from '../../wire/client-messages.js';
import { encodeError } from '../../wire/server-messages.js';
import type { ClientPort, LeasedLane } from '../leased/leased-lane.js';
import { DESCRIBE, encodeBind } from '../scatter/extended-messages.js';
import { INSTANT_SQL, type Instant, readInstant, withInstant } from '../scatter/instant.js';
import { BranchReader, type BranchResult, lastRow } from './branch-reader.js';
import type { CommitBranch } from './coordinator.js';
import type { Answer, Decision } from './protocol.js';

export interface BranchTarget {
  readonly shardName: string;
  /** A lane of the session on that shard, for this branch alone. */
  lane(client: ClientPort<LeasedLane>): LeasedLane;
}

export interface BranchStatement {
  readonly source: StatementSource;
  /** Formats and values, as in Bind; in parts. */
  readonly parameters: readonly Buffer[];
  /** Formats of the columns that it returns, as in Bind; null: it returns no rows. */
  readonly formats: readonly number[] | null;
  /** It may be prepared. */
  readonly isAtomic: boolean;
}

export type BranchWrite =
  | { readonly kind: 'done'; readonly count: bigint; readonly hasWritten: boolean; readonly returned: BranchResult }
  | { readonly kind: 'failed'; readonly error: Buffer }
  /** Why this shard cannot take part, in its words. */
  | { readonly kind: 'unable'; readonly why: string }
  /** Nothing is committed there. */
  | { readonly kind: 'lost'; readonly error: PgkvError };

/** A transaction that waits for a lock of one that waits for us elsewhere would wait for ever: no server sees the circle. */
const LOCK_TIMEOUT = '5s';
export const BRANCH_SETTINGS = `SELECT
  pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
  pg_catalog.set_config('lock_timeout', CASE pg_catalog.current_setting('lock_timeout')
    WHEN '0' THEN '${LOCK_TIMEOUT}' ELSE pg_catalog.current_setting('lock_timeout') END, true),
  pg_catalog.current_setting('transaction_isolation')`;
export const BEGIN_BRANCH = 'SELECT pgkv.begin_branch()';
export const HAS_WRITTEN_SQL = 'SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL';
/** Of the extended protocol: where the BEGIN of a batch fails, as by a cancel, nothing behind it runs, least of all by itself. */
const stepOf = (sql: string): Buffer =>
  Buffer.concat([encodeParse('', Buffer.from(`${sql}\0\0\0`)), encodeBareBind(''), encodeExecute('')]);
const STEP_OWED: readonly Owed[] = [Reply.parse, Reply.bind, Reply.execute].map(forwarded);
const BEGIN = ['BEGIN', BRANCH_SETTINGS].map(stepOf);
/** The shard says whether it, and the role, can take part in two-phase commits. */
const MAY_PREPARE = stepOf(BEGIN_BRANCH);
/** Asks for nothing: it will not be prepared. */
const NEED_NOT = stepOf('SELECT');
const HAS_WRITTEN = stepOf(HAS_WRITTEN_SQL);
const INSTANT = encodeQuery(INSTANT_SQL);
const COMMIT = encodeQuery('COMMIT');
const ROLLBACK = encodeQuery('ROLLBACK');
const EXECUTE = encodeExecute('');
const STATEMENT_OWED: readonly Owed[] = [Reply.bind, Reply.execute].map(forwarded);
const RETURNING_OWED: readonly Owed[] = [Reply.bind, Reply.describePortal, Reply.execute].map(forwarded);
const FEATURE_NOT_SUPPORTED = '0A000';
/** Function, or schema, not there: an extension of before 0.3.0. */
const NOT_INSTALLED: ReadonlySet<string> = new Set(['42883', '3F000']);
/** How long a server may take over the end of a transaction. */
export const ANSWER_MS = 10_000;

type Told = (results: readonly BranchResult[] | null) => void;
type Send = (connection: ServerConnection) => void;

export class WriteBranch implements ClientPort<LeasedLane>, CommitBranch {
  readonly shardName: string;
  readonly clogged = false;
  readonly holdsBytes = false;
  readonly #target: BranchTarget;
  readonly #statement: BranchStatement;
  readonly #clock: Clock;
  readonly #notice: (message: Buffer) => void;
  #lane: LeasedLane;
  /** Waits for a connection. */
  #waiting: { readonly send: Send; readonly count: number; readonly notice: (message: Buffer) => void } | null = null;
  #reader: BranchReader | null = null;
  #isOwners = false;
  #told: Told | null = null;
  #deadline: Timer | null = null;
  /** What the client has been told, where the lane has just noted another shard's settings. */
  #settingsTold: ReportedParameters | null = null;
  /** Why there is no connection. */
  #refusal: { readonly error: PgkvError; readonly message: Buffer | null } | null = null;

  constructor(target: BranchTarget, statement: BranchStatement, clock: Clock, notice: (message: Buffer) => void) {
    this.shardName = target.shardName;
    this.#target = target;
    this.#statement = statement;
    this.#clock = clock;
    this.#notice = notice;
    this.#lane = target.lane(this);
  }

  /** What time it is there, outside of any transaction; or the error. */
  askInstant(told: (instant: Instant | Buffer) => void): void {
    const send: Send = (connection) => connection.send(INSTANT, forwarded(Reply.query));
    this.#ask(send, 1, null, (results) => {
      const row = lastRow(results?.[0]);
      if (row !== null) return told(readInstant(row));
      const { error, message } = this.#refusal ?? {};
      if (message != null && error?.errorName === 'internal') return told(message);
      told(results?.[0]?.error ?? encodeError(error ?? new PgkvError('transaction_lost'), 'ERROR'));
    });
  }

  /** Begins the transaction and runs the statement in it. @param instant behind its parameters; null: it takes none */
  write(instant: Instant | null, told: (outcome: BranchWrite) => void): void {
    const { source, formats, isAtomic } = this.#statement;
    const own = this.#statement.parameters;
    const parameters = instant === null ? own : withInstant(Buffer.concat(own), instant);
    const send: Send = (connection) => {
      this.#lane.note(source.template, source.text);
      connection.unnamed = unknownStatement;
      for (const step of [...BEGIN, isAtomic ? MAY_PREPARE : NEED_NOT]) connection.sendAll(step, STEP_OWED);
      connection.send(encodeParse('', source.parseTail), parsing(source.rewritten, false, { undo: () => undefined }));
      for (const part of encodeBind('', parameters, formats ?? [])) connection.output.push(part);
      if (formats !== null) connection.output.push(DESCRIBE);
      connection.sendAll(EXECUTE, formats === null ? STATEMENT_OWED : RETURNING_OWED);
      connection.sendAll(HAS_WRITTEN, STEP_OWED);
      connection.send(SYNC, forwarded(Reply.sync));
    };
    this.#ask(send, 1, null, (results) => told(this.#writeOutcome(results)));
  }

  /** Where no other branch has written: nothing has to be decided. */
  commit(told: (answer: Answer) => void): void {
    this.#askEnd([COMMIT], told);
  }

  prepare(gid: string, told: (answer: Answer) => void): void {
    this.#askEnd([encodeQuery(`PREPARE TRANSACTION ${quoteLiteral(gid)}`)], told);
  }

  decide(gid: string, told: (answer: Answer) => void): void {
    this.#askEnd([encodeQuery(`SELECT pgkv.decide(${quoteLiteral(gid)})`), COMMIT], told);
  }

  rollback(told: () => void): void {
    // A connection that was lost has taken its transaction along.
    if (this.#lane.mode !== 'leased') return void this.#clock.after(0, told);
    this.#ask(
      (connection) => connection.send(ROLLBACK, forwarded(Reply.query)),
      1,
      ANSWER_MS,
      () => told(),
      // That there is no transaction, where its BEGIN has failed.
      () => undefined,
    );
  }

  /** @param first makes the session the owner's; null: it is. With it, the connection is of no use to others afterwards */
  finish(gid: string, decision: Decision, told: (answer: Answer) => void, first: string | null = null): void {
    const how = decision === 'commit' ? 'COMMIT' : 'ROLLBACK';
    const sql = [...(first === null ? [] : [first]), `${how} PREPARED ${quoteLiteral(gid)}`];
    if (first !== null) this.#isOwners = true;
    const send: Send = (connection) => {
      for (const one of sql) connection.send(encodeQuery(one), forwarded(Reply.query));
    };
    this.#ask(send, sql.length, ANSWER_MS, (results) => told(answerOf(results)));
  }

  /** Its connection is gone, and with it what was not prepared. */
  get isLost(): boolean {
    return this.#lane.mode !== 'leased';
  }

  /** CancelRequest of the client: while the statement runs. */
  cancel(): void {
    this.#lane.cancel();
  }

  /** Its connection is given back, or closed where it is not at rest. */
  end(): void {
    if (this.#isOwners) this.#lane.connection?.destroy('it has the role of a transaction that was prepared');
    this.#lane.end();
  }

  /** On the connection that has the transaction: it cannot be asked on another one. */
  #askEnd(queries: readonly Buffer[], told: (answer: Answer) => void): void {
    if (this.#lane.mode !== 'leased') return void this.#clock.after(0, () => told({ kind: 'lost' }));
    const send: Send = (connection) => {
      for (const query of queries) connection.send(query, forwarded(Reply.query));
    };
    this.#ask(send, queries.length, ANSWER_MS, (results) => told(answerOf(results)));
  }

  #ask(send: Send, count: number, deadlineMs: number | null, told: Told, notice = this.#notice): void {
    assert(this.#told === null, 'one question at a time');
    this.#told = told;
    this.#refusal = null;
    this.#waiting = { send, count, notice };
    if (deadlineMs !== null) this.#deadline = this.#clock.after(deadlineMs, () => this.#miss());
    if (this.#lane.ensure(this.#statement.source.template)) this.#send();
  }

  #send(): void {
    const waiting = this.#waiting;
    if (waiting === null) return;
    this.#restoreTold();
    this.#waiting = null;
    this.#reader = new BranchReader(waiting.count, waiting.notice);
    const connection = this.#lane.connection!;
    waiting.send(connection);
    connection.output.flush();
  }

  /** Who does not answer is left; what was asked may be done all the same. */
  #miss(): void {
    this.#lane.end();
    this.#lane = this.#target.lane(this);
    this.#answer(null);
  }

  #answer(results: readonly BranchResult[] | null): void {
    const told = this.#told;
    this.#deadline?.cancel();
    this.#deadline = this.#told = this.#waiting = this.#reader = null;
    told?.(results);
  }

  #writeOutcome(results: readonly BranchResult[] | null): BranchWrite {
    if (results === null) {
      const { error, message } = this.#refusal ?? {};
      if (message != null && error?.errorName === 'internal') return { kind: 'failed', error: message };
      return { kind: 'lost', error: error ?? new PgkvError('transaction_lost') };
    }
    const [, settings, begun, written, wrote] = results;
    const unable = begun?.error == null ? null : whyUnable(begun.sqlstate, begun.message);
    if (unable !== null) return { kind: 'unable', why: unable };
    const isolation = lastRow(settings)?.[2] ?? null;
    if (isolation !== null && isolation !== 'read committed') {
      return { kind: 'unable', why: `a transaction that is ${isolation} has no snapshot of several shards` };
    }
    const failed = results.find(({ error }) => error !== null);
    if (failed !== undefined) return { kind: 'failed', error: failed.error! };
    const hasWritten = lastRow(wrote)?.[0] === 't';
    return { kind: 'done', count: countOf(written!.tag), hasWritten, returned: written! };
  }

  #restoreTold(): void {
    if (this.#settingsTold !== null) this.#lane.session.told = this.#settingsTold;
    this.#settingsTold = null;
  }

  // Called by the lane.

  send(bytes: Buffer): void {
    if (this.#reader === null) this.#settingsTold ??= this.#lane.session.told;
    else if (!this.#reader.push(bytes)) this.#miss();
  }

  flush(): void {
    // Nothing is passed on before it is whole.
  }

  notified(): void {
    // No session listens on the connection of a branch.
  }

  ready(): void {
    // ReadyForQuery is read from what is sent.
  }

  resume(): void {
    if (this.#waiting !== null) {
      if (this.#lane.mode === 'leased') this.#send();
      else if (this.#lane.mode === 'free' && this.#lane.ensure(this.#statement.source.template)) this.#send();
    } else if (this.#reader?.isComplete === true) this.#answer(this.#reader.results);
  }

  refused(error: PgkvError, message: Buffer | null): void {
    this.#restoreTold();
    this.#refusal = { error, message };
    this.#answer(null);
  }

  lost(_loss: ServerLoss): void {
    this.#restoreTold();
    const reader = this.#reader;
    // What was answered before it broke was answered.
    this.#answer(reader?.isComplete === true ? reader.results : null);
  }

  repeat(): void {
    assert(false, 'the statement of a branch is parsed anew each time');
  }

  tag(): void {
    // Tags are read from what is sent.
  }
}

/** Why a shard cannot take part, by its answer to BEGIN_BRANCH; null: something else has failed. */
export function whyUnable(sqlstate: string, message: string): string | null {
  if (sqlstate === FEATURE_NOT_SUPPORTED) return message;
  return NOT_INSTALLED.has(sqlstate) ? 'its extension is older: run pgkv init again' : null;
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

/** Of a tag such as `UPDATE 3`. */
const countOf = (tag: string): bigint => BigInt(tag.slice(tag.lastIndexOf(' ') + 1));
