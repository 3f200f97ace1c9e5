// Where PREPARE, EXECUTE and DEALLOCATE name their statement: the syntax tree has the name but not its place, so
// Postgres's own scanner is asked for the tokens (40 µs; such statements are rare).

import type { StatementNameReference } from '../plan/template.js';
import { utf16Offsets } from '../text/byte-offsets.js';
import { type ParsedStatement, scanTokens, type Token } from './parse.js';

export interface NamedStatement {
  readonly verb: StatementNameReference['verb'];
  readonly name: string;
  readonly statement: ParsedStatement;
}

/** Offsets are UTF-16. A name whose place cannot be found is left out. */
export function locateNames(text: string, named: readonly NamedStatement[]): StatementNameReference[] {
  const tokens = scanTokens(text);
  const utf16Offset = utf16Offsets(text);
  const references: StatementNameReference[] = [];
  let next = 0;
  for (const { verb, name, statement } of named) {
    // Statements come in their order, and a text may have thousands of them.
    while (next < tokens.length && tokens[next]!.startByte < statement.startByte) next++;
    let end = next;
    while (end < tokens.length && tokens[end]!.endByte <= statement.endByte) end++;
    const own = tokens.slice(next, end);
    const index = verb === 'execute' ? executedNameIndex(own) : nameIndex(own);
    const first = own[index];
    if (first === undefined) continue;
    // U&"…" UESCAPE '!' is one name.
    const last = isWord(own[index + 1], 'uescape') ? (own[index + 2] ?? first) : first;
    references.push({ verb, name, start: utf16Offset(first.startByte), end: utf16Offset(last.endByte) });
  }
  return references;
}

/** PREPARE name …, DEALLOCATE name, DEALLOCATE PREPARE name; a statement may itself be called prepare. */
const nameIndex = (tokens: readonly Token[]): number =>
  isWord(tokens[0], 'deallocate') && isWord(tokens[1], 'prepare') && tokens.length > 2 ? 2 : 1;

/**
 * EXECUTE name, EXPLAIN … EXECUTE name, CREATE TABLE … AS EXECUTE name. EXECUTE may also be the name of the table, but
 * AS is reserved: AS EXECUTE outside parentheses is the keyword.
 */
function executedNameIndex(tokens: readonly Token[]): number {
  let depth = 0;
  let first = -1;
  for (const [index, token] of tokens.entries()) {
    if (token.text === '(') depth++;
    else if (token.text === ')') depth--;
    else if (depth === 0 && isWord(token, 'execute')) {
      if (isWord(tokens[index - 1], 'as')) return index + 1;
      if (first < 0) first = index + 1;
    }
  }
  return first;
}

const isWord = (token: Token | undefined, word: string): boolean => token?.text.toLowerCase() === word;
