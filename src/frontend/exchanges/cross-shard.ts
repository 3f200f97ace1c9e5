// `pgkv.cross_shard`, as the client has set it: whether what writes on several shards is done (D14).
import type { Session } from '../../session/session.js';

/** Why it is refused; null: the client does not want it. */
export type CrossShard = { readonly kind: '2pc' } | { readonly kind: 'refused'; readonly why: string | null };

const SETTING = 'pgkv.cross_shard';
const TWO_PHASE: CrossShard = { kind: '2pc' };
const UNWANTED: CrossShard = { kind: 'refused', why: null };
const UNSUPPORTED: CrossShard = { kind: 'refused', why: `${SETTING} = per_shard is not supported` };

export function crossShard({ settings }: Session): CrossShard {
  // RESET leaves '' of a setting that no server knows.
  const wanted = settings.values.get(SETTING) || '2pc';
  if (wanted === '2pc') return TWO_PHASE;
  return wanted === 'per_shard' ? UNSUPPORTED : UNWANTED;
}
