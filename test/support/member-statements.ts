// Statements with parallel arrays, generated: in every form in which an array is given, with what may be wrong with arrays.
import type { FrontendMessage } from './frontend-message.js';
import type { SeededRandom } from './seeded-random.js';
import { literal, TENANTS } from './spread-servers.js';

export interface MemberStatement {
  readonly text: string;
  /** By batch. */
  readonly batches: readonly FrontendMessage[][];
}

type Element = 'text' | 'jsonb' | 'bigint' | 'numeric' | 'interval' | 'timestamptz';
const ARRAY_OIDS: Readonly<Record<Element, number>> = {
  text: 1009,
  jsonb: 3807,
  bigint: 1016,
  numeric: 1231,
  interval: 1187,
  timestamptz: 1185,
};
const ELEMENT_OIDS: Partial<Record<Element, number>> = { text: 25, jsonb: 3802, bigint: 20 };

/** What is wrong with one of the arrays; one thing at most, as any shard's error is told. */
export type Fault = 'none' | 'length' | 'null array' | 'null key' | 'twice';

export interface GivenArray {
  readonly element: Element;
  /** Null: NULL in place of the array. */
  readonly members: readonly (string | null)[] | null;
}

const KEYS = [
  ...Array.from({ length: 20 }, (_, n) => `k${n}`),
  'a,b',
  'say "x"',
  'back\\slash',
  "it's",
  '{tag}1',
  '{tag}2',
  'NULL',
  ' ',
  'ключ',
];

/** Tenants and keys of a batch, each key once. */
export function drawKeys(random: SeededRandom, fault: Fault): { tenants: string[]; keys: (string | null)[] } {
  const count = fault === 'none' && random.oneIn(12) ? random.integer(2) : random.between(2, 8);
  const keys: (string | null)[] = random.some(KEYS, count);
  const tenants = keys.map(() => random.pick(TENANTS));
  if (fault === 'null key') keys[random.integer(count)] = null;
  if (fault === 'twice') {
    keys.push(keys[0]!);
    tenants.push(tenants[0]!);
  }
  return { tenants, keys };
}

/** Puts arrays into a text, and their values into a Bind. */
export class ArrayWriter {
  readonly #random: SeededRandom;
  readonly #isSimple: boolean;
  readonly types: number[] = [];
  readonly values: (string | Buffer | null)[] = [];
  readonly formats: number[] = [];
  /** Of one dimension, which begins at 1. */
  isPlain = false;

  constructor(random: SeededRandom, isSimple: boolean) {
    this.#random = random;
    this.#isSimple = isSimple;
  }

  /**
   * @param isBare an array of the type that its place gives it may go without a cast
   * @param isListed whether as ARRAY[…]; null: any form
   */
  write({ element, members }: GivenArray, isBare: boolean, isListed: boolean | null = null): string {
    const cast = isBare && this.#random.oneIn(2) ? '' : `::${element}[]`;
    if (members !== null && members.length > 0 && (isListed ?? this.#random.oneIn(5))) {
      const each = members.map((member) => (member === null ? 'NULL' : literal(member)));
      return `ARRAY[${each.join()}]::${element}[]`;
    }
    if (this.#isSimple || this.#random.oneIn(5)) {
      return members === null ? `NULL${cast}` : literal(this.#written(members)) + cast;
    }
    const isBinary = members !== null && ELEMENT_OIDS[element] !== undefined && this.#random.oneIn(2);
    this.types.push(isBinary || this.#random.oneIn(2) ? ARRAY_OIDS[element] : 0);
    this.formats.push(isBinary ? 1 : 0);
    this.values.push(members === null ? null : isBinary ? this.#binary(element, members) : this.#written(members));
    return `$${this.values.length}${cast}`;
  }

  /** A text by itself. */
  writeText(text: string): string {
    if (this.#isSimple || this.#random.oneIn(3)) return literal(text);
    this.types.push(this.#random.oneIn(2) ? 25 : 0);
    this.formats.push(this.#random.integer(2));
    this.values.push(text);
    return `$${this.values.length}${this.#random.oneIn(2) ? '::text' : ''}`;
  }

  #written(members: readonly (string | null)[]): string {
    const random = this.#random;
    const gap = random.oneIn(6) ? ' ' : '';
    const each = members.map((member) => {
      if (member === null) return random.pick(['NULL', 'null']);
      const isPlain = /^[\w:-]+$/.test(member) && !/^null$/i.test(member);
      return isPlain && random.oneIn(2) ? member : `"${member.replace(/[\\"]/g, '\\$&')}"`;
    });
    if (!this.isPlain && each.length > 1 && each.length % 2 === 0 && random.oneIn(8)) {
      const half = each.length / 2;
      return `{{${each.slice(0, half).join()}},${gap}{${each.slice(half).join()}}}`;
    }
    const bounds = !this.isPlain && each.length > 0 && random.oneIn(8) ? `[5:${4 + each.length}]=` : '';
    return `${bounds}{${each.join(`${gap},${gap}`)}}`;
  }

  #binary(element: Element, members: readonly (string | null)[]): Buffer {
    const head = Buffer.alloc(members.length === 0 ? 12 : 20);
    head.writeInt32BE(members.length === 0 ? 0 : 1, 0);
    head.writeInt32BE(members.includes(null) ? 1 : 0, 4);
    head.writeInt32BE(ELEMENT_OIDS[element]!, 8);
    if (members.length > 0) {
      head.writeInt32BE(members.length, 12);
      head.writeInt32BE(!this.isPlain && this.#random.oneIn(6) ? 3 : 1, 16);
    }
    return Buffer.concat([head, ...members.flatMap((member) => sized(element, member))]);
  }
}

function sized(element: Element, member: string | null): Buffer[] {
  if (member === null) return [Buffer.from([0xff, 0xff, 0xff, 0xff])];
  let value = Buffer.from(member);
  if (element === 'jsonb') value = Buffer.concat([Buffer.from([1]), value]);
  if (element === 'bigint') {
    value = Buffer.alloc(8);
    value.writeBigInt64BE(BigInt(member));
  }
  const length = Buffer.alloc(4);
  length.writeInt32BE(value.length);
  return [length, value];
}

/** In batches as drivers send them. */
export function messagesOf(random: SeededRandom, text: string, writer: ArrayWriter | null): FrontendMessage[][] {
  if (writer === null) return [[{ query: text }]];
  const { types, values, formats } = writer;
  const parse: FrontendMessage = { parse: text, types };
  const bind: FrontendMessage = { bind: values, formats, resultFormats: random.pick([[], [0], [1]]) };
  const describe: FrontendMessage = { describe: 'portal' };
  const execute: FrontendMessage = { execute: '' };
  return random.pick<FrontendMessage[][]>([
    [[parse, bind, execute, 'sync']],
    [[parse, bind, describe, execute, 'sync']],
    [
      [parse, { describe: 'statement' }, 'sync'],
      [bind, describe, execute, 'sync'],
    ],
    [[parse, bind, describe, { execute: '', rows: 2 }, execute, 'sync']],
  ]);
}
