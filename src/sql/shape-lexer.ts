// Reads a SQL text once, as Postgres's scan.l does, and gives its shape: the text with every string and number literal
// replaced by a mark of its type class, and every run of blanks and comments by one space. Texts of the same shape are
// the same sequence of tokens but for the literals' values; when in doubt there is no shape (null), never a wrong one.
// What a literal's value means to the grammar (FLOAT(24) is another type than FLOAT(25)) is template-cache.ts's matter.
//
// A mark is ' and one letter. Outside "quoted identifiers", which are copied as they are, a ' cannot be anything else
// in a shape, so no text can forge a mark. A literal whose value can make the parser fail or that another token depends
// on (escapes by number, U&'') stays in the shape in full, behind its mark.
//
// Measured by `npx tap run test/unit/sql/shape-lexer.test.ts` (prints it): about 0.5 µs for a point read of 100 bytes.

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

/** Numbers per literal in `Shape.literals`. */
export const LITERAL_STRIDE = 3;

const MARKS = ["'s", "'s", "'s", "'b", "'x", "'i", "'n"] as const;
const OPAQUE_ESCAPE_MARK = "'e";
const OPAQUE_UNICODE_MARK = "'u";
const INT4_MAX = 2_147_483_647;
/** Decimal digits that fit int4 whatever they are. */
const INT4_SAFE_DIGITS = 9;

const BACKSLASH = 92;
const DOLLAR = 36;
const DOT = 46;
const DOUBLE_QUOTE = 34;
const MINUS = 45;
const NEWLINE = 10;
const PLUS = 43;
const QUOTE = 39;
const RETURN = 13;
const SLASH = 47;
const SPACE = 32;
const STAR = 42;
const UNDERSCORE = 95;
const ZERO = 48;

// Character classes of scan.l; 0 is a character no token has. Bytes above 127 are letters to it, so every non-ASCII character is one here.
const BLANK = 1;
const LETTER = 2;
const DIGIT = 3;
const PLAIN = 4;
const SPECIAL = 5;

const CLASSES = new Uint8Array(128);
for (const [characters, charClass] of [
  [' \t\n\r\f\v', BLANK],
  ['abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_', LETTER],
  ['0123456789', DIGIT],
  [',()[];:~!@#^&|`?+*%<>=', PLAIN],
  ['-/.\'"$', SPECIAL],
] as const) {
  for (let i = 0; i < characters.length; i++) CLASSES[characters.charCodeAt(i)] = charClass;
}

/** What an identifier may go on with; a table of its own, since most characters of a text are looked up here. */
const CONTINUES_IDENTIFIER = CLASSES.map((charClass) => (charClass === LETTER || charClass === DIGIT ? 1 : 0));
CONTINUES_IDENTIFIER[DOLLAR] = 1;

const classOf = (code: number): number => (code < 128 ? CLASSES[code]! : LETTER);
/** NaN, the code behind the end of the text, is no letter. */
const isLetter = (code: number): boolean => code >= 128 || CLASSES[code] === LETTER;
const isDigit = (code: number): boolean => code >= ZERO && code <= 57;

/**
 * @param standardConformingStrings whether backslashes in '…' are ordinary characters
 * @returns null where the text cannot be a valid one: unterminated literal, character no token begins with …
 */
export function lexShape(text: string, standardConformingStrings: boolean): Shape | null {
  const literals: number[] = [];
  const length = text.length;
  let key = '';
  /** Text from here to `at` is still to be copied to the key. */
  let copied = 0;
  let at = 0;
  /** A U& token was seen: a later UESCAPE '…' changes what it says, so that no later string is lifted. */
  let unicodeEscapes = false;

  while (at < length) {
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

    if (end === 0) {
      at = blanksEnd(text, at);
      if (at === 0) return null;
      if (start > 0) key += at < length ? `${text.slice(copied, start)} ` : text.slice(copied, start);
      copied = at;
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
  }
  return { key: copied === 0 ? text : key + text.slice(copied), literals };
}

const mayBeginBlank = (code: number): boolean => CLASSES[code] === BLANK || code === MINUS || code === SLASH;

/** Behind a run of white space and comments that begins at `at`; 0 where a comment is not closed. */
function blanksEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const code = text.charCodeAt(i);
    if (code < 128 && CLASSES[code] === BLANK) i++;
    else if (code === MINUS && text.charCodeAt(i + 1) === MINUS) i = lineEnd(text, i + 2);
    else if (code === SLASH && text.charCodeAt(i + 1) === STAR) {
      i = blockCommentEnd(text, i + 2);
      if (i === 0) return 0;
    } else return i;
  }
}

function lineEnd(text: string, at: number): number {
  let i = at;
  while (i < text.length) {
    const code = text.charCodeAt(i);
    if (code === NEWLINE || code === RETURN) break;
    i++;
  }
  return i;
}

/** Block comments nest. */
function blockCommentEnd(text: string, at: number): number {
  let depth = 1;
  let i = at;
  while (i < text.length) {
    const code = text.charCodeAt(i++);
    if (code === STAR && text.charCodeAt(i) === SLASH) {
      i++;
      if (--depth === 0) return i;
    } else if (code === SLASH && text.charCodeAt(i) === STAR) {
      i++;
      depth++;
    }
  }
  return 0;
}

function identifierEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const code = text.charCodeAt(i);
    if (CONTINUES_IDENTIFIER[code] === 1 || code >= 128) i++;
    else return i;
  }
}

/** `at` is behind the opening quote; 0 where the identifier is empty or not closed. */
function quotedIdentifierEnd(text: string, at: number): number {
  if (text.charCodeAt(at) === DOUBLE_QUOTE && text.charCodeAt(at + 1) !== DOUBLE_QUOTE) return 0;
  let i = at;
  for (;;) {
    const quote = text.indexOf('"', i);
    if (quote < 0) return 0;
    if (text.charCodeAt(quote + 1) !== DOUBLE_QUOTE) return quote + 1;
    i = quote + 2;
  }
}

/** Postgres takes 'a' newline 'b' for one string. Behind the quote that continues a string closed before `at`, or 0. */
function continuation(text: string, at: number): number {
  let i = at;
  let newline = false;
  for (;;) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) return newline ? i + 1 : 0;
    if (code === MINUS && text.charCodeAt(i + 1) === MINUS) i = lineEnd(text, i + 2);
    else if (CLASSES[code] === BLANK) {
      if (code === NEWLINE || code === RETURN) newline = true;
      i++;
    } else return 0;
  }
}

// The *End functions for strings get the offset behind the opening quote and return that behind the closing one, or 0.

function standardStringEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const quote = text.indexOf("'", i);
    if (quote < 0) return 0;
    if (text.charCodeAt(quote + 1) === QUOTE) i = quote + 2;
    else {
      i = continuation(text, quote + 1);
      if (i === 0) return quote + 1;
    }
  }
}

/** B'…' and X'…': two quotes are the end of one literal and the beginning of another. */
function bitStringEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const quote = text.indexOf("'", i);
    if (quote < 0) return 0;
    i = continuation(text, quote + 1);
    if (i === 0) return quote + 1;
  }
}

/** Negative where an escape gives a character by number (\x, \u, \U, \0 …): the parser rejects some values of those. */
function escapeStringEnd(text: string, at: number): number {
  let numbered = false;
  let i = at;
  while (i < text.length) {
    const code = text.charCodeAt(i++);
    if (code === BACKSLASH) {
      const escaped = text.charCodeAt(i++);
      // u, U, x and octal digits
      if (escaped === 117 || escaped === 85 || escaped === 120 || (escaped >= ZERO && escaped <= 55)) numbered = true;
    } else if (code === QUOTE) {
      if (text.charCodeAt(i) === QUOTE) i++;
      else {
        const next = continuation(text, i);
        if (next === 0) return numbered ? -i : i;
        i = next;
      }
    }
  }
  return 0;
}

/** `at` is at the first dollar sign. */
function dollarStringEnd(text: string, at: number): number {
  let i = at + 1;
  if (isLetter(text.charCodeAt(i))) {
    do i++;
    while (isLetter(text.charCodeAt(i)) || isDigit(text.charCodeAt(i)));
  }
  if (text.charCodeAt(i) !== DOLLAR) return 0;
  const delimiter = text.slice(at, i + 1);
  const close = text.indexOf(delimiter, i + 1);
  return close < 0 ? 0 : close + delimiter.length;
}

/** $1: 0 where letters follow. */
function parameterEnd(text: string, at: number): number {
  let i = at;
  while (isDigit(text.charCodeAt(i))) i++;
  return junkFollows(text, i) ? 0 : i;
}

/** Letters right behind a number are an error since 15; a dollar sign there is one in most cases. */
const junkFollows = (text: string, at: number): boolean => {
  const code = text.charCodeAt(at);
  return isLetter(code) || code === DOLLAR;
};

/** Behind the number at `at`, negative where it is not an int4, 0 where it is malformed. */
function numberEnd(text: string, at: number): number {
  if (text.charCodeAt(at) === ZERO) {
    const letter = text.charCodeAt(at + 1) | 0x20;
    const radix = letter === 120 ? 16 : letter === 111 ? 8 : letter === 98 ? 2 : 0;
    if (radix !== 0) return radixIntegerEnd(text, at, radix);
  }
  let i = digitsEnd(text, at);
  let numeric = i - at > INT4_SAFE_DIGITS && Number(text.slice(at, i).replaceAll('_', '')) > INT4_MAX;
  // "1..10" is 1, two dots, 10
  if (text.charCodeAt(i) === DOT && text.charCodeAt(i + 1) !== DOT) {
    numeric = true;
    i++;
    if (isDigit(text.charCodeAt(i))) i = digitsEnd(text, i);
  }
  if ((text.charCodeAt(i) | 0x20) === 101) {
    const sign = text.charCodeAt(i + 1);
    const digits = sign === PLUS || sign === MINUS ? i + 2 : i + 1;
    if (!isDigit(text.charCodeAt(digits))) return 0;
    numeric = true;
    i = digitsEnd(text, digits);
  }
  if (junkFollows(text, i)) return 0;
  return numeric ? -i : i;
}

/** Digits with single underscores between them. */
function digitsEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const code = text.charCodeAt(i);
    if (isDigit(code)) i++;
    else if (code === UNDERSCORE && i > at && isDigit(text.charCodeAt(i + 1))) i += 2;
    else return i;
  }
}

function radixIntegerEnd(text: string, at: number, radix: number): number {
  let i = at + 2;
  for (;;) {
    if (text.charCodeAt(i) === UNDERSCORE && digitValue(text.charCodeAt(i + 1)) < radix) i += 2;
    else if (digitValue(text.charCodeAt(i)) < radix) i++;
    else break;
  }
  if (i === at + 2 || junkFollows(text, i)) return 0;
  return Number.parseInt(text.slice(at + 2, i).replaceAll('_', ''), radix) > INT4_MAX ? -i : i;
}

function digitValue(code: number): number {
  if (isDigit(code)) return code - ZERO;
  const letter = code | 0x20;
  return letter >= 97 && letter <= 102 ? letter - 87 : 99;
}
