// Statements with places for values: a value stands in the text as a literal, or travels as a parameter in text or binary.
import type { Random } from './random.js';
import type { Statement, Touch } from './script.js';

export interface Slot {
  readonly literal: string;
  readonly type: number;
  readonly text: string | null;
  readonly binary: Buffer | null;
}

export const TYPES = { bool: 16, bytea: 17, int8: 20, int4: 23, text: 25, float8: 701, jsonb: 3802 } as const;

/** A statement's text in pieces, a value between each two. */
export interface Form {
  readonly pieces: readonly string[];
  readonly slots: readonly Slot[];
  readonly touch: Touch;
}

export interface BoundForm {
  readonly statement: Statement;
  readonly types: readonly number[];
  readonly values: readonly (string | null | { readonly hex: string })[];
}

/** form(touch)`select … ${slot} … ${'words'}` */
export const form =
  (touch: Touch) =>
  (texts: TemplateStringsArray, ...parts: readonly (Slot | string)[]): Form => {
    const pieces = [texts[0]!];
    const slots: Slot[] = [];
    for (const [index, part] of parts.entries()) {
      const next = texts[index + 1]!;
      if (typeof part === 'string') pieces[pieces.length - 1] += part + next;
      else {
        slots.push(part);
        pieces.push(next);
      }
    }
    return { pieces, slots, touch };
  };

const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;

export const text = (value: string): Slot => ({
  literal: quoted(value),
  type: TYPES.text,
  text: value,
  binary: Buffer.from(value),
});

export const json = (value: string): Slot => ({
  literal: quoted(value),
  type: TYPES.jsonb,
  text: value,
  binary: Buffer.concat([Buffer.of(1), Buffer.from(value)]),
});

export function int8(value: number): Slot {
  const binary = Buffer.alloc(8);
  binary.writeBigInt64BE(BigInt(value));
  return { literal: String(value), type: TYPES.int8, text: String(value), binary };
}

export function int4(value: number): Slot {
  const binary = Buffer.alloc(4);
  binary.writeInt32BE(value);
  return { literal: String(value), type: TYPES.int4, text: String(value), binary };
}

export function float8(value: number): Slot {
  const binary = Buffer.alloc(8);
  binary.writeDoubleBE(value);
  return { literal: String(value), type: TYPES.float8, text: String(value), binary };
}

export const nullOf = (type: number): Slot => ({ literal: 'null', type, text: null, binary: null });

export function inText({ pieces, slots, touch }: Form): Statement {
  const sql = pieces.map((piece, index) => piece + (slots[index]?.literal ?? '')).join('');
  return { sql, touch };
}

/** Some values as parameters, each in text or binary; some of their types declared, now and then one that nobody uses. */
export function bind({ pieces, slots, touch }: Form, random: Random): BoundForm {
  const inlined = random.chance(0.2) ? random.between(0, slots.length) : -1;
  const declares = random.weighted([
    [5, 'none'],
    [4, 'all'],
    [1, 'some'],
    [1, 'more'],
  ] as const);
  let sql = '';
  const types: number[] = [];
  const values: BoundForm['values'][number][] = [];
  for (const [index, piece] of pieces.entries()) {
    sql += piece;
    const slot = slots[index];
    if (slot === undefined) continue;
    if (index === inlined) {
      sql += slot.literal;
      continue;
    }
    const isDeclared = declares === 'all' || declares === 'more' || (declares === 'some' && random.chance(0.5));
    types.push(isDeclared ? slot.type : 0);
    const isBinary = isDeclared && slot.binary !== null && random.chance(0.4);
    values.push(isBinary ? { hex: slot.binary!.toString('hex') } : slot.text);
    sql += `$${values.length}`;
  }
  if (declares === 'more') {
    types.push(TYPES.int4);
    values.push('7');
  }
  return { statement: { sql, touch }, types: declares === 'none' ? [] : types, values };
}
