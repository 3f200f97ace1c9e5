// Whether the client's block reads one snapshot of each shard (R67): it has another isolation level than READ COMMITTED, and says that
// it only reads. Which level that is, and whether it only reads, its servers say when a branch is opened (branch-failure.ts).
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { Session } from '../../session/session.js';
import type { Transaction } from '../../session/transaction.js';

const READ_ONLY = /\bread\s+only\b|\btransaction_read_only\b/i;
const IMPORTED = /\btransaction\s+snapshot\b/i;
const TRUE: ReadonlySet<string> = new Set(['on', 'true', 'yes', '1', 't', 'y']);

/** By what the session has set of new transactions; what its role or database has is not known. */
function isUsuallyReadCommitted({ settings }: Session): boolean {
  const usual = settings.values.get('default_transaction_isolation');
  return usual === undefined || usual.startsWith('read ');
}

/** Each statement of the block sees what was committed before it, as far as is known. */
export const seesCommitted = (transaction: Transaction<LeasedLane>, session: Session): boolean =>
  transaction.isReadCommitted && isUsuallyReadCommitted(session);

export function readsSnapshots(transaction: Transaction<LeasedLane>, session: Session): boolean {
  const { state } = transaction;
  if (state.kind !== 'held' && state.kind !== 'open') return false;
  if (seesCommitted(transaction, session)) return false;
  if (TRUE.has(session.settings.values.get('default_transaction_read_only') ?? '')) return true;
  const said = state.prologue ?? (state.kind === 'open' ? state.script?.said : null) ?? [];
  // One that another session has exported is of one server.
  return said.some(({ text }) => READ_ONLY.test(text)) && !said.some(({ text }) => IMPORTED.test(text));
}

/** Of a block that was begun in a text with other statements, or in which code has run, it is not known what opens a further branch. */
export const isUntold = ({ state }: Transaction<LeasedLane>): boolean =>
  state.kind === 'open' && state.prologue === null && state.script === null;
export const UNTOLD =
  'not all that was said in it is known, as where its BEGIN stands in one text with other statements';
