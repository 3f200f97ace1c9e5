// Finishes transactions over several shards that were left behind (D14), round after round: looks at what is prepared on every
// shard, and settles what is older than a coordinator takes, or what one has given up. With what it finds it answers
// SHOW pgkv.prepared_transactions and metrics. A shard that does not answer holds up what needs it, and nothing else.
import type { Clock, Timer } from '../base/clock.js';
import type { PreparedState } from '../cluster/control-port.js';
import type { PreparedBranch, RecoveryServers, RoundResult } from '../execute/two-phase/recovery.js';
import { RecoveryRound } from '../execute/two-phase/recovery.js';

export interface RecovererOptions {
  /** Of the view in force; null: the cluster has no id by which its transactions are known. */
  readonly servers: () => RecoveryServers | null;
  readonly clock: Clock;
  readonly finished: (branch: PreparedBranch, decision: 'commit' | 'abort') => void;
  /** Told once for each transaction and reason: it holds back vacuum, and keys are locked. */
  readonly orphaned: (branch: PreparedBranch, why: string) => void;
  /** Behind each round. */
  readonly seen?: (prepared: readonly PreparedState[]) => void;
}

export interface RecoveryFigures {
  /** Branches prepared now, on all shards that answered. */
  readonly prepared: number;
  /** Of these, what could not be finished though it is old. */
  readonly orphans: number;
  readonly committed: number;
  readonly aborted: number;
}

const ROUND_MS = 2_000;
/** A coordinator is done with PREPARE and decision by then, or its transaction is aborted: which it is told. */
const LEFT_AFTER_MS = 3_000;
const ORPHAN_AFTER_MS = 30_000;
/** Old decisions are looked for so often. */
const COLLECT_EVERY_ROUNDS = 300;
const SHOWN_MAX = 1_000;
const LEFT_MAX = 10_000;

export class Recoverer {
  readonly #options: RecovererOptions;
  /** Given up by their coordinators: no need to wait until they are old. */
  readonly #left = new Set<string>();
  #alarmed = new Set<string>();
  #prepared: readonly PreparedState[] = [];
  #committed = 0;
  #aborted = 0;
  #orphans = 0;
  #rounds = 0;
  #timer: Timer | null = null;
  #isUnderWay = false;
  #isWanted = false;
  #stopped = false;

  constructor(options: RecovererOptions) {
    this.#options = options;
  }

  /** As the last round found them. */
  get prepared(): readonly PreparedState[] {
    return this.#prepared;
  }

  get figures(): RecoveryFigures {
    return {
      prepared: this.#prepared.length,
      orphans: this.#orphans,
      committed: this.#committed,
      aborted: this.#aborted,
    };
  }

  start(): void {
    if (this.#stopped) return;
    this.#timer?.cancel();
    this.#round();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** A coordinator has given it up. */
  look(gid: string): void {
    if (this.#left.size < LEFT_MAX) this.#left.add(gid);
    if (this.#isUnderWay) this.#isWanted = true;
    else this.start();
  }

  #round(): void {
    const servers = this.#options.servers();
    if (servers === null) return this.#next(ROUND_MS);
    this.#isUnderWay = true;
    new RecoveryRound({
      servers,
      isLeft: ({ gid, ageMs }) => ageMs >= LEFT_AFTER_MS || this.#left.has(gid),
      collects: this.#rounds++ % COLLECT_EVERY_ROUNDS === COLLECT_EVERY_ROUNDS - 1,
      over: (result) => this.#over(result),
    }).start();
  }

  #over(result: RoundResult): void {
    this.#isUnderWay = false;
    if (this.#stopped) return;
    for (const { branch, decision } of result.finished) {
      if (decision === 'commit') this.#committed++;
      else this.#aborted++;
      this.#options.finished(branch, decision);
    }
    this.#tellOrphans(result);
    this.#prepared = preparedStates(result).slice(0, SHOWN_MAX);
    this.#options.seen?.(this.#prepared);
    const held = new Set([...result.found.values()].flat().map(({ gid }) => gid));
    for (const gid of this.#left) if (!held.has(gid) && !this.#isWanted) this.#left.delete(gid);
    this.#next(this.#isWanted ? 0 : ROUND_MS);
    this.#isWanted = false;
  }

  #tellOrphans({ stuck }: RoundResult): void {
    const old = stuck.filter(({ branch }) => branch.ageMs >= ORPHAN_AFTER_MS);
    this.#orphans = old.length;
    const alarmed = new Set<string>();
    for (const { branch, why } of old) {
      const key = `${branch.shardName} ${branch.gid} ${why}`;
      alarmed.add(key);
      if (!this.#alarmed.has(key)) this.#options.orphaned(branch, why);
    }
    this.#alarmed = alarmed;
  }

  #next(delayMs: number): void {
    if (!this.#stopped) this.#timer = this.#options.clock.after(delayMs, () => this.#round());
  }
}

function preparedStates({ found, finished, stuck }: RoundResult): PreparedState[] {
  const done = new Set(finished.map(({ branch }) => branch));
  const reasons = new Map(stuck.map(({ branch, why }) => [branch, why]));
  return [...found.values()].flat().flatMap((branch): PreparedState[] => {
    if (done.has(branch)) return [];
    const { gid, shardName: shard, database, owner, ageMs } = branch;
    return [{ shard, database, gid, owner, ageMs, state: reasons.get(branch) ?? 'underway' }];
  });
}
