// The order in which Postgres sorts values, found from their binary format: what a merge by sort keys compares.
// Types whose order cannot be read off their bytes exactly are refused, never guessed (D10).
import { isAscii } from 'node:buffer';
import { refusalError, refuse } from '../../base/refusals.js';
import type { SortKey } from '../../sql/plan/kv-plan.js';
import { type ClientEncoding, exactText, UTF8 } from '../../sql/text/client-encoding.js';
import { TypeOid, typeInWords } from '../../wire/type-oids.js';
import { compareNumeric } from './numeric-order.js';

/** Compares the value of `aBytes` bytes at `a[aAt]` with the one at `b[bAt]`. Allocates nothing. */
export type CompareValues = (a: Buffer, aAt: number, aBytes: number, b: Buffer, bAt: number, bBytes: number) => number;

const compareBytes: CompareValues = (a, aAt, aBytes, b, bAt, bBytes) =>
  a.compare(b, bAt, bAt + bBytes, aAt, aAt + aBytes);

const compareInt16: CompareValues = (a, aAt, _, b, bAt) => a.readInt16BE(aAt) - b.readInt16BE(bAt);
const compareInt32: CompareValues = (a, aAt, _, b, bAt) => a.readInt32BE(aAt) - b.readInt32BE(bAt);
/** Also dates, where the infinities are the extreme numbers. */
const compareInt64: CompareValues = (a, aAt, _, b, bAt) => {
  const high = a.readInt32BE(aAt) - b.readInt32BE(bAt);
  return high !== 0 ? high : a.readUInt32BE(aAt + 4) - b.readUInt32BE(bAt + 4);
};

/** NaN is the greatest and equal to itself (float8_cmp_internal). */
function compareFloats(a: number, b: number): number {
  if (a < b) return -1;
  if (a > b) return 1;
  if (a === b) return 0;
  return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
}
const compareFloat4: CompareValues = (a, aAt, _, b, bAt) => compareFloats(a.readFloatBE(aAt), b.readFloatBE(bAt));
const compareFloat8: CompareValues = (a, aAt, _, b, bAt) => compareFloats(a.readDoubleBE(aAt), b.readDoubleBE(bAt));

const COMPARATORS: ReadonlyMap<number, CompareValues> = new Map([
  [TypeOid.bool, compareBytes],
  [TypeOid.bytea, compareBytes],
  [TypeOid.char, compareBytes],
  [TypeOid.name, compareBytes],
  [TypeOid.int8, compareInt64],
  [TypeOid.int2, compareInt16],
  [TypeOid.int4, compareInt32],
  [TypeOid.text, compareBytes],
  [TypeOid.oid, compareBytes],
  [TypeOid.float4, compareFloat4],
  [TypeOid.float8, compareFloat8],
  [TypeOid.money, compareInt64],
  [TypeOid.varchar, compareBytes],
  [TypeOid.date, compareInt32],
  [TypeOid.time, compareInt64],
  [TypeOid.timestamp, compareInt64],
  [TypeOid.timestamptz, compareInt64],
  [TypeOid.numeric, compareNumeric],
  [TypeOid.uuid, compareBytes],
  [TypeOid.pgLsn, compareBytes],
  [TypeOid.xid8, compareBytes],
]);
/** Whose order depends on a collation; `name` is always in byte order. */
const COLLATED: ReadonlySet<number> = new Set([TypeOid.text, TypeOid.varchar]);

export interface SortOrder {
  readonly compare: CompareValues;
  readonly descending: boolean;
  readonly nullsFirst: boolean;
}

/** Sorted as servers do, by their own encoding, which is UTF-8, and not by the bytes that the client is sent. */
const TEXTS: ReadonlySet<number> = new Set([TypeOid.text, TypeOid.varchar, TypeOid.name]);

function compareTexts(encoding: ClientEncoding): CompareValues {
  const utf8Of = (bytes: Buffer): Buffer => {
    const text = exactText(encoding, bytes);
    if (text !== null) return Buffer.from(text, 'utf8');
    throw refusalError(refuse('sort_encoding', { encoding: encoding.name }));
  };
  return (a, aAt, aBytes, b, bAt, bBytes) => {
    const one = a.subarray(aAt, aAt + aBytes);
    const other = b.subarray(bAt, bAt + bBytes);
    return isAscii(one) && isAscii(other) ? one.compare(other) : utf8Of(one).compare(utf8Of(other));
  };
}

/**
 * @param byteOrder whether the databases' default collation is byte order
 * @param encoding in which values of text come. Throws 0A000 for what cannot be merged.
 */
export function sortOrder(type: number, key: SortKey, byteOrder: boolean, encoding = UTF8): SortOrder {
  const compare = !encoding.isUtf8 && TEXTS.has(type) ? compareTexts(encoding) : COMPARATORS.get(type);
  if (compare === undefined) {
    throw refusalError(refuse('sort_type', { type: typeInWords(type) }));
  }
  if (COLLATED.has(type) && key.needsByteOrder && !byteOrder) {
    throw refusalError(refuse('sort_collation'));
  }
  return { compare, descending: key.descending, nullsFirst: key.nullsFirst };
}
