// What a statement that pgkv answers by itself is, and how its one column is told in either format.
import type { PgkvError } from '../../base/errors.js';
import { BOOL_COLUMN, type ColumnType, INT4_COLUMN } from '../../wire/server-messages.js';

export interface OwnColumn {
  readonly name: string;
  readonly type: ColumnType;
}

export type OwnValue = string | number | boolean | null;

export type OwnOutcome =
  | {
      readonly kind: 'rows';
      readonly values: readonly OwnValue[];
      /** `SELECT`: with the number of rows behind it. Null: an empty query. */
      readonly tag: string | null;
      /** Told before the rows; null for most. */
      readonly notice: Buffer | null;
    }
  /** `runs`: it came while the statement ran, behind the description of its result. */
  | {
      readonly kind: 'error';
      readonly error: PgkvError | Buffer;
      readonly runs: boolean;
      /** Told before it; none for most. */
      readonly values?: readonly OwnValue[];
    }
  /** The session ends by it: no more than this is told. */
  | { readonly kind: 'ends'; readonly values: readonly OwnValue[] };

export interface OwnStatement {
  /** Null: it has no rows. */
  readonly column: OwnColumn | null;
  /** `done` is called once, at once or later. */
  run(done: (outcome: OwnOutcome) => void): void;
}

export const atOnce = (column: OwnColumn | null, run: () => OwnOutcome): OwnStatement => ({
  column,
  run: (done) => done(run()),
});

export const tagOnly = (tag: string | null): OwnOutcome => ({ kind: 'rows', values: [], tag, notice: null });

/** @param format 0 text, 1 binary */
export function encodedValue(value: OwnValue, { oid }: ColumnType, format: number): Buffer | null {
  if (value === null) return null;
  if (oid === BOOL_COLUMN.oid) return format === 1 ? Buffer.of(value === true ? 1 : 0) : Buffer.from(value ? 't' : 'f');
  if (oid !== INT4_COLUMN.oid || format !== 1) return Buffer.from(String(value), 'utf8');
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(Number(value));
  return bytes;
}
