// How one statement is run for many, as it was learnt from one server: the statement that does the work of many (see
// sql/batch), the types of its parameters and the shape of its result. Never changed: what is learnt anew is a new form.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { BatchStatement } from '../../sql/batch/batch-statement.js';

export interface MergedForm {
  readonly plan: BatchStatement;
  /** The statement for many, and the one for a single member. */
  readonly many: StatementSource;
  readonly one: StatementSource;
  /** What their results looked like (see row-shape.ts): a connection on which they look otherwise must not run them. */
  readonly manyShape: string;
  readonly oneShape: string;
  /** Types of the values, as the server found them. */
  readonly types: readonly number[];
  /** RowDescription with all columns in text, or null: no rows. */
  readonly description: Buffer | null;
  readonly columnCount: number;
}
