// Which expressions mean the same on every shard, so that answers of several shards may be put together: an allow-list of
// node types and of pg_catalog's functions (D10). It says what an expression holds, not what to make of it.
import type { ColumnRef, FuncCall, Node, TypeName } from 'libpg-query';
import { type Refusal, refuse as refuseBy } from '../../base/refusals.js';
import { KV_COLUMNS, type KvColumn, type KvTable } from '../../cluster/kv-table.js';
import { functionChanges, functionEffects } from '../meaning/function-effects.js';
import { namePath } from '../meaning/name-path.js';
import { Effect } from '../plan/template.js';

/** What names in the statement can mean. */
export interface Scope {
  readonly table: KvTable;
  /** What the table is called in the statement. */
  readonly alias: string;
  readonly oldestServerMajor: number;
}

export interface ExpressionFacts {
  readonly refusal: Refusal | null;
  /** Gives another value each time it is evaluated. */
  readonly isVolatile: boolean;
  readonly hasAggregate: boolean;
  readonly columns: readonly ColumnRef[];
  readonly casts: readonly TypeName[];
  /** Names of the collations in COLLATE clauses. */
  readonly collations: readonly string[];
  readonly functions: readonly string[];
}

/** @param instead a sentence: what to do */
export const refuse = (what: string, instead: string): Refusal =>
  refuseBy('several_shards_form', {
    what: what.replace(/^(?:A|An|The) /, (article) => article.toLowerCase()),
    instead,
  });

const words = (list: string): ReadonlySet<string> => new Set(list.trim().split(/\s+/));

const ALLOWED_NODES = words(`
  A_ArrayExpr A_Const A_Expr A_Indices A_Indirection A_Star BitString BoolExpr Boolean BooleanTest CaseExpr CaseWhen
  CoalesceExpr CollateClause ColumnRef Float FuncCall Integer JsonIsPredicate List MinMaxExpr NamedArgExpr NullTest
  ParamRef ResTarget RowExpr SQLValueFunction SortBy String TypeCast TypeName`);

const COMBINABLE = words('count sum min max avg bool_and bool_or every');
const OTHER_AGGREGATES = words(`
  any_value array_agg bit_and bit_or bit_xor corr covar_pop covar_samp cume_dist dense_rank json_agg json_agg_strict
  json_object_agg json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict jsonb_agg
  jsonb_agg_strict jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict mode
  percent_rank percentile_cont percentile_disc range_agg range_intersect_agg rank regr_avgx regr_avgy regr_count
  regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg var_pop var_samp
  variance xmlagg`);

const VOLATILE = words(`
  array_sample array_shuffle clock_timestamp gen_random_uuid pg_sleep pg_sleep_for pg_sleep_until random random_normal
  timeofday uuidv4 uuidv7`);

/** Tell about the server they run on, or read whole tables there. */
const ABOUT_ONE_SERVER = /^(pg_|txid_|lo_|inet_(server|client)_)|_to_xml|^(current_query|currtid2|amvalidate)$/;
const NOT_ABOUT_ONE_SERVER = words(`
  pg_column_compression pg_column_size pg_input_error_info pg_input_is_valid pg_size_bytes pg_size_pretty pg_sleep
  pg_sleep_for pg_sleep_until pg_typeof`);

const SYSTEM_COLUMNS = words('tableoid xmin cmin xmax cmax ctid');
const COLUMNS: ReadonlySet<string> = new Set(KV_COLUMNS);

export const AGGREGATE_HINT =
  'Use count, sum, min, max, avg, bool_and, bool_or or every, without DISTINCT or ORDER BY inside, or name one key.';

/** What of a node is looked at, whatever its type. */
type AnyNode = FuncCall &
  ColumnRef & { readonly typeName?: TypeName; readonly collname?: Node[]; readonly name?: Node[] };

/** Nodes have names with a capital, fields have none. */
const isNodeName = (key: string): boolean => key.charCodeAt(0) >= 65 && key.charCodeAt(0) <= 90;

/** @param root an expression, or a list of them */
export function expressionFacts(root: Node | readonly Node[], scope: Scope): ExpressionFacts {
  const facts = {
    refusal: null as Refusal | null,
    isVolatile: false,
    hasAggregate: false,
    columns: [] as ColumnRef[],
    casts: [] as TypeName[],
    collations: [] as string[],
    functions: [] as string[],
  };
  // Trees can be some thousand nodes deep.
  const stack: unknown[] = [root];
  while (stack.length > 0) {
    const item = stack.pop();
    if (Array.isArray(item)) {
      for (const element of item) stack.push(element);
      continue;
    }
    if (typeof item !== 'object' || item === null) continue;
    for (const key in item) {
      const value = item[key as never] as AnyNode;
      if (typeof value === 'object') stack.push(value);
      if (!isNodeName(key)) continue;
      if (!ALLOWED_NODES.has(key)) facts.refusal ??= refuseNode(key);
      else if (key === 'ColumnRef') {
        facts.columns.push(value);
        if (namePath(value.fields ?? []).some((name) => SYSTEM_COLUMNS.has(name))) {
          facts.refusal ??= refuse('A system column', 'Leave it out: it says where a row is on one server.');
        }
      } else if (key === 'TypeCast') facts.casts.push(value.typeName ?? {});
      else if (key === 'CollateClause') facts.collations.push(namePath(value.collname ?? []).at(-1) ?? '');
      else if (key === 'A_Expr' && isForeignOperator(value.name ?? [])) {
        facts.refusal ??= refuse(
          'An operator of another schema than pg_catalog',
          "Use one of Postgres's own operators.",
        );
      } else if (key === 'FuncCall') {
        const call: FuncCall = value;
        const name = namePath(call.funcname ?? []).at(-1) ?? '';
        facts.functions.push(name);
        facts.refusal ??= refusalOfCall(call, scope);
        facts.hasAggregate ||= isAggregate(call);
        facts.isVolatile ||= VOLATILE.has(name);
      }
    }
  }
  return facts;
}

function refuseNode(type: string): Refusal {
  if (type === 'SubLink') {
    return refuse('A subquery', 'Ask for its result first and put it in, or name one key in the statement.');
  }
  if (type.startsWith('Grouping')) {
    return refuse('GROUPING SETS, ROLLUP or CUBE', 'Use GROUP BY on columns of the table, once for each set.');
  }
  return refuse(`An expression of this kind (${type})`, 'Write it with functions and operators of Postgres.');
}

const isForeignOperator = (name: readonly Node[]): boolean => {
  const path = namePath(name);
  return path.length > 1 && path[0] !== 'pg_catalog';
};

function refusalOfCall(call: FuncCall, { table, oldestServerMajor }: Scope): Refusal | null {
  const path = namePath(call.funcname ?? []);
  const name = path.at(-1) ?? '';
  if (call.over !== undefined) return refuse('A window function', 'Name one key, or compute it in the application.');
  if (isSlotFunction(path, table)) return null;
  if (OTHER_AGGREGATES.has(name) || (COMBINABLE.has(name) && isSpecial(call))) {
    return refuse(`The aggregate ${name} in this form`, AGGREGATE_HINT);
  }
  if (functionEffects(path, oldestServerMajor) !== Effect.none || functionChanges(path)) {
    return refuse(
      `The function ${path.join('.')}, which may change something or is not one of Postgres's own,`,
      'Name one key in the statement, or leave the function out.',
    );
  }
  if (ABOUT_ONE_SERVER.test(name) && !NOT_ABOUT_ONE_SERVER.has(name)) {
    return refuse(`The function ${name}, which tells about one server,`, 'Ask for it in a statement of its own.');
  }
  return null;
}

const isSpecial = (call: FuncCall): boolean =>
  call.agg_distinct === true ||
  call.agg_within_group === true ||
  call.func_variadic === true ||
  (call.agg_order ?? []).length > 0;

/** Immutable, and the same on every shard (D2). */
function isSlotFunction(path: readonly string[], table: KvTable): boolean {
  const [name, schema] = [...path].reverse();
  if (name === `${table.name}_slot`) return schema === undefined || schema === table.schema;
  return name === 'slot' && schema === 'pgkv';
}

/** A call of an aggregate that can be put together from those of the shards. */
export function isAggregate(call: FuncCall): boolean {
  const path = namePath(call.funcname ?? []);
  return (path.length === 1 || path[0] === 'pg_catalog') && COMBINABLE.has(path.at(-1) ?? '');
}

/** Null for what is no column every key-value table has. */
export function columnOf(reference: ColumnRef, alias: string): KvColumn | null {
  const path = namePath(reference.fields ?? []);
  const name = path.at(-1) ?? '';
  if (path.length > 1 && path.at(-2) !== alias) return null;
  return COLUMNS.has(name) ? (name as KvColumn) : null;
}

const isByteOrdered = (collation: string): boolean => collation === 'C' || collation === 'POSIX';

const COLLATABLE_TYPES = words('text varchar bpchar char name');
const UNCOLLATABLE_TYPES = words(`
  bool boolean int2 int4 int8 smallint integer int bigint float4 float8 real numeric decimal date time timetz timestamp
  timestamptz interval uuid bytea json jsonb`);
const UNCOLLATABLE_FUNCTIONS = words(`
  length char_length character_length octet_length bit_length ascii strpos position extract date_part`);

const typeNameOf = (type: TypeName): string => {
  const path = namePath(type.names ?? []);
  return path.length === 1 || path[0] === 'pg_catalog' ? (path.at(-1) ?? '') : path.join('.');
};

/**
 * The order an expression's values have if they are text: `none` where they are not, `bytes` under collation C,
 * `database` under the database's own collation, `mixed` where that is not decided here.
 */
export type TextOrder = 'none' | 'bytes' | 'database' | 'mixed';

const hasByteOrderedCollate = (node: Node): boolean =>
  'CollateClause' in node && isByteOrdered(namePath(node.CollateClause.collname ?? []).at(-1) ?? '');

export function textOrderOf(node: Node, scope: Scope): TextOrder | Refusal {
  const facts = expressionFacts(node, scope);
  if (facts.collations.some((collation) => !isByteOrdered(collation) && collation !== 'default')) {
    return refuse('An order by another collation than "C"', 'Use COLLATE "C" or the collation of the database.');
  }
  // A domain brings its own collation.
  const foreign = facts.casts
    .map(typeNameOf)
    .find((type) => !COLLATABLE_TYPES.has(type) && !UNCOLLATABLE_TYPES.has(type));
  if (foreign !== undefined)
    return refuse(`An order by values cast to ${foreign}`, 'Cast to a basic type of Postgres.');
  if ('CollateClause' in node) return hasByteOrderedCollate(node) ? 'bytes' : 'database';
  if ('A_Expr' in node && node.A_Expr.kind === 'AEXPR_OP') {
    // In value->>'a' COLLATE "C" the COLLATE belongs to the operand; what an operator answers inherits it.
    const { lexpr, rexpr } = node.A_Expr;
    if ([lexpr, rexpr].some((operand) => operand !== undefined && hasByteOrderedCollate(operand))) return 'bytes';
  }
  if ('ColumnRef' in node) {
    const column = columnOf(node.ColumnRef, scope.alias);
    if (column === 'tenant_id' || column === 'key') return 'bytes';
    return column === null ? 'mixed' : 'none';
  }
  if ('TypeCast' in node) {
    const type = node.TypeCast.typeName ?? {};
    if (UNCOLLATABLE_TYPES.has(typeNameOf(type)) && (type.arrayBounds ?? []).length === 0) return 'none';
  }
  if ('FuncCall' in node && UNCOLLATABLE_FUNCTIONS.has(facts.functions[0] ?? '')) return 'none';
  const hasByteOrdered = facts.columns.some((reference) => {
    const column = columnOf(reference, scope.alias);
    return column === null || column === 'tenant_id' || column === 'key';
  });
  return hasByteOrdered || facts.collations.length > 0 ? 'mixed' : 'database';
}
