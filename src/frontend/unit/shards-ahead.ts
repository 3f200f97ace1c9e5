// Looks ahead in what has arrived of a batch of the extended protocol: whether it writes, and on several shards. Then all of it is
// one transaction over these from its first statement on (D14), since what a server has begun without BEGIN it commits by itself.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { ClusterView } from '../../cluster/cluster-view.js';
import { stringEnd } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import type { StatementLookup } from './batch-ahead.js';
import type { KvStatements } from './kv-statements.js';

/** `open`: more of it is to come, and may say so. */
export type ShardsAhead = 'several' | 'one' | 'open';

/** Messages that are looked at. */
const MESSAGES_MAX = 4_096;

export function shardsAhead(
  buffer: Buffer,
  start: number,
  statements: StatementLookup,
  kv: KvStatements,
  view: ClusterView,
): ShardsAhead {
  const ahead = new Ahead(buffer, statements, kv, view);
  let offset = start;
  for (let count = 0; count < MESSAGES_MAX; count++) {
    if (offset + 5 > buffer.length) return ahead.atEnd;
    const end = offset + 1 + buffer.readInt32BE(offset + 1);
    if (end < offset + 5) return 'one';
    if (end > buffer.length) return ahead.atEnd;
    const known = ahead.message(offset, end);
    if (known !== null) return known;
    offset = end;
  }
  return 'one';
}

class Ahead {
  readonly #buffer: Buffer;
  readonly #statements: StatementLookup;
  readonly #kv: KvStatements;
  readonly #view: ClusterView;
  /** By name, of those that the batch itself parses. */
  readonly #parsed = new Map<string, StatementSource | null>();
  readonly #shards = new Set<number>();
  #writes = false;

  constructor(buffer: Buffer, statements: StatementLookup, kv: KvStatements, view: ClusterView) {
    this.#buffer = buffer;
    this.#statements = statements;
    this.#kv = kv;
    this.#view = view;
  }

  /** What has not arrived may be for another shard. */
  get atEnd(): ShardsAhead {
    return this.#writes ? 'open' : 'one';
  }

  /** @returns null: not known yet */
  message(start: number, end: number): ShardsAhead | null {
    const buffer = this.#buffer;
    switch (buffer[start]) {
      case Frontend.parse: {
        const nameEnd = stringEnd(buffer, start + 5, end);
        if (nameEnd < 0) return 'one';
        const source = this.#statements.namedSource(Frontend.parse, buffer, start, end);
        this.#parsed.set(buffer.toString('latin1', start + 5, nameEnd), source);
        return null;
      }
      case Frontend.bind:
        return this.#bound(start, end);
      case Frontend.execute:
      case Frontend.describe:
      case Frontend.close:
        return null;
      default:
        return 'one';
    }
  }

  #bound(start: number, end: number): ShardsAhead | null {
    const buffer = this.#buffer;
    const nameStart = stringEnd(buffer, start + 5, end) + 1;
    const nameEnd = nameStart === 0 ? -1 : stringEnd(buffer, nameStart, end);
    if (nameEnd < 0) return 'one';
    const known = this.#parsed.get(buffer.toString('latin1', nameStart, nameEnd));
    const source = known === undefined ? this.#statements.namedSource(Frontend.bind, buffer, start, end) : known;
    const plan = source?.template.kv ?? null;
    if (source === null || plan?.kind !== 'kv' || plan.explainRoute) return 'one';
    const route = this.#kv.route(this.#kv.bound(plan, source, buffer, start, end), this.#view);
    if (route.kind === 'keyed') this.#shards.add(route.shard.id);
    else if (route.kind === 'spread') for (const { id } of route.shards) this.#shards.add(id);
    else return 'one';
    this.#writes ||= plan.writes;
    return this.#writes && this.#shards.size > 1 ? 'several' : null;
  }
}
