// A text to its plan, as the template cache does it, and plans in a form that test tables can hold.
import type { Refusal } from '../../../src/base/refusals.js';
import type { KvTable } from '../../../src/cluster/kv-table.js';
import { planKv } from '../../../src/sql/keyed/kv-analysis.js';
import { loadParser, parse } from '../../../src/sql/meaning/parse.js';
import type { KeyRef, KvPlan, ValueRef } from '../../../src/sql/plan/kv-plan.js';
import { LITERAL_STRIDE, lexShape } from '../../../src/sql/text/shape-lexer.js';

await loadParser();

const TABLES: readonly KvTable[] = [
  { schema: 'public', name: 'kv', valueType: 'jsonb' },
  { schema: 'public', name: 'Odd "name"', valueType: 'bytea' },
  { schema: 'other', name: 'blobs', valueType: 'bytea' },
];

/** search_path is public. */
export const find = (schema: string | null, name: string): KvTable | null =>
  TABLES.find((table) => table.name === name && table.schema === (schema ?? 'public')) ?? null;

/** What names mean in the texts of these tests. */
export const scope = {
  find,
  holds: (schema: string): boolean => TABLES.some((table) => table.schema === schema),
  searchesPgkv: false,
};

export function literalsOf(text: string, standardConformingStrings = true): readonly number[] {
  const shape = lexShape(text, standardConformingStrings);
  if (shape === null) throw new Error(`no shape: ${text}`);
  return shape.literals;
}

export function planOf(text: string): KvPlan | Refusal | null {
  const parsed = parse(text);
  if (parsed.kind === 'failed') throw new Error(`${parsed.message}: ${text}`);
  return planKv({ text, statements: parsed.statements, literals: literalsOf(text), scope });
}

export function planned(text: string): KvPlan {
  const plan = planOf(text);
  if (plan?.kind !== 'kv') throw new Error(`no plan but ${JSON.stringify(plan)}: ${text}`);
  return plan;
}

/** `'a' 'b', $1 ANY $2`; `-` where the statement is not by key, empty where no key can match. */
export function shownKeys(plan: KvPlan, text: string): string {
  const literals = literalsOf(text);
  const shown = (value: ValueRef): string => {
    if (value.kind === 'null') return 'NULL';
    if (value.kind === 'parameter') return `$${value.number}`;
    return text.slice(literals[value.index * LITERAL_STRIDE], literals[value.index * LITERAL_STRIDE + 1]);
  };
  const JOINTS: Record<KeyRef['kind'], string> = { one: ' ', list: ' ANY ', lists: ' WITH ' };
  if (plan.keys === null) return '-';
  return plan.keys.map(({ kind, tenant, key }) => `${shown(tenant)}${JOINTS[kind]}${shown(key)}`).join(', ');
}
