// Writes a heartbeat to every shard's primary, at intervals (D3, D19): when pgkv last looked, by that server's clock. What
// it finds is a clock that has gone back, also where nobody writes; versions go on above those before in the same moment.
// States of a shard: at rest, or `#underWay`: one that does not answer is not asked again meanwhile, nor waited for.
import type { Clock, Timer } from '../base/clock.js';
import { messageOf, PgkvError } from '../base/errors.js';
import type { ShardId, ShardView } from '../cluster/cluster-view.js';

/** Resolves with the milliseconds by which the clock is behind the last heartbeat; null: it is not. */
export type Beat = (shard: ShardView) => Promise<number | null>;

export interface HeartbeatOptions {
  /** Of the view in force. */
  readonly shards: () => readonly ShardView[];
  readonly beat: Beat;
  readonly clock: Clock;
  readonly steppedBack: (shard: ShardView, ms: number) => void;
  /** Told once for each reason in a row, with the error that gave it; null: it is written again. */
  readonly failed: (shard: ShardView, reason: string | null, error: unknown) => void;
}

const INTERVAL_MS = 2_000;

export class Heartbeats {
  readonly #options: HeartbeatOptions;
  readonly #underWay = new Set<ShardId>();
  /** Why the last one failed; absent: it did not. */
  readonly #reasons = new Map<ShardId, string>();
  #timer: Timer | null = null;
  #stopped = false;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#stopped) return;
    for (const shard of this.#options.shards()) void this.#beat(shard);
    this.#timer = this.#options.clock.after(INTERVAL_MS, () => this.start());
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  async #beat(shard: ShardView): Promise<void> {
    const { id } = shard;
    if (this.#underWay.has(id)) return;
    this.#underWay.add(id);
    let reason: string | null = null;
    let failure: unknown = null;
    try {
      const behind = await this.#options.beat(shard);
      if (behind !== null && !this.#stopped) this.#options.steppedBack(shard, behind);
    } catch (error) {
      failure = error;
      reason = (error instanceof PgkvError ? error.detail : undefined) ?? messageOf(error);
    }
    this.#underWay.delete(id);
    const before = this.#reasons.get(id) ?? null;
    if (reason === before || this.#stopped) return;
    if (reason === null) this.#reasons.delete(id);
    else this.#reasons.set(id, reason);
    this.#options.failed(shard, reason, failure);
  }
}
