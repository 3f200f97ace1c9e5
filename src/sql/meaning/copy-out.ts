// COPY … TO STDOUT taken apart: the SELECT whose rows it copies, which is routed and run as any other, and the format.
import type { CopyOut } from '../plan/copy-out.js';
import { closingIndex, type TextToken } from '../text/text-tokens.js';
import { copyFormat, optionsText } from './copy-options.js';
import type { ParsedStatement } from './parse.js';

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
  if (query !== undefined) {
    if (!('SelectStmt' in query) || tokens[1]?.folded !== '(') return null;
    const closing = closingIndex(tokens, 1);
    const start = tokens[1].start;
    const end = tokens[closing]!.end;
    const before = [...text.slice(0, start + 1)].length;
    return { query: text.slice(start + 1, end - 1), start, end, before, tail: null, format };
  }
  const first = tokens[1]?.folded === 'binary' ? 2 : 1;
  const behind = tokens.findIndex(({ kind, folded }) => kind === 'word' && folded === 'to');
  if (behind <= first) return null;
  const opening = tokens.findIndex(({ folded }, index) => index < behind && folded === '(');
  const start = tokens[first]!.start;
  const end = tokens[behind - 1]!.end;
  const columns = opening < 0 ? '*' : text.slice(tokens[opening]!.end, tokens[behind - 1]!.start);
  const table = text.slice(start, opening < 0 ? end : tokens[opening - 1]!.end);
  const isOld = first === 2 || tokens.some(({ kind, folded }) => kind === 'word' && folded === 'delimiters');
  if (isOld && format === null) return null;
  const tail = isOld ? ` TO STDOUT ${optionsText(format!)}` : null;
  // A comment may end either.
  return { query: `SELECT ${columns}\n FROM ${table}`, start, end, before: null, tail, format };
}
