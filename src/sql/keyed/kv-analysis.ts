// What a text does to key-value tables: nothing (null), something that is refused, or a plan. What is planned is proven:
// each statement is of a form known here, and the text for a shard is parsed again and compared with what was meant (D10).
import type { ExplainStmt, FuncCall, Node } from 'libpg-query';
import { isRefusal, type Refusal, refuse } from '../../base/refusals.js';
import { actingCall } from '../meaning/acting-calls.js';
import { emptySurvey, survey } from '../meaning/ast-survey.js';
import { type FindTable, isKvFunction, type References, referencesIn } from '../meaning/kv-references.js';
import { namePath } from '../meaning/name-path.js';
import type { ParsedStatement } from '../meaning/parse.js';
import type { KvPlan } from '../plan/kv-plan.js';
import { isFaithful } from '../rewrite/kv-proof.js';
import { findClauses } from '../text/clauses.js';
import { renderText } from '../text/kv-text.js';
import {
  spanOf,
  spliceTokens,
  type TextToken,
  type TokenSpan,
  tokensOf,
  withoutParentheses,
} from '../text/text-tokens.js';
import { keyArgumentsOf, planCalls } from './kv-calls.js';
import { planInsert } from './kv-insert.js';
import { planDelete, planSelect, planUpdate } from './kv-rows.js';
import type { PlannedStatement, StatementSource } from './kv-statement.js';
import { refusalOfStatement } from './statement-refusals.js';
import type { ScopeNames } from './table-names.js';

export { isKvFunction } from '../meaning/kv-references.js';
export { originalPosition, renderText } from '../text/kv-text.js';

const OLDEST_SUPPORTED_MAJOR = 15;

export interface KvInput {
  /** What was parsed, with standard_conforming_strings on. */
  readonly text: string;
  readonly statements: readonly ParsedStatement[];
  /** Shape.literals of `text`. */
  readonly literals: readonly number[];
  readonly scope: ScopeNames;
  /** Functions that older servers do not have are not trusted. */
  readonly oldestServerMajor?: number;
}

/** Null: no key-value table is touched. The plan holds for every text of the shape; see unnamed-tables.ts for what a text does beside. */
export function planKv(input: KvInput): KvPlan | Refusal | null {
  const { find } = input.scope;
  const all = input.statements.map(({ node }) =>
    keepsTables(node) ? NO_REFERENCES : referencesIn(node, find, input.scope.searchesPgkv),
  );
  if (all.some(({ setsUp }) => setsUp)) return refuse('setup_call');
  if (all.every(({ table }) => table === null)) return null;
  const tokens = tokensOf(input.text, input.literals);
  const [only] = input.statements;
  if (only !== undefined && input.statements.length === 1) return planOne(input, tokens, only, all[0]!);
  return planSeveral(input, tokens, all);
}

/** ACCESS SHARE of a LOCK: only DDL waits for it, which no shard gets from clients. pg_dump takes it of all it looks at. */
const ACCESS_SHARE = 1;
const NO_REFERENCES: References = { relations: [], otherRelations: 1, calls: [], table: null, setsUp: false };
const keepsTables = (node: Node): boolean => 'LockStmt' in node && node.LockStmt.mode === ACCESS_SHARE;

/** Whether the text is one EXPLAIN (ROUTE) of whatever statement, refused ones included. */
export function explainsRoute(statements: readonly ParsedStatement[]): boolean {
  const [only, ...more] = statements;
  return (
    only !== undefined && more.length === 0 && 'ExplainStmt' in only.node && hasOption(only.node.ExplainStmt, 'route')
  );
}

function planOne(
  input: KvInput,
  tokens: readonly TextToken[],
  statement: ParsedStatement,
  references: References,
): KvPlan | Refusal {
  const span = spanOf(tokens, statement);
  const planned = planStatement(input, tokens, statement.node, span, references);
  if (isRefusal(planned)) return planned;
  const { edits, undo, ...plan } = planned;
  if (!isFaithful([statement], editedText(input, tokens, edits), [undo])) return refuse('not_understood');
  const explainRoute = explainsRoute([statement]);
  const shown = explainRoute ? { start: explainedAt(tokens, span), end: span.end } : { start: 0, end: tokens.length };
  return { kind: 'kv', ...plan, text: spliceTokens(input.text, tokens, shown, edits), explainRoute };
}

/** Several statements in one simple query: one implicit transaction, and so one shard. */
function planSeveral(input: KvInput, tokens: readonly TextToken[], all: readonly References[]): KvPlan | Refusal {
  const planned: (PlannedStatement | null)[] = [];
  for (const [index, statement] of input.statements.entries()) {
    const references = all[index]!;
    if (references.table === null) {
      if (!isBystander(statement.node, references, input.scope)) return refuse('mixed_statements');
      planned.push(null);
      continue;
    }
    const span = spanOf(tokens, statement);
    if (explainsRoute([statement])) return refuse('explain_route_beside');
    const plan = planStatement(input, tokens, statement.node, span, references);
    if (isRefusal(plan)) return plan;
    if (plan.keys === null) return refuse('keyless_statements');
    planned.push(plan);
  }
  const plans = planned.filter((plan) => plan !== null);
  const edits = plans.flatMap((plan) => plan.edits);
  const rewritten = editedText(input, tokens, edits);
  const undos = planned.map((plan) => plan?.undo ?? null);
  if (!isFaithful(input.statements, rewritten, undos)) return refuse('not_understood');
  let keysBefore = 0;
  const slots = plans.flatMap((plan) => {
    const own = plan.slots.map(({ value, keyIndex }) => ({ value, keyIndex: keyIndex + keysBefore }));
    keysBefore += plan.keys?.length ?? 0;
    return own;
  });
  return {
    kind: 'kv',
    table: plans[0]!.table,
    verb: plans[0]!.verb,
    writes: plans.some(({ writes }) => writes),
    keys: plans.flatMap(({ keys }) => keys ?? []),
    slots,
    text: spliceTokens(input.text, tokens, { start: 0, end: tokens.length }, edits),
    scatter: refuse('several_shards_text'),
    spread: null,
    explainRoute: false,
  };
}

const BYSTANDERS: ReadonlySet<string> = new Set(['TransactionStmt', 'VariableSetStmt', 'VariableShowStmt']);

/** Runs on the shard of the others' keys as it would anywhere. */
function isBystander(node: Node, references: References, { find }: ScopeNames): boolean {
  if ('SelectStmt' in node) {
    if (references.otherRelations > 0 || actingCall(node, { isOwn: isOwn(find), settings: true }) !== null)
      return false;
    // Names of what is in the database are the home shard's.
    const found = emptySurvey();
    survey(node, OLDEST_SUPPORTED_MAJOR, found);
    return !found.readsCatalogue;
  }
  // Two-phase commit is not the client's where pgkv chooses the shard.
  if ('TransactionStmt' in node && /PREPARE/.test(node.TransactionStmt.kind ?? '')) return false;
  return BYSTANDERS.has(Object.keys(node)[0] ?? '');
}

/** Functions of the extension that compute something from their arguments. */
const PURE: ReadonlySet<string> = new Set(['slot', 'xxh32', 'version', 'first_version']);

/** Functions of key-value tables have rules of their own. */
const isOwn =
  (find: FindTable) =>
  (path: readonly string[]): boolean =>
    isKvFunction(path, find) || (path.length === 2 && path[0] === 'pgkv' && PURE.has(path[1]!));

function planStatement(
  input: KvInput,
  tokens: readonly TextToken[],
  node: Node,
  span: TokenSpan,
  references: References,
): PlannedStatement | Refusal {
  if ('ExplainStmt' in node) return planExplain(input, tokens, node.ExplainStmt, span, references);
  const planned = planForm(input, tokens, node, span, references);
  if (isRefusal(planned)) return planned;
  const acting = actingCall(node, { isOwn: isOwn(input.scope.find), settings: false });
  return acting === null ? planned : refuse(acting.rule, { what: acting.what });
}

function planForm(
  input: KvInput,
  tokens: readonly TextToken[],
  node: Node,
  span: TokenSpan,
  references: References,
): PlannedStatement | Refusal {
  const source: StatementSource = {
    text: input.text,
    tokens,
    literals: input.literals,
    clauses: findClauses(tokens, withoutParentheses(tokens, span)),
    keyArguments: keyArgumentsIn(references),
    oldestServerMajor: input.oldestServerMajor ?? OLDEST_SUPPORTED_MAJOR,
    isAlone: input.statements.length === 1,
  };
  const { relations, otherRelations, calls } = references;
  if ('SelectStmt' in node && relations.length === 0) {
    if (otherRelations > 0) return refuse('call_beside_table');
    return planCalls(source, node.SelectStmt, calls);
  }
  const { table } = references;
  if (table === null) return refuse('not_understood');
  if (!isOnTable(node, input.scope.find)) return refuse('other_table');
  let planned: PlannedStatement | Refusal;
  if ('SelectStmt' in node) planned = planSelect(source, node.SelectStmt, table);
  else if ('InsertStmt' in node) planned = planInsert(source, node.InsertStmt, table);
  else if ('UpdateStmt' in node) planned = planUpdate(source, node.UpdateStmt, table);
  else if ('DeleteStmt' in node) planned = planDelete(source, node.DeleteStmt, table);
  else return refusalOfStatement(Object.keys(node)[0] ?? '');
  if (isRefusal(planned)) return planned;
  if (calls.length > 0) return refuse('call_beside_table');
  return relations.length === 1 && otherRelations === 0 ? planned : refuse('other_table');
}

/** Whether INSERT, UPDATE or DELETE changes a key-value table, not another one by values of such. */
function isOnTable(node: Node, find: FindTable): boolean {
  const relation =
    'InsertStmt' in node
      ? node.InsertStmt.relation
      : 'UpdateStmt' in node
        ? node.UpdateStmt.relation
        : 'DeleteStmt' in node
          ? node.DeleteStmt.relation
          : undefined;
  return relation === undefined || find(relation.schemaname ?? null, relation.relname ?? '') !== null;
}

function keyArgumentsIn({ calls }: References): StatementSource['keyArguments'] {
  const operations = new Map<FuncCall, string>(calls.map(({ call, operation }) => [call, operation]));
  return (call) => {
    const operation = operations.get(call);
    return operation === undefined ? null : keyArgumentsOf(call, operation);
  };
}

function planExplain(
  input: KvInput,
  tokens: readonly TextToken[],
  statement: ExplainStmt,
  span: TokenSpan,
  references: References,
): PlannedStatement | Refusal {
  const inner = statement.query;
  if (inner === undefined) return refuse('not_understood');
  const planned = planStatement(input, tokens, inner, { start: explainedAt(tokens, span), end: span.end }, references);
  if (isRefusal(planned)) return planned;
  const { undo } = planned;
  const inExplain = (node: Node): boolean =>
    'ExplainStmt' in node && node.ExplainStmt.query !== undefined && (undo === null || undo(node.ExplainStmt.query));
  // What is only shown is planned as if it were run.
  if (hasOption(statement, 'route')) return { ...planned, undo: inExplain };
  const writes = planned.writes && hasOption(statement, 'analyze');
  return { ...planned, writes, undo: inExplain, scatter: refuse('several_shards_explain'), spread: null };
}

/** An option that is there and not switched off. */
function hasOption({ options }: ExplainStmt, name: string): boolean {
  return (options ?? []).some((option) => {
    if (!('DefElem' in option) || option.DefElem.defname !== name) return false;
    const { arg } = option.DefElem;
    if (arg === undefined) return true;
    if ('Integer' in arg) return (arg.Integer.ival ?? 0) !== 0;
    return !['off', 'false'].includes((namePath([arg])[0] ?? '').toLowerCase());
  });
}

/** Behind EXPLAIN and its options. */
function explainedAt(tokens: readonly TextToken[], span: TokenSpan): number {
  const isOption = (i: number): boolean => ['analyze', 'analyse', 'verbose'].includes(tokens[i]?.folded ?? '');
  let at = span.start + 1;
  if (tokens[at]?.folded === '(') {
    // Options, or a SELECT in parentheses, which is not understood.
    while (at < span.end && tokens[at]?.folded !== ')') at++;
    return at + 1;
  }
  while (isOption(at)) at++;
  return at;
}

const editedText = (
  { text, literals }: KvInput,
  tokens: readonly TextToken[],
  edits: PlannedStatement['edits'],
): string => renderText(spliceTokens(text, tokens, { start: 0, end: tokens.length }, edits), text, literals);
