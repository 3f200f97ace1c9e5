// What a literal of a text says, where that takes no more than unquoting.
import { LiteralKind } from './shape-lexer.js';

/** What a literal says; null where that takes more than is done here. https://www.postgresql.org/docs/current/sql-syntax-lexical.html */
export function literalValue(source: string, kind: number): string | null {
  switch (kind) {
    case LiteralKind.integer:
    case LiteralKind.numeric:
      return source;
    case LiteralKind.dollar: {
      const tagEnd = source.indexOf('$', 1) + 1;
      return source.slice(tagEnd, source.length - tagEnd);
    }
    case LiteralKind.string:
      return quotedParts(source, false);
    case LiteralKind.escape:
      return quotedParts(source.startsWith("'") ? source : source.slice(1), true);
    default:
      return null;
  }
}

const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

/** A string may go on in quotes behind a line end. */
function quotedParts(source: string, escapes: boolean): string | null {
  const plainEnd = source.length - 1;
  if (source.indexOf("'", 1) === plainEnd && !(escapes && source.includes('\\'))) return source.slice(1, plainEnd);
  let value = '';
  let at = 1;
  while (at < source.length) {
    const character = source[at]!;
    if (character === "'") {
      if (source[at + 1] === "'") {
        value += "'";
        at += 2;
        continue;
      }
      const next = source.indexOf("'", at + 1);
      if (next < 0) return value;
      // Comments between the parts are not read here, nor by the parser.
      if (source.slice(at + 1, next).trim() !== '') return null;
      at = next + 1;
      continue;
    }
    if (character === '\\' && escapes) {
      const escaped = source[at + 1] ?? '';
      // Characters by number; and \v, which is the letter v before Postgres 16.
      if (/[0-7xuUv]/.test(escaped)) return null;
      value += ESCAPES[escaped] ?? escaped;
      at += 2;
      continue;
    }
    value += character;
    at++;
  }
  return null;
}
