// Calls of functions that find a table by what stands in a string: sizes and statistics by its name, queries as a text. A
// literal is read here, and so decides; what is no literal cannot be read.
import type { FuncCall, Node } from 'libpg-query';
import { type Refusal, refuse } from '../../base/refusals.js';
import { mentionInText } from '../meaning/kv-references.js';
import { namePath } from '../meaning/name-path.js';
import { pushChildren } from '../meaning/tree-walk.js';
import { namesTable, type ScopeNames } from './table-names.js';

/** Take a relation: sizes, statistics, and what extensions tell, check or do about one. */
const OF_RELATION =
  /^(?:pg_(?:relation|table|total_relation|indexes)_size|pg_stat_\w+|pg_(?:clear|restore)_(?:relation|attribute)_stats|pg_prewarm|pgstat\w+|pg_relpages|pg_freespace|pg_visib\w+|pg_truncate_visibility_map|verify_heapam|bt_index(?:_parent)?_check|brin_\w+|gin_clean_pending_list)$/;
/** Run a query, or read whole tables. */
const OF_QUERY = /^(?:(?:query|table|schema|database|cursor)_to_xml(?:schema|_and_xmlschema)?|ts_stat|ts_rewrite)$/;

export interface NamingCalls {
  readonly refusal: Refusal | null;
  /** A relation is given as a parameter: which one, nobody knows before it is run. */
  readonly byParameter: string | null;
  /** The value of a literal had a say in it. */
  readonly textDependent: boolean;
}

/** An argument: a literal's text, or what it is. */
interface Argument {
  readonly kind: 'text' | 'other literal' | 'parameter' | 'computed';
  readonly text: string;
}

export function namingCalls(root: Node, scope: ScopeNames): NamingCalls {
  const found = { refusal: null as Refusal | null, byParameter: null as string | null, textDependent: false };
  // Trees can be some thousand nodes deep.
  const stack: object[] = [root];
  while (stack.length > 0) {
    const item = stack.pop()!;
    const { FuncCall: call } = item as { FuncCall?: FuncCall };
    if (call !== undefined) noteCall(call, scope, found);
    pushChildren(item, stack);
  }
  return found;
}

function noteCall(
  call: FuncCall,
  scope: ScopeNames,
  found: { refusal: Refusal | null; byParameter: string | null; textDependent: boolean },
): void {
  const name = namePath(call.funcname ?? []).at(-1) ?? '';
  const isOfQuery = OF_QUERY.test(name);
  if (!isOfQuery && !OF_RELATION.test(name)) return;
  const given = (call.args ?? []).map(argumentOf);
  const texts = given.filter(({ kind }) => kind === 'text').map(({ text }) => text);
  if (texts.length > 0) found.textDependent = true;
  if (isOfQuery) {
    if (mayReadTables(name, given, texts, scope)) found.refusal ??= refuse('function_of_query', { name });
  } else if (texts.some((text) => namesTable(text, scope))) {
    found.refusal ??= refuse('function_of_relation', { name });
  } else if (given.some(({ kind }) => kind === 'parameter')) found.byParameter ??= name;
}

/** Under casts, collations and a name of the parameter. */
function argumentOf(node: Node): Argument {
  let inner: Node | undefined = node;
  while (inner !== undefined) {
    if ('TypeCast' in inner) inner = inner.TypeCast.arg;
    else if ('NamedArgExpr' in inner) inner = inner.NamedArgExpr.arg;
    else if ('CollateClause' in inner) inner = inner.CollateClause.arg;
    else break;
  }
  if (inner === undefined) return { kind: 'computed', text: '' };
  if ('ParamRef' in inner) return { kind: 'parameter', text: '' };
  if ('FuncCall' in inner && namePath(inner.FuncCall.funcname ?? []).at(-1) === 'to_regclass') {
    return argumentOf(inner.FuncCall.args?.[0] ?? inner);
  }
  if (!('A_Const' in inner)) return { kind: 'computed', text: '' };
  const text = inner.A_Const.sval?.sval;
  return text === undefined ? { kind: 'other literal', text: '' } : { kind: 'text', text };
}

function mayReadTables(name: string, given: readonly Argument[], texts: readonly string[], scope: ScopeNames): boolean {
  // ts_rewrite(query, target, substitute) runs nothing.
  if (name === 'ts_rewrite' && given.length === 3) return false;
  if (name.startsWith('database_') || name.startsWith('cursor_')) return true;
  if (given.some(({ kind }) => kind === 'computed' || kind === 'parameter')) return true;
  if (name.startsWith('schema_')) return texts.some((text) => scope.holds(text));
  return texts.some((text) => mentionInText(text, scope.find) !== null);
}
