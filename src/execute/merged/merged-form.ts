// How one statement is run for many, as it was learnt from one server: the texts that do it (see sql/batch), the types of
// its parameters and the shape of its result. Never changed: what is learnt anew is a new form.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { BatchStatement } from '../../sql/batch/batch-statement.js';

/** One text for it. */
export interface FormText {
  readonly source: StatementSource;
  /** What its result looked like (see row-shape.ts): a connection on which it looks otherwise must not run it. */
  readonly shape: string;
  /** For one member: its values as they came, and no columns in front of its result. Else arrays. */
  readonly isSingle: boolean;
  /** Behind the values. */
  readonly withSlots: boolean;
  /** A member without a row met one that stands in its way: it runs by itself. */
  readonly rerunsAbsent: boolean;
  /** Rows that have expired stand in its way; see ExpiredRows. */
  readonly optimistic: boolean;
}

export interface FormTexts {
  /** The one for a single member may be the same. */
  readonly one: FormText;
  readonly many: FormText;
}

export interface MergedForm extends FormTexts {
  readonly plan: BatchStatement;
  readonly optimistic: FormTexts | null;
  /** Types of the values, as the server found them. */
  readonly types: readonly number[];
  /** RowDescription with all columns in text, or null: no rows. */
  readonly description: Buffer | null;
  readonly columnCount: number;
}
