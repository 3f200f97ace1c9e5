// The order of numeric values in their binary format: Int16 count of digits, weight of the first one, sign, scale, then
// digits of base 10,000. Follows cmp_numerics and cmp_abs_common of Postgres's numeric.c.

const NEGATIVE = 0x4000;
const NAN = 0xc000;
const INFINITY = 0xd000;
const NEGATIVE_INFINITY = 0xf000;
const HEADER_BYTES = 8;

/** -Infinity < numbers < Infinity < NaN, all NaN being equal. */
function rank(sign: number): number {
  switch (sign) {
    case NEGATIVE_INFINITY:
      return -1;
    case INFINITY:
      return 1;
    case NAN:
      return 2;
    default:
      return 0;
  }
}

/** Compares the values at `aAt` and `bAt`. Their lengths follow from the counts they begin with. */
export function compareNumeric(a: Buffer, aAt: number, _aBytes: number, b: Buffer, bAt: number): number {
  const aSign = a.readUInt16BE(aAt + 4);
  const bSign = b.readUInt16BE(bAt + 4);
  const aRank = rank(aSign);
  const bRank = rank(bSign);
  if (aRank !== 0 || bRank !== 0) return aRank - bRank;
  const aDigits = a.readUInt16BE(aAt);
  const bDigits = b.readUInt16BE(bAt);
  // Zero has no digits and no sign.
  const aDirection = aDigits === 0 ? 0 : aSign === NEGATIVE ? -1 : 1;
  const bDirection = bDigits === 0 ? 0 : bSign === NEGATIVE ? -1 : 1;
  if (aDirection !== bDirection) return aDirection - bDirection;
  return aDirection * compareMagnitude(a, aAt, aDigits, b, bAt, bDigits);
}

function compareMagnitude(a: Buffer, aAt: number, aDigits: number, b: Buffer, bAt: number, bDigits: number): number {
  let aWeight = a.readInt16BE(aAt + 2);
  let bWeight = b.readInt16BE(bAt + 2);
  const aFirst = aAt + HEADER_BYTES;
  const bFirst = bAt + HEADER_BYTES;
  let i = 0;
  let j = 0;
  // Digits before the first of the other number; they need not be there, and may be zero.
  for (; aWeight > bWeight && i < aDigits; aWeight--, i++) if (a.readInt16BE(aFirst + 2 * i) !== 0) return 1;
  for (; bWeight > aWeight && j < bDigits; bWeight--, j++) if (b.readInt16BE(bFirst + 2 * j) !== 0) return -1;
  if (aWeight === bWeight) {
    for (; i < aDigits && j < bDigits; i++, j++) {
      const difference = a.readInt16BE(aFirst + 2 * i) - b.readInt16BE(bFirst + 2 * j);
      if (difference !== 0) return difference;
    }
  }
  for (; i < aDigits; i++) if (a.readInt16BE(aFirst + 2 * i) !== 0) return 1;
  for (; j < bDigits; j++) if (b.readInt16BE(bFirst + 2 * j) !== 0) return -1;
  return 0;
}
