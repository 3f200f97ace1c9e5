// Literals of every spelling and class, texts with other literals in their places, and trees to compare: for the property
// tests of what holds for all texts of a shape.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parse } from '../../../src/sql/meaning/parse.js';
import { LITERAL_STRIDE, LiteralKind, lexShape } from '../../../src/sql/text/shape-lexer.js';

/** The trees without places and without the values of constants: names must be the same. */
export function trees(text: string): string | null {
  const parsed = parse(text);
  if (parsed.kind === 'failed') return null;
  return JSON.stringify(
    parsed.statements.map(({ node }) => node),
    (key, value: unknown) => {
      if (key === 'A_Const') {
        const { location: _, ...constant } = value as Record<string, unknown>;
        return Object.keys(constant);
      }
      return /(^|_)(location|list_start|list_end)$/.test(key) ? undefined : value;
    },
  );
}

export const string = fc.string({ unit: 'grapheme', maxLength: 8 }).map((value) => value.replaceAll('\0', ''));
const quoted = string.map((value) => `'${value.replaceAll("'", "''")}'`);
export const anyString = fc.oneof(
  quoted,
  string.map((value) => `E'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}\\n\\'\\\\'`),
  string.map((value) => `$q1$${value.replaceAll('$', '€')}'$q1$`),
  fc.tuple(quoted, quoted).map(([one, other]) => `${one} \n\t${other}`),
);
export const integer = fc.oneof(
  fc.nat().map(String),
  fc.nat().map((value) => `0x${value.toString(16)}`),
  fc.constantFrom('1_000', '007', '0b1_1', '0o17', '2147483647'),
);
export const numeric = fc.oneof(
  fc.constantFrom('2147483648', '0xFFFFFFFFFF', '1.', '.5', '1.5', '1e10', '1_0.5E-3', '99999999999999999999'),
  fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }).map((value) => value.toExponential()),
);
export const bits = fc.constantFrom("B'01'", "b''", "B'1'\n'0'");
export const hex = fc.constantFrom("X'1F'", "x''");

const OF_KIND = [anyString, anyString, anyString, bits, hex, integer, numeric] as const;

/** The text with its lifted literals replaced by others of the same class. */
export function withOtherLiterals(text: string): fc.Arbitrary<string> {
  const shape = lexShape(text, true);
  assert.ok(shape, text);
  const parts: (string | fc.Arbitrary<string>)[] = [];
  let copied = 0;
  for (let i = 0; i < shape.literals.length; i += LITERAL_STRIDE) {
    const kind = shape.literals[i + 2]!;
    if (kind === LiteralKind.opaque) continue;
    const before = text.slice(copied, shape.literals[i]);
    // N'x' and date'x' stay together only with a plain quote.
    parts.push(before, /\w$/.test(before) ? quoted : OF_KIND[kind]!);
    copied = shape.literals[i + 1]!;
  }
  parts.push(text.slice(copied));
  return fc
    .tuple(...parts.map((part) => (typeof part === 'string' ? fc.constant(part) : part)))
    .map((pieces) => pieces.join(''));
}
