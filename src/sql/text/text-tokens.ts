// A SQL text as a list of tokens, and new texts put together from them: TextParts, in which the literals are indexes, so
// that what is built from one text is right for every text of its shape. Blanks and comments are no tokens; between two
// tokens that had some, the new text has one space, as the shape has. It knows no grammar: clauses.ts does.

import { LITERAL_STRIDE } from './shape-lexer.js';
import type { TextParts } from './text-parts.js';
import {
  blanksEnd,
  classOf,
  DOLLAR,
  DOT,
  DOUBLE_QUOTE,
  identifierEnd,
  LETTER,
  parameterEnd,
  quotedIdentifierEnd,
} from './token-ends.js';

export interface TextToken {
  /** `symbol`: an operator or punctuation. */
  readonly kind: 'word' | 'quoted' | 'literal' | 'parameter' | 'symbol';
  /** UTF-16 offsets into the text. */
  readonly start: number;
  readonly end: number;
  /** UTF-8 offset, as syntax trees have it. */
  readonly startByte: number;
  /** A word in lower case, any other token as it stands. A quoted word keeps its quotes, so that it equals no keyword. */
  readonly folded: string;
  /** Index of the literal in Shape.literals (counted in literals); -1 for other tokens. */
  readonly literal: number;
}

/** Tokens from index `start` to `end` (exclusive) of a list. */
export interface TokenSpan {
  readonly start: number;
  readonly end: number;
}

/** The tokens of a span are to be replaced; where it is empty, `parts` is put in front of the token at `start`. */
export interface TokenEdit extends TokenSpan {
  readonly parts: TextParts;
}

const OPERATOR_CHARACTERS = new Set('~!@#^&|`?+-*/%<>=');
/** An operator may end in + or - only if one of these is in it (lexical structure, "Operators"). */
/** No operator is longer (NAMEDATALEN): a row of signs, each one a token, is not walked through for each of them. */
const OPERATOR_CHARACTERS_MAX = 64;
const LETS_END_IN_SIGN = /[~!@#^&|`?%]/;
const AMPERSAND = 38;

/**
 * @param text a text that parses with standard_conforming_strings on (see source-text.ts)
 * @param literals of its shape
 */
export function tokensOf(text: string, literals: readonly number[]): readonly TextToken[] {
  const tokens: TextToken[] = [];
  let literal = 0;
  const isAscii = Buffer.byteLength(text) === text.length;
  let startByte = 0;
  let measured = 0;
  let at = blanksEnd(text, 0);
  while (at < text.length) {
    const isLiteral = literals[literal * LITERAL_STRIDE] === at;
    const kind = isLiteral ? 'literal' : kindAt(text, at);
    const end = isLiteral ? literals[literal * LITERAL_STRIDE + 1]! : tokenEnd(text, at, kind);
    if (end <= at) throw new RangeError(`no token at ${at} of a text that was parsed`);
    startByte += isAscii ? at - measured : Buffer.byteLength(text.slice(measured, at));
    measured = at;
    const slice = text.slice(at, end);
    const folded = kind === 'word' ? foldCase(slice) : slice;
    tokens.push({ kind, start: at, end, startByte, folded, literal: isLiteral ? literal++ : -1 });
    at = blanksEnd(text, end);
    if (at < end) break; // a comment that is not closed: not in a text that parsed
  }
  return tokens;
}

/** As the server folds: A to Z only. */
const foldCase = (word: string): string => word.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());

function kindAt(text: string, at: number): 'word' | 'quoted' | 'parameter' | 'symbol' {
  const code = text.charCodeAt(at);
  if (code === DOUBLE_QUOTE) return 'quoted';
  if (classOf(code) === LETTER) return isUnicodeQuoted(text, at) ? 'quoted' : 'word';
  return code === DOLLAR ? 'parameter' : 'symbol';
}

/** U&"…" */
const isUnicodeQuoted = (text: string, at: number): boolean =>
  (text.charCodeAt(at) | 0x20) === 117 &&
  text.charCodeAt(at + 1) === AMPERSAND &&
  text.charCodeAt(at + 2) === DOUBLE_QUOTE;

function tokenEnd(text: string, at: number, kind: TextToken['kind']): number {
  switch (kind) {
    case 'word':
      // N'…' is the word N and a literal.
      return identifierEnd(text, at);
    case 'quoted':
      return quotedIdentifierEnd(text, at + (text.charCodeAt(at) === DOUBLE_QUOTE ? 1 : 3));
    case 'parameter':
      return parameterEnd(text, at + 1);
    default:
      return symbolEnd(text, at);
  }
}

function symbolEnd(text: string, at: number): number {
  const first = text[at]!;
  if (!OPERATOR_CHARACTERS.has(first)) {
    const pair = text.slice(at, at + 2);
    const isPair = pair === '::' || pair === ':=' || (text.charCodeAt(at) === DOT && pair === '..');
    return isPair ? at + 2 : at + 1;
  }
  let end = at;
  const longest = Math.min(text.length, at + OPERATOR_CHARACTERS_MAX);
  while (end < longest && OPERATOR_CHARACTERS.has(text[end]!)) {
    const pair = text.slice(end, end + 2);
    if (pair === '--' || pair === '/*') break;
    end++;
  }
  const mayEndInSign = LETS_END_IN_SIGN.test(text.slice(at, end));
  while (!mayEndInSign && end > at + 1 && (text[end - 1] === '+' || text[end - 1] === '-')) end--;
  return end;
}

/** Index of the token that begins at a tree's `location`, or -1. */
export function tokenAtByte(tokens: readonly TextToken[], startByte: number): number {
  let low = 0;
  let high = tokens.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const found = tokens[middle]!.startByte;
    if (found === startByte) return middle;
    if (found < startByte) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

const OPENS = new Set(['(', '[']);
const CLOSES = new Set([')', ']']);

export const isOpening = (token: TextToken): boolean => token.kind === 'symbol' && OPENS.has(token.folded);
export const isClosing = (token: TextToken): boolean => token.kind === 'symbol' && CLOSES.has(token.folded);

/** Index of the bracket that closes the one at `at`; the end of the list if none does. */
export function closingIndex(tokens: readonly TextToken[], at: number): number {
  let depth = 0;
  for (let i = at; i < tokens.length; i++) {
    const token = tokens[i]!;
    if (isOpening(token)) depth++;
    else if (isClosing(token) && --depth === 0) return i;
  }
  return tokens.length;
}

/** The items of a list with commas, such as a select list; none of an empty span. */
export function listItems(tokens: readonly TextToken[], span: TokenSpan): readonly TokenSpan[] {
  if (span.start === span.end) return [];
  const items: TokenSpan[] = [];
  let start = span.start;
  for (let i = span.start; i < span.end; i++) {
    const token = tokens[i]!;
    if (isOpening(token)) i = closingIndex(tokens, i);
    else if (token.kind === 'symbol' && token.folded === ',') {
      items.push({ start, end: i });
      start = i + 1;
    }
  }
  items.push({ start, end: span.end });
  return items;
}

/**
 * The text of a span with edits made in it.
 * @param text the tokens' text
 * @param edits in any order, not overlapping; of several insertions at one place the first given stands first. What an
 * edit puts in is kept apart from its neighbours by spaces.
 */
export function spliceTokens(
  text: string,
  tokens: readonly TextToken[],
  span: TokenSpan,
  edits: readonly TokenEdit[] = [],
): TextParts {
  const builder = new PartsBuilder();
  const ordered = [...edits].sort((one, other) => one.start - other.start || one.end - other.end);
  let at = span.start;
  for (const edit of ordered) {
    copyTokens(builder, text, tokens, { start: at, end: edit.start });
    builder.keepApart();
    builder.append(edit.parts);
    builder.keepApart();
    at = edit.end;
  }
  copyTokens(builder, text, tokens, { start: at, end: span.end });
  return builder.parts();
}

function copyTokens(builder: PartsBuilder, text: string, tokens: readonly TextToken[], span: TokenSpan): void {
  for (let i = span.start; i < span.end; i++) {
    const token = tokens[i]!;
    if (i > span.start && token.start > tokens[i - 1]!.end) builder.keepApart();
    builder.append([token.kind === 'literal' ? token.literal : text.slice(token.start, token.end)]);
  }
}

/** Several parts in a row with a space between each two; empty ones are left out. */
export function joinParts(...all: readonly (TextParts | string)[]): TextParts {
  const builder = new PartsBuilder();
  for (const one of all) {
    const parts = typeof one === 'string' ? [one] : one;
    if (parts.every((part) => part === '')) continue;
    builder.keepApart();
    builder.append(parts);
  }
  return builder.parts();
}

/** Strings that touch become one; a space that was asked for is written when something follows it. */
class PartsBuilder {
  private readonly done: (string | number)[] = [];
  /** Pieces of the string that is being put together: joined once, since looking at the end of a string grown piece by piece copies it. */
  private pending: string[] = [];
  private endsWithSpace = false;
  private gap = false;

  keepApart(): void {
    this.gap = this.done.length > 0 || this.pending.length > 0;
  }

  append(parts: TextParts): void {
    for (const part of parts) {
      if (part === '') continue;
      if (this.gap) {
        this.gap = false;
        if (!this.endsWithSpace && !(typeof part === 'string' && part.startsWith(' '))) this.pending.push(' ');
      }
      if (typeof part === 'string') {
        this.pending.push(part);
        this.endsWithSpace = part.endsWith(' ');
      } else {
        this.flush();
        this.done.push(part);
        this.endsWithSpace = false;
      }
    }
  }

  parts(): TextParts {
    this.flush();
    return this.done;
  }

  private flush(): void {
    if (this.pending.length > 0) this.done.push(this.pending.join(''));
    this.pending = [];
  }
}

/** A SELECT as a whole may stand in parentheses. */
export function withoutParentheses(tokens: readonly TextToken[], span: TokenSpan): TokenSpan {
  let { start, end } = span;
  while (tokens[start]?.folded === '(' && closingIndex(tokens, start) === end - 1) {
    start++;
    end--;
  }
  return { start, end };
}

/** The tokens of a statement that parse.ts has found. */
export const spanOf = (
  tokens: readonly TextToken[],
  { startByte, endByte }: { readonly startByte: number; readonly endByte: number },
): TokenSpan => ({
  start: firstTokenFrom(tokens, startByte),
  end: firstTokenFrom(tokens, endByte),
});

/** By halving: a text may hold thousands of statements. */
function firstTokenFrom(tokens: readonly TextToken[], byte: number): number {
  let low = 0;
  let high = tokens.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tokens[middle]!.startByte < byte) low = middle + 1;
    else high = middle;
  }
  return low;
}
