// Statements that pgkv does without a server: BEGIN that is held back and the end of a block that no server has (D13, D20),
// `SHOW pgkv.<name>`, EXPLAIN (ROUTE). In the extended protocol their portals are pgkv's own. Answers at once; what a failed
// block without a server answers is Postgres's: 25P02 until the client ends it, and 40001 once where it was lost unnoticed.
import type { ServerLoss } from '../../backend/connection/server-connection.js';
import { PgkvError } from '../../base/errors.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import { beginTag, endTag } from '../../session/transaction.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frontend } from '../../wire/protocol.js';
import {
  CLOSE_COMPLETE,
  EMPTY_QUERY,
  encodeCommandComplete,
  encodeError,
  encodeTextRow,
  encodeTextRowDescription,
  NO_DATA,
  NO_PARAMETERS,
  PARSE_COMPLETE,
} from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import { explainRoute } from './explain-route.js';
import type { OwnAnswers } from './own-answers.js';
import { cursorExists, OwnPortals } from './own-portals.js';

/** What a statement of pgkv's own answers: the column and values of its rows where it has rows, and its tag. */
interface OwnResult {
  readonly column: string | null;
  readonly values: readonly string[];
  /** Null: an empty query. */
  readonly tag: string | null;
}

type OwnStatement = (() => OwnResult | PgkvError) & { readonly column?: string };

const TAG_ONLY = (tag: string | null): OwnResult => ({ column: null, values: [], tag });

export class OwnExchange implements Exchange<Unit> {
  readonly busy = false;
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  readonly #merges: boolean;

  constructor(context: ExchangeContext, answers: OwnAnswers, portals: OwnPortals, merges: boolean) {
    this.#context = context;
    this.#answers = answers;
    this.#portals = portals;
    this.#merges = merges;
  }

  /** Whether the unit is done here; what stands before it has been answered. */
  owns(unit: Unit): boolean {
    const { state } = this.#context.transaction;
    if (state.kind === 'lost') return !(asksServer(unit) && unit.template.kinds[0] === 'rollback');
    // The server that has a failed block answers everything in it.
    if (state.kind === 'failed') return state.branch === null && !asksServer(unit);
    return this.#statement(unit) !== null;
  }

  take(unit: Unit): Handling {
    const { state } = this.#context.transaction;
    if (state.kind === 'lost' || state.kind === 'failed') this.#inFailedBlock(unit);
    else this.#answer(unit, this.#statement(unit)!);
    return 'taken';
  }

  cancel(): void {
    // Nothing is ever under way.
  }

  drained(): void {
    // What is answered here is a few rows.
  }

  lost(_loss: ServerLoss): void {
    // It has no connection.
  }

  abandon(): void {
    this.#portals.closeAll();
  }

  /** What the unit's statement does here; null where it goes to a server. */
  #statement(unit: Unit): OwnStatement | null {
    const { session, transaction, services } = this.#context;
    const { route, template, text } = unit;
    switch (route.kind) {
      case 'show': {
        const name = template.showName!;
        const show = (): string | PgkvError | null => services.show(name.slice(name.indexOf('.') + 1), session.user);
        if (show() === null) return null;
        const shown = (): OwnResult | PgkvError => {
          const value = show() ?? '';
          return value instanceof PgkvError ? value : { column: name, values: [value], tag: 'SHOW' };
        };
        return Object.assign(shown, { column: name });
      }
      case 'explain':
        return Object.assign(() => this.#explain(unit), { column: 'QUERY PLAN' });
      case 'control': {
        const { kind } = transaction.state;
        const begun = kind === 'none' && this.#holdsBlocks(unit) ? beginTag(template, text) : null;
        if (begun !== null) {
          return () => {
            transaction.hold(template, text);
            return TAG_ONLY(begun);
          };
        }
        const tag = kind === 'held' ? endTag(template) : null;
        if (tag === null) return null;
        return () => {
          transaction.endedHere();
          this.#portals.closeAll();
          return TAG_ONLY(tag);
        };
      }
      default:
        return null;
    }
  }

  /** BEGIN is held back where it can go to one shard or another, and nothing is under way. */
  #holdsBlocks({ placed, view }: Unit): boolean {
    return placed && view.shards.length > 1 && !this.#context.lanes.current.busy;
  }

  #explain({ template, statement, view }: Unit): OwnResult {
    const { kv } = this.#context;
    const route = statement === null ? null : kv.route(statement, view);
    const values = explainRoute(template, statement, route, view, this.#merges);
    return { column: 'QUERY PLAN', values, tag: 'EXPLAIN' };
  }

  #answer(unit: Unit, statement: OwnStatement): void {
    const { output } = this.#context;
    const described = (): Buffer =>
      statement.column === undefined ? NO_DATA : encodeTextRowDescription(statement.column);
    switch (unit.type) {
      case Frontend.query: {
        const result = statement();
        if (result instanceof PgkvError) return this.#answers.error(unit.type, encodeError(result, 'ERROR'));
        this.#send(result, true);
        return this.#answers.ready();
      }
      case Frontend.parse:
        return this.#parse(unit);
      case Frontend.describe:
        output.send(NO_PARAMETERS);
        output.send(described());
        return;
      case Frontend.bind:
        return this.#bind(unit, statement, described);
    }
  }

  #send({ column, values, tag }: OwnResult, describes: boolean): void {
    const { output } = this.#context;
    if (column !== null) {
      if (describes) output.send(encodeTextRowDescription(column));
      for (const value of values) output.send(encodeTextRow(value));
    }
    output.send(tag === null ? EMPTY_QUERY : encodeCommandComplete(tag));
  }

  #parse(unit: Unit): void {
    const { named, session, output } = this.#context;
    const name = named.parsedName(unit);
    if (name !== '' && session.statement(name) !== undefined) {
      return this.#answers.error(unit.type, statementExists(name));
    }
    if (name === '') {
      session.dropDescription('');
      session.unnamed.set(unit.source);
    } else session.setStatement(name, unit.source!);
    output.send(PARSE_COMPLETE);
  }

  #bind(unit: Unit, statement: OwnStatement, described: () => Buffer): void {
    const { output } = this.#context;
    const name = OwnPortals.nameIn(unit);
    if (this.#portals.taken(name)) return this.#answers.error(unit.type, cursorExists(name));
    let done = false;
    this.#portals.bind(name, {
      describe: () => output.send(described()),
      execute: () => {
        // As Postgres answers a portal that has been run to its end.
        const result = done ? TAG_ONLY('SELECT 0') : statement();
        done = true;
        if (result instanceof PgkvError) this.#answers.error(unit.type, encodeError(result, 'ERROR'));
        else this.#send(result, false);
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
  #inFailed({ type, template, source }: Unit): OwnStatement | null {
    const { transaction } = this.#context;
    if (type !== Frontend.query && source === null) return null;
    if (template.kind === 'empty') return () => TAG_ONLY(null);
    const tag = endTag(template);
    if (tag === null) return null;
    return () => {
      const unnoticed = transaction.state.kind === 'lost' && tag === 'COMMIT';
      transaction.endedHere();
      this.#portals.closeAll();
      // A COMMIT must not look as if it had been one, unless the client has already been told.
      return unnoticed ? new PgkvError('transaction_lost') : TAG_ONLY('ROLLBACK');
    };
  }

  /** A block that was lost fails with these words, once. */
  #failure(): Buffer {
    const { transaction } = this.#context;
    if (transaction.state.kind !== 'lost') return encodeError(new PgkvError('transaction_failed'), 'ERROR');
    return encodeError(new PgkvError('transaction_lost'), 'ERROR');
  }
}

const STATEMENT = 0x53;

/** In a failed block, what only a server's parser can answer: what cannot be read, AND CHAIN, more behind the block's end. */
function asksServer({ type, template }: Unit): boolean {
  if (type !== Frontend.query && type !== Frontend.parse) return false;
  if (template.kind === 'unparsed') return true;
  const [first] = template.kinds;
  const ends = first === 'commit' || first === 'rollback';
  return ends && endTag(template) === null;
}

const noStatement = (name: string): Buffer => {
  const called = name === '' ? 'unnamed prepared statement' : `prepared statement "${name}"`;
  return encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '26000', M: `${called} does not exist` });
};

const statementExists = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '42P05', M: `prepared statement "${name}" already exists` });
