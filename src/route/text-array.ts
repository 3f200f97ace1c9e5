// Arrays as Postgres writes and sends them, of any dimensions: their elements in the order of unnest(), each as it stands, so that an
// array of some of them can be written again whatever their type is. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO

import { TypeOid } from '../wire/type-oids.js';

const TEXT_OIDS: ReadonlySet<number> = new Set([TypeOid.text, TypeOid.varchar]);

interface Shape {
  /** None: it is empty. */
  readonly dimensions: number;
  /** Of the first. */
  readonly lowerBound: number;
}

export interface WrittenArray extends Shape {
  readonly kind: 'text';
  /** With their quotes and backslashes. */
  readonly elements: readonly string[];
}

export interface SentArray extends Shape {
  readonly kind: 'binary';
  readonly elementType: number;
  /** With their lengths in front. */
  readonly elements: readonly Buffer[];
}

export type ElementArray = WrittenArray | SentArray;

/** Explicit bounds of each dimension: `[5:7]`, or the upper one alone, behind a lower one of 1. */
const BOUNDS = /^(?:\[(?:[+-]?\d{1,10}:)?[+-]?\d{1,10}\])+[ \t\n\r\v\f]*=[ \t\n\r\v\f]*(?=\{)/;
const BOUND = /\[(?:([+-]?\d{1,10}):)?([+-]?\d{1,10})\]/g;
const AROUND = /^[ \t\n\r\v\f]+|[ \t\n\r\v\f]+$/g;
const INT4_MAX = 2 ** 31 - 1;
const DIMENSIONS_MAX = 6;
const NULL_ELEMENT = Buffer.from([0xff, 0xff, 0xff, 0xff]);

/** Null where it is no array, or in a form that not all versions of Postgres take. */
export function readArray(literal: string): WrittenArray | null {
  const text = literal.replace(AROUND, '');
  const prefix = text.startsWith('[') ? BOUNDS.exec(text)?.[0] : '';
  if (prefix === undefined) return null;
  const found = new BracedElements(text.slice(prefix.length)).read();
  if (found === null) return null;
  const { elements, sizes } = found;
  const bounds = [...prefix.matchAll(BOUND)].map(([, lower, upper]) => [Number(lower ?? 1), Number(upper)] as const);
  const isRight = bounds.every(
    // Postgres has errors of its own for other counts, and for none.
    ([lower, upper], index) =>
      Math.abs(lower) < INT4_MAX && Math.abs(upper) < INT4_MAX && upper - lower + 1 === sizes[index],
  );
  if (bounds.length > 0 && (!isRight || bounds.length !== sizes.length || elements.length === 0)) return null;
  return {
    kind: 'text',
    elements,
    dimensions: elements.length === 0 ? 0 : sizes.length,
    lowerBound: bounds[0]?.[0] ?? 1,
  };
}

/** Reads what stands between the outermost braces. */
class BracedElements {
  readonly #text: string;
  readonly #elements: string[] = [];
  /** By depth: how many stand in each brace there, once one was closed. */
  readonly #sizes: number[] = [];
  /** In the open braces. */
  readonly #counts: number[] = [];
  /** Of all elements. */
  #depth = 0;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  read(): { readonly elements: readonly string[]; readonly sizes: readonly number[] } | null {
    if (/^\{[ \t\n\r\v\f]*\}$/.test(this.#text)) return { elements: [], sizes: [] };
    for (;;) {
      // A brace or an element is due.
      this.#skipBlanks();
      if (this.#text[this.#at] === '{') {
        if (this.#counts.length === DIMENSIONS_MAX) return null;
        this.#counts.push(0);
        this.#at++;
        continue;
      }
      const element = this.#counts.length === 0 ? null : this.#element();
      if (element === null) return null;
      if (this.#elements.length > 0 && this.#depth !== this.#counts.length) return null;
      this.#depth = this.#counts.length;
      this.#elements.push(element);
      this.#counts[this.#counts.length - 1]!++;
      const ended = this.#closings();
      if (ended !== null) return ended ? { elements: this.#elements, sizes: this.#sizes } : null;
    }
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

  #element(): string | null {
    const text = this.#text;
    const start = this.#at;
    if (text[start] === '"') {
      let at = start + 1;
      while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
      if (at >= text.length) return null;
      this.#at = at + 1;
      return text.slice(start, at + 1);
    }
    let at = start;
    /** Behind the last character that is no blank. */
    let end = start;
    for (;;) {
      const character = text[at];
      if (character === undefined || character === '{' || character === '"') return null;
      if (character === ',' || character === '}') break;
      if (character === '\\') {
        if (at + 1 >= text.length) return null;
        at += 2;
        end = at;
        continue;
      }
      at++;
      if (!isBlank(character)) end = at;
    }
    this.#at = at;
    return end === start ? null : text.slice(start, end);
  }

  #skipBlanks(): void {
    while (isBlank(this.#text[this.#at])) this.#at++;
  }
}

const isBlank = (character: string | undefined): boolean => character !== undefined && /[ \t\n\r\v\f]/.test(character);

/** An element without quotes that says NULL. */
export const isNullElement = (element: string): boolean => element.length === 4 && element.toUpperCase() === 'NULL';

/** What an element says. */
export const elementText = (element: string): string =>
  (element.startsWith('"') ? element.slice(1, -1) : element).replace(/\\([\s\S])/g, '$1');

/** What array_send gives; null where it is none. */
export function readSentArray(bytes: Buffer): SentArray | null {
  if (bytes.length < 12) return null;
  const dimensions = bytes.readInt32BE(0);
  const elementType = bytes.readUInt32BE(8);
  if (dimensions === 0) return { kind: 'binary', elementType, elements: [], dimensions, lowerBound: 1 };
  let at = 12 + 8 * dimensions;
  if (dimensions < 0 || dimensions > DIMENSIONS_MAX || bytes.length < at) return null;
  let count = 1;
  for (let dimension = 0; dimension < dimensions; dimension++) {
    const size = bytes.readInt32BE(12 + 8 * dimension);
    if (size < 0) return null;
    count *= size;
  }
  if (count > bytes.length) return null;
  const elements: Buffer[] = [];
  for (let n = 0; n < count; n++) {
    if (at + 4 > bytes.length) return null;
    const length = bytes.readInt32BE(at);
    if (length > bytes.length - at - 4) return null;
    const end = at + 4 + Math.max(length, 0);
    elements.push(bytes.subarray(at, end));
    at = end;
  }
  if (at !== bytes.length) return null;
  const shape = count === 0 ? { dimensions: 0, lowerBound: 1 } : { dimensions, lowerBound: bytes.readInt32BE(16) };
  return { kind: 'binary', elementType, elements, ...shape };
}

/** The value of an array of some elements, by their places from 0; a place where there is none is NULL. */
export function arrayOf(array: ElementArray, places: readonly number[], encode: (text: string) => Buffer): Buffer {
  if (array.kind === 'text') return encode(`{${places.map((place) => array.elements[place] ?? 'NULL').join()}}`);
  const elements = places.map((place) => array.elements[place] ?? NULL_ELEMENT);
  const head = Buffer.alloc(20);
  head.writeInt32BE(1, 0);
  head.writeInt32BE(elements.some((element) => element.readInt32BE(0) < 0) ? 1 : 0, 4);
  head.writeUInt32BE(array.elementType, 8);
  head.writeInt32BE(elements.length, 12);
  head.writeInt32BE(1, 16);
  return Buffer.concat([head, ...elements]);
}

/** Texts of the elements of an array literal; null where it is none. @param nulls an unquoted NULL is NULL, as array_nulls says */
export function arrayElements(literal: string, nulls = true): (string | null)[] | null {
  const array = readArray(literal);
  return array === null ? null : writtenTexts(array, nulls);
}

export const writtenTexts = ({ elements }: WrittenArray, nulls: boolean): (string | null)[] =>
  elements.map((element) => (nulls && isNullElement(element) ? null : elementText(element)));

/** Texts of the elements of an array of text in binary (array_send); null where it is none. @param textOf an element's bytes */
export function binaryArrayElements(
  bytes: Buffer,
  textOf: (element: Buffer) => string = (element) => element.toString('utf8'),
): (string | null)[] | null {
  const array = readSentArray(bytes);
  return array === null ? null : sentTexts(array, textOf);
}

/** Null where it is no array of text. */
export function sentTexts(
  { elements, elementType }: SentArray,
  textOf: (element: Buffer) => string,
): (string | null)[] | null {
  if (!TEXT_OIDS.has(elementType)) return null;
  return elements.map((element) => (element.readInt32BE(0) < 0 ? null : textOf(element.subarray(4))));
}
