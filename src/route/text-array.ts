// Arrays as Postgres writes and sends them, of any dimensions: their elements in the order of unnest(), each as it stands, so that an
// array of some of them can be written again whatever their type is. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO

import { TypeOid } from '../wire/type-oids.js';

const TEXT_OIDS: ReadonlySet<number> = new Set([TypeOid.text, TypeOid.varchar]);

interface Shape {
  /** None: it is empty. */
  readonly dimensions: number;
  /** Of the first. */
  readonly lowerBound: number;
  /** Elements. */
  readonly count: number;
}

/** The literal, and where its elements stand in it: 8 bytes an element. */
export interface WrittenArray extends Shape {
  readonly kind: 'text';
  readonly text: string;
  /** Start and end of each. */
  readonly offsets: Int32Array;
}

/** The message's bytes, and where the elements stand in them: 4 bytes an element. */
export interface SentArray extends Shape {
  readonly kind: 'binary';
  readonly elementType: number;
  readonly bytes: Buffer;
  /** Of each one's length, in front of it; the last is the end. */
  readonly offsets: Int32Array;
}

export type ElementArray = WrittenArray | SentArray;
/** Its elements are more than ELEMENTS_MAX. */
export type TooLong = 'too long';

/** Of an array that is read: each of its members is looked at, and noted for its shard. */
export const ELEMENTS_MAX = 1_000_000;

/** Explicit bounds of each dimension: `[5:7]`, or the upper one alone, behind a lower one of 1. */
const BOUNDS = /^(?:\[(?:[+-]?\d{1,10}:)?[+-]?\d{1,10}\]){1,6}[ \t\n\r\v\f]*=[ \t\n\r\v\f]*(?=\{)/;
const BOUND = /\[(?:([+-]?\d{1,10}):)?([+-]?\d{1,10})\]/g;
const INT4_MAX = 2 ** 31 - 1;
const DIMENSIONS_MAX = 6;
const NO_OFFSETS = new Int32Array(0);
/** Elements there is room for at first, where their number is not known. */
const ROOM_AT_FIRST = 16;

/** Null where it is no array, or in a form that not all versions of Postgres take. */
export function readArray(literal: string): WrittenArray | TooLong | null {
  const text = withoutBlanksAround(literal);
  const prefix = text.startsWith('[') ? BOUNDS.exec(text)?.[0] : '';
  if (prefix === undefined) return null;
  const found = new BracedElements(text, prefix.length).read();
  if (found === null || found === 'too long') return found;
  const { offsets, sizes } = found;
  const count = offsets.length / 2;
  const bounds = [...prefix.matchAll(BOUND)].map(([, lower, upper]) => [Number(lower ?? 1), Number(upper)] as const);
  const isRight = bounds.every(
    // Postgres has errors of its own for other counts, and for none.
    ([lower, upper], index) =>
      Math.abs(lower) < INT4_MAX && Math.abs(upper) < INT4_MAX && upper - lower + 1 === sizes[index],
  );
  if (bounds.length > 0 && (!isRight || bounds.length !== sizes.length || count === 0)) return null;
  return {
    kind: 'text',
    text,
    offsets,
    count,
    dimensions: count === 0 ? 0 : sizes.length,
    lowerBound: bounds[0]?.[0] ?? 1,
  };
}

/** By no regular expression: one for the end is tried again at each blank. */
function withoutBlanksAround(literal: string): string {
  let start = 0;
  let end = literal.length;
  while (start < end && isBlank(literal.charCodeAt(start))) start++;
  while (end > start && isBlank(literal.charCodeAt(end - 1))) end--;
  return literal.slice(start, end);
}

/** As array_isspace(): tab, line feed, vertical tab, form feed, carriage return, and the space. */
const isBlank = (code: number): boolean => code === 0x20 || (code >= 0x09 && code <= 0x0d);

/** Reads what stands between the outermost braces. */
class BracedElements {
  readonly #text: string;
  #offsets = new Int32Array(2 * ROOM_AT_FIRST);
  #count = 0;
  /** By depth: how many stand in each brace there, once one was closed. */
  readonly #sizes: number[] = [];
  /** In the open braces. */
  readonly #counts: number[] = [];
  /** Of all elements. */
  #depth = 0;
  #at: number;

  constructor(text: string, at: number) {
    this.#text = text;
    this.#at = at;
  }

  read(): { readonly offsets: Int32Array; readonly sizes: readonly number[] } | TooLong | null {
    if (this.#isEmpty()) return { offsets: NO_OFFSETS, sizes: [] };
    for (;;) {
      // A brace or an element is due.
      this.#skipBlanks();
      if (this.#text[this.#at] === '{') {
        if (this.#counts.length === DIMENSIONS_MAX) return null;
        this.#counts.push(0);
        this.#at++;
        continue;
      }
      if (this.#counts.length === 0) return null;
      if (this.#count === ELEMENTS_MAX) return 'too long';
      if (!this.#element()) return null;
      if (this.#count > 1 && this.#depth !== this.#counts.length) return null;
      this.#depth = this.#counts.length;
      this.#counts[this.#counts.length - 1]!++;
      const ended = this.#closings();
      if (ended !== null)
        return ended ? { offsets: this.#offsets.slice(0, 2 * this.#count), sizes: this.#sizes } : null;
    }
  }

  #isEmpty(): boolean {
    const start = this.#at;
    if (this.#text[this.#at++] === '{') {
      this.#skipBlanks();
      if (this.#text[this.#at] === '}' && this.#at + 1 === this.#text.length) return true;
    }
    this.#at = start;
    return false;
  }

  /** Closing braces behind an element, and the comma behind them. @returns null: more is to come; else whether it ends as it should */
  #closings(): boolean | null {
    for (;;) {
      this.#skipBlanks();
      const character = this.#text[this.#at++];
      if (character === ',') return null;
      if (character !== '}') return false;
      const count = this.#counts.pop()!;
      const depth = this.#counts.length;
      this.#sizes[depth] ??= count;
      if (this.#sizes[depth] !== count) return false;
      if (depth === 0) return this.#at === this.#text.length;
      this.#counts[depth - 1]!++;
    }
  }

  /** @returns false: none is there */
  #element(): boolean {
    const text = this.#text;
    const start = this.#at;
    if (text[start] === '"') {
      let at = start + 1;
      while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
      if (at >= text.length) return false;
      this.#at = at + 1;
      return this.#found(start, at + 1);
    }
    let at = start;
    /** Behind the last character that is no blank. */
    let end = start;
    for (;;) {
      const character = text[at];
      if (character === undefined || character === '{' || character === '"') return false;
      if (character === ',' || character === '}') break;
      if (character === '\\') {
        if (at + 1 >= text.length) return false;
        at += 2;
        end = at;
        continue;
      }
      if (!isBlank(text.charCodeAt(at))) end = at + 1;
      at++;
    }
    this.#at = at;
    return this.#found(start, end);
  }

  #found(start: number, end: number): boolean {
    if (end === start) return false;
    const at = 2 * this.#count++;
    if (at === this.#offsets.length) {
      const room = new Int32Array(2 * at);
      room.set(this.#offsets);
      this.#offsets = room;
    }
    this.#offsets[at] = start;
    this.#offsets[at + 1] = end;
    return true;
  }

  #skipBlanks(): void {
    while (isBlank(this.#text.charCodeAt(this.#at))) this.#at++;
  }
}

/** As it stands, with its quotes and backslashes. */
export const writtenElement = ({ text, offsets }: WrittenArray, place: number): string =>
  text.slice(offsets[2 * place], offsets[2 * place + 1]);

/** An element without quotes that says NULL. */
export const isNullElement = (element: string): boolean => element.length === 4 && element.toUpperCase() === 'NULL';

/** What an element says. */
export const elementText = (element: string): string =>
  (element.startsWith('"') ? element.slice(1, -1) : element).replace(/\\([\s\S])/g, '$1');

/** What array_send gives; null where it is none, which every server refuses (array_recv), whatever is in it. */
export function readSentArray(bytes: Buffer): SentArray | TooLong | null {
  if (bytes.length < 12) return null;
  const dimensions = bytes.readInt32BE(0);
  const flags = bytes.readInt32BE(4);
  const elementType = bytes.readUInt32BE(8);
  if (flags !== 0 && flags !== 1) return null;
  let at = 12 + 8 * dimensions;
  if (dimensions < 0 || dimensions > DIMENSIONS_MAX || bytes.length < at) return null;
  let count = dimensions === 0 ? 0 : 1;
  for (let dimension = 0; dimension < dimensions; dimension++) {
    const size = bytes.readInt32BE(12 + 8 * dimension);
    if (size < 0) return null;
    count *= size;
  }
  if (4 * count > bytes.length - at) return null;
  if (count > ELEMENTS_MAX) return 'too long';
  const offsets = new Int32Array(count + 1);
  for (let place = 0; place < count; place++) {
    offsets[place] = at;
    if (at + 4 > bytes.length) return null;
    const length = bytes.readInt32BE(at);
    if (length < -1 || length > bytes.length - at - 4) return null;
    at += 4 + Math.max(length, 0);
  }
  offsets[count] = at;
  if (at !== bytes.length) return null;
  const shape = count === 0 ? { dimensions: 0, lowerBound: 1 } : { dimensions, lowerBound: bytes.readInt32BE(16) };
  return { kind: 'binary', elementType, bytes, offsets, count, ...shape };
}

/** Without the length in front of it; null: NULL. */
function sentElement({ bytes, offsets }: SentArray, place: number): Buffer | null {
  const at = offsets[place]!;
  return bytes.readInt32BE(at) < 0 ? null : bytes.subarray(at + 4, offsets[place + 1]);
}

/** The value of an array of some elements, by their places from 0; a place where there is none is NULL. */
export function arrayOf(array: ElementArray, places: readonly number[], encode: (text: string) => Buffer): Buffer {
  const isThere = (place: number): boolean => place >= 0 && place < array.count;
  if (array.kind === 'text') {
    return encode(`{${places.map((place) => (isThere(place) ? writtenElement(array, place) : 'NULL')).join()}}`);
  }
  const { bytes, offsets } = array;
  let length = 20;
  for (const place of places) length += isThere(place) ? offsets[place + 1]! - offsets[place]! : 4;
  const value = Buffer.allocUnsafe(length);
  let hasNull = 0;
  let at = 20;
  for (const place of places) {
    const copied = isThere(place) ? bytes.copy(value, at, offsets[place], offsets[place + 1]) : 0;
    if (copied === 0) value.writeInt32BE(-1, at);
    if (value.readInt32BE(at) < 0) hasNull = 1;
    at += Math.max(copied, 4);
  }
  for (const [index, word] of [1, hasNull].entries()) value.writeInt32BE(word, 4 * index);
  value.writeUInt32BE(array.elementType, 8);
  value.writeInt32BE(places.length, 12);
  value.writeInt32BE(1, 16);
  return value;
}

/** Texts of the elements of an array literal; null where it is none. @param nulls an unquoted NULL is NULL, as array_nulls says */
export function arrayElements(literal: string, nulls = true): (string | null)[] | null {
  const array = readArray(literal);
  return array === null || array === 'too long' ? null : writtenTexts(array, nulls);
}

export const writtenTexts = (array: WrittenArray, nulls: boolean): (string | null)[] =>
  Array.from({ length: array.count }, (_, place) => {
    const element = writtenElement(array, place);
    return nulls && isNullElement(element) ? null : elementText(element);
  });

/** Texts of the elements of an array of text in binary (array_send); null where it is none. @param textOf an element's bytes */
export function binaryArrayElements(
  bytes: Buffer,
  textOf: (element: Buffer) => string = (element) => element.toString('utf8'),
): (string | null)[] | null {
  const array = readSentArray(bytes);
  return array === null || array === 'too long' ? null : sentTexts(array, textOf);
}

/** Null where it is no array of text. */
export function sentTexts(array: SentArray, textOf: (element: Buffer) => string): (string | null)[] | null {
  if (!TEXT_OIDS.has(array.elementType)) return null;
  return Array.from({ length: array.count }, (_, place) => {
    const element = sentElement(array, place);
    return element === null ? null : textOf(element);
  });
}
