// An INSERT of several rows taken to pieces, so that each shard can be sent those that are its own. Literals and parameters have
// the same types wherever their row goes, since each value is made the column's own; all but parameters that stand in several
// rows and in unlike places: the first place decides, and a shard may not have it.
import type { InsertStmt, Node } from 'libpg-query';
import { namePath } from '../meaning/name-path.js';
import { pushChildren } from '../meaning/tree-walk.js';
import type { InsertRow, InsertRows } from '../plan/kv-plan.js';
import { aliasOf } from '../rewrite/kv-rewrites.js';
import type { Clauses } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import { spliceTokens, type TextToken, type TokenEdit, type TokenSpan } from '../text/text-tokens.js';

export interface InsertParts {
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly clauses: Clauses;
  readonly statement: InsertStmt;
  readonly columns: { readonly names: readonly string[]; readonly tenantAt: number; readonly keyAt: number };
  readonly rows: readonly (readonly Node[])[];
  /** The tokens of each row's values. */
  readonly spans: readonly (readonly TokenSpan[])[];
  /** By row: see InsertRow. */
  readonly keyIndexes: readonly number[];
  readonly edits: readonly TokenEdit[];
  /** Numbers of parameters that are text in every place. */
  readonly texts: ReadonlySet<number>;
}

export function insertRows(source: InsertParts): InsertRows {
  const { text, tokens, clauses, statement, columns, rows, spans, keyIndexes, edits, texts } = source;
  const cut = (span: TokenSpan) => {
    const within = edits.filter(({ start, end }) => start >= span.start && end <= span.end);
    return spliceTokens(text, tokens, span, within);
  };
  const uses = parametersOf(source);
  const first = spans[0]![0]!.start - 1;
  const last = spans.at(-1)!.at(-1)!.end + 1;
  const taken = rows.map((_, index): InsertRow => {
    const row = spans[index]!;
    const tenant = row[columns.tenantAt]!;
    return {
      before: cut({ start: row[0]!.start - 1, end: tenant.start }),
      tenant: cut(tenant),
      after: cut({ start: tenant.end, end: row.at(-1)!.end + 1 }),
      key: cut(row[columns.keyAt]!),
      keyIndex: keyIndexes[index]!,
      parameters: uses.in(index),
    };
  });
  const alias = quoteName(statement.relation === undefined ? '' : aliasOf(statement.relation));
  return {
    table: cut(clauses.target!.name),
    head: cut({ start: clauses.statement.start, end: first }),
    rows: taken,
    tail: cut({ start: last, end: clauses.statement.end }),
    hidden: clauses.returning === null ? '' : `, ${alias}.tenant_id, ${alias}.key`,
    parameters: uses.in(ELSEWHERE),
    entangled: uses.entangled.filter((number) => !texts.has(number)),
  };
}

/** In place of a row. */
const ELSEWHERE = -1;

/** Where a statement's parameters stand. */
class Uses {
  /** By number: the rows, and what the places say of its type. */
  readonly #places = new Map<number, { readonly rows: Set<number>; readonly types: Set<string> }>();
  readonly #byRow = new Map<number, Set<number>>();
  #unlike = 0;

  in(row: number): number[] {
    return [...(this.#byRow.get(row) ?? [])];
  }

  get entangled(): number[] {
    return [...this.#places].filter(([, { rows, types }]) => rows.size > 1 && types.size > 1).map(([number]) => number);
  }

  /** @param type what the node is, where it is a parameter alone; null: it is not known */
  note(root: object, row: number, type: string | null): void {
    const stack: object[] = [root];
    while (stack.length > 0) {
      const item = stack.pop()! as Node;
      if ('ParamRef' in item) this.#add(item.ParamRef.number ?? 0, row, item === root ? type : null);
      else if ('TypeCast' in item && item.TypeCast.arg !== undefined && 'ParamRef' in item.TypeCast.arg) {
        const { names, typmods, arrayBounds } = item.TypeCast.typeName ?? {};
        const cast = `cast ${namePath(names ?? []).join('.')} ${arrayBounds?.length ?? 0}`;
        this.#add(item.TypeCast.arg.ParamRef.number ?? 0, row, typmods === undefined ? cast : null);
      } else pushChildren(item, stack);
    }
  }

  #add(number: number, row: number, type: string | null): void {
    const places = this.#places.get(number) ?? { rows: new Set(), types: new Set() };
    this.#places.set(number, places);
    places.rows.add(row);
    const own = this.#byRow.get(row) ?? new Set();
    this.#byRow.set(row, own.add(number));
    places.types.add(type ?? `unlike ${this.#unlike++}`);
  }
}

function parametersOf({ statement, rows, columns }: InsertParts): Uses {
  const uses = new Uses();
  for (const [index, row] of rows.entries()) {
    for (const [column, node] of row.entries()) uses.note(node, index, `column ${columns.names[column] ?? ''}`);
  }
  const { onConflictClause: conflict } = statement;
  for (const target of conflict?.targetList ?? []) {
    const { name, val, indirection } = 'ResTarget' in target ? target.ResTarget : {};
    if (val !== undefined) uses.note(val, ELSEWHERE, indirection === undefined ? `column ${name ?? ''}` : null);
  }
  const { selectStmt: _rows, cols: _columns, relation: _relation, onConflictClause: _conflict, ...rest } = statement;
  uses.note([rest, conflict?.infer ?? {}, conflict?.whereClause ?? {}], ELSEWHERE, null);
  return uses;
}
