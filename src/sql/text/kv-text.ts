// Texts put together from TextParts and a client's literals, and the way back: which place of the client's text a place
// in such a text stands for, so that a server's error position can be shown to the client.

import { LITERAL_STRIDE } from './shape-lexer.js';
import type { TextParts } from './text-parts.js';
import { type TextToken, tokensOf } from './text-tokens.js';

/**
 * @param text the client's own
 * @param literals of its shape, under the client's reading of backslashes
 */
export function renderText(parts: TextParts, text: string, literals: readonly number[]): string {
  let rendered = '';
  for (const part of parts) {
    rendered +=
      typeof part === 'string'
        ? part
        : text.slice(literals[part * LITERAL_STRIDE], literals[part * LITERAL_STRIDE + 1]);
  }
  return rendered;
}

/**
 * Exact for the client's own tokens and for copies of its literals; a place in what pgkv put in becomes that of the next
 * token of the client's own. What is its own is found by walking both lists of tokens: what pgkv puts in never begins
 * with the token it is put in front of.
 *
 * @param position in the rendered text, in characters (code points) from 1, as Postgres's error field P gives it
 * @returns the same for the client's text
 */
export function originalPosition(
  parts: TextParts,
  text: string,
  literals: readonly number[],
  position: number,
): number {
  const rendered = renderText(parts, text, literals);
  const offset = offsetOf(rendered, position);
  const renderedLiterals = literalsOf(parts, literals);
  const own = tokensOf(text, literals);
  let next = 0;
  for (const token of tokensOf(rendered, renderedLiterals)) {
    const slice = rendered.slice(token.start, token.end);
    const candidate = own[next];
    const isOwn =
      candidate !== undefined &&
      (token.folded === candidate.folded || slice === text.slice(candidate.start, candidate.end));
    if (offset >= token.end) {
      if (isOwn) next++;
      else if (token.kind === 'parameter') next = behindReplaced(own, next, token);
      continue;
    }
    const source = isOwn ? candidate : (copied(token, parts, literals) ?? repeated(token, own));
    const into = offset - token.start;
    if (source !== null && into >= 0) return positionOf(text, source.start + into);
    break;
  }
  return positionOf(text, own[next]?.start ?? own.at(-1)?.end ?? 0);
}

const TIMES: ReadonlySet<string> = new Set(['now', 'transaction_timestamp', 'statement_timestamp']);
const TIME_WORD = /^(current_(timestamp|date|time)|localtime(stamp)?)$/;

/**
 * Behind what a parameter stands for in statements for several shards: now() and its kin, and literals of arrays that are cut, whose
 * parameter is none of the client's.
 */
function behindReplaced(own: readonly TextToken[], at: number, parameter: TextToken): number {
  if (own[at]?.kind === 'literal' && !own.some(({ folded }) => folded === parameter.folded)) return at + 1;
  if (TIME_WORD.test(own[at]?.folded ?? '')) return at + 1;
  const name = own[at + 1]?.folded === '.' ? at + 2 : at;
  return TIMES.has(own[name]?.folded ?? '') && own[name + 1]?.folded === '(' ? name + 3 : at;
}

/** What stands in another place, such as a sort key in the select list, is taken for the last token of the same text. */
function repeated(token: TextToken, own: readonly TextToken[]): TextToken | null {
  if (token.kind === 'symbol') return null;
  return own.findLast(({ folded }) => folded === token.folded) ?? null;
}

/** Where the literal stands in the client's text that this token of the rendered text is a copy of. */
function copied(token: TextToken, parts: TextParts, literals: readonly number[]): { start: number } | null {
  if (token.literal < 0) return null;
  const index = parts.filter((part) => typeof part === 'number')[token.literal];
  return index === undefined ? null : { start: literals[index * LITERAL_STRIDE] ?? 0 };
}

/** Literals of the rendered text, as far as they are the client's. */
function literalsOf(parts: TextParts, literals: readonly number[]): number[] {
  const found: number[] = [];
  let at = 0;
  for (const part of parts) {
    if (typeof part === 'string') {
      at += part.length;
      continue;
    }
    const first = part * LITERAL_STRIDE;
    const length = literals[first + 1]! - literals[first]!;
    found.push(at, at + length, literals[first + 2]!);
    at += length;
  }
  return found;
}

/** UTF-16 offset of a character. */
function offsetOf(text: string, position: number): number {
  let offset = 0;
  for (let character = 1; character < position && offset < text.length; character++) {
    offset += text.codePointAt(offset)! > 0xffff ? 2 : 1;
  }
  return offset;
}

function positionOf(text: string, offset: number): number {
  let position = 1;
  for (let at = 0; at < offset && at < text.length; position++) at += text.codePointAt(at)! > 0xffff ? 2 : 1;
  return position;
}
