// The answer to EXPLAIN (ROUTE): which shard, node and lane a statement would take, and why.

import { isRefusal, type Refusal } from '../../base/refusals.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import { homeShard } from '../../cluster/cluster-view.js';
import { batchStatement, singleStatement } from '../../sql/batch/batch-statement.js';
import type { KvStatement, KvStatements } from '../unit/kv-statements.js';
import type { Unit } from '../unit/unit.js';

const SLOTS_SHOWN = 20;

/** Lines of the plan of the statement that a Query or Bind runs. @param merges whether statements are merged at all */
export function explainRoute({ template, statement, view }: Unit, statements: KvStatements, merges: boolean): string[] {
  const { kv } = template;
  if (kv?.kind === 'refused') return refusedLines(kv);
  if (statement === null) return homeLines(view);
  const route = statements.route(statement, view);
  const { plan } = statement;
  const about = [`Table: ${plan.table.schema}.${plan.table.name}`];
  const template_ = `Template: ${plan.text.map((part) => (typeof part === 'string' ? part : '?')).join('')}`;
  switch (route.kind) {
    case 'refused':
      return refusedLines(route);
    case 'keyed':
      return [
        'Route: keyed',
        ...about,
        ...slotLines(route.slots),
        ...nodeLines([route.shard]),
        `Lane: ${merges && route.slots.length > 0 && isMerged(statement) ? 'merged' : 'leased'}`,
        template_,
        `Why: ${keyedWhy(route.slots.length, plan.keys === null)}`,
      ];
    case 'spread':
      return [
        'Route: spread',
        ...about,
        ...slotLines(route.slots),
        ...nodeLines(route.shards),
        'Lane: leased, two-phase commit where more than one shard has written',
        template_,
        `Why: ${route.slots.length > 0 ? 'its keys are on several shards' : 'it does not name tenant_id and key'}`,
      ];
    case 'multi-keyed':
    case 'scattered': {
      const { scatter } = plan;
      const how = isRefusal(scatter)
        ? 'refused'
        : scatter.kind === 'combine'
          ? 'partial results of the shards are combined on the home shard'
          : scatter.sortKeys.length > 0
            ? `rows are merged by ${scatter.sortKeys.length} sort key${scatter.sortKeys.length > 1 ? 's' : ''}`
            : 'rows come as the shards send them';
      return [
        `Route: ${route.kind}`,
        ...about,
        ...(route.kind === 'multi-keyed' ? slotLines(route.slots) : []),
        ...nodeLines(route.shards),
        'Lane: scattered',
        template_,
        `Merge: ${how}`,
        `Why: ${route.kind === 'multi-keyed' ? 'its keys are on several shards' : 'it does not name tenant_id and key'}`,
      ];
    }
  }
}

const homeLines = (view: ClusterView): string[] => [
  'Route: home',
  ...nodeLines([homeShard(view)]),
  'Lane: home',
  'Why: the statement is on no key-value table',
];

/** Whether the statement is of a form that is run for many clients at once; the server's types may still be against it. */
function isMerged({ plan, text, literals, source }: KvStatement): boolean {
  const single = singleStatement(plan, text, literals, source?.parameterTypes ?? [], source === null);
  return (
    single !== null &&
    batchStatement(
      plan,
      single,
      single.refs.map(() => 'pg_catalog.text'),
    ) !== null
  );
}

function keyedWhy(keys: number, isRange: boolean): string {
  if (isRange) return 'there is one shard';
  if (keys === 0) return 'a key is NULL, which no row matches';
  return keys === 1 ? 'it names one tenant_id and key' : `its ${keys} keys are on one shard`;
}

const refusedLines = ({ reason, code, hint }: Refusal): string[] => [
  'Route: refused',
  `Why: ${reason}`,
  `Rule: ${code}`,
  `Hint: ${hint}`,
];

function slotLines(slots: readonly number[]): string[] {
  if (slots.length === 0) return [];
  const shown = slots.slice(0, SLOTS_SHOWN).join(', ');
  const more = slots.length > SLOTS_SHOWN ? ` and ${slots.length - SLOTS_SHOWN} more` : '';
  return [`Slot${slots.length > 1 ? 's' : ''}: ${shown}${more}`];
}

const nodeLines = (shards: readonly ShardView[]): string[] =>
  shards.map(({ name, primary }) => `Shard: ${name}, primary ${primary.host}:${primary.port}`);
