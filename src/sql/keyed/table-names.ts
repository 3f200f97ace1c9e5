// Whether a name that is no relation's in the tree means a key-value table: in a string as regclass reads it, or an index's.
import type { TableScope } from '../../cluster/table-scope.js';

export type ScopeNames = Pick<TableScope, 'find' | 'holds' | 'searchesPgkv'>;

/** A dotted name as Postgres reads one in a string; null for what is no name. */
function pathIn(text: string): readonly string[] | null {
  const path: string[] = [];
  const PART = /\s*(?:"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_$]*))\s*(\.|$)/uy;
  while (PART.lastIndex < text.length) {
    const found = PART.exec(text);
    if (found === null) return null;
    path.push(found[1]?.replaceAll('""', '"') ?? found[2]!.toLowerCase());
  }
  return path.length === 0 ? null : path;
}

/** `'kv'`, `'public.kv'`, `'"kv"'`, or one of its indexes. */
export function namesTable(text: string, scope: ScopeNames): boolean {
  const path = pathIn(text);
  if (path === null || path.length > 3) return false;
  const [name, schema] = [path.at(-1)!, path.length > 1 ? path.at(-2)! : null];
  return scope.find(schema, name) !== null || isIndexOfTable(path, scope);
}

/** Behind the table's name: what Postgres calls indexes that are given no name. */
const INDEX_NAME = /^_(?:pkey|(?:(?:tenant_id|key|version|value|ttl|updated_at|slot)_)+(?:idx|key))\d*$/;

/** By its name: which table an index is on, a text does not say. */
export function isIndexOfTable(path: readonly string[], { find }: Pick<ScopeNames, 'find'>): boolean {
  const name = path.at(-1) ?? '';
  const schema = path.length > 1 ? path.at(-2)! : null;
  for (let end = name.indexOf('_'); end > 0; end = name.indexOf('_', end + 1)) {
    if (INDEX_NAME.test(name.slice(end)) && find(schema, name.slice(0, end)) !== null) return true;
  }
  return false;
}
