// Arrays of text as Postgres writes and sends them. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO

import { TypeOid } from '../wire/type-oids.js';

const TEXT_OIDS: ReadonlySet<number> = new Set([TypeOid.text, TypeOid.varchar]);

/** Explicit bounds of one dimension: `[5:7]=`, or the upper one alone, behind a lower one of 1. */
const BOUNDS = /^\[(?:([+-]?\d{1,10}):)?([+-]?\d{1,10})\][ \t\n\r\v\f]*=[ \t\n\r\v\f]*(?=\{)/;
const INT4_MAX = 2 ** 31 - 1;

/** Elements of a one-dimensional array literal; null where it is none. @param nulls an unquoted NULL is NULL, as array_nulls says */
export function arrayElements(literal: string, nulls = true): (string | null)[] | null {
  const text = literal.trim();
  const bounds = text.startsWith('[') ? BOUNDS.exec(text) : null;
  if (bounds === null) return bracedElements(text, nulls);
  const [lower, upper] = [Number(bounds[1] ?? 1), Number(bounds[2])];
  const elements = bracedElements(text.slice(bounds[0].length), nulls);
  // Postgres has errors of its own for other counts, and for none.
  const isRight = Math.abs(lower) < INT4_MAX && Math.abs(upper) < INT4_MAX && upper >= lower;
  return isRight && elements?.length === upper - lower + 1 ? elements : null;
}

function bracedElements(text: string, nulls: boolean): (string | null)[] | null {
  if (!text.startsWith('{') || !text.endsWith('}')) return null;
  const elements: (string | null)[] = [];
  let at = 1;
  const end = text.length - 1;
  const skipBlanks = (): void => {
    while (at < end && /[ \t\n\r\v\f]/.test(text[at]!)) at++;
  };
  skipBlanks();
  if (at === end) return elements;
  for (;;) {
    skipBlanks();
    let value = '';
    // A backslash makes it a string as quotes do: it is never NULL then.
    let quoted = false;
    if (text[at] === '"') {
      quoted = true;
      at++;
      while (at < end && text[at] !== '"') {
        if (text[at] === '\\') at++;
        value += text[at++] ?? '';
      }
      if (at >= end) return null;
      at++;
    } else {
      let kept = 0;
      while (at < end && text[at] !== ',') {
        const character = text[at]!;
        if (character === '{' || character === '}' || character === '"') return null;
        if (character === '\\') {
          at++;
          if (at >= end) return null;
          quoted = true;
          value += text[at++];
          kept = value.length;
          continue;
        }
        value += character;
        if (!/[ \t\n\r\v\f]/.test(character)) kept = value.length;
        at++;
      }
      value = value.slice(0, kept);
      if (value === '' && !quoted) return null;
    }
    elements.push(nulls && !quoted && value.toUpperCase() === 'NULL' ? null : value);
    skipBlanks();
    if (at === end) return elements;
    if (text[at] !== ',') return null;
    at++;
  }
}

/** Elements of a one-dimensional array of text in binary (array_send); null where it is none. @param textOf an element's bytes */
export function binaryArrayElements(
  bytes: Buffer,
  textOf: (element: Buffer) => string = (element) => element.toString('utf8'),
): (string | null)[] | null {
  if (bytes.length < 12) return null;
  const dimensions = bytes.readInt32BE(0);
  if (!TEXT_OIDS.has(bytes.readInt32BE(8))) return null;
  if (dimensions === 0) return [];
  if (dimensions !== 1 || bytes.length < 20) return null;
  const count = bytes.readInt32BE(12);
  const elements: (string | null)[] = [];
  let at = 20;
  for (let n = 0; n < count; n++) {
    if (at + 4 > bytes.length) return null;
    const length = bytes.readInt32BE(at);
    at += 4;
    if (length > bytes.length - at) return null;
    elements.push(length < 0 ? null : textOf(bytes.subarray(at, at + length)));
    if (length > 0) at += length;
  }
  return at === bytes.length ? elements : null;
}
