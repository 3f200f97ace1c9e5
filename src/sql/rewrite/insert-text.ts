// The text of an INSERT of several rows, made of some of them or all. Where a row of the same key has expired it must not stand in
// the way, so that it is reaped first (D9; see keyed/kv-insert.ts):
//
//   WITH "pgkv reaped" AS MATERIALIZED (DELETE FROM kv AS "pgkv old" USING (VALUES ($1, $2), …) AS "pgkv new"(tenant_id, key) …)
//   INSERT INTO kv (tenant_id, key, value) VALUES (CASE WHEN (SELECT count(*) FROM "pgkv reaped") >= 0 THEN $1 END, $2, $3), …
//
// The same pieces make every such text: what is proven of all rows holds for some, and a place in one is known in the other.
import type { InsertRows } from '../plan/kv-plan.js';
import { renderText } from '../text/kv-text.js';
import type { TextParts } from '../text/text-parts.js';
import { joinParts } from '../text/text-tokens.js';
import { hasExpired } from './kv-rewrites.js';

export const REAPED = '"pgkv reaped"';
const NEW_ROWS = '"pgkv new"';
const OLD_ROW = '"pgkv old"';
/** In front of the first row's tenant_id, which is the first to be computed, and behind it. */
export const CARRIER = [`CASE WHEN (SELECT pg_catalog.count(*) FROM ${REAPED}) >= 0 THEN`, 'END'] as const;

const REAPS = `WHERE ${OLD_ROW}.tenant_id = ${NEW_ROWS}.tenant_id AND ${OLD_ROW}.key = ${NEW_ROWS}.key
  AND ${hasExpired(`${OLD_ROW}.ttl`)} RETURNING 1)`.replace(/\s+/g, ' ');

/** Waits for it, in a WHERE. */
export const HAS_REAPED = `(SELECT pg_catalog.count(*) FROM ${REAPED}) >= 0`;

/** @param keys a SELECT of tenant_id and key of the new rows */
export const reapingOf = (table: TextParts, keys: TextParts): TextParts =>
  joinParts(
    `WITH ${REAPED} AS MATERIALIZED ( DELETE FROM`,
    table,
    `AS ${OLD_ROW} USING (`,
    keys,
    `) AS ${NEW_ROWS}(tenant_id, key) ${REAPS}`,
  );

/** The value as it stands, casts included: what it is cast to here decides a parameter's type. */
const CAST = ')::pg_catalog.text';

/** `at` says which one it is, whatever others there are. */
interface Piece {
  readonly at: string;
  readonly parts: TextParts;
}

const own = (text: string): Piece => ({ at: '', parts: [text] });

/** @param rows indexes of those that are meant */
function* pieces(insert: InsertRows, rows: readonly number[], hides: boolean): Generator<Piece> {
  yield* reapingPieces(insert, rows);
  yield own(' ');
  yield { at: 'head', parts: insert.head };
  for (const [nth, index] of rows.entries()) {
    const { before, tenant, after } = insert.rows[index]!;
    yield own(nth === 0 ? ' ' : ', ');
    yield { at: `before ${index}`, parts: before };
    yield own(nth === 0 ? ` ${CARRIER[0]} ` : ' ');
    yield { at: `tenant ${index}`, parts: tenant };
    yield own(nth === 0 ? ` ${CARRIER[1]} ` : ' ');
    yield { at: `after ${index}`, parts: after };
  }
  yield own(' ');
  yield { at: 'tail', parts: insert.tail };
  if (hides) yield own(insert.hidden);
}

function* reapingPieces(insert: InsertRows, rows: readonly number[]): Generator<Piece> {
  yield own(`WITH ${REAPED} AS MATERIALIZED ( DELETE FROM `);
  yield { at: 'table', parts: insert.table };
  yield own(` AS ${OLD_ROW} USING (VALUES (`);
  for (const [nth, index] of rows.entries()) {
    const { tenant, key } = insert.rows[index]!;
    yield own(nth === 0 ? '(' : ', ((');
    yield { at: `reaped tenant ${index}`, parts: tenant };
    yield own(`${CAST}, (`);
    yield { at: `reaped key ${index}`, parts: key };
    yield own(`${CAST})`);
  }
  yield own(`) AS ${NEW_ROWS}(tenant_id, key) ${REAPS}`);
}

/** @param hides what is hidden from the client is returned, too */
export function insertText(insert: InsertRows, rows: readonly number[], hides: boolean): TextParts {
  return joined(pieces(insert, rows, hides));
}

/** What stands in front of INSERT where all rows are meant. */
export const reapingText = (insert: InsertRows): TextParts => joined(reapingPieces(insert, allRows(insert)));

function joined(all: Iterable<Piece>): TextParts {
  const parts: (string | number)[] = [];
  let pending = '';
  for (const piece of all) {
    for (const part of piece.parts) {
      if (typeof part === 'string') pending += part;
      else {
        if (pending !== '') parts.push(pending);
        pending = '';
        parts.push(part);
      }
    }
  }
  if (pending !== '') parts.push(pending);
  return parts;
}

export const allRows = ({ rows }: InsertRows): number[] => rows.map((_, index) => index);

/** The same with another text in each piece. */
export function mapPieces(insert: InsertRows, change: (parts: TextParts) => TextParts): InsertRows {
  const { table, head, rows, tail, ...rest } = insert;
  return {
    ...rest,
    table,
    head: change(head),
    rows: rows.map((row) => ({ ...row, before: change(row.before), after: change(row.after) })),
    tail: change(tail),
  };
}

const characters = (text: string): number => [...text].length;

/**
 * Where a place in the text of some rows, told in characters from 1, is in the text of all.
 * @param text the client's, and its literals
 */
export function placeInAll(
  insert: InsertRows,
  rows: readonly number[],
  text: string,
  literals: readonly number[],
  position: number,
): number {
  let left = position - 1;
  let at = 'tail';
  for (const piece of pieces(insert, rows, true)) {
    const length = characters(renderText(piece.parts, text, literals));
    if (left < length && piece.at !== '') {
      at = piece.at;
      break;
    }
    // What pgkv has put in stands for what follows.
    left = Math.max(0, left - length);
  }
  let before = 0;
  for (const piece of pieces(insert, allRows(insert), false)) {
    if (piece.at === at) break;
    before += characters(renderText(piece.parts, text, literals));
  }
  return before + left + 1;
}
