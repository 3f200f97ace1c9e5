// A SELECT over one key-value table as all parts of the planning for several shards see it, and what every plan takes
// from it: its rows without those that have expired.
import type { Node, SelectStmt } from 'libpg-query';
import { assert } from '../../base/assert.js';
import { expiryFilter, filterEdits } from '../rewrite/kv-rewrites.js';
import type { Clauses } from '../text/clauses.js';
import type { TextParts } from '../text/text-parts.js';
import { spliceTokens, type TextToken } from '../text/text-tokens.js';
import { STATEMENT_INSTANT } from './instant-parameters.js';
import type { Scope } from './scatter-expressions.js';

export interface ScatterSource extends Scope {
  /** What was parsed, with standard_conforming_strings on; its literals have the client's numbers. */
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly clauses: Clauses;
  readonly select: SelectStmt;
  /** The time it asks for stands in it as pseudo-parameters (one-instant.ts). */
  readonly hasInstant?: true;
  /** Its rows are those of a plural function: its select list, and FROM and WHERE, for a shard. Not there: they are the table's. */
  readonly call?: { readonly list: TextParts; readonly rows: TextParts };
}

/**
 * FROM and WHERE for a shard: the statement's own, rows that have expired left out (D9), by the shard's clock unless all shards
 * are told the time anyway.
 */
export function shardRows({ text, tokens, clauses, select, hasInstant, call }: ScatterSource): TextParts {
  const { from, where } = clauses;
  if (call !== undefined) return call.rows;
  const [relation] = select.fromClause ?? [];
  assert(from !== null && relation !== undefined && 'RangeVar' in relation, 'FROM is one table');
  const edits = filterEdits(
    clauses,
    from.body.end,
    expiryFilter(relation.RangeVar, hasInstant ? STATEMENT_INSTANT : undefined),
  );
  return spliceTokens(text, tokens, { start: from.start, end: (where ?? from).body.end }, edits);
}

/** The nodes of ORDER BY's items, with their places. */
export function sortItems({ select }: ScatterSource): readonly Extract<Node, { SortBy: unknown }>['SortBy'][] {
  return (select.sortClause ?? []).flatMap((item) => ('SortBy' in item ? [item.SortBy] : []));
}
