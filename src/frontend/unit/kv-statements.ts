// What a conversation does about key-value tables: which of them its texts mean, where a statement's keys are, and what
// it runs over several shards. It holds no queue of its own: answers go through the conversation.
import type { RewrittenText, StatementSource, TextReading } from '../../backend/replies/statement-source.js';
import type { PgkvError } from '../../base/errors.js';
import { isRefusal, refusalError, refuse } from '../../base/refusals.js';
import { type ClusterView, homeShard } from '../../cluster/cluster-view.js';
import { NO_TABLES, type TableScope, tableScope } from '../../cluster/table-scope.js';
import { type BindValues, StatementValues, Unreadable } from '../../route/key-values.js';
import { type KvRoute, route } from '../../route/route.js';
import type { Session } from '../../session/session.js';
import type { CopyOut } from '../../sql/plan/copy-out.js';
import type { KvPlan, ValueRef } from '../../sql/plan/kv-plan.js';
import type { ClientEncoding } from '../../sql/text/client-encoding.js';
import { LITERAL_STRIDE } from '../../sql/text/shape-lexer.js';
import { highestParameter } from '../../sql/text/text-parts.js';
import { stringEnd } from '../../wire/client-messages.js';
import { failsAtOnce } from './member-keys.js';

/** A statement with its values: all that routing and a run over several shards need. */
export interface KvStatement {
  readonly plan: KvPlan;
  readonly text: string;
  readonly literals: readonly number[];
  readonly values: StatementValues;
  /** Null where the statement came by the simple protocol. */
  readonly source: StatementSource | null;
  /** Of its text and its values. */
  readonly encoding: ClientEncoding;
}

/** A COPY … TO STDOUT by simple query, whose rows are those of a statement of its own. */
export interface CopiedStatement {
  readonly copy: CopyOut;
  readonly statement: KvStatement;
}

export interface KvServices {
  readonly view: () => ClusterView;
  /** See ConversationServices. */
  readonly literalsOf: (text: string, standardStrings: boolean) => readonly number[];
}

export class KvStatements {
  readonly #session: Session;
  readonly #view: () => ClusterView;
  readonly #literalsOf: KvServices['literalsOf'];
  readonly #startSearchPath: string | null;
  #scope: TableScope | null = null;
  #scopeView: ClusterView | null = null;
  #scopePath: string | null = null;

  /** @param startSearchPath of the client's start-up packet */
  constructor(session: Session, services: KvServices, startSearchPath: string | null) {
    this.#session = session;
    this.#view = services.view;
    this.#literalsOf = services.literalsOf;
    this.#startSearchPath = startSearchPath;
  }

  /** Whether there are any: where not, pgkv passes everything on as it is. */
  get exist(): boolean {
    const { tables, database } = this.#view();
    return tables.length > 0 && database === this.#session.database;
  }

  get view(): ClusterView {
    return this.#view();
  }

  /** The session's search_path, as far as it is known; null for the server's default. */
  get searchPath(): string | null {
    const { told, settings } = this.#session;
    return told.get('search_path') ?? settings.values.get('search_path') ?? this.#startSearchPath;
  }

  /** What names in the session's texts stand for at present. */
  get scope(): TableScope {
    if (!this.exist) return NO_TABLES;
    const view = this.#view();
    const path = this.searchPath;
    if (this.#scope === null || this.#scopeView !== view || this.#scopePath !== path) {
      this.#scope = tableScope(view, path);
      this.#scopeView = view;
      this.#scopePath = path;
    }
    return this.#scope;
  }

  /** How texts are read. */
  get reading(): TextReading {
    return this.#session.textReading;
  }

  /** A statement of the simple protocol. */
  simple(plan: KvPlan, text: string): KvStatement {
    const { encoding, standardStrings } = this.reading;
    const literals = this.#literalsOf(text, standardStrings);
    const values = new StatementValues(text, literals, null, encoding);
    return { plan, text, literals, values, source: null, encoding };
  }

  /** The statement that the Bind message `buffer[start, end)` binds. */
  bound(plan: KvPlan, source: StatementSource, buffer: Buffer, start: number, end: number): KvStatement {
    const portalEnd = stringEnd(buffer, start + 5, end);
    const nameEnd = portalEnd < 0 ? -1 : stringEnd(buffer, portalEnd + 1, end);
    const { encoding } = this.reading;
    const bind: BindValues | null =
      nameEnd < 0 ? null : { buffer, offset: nameEnd + 1, end, types: source.parameterTypes };
    const { text, rewritten } = source;
    const literals = rewritten?.literals ?? [];
    const values = new StatementValues(text, literals, bind, encoding);
    return { plan, text, literals, values, source, encoding };
  }

  route(statement: KvStatement, view: ClusterView): KvRoute {
    const found = route(statement.plan, statement.values, view);
    const isOnSeveral = found.kind === 'scattered' || found.kind === 'multi-keyed' || found.kind === 'spread';
    // LIMIT -1, a wrong number of parameters and arrays that no function takes are errors before any row is looked at: the home shard
    // words them.
    if (isOnSeveral && isWrong(statement)) return { kind: 'keyed', shard: homeShard(view), slots: [] };
    return found;
  }

  rewrite(statement: KvStatement): RewrittenText {
    const { plan, text, literals, encoding } = statement;
    return { parts: plan.text, text, literals, encoding };
  }

  /** The text of a COPY with what is copied as a shard has to read it. */
  rewriteCopy(text: string, { copy: { start, end, tail }, statement }: CopiedStatement): RewrittenText {
    const { encoding, standardStrings } = this.reading;
    const literals = this.#literalsOf(text, standardStrings);
    // In front of the query there are no literals: its own have the same numbers in the whole text.
    const query = statement.plan.text;
    if (tail !== null) return { parts: ['COPY (', ...query, `)${tail}`], text, literals, encoding };
    const parts: (string | number)[] = [`${text.slice(0, start)}(`, ...query, ')'];
    let at = end;
    for (let literal = 0; literal < literals.length / LITERAL_STRIDE; literal++) {
      const from = literals[literal * LITERAL_STRIDE]!;
      if (from < end) continue;
      parts.push(text.slice(at, from), literal);
      at = literals[literal * LITERAL_STRIDE + 1]!;
    }
    parts.push(text.slice(at));
    return { parts, text, literals, encoding };
  }
}

const PARAMETER_COUNTS = new WeakMap<KvPlan, number>();

/** How many parameters a Bind has to bring: those of the text, and those that the Parse has declared beside them. */
function parametersOf({ plan, source }: KvStatement): number {
  let count = PARAMETER_COUNTS.get(plan);
  if (count === undefined) {
    count = highestParameter(plan.text);
    PARAMETER_COUNTS.set(plan, count);
  }
  return Math.max(count, source?.parameterTypes.length ?? 0);
}

function isWrong(statement: KvStatement): boolean {
  const { plan, values } = statement;
  if (hasNegativeCount(statement) || !values.hasParameters(parametersOf(statement))) return true;
  return plan.members != null && failsAtOnce(plan.members, plan.writes, values);
}

function hasNegativeCount({ plan, values }: KvStatement): boolean {
  const { scatter } = plan;
  if (isRefusal(scatter) || scatter.kind !== 'sorted') return false;
  return [scatter.limit, scatter.offset].some((ref) => {
    const count = ref === null ? null : values.integer(ref);
    return typeof count === 'bigint' && count < 0n;
  });
}

/** A row count of LIMIT or OFFSET; null: none. */
export function rowCount(values: StatementValues, ref: ValueRef | null, clause: string): bigint | null | PgkvError {
  if (ref === null) return null;
  const count = values.integer(ref);
  if (!(count instanceof Unreadable)) return count;
  return refusalError(refuse('count_unreadable', { clause, why: count.reason }));
}
