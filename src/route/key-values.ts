// The values behind a plan's references: literals as they stand in the client's text, parameters as they stand in its
// Bind message. What cannot be read with certainty is `unreadable`, never a guess: a key read wrongly is a row misplaced.
import type { ValueRef } from '../sql/plan/kv-plan.js';
import { type ClientEncoding, exactText, UTF8 } from '../sql/text/client-encoding.js';
import { literalValue } from '../sql/text/literal-value.js';
import { LITERAL_STRIDE } from '../sql/text/shape-lexer.js';
import { BindMessage } from '../wire/bind-message.js';
import { TypeOid } from '../wire/type-oids.js';
import {
  ELEMENTS_MAX,
  type ElementArray,
  readArray,
  readSentArray,
  type SentArray,
  sentTexts,
  type TooLong,
  type WrittenArray,
  writtenTexts,
} from './text-array.js';

/** Why a value cannot be used, for a DETAIL. */
export class Unreadable {
  readonly reason: string;
  /** The message is wrong in itself: any server refuses it, in Postgres's own words. */
  readonly isFault: boolean;
  /** It can be, but is more than pgkv looks at. */
  readonly isTooLong: boolean;
  constructor(reason: string, isFault = false, isTooLong = false) {
    this.reason = reason;
    this.isFault = isFault;
    this.isTooLong = isTooLong;
  }
}

export interface KeyValues {
  /** The text a reference stands for; null: SQL NULL. */
  text(ref: ValueRef): string | null | Unreadable;
  /**
   * The elements of an array of text; null: the array itself is NULL. An unquoted NULL in an array's text is the string that it
   * is with array_nulls off: no key is missed by it, whatever the setting is, and at worst a shard is asked too many.
   */
  list(ref: ValueRef): readonly (string | null)[] | null | Unreadable;
}

/** Parameter types under which equal bytes mean equal text. 0: the server infers text from the column. */
export const TEXT_TYPES: ReadonlySet<number> = new Set([
  TypeOid.unspecified,
  TypeOid.text,
  TypeOid.unknown,
  TypeOid.varchar,
]);
const TEXT_ARRAY_TYPES: ReadonlySet<number> = new Set([
  TypeOid.unspecified,
  TypeOid.unknown,
  TypeOid.textArray,
  TypeOid.varcharArray,
]);
/** Under which what a value's bytes are is an array's, and nothing that is cast to one. */
const ARRAY_TYPES: ReadonlySet<number> = new Set([
  ...TEXT_ARRAY_TYPES,
  ...[TypeOid.int4Array, TypeOid.int8Array, TypeOid.byteaArray, TypeOid.jsonbArray, TypeOid.intervalArray],
  TypeOid.timestamptzArray,
]);
const INTEGER_BYTES: ReadonlyMap<number, number> = new Map([
  [TypeOid.int8, 8],
  [TypeOid.int2, 2],
  [TypeOid.int4, 4],
]);

export interface BindValues {
  /** Holds the Bind message; `offset` is that of the count of parameter formats. */
  readonly buffer: Buffer;
  readonly offset: number;
  readonly end: number;
  /** From the Parse message; see StatementSource. */
  readonly types: readonly number[];
}

export class StatementValues implements KeyValues {
  readonly #text: string;
  readonly #literals: readonly number[];
  readonly #bind: BindValues | null;
  readonly #encoding: ClientEncoding;
  /** That were read: by the literal's index, or the parameter's number below zero. */
  #arrays: Map<number, ElementArray | null | Unreadable> | null = null;
  /** Undefined: not read yet. */
  #message: BindMessage | null | undefined;

  /** @param literals of `text`; see Shape.literals */
  constructor(text: string, literals: readonly number[], bind: BindValues | null, encoding = UTF8) {
    this.#encoding = encoding;
    this.#text = text;
    this.#literals = literals;
    this.#bind = bind;
  }

  text(ref: ValueRef): string | null | Unreadable {
    switch (ref.kind) {
      case 'null':
        return null;
      case 'literal':
        return this.#literal(ref);
      case 'parameter': {
        const type = this.#bind?.types[ref.number - 1] ?? 0;
        if (!TEXT_TYPES.has(type))
          return new Unreadable(`parameter $${ref.number} was declared with type ${type}, not text`);
        const bytes = this.#parameter(ref.number);
        return bytes === null || bytes instanceof Unreadable ? bytes : this.#decode(bytes, ref.number);
      }
    }
  }

  list(ref: ValueRef): readonly (string | null)[] | null | Unreadable {
    const type = ref.kind === 'parameter' ? (this.#bind?.types[ref.number - 1] ?? 0) : 0;
    if (ref.kind === 'parameter' && !TEXT_ARRAY_TYPES.has(type)) {
      return new Unreadable(`parameter $${ref.number} was declared with type ${type}, not text[]`);
    }
    const array = this.array(ref);
    if (array === null || array instanceof Unreadable) return array;
    const what = ref.kind === 'parameter' ? `parameter $${ref.number}` : 'the array';
    return array.kind === 'binary' ? this.#sentTexts(array, what) : this.#writtenTexts(array, what);
  }

  /** An array of any type; null: it is NULL. Its texts are those of the client's encoding. */
  array(ref: ValueRef): ElementArray | null | Unreadable {
    const place = ref.kind === 'literal' ? ref.index : ref.kind === 'parameter' ? -ref.number : Number.NaN;
    this.#arrays ??= new Map();
    let array = this.#arrays.get(place);
    if (array === undefined) {
      array = this.#array(ref);
      this.#arrays.set(place, array);
    }
    return array;
  }

  #array(ref: ValueRef): ElementArray | null | Unreadable {
    if (ref.kind === 'null') return null;
    if (ref.kind === 'literal') {
      if (ref.value !== undefined && !this.#encoding.isUtf8 && BEYOND_ASCII.test(ref.value)) {
        return new Unreadable('it has characters given by number');
      }
      const text = this.#literalText(ref);
      return text instanceof Unreadable ? text : orUnreadable(readArray(text), 'the array', 'not an array');
    }
    const bytes = this.#parameter(ref.number);
    if (bytes === null || bytes instanceof Unreadable) return bytes;
    const what = `parameter $${ref.number}`;
    if (this.#isBinary(ref.number)) {
      const isArray = ARRAY_TYPES.has(this.#bind?.types[ref.number - 1] ?? 0);
      return orUnreadable(readSentArray(bytes), what, `${what} is not an array`, isArray);
    }
    const text = this.#read(bytes, ref.number);
    return text instanceof Unreadable ? text : orUnreadable(readArray(text), what, `${what} is not an array`);
  }

  /** Whether exactly that many parameters were given. */
  hasParameters(count: number): boolean {
    if (this.#bind === null) return count === 0;
    const message = this.#bound();
    return message !== null && message.count === count;
  }

  /** A row count or the like; null: NULL. */
  integer(ref: ValueRef): bigint | null | Unreadable {
    if (ref.kind === 'null') return null;
    let text: string | null | Unreadable;
    if (ref.kind === 'literal') text = this.#literal(ref);
    else {
      const bytes = this.#parameter(ref.number);
      if (bytes === null || bytes instanceof Unreadable) return bytes;
      if (this.#isBinary(ref.number)) {
        // Without a declared type the server infers bigint for LIMIT, integer for a slot: the length tells which was sent.
        const type = this.#bind!.types[ref.number - 1] ?? 0;
        if (type === 0 && ref.usedElsewhere === true) {
          return new Unreadable(`parameter $${ref.number} is used elsewhere, too, and was declared without a type`);
        }
        const length = type === 0 ? bytes.length : INTEGER_BYTES.get(type);
        if (length !== bytes.length) return new Unreadable(`parameter $${ref.number} is no integer`);
        if (length === 8) return bytes.readBigInt64BE(0);
        if (length === 4) return BigInt(bytes.readInt32BE(0));
        if (length === 2) return BigInt(bytes.readInt16BE(0));
        return new Unreadable(`parameter $${ref.number} is no integer`);
      }
      text = bytes.toString('latin1');
    }
    if (text === null || text instanceof Unreadable) return text;
    if (ref.kind === 'literal' && /^0[xob]|_/i.test(text)) return BigInt(text.replaceAll('_', '').toLowerCase());
    return /^\s*[+-]?\d+\s*$/.test(text) ? BigInt(text.trim().replace(/^\+/, '')) : new Unreadable('it is no integer');
  }

  #literal(ref: LiteralRef): string | null | Unreadable {
    const value = this.#literalText(ref);
    if (value instanceof Unreadable || this.#encoding.isUtf8) return value;
    const start = this.#literals[ref.index * LITERAL_STRIDE]!;
    const source = this.#text.slice(start, this.#literals[ref.index * LITERAL_STRIDE + 1]);
    // What is given by number is Unicode whatever the encoding is; what stands beside it must be read in the client's.
    if (ref.value !== undefined && !BEYOND_ASCII.test(source)) return value;
    return this.#encoding.exact(value) ?? this.#inexact(`the literal at character ${start + 1}`);
  }

  /** In the client's encoding, but for what is given by number. */
  #literalText(ref: LiteralRef): string | Unreadable {
    const at = ref.index * LITERAL_STRIDE;
    const start = this.#literals[at];
    if (start === undefined) return new Unreadable('the literal is not where it was expected');
    const source = this.#text.slice(start, this.#literals[at + 1]);
    const value = ref.value ?? literalValue(source, this.#literals[at + 2]!);
    return value ?? new Unreadable(`the literal ${source.slice(0, 60)} has escapes, or comments between its parts`);
  }

  /** Bytes of a value, which the server reads in the client's encoding. */
  #decode(bytes: Buffer, number: number): string | Unreadable {
    const text = this.#read(bytes, number);
    return text instanceof Unreadable ? text : (this.#encoding.exact(text) ?? this.#inexact(`parameter $${number}`));
  }

  #read(bytes: Buffer, number: number): string | Unreadable {
    const encoding = this.#encoding;
    return encoding.read(bytes) ?? new Unreadable(`parameter $${number} is not valid ${encoding.name}`, true);
  }

  #inexact(what: string): Unreadable {
    return new Unreadable(
      `${what} has characters whose UTF-8 pgkv does not know in client_encoding ${this.#encoding.name}`,
    );
  }

  #writtenTexts(array: WrittenArray, what: string): readonly (string | null)[] | Unreadable {
    const texts = writtenTexts(array, false);
    if (this.#encoding.isUtf8) return texts;
    const exact = texts.map((text) => (text === null ? null : this.#encoding.exact(text)));
    return exact.includes(null) ? this.#inexact(what) : exact;
  }

  #sentTexts(array: SentArray, what: string): readonly (string | null)[] | Unreadable {
    let inexact = false;
    const elements = sentTexts(array, (element) => {
      const text = exactText(this.#encoding, element);
      inexact ||= text === null;
      return text ?? '';
    });
    if (inexact) return this.#inexact(what);
    return elements ?? new Unreadable(`${what} is not an array of text`);
  }

  #isBinary(number: number): boolean {
    return this.#bound()?.format(number - 1) === 1;
  }

  /** A view of the value; valid as long as the message is. */
  #parameter(number: number): Buffer | null | Unreadable {
    const message = this.#bound();
    return message === null || number > message.count ? missing(number) : message.value(number - 1);
  }

  /** The message, walked once however many of its values are asked for; null where there is none, or it is malformed. */
  #bound(): BindMessage | null {
    if (this.#message === undefined) {
      this.#message = null;
      if (this.#bind !== null) {
        const { buffer, offset, end } = this.#bind;
        const message = new BindMessage();
        if (message.readBehindNames(buffer, offset, end)) this.#message = message;
      }
    }
    return this.#message;
  }
}

type LiteralRef = ValueRef & { readonly kind: 'literal' };
const BEYOND_ASCII = /[\u0080-\uffff]/;

function orUnreadable(
  array: ElementArray | TooLong | null,
  what: string,
  why: string,
  isFault = false,
): ElementArray | Unreadable {
  if (array === null) return new Unreadable(why, isFault);
  return array === 'too long' ? new Unreadable(`${what} has more than ${ELEMENTS_MAX} elements`, false, true) : array;
}

const missing = (number: number): Unreadable => new Unreadable(`parameter $${number} was not given`, true);
