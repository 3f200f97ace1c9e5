// Backslashes in COPY's text format, as Postgres reads them.
// src/backend/commands/copyfromparse.c: CopyReadAttributesText

const BACKSLASH = 92;
/** By the letter behind the backslash. */
const CONTROLS: ReadonlyMap<number, number> = new Map(
  [...'btnvfr'].map((letter, index) => [letter.charCodeAt(0), 8 + index] as const),
);
const ZERO = 48;
const isOctal = (byte: number | undefined): boolean => byte !== undefined && byte >= ZERO && byte <= 55;
const hexOf = (byte: number | undefined): number => {
  if (byte === undefined) return -1;
  if (byte >= ZERO && byte <= 57) return byte - ZERO;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
};

const HEX_MARK = 120;

/** Where the escape at `at` ends, which has more than its backslash: hexadecimal digits are its own, whatever separates fields. */
export function escapeEnd(bytes: Buffer, at: number, end: number): number {
  let behind = at + 2;
  if (bytes[at + 1] !== HEX_MARK) return behind;
  for (let digits = 0; digits < 2 && behind < end && hexOf(bytes[behind]) >= 0; digits++) behind++;
  return behind;
}

/** A field in text format, without its backslashes. */
export function unescaped(field: Buffer): Buffer {
  const out = Buffer.allocUnsafe(field.length);
  let to = 0;
  for (let at = 0; at < field.length; ) {
    const byte = field[at++]!;
    if (byte !== BACKSLASH || at === field.length) {
      out[to++] = byte;
      continue;
    }
    const letter = field[at++]!;
    if (isOctal(letter)) {
      let value = letter - ZERO;
      for (let more = 0; more < 2 && isOctal(field[at]); more++) value = (value << 3) + field[at++]! - ZERO;
      out[to++] = value & 0xff;
    } else if (letter === HEX_MARK && hexOf(field[at]) >= 0) {
      let value = hexOf(field[at++]);
      if (hexOf(field[at]) >= 0) value = (value << 4) + hexOf(field[at++]);
      out[to++] = value;
    } else out[to++] = CONTROLS.get(letter) ?? letter;
  }
  return out.subarray(0, to);
}
