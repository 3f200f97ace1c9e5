// Why the client's block can have no branch on a further shard (D31).
import type { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import { unable } from '../../execute/two-phase/branch-failure.js';
import { isUntold, readsSnapshots, seesCommitted, UNTOLD } from './block-snapshots.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';

/** @returns null: it can. Nothing is owed. */
export function branchObstacle({ transaction, session, kv }: ExchangeContext, why: string): PgkvError | null {
  const leaves = refusalError(refuse('leaves_shard', { why }));
  if (kv.view.clusterId === null) return leaves;
  if (isUntold(transaction)) return refusalError(refuse('leaves_shard', { why: `${why}, and ${UNTOLD}` }));
  if (readsSnapshots(transaction, session)) return transaction.script === null ? leaves : null;
  const setting = crossShard(session);
  if (setting.kind !== '2pc') return setting.why === null ? leaves : unable(setting.why);
  if (!seesCommitted(transaction, session)) {
    return refusalError(refuse('leaves_shard', { why: `${why}, and its isolation level needs one snapshot` }));
  }
  return transaction.script === null ? leaves : null;
}
