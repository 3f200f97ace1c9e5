// A SELECT over one key-value table as all parts of the planning for several shards see it, and what every plan takes
// from it: its rows without those that have expired.
import type { Node, SelectStmt } from 'libpg-query';
import type { Clauses } from './clauses.js';
import type { TextParts } from './kv-plan.js';
import { quoteName } from './output-columns.js';
import type { Scope } from './scatter-expressions.js';
import { joinParts, spliceTokens, type TextToken } from './text-tokens.js';

export interface ScatterSource extends Scope {
  /** What was parsed, with standard_conforming_strings on; its literals have the client's numbers. */
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly clauses: Clauses;
  readonly select: SelectStmt;
}

/** D9. */
const expiryFilter = (alias: string): string => {
  const ttl = `${quoteName(alias)}.ttl`;
  return `(${ttl} IS NULL OR ${ttl} > pg_catalog.statement_timestamp())`;
};

/** FROM and WHERE for a shard: the statement's own, rows that have expired left out. */
export function shardRows({ text, tokens, clauses, alias }: ScatterSource): TextParts {
  const from = spliceTokens(text, tokens, clauses.from?.body ?? { start: 0, end: 0 });
  if (clauses.where === null) return joinParts('FROM', from, 'WHERE', expiryFilter(alias));
  const where = spliceTokens(text, tokens, clauses.where.body);
  return joinParts('FROM', from, 'WHERE (', where, ') AND', expiryFilter(alias));
}

/** The nodes of ORDER BY's items, with their places. */
export function sortItems({ select }: ScatterSource): readonly Extract<Node, { SortBy: unknown }>['SortBy'][] {
  return (select.sortClause ?? []).flatMap((item) => ('SortBy' in item ? [item.SortBy] : []));
}
