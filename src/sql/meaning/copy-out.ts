// COPY … TO STDOUT taken apart: the SELECT whose rows it copies, which is routed and run as any other, and the format.
import type { CopyStmt } from 'libpg-query';
import type { CopyFormat } from '../../wire/copy-format.js';
import type { CopyOut } from '../plan/copy-out.js';
import { quoteName } from '../text/identifiers.js';
import { closingIndex, type TextToken } from '../text/text-tokens.js';
import { copyFormat, optionsText } from './copy-options.js';
import type { ParsedStatement } from './parse.js';

/** Of tables only as columns of a SELECT, which COPY does not have. */
const SYSTEM_COLUMNS: ReadonlySet<string> = new Set(['tableoid', 'xmin', 'cmin', 'xmax', 'cmax', 'ctid']);

/** Null for anything but one COPY TO STDOUT of a SELECT or a table. */
export function copyOut(
  text: string,
  tokens: readonly TextToken[],
  statements: readonly ParsedStatement[],
): CopyOut | null {
  const [only, ...more] = statements;
  if (only === undefined || more.length > 0 || !('CopyStmt' in only.node)) return null;
  const { is_from: isFrom, is_program: isProgram, filename, options = [], query } = only.node.CopyStmt;
  if (isFrom === true || isProgram === true || filename !== undefined) return null;
  if (tokens[0]?.folded !== 'copy') return null;
  const format = copyFormat(options);
  if (query === undefined) return copyOfTable(text, tokens, only.node.CopyStmt, format);
  if (!('SelectStmt' in query) || tokens[1]?.folded !== '(') return null;
  const closing = closingIndex(tokens, 1);
  const start = tokens[1].start;
  const end = tokens[closing]!.end;
  const before = [...text.slice(0, start + 1)].length;
  return { query: text.slice(start + 1, end - 1), start, end, before, tail: null, format };
}

function copyOfTable(
  text: string,
  tokens: readonly TextToken[],
  { relation, attlist = [] }: CopyStmt,
  format: CopyFormat | null,
): CopyOut | null {
  const first = tokens[1]?.folded === 'binary' ? 2 : 1;
  let last = first;
  while (tokens[last + 1]?.folded === '.') last += 2;
  const opening = tokens[last + 1]?.folded === '(' ? last + 1 : -1;
  const closing = opening < 0 ? last : closingIndex(tokens, opening);
  // A name with UESCAPE is more than a token.
  if (tokens[closing + 1]?.folded !== 'to') return null;
  const columns = attlist.map((node) => ('String' in node ? (node.String.sval ?? '') : ''));
  const isColumn = (name: string): boolean => !SYSTEM_COLUMNS.has(name) && name !== relation?.relname;
  if (new Set(columns).size < columns.length || !columns.every(isColumn)) return null;
  const isOld =
    first === 2 || tokens.some(({ kind, folded }, at) => at > closing && kind === 'word' && folded === 'delimiters');
  if (isOld && format === null) return null;
  const start = tokens[first]!.start;
  const listed = columns.length === 0 ? '*' : columns.map(quoteName).join(', ');
  return {
    query: `SELECT ${listed} FROM ${text.slice(start, tokens[last]!.end)}`,
    start,
    end: tokens[closing]!.end,
    before: null,
    tail: isOld ? ` TO STDOUT ${optionsText(format!)}` : null,
    format,
  };
}
