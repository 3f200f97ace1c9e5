// Whether the batch at hand writes on several shards, as far as it has arrived (R59): asked at its first Bind, known to its end.
import { ShardsAhead } from '../unit/shards-ahead.js';
import { scanSingleBatch } from '../unit/single-batch.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';

export class BatchOutlook {
  readonly #context: ExchangeContext;
  /** It writes on several shards. */
  isSeveral = false;
  /** It has been looked at. */
  #hasBound = false;
  /** As far as it has arrived, from that place in all that the client has sent on. */
  #ahead: { readonly position: number; readonly shards: ShardsAhead } | null = null;

  constructor(context: ExchangeContext) {
    this.#context = context;
  }

  /** To that place in all that the client has sent on it only reads. */
  #readsUntil = 0;

  /** A Bind: looks what its batch is for, if that is not known. @param isFree nothing of it is held. @returns it has to be seen whole */
  awaits(isFree: boolean): boolean {
    const { kv, batch, named, reader, transaction, session, services } = this.#context;
    const { view } = kv;
    if (this.#hasBound || reader.position < this.#readsUntil) return false;
    this.#hasBound = true;
    const begins = isFree && (!batch.hasBegunElsewhere || this.#readsUntil > 0);
    if (!begins || view.shards.length < 2 || view.clusterId === null || transaction.inBlock) return false;
    if (scanSingleBatch(reader.buffer, reader.start) !== null || crossShard(session).kind !== '2pc') return false;
    const { position } = reader;
    const isSame = this.#ahead?.position === position && this.#ahead.shards.view === view;
    const { shards } = isSame ? this.#ahead! : { shards: new ShardsAhead(named, kv, view) };
    const ahead = shards.look(reader.buffer, reader.start);
    this.isSeveral = ahead === 'several';
    if (ahead === 'reads') {
      this.#readsUntil = position + shards.bytes;
      this.#hasBound = false;
      return false;
    }
    // Of more than that nothing is read from the client until some of it is taken.
    const isBounded = reader.buffer.length - reader.start <= services.bufferBytesMax;
    this.#hasBound = ahead !== 'open' || !isBounded || reader.ended;
    this.#ahead = this.#hasBound ? null : { position, shards };
    return !this.#hasBound;
  }

  /** Its Sync is taken, or a simple query, which ends it without one. */
  ends(): void {
    this.isSeveral = this.#hasBound = false;
    this.#readsUntil = 0;
    this.#ahead = null;
  }
}
