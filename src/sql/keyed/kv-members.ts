// Plural functions of key-value tables, called for keys on several shards: which of their arguments are cut, and how the text of a
// shard has them (MemberPlan). An array that is a parameter or a literal is cut before it is sent; ARRAY[…] is cut by the shard, so
// that each expression in it keeps the type that all together give it.
import type { FuncCall, Node, SelectStmt } from 'libpg-query';
import { isRefusal, type Refusal, refuse } from '../../base/refusals.js';
import type { KvTable } from '../../cluster/kv-table.js';
import { namePath } from '../meaning/name-path.js';
import type { MemberArray, MemberPlan, MemberValue, ScatterPlan, SpreadPlan, ValueRef } from '../plan/kv-plan.js';
import { insertion } from '../rewrite/kv-rewrites.js';
import { planCallScatter, planCallSpread } from '../scatter/call-plan.js';
import { leavesNumbers, MEMBER_NUMBERS } from '../scatter/member-parameters.js';
import type { Clauses } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import type { TextParts } from '../text/text-parts.js';
import {
  closingIndex,
  joinParts,
  listItems,
  spliceTokens,
  type TextToken,
  type TokenEdit,
  type TokenSpan,
  tokenAtByte,
} from '../text/text-tokens.js';
import type { StatementSource } from './kv-statement.js';
import type { ListValue } from './kv-values.js';

interface Operation {
  readonly names: readonly string[];
  readonly columns: readonly string[];
  /** Arguments of which NULL is as good as none. */
  readonly optional?: string;
  /** What stands under a member's number in it is the member's; else they are counted as unnest() does. */
  readonly subscripted?: string;
}

const KEYS = ['tenants', 'keys'];
const APPLIED = ['ord', 'applied'];
/** As extensions/pgkv makes them, without `_many`. */
const OPERATIONS: ReadonlyMap<string, Operation> = new Map<string, Operation>([
  ['get', { names: KEYS, columns: ['ord', 'tenant_id', 'key', 'value', 'version', 'ttl', 'updated_at'] }],
  ['put', { names: [...KEYS, 'vals', 'ttls'], columns: ['ord', 'version'], optional: 'ttls' }],
  [
    'cas',
    { names: [...KEYS, 'expected', 'vals', 'ttls'], columns: [...APPLIED, 'version', 'value'], optional: 'ttls' },
  ],
  ['delete', { names: KEYS, columns: ['ord', 'deleted'] }],
  ['incr', { names: [...KEYS, 'deltas'], columns: ['ord', 'value'] }],
  ['merge', { names: [...KEYS, 'patches'], columns: ['ord', 'value', 'version'] }],
  ['expire', { names: [...KEYS, 'ttls'], columns: APPLIED, subscripted: 'ttls' }],
  ['expire_at', { names: [...KEYS, 'ats'], columns: APPLIED, subscripted: 'ats' }],
  ['persist', { names: KEYS, columns: APPLIED }],
  ['touch', { names: KEYS, columns: APPLIED }],
  ['ttl', { names: KEYS, columns: ['ord', 'ttl'] }],
]);

/** Where it is on several shards. */
export interface SeveralShards {
  readonly scatter: ScatterPlan | Refusal;
  readonly spread: SpreadPlan | null;
  readonly members: MemberPlan | null;
}

export interface PluralCall {
  readonly table: KvTable;
  readonly call: FuncCall;
  /** `get_many` */
  readonly operation: string;
  readonly writes: boolean;
  readonly tenants: ListValue;
  readonly keys: ListValue;
}

const OF_MEMBER = '"pgkv of member"';
const PLACE = '"pgkv place"';

/** A SELECT that calls that one function and nothing else of a key-value table. */
export function planPluralCall(source: StatementSource, select: SelectStmt, plural: PluralCall): SeveralShards {
  const cut = cutCall(source, select, plural);
  if (cut === null) return { scatter: refuse('several_shards_call'), spread: null, members: null };
  const { tokens, text, oldestServerMajor } = source;
  const { table, writes } = plural;
  const { alias, list, rows } = cut;
  const called = {
    text,
    tokens,
    oldestServerMajor,
    table,
    select,
    clauses: source.clauses!,
    alias,
    call: { list, rows },
  };
  if (!writes) {
    const scatter = planCallScatter(called);
    const descending = !isRefusal(scatter) && scatter.kind === 'sorted' && scatter.sortKeys[0]!.descending;
    return { scatter, spread: null, members: isRefusal(scatter) ? null : { ...cut.members, descending } };
  }
  const spread = planCallSpread(called);
  if (isRefusal(spread)) return { scatter: spread, spread: null, members: null };
  return {
    scatter: refuse('several_shards_call'),
    spread: { returns: true, insert: null, hasInstant: false, text: spread.text },
    members: { ...cut.members, descending: spread.descending },
  };
}

interface CutCall {
  readonly alias: string;
  readonly list: TextParts;
  /** FROM and WHERE. */
  readonly rows: TextParts;
  readonly members: Omit<MemberPlan, 'descending'>;
}

/** Where the call stands: alone in FROM, or alone in the select list. */
interface CallPlace {
  readonly alias: string;
  /** The call, and behind it the name that it is given. */
  readonly start: number;
  readonly end: number;
  readonly isInFrom: boolean;
}

/** Null: it is in a form in which it is not cut. */
function cutCall(source: StatementSource, select: SelectStmt, plural: PluralCall): CutCall | null {
  const { text, clauses, tokens, isAlone } = source;
  const operation = OPERATIONS.get(plural.operation.slice(0, -'_many'.length));
  const place = clauses === null ? null : placeOfOnly(select, plural.call, clauses);
  if (!isAlone || clauses?.selectList == null || operation === undefined || place === null || !leavesNumbers(tokens))
    return null;
  let opening = place.start + 1;
  while (tokens[opening]?.folded === '.') opening += 2;
  if (tokens[opening]?.folded !== '(') return null;
  const closing = closingIndex(tokens, opening);
  const spans = listItems(tokens, { start: opening + 1, end: closing });
  const cut = cutArguments(source, plural.call, spans, operation);
  if (cut === null || !isCutWherever(cut.arrays, tokens)) return null;
  const others = operation.columns.slice(1).map((column) => `, ${OF_MEMBER}.${column}`);
  const number = `(${MEMBER_NUMBERS})[${OF_MEMBER}.ord::pg_catalog.int4]::pg_catalog.int8 AS ord`;
  const head = `(SELECT ${number}${others.join('')} FROM`;
  const name = quoteName(place.alias);
  const call = spliceTokens(text, tokens, { start: place.start, end: closing + 1 }, cut.edits);
  const label = spliceTokens(text, tokens, { start: closing + 1, end: place.end });
  const { from, where, selectList } = clauses;
  return {
    alias: place.alias,
    list: place.isInFrom ? spliceTokens(text, tokens, selectList) : joinParts(name, label),
    rows: joinParts(
      'FROM',
      head,
      call,
      `${OF_MEMBER})`,
      place.isInFrom && label.length > 0 ? label : name,
      where === null || from === null ? [] : spliceTokens(text, tokens, { start: where.start, end: where.body.end }),
    ),
    members: {
      tenant: memberValue(plural.tenants),
      key: memberValue(plural.keys),
      arrays: cut.arrays,
      written: cut.written,
      isPadded: false,
      order: 'number',
    },
  };
}

export const memberValue = (list: ListValue): MemberValue =>
  list.kind === 'array' ? list : { kind: 'each', values: list.elements };

/** Null: it does not stand alone. */
function placeOfOnly(
  { fromClause, targetList, whereClause }: SelectStmt,
  call: FuncCall,
  clauses: Clauses,
): CallPlace | null {
  const [only, ...more] = fromClause ?? [];
  const name = namePath(call.funcname ?? []).at(-1) ?? '';
  if (only === undefined) {
    const [target, ...others] = targetList ?? [];
    const isOnly = target !== undefined && 'ResTarget' in target && others.length === 0 && whereClause === undefined;
    const value = isOnly ? target.ResTarget.val : undefined;
    if (value === undefined || !('FuncCall' in value) || value.FuncCall !== call) return null;
    return { alias: name, ...clauses.selectList!, isInFrom: false };
  }
  if (more.length > 0 || !('RangeFunction' in only) || clauses.from === null) return null;
  const { functions, alias, lateral, ordinality, is_rowsfrom: isRowsFrom, coldeflist } = only.RangeFunction;
  if (lateral === true || ordinality === true || isRowsFrom === true || coldeflist !== undefined) return null;
  if (alias?.colnames !== undefined) return null;
  const [list] = functions ?? [];
  const [found] = list !== undefined && 'List' in list ? (list.List.items ?? []) : [];
  if (found === undefined || !('FuncCall' in found) || found.FuncCall !== call) return null;
  return { alias: alias?.aliasname ?? name, ...clauses.from.body, isInFrom: true };
}

export interface CutArrays {
  readonly arrays: readonly MemberArray[];
  readonly written: readonly number[];
  readonly edits: readonly TokenEdit[];
}

function cutArguments(
  source: StatementSource,
  call: FuncCall,
  spans: readonly TokenSpan[],
  { names, optional, subscripted }: Operation,
): CutArrays | null {
  const args = call.args ?? [];
  const { agg_order: order, agg_filter: filter, agg_distinct: distinct, over } = call;
  if (
    spans.length !== args.length ||
    order !== undefined ||
    filter !== undefined ||
    distinct === true ||
    over !== undefined
  )
    return null;
  const cut = { arrays: [] as MemberArray[], written: [] as number[], edits: [] as TokenEdit[] };
  for (const [index, arg] of args.entries()) {
    const isNamed = 'NamedArgExpr' in arg;
    const name = isNamed ? arg.NamedArgExpr.name : names[index];
    const node = isNamed ? arg.NamedArgExpr.arg : arg;
    if (name === undefined || node === undefined || !names.includes(name)) return null;
    const span = { start: spans[index]!.start + (isNamed ? 2 : 0), end: spans[index]!.end };
    const kinds = { isOptional: name === optional, isSubscripted: name === subscripted };
    if (!cutArray(source, node, span, KEYS.includes(name), kinds, cut)) return null;
  }
  return cut;
}

/** @returns false: it is none that can be cut */
export function cutArray(
  { tokens }: Pick<StatementSource, 'tokens'>,
  node: Node,
  span: TokenSpan,
  isOfKeys: boolean,
  kinds: Omit<MemberArray, 'ref'>,
  cut: { arrays: MemberArray[]; written: number[]; edits: TokenEdit[] },
): boolean {
  const inner = withoutArrayCasts(node);
  if (inner === null) return false;
  if ('A_ArrayExpr' in inner) {
    const elements = inner.A_ArrayExpr.elements ?? [];
    if (!isOfKeys && !elements.every(isScalar)) return false;
    cut.written.push(elements.length);
    cut.edits.push(
      insertion(span.start, 'ARRAY(SELECT ('),
      insertion(span.end, `)[${PLACE}] FROM pg_catalog.unnest(${MEMBER_NUMBERS}) ${PLACE})`),
    );
    return true;
  }
  const ref = refOf(inner, tokens);
  if (ref === null) return false;
  cut.arrays.push({ ref, ...kinds });
  return true;
}

/** Casts to arrays of whatever type. */
function withoutArrayCasts(node: Node): Node | null {
  let inner = node;
  while ('TypeCast' in inner) {
    const { arg, typeName } = inner.TypeCast;
    if (arg === undefined || typeName?.arrayBounds?.length !== 1) return null;
    inner = arg;
  }
  return inner;
}

function refOf(node: Node, tokens: readonly TextToken[]): ValueRef | null {
  if ('ParamRef' in node) return { kind: 'parameter', number: node.ParamRef.number ?? 0 };
  if (!('A_Const' in node)) return null;
  if (node.A_Const.isnull === true) return { kind: 'null' };
  const index = tokenAtByte(tokens, node.A_Const.location ?? -1);
  const token = tokens[index];
  // A parameter cannot stand in place of it in text[] '{…}' and N'…'.
  if (token === undefined || token.literal < 0 || tokens[index - 1]?.kind !== 'symbol') return null;
  const value = node.A_Const.sval?.sval;
  return value === undefined ? null : { kind: 'literal', index: token.literal };
}

const BUILDERS: ReadonlySet<string> = new Set(['to_jsonb', 'jsonb_build_object', 'jsonb_build_array']);

/** What is no array itself, whatever types parameters are declared with. */
function isScalar(node: Node): boolean {
  if ('A_Const' in node) return true;
  if ('TypeCast' in node) return (node.TypeCast.typeName?.arrayBounds ?? []).length === 0;
  return 'FuncCall' in node && BUILDERS.has(namePath(node.FuncCall.funcname ?? []).at(-1) ?? '');
}

/** Whether parameters stand nowhere else than where they are cut. */
export function isCutWherever(arrays: readonly MemberArray[], tokens: readonly TextToken[]): boolean {
  const cut = new Map<string, number>();
  for (const { ref } of arrays) {
    if (ref.kind === 'parameter') cut.set(`$${ref.number}`, (cut.get(`$${ref.number}`) ?? 0) + 1);
  }
  for (const { kind, folded } of tokens) {
    const left = kind === 'parameter' ? cut.get(folded) : undefined;
    if (left !== undefined) cut.set(folded, left - 1);
  }
  return [...cut.values()].every((left) => left === 0);
}
