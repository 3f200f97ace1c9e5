// What a worker calls a form towards others: the same for forms that were learnt alike, by whatever texts of clients. In it is the
// statement of one member, from which that for many follows, the meaning of its values, and how its rows look.
import { createHash } from 'node:crypto';
import type { KvTable } from '../../cluster/kv-table.js';
import type { MergedForm } from './merged-form.js';

const NAMES = new WeakMap<MergedForm, string>();

export function nameOfForm(form: MergedForm, table: KvTable): string {
  let name = NAMES.get(form);
  if (name === undefined) {
    name = makeName(form, table);
    NAMES.set(form, name);
  }
  return name;
}

function makeName({ plan, one, types, oneShape, description }: MergedForm, { schema, name }: KvTable): string {
  const { refs, keyValues, withSlots, writes, hidden, identifies, tag, insertsPlainly, ownForOne } = plan;
  const run = [refs.length, keyValues, withSlots, writes, hidden, identifies, tag, insertsPlainly, ownForOne];
  const parts = [schema, name, one.text, types, ...run, oneShape, description?.toString('latin1') ?? '-'];
  return createHash('sha256').update(parts.join('\0')).digest('base64');
}
