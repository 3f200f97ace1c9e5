// Which key-value tables the names in a session's texts stand for: that depends on its search_path. Interned, so that
// caches can tell scopes apart by their key. Ordinary tables of the same name in an earlier schema are not known here.
import type { ClusterView } from './cluster-view.js';
import type { KvTable } from './kv-table.js';
import { isWordIn, mayEscapeNames } from './name-search.js';

export interface TableScope {
  /** Empty where there are no key-value tables; else different for scopes that find different tables. */
  readonly key: string;
  /** `schema` null: an unqualified name. Names as Postgres folds them. */
  find(schema: string | null, name: string): KvTable | null;
  /** Whether there are key-value tables in the schema. */
  holds(schema: string): boolean;
  /** Whether unqualified names are looked for among the extension's own functions, too. */
  readonly searchesPgkv: boolean;
  /** Whether a text, in lower case, that cannot be read may mean a key-value table: one's name stands in it as a word, or may in escapes. */
  mentions(lowerText: string): boolean;
  /** Every table's name, and its schema's, is ASCII. */
  readonly asciiNames: boolean;
}

/** For a router without key-value tables. */
export const NO_TABLES: TableScope = {
  key: '',
  find: () => null,
  holds: () => false,
  searchesPgkv: false,
  mentions: () => false,
  asciiNames: true,
};

/** Sessions with other search_paths than these share one scope in which only qualified names are found. */
const SCOPES_MAX = 256;
const SCOPES = new WeakMap<ClusterView, Map<string | null, TableScope>>();

/** @param searchPath as Postgres shows it, null for its default: "$user", public */
export function tableScope(view: ClusterView, searchPath: string | null): TableScope {
  if (view.tables.length === 0) return NO_TABLES;
  let scopes = SCOPES.get(view);
  if (scopes === undefined) {
    scopes = new Map();
    SCOPES.set(view, scopes);
  }
  let scope = scopes.get(searchPath);
  if (scope === undefined) {
    const schemas = scopes.size < SCOPES_MAX ? schemasOf(searchPath) : [];
    scope = makeScope(view, schemas);
    if (scopes.size < SCOPES_MAX) scopes.set(searchPath, scope);
  }
  return scope;
}

function makeScope(view: ClusterView, schemas: readonly string[]): TableScope {
  const qualified = new Map<string, KvTable>(view.tables.map((table) => [`${table.schema}.${table.name}`, table]));
  const unqualified = new Map<string, KvTable>();
  for (const schema of schemas) {
    for (const table of view.tables) {
      if (table.schema === schema && !unqualified.has(table.name)) unqualified.set(table.name, table);
    }
  }
  const searchesPgkv = schemas.includes('pgkv');
  const holding = new Set(view.tables.map(({ schema }) => schema));
  const names = view.tables.map(({ name }) => name.toLowerCase());
  const visible = [...unqualified.values()].map(({ schema, name }) => `${schema}.${name}`).join(',');
  return {
    key: `\u0001${view.epoch}\u0001${visible}${searchesPgkv ? '+' : ''}\u0001`,
    find: (schema, name) => (schema === null ? unqualified.get(name) : qualified.get(`${schema}.${name}`)) ?? null,
    holds: (schema) => holding.has(schema),
    searchesPgkv,
    mentions: (lowerText) => names.some((name) => isWordIn(lowerText, name)) || mayEscapeNames(lowerText),
    asciiNames: view.tables.every(({ schema, name }) => /^[\0-\x7f]*$/.test(schema + name)),
  };
}

/** Elements of a search_path, unquoted and folded; "$user" is not known to be any of ours. */
function schemasOf(searchPath: string | null): string[] {
  if (searchPath === null) return ['public'];
  const schemas: string[] = [];
  for (const [, quoted, plain] of searchPath.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^",\s][^",]*))\s*(?:,|$)/g)) {
    schemas.push(quoted !== undefined ? quoted.replaceAll('""', '"') : plain!.trim().toLowerCase());
  }
  return schemas;
}
