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
  const parsed = parse(`SELECT ${sql}`);
  if (parsed.kind === 'failed') return false;
  const statement = parsed.statements[0]?.node;
  const target =
    statement !== undefined && 'SelectStmt' in statement ? statement.SelectStmt.targetList?.[0] : undefined;
  return target !== undefined && 'ResTarget' in target && isSameTree(node, target.ResTarget.val);
}

/** Equal but for the places in the text. Trees can be some thousand nodes deep, so it keeps its own stack. */
function isSameTree(left: unknown, right: unknown): boolean {
  const stack: [unknown, unknown][] = [[left, right]];
  while (stack.length > 0) {
    const [one, other] = stack.pop()!;
    if (typeof one !== 'object' || one === null || typeof other !== 'object' || other === null) {
      if (one !== other) return false;
      continue;
    }
    const names = namesIn(one);
    if (Array.isArray(one) !== Array.isArray(other) || names.length !== namesIn(other).length) return false;
    for (const name of names) {
      if (!Object.hasOwn(other, name)) return false;
      stack.push([one[name as never], other[name as never]]);
    }
  }
  return true;
}

const namesIn = (node: object): string[] => Object.keys(node).filter((name) => !PLACES.has(name));
