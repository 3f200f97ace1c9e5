// Statements that pgkv does without a server: BEGIN that is held back and the end of a block that no server has (D13, D20),
// `SHOW pgkv.<name>`, EXPLAIN (ROUTE), pids of sessions. In the extended protocol their portals are pgkv's own. Answers at
// once, but for what is done to other sessions: no message is taken meanwhile. What a failed block without a server answers
// is Postgres's: 25P02 until the client ends it, and 40001 once where it was lost unnoticed.
import { declaredTypes } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import { endTag } from '../../session/transaction.js';
import { Frontend } from '../../wire/protocol.js';
import {
  CLOSE_COMPLETE,
  EMPTY_QUERY,
  encodeColumnDescription,
  encodeCommandComplete,
  encodeError,
  encodeParameterDescription,
  encodeRow,
  NO_DATA,
  PARSE_COMPLETE,
  PORTAL_SUSPENDED,
  TEXT_COLUMN,
} from '../../wire/server-messages.js';
import { TypeOid } from '../../wire/type-oids.js';
import { portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';
import { backendStatement } from './backend-statement.js';
import type { BlockBranches } from './block-branches.js';
import type { ExchangeContext } from './exchange-context.js';
import { explainRoute } from './explain-route.js';
import type { OwnAnswers } from './own-answers.js';
import { isFormat, readOwnBind, undeterminedType, unsupportedFormat } from './own-bind.js';
import { controlStatement, endBlock, hasValues, takesOf } from './own-control.js';
import { cannotBeRun, isExecutedNext, noStatement, type OwnPortals } from './own-portals.js';
import { atOnce, encodedValue, type OwnOutcome, type OwnStatement, tagOnly } from './own-statement.js';

export class OwnExchange implements Exchange<Unit> {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  readonly #branches: BlockBranches;
  readonly #merges: boolean;
  /** What another session is asked for has not been answered, or the session is ending by it. */
  #pending = false;
  #abandoned = false;

  constructor(
    context: ExchangeContext,
    answers: OwnAnswers,
    portals: OwnPortals,
    branches: BlockBranches,
    merges: boolean,
  ) {
    this.#context = context;
    this.#answers = answers;
    this.#portals = portals;
    this.#branches = branches;
    this.#merges = merges;
  }

  get busy(): boolean {
    return this.#pending;
  }

  /** Whether the unit is done here; what stands before it has been answered. */
  owns(unit: Unit): boolean {
    const { state } = this.#context.transaction;
    if (state.kind === 'lost') return !(asksServer(unit) && unit.template.kinds[0] === 'rollback');
    // The server that has a failed block answers everything in it.
    if (state.kind === 'failed') {
      if (state.branch !== null || asksServer(unit)) return false;
      // One that failed while it was held is opened for whatever does not end it.
      return state.prologue === null || endTag(unit.template) !== null || NAMES_NOTHING.has(unit.type);
    }
    // What begins or ends a block does so here only where nothing can come between: a server has no such portal.
    if (unit.route.kind === 'control' && unit.type === Frontend.bind && !isExecutedNext(unit)) return false;
    return this.#statement(unit) !== null && !this.#isTaken(unit);
  }

  /** A Parse under a name that the session has: a server words the error, and fails the block. */
  #isTaken(unit: Unit): boolean {
    if (unit.type !== Frontend.parse) return false;
    const { named, session } = this.#context;
    const name = named.parsedName(unit);
    return name !== '' && session.statement(name) !== undefined;
  }

  take(unit: Unit): Handling {
    const { state } = this.#context.transaction;
    if (state.kind === 'lost' || state.kind === 'failed') this.#inFailedBlock(unit);
    else this.#answer(unit, this.#statement(unit)!);
    return 'taken';
  }

  cancel(): void {
    // What is under way is over in a moment, and done.
  }

  drained(): void {
    // What is answered here is a few rows.
  }

  lost(): void {
    // It has no connection.
  }

  abandon(): void {
    this.#abandoned = true;
    this.#portals.closeAll();
  }

  /** What the unit's statement does here; null where it goes to a server. */
  #statement(unit: Unit): OwnStatement | null {
    const { session, services } = this.#context;
    const { route, template } = unit;
    switch (route.kind) {
      case 'show': {
        const name = template.showName!;
        const show = () => services.show(name.slice(name.indexOf('.') + 1), session.user);
        if (show() === null) return null;
        const column = { name, type: TEXT_COLUMN };
        return atOnce(column, () => {
          const values = show() ?? [];
          if (values instanceof PgkvError) return { kind: 'error', error: values, runs: false };
          return { kind: 'rows', values, tag: 'SHOW', notice: null };
        });
      }
      case 'explain': {
        // Now: by the time of an Execute the unit is another message's.
        const values = explainRoute(unit, this.#context.kv, this.#merges);
        const outcome: OwnOutcome = { kind: 'rows', values, tag: 'EXPLAIN', notice: null };
        return atOnce({ name: 'QUERY PLAN', type: TEXT_COLUMN }, () => outcome);
      }
      case 'backend':
        return backendStatement(unit, route.call, this.#context);
      case 'control':
        return controlStatement(unit, this.#context, this.#branches, () => this.#portals.closeAll());
      default:
        return null;
    }
  }

  #answer(unit: Unit, statement: OwnStatement): void {
    const { output } = this.#context;
    switch (unit.type) {
      case Frontend.query:
        return this.#run(statement, (outcome) => this.#answered(statement, outcome));
      case Frontend.parse:
        return this.#parse(unit);
      case Frontend.describe:
        output.send(encodeParameterDescription(parametersOf(unit)));
        output.send(described(statement, TEXT));
        return;
      case Frontend.bind:
        return this.#bind(unit, statement);
    }
  }

  /** Messages are taken again where the outcome comes later. */
  #run(statement: OwnStatement, told: (outcome: OwnOutcome) => void): void {
    let isNow = true;
    this.#pending = true;
    statement.run((outcome) => {
      if (this.#abandoned) return;
      if (outcome.kind !== 'ends') this.#pending = false;
      told(outcome);
      if (isNow) return;
      this.#context.output.flush();
      this.#context.resume();
    });
    isNow = false;
  }

  /** The outcome of a simple query. */
  #answered(statement: OwnStatement, outcome: OwnOutcome): void {
    const { output } = this.#context;
    if (statement.column !== null && !(outcome.kind === 'error' && !outcome.runs)) {
      output.send(described(statement, TEXT));
    }
    if (outcome.kind !== 'rows') return this.#sendEnd(statement, outcome, TEXT, Frontend.query);
    this.#sendRows(statement, outcome, TEXT, 0, 0);
    this.#answers.ready();
  }

  /** An outcome that is none of rows alone, of a message of that type. */
  #sendEnd(
    { column }: OwnStatement,
    outcome: Exclude<OwnOutcome, { kind: 'rows' }>,
    format: number,
    type: number,
  ): void {
    for (const value of outcome.values ?? []) {
      this.#context.output.send(encodeRow(encodedValue(value, column!.type, format)));
    }
    if (outcome.kind !== 'error') return;
    const { error } = outcome;
    this.#answers.error(type, Buffer.isBuffer(error) ? error : encodeError(error, 'ERROR'));
  }

  /**
   * Sends rows from the one numbered `from` on, and what ends them.
   * @param rowsMax rows after which the portal is suspended; 0: never
   * @returns the number of the next row; -1: there is none
   */
  #sendRows(
    { column }: OwnStatement,
    { values, tag, notice }: OwnOutcome & { kind: 'rows' },
    format: number,
    from: number,
    rowsMax: number,
  ): number {
    const { output } = this.#context;
    if (from === 0 && notice !== null) output.send(notice);
    const end = rowsMax > 0 ? Math.min(from + rowsMax, values.length) : values.length;
    for (let index = from; index < end; index++) {
      output.send(encodeRow(encodedValue(values[index]!, column!.type, format)));
    }
    if (rowsMax > 0 && end - from === rowsMax) {
      output.send(PORTAL_SUSPENDED);
      return end;
    }
    if (tag === null) output.send(EMPTY_QUERY);
    else output.send(encodeCommandComplete(tag === 'SELECT' ? `SELECT ${end - from}` : tag));
    return -1;
  }

  #parse(unit: Unit): void {
    const { named, session, output } = this.#context;
    const isRead = unit.route.kind === 'explain' || unit.route.kind === 'backend';
    const open = isRead ? -1 : declaredTypes(unit.source!).indexOf(TypeOid.unspecified);
    if (open >= 0) {
      this.#answers.refuse(unit, undeterminedType(open + 1));
      return;
    }
    const name = named.parsedName(unit);
    if (name === '') {
      session.dropDescription('');
      session.unnamed.set(unit.source);
    } else named.keep(name, unit.source!);
    output.send(PARSE_COMPLETE);
  }

  #bind(unit: Unit, statement: OwnStatement): void {
    const { output, transaction, batch } = this.#context;
    const name = portalIn(unit);
    const bound = readOwnBind(unit.buffer, unit.start, unit.end, takesOf(unit), statement.column !== null);
    const obstacle = 'error' in bound ? bound.error : this.#portals.obstacle(name);
    if ('error' in bound || obstacle !== null) return void this.#answers.refuse(unit, obstacle!);
    const { format } = bound;
    const phase = unit.route.kind === 'control' ? transaction.phase : null;
    if (phase === null) batch.begunElsewhere(false);
    const givesRows = statement.column !== null || unit.template.kind === 'empty';
    let rows: (OwnOutcome & { kind: 'rows' }) | null = null;
    /** -1: it has been run to its end. */
    let next = 0;
    const send = (rowsMax: number): void => {
      next = this.#sendRows(statement, rows!, format, next, rowsMax);
    };
    this.#portals.bind(name, {
      endsBlock: endTag(unit.template) !== null,
      describe: () => output.send(described(statement, format)),
      execute: (rowsMax) => {
        // As Postgres answers a portal that has been run to its end. What begins or ends a block has to find it as it was.
        if (next < 0 && givesRows) return output.send(encodeCommandComplete('SELECT 0'));
        if (next < 0 || (phase !== null && transaction.phase !== phase))
          return this.#answers.error(Frontend.execute, cannotBeRun(name));
        if (rows !== null) return send(rowsMax);
        this.#run(statement, (outcome) => {
          if (outcome.kind !== 'rows') return this.#sendEnd(statement, outcome, format, Frontend.execute);
          // Postgres finds out with the first row.
          if (!isFormat(format) && outcome.values.length > 0) {
            return this.#answers.error(Frontend.execute, unsupportedFormat(format));
          }
          rows = outcome;
          send(rowsMax);
        });
      },
      close: () => undefined,
    });
  }

  /** A block that no server has any more, and that the client has not ended yet. */
  #inFailedBlock(unit: Unit): void {
    const { session, output, named } = this.#context;
    const { type } = unit;
    const statement = this.#inFailed(unit);
    switch (type) {
      case Frontend.flush:
        return;
      case Frontend.close:
        if (unit.buffer[unit.start + 5] === STATEMENT) {
          const name = named.closedName(unit);
          if (name === '') session.unnamed.set(null);
          else session.dropStatement(name);
        }
        output.send(CLOSE_COMPLETE);
        return;
    }
    if (statement !== null) return this.#answer(unit, statement);
    if (type === Frontend.parse && named.parsedName(unit) === '') session.unnamed.set(null);
    // Postgres looks for the statement before it looks at the block.
    const missing = unit.source === null ? named.missing(unit) : null;
    this.#answers.error(type, missing === null ? this.#failure() : noStatement(missing));
  }

  /** What ends a failed block, or does nothing; null: an error is the answer. */
  #inFailed(unit: Unit): OwnStatement | null {
    const { type, template, source } = unit;
    const { transaction } = this.#context;
    if (type !== Frontend.query && source === null) return null;
    if (template.kind === 'empty') return atOnce(null, () => tagOnly(null));
    const tag = endTag(template);
    // With values, Postgres does not even let the end of a failed block through.
    if (tag === null || hasValues(unit)) return null;
    return atOnce(null, () => {
      const unnoticed = transaction.state.kind === 'lost' && tag === 'COMMIT';
      endBlock(this.#context);
      this.#portals.closeAll();
      // A COMMIT must not look as if it had been one, unless the client has already been told.
      return unnoticed ? { kind: 'error', error: new PgkvError('transaction_lost'), runs: true } : tagOnly('ROLLBACK');
    });
  }

  /** A block that was lost fails with these words, once. */
  #failure(): Buffer {
    const { transaction } = this.#context;
    if (transaction.state.kind !== 'lost') return encodeError(new PgkvError('transaction_failed'), 'ERROR');
    return encodeError(new PgkvError('transaction_lost'), 'ERROR');
  }
}

const STATEMENT = 0x53;
/** The format of a result. */
const TEXT = 0;
const described = ({ column }: OwnStatement, format: number): Buffer =>
  column === null ? NO_DATA : encodeColumnDescription(column.name, column.type, format);
/** Their types: those of EXPLAIN (ROUTE) that are left to pgkv are of any. */
function parametersOf(unit: Unit): number[] {
  const declared = declaredTypes(unit.source!);
  return Array.from({ length: takesOf(unit).count }, (_, index) => declared[index] || TypeOid.text);
}

/** Answered alike in every block. */
const NAMES_NOTHING: ReadonlySet<number> = new Set([Frontend.flush, Frontend.close]);

/** In a failed block, what only a server's parser can answer: what cannot be read, AND CHAIN, more behind the block's end. */
function asksServer({ type, template }: Unit): boolean {
  if (type !== Frontend.query && type !== Frontend.parse) return false;
  if (template.kind === 'unparsed') return true;
  const [first] = template.kinds;
  const ends = first === 'commit' || first === 'rollback';
  return ends && endTag(template) === null;
}
