// How a SELECT over one key-value table, without a key, is put together from what every shard answers: it decides whether
// that can be proven right and which way it goes (sorted-plan.ts, combine-plan.ts), and refuses the rest (D10). Pure.

import { isRefusal, type Refusal } from '../../base/refusals.js';
import type { ScatterPlan } from '../plan/kv-plan.js';
import type { TextToken } from '../text/text-tokens.js';
import { combinePlan } from './combine-plan.js';
import { withOneInstant } from './one-instant.js';
import { expressionFacts, refuse } from './scatter-expressions.js';
import type { ScatterSource } from './scatter-source.js';
import { sortedPlan } from './sorted-plan.js';

/**
 * The plan holds for every text of the shape, except where ORDER BY or GROUP BY name columns by number
 * (kv-positions.ts).
 * @param source whose FROM is one reference to the table `source.table`
 */
export function planScatter(source: ScatterSource): ScatterPlan | Refusal {
  const { select } = source;
  const form = refusalOfForm(source);
  if (form !== null) return form;
  const answered = [select.targetList ?? [], select.sortClause ?? [], select.havingClause ?? []].flat();
  const limits = [select.limitCount ?? [], select.limitOffset ?? []].flat();
  const facts = expressionFacts(answered, source);
  const others = expressionFacts([select.whereClause ?? [], select.groupClause ?? [], limits].flat(), source);
  const refusal = facts.refusal ?? others.refusal;
  if (refusal !== null) return refusal;
  const isGrouped = facts.hasAggregate || select.havingClause !== undefined || (select.groupClause ?? []).length > 0;
  const timed = withOneInstant(source);
  const planned = timed ?? source;
  const plan = isGrouped ? combinePlan(planned) : sortedPlan(planned, facts.isVolatile);
  return timed === null || isRefusal(plan) ? plan : { ...plan, hasInstant: true };
}

/** MaxTupleAttributeNumber: no select list has more entries, those that ORDER BY adds included. */
const LIST_MAX = 1664;

/** By the tokens of a text, which may hold very many statements. */
const UESCAPES = new WeakMap<readonly TextToken[], boolean>();

function hasUescape(tokens: readonly TextToken[]): boolean {
  let found = UESCAPES.get(tokens);
  if (found === undefined) {
    found = tokens.some(({ kind, folded }) => kind === 'word' && folded === 'uescape');
    UESCAPES.set(tokens, found);
  }
  return found;
}

function refusalOfForm({ select, clauses, tokens }: ScatterSource): Refusal | null {
  const [from, ...more] = select.fromClause ?? [];
  if (select.withClause !== undefined)
    return refuse('WITH', 'Name one key in the statement, or ask for each part singly.');
  if (clauses.verb !== 'select' || select.op !== 'SETOP_NONE' || clauses.selectList === null) {
    return refuse('UNION, INTERSECT, EXCEPT or VALUES', 'Ask for each part in a statement of its own.');
  }
  if (from === undefined || more.length > 0 || !('RangeVar' in from)) {
    return refuse('A join, or anything but one key-value table in FROM,', 'Ask for the rows of each table singly.');
  }
  if (from.RangeVar.alias?.colnames !== undefined) {
    return refuse('A table with other names for its columns', 'Leave the list of names behind the alias out.');
  }
  if ((select.distinctClause ?? []).length > 0) {
    return refuse('DISTINCT', 'Use GROUP BY on columns of the table, or remove duplicates in the application.');
  }
  if ((select.lockingClause ?? []).length > 0) {
    return refuse('FOR UPDATE or FOR SHARE', 'Name one key (tenant_id = … AND key = …) in the statement that locks.');
  }
  if ((select.windowClause ?? []).length > 0)
    return refuse('WINDOW', 'Name one key, or compute it in the application.');
  // Such a name is three tokens, where a name in the tree is taken for one.
  if (hasUescape(tokens)) {
    return refuse('A name or string with UESCAPE', 'Write its characters as they are.');
  }
  if (Math.max(select.targetList?.length ?? 0, select.sortClause?.length ?? 0) > LIST_MAX) {
    return refuse(`A list of more than ${LIST_MAX} columns`, 'Postgres takes no more.');
  }
  if (select.intoClause !== undefined) return refuse('SELECT INTO', 'Read the rows, then write them.');
  return null;
}
