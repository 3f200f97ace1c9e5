// Which type Postgres gives each parameter of a statement, as far as keys are concerned. `key = $1` makes $1 text unless
// it was given another type before: after `version = $1`, the cast in `key = $1::text` turns a bigint into text, and what
// the client sent as 007 is key 7. So a parameter is text only if every place it stands in says so.
import type { A_Expr, FuncCall, InsertStmt, Node } from 'libpg-query';
import { namePath } from '../meaning/name-path.js';
import { pushChildren } from '../meaning/tree-walk.js';
import { textType } from './kv-types.js';

/** `slot`: stands only where an INSERT gives the slot. `other`: anything else, or of different types. */
export type ParameterType = 'text' | 'varchar' | 'text[]' | 'varchar[]' | 'slot' | 'other';

/** Of a function of a key-value table: its arguments that say which keys, and whether they are arrays. */
export interface KeyArguments {
  readonly nodes: readonly (Node | undefined)[];
  readonly areArrays: boolean;
}

const COMPARISONS = new Set(['=', '<>', '!=', '<', '>', '<=', '>=']);

/** @param keyArguments null for a call of any other function */
export function parameterTypes(
  statement: Node,
  keyArguments: (call: FuncCall) => KeyArguments | null,
  insertedColumns: readonly string[] = [],
): ReadonlyMap<number, ParameterType> {
  return new TypeCollector(keyArguments, insertedColumns).collect(statement);
}

type ScalarType = 'text' | 'varchar' | 'slot';

class TypeCollector {
  private readonly keyArguments: (call: FuncCall) => KeyArguments | null;
  private readonly insertedColumns: readonly string[];
  private readonly types = new Map<number, ParameterType>();
  /** Parameters whose place is known. */
  private readonly placed = new Set<object>();

  constructor(keyArguments: (call: FuncCall) => KeyArguments | null, insertedColumns: readonly string[]) {
    this.keyArguments = keyArguments;
    this.insertedColumns = insertedColumns;
  }

  collect(statement: Node): ReadonlyMap<number, ParameterType> {
    // Parents come before their children, so that a parameter's place is known when it is met.
    const stack: object[] = [statement];
    /** Of each on the stack. In a subquery `key` may be a column of something else. */
    const inQueries: boolean[] = [false];
    while (stack.length > 0) {
      const item = stack.pop()!;
      const inQuery = inQueries.pop()!;
      if (Array.isArray(item)) pushChildren(item, stack);
      else {
        this.visit(item as Fields, inQuery);
        for (const key in item) {
          const value: unknown = item[key as never];
          if (typeof value !== 'object' || value === null) continue;
          stack.push(value);
          inQueries.push(inQuery || key === 'subselect' || key === 'subquery');
        }
      }
      while (inQueries.length < stack.length) inQueries.push(inQuery);
    }
    return this.types;
  }

  private visit(fields: Fields, inQuery: boolean): void {
    const { ParamRef: parameter, TypeCast: cast } = fields;
    if (parameter !== undefined && !this.placed.has(parameter)) this.note(parameter.number ?? 0, 'other');
    if (cast !== undefined) {
      const scalar = textType(cast.typeName, 0);
      if (scalar !== null) this.place(cast.arg, scalar);
      const element = textType(cast.typeName, 1);
      if (element !== null) this.placeList(cast.arg, element);
    }
    if (fields.A_Expr !== undefined && !inQuery) this.comparison(fields.A_Expr);
    if (fields.InsertStmt !== undefined) this.insertion(fields.InsertStmt);
    if (fields.FuncCall !== undefined) {
      const found = this.keyArguments(fields.FuncCall);
      // Of no type by itself: without a declared one the server refuses it.
      if (isUnnest(fields.FuncCall)) for (const node of fields.FuncCall.args ?? []) this.placeList(node, 'text');
      for (const node of found?.nodes ?? []) {
        if (found?.areArrays === true) this.placeList(node, 'text');
        else this.place(node, 'text');
      }
    }
  }

  private comparison({ kind, name, lexpr, rexpr }: A_Expr): void {
    const path = namePath(name ?? []);
    if (lexpr === undefined || rexpr === undefined || !COMPARISONS.has(path.at(-1) ?? '')) return;
    if (path.length > 1 && path[0] !== 'pg_catalog') return;
    if (kind === 'AEXPR_OP') {
      this.compared(lexpr, rexpr);
      this.compared(rexpr, lexpr);
    } else if (kind === 'AEXPR_IN') {
      for (const item of 'List' in rexpr ? (rexpr.List.items ?? []) : []) this.compared(lexpr, item);
    } else if ((kind === 'AEXPR_OP_ANY' || kind === 'AEXPR_OP_ALL') && isKeyColumn(lexpr)) {
      this.placeList(rexpr, 'text');
    }
  }

  private compared(column: Node, value: Node): void {
    if (isKeyColumn(column)) this.place(value, 'text');
    if (!('RowExpr' in column) || !('RowExpr' in value)) return;
    const values = value.RowExpr.args ?? [];
    for (const [index, member] of (column.RowExpr.args ?? []).entries()) {
      if (isKeyColumn(member)) this.place(values[index], 'text');
    }
  }

  private insertion({ selectStmt }: InsertStmt): void {
    if (selectStmt === undefined || !('SelectStmt' in selectStmt)) return;
    const { valuesLists, targetList } = selectStmt.SelectStmt;
    for (const row of valuesLists ?? []) this.insertedRow('List' in row ? (row.List.items ?? []) : []);
    // What a SELECT gives without a type is made the column's, as a value of VALUES is.
    this.insertedRow(
      (targetList ?? []).map((target) => ('ResTarget' in target ? (target.ResTarget.val ?? target) : target)),
    );
  }

  private insertedRow(nodes: readonly Node[]): void {
    for (const [index, node] of nodes.entries()) {
      const column = this.insertedColumns[index];
      if (column === 'tenant_id' || column === 'key') this.place(node, 'text');
      else if (column === 'slot') this.place(node, 'slot');
    }
  }

  private placeList(node: Node | undefined, element: 'text' | 'varchar'): void {
    if (node === undefined) return;
    if ('ParamRef' in node) this.settle(node.ParamRef, `${element}[]`);
    else if ('A_ArrayExpr' in node) for (const item of node.A_ArrayExpr.elements ?? []) this.place(item, element);
  }

  private place(node: Node | undefined, type: ScalarType): void {
    if (node !== undefined && 'ParamRef' in node) this.settle(node.ParamRef, type);
  }

  private settle(parameter: { readonly number?: number }, type: ParameterType): void {
    if (this.placed.has(parameter)) return; // ARRAY[$1]::varchar[]: the cast has decided
    this.placed.add(parameter);
    this.note(parameter.number ?? 0, type);
  }

  private note(number: number, type: ParameterType): void {
    const known = this.types.get(number);
    this.types.set(number, known === undefined || known === type ? type : 'other');
  }
}

function isUnnest({ funcname }: FuncCall): boolean {
  const path = namePath(funcname ?? []);
  return path.at(-1) === 'unnest' && (path.length === 1 || (path.length === 2 && path[0] === 'pg_catalog'));
}

interface Fields {
  readonly ParamRef?: { readonly number?: number };
  readonly TypeCast?: { readonly arg?: Node; readonly typeName?: Parameters<typeof textType>[0] };
  readonly A_Expr?: A_Expr;
  readonly InsertStmt?: InsertStmt;
  readonly FuncCall?: FuncCall;
}

function isKeyColumn(node: Node): boolean {
  if (!('ColumnRef' in node)) return false;
  const column = namePath(node.ColumnRef.fields ?? []).at(-1);
  return column === 'tenant_id' || column === 'key';
}
