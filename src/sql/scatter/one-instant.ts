// One instant for all shards of a statement: now() and its kin become casts of two pseudo-parameters, which carry one server's
// now() and statement_timestamp(). That is done to the text before it is planned, so that whatever plan is made of it holds for
// them as for any other parameter. clock_timestamp() is left as it is: it differs from row to row anyway.
// https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
import type { FuncCall, Node, SQLValueFunction } from 'libpg-query';
import { namePath } from '../meaning/name-path.js';
import { parse } from '../meaning/parse.js';
import { pushChildren } from '../meaning/tree-walk.js';
import { findClauses } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import { LITERAL_STRIDE, lexShape } from '../text/shape-lexer.js';
import {
  closingIndex,
  spanOf,
  type TextToken,
  type TokenEdit,
  tokenAtByte,
  tokensOf,
  withoutParentheses,
} from '../text/text-tokens.js';
import { FIRST_INSTANT, STATEMENT_INSTANT, TRANSACTION_INSTANT } from './instant-parameters.js';
import { outputColumns } from './output-columns.js';
import type { ScatterSource } from './scatter-source.js';

/** A text without any of these words asks for no time. */
const MAY_ASK = /now|timestamp|current_|local|age/i;
const BY_CALL: ReadonlyMap<string, string> = new Map([
  ['now', TRANSACTION_INSTANT],
  ['transaction_timestamp', TRANSACTION_INSTANT],
  ['statement_timestamp', STATEMENT_INSTANT],
]);
/** What CURRENT_DATE and its kin are of the transaction's instant; a precision stands behind it. */
const BY_OPERATION: ReadonlyMap<string, string> = new Map([
  ['SVFOP_CURRENT_TIMESTAMP', ''],
  ['SVFOP_CURRENT_DATE', '::pg_catalog.date'],
  ['SVFOP_CURRENT_TIME', '::pg_catalog.timetz'],
  ['SVFOP_LOCALTIMESTAMP', '::pg_catalog.timestamp'],
  ['SVFOP_LOCALTIME', '::pg_catalog.time'],
]);

interface Edit {
  /** UTF-16 offsets into the text. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** The same statement with the pseudo-parameters; null where it asks for no time, or they cannot be put in. */
export function withOneInstant(source: ScatterSource): ScatterSource | null {
  const { text, tokens, select, clauses, alias } = source;
  if (!MAY_ASK.test(text)) return null;
  if (tokens.some(({ kind, folded }) => kind === 'parameter' && Number(folded.slice(1)) >= FIRST_INSTANT)) return null;
  const found = instantsIn(select);
  if (found.length === 0) return null;
  const edits = found.flatMap((node) => editOf(node, source) ?? []);
  if (edits.length < found.length) return null;
  const columns = outputColumns(select, clauses, tokens, alias);
  const unnamed = new Set<Node>();
  for (const target of select.targetList ?? []) {
    if (!('ResTarget' in target) || target.ResTarget.name !== undefined) continue;
    if (target.ResTarget.val !== undefined) unnamed.add(target.ResTarget.val);
  }
  for (const { name, expression } of columns) {
    if (expression === null || !unnamed.has(expression.node)) continue;
    if (instantsIn(expression.node).length === 0) continue;
    // A cast of a parameter would give the column another name.
    const end = tokens[expression.span.end - 1]!.end;
    edits.push({ start: end, end, text: ` AS ${quoteName(name)}` });
  }
  return read(applied(text, edits), source);
}

type Instant = { readonly FuncCall: FuncCall } | { readonly SQLValueFunction: SQLValueFunction };

/** Calls and words that ask for the time. */
export function instantsIn(root: object): Instant[] {
  const found: Instant[] = [];
  const stack: object[] = [root];
  while (stack.length > 0) {
    const item = stack.pop()!;
    if ('FuncCall' in item && isInstantCall(item.FuncCall as FuncCall)) found.push(item as Instant);
    if ('SQLValueFunction' in item && operationOf(item.SQLValueFunction as SQLValueFunction) !== undefined) {
      found.push(item as Instant);
    }
    pushChildren(item, stack);
  }
  return found;
}

function isInstantCall({ funcname, args }: FuncCall): boolean {
  const path = namePath(funcname ?? []);
  if (path.length !== 1 && path[0] !== 'pg_catalog') return false;
  const name = path.at(-1) ?? '';
  const count = (args ?? []).length;
  return (BY_CALL.has(name) && count === 0) || (name === 'age' && count === 1);
}

const operationOf = ({ op }: SQLValueFunction): string | undefined => BY_OPERATION.get((op ?? '').replace(/_N$/, ''));

/** The same in any statement, as edits; null where the text is not what the tree says, or has such parameters itself. */
export function instantEdits(root: object, tokens: readonly TextToken[]): TokenEdit[] | null {
  if (tokens.some(({ kind, folded }) => kind === 'parameter' && Number(folded.slice(1)) >= FIRST_INSTANT)) return null;
  const edits: TokenEdit[] = [];
  for (const node of instantsIn(root)) {
    const edit = tokenEdit(node, tokens);
    if (edit === null) return null;
    edits.push(edit);
  }
  return edits;
}

function editOf(node: Instant, { tokens }: ScatterSource): Edit | null {
  const edit = tokenEdit(node, tokens);
  if (edit === null) return null;
  const text = edit.parts.join('');
  if (edit.start < edit.end) return { start: tokens[edit.start]!.start, end: tokens[edit.end - 1]!.end, text };
  const { end } = tokens[edit.start - 1]!;
  return { start: end, end, text };
}

/** Null: the text is not what the tree says. */
function tokenEdit(node: Instant, tokens: readonly TextToken[]): TokenEdit | null {
  const isCall = 'FuncCall' in node;
  const { location } = isCall ? node.FuncCall : node.SQLValueFunction;
  const index = tokenAtByte(tokens, location ?? -1);
  if (tokens[index] === undefined) return null;
  if (!isCall) {
    // A precision in parentheses is the cast's.
    const parts = [TRANSACTION_INSTANT + operationOf(node.SQLValueFunction)!];
    return { start: index, end: index + 1, parts };
  }
  let name = index;
  while (tokens[name + 1]?.folded === '.') name += 2;
  const opening = name + 1;
  if (tokens[opening]?.folded !== '(') return null;
  const called = namePath(node.FuncCall.funcname ?? []).at(-1) ?? '';
  const instant = BY_CALL.get(called);
  // age(t) is age(CURRENT_DATE, t), with the date as whatever t is.
  if (instant === undefined)
    return { start: opening + 1, end: opening + 1, parts: [`${TRANSACTION_INSTANT}::pg_catalog.date, `] };
  const closing = closingIndex(tokens, opening);
  return tokens[closing] === undefined ? null : { start: index, end: closing + 1, parts: [instant] };
}

function applied(text: string, edits: readonly Edit[]): string {
  let result = '';
  let at = 0;
  for (const { start, end, text: put } of [...edits].sort((a, b) => a.start - b.start || a.end - b.end)) {
    result += text.slice(at, start) + put;
    at = end;
  }
  return result + text.slice(at);
}

/** Null where the literals would not be the client's any more. */
function read(text: string, source: ScatterSource): ScatterSource | null {
  const literals = lexShape(text, true)?.literals;
  const parsed = parse(text);
  if (literals === undefined || parsed.kind !== 'parsed' || parsed.statements.length !== 1) return null;
  const before = source.tokens.filter(({ literal }) => literal >= 0).length;
  if (literals.length / LITERAL_STRIDE !== before) return null;
  const [statement] = parsed.statements;
  const { node } = statement!;
  if (!('SelectStmt' in node)) return null;
  const tokens = tokensOf(text, literals);
  const clauses = findClauses(tokens, withoutParentheses(tokens, spanOf(tokens, statement!)));
  return clauses === null ? null : { ...source, text, tokens, clauses, select: node.SelectStmt, hasInstant: true };
}
