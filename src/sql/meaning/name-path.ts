// Names in syntax trees: lists of strings.
import type { Node } from 'libpg-query';

/** The name as written, folded, its schema in front if there was one. */
export const namePath = (nodes: readonly Node[]): string[] =>
  nodes.map((node) => ('String' in node ? (node.String.sval ?? '') : ''));
