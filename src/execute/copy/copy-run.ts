// COPY … FROM STDIN into a key-value table: the client's data is cut into rows, each goes to the shard of its key, and all shards
// commit together, or none (D14). Stages:
//   opening   the shards are asked; the client waits
//   copying   all take rows: the client's data is taken as fast as the slowest shard takes it
//   closing   the client has sent all; the shards check what they have
//   failing   something has failed: the shards say of what they have whether something before it has, or give up
//   ending    it is being committed, or taken back; in a block that is the block's, and it is over
//   over      told; nothing of it is on any connection but what the recoverer finds
// Invariant: the client hears of the end once, and of a commit only when every shard shows it.
import { assert } from '../../base/assert.js';
import type { Clock, Random } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import { CopyDataError } from '../../wire/copy-data-error.js';
import type { CopyCutter, CopyRowTaker, RowLines } from '../../wire/copy-lines.js';
import { encodeErrorResponse, readErrorFields, withFields } from '../../wire/error-fields.js';
import { encodeError } from '../../wire/server-messages.js';
import type { BranchTarget } from '../two-phase/branch.js';
import { commitTogether, forEach } from '../two-phase/commit-together.js';
import { type LockMark, markedSettings } from '../two-phase/lock-mark.js';
import type { LockWatch } from '../two-phase/lock-watch.js';
import type { PreparedSlots } from '../two-phase/prepared-slots.js';
import { CopyBranch, type CopyOutcome, type CopyStatement } from './copy-branch.js';
import { CopyFeed, SLOT_NAME, type SlotForm } from './copy-feed.js';

/** Where a row goes; or why it goes nowhere. */
export type RowPlace = { readonly shard: number; readonly slot: number | null } | PgkvError;

export interface CopyRequest {
  /** All shards of the view. */
  readonly targets: readonly BranchTarget[];
  readonly statement: Omit<CopyStatement, 'settings'>;
  readonly slotForm: SlotForm;
  /** Without a schema, as Postgres names it in what it says of a line. */
  readonly tableName: string;
  /** @param fields tenant, key and, where the client gives it, slot */
  place(fields: readonly (Buffer | null)[]): RowPlace;
  cutter(taker: CopyRowTaker): CopyCutter;
  /** Ends it where it waits for others over shards that wait for it. */
  readonly watch: LockWatch;
  readonly slots: PreparedSlots;
  /** Null: there is one shard, and nothing is prepared. */
  readonly clusterId: string | null;
  /** That logged in. */
  readonly role: string;
  readonly clock: Clock;
  readonly random: Random;
}

export interface CopyClient {
  /** The data may be sent. */
  started(): void;
  /** Data is taken again. */
  unblocked(): void;
  /** @param rows of all shards */
  completed(rows: bigint): void;
  /** ErrorResponse, as a shard or pgkv words it. */
  failed(error: Buffer): void;
  notice(message: Buffer): void;
}

type Stage = 'opening' | 'copying' | 'closing' | 'failing' | 'ending' | 'over';

interface Part {
  readonly branch: CopyBranch;
  readonly feed: CopyFeed;
  outcome: CopyOutcome | null;
}

interface Failure {
  readonly error: Buffer;
  /** Of the client's data, if it is of a line: the first is told. */
  readonly line: number;
}

export class CopyRun implements CopyRowTaker {
  readonly #request: CopyRequest;
  readonly #client: CopyClient;
  readonly #parts: readonly Part[];
  readonly #cutter: CopyCutter;
  readonly #mark: LockMark;
  #stage: Stage = 'opening';
  #failure: Failure | null = null;
  #isAbandoned = false;
  /** No data was taken. */
  #failedOpening = false;

  constructor(request: CopyRequest, client: CopyClient) {
    this.#request = request;
    this.#client = client;
    this.#cutter = request.cutter(this);
    this.#mark = request.watch.newMark();
    const statement = { ...request.statement, settings: markedSettings(this.#mark) };
    this.#parts = request.targets.map((target) => {
      const branch = new CopyBranch(target, statement, request.clock, {
        progressed: () => this.#progressed(),
        ended: (_, outcome) => this.#ended(part, outcome),
        notice: (message) => {
          if (!this.#isAbandoned) client.notice(message);
        },
      });
      const feed = new CopyFeed(request.slotForm, (bytes) => branch.rows(bytes));
      const part: Part = { branch, feed, outcome: null };
      return part;
    });
  }

  start(): void {
    for (const { branch } of this.#parts) branch.open();
    if (!this.#request.statement.isInBlock) watchCopy(this.#request.watch, this.#mark, this);
  }

  get isOver(): boolean {
    return this.#stage === 'over';
  }

  get branches(): readonly CopyBranch[] {
    return this.#parts.map(({ branch }) => branch);
  }

  get isCopying(): boolean {
    return this.#stage === 'copying';
  }

  /** A shard does not keep up: no data is to come for now. */
  get isBlocked(): boolean {
    return this.#parts.some(({ branch }) => branch.isBlocked);
  }

  /** Bytes of CopyData. */
  push(bytes: Buffer): void {
    if (this.#stage === 'copying') this.#cut(() => this.#cutter.push(bytes));
  }

  /** CopyDone. */
  finish(): void {
    if (this.#stage !== 'copying') return;
    this.#cut(() => this.#cutter.finish());
    if (this.#stage !== 'copying') return;
    this.#stage = 'closing';
    for (const { branch, feed } of this.#parts) {
      feed.flush();
      branch.close();
    }
  }

  /** CopyFail. */
  clientFails(message: string): void {
    const { line } = this.#cutter;
    this.#failAt({ error: this.#dataError('57014', `COPY from stdin failed: ${message}`, null, line), line });
  }

  /** pgkv does not take it after all. */
  refuse(error: PgkvError): void {
    this.#fail({ error: encodeError(error, 'ERROR'), line: 0 });
  }

  /** CancelRequest: as long as nothing is decided. */
  cancel(): void {
    if (this.#stage === 'ending' || this.#stage === 'over') return;
    this.#fail({ error: encodeError(new PgkvError('cancelled'), 'ERROR'), line: 0 });
  }

  /** The client is gone: what it has not sent whole is taken back, all else is brought to its end, and told to nobody. */
  abandon(): void {
    this.#isAbandoned = true;
    if (this.#stage !== 'ending') this.cancel();
  }

  row(bytes: Buffer, start: number, end: number, lines: RowLines, fields: readonly (Buffer | null)[]): void {
    if (this.#stage !== 'copying') return;
    const place = this.#request.place(fields);
    const line = lines.last;
    if (place instanceof PgkvError) return this.#failAt({ error: this.#placed(place, line), line });
    this.#parts[place.shard]!.feed.row(bytes, start, end, place.slot, lines);
  }

  header(bytes: Buffer, start: number, end: number, lines: RowLines): void {
    for (const { feed } of this.#parts) feed.header(bytes, start, end, lines);
  }

  #cut(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (error instanceof CopyDataError) {
        const { message, hint, line } = error;
        this.#failAt({ error: this.#dataError('22P04', message, hint, line), line });
      } else if (error instanceof PgkvError) {
        const { line } = this.#cutter;
        this.#failAt({ error: this.#placed(error, line), line });
      } else throw error;
    }
  }

  #progressed(): void {
    if (this.#stage === 'opening') {
      if (!this.#parts.every(({ branch }) => branch.takesRows)) return;
      this.#stage = 'copying';
      if (!this.#isAbandoned) this.#client.started();
    } else if (this.#stage === 'copying' && !this.#isAbandoned && !this.isBlocked) this.#client.unblocked();
  }

  /** Whatever the shards have: they give up. */
  #fail(failure: Failure): void {
    if (!this.#note(failure)) return;
    for (const { branch, outcome } of this.#parts) if (outcome === null) branch.giveUp();
    this.#endIfAll();
  }

  /** A line is wrong: rows before it, on other shards, may be, too, and Postgres would have said that. */
  #failAt(failure: Failure): void {
    const wasCopying = this.#stage === 'copying';
    this.#failedOpening ||= this.#stage === 'opening';
    if (!this.#note(failure)) return;
    for (const { branch, feed, outcome } of this.#parts) {
      if (outcome !== null) continue;
      if (wasCopying) {
        feed.flush();
        branch.close();
        branch.hurry();
      } else if (this.#failedOpening) branch.giveUp();
      else branch.hurry();
    }
    this.#endIfAll();
  }

  /** @returns false: the end has been decided upon */
  #note(failure: Failure): boolean {
    if (this.#stage === 'ending' || this.#stage === 'over') return false;
    if (this.#failure === null || failure.line < this.#failure.line) this.#failure = failure;
    this.#stage = 'failing';
    return true;
  }

  #ended(part: Part, outcome: CopyOutcome): void {
    part.outcome = outcome;
    if (outcome.kind === 'copied') return this.#endIfAll();
    if (part.branch.hasGivenUp) return this.#endIfAll();
    const failure = this.#failureOf(part, outcome);
    if (outcome.kind === 'failed' && failure.line > 0) this.#failAt(failure);
    else this.#fail(failure);
  }

  #endIfAll(): void {
    if (this.#stage !== 'closing' && this.#stage !== 'failing') return;
    if (this.#parts.some(({ outcome }) => outcome === null)) return;
    const failure = this.#failure;
    this.#stage = 'ending';
    if (this.#request.statement.isInBlock) this.#endInBlock(failure);
    else if (failure === null) this.#commit();
    else this.#rollBack(failure.error);
  }

  /** The block has what was copied, or fails. */
  #endInBlock(failure: Failure | null): void {
    if (failure === null) this.#completed();
    else this.#end(() => this.#client.failed(failure.error));
  }

  #rollBack(error: Buffer): void {
    forEach(
      this.#parts.map(({ branch }) => branch),
      (branch, done) => branch.rollback(done),
      () => this.#end(() => this.#client.failed(error)),
    );
  }

  #commit(): void {
    const wrote = ({ outcome }: Part): boolean => outcome?.kind === 'copied' && outcome.hasWritten;
    const writers = this.#parts.filter(wrote).map(({ branch }) => branch);
    const readers = this.#parts.filter((part) => !wrote(part)).map(({ branch }) => branch);
    // Of one that broke while it waited for the others.
    if (writers.some(({ isLost }) => isLost))
      return this.#rollBack(encodeError(new PgkvError('transaction_lost'), 'ERROR'));
    commitTogether(readers, writers, { ...this.#request, what: 'statement' }, (error) => {
      if (error === null) this.#completed();
      else this.#end(() => this.#client.failed(error));
    });
  }

  #completed(): void {
    let rows = 0n;
    for (const { outcome } of this.#parts) if (outcome?.kind === 'copied') rows += outcome.rows;
    this.#end(() => this.#client.completed(rows));
  }

  #end(tell: () => void): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    for (const { branch } of this.#parts) branch.end();
    if (!this.#isAbandoned) tell();
  }

  #failureOf({ feed }: Part, outcome: CopyOutcome): Failure {
    switch (outcome.kind) {
      case 'failed':
        return this.#inClientsLines(feed, outcome.error);
      case 'unable':
        return {
          error: encodeError(refusalError(refuse('several_shards_unable', { why: outcome.why })), 'ERROR'),
          line: 0,
        };
      case 'lost':
        return { error: encodeError(outcome.error, 'ERROR'), line: 0 };
      case 'copied':
        return assert(false, 'it has not failed') as never;
    }
  }

  /** What a server says of a line, told as of the client's data. */
  #inClientsLines(feed: CopyFeed, error: Buffer): Failure {
    let line = Number.POSITIVE_INFINITY;
    const clients = withFields(error, (field, value) => {
      if (field === 'P') return null;
      if (field === 'M') return this.#request.slotForm.kind === 'text' ? inClientsFields(value) : value;
      if (field !== 'W') return value;
      return value.replace(COPY_LINE, (_all, before: string, own: string, behind: string) => {
        line = feed.lineOf(Number(own)) ?? line;
        return `${before}${Number.isFinite(line) ? line : own}${this.#withoutSlot(behind)}`;
      });
    });
    return { error: clients, line };
  }

  /** Where the server shows the whole line, the slot stands in front of it. */
  #withoutSlot(shown: string): string {
    const { slotForm } = this.#request;
    if (slotForm.kind !== 'text' || !shown.startsWith(': "')) return shown;
    const end = shown.indexOf(String.fromCharCode(slotForm.delimiter));
    return end > 0 && isSlot(shown.slice(3, end), slotForm.none) ? `: "${shown.slice(end + 1)}` : shown;
  }

  #placed(error: PgkvError, line: number): Buffer {
    const message = encodeError(error, 'ERROR');
    return encodeErrorResponse({ ...readErrorFields(message, 0, message.length), ...this.#where(line) });
  }

  #dataError(code: string, message: string, hint: string | null, line: number): Buffer {
    const fields: Record<string, string> = { S: 'ERROR', V: 'ERROR', C: code, M: message };
    if (hint !== null) fields['H'] = hint;
    return encodeErrorResponse({ ...fields, ...this.#where(line) });
  }

  #where(line: number): { readonly W?: string } {
    return line === 0 ? {} : { W: `COPY ${this.#request.tableName}, line ${line}` };
  }
}

const watchCopy = (watch: LockWatch, mark: LockMark, run: CopyRun): void =>
  watch.watch({
    mark,
    get isOver() {
      return run.isOver;
    },
    get parts() {
      return run.branches;
    },
  });

const isSlot = (field: string, none: Buffer): boolean =>
  field === SLOT_NAME || /^\d+$/.test(field) || field === none.toString('latin1');

/** What a server says of a line of names, of which the slot's is the first: told as of the client's. */
const inClientsFields = (message: string): string =>
  message.replace(HEADER_FAULT, (fault) => fault.replace(/\d+/g, (count) => String(Number(count) - 1)));

/** Of `HEADER MATCH`, as far as fields are counted. src/backend/commands/copyfromparse.c: NextCopyFromRawFields */
const HEADER_FAULT =
  /^(?:column name mismatch in header line field \d+: got |wrong number of fields in header line: got \d+, expected \d+$)/;

/** The line of a context that names one: what stands before its number, that, and the rest of the line. */
const COPY_LINE = /^(COPY .*?, line )(\d+)(.*)$/m;
