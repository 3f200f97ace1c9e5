// What the planners of single statements (kv-rows.ts, kv-insert.ts, kv-calls.ts) are given and what they answer.
import type { FuncCall } from 'libpg-query';
import type { Refusal } from '../../base/refusals.js';
import type { KvTable } from '../../cluster/kv-table.js';
import type { KvPlan, ScatterPlan, SpreadPlan } from '../plan/kv-plan.js';
import type { Undo } from '../rewrite/kv-proof.js';
import type { Clauses } from '../text/clauses.js';
import type { TextToken, TokenEdit } from '../text/text-tokens.js';
import type { KeyArguments } from './kv-parameters.js';

export interface StatementSource {
  /** The whole text and its tokens, of which the statement may be a part. */
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly literals: readonly number[];
  /** Null where its form is not known; see clauses.ts. */
  readonly clauses: Clauses | null;
  /** Arguments of a call of a key-value table's function that say which keys; null for other functions. */
  readonly keyArguments: (call: FuncCall) => KeyArguments | null;
  readonly oldestServerMajor: number;
  /** The text has no other statement: only then can it run over several shards. */
  readonly isAlone: boolean;
}

export interface PlannedStatement extends Pick<KvPlan, 'verb' | 'writes' | 'keys' | 'slots' | 'members'> {
  readonly table: KvTable;
  readonly edits: readonly TokenEdit[];
  /** Takes the edits out of the tree of the edited text; null where there are none. */
  readonly undo: Undo | null;
  readonly scatter: ScatterPlan | Refusal;
  readonly spread: SpreadPlan | null;
}
