// One look at what is prepared on the shards of a cluster, and the end of what was left behind (D14). Whoever finds a branch
// without its coordinator asks the shard of the decision to settle it, which aborts it unless it was decided otherwise, and
// finishes the branch accordingly. Right whoever else is at it at the same time: the coordinator itself, other recoverers.
// Invariant: nothing is concluded from a shard that does not answer.
import { type Answer, type Decision, isAbsent, PROTOCOL, type ProtocolRules } from './protocol.js';

/** A prepared transaction of this cluster, as a shard shows it. */
export interface PreparedBranch {
  readonly gid: string;
  readonly shardName: string;
  readonly database: string;
  /** Who may finish it. */
  readonly owner: string;
  /** Since PREPARE, by the shard's clock. */
  readonly ageMs: number;
}

export interface RecoveryServers {
  readonly shardNames: readonly string[];
  /** What is prepared on the server, in all databases; null: it cannot be asked. */
  prepared(shardName: string, told: (found: readonly PreparedBranch[] | null) => void): void;
  /** pgkv.settle() on the shard of the decision; null: it cannot be asked, or does not know yet. */
  settle(branch: PreparedBranch, told: (decision: Decision | null) => void): void;
  /** COMMIT PREPARED or ROLLBACK PREPARED as its owner. */
  finish(branch: PreparedBranch, decision: Decision, told: (answer: Answer) => void): void;
  /** Removes old decisions of the shard, but for those of `held`. */
  collect(shardName: string, held: readonly string[], told: () => void): void;
}

export interface RoundResult {
  /** By shard; absent: it could not be asked. */
  readonly found: ReadonlyMap<string, readonly PreparedBranch[]>;
  readonly finished: readonly { readonly branch: PreparedBranch; readonly decision: Decision }[];
  /** Old enough, and not finished: why, in short. */
  readonly stuck: readonly { readonly branch: PreparedBranch; readonly why: 'undecided' | 'refused' | 'lost' }[];
}

export interface RoundOptions {
  readonly servers: RecoveryServers;
  /** Whether it is looked at: its coordinator has had its time, or has given up. */
  readonly isLeft: (branch: PreparedBranch) => boolean;
  /** Old decisions are removed in this round. */
  readonly collects: boolean;
  readonly over: (result: RoundResult) => void;
  readonly rules?: ProtocolRules;
}

/** Branches that are seen to at one time: of many, few are on one server, whose one connection takes them in turn. */
const UNDER_WAY_MAX = 8;

export class RecoveryRound {
  readonly #options: RoundOptions;
  readonly #rules: ProtocolRules;
  readonly #found = new Map<string, readonly PreparedBranch[]>();
  readonly #finished: { branch: PreparedBranch; decision: Decision }[] = [];
  readonly #stuck: { branch: PreparedBranch; why: 'undecided' | 'refused' | 'lost' }[] = [];
  #waiting: PreparedBranch[] = [];
  /** Of shards, then of branches, then of shards to collect on: answers that are still to come. */
  #outstanding = 0;

  constructor(options: RoundOptions) {
    this.#options = options;
    this.#rules = options.rules ?? PROTOCOL;
  }

  start(): void {
    const { shardNames } = this.#options.servers;
    if (shardNames.length === 0) return this.#tell();
    this.#outstanding = shardNames.length;
    for (const shardName of shardNames) {
      this.#options.servers.prepared(shardName, (found) => {
        if (found !== null) this.#found.set(shardName, found);
        if (--this.#outstanding === 0) this.#begin();
      });
    }
  }

  #begin(): void {
    this.#waiting = [...this.#found.values()].flat().filter(this.#options.isLeft).reverse();
    if (this.#waiting.length === 0) return this.#collect();
    for (let place = 0; place < UNDER_WAY_MAX; place++) this.#next();
  }

  #next(): void {
    const branch = this.#waiting.pop();
    if (branch === undefined) return;
    this.#outstanding++;
    this.#options.servers.settle(branch, (answer) => {
      const decision = this.#rules.settled(answer);
      if (decision === null) {
        this.#stuck.push({ branch, why: 'undecided' });
        return this.#ended();
      }
      this.#finish(branch, decision);
    });
  }

  #finish(branch: PreparedBranch, decision: Decision): void {
    this.#options.servers.finish(branch, decision, (answer) => {
      if (this.#rules.isFinished(answer, decision)) this.#finished.push({ branch, decision });
      // What is not there has been aborted by somebody else; should it come back, the next round finds it.
      else if (!isAbsent(answer)) {
        this.#stuck.push({ branch, why: answer.kind === 'refused' ? 'refused' : 'lost' });
      }
      this.#ended();
    });
  }

  #ended(): void {
    this.#outstanding--;
    this.#next();
    if (this.#outstanding === 0) this.#collect();
  }

  #collect(): void {
    const { servers, collects } = this.#options;
    const { shardNames } = servers;
    if (!collects || !this.#rules.knowsAllPrepared(shardNames.length, this.#found.size)) return this.#tell();
    const held = [...new Set([...this.#found.values()].flat().map(({ gid }) => gid))];
    this.#outstanding = shardNames.length;
    for (const shardName of shardNames) {
      servers.collect(shardName, held, () => {
        if (--this.#outstanding === 0) this.#tell();
      });
    }
  }

  #tell(): void {
    this.#options.over({ found: this.#found, finished: this.#finished, stuck: this.#stuck });
  }
}
