// COPY … TO STDOUT of key-value tables: what is copied, and in which format.
import type { CopyFormat } from '../../wire/copy-format.js';

export interface CopyOut {
  /** The SELECT whose rows are copied, to be read as a text of its own. */
  readonly query: string;
  /** What stands in its place in the client's text, by UTF-16 offsets: a query in brackets can. */
  readonly start: number;
  readonly end: number;
  /** Characters of the client's text in front of `query`, where that is a part of it; null: it was made for a table's name. */
  readonly before: number | null;
  /** The form is one that COPY has for tables only: what stands behind a query in its place; null: what the client wrote. */
  readonly tail: string | null;
  /** Null: pgkv does not know the options, which only a server that does all of it can follow. */
  readonly format: CopyFormat | null;
}
