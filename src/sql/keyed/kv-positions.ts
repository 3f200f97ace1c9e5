// ORDER BY 1 and GROUP BY 2 name output columns by a literal: what is planned for one number does not hold for another.
import type { ParsedStatement } from '../meaning/parse.js';
import { pushChildren } from '../meaning/tree-walk.js';

const isNumber = (item: unknown): boolean => {
  const node = (item as { SortBy?: { node?: object } }).SortBy?.node ?? (item as object);
  return 'A_Const' in node;
};

/** Whether a sort or group item anywhere in the statements is a bare constant. */
export function dependsOnPositions(statements: readonly ParsedStatement[]): boolean {
  const stack: object[] = statements.map(({ node }) => node);
  while (stack.length > 0) {
    const item = stack.pop()!;
    if (!Array.isArray(item)) {
      const { sortClause, groupClause, distinctClause } = item as Record<string, unknown>;
      for (const clause of [sortClause, groupClause, distinctClause]) {
        if (Array.isArray(clause) && clause.some(isNumber)) return true;
      }
    }
    pushChildren(item, stack);
  }
  return false;
}
