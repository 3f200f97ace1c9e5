// Asks every shard's primary, at intervals, whether it answers. Keeps the last word on each; statements do not wait for
// it: they find out for themselves, this is for readiness, status and the log.
import type { Clock, Timer } from '../base/clock.js';
import { messageOf, PgkvError } from '../base/errors.js';
import type { NodeAddress, ShardView } from '../cluster/cluster-view.js';

export interface ShardHealth {
  readonly healthy: boolean;
  /** Why not; null while healthy or not yet asked. */
  readonly reason: string | null;
}

/** Resolves when the node accepts statements. Must settle within its own deadline. */
export type ProbeNode = (node: NodeAddress) => Promise<void>;

const INTERVAL_MS = 2_000;
const UNKNOWN: ShardHealth = { healthy: false, reason: 'not asked yet' };

export class ShardHealthMonitor {
  readonly #shards: readonly ShardView[];
  readonly #probe: ProbeNode;
  readonly #clock: Clock;
  readonly #changed: (shard: ShardView, health: ShardHealth) => void;
  readonly #state = new Map<ShardView, ShardHealth>();
  #timer: Timer | null = null;
  #stopped = false;

  /** @param changed called when a shard's health differs from what it was */
  constructor(options: {
    shards: readonly ShardView[];
    probe: ProbeNode;
    clock: Clock;
    changed: (shard: ShardView, health: ShardHealth) => void;
  }) {
    this.#shards = options.shards;
    this.#probe = options.probe;
    this.#clock = options.clock;
    this.#changed = options.changed;
  }

  of(shard: ShardView): ShardHealth {
    return this.#state.get(shard) ?? UNKNOWN;
  }

  /** Asks all shards once, then again and again. Resolves after the first round. */
  async start(): Promise<void> {
    await this.#round();
    this.#schedule();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = this.#clock.after(INTERVAL_MS, () => {
      void this.#round().then(() => this.#schedule());
    });
  }

  async #round(): Promise<void> {
    await Promise.all(this.#shards.map((shard) => this.#ask(shard)));
  }

  async #ask(shard: ShardView): Promise<void> {
    let health: ShardHealth = { healthy: true, reason: null };
    try {
      await this.#probe(shard.primary);
    } catch (error) {
      const detail = error instanceof PgkvError ? error.detail : undefined;
      health = { healthy: false, reason: detail ?? messageOf(error) };
    }
    const before = this.#state.get(shard);
    this.#state.set(shard, health);
    if (!this.#stopped && before?.healthy !== health.healthy) this.#changed(shard, health);
  }
}
