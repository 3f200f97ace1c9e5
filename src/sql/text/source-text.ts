// Rewrites a text for the parser without changing its tokens: libpg-query knows only standard_conforming_strings = on,
// and megabytes of literal values need not be read to know what a statement does.
import { LITERAL_STRIDE, LiteralKind } from './shape-lexer.js';

/** Put in front of '…'. The space keeps it apart from an identifier it may stand at, as in text'a'. */
const ESCAPE_PREFIX = ' E';

export interface SourceText {
  readonly text: string;
  /** Where this text has ESCAPE_PREFIX and the original has not, ascending. */
  readonly insertions: readonly number[];
}

/**
 * The text as it reads with standard_conforming_strings on: '…' with a backslash in it becomes E'…'.
 * @param literals of the text as lexed with the setting off
 * @returns null for N'…' with a backslash, which has no such form
 */
export function toStandardStrings(text: string, literals: readonly number[]): SourceText | null {
  const insertions: number[] = [];
  let standard = '';
  let copied = 0;
  for (let i = 0; i < literals.length; i += LITERAL_STRIDE) {
    const start = literals[i]!;
    const value = text.slice(start, literals[i + 1]);
    if (!value.startsWith("'") || !value.includes('\\')) continue;
    if (/(?<![\w$\u0080-\uffff])n$/i.test(text.slice(Math.max(0, start - 2), start))) return null;
    standard += text.slice(copied, start);
    insertions.push(standard.length);
    standard += ESCAPE_PREFIX;
    copied = start;
  }
  return { text: standard + text.slice(copied), insertions };
}

/** Offset in the original of an offset in the source text. */
export function originalOffset(source: SourceText, offset: number): number {
  const { insertions } = source;
  let before = 0;
  let end = insertions.length;
  while (before < end) {
    const middle = (before + end) >> 1;
    if (insertions[middle]! < offset) before = middle + 1;
    else end = middle;
  }
  return offset - before * ESCAPE_PREFIX.length;
}

/** Same tokens, but every lifted literal has the shortest value of its class. */
export function withShortLiterals(text: string, literals: readonly number[]): string {
  let short = '';
  let copied = 0;
  for (let i = 0; i < literals.length; i += LITERAL_STRIDE) {
    const kind = literals[i + 2]!;
    if (kind === LiteralKind.opaque) continue;
    short += text.slice(copied, literals[i]) + SHORTEST[kind]!;
    copied = literals[i + 1]!;
  }
  return short + text.slice(copied);
}

// Blanks keep neighbours apart ('a'$$b$$ is two literals) where no blank could change anything: N'' must stay together.
const SHORTEST = ["'' ", "'' ", "'' ", "B'' ", "X'' ", ' 0 ', ' 0.0 '] as const;
