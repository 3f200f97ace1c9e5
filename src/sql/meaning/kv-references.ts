// Where a statement mentions key-value tables: as a relation, by a call of one of a table's functions, by name in DDL, or
// as a word in a body of code. It walks the whole tree and does not ask what the statement does with what it found.
import type { FuncCall, Node, RangeVar } from 'libpg-query';
import type { KvTable } from '../../cluster/kv-table.js';
import { namePath } from './name-path.js';
import { pushChildren } from './tree-walk.js';

export type FindTable = (schema: string | null, name: string) => KvTable | null;

export interface KvCall {
  readonly table: KvTable;
  /** The function's name without the table's: get, put_many … */
  readonly operation: string;
  readonly call: FuncCall;
}

export interface References {
  /** Relations that are key-value tables. */
  readonly relations: readonly RangeVar[];
  /** Relations that are not, names of CTEs among them. */
  readonly otherRelations: number;
  readonly calls: readonly KvCall[];
  /** The first table mentioned in any way; null where none is. */
  readonly table: KvTable | null;
  /** Calls a function of the extension that makes, changes or drops tables. */
  readonly setsUp: boolean;
}

/** In schema pgkv: what makes, changes or drops tables, or says which slots a shard owns. */
const SETUP_FUNCTIONS: ReadonlySet<string> = new Set([
  'create_table',
  'make_table',
  'drop_table',
  'refresh_table',
  'install_functions',
  'install_triggers',
  'set_shard_state',
]);

const SINGLE_OPERATIONS = 'get put cas delete incr merge expire expire_at persist ttl touch'.split(' ');
/** By the function's ending; slot is computed from its arguments and touches nothing. */
const OPERATIONS: readonly string[] = [
  ...SINGLE_OPERATIONS,
  ...SINGLE_OPERATIONS.map((operation) => `${operation}_many`),
];
const SLOT = 'slot';
const ALL_OPERATIONS: readonly string[] = [...OPERATIONS, SLOT];

/** The key-value table that a function belongs to, by the function's name. */
function functionOf(path: readonly string[], find: FindTable): { table: KvTable; operation: string } | null {
  if (path.length === 0 || path.length > 2) return null;
  const schema = path.length === 2 ? path[0]! : null;
  const name = path.at(-1)!;
  if (!name.includes('_')) return null;
  for (const operation of ALL_OPERATIONS) {
    if (!name.endsWith(`_${operation}`)) continue;
    const table = find(schema, name.slice(0, -operation.length - 1));
    if (table !== null) return { table, operation };
  }
  return null;
}

/** Whether a call by this path is one of a key-value table's own functions: it leaves nothing in the session. */
export const isKvFunction = (path: readonly string[], find: FindTable): boolean => functionOf(path, find) !== null;

/** @param searchesPgkv an unqualified name may be one of schema pgkv */
export function referencesIn(node: Node, find: FindTable, searchesPgkv = false): References {
  const relations: RangeVar[] = [];
  const calls: KvCall[] = [];
  let otherRelations = 0;
  let table: KvTable | null = null;
  let setsUp = false;
  const isQuery = QUERIES.has(Object.keys(node)[0] ?? '');
  const stack: object[] = [node];
  while (stack.length > 0) {
    const item = stack.pop()!;
    if (!Array.isArray(item)) {
      const fields = item as Fields;
      if (typeof fields.relname === 'string') {
        const found = find(fields.schemaname ?? null, fields.relname);
        if (found === null) otherRelations++;
        else relations.push(fields as RangeVar);
        table ??= found;
      }
      if (fields.FuncCall !== undefined) {
        const path = namePath(fields.FuncCall.funcname ?? []);
        const isOfPgkv = path.length === 2 ? path[0] === 'pgkv' : searchesPgkv && path.length === 1;
        setsUp ||= isOfPgkv && SETUP_FUNCTIONS.has(path.at(-1)!);
        const found = functionOf(path, find);
        if (found !== null && found.operation !== SLOT) {
          calls.push({ ...found, call: fields.FuncCall });
          table ??= found.table;
        }
      }
      if (!isQuery) table ??= mentionIn(fields, find);
    }
    // FOR UPDATE OF names aliases, not relations.
    pushChildren('lockingClause' in item ? { ...item, lockingClause: undefined } : item, stack);
  }
  return { relations, otherRelations, calls, table, setsUp };
}

interface Fields extends RangeVar {
  readonly FuncCall?: FuncCall;
  readonly List?: { readonly items?: readonly Node[] };
  readonly objname?: readonly Node[];
  readonly funcname?: readonly Node[];
  readonly DefElem?: { readonly defname?: string; readonly arg?: Node };
}

const QUERIES = new Set(['SelectStmt', 'InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt']);

/** Names as utility statements have them: lists of strings (DROP, COMMENT), functions, and bodies of code. */
function mentionIn(fields: Fields, find: FindTable): KvTable | null {
  const [first, second] = namePath(fields.List?.items ?? []);
  if (first !== undefined) {
    const found = find(null, first) ?? (second === undefined ? null : find(first, second));
    if (found !== null) return found;
  }
  for (const path of [fields.objname, fields.funcname]) {
    const found = path === undefined ? null : functionOf(namePath(path), find);
    if (found !== null) return found.table;
  }
  const { DefElem: option } = fields;
  // SFUNC = f of an aggregate, FUNCTION = f of an operator: the grammar takes the name for a type's.
  if (option?.arg !== undefined && 'TypeName' in option.arg) {
    return functionOf(namePath(option.arg.TypeName.names ?? []), find)?.table ?? null;
  }
  return option?.defname === 'as' ? mentionInCode(option.arg, find) : null;
}

const WORD = /"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_$]*)/gu;

/** The body of DO or CREATE FUNCTION: a string or a list of strings. */
function mentionInCode(arg: Node | undefined, find: FindTable): KvTable | null {
  const strings = arg === undefined ? [] : 'List' in arg ? (arg.List.items ?? []) : [arg];
  for (const code of namePath(strings)) {
    const found = mentionInText(code, find);
    if (found !== null) return found;
  }
  return null;
}

/** A key-value table, or a function of one, whose name stands as a word in code. */
export function mentionInText(code: string, find: FindTable): KvTable | null {
  let previous: string | null = null;
  for (const [, quoted, plain] of code.matchAll(WORD)) {
    const word: string = quoted?.replaceAll('""', '"') ?? plain!.toLowerCase();
    const found = namedBy(null, word, find) ?? (previous === null ? null : namedBy(previous, word, find));
    if (found !== null) return found;
    previous = word;
  }
  return null;
}

/** As a table or as a function of one. */
const namedBy = (schema: string | null, name: string, find: FindTable): KvTable | null =>
  find(schema, name) ?? functionOf(schema === null ? [name] : [schema, name], find)?.table ?? null;
