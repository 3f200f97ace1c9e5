// What a worker calls a form towards others: the same for forms that were learnt alike, by whatever texts of clients. In it are the
// texts that are run, the meaning of the values, and how rows look.
import { createHash } from 'node:crypto';
import type { KvTable } from '../../cluster/kv-table.js';
import { commonText } from '../../sql/batch/common-text.js';
import type { FormText, MergedForm } from './merged-form.js';

const NAMES = new WeakMap<MergedForm, string>();

export function nameOfForm(form: MergedForm, table: KvTable): string {
  let name = NAMES.get(form);
  if (name === undefined) {
    name = makeName(form, table);
    NAMES.set(form, name);
  }
  return name;
}

function makeName({ plan, one, many, types, optimistic, description }: MergedForm, { schema, name }: KvTable): string {
  const { refs, keyValues, writes, hidden, identifies, tag } = plan;
  const run = [refs.length, keyValues, writes, hidden, identifies, tag, types, optimistic === null];
  const rows = [commonText(one.shape), commonText(many.shape), description?.toString('latin1') ?? '-'];
  const parts = [schema, name, textOf(one), textOf(many), ...run, ...rows];
  return createHash('sha256').update(parts.join('\0')).digest('base64');
}

const textOf = ({ source }: FormText): string => commonText(source.text);
