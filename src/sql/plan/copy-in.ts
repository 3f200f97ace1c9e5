// COPY … FROM STDIN of a key-value table: into which columns, and in which format.
import type { KvTable } from '../../cluster/kv-table.js';

/** Columns whose names an option lists. */
export type ListedColumns = 'all' | readonly string[];

export type CopyInFormat =
  | { readonly kind: 'binary' }
  | {
      readonly kind: 'text' | 'csv';
      readonly delimiter: string;
      /** What stands for NULL. */
      readonly none: string;
      readonly header: boolean;
      readonly quote: string;
      readonly escape: string;
      readonly forceNotNull: ListedColumns;
      readonly forceNull: ListedColumns;
    };

export interface CopyIn {
  readonly table: KvTable;
  /** The table as the client wrote it, with the BINARY that may stand in front. */
  readonly target: string;
  /** Null: all there are, in the order of the table. */
  readonly columns: readonly string[] | null;
  /** From FROM on, as the client wrote it. */
  readonly tail: string;
  /** Null: a value of an option is none that pgkv knows, which servers nearly always refuse. */
  readonly format: CopyInFormat | null;
  /** An option that COPY over shards does not take; null: none. */
  readonly obstacle: string | null;
}
