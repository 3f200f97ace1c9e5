// `pgkv.cross_shard`, as the client has set it: whether what writes on several shards is done (D14).
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { Session } from '../../session/session.js';
import { Frontend } from '../../wire/protocol.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';

/** `per_shard`: why a transaction is refused, other than a single statement. `refused`: why all are; null: the client does not want it. */
export type CrossShard =
  | { readonly kind: '2pc' }
  | { readonly kind: 'per_shard'; readonly why: string }
  | { readonly kind: 'refused'; readonly why: null };

const SETTING = 'pgkv.cross_shard';
const TWO_PHASE: CrossShard = { kind: '2pc' };
const UNWANTED: CrossShard = { kind: 'refused', why: null };
const PER_SHARD: CrossShard = { kind: 'per_shard', why: `${SETTING} = per_shard is for single statements` };

export function crossShard({ settings }: Session): CrossShard {
  // RESET leaves '' of a setting that no server knows.
  const wanted = settings.values.get(SETTING) || '2pc';
  if (wanted === '2pc') return TWO_PHASE;
  return wanted === 'per_shard' ? PER_SHARD : UNWANTED;
}

const REFUSED = refusalError(refuse('several_shards_write'));

/** Why a statement may not be run on several shards; null: it may. */
export function obstacleTo({ type, view, template }: Unit, context: ExchangeContext): PgkvError | null {
  const { transaction, batch, session } = context;
  const isInBlock = transaction.phase === 'open' || transaction.phase === 'held';
  const isAlone = template.kinds.length === 1 && (type === Frontend.bind || batch.begins || isInBlock);
  if (!isAlone || view.clusterId === null || transaction.phase === 'ending') return REFUSED;
  // Where the client does not know yet that it is lost, that is what it is told.
  if (transaction.phase === 'failed' || transaction.phase === 'lost') return new PgkvError('transaction_failed');
  return crossShard(session).kind === 'refused' ? REFUSED : null;
}
