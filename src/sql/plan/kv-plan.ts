// What a text does to a key-value table, found once and kept in its Template: which keys, how the text has to read on a
// shard (D9, D4), and how the answers of several shards become one. It knows no shards: route/ turns it into a Route.
import type { Refusal } from '../../base/refusals.js';
import type { KvTable } from '../../cluster/kv-table.js';
import type { TextParts } from '../text/text-parts.js';

/** Where a value stands: the n-th literal of the text (see Shape.literals, counted from 0), or parameter $number. */
export type ValueRef =
  | {
      readonly kind: 'literal';
      readonly index: number;
      /** What it says, where that is part of the shape (LiteralKind.opaque): the same in all texts of it. */
      readonly value?: string;
    }
  | {
      readonly kind: 'parameter';
      readonly number: number;
      /** Its type may come from another place than this one, if it was declared without. */
      readonly usedElsewhere?: boolean;
    }
  | { readonly kind: 'null' };

/**
 * Keys a statement names. `one`: a single key. `list`: the second value is an array of text (`key = ANY($1)`).
 * `lists`: both are arrays of text of the same length (plural functions with tenants and keys).
 */
export interface KeyRef {
  readonly kind: 'one' | 'list' | 'lists';
  readonly tenant: ValueRef;
  readonly key: ValueRef;
}

/** A column by which answers of shards are sorted. */
export interface SortKey {
  readonly descending: boolean;
  readonly nullsFirst: boolean;
  /** The values are text under a collation that is not known to be byte order: right only where the database's own is. */
  readonly needsByteOrder: boolean;
}

/** How the answers of several shards to a SELECT become one. */
export type ScatterPlan = SortedPlan | CombinePlan;

interface Timed {
  /** The statement asks for the time: `shardText` takes two pseudo-parameters (scatter/instant-parameters.ts). */
  readonly hasInstant?: true;
}

/** Rows as they come, or sorted: the shards' sorted answers are merged by these keys. */
export interface SortedPlan extends Timed, SortedText {
  readonly kind: 'sorted';
  /**
   * For clients whose encoding is not the servers': of each key come its value, NULL where that is text, and behind it the bytes of
   * text as servers have it, NULL where it is none. Null: there are no keys.
   */
  readonly recoded: SortedText | null;
  /** Rows wanted and skipped, applied to all shards' rows together; null: all, none. NULL as a value means the same. */
  readonly limit: ValueRef | null;
  readonly offset: ValueRef | null;
}

export interface SortedText {
  /** What every shard runs: LIMIT widened by OFFSET, sort keys appended to the select list. */
  readonly shardText: TextParts;
  /** The last columns of the shards' rows, in order; asked for in binary; never shown. Empty: rows in any order. */
  readonly sortKeys: readonly SortKey[];
}

/**
 * Aggregates: the shards' partial rows are handed to the home server, which does the rest in Postgres's own arithmetic.
 */
export interface CombinePlan extends Timed {
  readonly kind: 'combine';
  /** What every shard runs: one column per partial, in order. */
  readonly shardText: TextParts;
  readonly partials: readonly PartialColumn[];
  /**
   * The statement for the home server: `{0}`, `{1}` … in its strings stand for the partials' columns, `{rows}` for the
   * relation that holds them, `{type:0}` for the type of a partial's column.
   */
  readonly finalText: TextParts;
}

export interface PartialColumn {
  /** For error messages and tests: group | count | sum | min | max | … */
  readonly role: string;
}

/** Means on every shard the rows that it has: runs there as it is, with the numbers of rows added up. */
export interface SpreadPlan {
  /** It returns rows. */
  readonly returns: boolean;
  /** An INSERT: each shard gets its rows; null: all get the same text. */
  readonly insert: InsertRows | null;
  /** It asks for the time: with two pseudo-parameters (scatter/instant-parameters.ts), in `text` or in the pieces of `insert`. */
  readonly hasInstant: boolean;
  /** What all shards run; null: KvPlan.text. */
  readonly text: TextParts | null;
}

/** Parallel arrays of which each shard gets the members that are its own: those of a plural function, or of unnest(). */
export interface MemberPlan {
  readonly tenant: MemberValue;
  readonly key: MemberValue;
  /** What is cut before it is sent. Literals among them become parameters (scatter/member-parameters.ts). */
  readonly arrays: readonly MemberArray[];
  /** Numbers of members of those that stand in the text as ARRAY[…], which the shards cut. */
  readonly written: readonly number[];
  /** Shorter ones are filled up with NULLs, and NULL is none at all, as by unnest(); else either is an error. */
  readonly isPadded: boolean;
  /** By what rows that are returned are put in order: the member's number, or its tenant_id and key; behind the client's columns. */
  readonly order: 'number' | 'key';
  readonly descending: boolean;
}

/** Of each member. */
export type MemberValue =
  | { readonly kind: 'array'; readonly array: ValueRef }
  | { readonly kind: 'each'; readonly values: readonly ValueRef[] }
  | { readonly kind: 'same'; readonly value: ValueRef };

export interface MemberArray {
  readonly ref: ValueRef;
  /** A member's value is what stands there under its number, whatever bounds the array has; else they are counted as unnest() does. */
  readonly isSubscripted: boolean;
  /** NULL stands for no array at all. */
  readonly isOptional: boolean;
}

/** An INSERT of several rows, in pieces of which rewrite/insert-text.ts makes one of some of them. */
export interface InsertRows {
  /** The table's name. */
  readonly table: TextParts;
  /** INSERT INTO … VALUES */
  readonly head: TextParts;
  readonly rows: readonly InsertRow[];
  /** ON CONFLICT … RETURNING … */
  readonly tail: TextParts;
  /** What is returned behind the client's columns: by which key each row is known. */
  readonly hidden: string;
  /** Numbers of parameters that stand elsewhere than in the rows, too. */
  readonly parameters: readonly number[];
  /** Those whose type, if it is not declared, depends on all rows that they stand in. */
  readonly entangled: readonly number[];
}

export interface InsertRow {
  /** From its bracket to the value of tenant_id. */
  readonly before: TextParts;
  readonly tenant: TextParts;
  readonly after: TextParts;
  readonly key: TextParts;
  /** Of its key in KvPlan.keys; -1: there is none, as it is NULL. */
  readonly keyIndex: number;
  readonly parameters: readonly number[];
}

export interface KvPlan {
  readonly kind: 'kv';
  readonly table: KvTable;
  readonly verb: 'select' | 'insert' | 'update' | 'delete' | 'function';
  /** Changes or locks rows. */
  readonly writes: boolean;
  /** Null: not by key, so that rows of every shard may be meant. Empty: no key at all can match (`= NULL`). */
  readonly keys: readonly KeyRef[] | null;
  /** Slots an INSERT states for the key with the same index in `keys`; each has to be null or right. */
  readonly slots: readonly { readonly value: ValueRef; readonly keyIndex: number }[];
  /** The text for a shard that holds all keys. */
  readonly text: TextParts;
  /** What to do where several shards are concerned. */
  readonly scatter: ScatterPlan | Refusal;
  /** How it is written on several shards; null: it is not. */
  readonly spread: SpreadPlan | null;
  /** What of the statement's arrays goes to which of several shards; null or not there: they are not cut. */
  readonly members?: MemberPlan | null;
  /** EXPLAIN (ROUTE): the statement itself is not run. */
  readonly explainRoute: boolean;
}
