// Where the tokens of a SQL text end, by the rules of Postgres's scan.l: one function a token class, each a walk over
// character codes. It knows neither shapes nor what a token means. Offsets are UTF-16; 0 says that no valid token is there.

const INT4_MAX = 2_147_483_647;
/** Decimal digits that fit int4 whatever they are. */
const INT4_SAFE_DIGITS = 9;

const BACKSLASH = 92;
export const DOLLAR = 36;
export const DOT = 46;
export const DOUBLE_QUOTE = 34;
export const MINUS = 45;
const NEWLINE = 10;
const PLUS = 43;
export const QUOTE = 39;
const RETURN = 13;
const SLASH = 47;
export const SPACE = 32;
export const STAR = 42;
const SEMICOLON = 59;
const UNDERSCORE = 95;
const ZERO = 48;

// Character classes of scan.l; 0 is a character no token has. Bytes above 127 are letters to it, so that every
// non-ASCII character is one here.
export const BLANK = 1;
export const LETTER = 2;
export const DIGIT = 3;
export const PLAIN = 4;
export const SPECIAL = 5;

export const CLASSES = new Uint8Array(128);
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

export const classOf = (code: number): number => (code < 128 ? CLASSES[code]! : LETTER);
/** NaN, the code behind the end of the text, is no letter. */
const isLetter = (code: number): boolean => code >= 128 || CLASSES[code] === LETTER;
export const isDigit = (code: number): boolean => code >= ZERO && code <= 57;

export const mayBeginBlank = (code: number): boolean => CLASSES[code] === BLANK || code === MINUS || code === SLASH;

/** What is longer than this is walked by regular expressions, at 1 ns a character instead of 3 to 6: a text has megabytes. */
const SHORT_MAX = 64;
const NO_BLANK = /[^ \t\n\r\f\v]/g;
const LINE_END = /[\n\r]/g;
const COMMENT_MARK = /\*\/|\/\*/g;
const NO_IDENTIFIER = /[^A-Za-z0-9_$\u0080-\uffff]/g;
const NO_DIGIT = /[^0-9]/g;
const NO_DIGIT_OR_UNDERSCORE = /[^0-9_]/g;
const NO_HEX_DIGIT = /[^0-9A-Fa-f]/g;
const NO_OCTAL_DIGIT = /[^0-7]/g;
const NO_BINARY_DIGIT = /[^01]/g;
const NOT_ZERO = /[^0_]/g;

/** Where a character is that the pattern takes, from `at` on; the end of the text where none is. */
function firstOf(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex - 1 : text.length;
}

/** Behind a run of white space and comments that begins at `at`; 0 where a comment is not closed. */
export function blanksEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const code = text.charCodeAt(i);
    if (code < 128 && CLASSES[code] === BLANK) i = i - at < SHORT_MAX ? i + 1 : firstOf(NO_BLANK, text, i);
    else if (code === MINUS && text.charCodeAt(i + 1) === MINUS) i = lineEnd(text, i + 2);
    else if (code === SLASH && text.charCodeAt(i + 1) === STAR) {
      i = blockCommentEnd(text, i + 2);
      if (i === 0) return 0;
    } else return i;
  }
}

const lineEnd = (text: string, at: number): number => firstOf(LINE_END, text, at);

/** Block comments nest. */
function blockCommentEnd(text: string, at: number): number {
  let depth = 1;
  let i = at;
  /** Up to here it is walked by characters: marks are near to one another in most comments, and a search costs 40 ns. */
  let near = at + SHORT_MAX;
  while (i < text.length) {
    const code = text.charCodeAt(i++);
    if (code === STAR && text.charCodeAt(i) === SLASH) {
      i++;
      if (--depth === 0) return i;
    } else if (code === SLASH && text.charCodeAt(i) === STAR) {
      i++;
      depth++;
    } else if (i < near) continue;
    else {
      COMMENT_MARK.lastIndex = i - 1;
      if (!COMMENT_MARK.test(text)) return 0;
      i = COMMENT_MARK.lastIndex - 2;
    }
    near = i + SHORT_MAX;
  }
  return 0;
}

export function identifierEnd(text: string, at: number): number {
  let i = at;
  const short = at + SHORT_MAX;
  for (;;) {
    const code = text.charCodeAt(i);
    if (CONTINUES_IDENTIFIER[code] !== 1 && !(code >= 128)) return i;
    if (++i > short) return firstOf(NO_IDENTIFIER, text, i);
  }
}

/** `at` is behind the opening quote; 0 where the identifier is empty or not closed. */
export function quotedIdentifierEnd(text: string, at: number): number {
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

export function standardStringEnd(text: string, at: number): number {
  let i = at;
  for (let parts = 0; parts < PARTS_MAX; ) {
    const quote = parts === 0 ? text.indexOf("'", i) : quoteFrom(text, i);
    if (quote < 0) return 0;
    if (text.charCodeAt(quote + 1) === QUOTE) i = quote + 2;
    else {
      i = continuation(text, quote + 1);
      if (i === 0) return quote + 1;
      parts++;
    }
  }
  return 0;
}

/** Lines that one string goes on in. No text of use has so many; each takes 20 ns. */
const PARTS_MAX = 100_000;

/** Of a string that goes on in many lines: a search costs 20 ns, however near its end is. */
function quoteFrom(text: string, at: number): number {
  const near = Math.min(text.length, at + SHORT_MAX);
  for (let i = at; i < near; i++) if (text.charCodeAt(i) === QUOTE) return i;
  return text.indexOf("'", near);
}

/** B'…' and X'…': two quotes are the end of one literal and the beginning of another. */
export function bitStringEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const quote = text.indexOf("'", i);
    if (quote < 0) return 0;
    i = continuation(text, quote + 1);
    if (i === 0) return quote + 1;
  }
}

/** Negative where an escape gives a character by number (\x, \u, \U, \0 …): the parser rejects some values of those. */
export function escapeStringEnd(text: string, at: number): number {
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
export function dollarStringEnd(text: string, at: number): number {
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
export function parameterEnd(text: string, at: number): number {
  let i = at;
  while (isDigit(text.charCodeAt(i))) i = i - at < SHORT_MAX ? i + 1 : firstOf(NO_DIGIT, text, i);
  return junkFollows(text, i) ? 0 : i;
}

/** Letters right behind a number are an error since 15; a dollar sign there is one in most cases. */
const junkFollows = (text: string, at: number): boolean => {
  const code = text.charCodeAt(at);
  return isLetter(code) || code === DOLLAR;
};

/** Behind the number at `at`, negative where it is not an int4, 0 where it is malformed. */
export function numberEnd(text: string, at: number): number {
  if (text.charCodeAt(at) === ZERO) {
    const letter = text.charCodeAt(at + 1) | 0x20;
    const radix = letter === 120 ? 16 : letter === 111 ? 8 : letter === 98 ? 2 : 0;
    if (radix !== 0) return radixIntegerEnd(text, at, radix);
  }
  let i = digitsEnd(text, at);
  let numeric = i - at > INT4_SAFE_DIGITS && isLargerThanInt4(text, at, i);
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

/** Of the integer between those places, which may have underscores and begin with zeros. */
function isLargerThanInt4(text: string, at: number, end: number): boolean {
  const first = firstOf(NOT_ZERO, text, at);
  return end - first > 2 * SHORT_MAX || Number(text.slice(first, end).replaceAll('_', '')) > INT4_MAX;
}

/** Digits with single underscores between them. */
function digitsEnd(text: string, at: number): number {
  let i = at;
  for (;;) {
    const code = text.charCodeAt(i);
    if (i - at >= SHORT_MAX) return manyDigitsEnd(text, i);
    if (isDigit(code)) i++;
    else if (code === UNDERSCORE && i > at && isDigit(text.charCodeAt(i + 1))) i += 2;
    else return i;
  }
}

/** The same behind a digit. */
function manyDigitsEnd(text: string, at: number): number {
  const run = text.slice(at, firstOf(NO_DIGIT_OR_UNDERSCORE, text, at));
  const twice = run.indexOf('__');
  const end = twice < 0 ? run.length : twice;
  return at + end - (end > 0 && run.endsWith('_', end) ? 1 : 0);
}

function radixIntegerEnd(text: string, at: number, radix: number): number {
  const noDigit = radix === 16 ? NO_HEX_DIGIT : radix === 8 ? NO_OCTAL_DIGIT : NO_BINARY_DIGIT;
  let i = at + 2;
  for (;;) {
    if (text.charCodeAt(i) === UNDERSCORE && digitValue(text.charCodeAt(i + 1)) < radix) i += 2;
    else if (digitValue(text.charCodeAt(i)) < radix) i = i - at < SHORT_MAX ? i + 1 : firstOf(noDigit, text, i);
    else break;
  }
  if (i === at + 2 || junkFollows(text, i)) return 0;
  const first = firstOf(NOT_ZERO, text, at + 2);
  if (i - first > 2 * SHORT_MAX) return -i;
  return Number.parseInt(text.slice(at + 2, i).replaceAll('_', ''), radix) > INT4_MAX ? -i : i;
}

function digitValue(code: number): number {
  if (isDigit(code)) return code - ZERO;
  const letter = code | 0x20;
  return letter >= 97 && letter <= 102 ? letter - 87 : 99;
}

/**
 * Where the statements of a text end: at each semicolon outside of literals, names and comments, the last one at the end of the
 * text. Null where a name or a comment does not end.
 * @param literals see Shape.literals
 */
export function statementEnds(text: string, literals: readonly number[]): number[] | null {
  const ends: number[] = [];
  let literal = 0;
  let at = 0;
  while (at < text.length) {
    if (literals[literal] === at) {
      at = literals[literal + 1]!;
      literal += 3;
      continue;
    }
    const code = text.charCodeAt(at);
    let end = at + 1;
    if (code === SEMICOLON) ends.push(at);
    else if (code === DOUBLE_QUOTE) end = quotedIdentifierEnd(text, end);
    else if (code === MINUS || code === SLASH) {
      const behind = blanksEnd(text, at);
      end = behind === at ? end : behind;
    } else if (classOf(code) === LETTER) end = identifierEnd(text, end);
    if (end <= at) return null;
    at = end;
  }
  ends.push(text.length);
  return ends;
}
