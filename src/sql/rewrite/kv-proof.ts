// The proof that a rewritten text says what was meant: it is parsed, what pgkv put in is taken out of its tree again, and
// what is left must be the tree of the client's text. Texts are changed at places found among tokens; a wrong place
// cannot pass here.
import type { Node } from 'libpg-query';
import { type ParsedStatement, parse } from '../meaning/parse.js';

/** Takes out of a statement's tree what was put in; false where it is not there. */
export type Undo = (statement: Node) => boolean;

/** @param undos of the statements, by their index; null for one that was not changed */
export function isFaithful(
  original: readonly ParsedStatement[],
  rewritten: string,
  undos: readonly (Undo | null)[],
): boolean {
  const parsed = parse(rewritten);
  if (parsed.kind === 'failed' || parsed.statements.length !== original.length) return false;
  return parsed.statements.every(({ node }, index) => {
    const undo = undos[index] ?? null;
    if (undo !== null && !undo(node)) return false;
    return isSameTree(node, original[index]!.node);
  });
}

/** Fields of a tree that say where something stands in the text. */
export const PLACES: ReadonlySet<string> = new Set([
  'location',
  'rexpr_list_start',
  'rexpr_list_end',
  'list_start',
  'list_end',
  'name_location',
]);

/** Whether a node is what the expression `sql` parses to. */
export function isExpression(node: Node | undefined, sql: string): boolean {
  let expression = EXPRESSIONS.get(sql);
  if (expression === undefined) {
    const parsed = expressionOf(sql);
    if (parsed === null) return false;
    expression = parsed;
    if (EXPRESSIONS.size >= EXPRESSIONS_MAX) EXPRESSIONS.clear();
    EXPRESSIONS.set(sql, expression);
  }
  return node !== undefined && isSameTree(node, expression);
}

/** Trees of what pgkv puts in, which is the same for thousands of statements. They are looked at only. */
const EXPRESSIONS = new Map<string, Node>();
const EXPRESSIONS_MAX = 64;

function expressionOf(sql: string): Node | null {
  const parsed = parse(`SELECT ${sql}`);
  if (parsed.kind === 'failed') return null;
  const statement = parsed.statements[0]?.node;
  const target =
    statement !== undefined && 'SelectStmt' in statement ? statement.SelectStmt.targetList?.[0] : undefined;
  return target !== undefined && 'ResTarget' in target ? (target.ResTarget.val ?? null) : null;
}

/** Equal but for the places in the text. Trees can be some thousand nodes deep, so it keeps its own stack. */
export function isSameTree(left: unknown, right: unknown): boolean {
  const stack: unknown[] = [left, right];
  while (stack.length > 0) {
    const other = stack.pop();
    const one = stack.pop();
    if (typeof one !== 'object' || one === null || typeof other !== 'object' || other === null) {
      if (one !== other) return false;
    } else if (Array.isArray(one)) {
      if (!Array.isArray(other) || one.length !== other.length) return false;
      for (let index = 0; index < one.length; index++) stack.push(one[index], other[index]);
    } else if (Array.isArray(other) || !pushFields(one, other, stack)) return false;
  }
  return true;
}

/** Of two nodes, in pairs; false where they are not of the same names. */
function pushFields(one: object, other: object, stack: unknown[]): boolean {
  let names = 0;
  for (const name in one) {
    if (PLACES.has(name)) continue;
    if (!Object.hasOwn(other, name)) return false;
    names++;
    stack.push(one[name as never], other[name as never]);
  }
  for (const name in other) if (!PLACES.has(name)) names--;
  return names === 0;
}
