// A portal of a statement that is written on several shards, or on one in a batch that is: what it returns is kept when it has run, and
// told in portions. Run side by side with others of its batch (R69) is only what writes on one shard, at a time that is known, and
// can have nothing done beside that.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { SpreadWrite } from '../../execute/two-phase/spread-write.js';
import type { SpreadResult } from '../../execute/two-phase/write-request.js';
import { Effect } from '../../sql/plan/template.js';
import { Frontend } from '../../wire/protocol.js';
import { encodeCommandComplete, encodeError, NO_DATA, PORTAL_SUSPENDED } from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { GatheredStatement } from './gathered-window.js';
import type { KeptBytes } from './kept-rows.js';
import type { OwnAnswers } from './own-answers.js';
import { cannotBeRun, noPortal, type OwnPortal } from './own-portals.js';
import type { SpreadAnswer, SpreadStatement } from './spread-request.js';

const IN_BLOCK = encodeError(refusalError(refuse('several_shards_write')), 'ERROR');

const NO_ROWS: readonly Buffer[] = [];

/** Who runs it. */
export interface SpreadRunner {
  /** Tells it in its turn. */
  tell(message: Buffer): void;
  /** Statements of the batch have one time, which is known. */
  readonly hasInstant: boolean;
  /** @returns it runs with others, as soon as no more messages can be taken */
  gather(statement: GatheredStatement): boolean;
  /** By itself, behind what is written. */
  runHeld(statement: GatheredStatement): void;
  /** The same behind what that has written. @param written the error where that cannot be told. @param failed it is not written; the error is told */
  runBehind(
    statement: SpreadStatement,
    behind: SpreadWrite | null,
    written: (answer: SpreadAnswer) => Buffer | null,
    failed: () => void,
  ): void;
  /** Has the home shard describe it. */
  askDescription(source: StatementSource, formats: readonly number[]): void;
}

/** The error where it cannot be put together. */
export function answerOf(statement: SpreadStatement, result: SpreadResult): SpreadAnswer | Buffer {
  try {
    return statement.answer(result);
  } catch (error) {
    return encodeError(new PgkvError('internal', { detail: messageOf(error), cause: error }), 'ERROR');
  }
}

export class SpreadPortal implements OwnPortal {
  readonly endsBlock = false;
  isGone = false;
  readonly #context: Pick<ExchangeContext, 'output' | 'transaction'>;
  readonly #answers: OwnAnswers;
  readonly #runner: SpreadRunner;
  readonly #name: string;
  readonly #source: StatementSource;
  readonly #formats: readonly number[];
  readonly #statement: SpreadStatement;
  readonly #canRunBeside: boolean;
  readonly #kept: KeptBytes;
  #answer: SpreadAnswer | null = null;
  /** Rows that have been told. */
  #told = 0;
  /** Its rows are told with their description. */
  #isDescribed = false;
  #isGathered = false;
  #keptBytes = 0;

  constructor(
    context: ExchangeContext,
    answers: OwnAnswers,
    runner: SpreadRunner,
    name: string,
    { route, statement: keyed, template, source }: Unit,
    formats: readonly number[],
    statement: SpreadStatement,
    kept: KeptBytes,
  ) {
    this.#kept = kept;
    this.#context = context;
    this.#answers = answers;
    this.#runner = runner;
    this.#name = name;
    this.#source = source!;
    this.#formats = formats;
    this.#statement = statement;
    this.#canRunBeside =
      route.kind === 'keyed' && keyed!.plan.writes && template.effects === Effect.none && !statement.isInBlock;
  }

  /** Its Execute may be run side by side with others. */
  get runsBeside(): boolean {
    if (!this.#canRunBeside || this.#isGathered || this.isGone || this.#answer !== null) return false;
    if (this.#context.transaction.inBlock) return false;
    return !this.#statement.request.hasInstant || this.#runner.hasInstant;
  }

  /** What a Describe says can be told before it is run. @param executeFollows as of `describe` */
  isDescribedBeside(executeFollows: boolean): boolean {
    return !this.#isGathered && (executeFollows || this.#statement.returns === false);
  }

  describe(executeFollows: boolean): void {
    if (this.#statement.returns === false) return this.#runner.tell(NO_DATA);
    if (this.#answer !== null) return this.#context.output.send(this.#answer.description ?? NO_DATA);
    this.#isDescribed = executeFollows;
    if (!executeFollows) this.#runner.askDescription(this.#source, this.#formats);
  }

  execute(rowsMax: number): void {
    if (this.isGone) return this.#answers.error(Frontend.execute, noPortal(this.#name));
    if (this.#answer !== null) {
      if (this.#answer.description !== null) return this.#deliver(this.#answer, rowsMax);
      return this.#answers.error(Frontend.execute, cannotBeRun(this.#name));
    }
    // A block has begun behind its Bind.
    const { inBlock } = this.#context.transaction;
    if (inBlock !== this.#statement.isInBlock) return this.#answers.error(Frontend.execute, IN_BLOCK);
    const one = this.#gathered(rowsMax);
    this.#isGathered = this.runsBeside && this.#runner.gather(one);
    if (!this.#isGathered) this.#runner.runHeld(one);
  }

  close(): void {
    this.#drop();
  }

  /** What it has not told is not kept any more. */
  #drop(): void {
    this.#kept.free(this.#keptBytes);
    this.#keptBytes = 0;
  }

  #gathered(rowsMax: number): GatheredStatement {
    const statement = this.#statement;
    return {
      request: statement.request,
      tell: (result) => {
        const given = answerOf(statement, result);
        return Buffer.isBuffer(given) ? given : this.#tell(given, rowsMax);
      },
      alone: (behind) =>
        this.#runner.runBehind(
          statement,
          behind,
          (given) => this.#tell(given, rowsMax),
          () => {
            this.isGone = true;
          },
        ),
    };
  }

  /** @returns the error where more is left to be told than may be kept */
  #tell(given: SpreadAnswer, rowsMax: number): Buffer | null {
    const left = rowsMax === 0 ? [] : given.rows.slice(rowsMax);
    const bytes = left.reduce((sum, { length }) => sum + length, 0);
    try {
      this.#kept.take(bytes);
    } catch (error) {
      if (error instanceof PgkvError) return encodeError(error, 'ERROR');
      throw error;
    }
    this.#keptBytes = bytes;
    this.#answer = given;
    if (this.#isDescribed) this.#context.output.send(given.description ?? NO_DATA);
    this.#deliver(given, rowsMax);
    return null;
  }

  #deliver({ rows, count }: SpreadAnswer, rowsMax: number): void {
    const { output } = this.#context;
    const before = this.#told;
    const end = rowsMax === 0 ? rows.length : Math.min(rows.length, before + rowsMax);
    for (; this.#told < end; this.#told++) output.send(rows[this.#told]!);
    // They are all told.
    if (end === rows.length) {
      this.#drop();
      if (this.#answer !== null) this.#answer = { ...this.#answer, rows: NO_ROWS };
      this.#told = 0;
    }
    // As in Postgres, which looks for one more only when it is asked to.
    const sent = end - before;
    if (rowsMax > 0 && sent === rowsMax) output.send(PORTAL_SUSPENDED);
    else output.send(encodeCommandComplete(this.#statement.tag(this.#answer?.description === null ? count : sent)));
  }
}
