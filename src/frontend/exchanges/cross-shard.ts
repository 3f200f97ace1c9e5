// `pgkv.cross_shard`, as the client has set it: whether what writes on several shards is done (D14).
import type { Session } from '../../session/session.js';

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
