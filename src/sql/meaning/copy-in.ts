// COPY … FROM STDIN taken apart, so that rows can be told apart and sent where they belong.
// https://www.postgresql.org/docs/current/sql-copy.html
import type { CopyStmt, Node } from 'libpg-query';
import type { CopyIn, CopyInFormat, ListedColumns } from '../plan/copy-in.js';
import { closingIndex, type TextToken } from '../text/text-tokens.js';
import { columnsOf, copyFormat, stringOf, truthOf } from './copy-options.js';
import { isOfItsRow } from './copy-where.js';
import type { FindTable } from './kv-references.js';
import type { ParsedStatement } from './parse.js';

/** Options that only COPY FROM has, and that are read here. */
const FORCES: ReadonlySet<string> = new Set(['force_not_null', 'force_null']);
/** The usual of what is not supported otherwise, so that it may as well be said. */
const USUAL: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  ['on_error', new Set(['stop'])],
  ['log_verbosity', new Set(['default', 'verbose', 'silent'])],
]);
const KNOWN: ReadonlySet<string> = new Set(['format', 'delimiter', 'null', 'header', 'quote', 'escape']);
/** A slot in front of a row is to be read as one. */
const DIGIT = /^[0-9]$/;

/** Null for anything but one COPY FROM STDIN of a key-value table. */
export function copyIn(
  text: string,
  tokens: readonly TextToken[],
  statements: readonly ParsedStatement[],
  find: FindTable,
): CopyIn | null {
  const [only, ...more] = statements;
  if (only === undefined || more.length > 0 || !('CopyStmt' in only.node)) return null;
  const { is_from: isFrom, is_program: isProgram, filename, relation, attlist = [] } = only.node.CopyStmt;
  if (isFrom !== true || isProgram === true || filename !== undefined || relation?.relname === undefined) return null;
  if (tokens[0]?.folded !== 'copy') return null;
  const table = find(relation.schemaname ?? null, relation.relname);
  if (table === null) return null;
  const first = tokens[1]?.folded === 'binary' ? 2 : 1;
  let last = first;
  while (tokens[last + 1]?.folded === '.') last += 2;
  const closing = tokens[last + 1]?.folded === '(' ? closingIndex(tokens, last + 1) : last;
  const from = tokens[closing + 1];
  // A name with UESCAPE is more than a token.
  if (from?.folded !== 'from') return null;
  const end = tokens.findLast(({ folded }) => folded !== ';')!.end;
  const columns = attlist.map((node) => ('String' in node ? (node.String.sval ?? '') : ''));
  return {
    table,
    target: text.slice(tokens[1]!.start, tokens[last]!.end),
    columns: columns.length === 0 ? null : columns,
    tail: text.slice(from.start, end),
    ...formatOf(only.node.CopyStmt),
  };
}

function formatOf({ options = [], whereClause }: CopyStmt): Pick<CopyIn, 'format' | 'obstacle'> {
  const shared: Node[] = [];
  const forces = new Map<string, ListedColumns | null>();
  let obstacle: string | null = isOfItsRow(whereClause)
    ? null
    : 'WHERE with more than columns, constants and plain operators';
  for (const node of options) {
    if (!('DefElem' in node)) return { format: null, obstacle };
    const { defname = '', arg } = node.DefElem;
    if (FORCES.has(defname)) forces.set(defname, columnsOf(arg));
    else if (defname === 'header' && stringOf(arg)?.toLowerCase() === 'match') {
      shared.push({ DefElem: { ...node.DefElem, arg: { Boolean: { boolval: true } } } });
    } else if (KNOWN.has(defname)) shared.push(node);
    else if (defname === 'freeze' ? truthOf(arg) !== false : !isUsual(defname, arg)) {
      obstacle ??= defname.toUpperCase();
    }
  }
  return { format: copyInFormat(shared, forces), obstacle };
}

const isUsual = (name: string, arg: Node | undefined): boolean =>
  USUAL.get(name)?.has(stringOf(arg)?.toLowerCase() ?? '') === true;

function copyInFormat(
  options: readonly Node[],
  forces: ReadonlyMap<string, ListedColumns | null>,
): CopyInFormat | null {
  const format = copyFormat(options);
  if (format === null || format.kind === 'binary') return format;
  const forceNotNull = forces.get('force_not_null') ?? [];
  const forceNull = forces.get('force_null') ?? [];
  if ([...forces.values()].includes(null)) return null;
  const { kind, delimiter, none, header } = format;
  if (format.kind === 'text')
    return { kind: 'text', delimiter, none, header, quote: '', escape: '', forceNotNull, forceNull };
  const { quote, escape: escaper } = format;
  if ([delimiter, quote, escaper].some((sign) => DIGIT.test(sign))) return null;
  return { kind: kind as 'csv', delimiter, none, header, quote, escape: escaper, forceNotNull, forceNull };
}
