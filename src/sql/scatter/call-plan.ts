// SELECT from one plural function of a key-value table (`kv_get_many` …), over several shards: each runs it for its own members, and
// rows come in the order of the members, or its reverse. In a shard's text the function stands in a subquery that gives each row the
// number that its member has among all.
import type { Node, SelectStmt } from 'libpg-query';
import { isRefusal, type Refusal } from '../../base/refusals.js';
import { namePath } from '../meaning/name-path.js';
import type { ScatterPlan } from '../plan/kv-plan.js';
import { quoteName } from '../text/identifiers.js';
import type { TextParts } from '../text/text-parts.js';
import { joinParts } from '../text/text-tokens.js';
import { combinePlan } from './combine-plan.js';
import { instantsIn } from './one-instant.js';
import { expressionFacts, refuse } from './scatter-expressions.js';
import { type ScatterSource, shardRows } from './scatter-source.js';
import { limitsOf, sortName } from './sorted-plan.js';

/** The member's number among the function's columns. */
const NUMBER = 'ord';
const TEXTS: ReadonlySet<string> = new Set(['tenant_id', 'key']);
const HINT = 'Read the rows as they come, and do the rest in the application.';

export type CallSource = ScatterSource & Required<Pick<ScatterSource, 'call'>>;

export interface SpreadCall {
  /** What a shard runs; its last column is the member's number as text. */
  readonly text: TextParts;
  readonly descending: boolean;
}

/** A function that reads. */
export function planCallScatter(source: CallSource): ScatterPlan | Refusal {
  const form = refusalOfForm(source);
  if (form !== null) return form;
  const { select } = source;
  const facts = expressionFacts(listed(source), source);
  if (facts.hasAggregate || select.havingClause !== undefined || select.groupClause !== undefined) {
    const isOfText = facts.columns.some(({ fields }) => TEXTS.has(namePath(fields ?? []).at(-1) ?? ''));
    if (isOfText || select.groupClause !== undefined || select.sortClause !== undefined)
      return refuse('GROUP BY or ORDER BY beside an aggregate, or an aggregate of keys, over a plural function', HINT);
    return combinePlan(source);
  }
  const descending = orderOf(select, source.alias);
  if (typeof descending === 'object') return descending;
  const limits = limitsOf(source);
  if (isRefusal(limits)) return limits;
  const order = `ORDER BY ${sortName(0)}${descending ? ' DESC' : ''}`;
  return {
    kind: 'sorted',
    shardText: joinParts(
      'SELECT',
      withHidden(source, `${numberOf(source)} AS ${sortName(0)}`),
      shardRows(source),
      order,
      limits.shardText,
    ),
    sortKeys: [{ descending, nullsFirst: descending, needsByteOrder: false }],
    // Numbers are in any encoding.
    recoded: null,
    limit: limits.limit,
    offset: limits.offset,
  };
}

/** A function that writes: of each shard all rows are kept until all have come. */
export function planCallSpread(source: CallSource): SpreadCall | Refusal {
  const form = refusalOfForm(source);
  if (form !== null) return form;
  const { select } = source;
  const facts = expressionFacts(listed(source), source);
  if (facts.hasAggregate || select.havingClause !== undefined || select.groupClause !== undefined)
    return refuse('An aggregate over a plural function that writes', HINT);
  if (select.limitCount !== undefined || select.limitOffset !== undefined)
    return refuse('LIMIT or OFFSET of a plural function that writes', HINT);
  const descending = orderOf(select, source.alias);
  if (typeof descending === 'object') return descending;
  const hidden = `${numberOf(source)}::pg_catalog.text AS ${sortName(0)}`;
  return { text: joinParts('SELECT', withHidden(source, hidden), shardRows(source)), descending };
}

const numberOf = ({ alias }: CallSource): string => `${quoteName(alias)}.${NUMBER}`;

const withHidden = ({ call: { list } }: CallSource, hidden: string): TextParts =>
  list.length === 0 ? [hidden] : joinParts(list, ',', hidden);

/** Where the call itself is all that is selected it is none of them. */
const listed = ({ clauses, select }: CallSource): readonly Node[] =>
  clauses.from === null ? [] : (select.targetList ?? []);

function refusalOfForm(source: CallSource): Refusal | null {
  const { select, clauses } = source;
  if (clauses.verb !== 'select' || (clauses.from === null && select.sortClause !== undefined))
    return refuse('A plural function in this form', 'Write SELECT … FROM the function.');
  if ((select.distinctClause ?? []).length > 0) return refuse('DISTINCT over a plural function', HINT);
  if ((select.windowClause ?? []).length > 0) return refuse('WINDOW over a plural function', HINT);
  if ((select.lockingClause ?? []).length > 0) return refuse('FOR UPDATE of a function', 'Leave it out.');
  const all = [
    listed(source),
    select.whereClause ?? [],
    select.groupClause ?? [],
    select.havingClause ?? [],
    select.sortClause ?? [],
    select.limitCount ?? [],
    select.limitOffset ?? [],
  ].flat();
  if (instantsIn(select).length > 0)
    return refuse('now() or the like beside a plural function', 'Ask for it by itself.');
  return expressionFacts(all, source).refusal;
}

/** Whether the last member comes first. */
function orderOf({ sortClause, targetList }: SelectStmt, alias: string): boolean | Refusal {
  const [item, ...more] = sortClause ?? [];
  if (item === undefined) return false;
  const { node, sortby_dir: direction, sortby_nulls: nulls } = 'SortBy' in item ? item.SortBy : {};
  const isNumber = more.length === 0 && node !== undefined && isNumberColumn(node, alias);
  const isOther = (targetList ?? []).some(
    (target) =>
      'ResTarget' in target &&
      target.ResTarget.name === NUMBER &&
      !(target.ResTarget.val !== undefined && isNumberColumn(target.ResTarget.val, alias)),
  );
  const isPlain = direction !== 'SORTBY_USING' && nulls === 'SORTBY_NULLS_DEFAULT';
  if (!isNumber || isOther || !isPlain) return refuse(`ORDER BY anything but ${NUMBER} of a plural function`, HINT);
  return direction === 'SORTBY_DESC';
}

function isNumberColumn(node: Node, alias: string): boolean {
  if (!('ColumnRef' in node)) return false;
  const path = namePath(node.ColumnRef.fields ?? []);
  return path.at(-1) === NUMBER && (path.length === 1 || (path.length === 2 && path[0] === alias));
}
