// SELECTs that name no table and call functions of key-value tables: they run as they stand on the shard that holds the
// keys named in the calls. Nothing else in them depends on a shard, so that calls may stand anywhere.
import type { FuncCall, Node, SelectStmt } from 'libpg-query';
import { type Refusal, refuse } from '../../base/refusals.js';
import type { KvCall } from '../meaning/kv-references.js';
import type { KeyRef, ValueRef } from '../plan/kv-plan.js';
import { planPluralCall, type SeveralShards } from './kv-members.js';
import { type KeyArguments, parameterTypes } from './kv-parameters.js';
import type { PlannedStatement, StatementSource } from './kv-statement.js';
import { type ListValue, ValueReader } from './kv-values.js';

const READS: ReadonlySet<string> = new Set(['get', 'ttl', 'get_many', 'ttl_many']);

export const isPlural = (operation: string): boolean => operation.endsWith('_many');

/** The two arguments that say which keys: the first ones, or those with their names. */
export function keyArgumentsOf(call: FuncCall, operation: string): KeyArguments {
  const areArrays = isPlural(operation);
  const names = areArrays ? ['tenants', 'keys'] : ['tenant', 'key'];
  const args = call.args ?? [];
  const named = new Map(
    args.flatMap((arg) => ('NamedArgExpr' in arg ? [[arg.NamedArgExpr.name, arg.NamedArgExpr.arg]] : [])),
  );
  const nodes = names.map((name, index): Node | undefined => {
    const positional = args[index];
    return positional !== undefined && !('NamedArgExpr' in positional) ? positional : named.get(name);
  });
  return { nodes, areArrays };
}

export function planCalls(
  source: StatementSource,
  statement: SelectStmt,
  calls: readonly KvCall[],
): PlannedStatement | Refusal {
  if (statement.withClause !== undefined) return refuse('with_clause');
  if (statement.op !== 'SETOP_NONE' || statement.valuesLists !== undefined || statement.intoClause !== undefined) {
    return refuse('call_place');
  }
  const types = parameterTypes({ SelectStmt: statement }, source.keyArguments);
  const values = new ValueReader(source, types);
  const keys: KeyRef[] = [];
  for (const { call, operation } of calls) {
    const named = keysOfCall(call, operation, values);
    if (named === null) return refuse('call_key_computed');
    for (const key of named) keys.push(key);
  }
  const writes = calls.some(({ operation }) => !READS.has(operation));
  return {
    table: calls[0]!.table,
    verb: 'function',
    writes,
    keys,
    slots: [],
    edits: [],
    undo: null,
    ...onSeveralShards(source, statement, calls, values, writes),
  };
}

function onSeveralShards(
  source: StatementSource,
  statement: SelectStmt,
  calls: readonly KvCall[],
  values: ValueReader,
  writes: boolean,
): SeveralShards {
  const [only, ...more] = calls;
  if (only !== undefined && more.length === 0 && isPlural(only.operation)) {
    const { nodes } = keyArgumentsOf(only.call, only.operation);
    const [tenants, keys] = nodes.map((node) => values.list(node));
    if (tenants != null && keys != null) return planPluralCall(source, statement, { ...only, writes, tenants, keys });
  }
  return { scatter: refuse('several_shards_call'), spread: null, members: null };
}

function keysOfCall(call: FuncCall, operation: string, values: ValueReader): readonly KeyRef[] | null {
  if (call.func_variadic === true) return null;
  const { nodes, areArrays } = keyArgumentsOf(call, operation);
  if (!areArrays) {
    const [tenant, key] = nodes.map((node) => values.scalar(node));
    return tenant == null || key == null ? null : pairs([tenant], [key]);
  }
  const [tenants, keys] = nodes.map((node) => values.list(node));
  return tenants == null || keys == null ? null : pairsOfLists(tenants, keys);
}

function pairsOfLists(tenants: ListValue, keys: ListValue): readonly KeyRef[] | null {
  if (tenants.kind === 'array' && keys.kind === 'array') {
    return [{ kind: 'lists', tenant: tenants.array, key: keys.array }];
  }
  if (tenants.kind !== 'elements' || keys.kind !== 'elements') return null;
  return tenants.elements.length === keys.elements.length ? pairs(tenants.elements, keys.elements) : null;
}

/** For a key that is NULL the functions find nothing, whatever the shard. */
const pairs = (tenants: readonly ValueRef[], keys: readonly ValueRef[]): readonly KeyRef[] =>
  tenants
    .map((tenant, index) => ({ kind: 'one', tenant, key: keys[index]! }) as const)
    .filter(({ tenant, key }) => tenant.kind !== 'null' && key.kind !== 'null');
