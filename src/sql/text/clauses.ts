// Finds where the top-level clauses of one SELECT, INSERT, UPDATE or DELETE stand among its tokens, so that texts can be
// changed at those places and keep the rest to the letter. It relies on the statement having been parsed: in a valid
// statement a reserved word outside brackets is a keyword unless it is a label, and labels follow AS or a point.
// What it does not know (set operations outside brackets, SEARCH and CYCLE, a statement in brackets) has no clauses: null.
import { closingIndex, isOpening, type TextToken, type TokenSpan } from './text-tokens.js';

/** A clause's keywords begin at token `start`; `body` is what follows them, up to the next clause. */
export interface Clause {
  readonly start: number;
  readonly body: TokenSpan;
}

/** Indexes into the list of tokens throughout. A clause that is not there is null. */
export interface Clauses {
  readonly verb: 'select' | 'insert' | 'update' | 'delete';
  /** From WITH or the verb to behind the last token: neither EXPLAIN … nor the semicolon. */
  readonly statement: TokenSpan;
  /** WITH and its queries; empty where there is none. */
  readonly with: TokenSpan;
  /** The token SELECT, INSERT, UPDATE or DELETE. */
  readonly verbAt: number;
  /** Of INSERT, UPDATE and DELETE: the table's name (without ONLY, * and alias) and its alias (without AS). */
  readonly target: { readonly name: TokenSpan; readonly alias: TokenSpan } | null;
  /** DISTINCT [ON (…)]. */
  readonly distinct: Clause | null;
  /** The items of a SELECT; may be empty. */
  readonly selectList: TokenSpan | null;
  readonly into: Clause | null;
  /** Of a SELECT or UPDATE. */
  readonly from: Clause | null;
  /** Of a DELETE. */
  readonly using: Clause | null;
  readonly where: Clause | null;
  readonly groupBy: Clause | null;
  readonly having: Clause | null;
  readonly window: Clause | null;
  readonly orderBy: Clause | null;
  readonly limit: Clause | null;
  readonly offset: Clause | null;
  /** Its keyword is FETCH alone: the body begins with FIRST or NEXT. */
  readonly fetch: Clause | null;
  /** FOR UPDATE and the like, one after the other; the keyword is FOR alone. */
  readonly locking: readonly Clause[];
  /** Of an UPDATE: its assignments. */
  readonly set: Clause | null;
  /** Of an INSERT: the names of columns between their brackets. */
  readonly columns: TokenSpan | null;
  /** OVERRIDING … VALUE; the keyword is OVERRIDING alone. */
  readonly overriding: Clause | null;
  /** Of an INSERT: VALUES …, DEFAULT VALUES or a query, as a whole. */
  readonly source: TokenSpan | null;
  /** Of an INSERT: the rows behind VALUES. */
  readonly values: Clause | null;
  readonly onConflict: OnConflict | null;
  readonly returning: Clause | null;
}

export interface OnConflict {
  /** ON */
  readonly start: number;
  readonly end: number;
  /** Between the brackets; null where there are none (DO NOTHING alone, ON CONSTRAINT). */
  readonly targetList: TokenSpan | null;
  /** The WHERE of the target. */
  readonly targetWhere: Clause | null;
  readonly action: 'nothing' | 'update';
  /** Assignments of DO UPDATE SET; `start` is at DO. */
  readonly set: Clause | null;
  /** The WHERE of DO UPDATE. */
  readonly where: Clause | null;
}

/** All that a clause may begin with, by its first word. */
type ClauseName =
  | 'into'
  | 'from'
  | 'using'
  | 'where'
  | 'groupBy'
  | 'having'
  | 'window'
  | 'orderBy'
  | 'limit'
  | 'offset'
  | 'fetch'
  | 'locking'
  | 'returning';

/** By the first word, with the second where the first alone is not enough. USING is a clause of DELETE only. */
const KEYWORDS: ReadonlyMap<string, { readonly name: ClauseName; readonly second: string | null }> = new Map([
  ['into', { name: 'into', second: null }],
  ['from', { name: 'from', second: null }],
  ['where', { name: 'where', second: null }],
  ['group', { name: 'groupBy', second: 'by' }],
  ['having', { name: 'having', second: null }],
  ['window', { name: 'window', second: null }],
  ['order', { name: 'orderBy', second: 'by' }],
  ['limit', { name: 'limit', second: null }],
  ['offset', { name: 'offset', second: null }],
  ['fetch', { name: 'fetch', second: null }],
  ['for', { name: 'locking', second: null }],
  ['returning', { name: 'returning', second: null }],
] as const);

const SET_OPERATIONS = new Set(['union', 'intersect', 'except']);
const VERBS = new Set(['select', 'insert', 'update', 'delete']);

/** Reserved, or given precedence by the grammar, behind the table of UPDATE and DELETE. */
const ENDS_TARGET = new Set(['set', 'using', 'where', 'returning', 'as']);

const NOTHING_FOUND = {
  target: null,
  distinct: null,
  selectList: null,
  into: null,
  from: null,
  using: null,
  where: null,
  groupBy: null,
  having: null,
  window: null,
  orderBy: null,
  limit: null,
  offset: null,
  fetch: null,
  set: null,
  columns: null,
  overriding: null,
  source: null,
  values: null,
  onConflict: null,
  returning: null,
} as const;

/**
 * @param span the statement, by default all tokens; a query in brackets can be asked for by the span between them
 * @returns null where it is another kind of statement, or built in a way that is not known here
 */
export function findClauses(
  tokens: readonly TextToken[],
  span: TokenSpan = { start: 0, end: tokens.length },
): Clauses | null {
  return new ClauseFinder(tokens, span).find();
}

type Found = { -readonly [Name in keyof Clauses]: Clauses[Name] };

class ClauseFinder {
  private readonly tokens: readonly TextToken[];
  private at: number;
  private end: number;
  /** Where the first of the clauses behind a select list, assignments or a target stands. */
  private firstClause = 0;

  constructor(tokens: readonly TextToken[], span: TokenSpan) {
    this.tokens = tokens;
    this.at = span.start;
    this.end = span.end;
  }

  find(): Clauses | null {
    while (this.isSymbol(this.at, ';')) this.at++;
    this.end = this.next(this.at, (i) => this.isSymbol(i, ';')) ?? this.end;
    this.skipExplain();
    const start = this.at;
    if (this.isWord(this.at, 'with')) this.at = this.withEnd();
    const verb = this.tokens[this.at]?.folded ?? '';
    if (this.at >= this.end || !VERBS.has(verb)) return null;
    const found: Found = {
      ...NOTHING_FOUND,
      verb: verb as Clauses['verb'],
      statement: { start, end: this.end },
      with: { start, end: this.at },
      verbAt: this.at,
      locking: [],
    };
    this.at++;
    if (verb === 'insert') return this.insert(found);
    if (verb === 'select') return this.select(found);
    return this.change(found);
  }

  /** EXPLAIN (…) or EXPLAIN ANALYZE VERBOSE. */
  private skipExplain(): void {
    if (!this.isWord(this.at, 'explain')) return;
    this.at++;
    if (this.isSymbol(this.at, '(')) this.at = closingIndex(this.tokens, this.at) + 1;
    while (['analyze', 'analyse', 'verbose'].some((option) => this.isWord(this.at, option))) this.at++;
  }

  /** Behind WITH [RECURSIVE] name [(…)] AS [[NOT] MATERIALIZED] (…), … */
  private withEnd(): number {
    let i = this.at + 1;
    if (this.isWord(i, 'recursive') && !this.isWord(i + 1, 'as') && !this.isSymbol(i + 1, '(')) i++;
    for (;;) {
      i++;
      if (this.isSymbol(i, '(')) i = closingIndex(this.tokens, i) + 1;
      i++;
      while (this.isWord(i, 'not') || this.isWord(i, 'materialized')) i++;
      i = closingIndex(this.tokens, i) + 1;
      if (!this.isSymbol(i, ',')) return i;
      i++;
    }
  }

  private select(found: Found): Clauses | null {
    if (this.isWord(this.at, 'all')) this.at++;
    if (this.isWord(this.at, 'distinct')) {
      const start = this.at++;
      const bodyStart = this.at;
      if (this.isWord(this.at, 'on')) this.at = closingIndex(this.tokens, this.at + 1) + 1;
      found.distinct = { start, body: { start: bodyStart, end: this.at } };
    }
    const listStart = this.at;
    if (this.next(this.at, (i) => this.isKeyword(i) && SET_OPERATIONS.has(this.tokens[i]!.folded)) !== null)
      return null;
    this.clauses(found);
    found.selectList = { start: listStart, end: this.firstClause };
    return found;
  }

  /** Notes all clauses from `at` on. */
  private clauses(found: Found): void {
    let open: { readonly name: ClauseName; readonly start: number; readonly bodyStart: number } | null = null;
    const close = (end: number) => {
      if (open === null) return;
      const clause = { start: open.start, body: { start: open.bodyStart, end } };
      if (open.name === 'locking') found.locking = [...found.locking, clause];
      else found[open.name] = clause;
    };
    this.firstClause = this.end;
    for (let i = this.at; i < this.end; i = this.step(i)) {
      // Of DELETE … USING a JOIN b USING (c) only the first USING is a clause.
      const keyword = this.clauseAt(i, found.verb);
      if (keyword === null || (keyword.name === 'using' && open !== null)) continue;
      close(i);
      if (open === null) this.firstClause = i;
      open = { ...keyword, start: i };
    }
    close(this.end);
  }

  private clauseAt(i: number, verb: Clauses['verb']): { name: ClauseName; bodyStart: number } | null {
    if (!this.isKeyword(i)) return null;
    const word = this.tokens[i]!.folded;
    if (word === 'using') return verb === 'delete' ? { name: 'using', bodyStart: i + 1 } : null;
    const keyword = KEYWORDS.get(word);
    if (keyword === undefined) return null;
    // IS [NOT] DISTINCT FROM; SELECT DISTINCT has its list before FROM.
    if (word === 'from' && this.isWord(i - 1, 'distinct') && this.isKeyword(i - 1)) return null;
    if (keyword.second === null) return { name: keyword.name, bodyStart: i + 1 };
    return this.isWord(i + 1, keyword.second) ? { name: keyword.name, bodyStart: i + 2 } : null;
  }

  /** UPDATE and DELETE. */
  private change(found: Found): Clauses | null {
    if (found.verb === 'delete') this.at++;
    found.target = this.targetTable();
    if (found.verb === 'update') {
      const start = this.at++;
      this.clauses(found);
      found.set = { start, body: { start: start + 1, end: this.firstClause } };
      return found;
    }
    this.clauses(found);
    return found;
  }

  /** [ONLY] name [*] [[AS] alias], or ONLY (name). */
  private targetTable(): NonNullable<Clauses['target']> {
    if (this.isWord(this.at, 'only')) this.at++;
    const inBrackets = this.isSymbol(this.at, '(');
    if (inBrackets) this.at++;
    const start = this.at++;
    while (this.isSymbol(this.at, '.')) this.at += 2;
    const name = { start, end: this.at };
    if (inBrackets) this.at++;
    if (this.isSymbol(this.at, '*')) this.at++;
    const hasAs = this.isWord(this.at, 'as');
    if (hasAs) this.at++;
    const aliasStart = this.at;
    if (hasAs || this.beginsAlias(this.at)) this.at++;
    return { name, alias: { start: aliasStart, end: this.at } };
  }

  private beginsAlias(i: number): boolean {
    const token = this.tokens[i];
    if (token === undefined || i >= this.end) return false;
    return token.kind === 'quoted' || (token.kind === 'word' && !ENDS_TARGET.has(token.folded));
  }

  private insert(found: Found): Clauses | null {
    this.at++; // INTO
    const start = this.at++;
    while (this.isSymbol(this.at, '.')) this.at += 2;
    const name = { start, end: this.at };
    // An alias needs its AS here.
    const aliasStart = this.isWord(this.at, 'as') ? ++this.at : this.at;
    if (this.at > name.end) this.at++;
    found.target = { name, alias: { start: aliasStart, end: this.at } };
    if (this.isSymbol(this.at, '(') && !this.isQuery(this.at + 1)) {
      const close = closingIndex(this.tokens, this.at);
      found.columns = { start: this.at + 1, end: close };
      this.at = close + 1;
    }
    if (this.isWord(this.at, 'overriding')) {
      found.overriding = { start: this.at, body: { start: this.at + 1, end: this.at + 3 } };
      this.at += 3;
    }
    const sourceStart = this.at;
    const conflictAt = this.conflictAt();
    const returningAt = this.next(this.at, (i) => this.isKeyword(i) && this.isWord(i, 'returning'));
    const sourceEnd = conflictAt ?? returningAt ?? this.end;
    found.source = { start: sourceStart, end: sourceEnd };
    if (this.isWord(sourceStart, 'values')) {
      found.values = { start: sourceStart, body: { start: sourceStart + 1, end: sourceEnd } };
    }
    if (returningAt !== null) {
      found.returning = { start: returningAt, body: { start: returningAt + 1, end: this.end } };
    }
    if (conflictAt !== null) found.onConflict = this.onConflict(conflictAt, returningAt ?? this.end);
    return found;
  }

  /** Whether what stands behind an opening bracket is a query and no list of columns (one may be called values). */
  private isQuery(i: number): boolean {
    if (this.isWord(i, 'values')) return this.isSymbol(i + 1, '(');
    return this.isSymbol(i, '(') || ['select', 'with', 'table'].some((word) => this.isWord(i, word));
  }

  /** The last one: `JOIN … ON conflict (…)` in a query may call a function. */
  private conflictAt(): number | null {
    let last: number | null = null;
    for (let i = this.at; i < this.end; i = this.step(i)) {
      if (!this.isKeyword(i) || !this.isWord(i, 'on') || !this.isWord(i + 1, 'conflict')) continue;
      if (this.isSymbol(i + 2, '(') || this.isWord(i + 2, 'do') || this.isWord(i + 2, 'on')) last = i;
    }
    return last;
  }

  private onConflict(start: number, end: number): OnConflict {
    let i = start + 2;
    let targetList: TokenSpan | null = null;
    if (this.isSymbol(i, '(')) {
      const close = closingIndex(this.tokens, i);
      targetList = { start: i + 1, end: close };
      i = close + 1;
    }
    // DO is reserved, so that neither the target's condition nor a constraint can be called so.
    const doAt = this.next(i, (at) => this.isKeyword(at) && this.isWord(at, 'do')) ?? end;
    const targetWhere = this.isWord(i, 'where') ? { start: i, body: { start: i + 1, end: doAt } } : null;
    if (!this.isWord(doAt + 1, 'update')) {
      return { start, end, targetList, targetWhere, action: 'nothing', set: null, where: null };
    }
    const setStart = doAt + 3;
    const whereAt = this.next(setStart, (at) => at < end && this.isKeyword(at) && this.isWord(at, 'where'));
    return {
      start,
      end,
      targetList,
      targetWhere,
      action: 'update',
      set: { start: doAt, body: { start: setStart, end: whereAt ?? end } },
      where: whereAt === null ? null : { start: whereAt, body: { start: whereAt + 1, end } },
    };
  }

  /** The next token outside brackets. */
  private step(i: number): number {
    return isOpening(this.tokens[i]!) ? closingIndex(this.tokens, i) + 1 : i + 1;
  }

  private next(from: number, matches: (i: number) => boolean): number | null {
    for (let i = from; i < this.end; i = this.step(i)) if (matches(i)) return i;
    return null;
  }

  private isSymbol(i: number, symbol: string): boolean {
    const token = this.tokens[i];
    return token !== undefined && i < this.end && token.kind === 'symbol' && token.folded === symbol;
  }

  private isWord(i: number, word: string): boolean {
    const token = this.tokens[i];
    return token !== undefined && i < this.end && token.kind === 'word' && token.folded === word;
  }

  /** No label: not behind a point, nor behind an AS that is not a label itself. */
  private isKeyword(i: number): boolean {
    if (this.tokens[i]!.kind !== 'word') return false;
    const isAs = this.isWord(i - 1, 'as') && this.isKeyword(i - 1);
    return !isAs && !this.isSymbol(i - 1, '.');
  }
}
