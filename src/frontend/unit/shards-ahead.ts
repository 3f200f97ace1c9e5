// Looks ahead in what arrives of a batch of the extended protocol: whether it writes, and has something for another shard then. All
// of it is then one transaction over these from its first statement on (D14), since what a server has begun without BEGIN it commits
// by itself. Reads in front of the first write need not be in it: a batch that has only read may move (D12).
// Invariant: a message is looked at once, in however many pieces its batch comes.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { ClusterView } from '../../cluster/cluster-view.js';
import { stringEnd } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import type { StatementLookup } from './batch-ahead.js';
import type { KvStatements } from './kv-statements.js';

/** `open`: more of it is to come, and may say so; `reads`: the same, and what there is can be run meanwhile. */
export type WhatIsAhead = 'several' | 'one' | 'open' | 'reads';

/** Messages that are looked at. */
const MESSAGES_MAX = 4_096;
const PORTAL = 0x50;

export class ShardsAhead {
  readonly view: ClusterView;
  readonly #statements: StatementLookup;
  readonly #kv: KvStatements;
  /** By name, of those that the batch itself parses. */
  readonly #parsed = new Map<string, StatementSource | null>();
  /** Shards of the portals that it binds, by name. */
  readonly #portals = new Map<string, number>();
  /** Of what cannot move any more; null: it has only read. */
  #boundTo: number | null = null;
  /** How much of the batch has been looked at. */
  #bytes = 0;
  #messages = 0;

  constructor(statements: StatementLookup, kv: KvStatements, view: ClusterView) {
    this.#statements = statements;
    this.#kv = kv;
    this.view = view;
  }

  /** @param start where the batch begins in what has arrived: each time the same, with more behind it */
  look(buffer: Buffer, start: number): WhatIsAhead {
    while (this.#messages < MESSAGES_MAX) {
      const offset = start + this.#bytes;
      if (offset + 5 > buffer.length) return this.#atEnd;
      const end = offset + 1 + buffer.readInt32BE(offset + 1);
      if (end < offset + 5) return 'one';
      if (end > buffer.length) return this.#atEnd;
      const known = this.#message(buffer, offset, end);
      if (known !== null) return known;
      this.#bytes = end - start;
      this.#messages++;
    }
    return 'one';
  }

  /** What has not arrived may be for another shard. */
  get #atEnd(): WhatIsAhead {
    return this.#boundTo === null ? 'reads' : 'open';
  }

  /** How much has been looked at. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @returns null: not known yet */
  #message(buffer: Buffer, start: number, end: number): WhatIsAhead | null {
    switch (buffer[start]) {
      case Frontend.parse: {
        const nameEnd = stringEnd(buffer, start + 5, end);
        if (nameEnd < 0) return 'one';
        const source = this.#statements.namedSource(Frontend.parse, buffer, start, end);
        this.#parsed.set(buffer.toString('latin1', start + 5, nameEnd), source);
        return null;
      }
      case Frontend.bind:
        return this.#bound(buffer, start, end);
      case Frontend.execute:
        return this.#portal(buffer, start + 5, end);
      case Frontend.describe:
        return buffer[start + 5] === PORTAL ? this.#portal(buffer, start + 6, end) : null;
      case Frontend.close:
        return null;
      default:
        return 'one';
    }
  }

  #bound(buffer: Buffer, start: number, end: number): WhatIsAhead | null {
    const portalEnd = stringEnd(buffer, start + 5, end);
    const nameEnd = portalEnd < 0 ? -1 : stringEnd(buffer, portalEnd + 1, end);
    if (nameEnd < 0) return 'one';
    const known = this.#parsed.get(buffer.toString('latin1', portalEnd + 1, nameEnd));
    const source = known === undefined ? this.#statements.namedSource(Frontend.bind, buffer, start, end) : known;
    const plan = source?.template.kv ?? null;
    if (source === null || plan?.kind !== 'kv' || plan.explainRoute) return 'one';
    const route = this.#kv.route(this.#kv.bound(plan, source, buffer, start, end), this.view);
    if (route.kind === 'spread') return 'several';
    if (route.kind !== 'keyed') return 'one';
    const portal = buffer.toString('latin1', start + 5, portalEnd);
    this.#portals.delete(portal);
    // It runs wherever the others do.
    if (route.slots.length === 0) return null;
    this.#portals.set(portal, route.shard.id);
    const mayMove = !plan.writes && source.template.readOnly;
    if (this.#boundTo === null && !mayMove) this.#boundTo = route.shard.id;
    return this.#meets(route.shard.id);
  }

  /** One that a read has on a shard that is left would be gone. */
  #portal(buffer: Buffer, nameStart: number, end: number): WhatIsAhead | null {
    const nameEnd = stringEnd(buffer, nameStart, end);
    const shard = nameEnd < 0 ? undefined : this.#portals.get(buffer.toString('latin1', nameStart, nameEnd));
    return shard === undefined ? null : this.#meets(shard);
  }

  #meets(shard: number): WhatIsAhead | null {
    return this.#boundTo === null || this.#boundTo === shard ? null : 'several';
  }
}
