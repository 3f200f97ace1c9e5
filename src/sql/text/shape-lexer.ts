// Reads a SQL text once, as Postgres's scan.l does, and gives its shape: the text with every string and number literal
// replaced by a mark of its type class, and every run of blanks and comments by one space. Texts of the same shape are
// the same sequence of tokens but for the literals' values; when in doubt there is no shape (null), never a wrong one.
// What a literal's value means to the grammar (FLOAT(24) is another type than FLOAT(25)) is read-template.ts's matter.
//
// A mark is ' and one letter. Outside "quoted identifiers", which are copied as they are, a ' cannot be anything else
// in a shape, so no text can forge a mark. A literal whose value can make the parser fail or that another token depends
// on (escapes by number, U&'') stays in the shape in full, behind its mark.
//
// 0.5 µs for a point read of 90 characters (1 µs while the machine is busy), and 0.5 µs to look its key up:
// `npx tap run --reporter=tap test/unit/sql/template-cache.test.ts` prints both.

import {
  BLANK,
  bitStringEnd,
  blanksEnd,
  CLASSES,
  classOf,
  DIGIT,
  DOLLAR,
  DOT,
  DOUBLE_QUOTE,
  dollarStringEnd,
  escapeStringEnd,
  identifierEnd,
  isDigit,
  LETTER,
  MINUS,
  mayBeginBlank,
  numberEnd,
  PLAIN,
  parameterEnd,
  QUOTE,
  quotedIdentifierEnd,
  SPACE,
  SPECIAL,
  STAR,
  standardStringEnd,
} from './token-ends.js';

/** How a literal is written. `opaque` ones are part of the shape; their values cannot differ under one shape. */
export const LiteralKind = {
  /** '…': two quotes mean one. */
  string: 0,
  /** E'…', or '…' while standard_conforming_strings is off: backslash escapes, too. */
  escape: 1,
  /** $tag$…$tag$ */
  dollar: 2,
  /** B'…' */
  bits: 3,
  /** X'…' */
  hex: 4,
  /** Fits int4; decimal, 0x, 0o or 0b, with underscores. */
  integer: 5,
  /** A point, an exponent, or too large for int4. */
  numeric: 6,
  opaque: 7,
} as const;

export interface Shape {
  readonly key: string;
  /** Flat triples in order of position: start and end (UTF-16 offsets, prefix and quotes included), LiteralKind. */
  readonly literals: readonly number[];
}

/** A shape is not put together beyond this: what is left of a text without its literals is never read so far. In UTF-16 units. */
const SHAPE_LENGTH_MAX = 1024 * 1024;

/** Of a text that was not lexed to its end; see `lexShape`. */
export const TOO_MANY_PIECES: Shape = { key: '', literals: [] };

/** Numbers per literal in `Shape.literals`. */
export const LITERAL_STRIDE = 3;

const MARKS = ["'s", "'s", "'s", "'b", "'x", "'i", "'n"] as const;
const OPAQUE_ESCAPE_MARK = "'e";
const OPAQUE_UNICODE_MARK = "'u";

/**
 * One function for the whole walk, though long: the branches need the same few variables, and a call per token would
 * double the time.
 *
 * @param standardConformingStrings whether backslashes in '…' are ordinary characters
 * @param piecesMax words, literals and longer runs of blanks at which lexing is given up, as where the shape becomes too long:
 *   TOO_MANY_PIECES
 * @returns null where the text cannot be a valid one: unterminated literal, character no token begins with …
 */
export function lexShape(
  text: string,
  standardConformingStrings: boolean,
  piecesMax = Number.POSITIVE_INFINITY,
): Shape | null {
  const literals: number[] = [];
  const lengthMax = piecesMax === Number.POSITIVE_INFINITY ? piecesMax : SHAPE_LENGTH_MAX;
  let pieces = 0;
  const length = text.length;
  let key = '';
  /** Text from here to `at` is still to be copied to the key. */
  let copied = 0;
  let at = 0;
  /** A U& token was seen: a later UESCAPE '…' changes what it says, so that no later string is lifted. */
  let unicodeEscapes = false;
  /** Where the shape would be too long if it were a copy of the text from `copied` on. */
  let stop = Math.min(length, lengthMax);

  while (at < stop) {
    const code = text.charCodeAt(at);
    const start = at;
    let kind: number = LiteralKind.string;
    // The end of a literal found by a branch; 0 means none is there, negative that its value must stay in the shape.
    let end = 0;
    switch (classOf(code)) {
      case PLAIN:
        at++;
        continue;
      case BLANK:
        if (code === SPACE && at > 0 && at + 1 < length && !mayBeginBlank(text.charCodeAt(at + 1))) {
          at++;
          continue;
        }
        break;
      case LETTER: {
        at++;
        const next = text.charCodeAt(at);
        if (next === QUOTE) {
          const prefix = code | 0x20;
          if (prefix === 101) {
            kind = LiteralKind.escape;
            end = escapeStringEnd(text, at + 1);
          } else if (prefix === 98 || prefix === 120) {
            kind = prefix === 98 ? LiteralKind.bits : LiteralKind.hex;
            end = bitStringEnd(text, at + 1);
          } else continue; // N'…' is the keyword NCHAR and a string
          if (end === 0) return null;
          break;
        }
        if (next === 38 && (code | 0x20) === 117) {
          const quote = text.charCodeAt(at + 1);
          if (quote === QUOTE) {
            if (!standardConformingStrings) return null;
            unicodeEscapes = true;
            end = -standardStringEnd(text, at + 2);
            if (end === 0) return null;
            break;
          }
          if (quote === DOUBLE_QUOTE) unicodeEscapes = true;
        }
        at = identifierEnd(text, at);
        if (++pieces > piecesMax) return TOO_MANY_PIECES;
        continue;
      }
      case DIGIT:
        end = numberEnd(text, at);
        if (end === 0) return null;
        break;
      case SPECIAL:
        if (code === QUOTE) {
          if (standardConformingStrings) end = standardStringEnd(text, at + 1);
          else {
            kind = LiteralKind.escape;
            end = escapeStringEnd(text, at + 1);
          }
          if (end === 0) return null;
        } else if (code === DOT) {
          const next = text.charCodeAt(at + 1);
          if (!isDigit(next)) {
            at += next === DOT ? 2 : 1;
            continue;
          }
          end = numberEnd(text, at);
          if (end === 0) return null;
        } else if (code === DOUBLE_QUOTE) {
          at = quotedIdentifierEnd(text, at + 1);
          if (at === 0) return null;
          continue;
        } else if (code === DOLLAR) {
          if (isDigit(text.charCodeAt(at + 1))) {
            at = parameterEnd(text, at + 2);
            if (at === 0) return null;
            continue;
          }
          kind = LiteralKind.dollar;
          end = dollarStringEnd(text, at);
          if (end === 0) return null;
        } else if (text.charCodeAt(at + 1) !== (code === MINUS ? MINUS : STAR)) {
          at++; // an operator's - or /, no comment
          continue;
        }
        break;
      default:
        return null;
    }

    if (++pieces > piecesMax) return TOO_MANY_PIECES;
    if (end === 0) {
      at = blanksEnd(text, at);
      if (at === 0) return null;
      if (start > 0) key += at < length ? `${text.slice(copied, start)} ` : text.slice(copied, start);
      copied = at;
      stop = Math.min(length, at + lengthMax - key.length);
      continue;
    }

    key += text.slice(copied, start);
    // A number's sign tells its type (integer ends are positive), a string's whether it may be lifted.
    if (CLASSES[code] === DIGIT || code === DOT) kind = end > 0 ? LiteralKind.integer : LiteralKind.numeric;
    else if (end < 0 || unicodeEscapes) {
      key += kind === LiteralKind.escape ? OPAQUE_ESCAPE_MARK : OPAQUE_UNICODE_MARK;
      key += text.slice(start, Math.abs(end));
      kind = LiteralKind.opaque;
    }
    at = Math.abs(end);
    copied = at;
    if (kind !== LiteralKind.opaque) key += MARKS[kind];
    literals.push(start, at, kind);
    stop = Math.min(length, at + lengthMax - key.length);
  }
  if (stop < length) return TOO_MANY_PIECES;
  return { key: copied === 0 ? text : key + text.slice(copied), literals };
}

/** ( ) , ; [ ] . : ' " $ */
const SEPARATORS = new Set([40, 41, 44, 59, 91, 93, 46, 58, 39, 34, 36]);
/**
 * No operator has more characters than 63. Postgres's lexer reads a row of signs to its end for each sign in it, which takes a
 * second for 24,000: a longer row than this counts as too much.
 */
const SIGNS_IN_A_ROW_MAX = 1_000;

/** Whether there is such a row of signs: also for texts that have no shape, as where a comment does not end. */
export function hasLongRowOfSigns(text: string): boolean {
  let signs = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    const isSign =
      code > SPACE && code < 127 && classOf(code) !== LETTER && classOf(code) !== DIGIT && !SEPARATORS.has(code);
    signs = isSign ? signs + 1 : 0;
    if (signs > SIGNS_IN_A_ROW_MAX) return true;
  }
  return false;
}

/** A statement takes as much for itself as so many tokens: its clauses are found, its plan is made and proven. */
const STATEMENT_TOKENS = 24;
const SEMICOLON = 59;

/**
 * How many tokens a shape has, counted up to a little more than `most`: a word, a literal or a parameter is one, and every
 * symbol; a semicolon is as many as a statement takes.
 */
export function tokensInShape(key: string, most: number): number {
  let tokens = 0;
  let inWord = false;
  for (let at = 0; at < key.length && tokens <= most; at++) {
    const code = key.charCodeAt(at);
    const isWord =
      code >= 128 || (code >= 48 && code <= 57) || ((code | 32) >= 97 && (code | 32) <= 122) || code === 95;
    if (isWord ? !inWord : code > SPACE && code !== QUOTE && code !== DOUBLE_QUOTE && code !== DOLLAR) {
      tokens += code === SEMICOLON ? STATEMENT_TOKENS : 1;
    }
    inWord = isWord;
  }
  return tokens <= most && hasLongRowOfSigns(key) ? most + 1 : tokens;
}
