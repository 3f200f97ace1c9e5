// Looks ahead in what has arrived of a batch for the first statement that names a key: the whole batch then begins on
// that key's shard, so that BEGIN and what else comes first need not move there (D12, D13).
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import { stringEnd } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import type { KvStatements } from './kv-statements.js';

const MESSAGES_MAX = 64;

/** What a batch's messages name; see NamedStatements. */
export interface StatementLookup {
  namedSource(type: number, buffer: Buffer, start: number, end: number): StatementSource | null;
}

/** The shard of the first Bind behind `start` whose keys are on one shard; null where none has arrived before the Sync. */
export function batchAhead(
  buffer: Buffer,
  start: number,
  statements: StatementLookup,
  kv: KvStatements,
  view: ClusterView,
): ShardView | null {
  const parsed = new Map<string, StatementSource | null>();
  let offset = start;
  for (let count = 0; count < MESSAGES_MAX && offset + 5 <= buffer.length; count++) {
    const type = buffer[offset]!;
    const end = offset + 1 + buffer.readInt32BE(offset + 1);
    if (end > buffer.length || end < offset + 5) return null;
    if (type === Frontend.sync || type === Frontend.query) return null;
    if (type === Frontend.parse) {
      const nameEnd = stringEnd(buffer, offset + 5, end);
      if (nameEnd < 0) return null;
      parsed.set(buffer.toString('latin1', offset + 5, nameEnd), statements.namedSource(type, buffer, offset, end));
    } else if (type === Frontend.bind) {
      const shard = boundShard(buffer, offset, end, parsed, statements, kv, view);
      if (shard !== null) return shard;
    }
    offset = end;
  }
  return null;
}

function boundShard(
  buffer: Buffer,
  start: number,
  end: number,
  parsed: ReadonlyMap<string, StatementSource | null>,
  statements: StatementLookup,
  kv: KvStatements,
  view: ClusterView,
): ShardView | null {
  const nameStart = stringEnd(buffer, start + 5, end) + 1;
  const nameEnd = nameStart === 0 ? -1 : stringEnd(buffer, nameStart, end);
  if (nameEnd < 0) return null;
  const known = parsed.get(buffer.toString('latin1', nameStart, nameEnd));
  const source = known === undefined ? statements.namedSource(Frontend.bind, buffer, start, end) : known;
  const plan = source?.template.kv ?? null;
  if (source === null || plan === null || plan.kind === 'refused') return null;
  const route = kv.route(kv.bound(plan, source, buffer, start, end), view);
  return route.kind === 'keyed' ? route.shard : null;
}
