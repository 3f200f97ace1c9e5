// An INSERT whose rows are nothing but parameters and literals, as one for some of its rows that does without pgkv's additions: no
// row that has expired is reaped, so that it fails where one stands in the way, and the slot of each row is given, so that no
// trigger has to compute it. The parameters of the rows that are meant are numbered from 1: where all rows are alike, the text
// depends on nothing but how many there are.
import type { InsertRow, InsertRows } from '../plan/kv-plan.js';
import { renderText } from '../text/kv-text.js';
import type { TextParts } from '../text/text-parts.js';

interface PlainRow {
  /** What stands in front of each parameter, and behind the last one, without the bracket that ends the row. */
  readonly between: readonly TextParts[];
  /** Their numbers in the client's statement. */
  readonly parameters: readonly number[];
}

export interface PlainInsert {
  readonly rows: readonly PlainRow[];
  /** By number of rows; null: the rows are not alike, or have literals. */
  readonly texts: Map<number, string> | null;
  /** How many parameters the client's statement has. */
  readonly parameters: number;
  readonly head: string;
}

/** Texts of one statement that are kept, each for another number of rows. */
const TEXTS_MAX = 64;
/** Of one of them, in UTF-16 units: longer ones are made anew. */
const KEPT_TEXT_MAX = 4_096;
const TYPES = 'text|varchar|jsonb|json|bytea|timestamptz|bigint|int8|integer|int4|boolean|uuid';
/** Nothing that could be evaluated in more than one way, or do anything. Literals are no strings here. */
const PLAIN = new RegExp(String.raw`^(?:\s|[(),]|\$\d+|::\s*(?:${TYPES})\b|\b(?:NULL|DEFAULT)\b)*$`, 'i');
const PARAMETER = /\$(\d+)/;
const COLUMNS_END = /\)(\s*VALUES\s*)$/i;
const ROW_END = /\)\s*$/;

const plainInserts = new WeakMap<InsertRows, { readonly plain: PlainInsert | null }>();

/** @returns null: it has more than that */
export function plainInsert(insert: InsertRows): PlainInsert | null {
  let known = plainInserts.get(insert);
  if (known === undefined) {
    known = { plain: readPlain(insert) };
    plainInserts.set(insert, known);
  }
  return known.plain;
}

function readPlain({ head, rows, tail, hidden, parameters, entangled }: InsertRows): PlainInsert | null {
  const [start] = head;
  const isBare = withoutBlanks(tail) === '' && hidden === '' && parameters.length === 0 && entangled.length === 0;
  if (!isBare || head.length !== 1 || typeof start !== 'string' || !COLUMNS_END.test(start)) return null;
  const plain: PlainRow[] = [];
  for (const row of rows) {
    const one = plainRow(row);
    if (one === null) return null;
    plain.push(one);
  }
  const numbers = new Set(plain.flatMap((row) => row.parameters));
  const highest = Math.max(0, ...numbers);
  // Of one that stands nowhere a server cannot know the type.
  if (numbers.size !== highest) return null;
  return {
    rows: plain,
    texts: plain.every((row) => isLike(row, plain[0]!)) ? new Map() : null,
    parameters: highest,
    head: start.replace(COLUMNS_END, ', slot)$1'),
  };
}

const withoutBlanks = (parts: TextParts): string => parts.join('').trim();

function plainRow({ before, tenant, after }: InsertRow): PlainRow | null {
  const between: (string | number)[][] = [[]];
  const parameters: number[] = [];
  for (const part of [...before, ' ', ...tenant, ' ', ...after]) {
    if (typeof part === 'number') between.at(-1)!.push(part);
    else if (!PLAIN.test(part)) return null;
    else {
      const [first, ...pieces] = part.split(PARAMETER);
      between.at(-1)!.push(first!);
      for (let at = 0; at < pieces.length; at += 2) {
        parameters.push(Number(pieces[at]));
        between.push([pieces[at + 1]!]);
      }
    }
  }
  const last = between.at(-1)!;
  const end = last.at(-1);
  // One parameter in two places has the type of the first.
  if (typeof end !== 'string' || !ROW_END.test(end) || new Set(parameters).size < parameters.length) return null;
  last[last.length - 1] = end.replace(ROW_END, '');
  return { between, parameters };
}

const isLike = ({ between }: PlainRow, other: PlainRow): boolean =>
  between.length === other.between.length &&
  between.every(
    (parts, at) => parts.every((part) => typeof part === 'string') && parts.join() === other.between[at]!.join(),
  );

/**
 * @param rows indexes of those that are meant
 * @param slots of these rows; null: each is one more parameter, behind those of its row
 * @param text the client's, and its literals
 */
export function plainText(
  plain: PlainInsert,
  rows: readonly number[],
  slots: readonly number[] | null,
  text: string,
  literals: readonly number[],
): string {
  const known = slots === null ? plain.texts?.get(rows.length) : undefined;
  if (known !== undefined) return known;
  let made = plain.head;
  let number = 0;
  for (const [nth, row] of rows.entries()) {
    made += nth === 0 ? ' ' : ', ';
    for (const [at, parts] of plain.rows[row]!.between.entries()) {
      if (at > 0) made += `$${++number}`;
      made += renderText(parts, text, literals);
    }
    made += slots === null ? `, $${++number})` : `, ${slots[nth]})`;
  }
  const isKept = slots === null && made.length <= KEPT_TEXT_MAX;
  if (isKept && plain.texts !== null && plain.texts.size < TEXTS_MAX) plain.texts.set(rows.length, made);
  return made;
}
