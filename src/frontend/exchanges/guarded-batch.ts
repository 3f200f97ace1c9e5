// A single batch that went out whole: should the server say that its plan has gone stale, the client does not hear of that, and
// the batch is sent once more with its statement prepared anew (stale-plan.ts tells which errors those are).
// Invariant: a batch is repeated once at most, and only while nothing was sent behind it.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import { assert } from '../../base/assert.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { type SingleBatch, scanSingleBatch } from '../unit/single-batch.js';
import type { ExtendedProtocol } from './extended-protocol.js';

/** Kept from `send` until it is repeated, or is known to need no repetition: `clear`. */
export class GuardedBatch {
  readonly #extended: ExtendedProtocol;
  #bytes: Buffer | null = null;
  #source: StatementSource | null = null;

  constructor(extended: ExtendedProtocol) {
    this.#extended = extended;
  }

  /** @param start offset of the batch in `buffer` */
  send(buffer: Buffer, start: number, batch: SingleBatch, source: StatementSource, lane: LeasedLane): void {
    const connection = lane.connection!;
    this.#bytes = buffer.subarray(start, batch.end);
    this.#source = source;
    connection.guarded = true;
    lane.shapeIsTold = batch.parses || batch.describes;
    this.#extended.sendBatch(buffer, batch, source, connection);
  }

  repeat({ connection }: LeasedLane): void {
    const bytes = this.#bytes;
    const source = this.#source;
    this.#bytes = null;
    assert(bytes !== null && source !== null && connection !== null, 'only a batch that was kept is repeated');
    connection.forget(source);
    this.#extended.sendBatch(bytes, scanSingleBatch(bytes, 0)!, source, connection);
    connection.output.flush();
  }

  clear(): void {
    this.#bytes = null;
  }
}
