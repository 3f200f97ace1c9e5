// Asks every shard's primary, at intervals, whether it answers, and whether it is the server it should be. Keeps the last
// word on each; statements do not wait for it: they find out for themselves, this is for status, metrics and the log.
import type { Clock, Timer } from '../base/clock.js';
import { messageOf, PgkvError } from '../base/errors.js';
import type { ShardId, ShardView } from '../cluster/cluster-view.js';
import type { ShardHealth, ShardState } from '../cluster/control-port.js';

export type { ShardHealth } from '../cluster/control-port.js';

/** Resolves when the shard's primary accepts statements. Must settle within its own deadline. */
export type ProbeShard = (shard: ShardView) => Promise<void>;

const INTERVAL_MS = 2_000;
const UNKNOWN: ShardHealth = { state: 'unknown', reason: 'not asked yet' };
const ANSWERS: ShardHealth = { state: 'answers', reason: null };

export class ShardHealthMonitor {
  readonly #shards: () => readonly ShardView[];
  readonly #probe: ProbeShard;
  readonly #clock: Clock;
  readonly #changed: (shard: ShardView, health: ShardHealth) => void;
  readonly #state = new Map<ShardId, ShardHealth>();
  #timer: Timer | null = null;
  #stopped = false;

  /**
   * @param shards of the view in force
   * @param changed called when a shard's health differs from what it was
   */
  constructor(options: {
    shards: () => readonly ShardView[];
    probe: ProbeShard;
    clock: Clock;
    changed: (shard: ShardView, health: ShardHealth) => void;
  }) {
    this.#shards = options.shards;
    this.#probe = options.probe;
    this.#clock = options.clock;
    this.#changed = options.changed;
  }

  of(shard: ShardView): ShardHealth {
    return this.#state.get(shard.id) ?? UNKNOWN;
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
    await Promise.all(this.#shards().map((shard) => this.#ask(shard)));
  }

  async #ask(shard: ShardView): Promise<void> {
    let health = ANSWERS;
    try {
      await this.#probe(shard);
    } catch (error) {
      health = healthBehind(shard, error);
    }
    const before = this.#state.get(shard.id);
    this.#state.set(shard.id, health);
    if (!this.#stopped && before?.state !== health.state) this.#changed(shard, health);
  }
}

function healthBehind({ name }: ShardView, error: unknown): ShardHealth {
  if (!(error instanceof PgkvError)) return { state: 'unreachable', reason: messageOf(error) };
  const states: Readonly<Record<string, ShardState>> = { wrong_server: 'other', server_silent: 'silent' };
  const reason = error.detail ?? error.message;
  // Whoever shows it names the shard, and so do pools in front of the node.
  const label = `shard ${name}, `;
  return {
    state: states[error.errorName] ?? 'unreachable',
    reason: reason.startsWith(label) ? reason.slice(label.length) : reason,
  };
}
