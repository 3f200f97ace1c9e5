// Which keys a WHERE can match, where it says so: it must be a conjunction, and some of its members must pin tenant_id and
// key to values known without the server. Keys may be named that no row matches, never the other way round.
import type { A_Expr, ColumnRef, Node, RangeVar } from 'libpg-query';
import type { KvTable } from '../../cluster/kv-table.js';
import { namePath } from '../meaning/name-path.js';
import type { KeyRef, ValueRef } from '../plan/kv-plan.js';
import { textType } from './kv-types.js';
import type { ListValue, ValueReader } from './kv-values.js';

/** More keys than this come from a product of lists; as lists written out they are not limited. */
const KEY_PRODUCT_MAX = 10_000;

/** What the conjunction says: each found condition alone holds for every row that matches. */
interface Conditions {
  readonly tenants: ListValue[];
  readonly keys: ListValue[];
  /** Conditions on both columns together. */
  readonly pairs: KeyRef[][];
}

/** Null: not by key. Empty: nothing can match. */
export function keysOfWhere(
  where: Node | undefined,
  relation: RangeVar,
  table: KvTable,
  values: ValueReader,
): readonly KeyRef[] | null {
  const conditions: Conditions = { tenants: [], keys: [], pairs: [] };
  const reader = new ConditionReader(relation, table, values, conditions);
  const stack = where === undefined ? [] : [where];
  while (stack.length > 0) {
    const node = stack.pop()!;
    if ('BoolExpr' in node && node.BoolExpr.boolop === 'AND_EXPR') stack.push(...(node.BoolExpr.args ?? []));
    else if ('A_Expr' in node) reader.read(node.A_Expr);
  }
  return keysOf(conditions);
}

function keysOf({ tenants, keys, pairs }: Conditions): readonly KeyRef[] | null {
  const [pair] = pairs.sort((one, other) => one.length - other.length);
  if (pair !== undefined) return pair;
  const tenant = narrowest(tenants.filter(({ kind }) => kind === 'elements'));
  const key = narrowest(keys);
  if (tenant === undefined || tenant.kind !== 'elements' || key === undefined) return null;
  if (key.kind === 'array') {
    if (key.array.kind === 'null') return [];
    return known(tenant.elements).map((one) => ({ kind: 'list', tenant: one, key: key.array }));
  }
  const [tenantValues, keyValues] = [known(tenant.elements), known(key.elements)];
  if (tenantValues.length > 1 && tenantValues.length * keyValues.length > KEY_PRODUCT_MAX) return null;
  return tenantValues.flatMap((one) => keyValues.map((other) => ({ kind: 'one', tenant: one, key: other }) as const));
}

/** The shortest list of elements, else the first array. */
function narrowest(lists: readonly ListValue[]): ListValue | undefined {
  let best: ListValue | undefined;
  for (const list of lists) {
    if (best === undefined || size(list) < size(best)) best = list;
  }
  return best;
}

const size = (list: ListValue): number => (list.kind === 'elements' ? list.elements.length : Number.POSITIVE_INFINITY);

/** Nothing equals NULL. */
const known = (values: readonly ValueRef[]): readonly ValueRef[] => values.filter(({ kind }) => kind !== 'null');

class ConditionReader {
  private readonly relation: RangeVar;
  private readonly table: KvTable;
  private readonly values: ValueReader;
  private readonly found: Conditions;

  constructor(relation: RangeVar, table: KvTable, values: ValueReader, found: Conditions) {
    this.relation = relation;
    this.table = table;
    this.values = values;
    this.found = found;
  }

  read({ kind, name, lexpr, rexpr }: A_Expr): void {
    const operator = namePath(name ?? []).join('.');
    if ((operator !== '=' && operator !== 'pg_catalog.=') || lexpr === undefined || rexpr === undefined) return;
    switch (kind) {
      case 'AEXPR_OP':
        if ('RowExpr' in lexpr && 'RowExpr' in rexpr)
          this.rowEquality(lexpr.RowExpr.args ?? [], rexpr.RowExpr.args ?? []);
        else if (!this.equality(lexpr, rexpr)) this.equality(rexpr, lexpr);
        return;
      case 'AEXPR_IN': {
        const items = 'List' in rexpr ? (rexpr.List.items ?? []) : [];
        if ('RowExpr' in lexpr) this.rowMembership(lexpr.RowExpr.args ?? [], items);
        else this.note(this.columnOf(lexpr), this.values.elements(items));
        return;
      }
      case 'AEXPR_OP_ANY':
        this.note(this.columnOf(lexpr), this.values.list(rexpr));
        return;
      default:
    }
  }

  private note(column: 'tenant_id' | 'key' | null, values: ListValue | null): void {
    if (column === null || values === null) return;
    (column === 'key' ? this.found.keys : this.found.tenants).push(values);
  }

  private equality(column: Node, value: Node): boolean {
    const name = this.columnOf(column);
    if (name !== null) this.note(name, this.values.elements([value]));
    return name !== null;
  }

  /** Rows are equal where each pair of members is. */
  private rowEquality(left: readonly Node[], right: readonly Node[]): void {
    if (left.length !== right.length) return;
    for (const [index, member] of left.entries()) {
      if (!this.equality(member, right[index]!)) this.equality(right[index]!, member);
    }
  }

  /** `(tenant_id, key) IN ((…, …), …)`: all columns of the left side are compared, so other ones only narrow it. */
  private rowMembership(left: readonly Node[], items: readonly Node[]): void {
    const columns = left.map((member) => this.columnOf(member));
    const [tenantAt, keyAt] = [columns.indexOf('tenant_id'), columns.indexOf('key')];
    const rows: (readonly Node[])[] = [];
    for (const item of items) {
      if (!('RowExpr' in item) || item.RowExpr.args?.length !== left.length) return;
      rows.push(item.RowExpr.args);
    }
    const tenants = tenantAt < 0 ? null : this.values.elements(rows.map((row) => row[tenantAt]!));
    const keys = keyAt < 0 ? null : this.values.elements(rows.map((row) => row[keyAt]!));
    if (tenants === null || keys === null) {
      this.note('tenant_id', tenants);
      this.note('key', keys);
      return;
    }
    const pairs = tenants.elements.map(
      (tenant, index) => ({ kind: 'one', tenant, key: keys.elements[index]! }) as const,
    );
    this.found.pairs.push(pairs.filter(({ tenant, key }) => tenant.kind !== 'null' && key.kind !== 'null'));
  }

  /** The column of the table that an expression is, bare or cast to what it is. */
  private columnOf(node: Node): 'tenant_id' | 'key' | null {
    if ('TypeCast' in node && textType(node.TypeCast.typeName, 0) !== null && node.TypeCast.arg !== undefined) {
      return this.columnOf(node.TypeCast.arg);
    }
    if ('CollateClause' in node && node.CollateClause.arg !== undefined) {
      return namePath(node.CollateClause.collname ?? []).join('.') === 'C'
        ? this.columnOf(node.CollateClause.arg)
        : null;
    }
    if (!('ColumnRef' in node)) return null;
    const name = this.ownColumn(node.ColumnRef);
    return name === 'tenant_id' || name === 'key' ? name : null;
  }

  private ownColumn({ fields }: ColumnRef): string | null {
    const path = namePath(fields ?? []);
    const column = path.pop() ?? null;
    const alias = this.relation.alias?.aliasname;
    const [first, second] = path;
    if (first === undefined) return column;
    if (second === undefined) return first === (alias ?? this.relation.relname) ? column : null;
    const isOwn = path.length === 2 && alias === undefined && first === this.table.schema && second === this.table.name;
    return isOwn ? column : null;
  }
}
