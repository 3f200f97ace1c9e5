// The values behind a plan's references: literals as they stand in the client's text, parameters as they stand in its
// Bind message. What cannot be read with certainty is `unreadable`, never a guess: a key read wrongly is a row misplaced.
import type { ValueRef } from '../sql/plan/kv-plan.js';
import { type ClientEncoding, exactText, UTF8 } from '../sql/text/client-encoding.js';
import { literalValue } from '../sql/text/literal-value.js';
import { LITERAL_STRIDE } from '../sql/text/shape-lexer.js';
import { BindMessage } from '../wire/bind-message.js';
import { TypeOid } from '../wire/type-oids.js';
import { arrayElements, binaryArrayElements } from './text-array.js';

/** Why a value cannot be used, for a DETAIL. */
export class Unreadable {
  readonly reason: string;
  /** The message is wrong in itself: any server refuses it, in Postgres's own words. */
  readonly isFault: boolean;
  constructor(reason: string, isFault = false) {
    this.reason = reason;
    this.isFault = isFault;
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
    if (ref.kind === 'null') return null;
    if (ref.kind === 'literal') {
      const text = this.#literal(ref);
      return text === null || text instanceof Unreadable
        ? text
        : (arrayElements(text, false) ?? new Unreadable('not an array'));
    }
    const type = this.#bind?.types[ref.number - 1] ?? 0;
    if (!TEXT_ARRAY_TYPES.has(type)) {
      return new Unreadable(`parameter $${ref.number} was declared with type ${type}, not text[]`);
    }
    const bytes = this.#parameter(ref.number);
    if (bytes === null || bytes instanceof Unreadable) return bytes;
    if (this.#isBinary(ref.number)) return this.#binaryList(bytes, ref.number);
    const text = this.#decode(bytes, ref.number);
    if (text instanceof Unreadable) return text;
    return arrayElements(text, false) ?? new Unreadable(`parameter $${ref.number} is not a one-dimensional array`);
  }

  /** Whether exactly that many parameters were given. */
  hasParameters(count: number): boolean {
    if (this.#bind === null) return count === 0;
    const message = this.#read();
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
    const at = ref.index * LITERAL_STRIDE;
    const start = this.#literals[at];
    if (start === undefined) return new Unreadable('the literal is not where it was expected');
    const source = this.#text.slice(start, this.#literals[at + 1]);
    const value = ref.value ?? literalValue(source, this.#literals[at + 2]!);
    // What is given by number is Unicode whatever the encoding is; what stands beside it must be read in the client's.
    const isByNumber = ref.value !== undefined && !BEYOND_ASCII.test(source);
    if (value !== null && !this.#encoding.isUtf8 && !isByNumber) {
      return this.#encoding.exact(value) ?? this.#inexact(`the literal at character ${start + 1}`);
    }
    return value ?? new Unreadable(`the literal ${source.slice(0, 60)} has escapes, or comments between its parts`);
  }

  /** Bytes of a value, which the server reads in the client's encoding. */
  #decode(bytes: Buffer, number: number): string | Unreadable {
    const encoding = this.#encoding;
    const text = encoding.read(bytes);
    if (text === null) return new Unreadable(`parameter $${number} is not valid ${encoding.name}`, true);
    return encoding.exact(text) ?? this.#inexact(`parameter $${number}`);
  }

  #inexact(what: string): Unreadable {
    return new Unreadable(
      `${what} has characters whose UTF-8 pgkv does not know in client_encoding ${this.#encoding.name}`,
    );
  }

  #binaryList(bytes: Buffer, number: number): readonly (string | null)[] | Unreadable {
    let inexact = false;
    const elements = binaryArrayElements(bytes, (element) => {
      const text = exactText(this.#encoding, element);
      inexact ||= text === null;
      return text ?? '';
    });
    if (inexact) return this.#inexact(`parameter $${number}`);
    return elements ?? new Unreadable(`parameter $${number} is not an array of text`);
  }

  #isBinary(number: number): boolean {
    return this.#read()?.format(number - 1) === 1;
  }

  /** A view of the value; valid as long as the message is. */
  #parameter(number: number): Buffer | null | Unreadable {
    const message = this.#read();
    return message === null || number > message.count ? missing(number) : message.value(number - 1);
  }

  /** The message, walked once however many of its values are asked for; null where there is none, or it is malformed. */
  #read(): BindMessage | null {
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

const missing = (number: number): Unreadable => new Unreadable(`parameter $${number} was not given`, true);
