// A server as far as two-phase commit can see one: open transactions, which a crash or a broken connection ends; prepared
// ones and decisions, which survive; and the functions of the extension. Connections carry messages both ways with random
// delays; one that breaks may still deliver what was sent on it, later.
import type { Answer, Decision } from '../../../src/execute/two-phase/protocol.js';
import type { SeededRandom } from '../../support/seeded-random.js';
import type { Scheduler } from '../scheduler.js';

/** What the functions of the extension and the way the router uses them guarantee; broken one by one. */
export interface ServerRules {
  /** pgkv.decide() refuses where recovery has decided. */
  readonly decideChecks: boolean;
  /** The decision is part of the branch: it is there if, and only if, the branch has committed. */
  readonly decisionInBranch: boolean;
  /** pgkv.settle() writes its abort before anybody acts on it. */
  readonly settleWrites: boolean;
  /** It waits for the branch that is about to decide. */
  readonly settleWaits: boolean;
  /** It leaves a decision that is there alone. */
  readonly settleKeeps: boolean;
}

export const SERVER_RULES: ServerRules = {
  decideChecks: true,
  decisionInBranch: true,
  settleWrites: true,
  settleWaits: true,
  settleKeeps: true,
};

const refused = (sqlstate: string): Answer => ({ kind: 'refused', sqlstate, error: null });

interface Prepared {
  readonly transaction: number;
  readonly at: number;
  /** On this server alone: a crash takes it back. */
  readonly isLocal: boolean;
}

/** The open transaction of a session. */
interface Open {
  readonly transaction: number;
  /** COMMIT or PREPARE fails: a deferred constraint. */
  readonly fails: boolean;
  decides: string | null;
}

export class SimShard {
  readonly name: string;
  readonly prepared = new Map<string, Prepared>();
  readonly decisions = new Map<string, { decision: Decision; at: number }>();
  readonly committed = new Set<number>();
  readonly #world: SimWorld;
  /** Inserted, not committed: who waits until it is one or the other. */
  readonly #deciding = new Map<string, (() => void)[]>();
  #sessions = new Set<SimSession>();
  isUp = true;

  constructor(name: string, world: SimWorld) {
    this.name = name;
    this.#world = world;
  }

  get world(): SimWorld {
    return this.#world;
  }

  connect(open: Open | null): SimSession {
    const session = new SimSession(this, open);
    this.#sessions.add(session);
    return session;
  }

  crash(): void {
    this.isUp = false;
    const sessions = this.#sessions;
    this.#sessions = new Set();
    for (const session of sessions) session.killed();
    this.#deciding.clear();
    for (const [gid, { isLocal }] of this.prepared) if (isLocal) this.prepared.delete(gid);
  }

  left(session: SimSession): void {
    this.#sessions.delete(session);
  }

  insertDecision(open: Open, gid: string): Answer {
    if (this.decisions.has(gid)) {
      if (this.#world.rules.decideChecks) return refused('40001');
    } else if (this.#world.rules.decisionInBranch) this.#deciding.set(gid, []);
    else this.decisions.set(gid, { decision: 'commit', at: this.#world.time.now() });
    open.decides = gid;
    return { kind: 'done' };
  }

  ended(open: Open, how: Decision): void {
    const gid = open.decides;
    if (how === 'commit') this.committed.add(open.transaction);
    if (gid === null || !this.#world.rules.decisionInBranch) return;
    if (how === 'commit' && !this.decisions.has(gid)) {
      this.decisions.set(gid, { decision: 'commit', at: this.#world.time.now() });
    }
    const waiting = this.#deciding.get(gid) ?? [];
    this.#deciding.delete(gid);
    for (const wake of waiting) wake();
  }

  /** @param answered with null where the server crashed meanwhile, or the lock was not had in time */
  settle(gid: string, answered: (decision: Decision | null) => void): void {
    const { rules, time } = this.#world;
    const present = this.decisions.get(gid);
    if (present !== undefined && (rules.settleKeeps || present.decision === 'abort')) return answered(present.decision);
    const waiting = this.#deciding.get(gid);
    if (waiting !== undefined && rules.settleWaits) {
      let isOver = false;
      const timeout = time.after(2_000, () => {
        isOver = true;
        answered(null);
      });
      waiting.push(() => {
        if (isOver) return;
        timeout.cancel();
        this.settle(gid, answered);
      });
      return;
    }
    if (rules.settleWrites) this.decisions.set(gid, { decision: 'abort', at: time.now() });
    answered('abort');
  }

  finish(gid: string, decision: Decision): Answer {
    const prepared = this.prepared.get(gid);
    if (prepared === undefined) return refused('42704');
    if (this.#world.random.oneIn(20)) return refused('55000');
    this.prepared.delete(gid);
    if (decision === 'commit') this.committed.add(prepared.transaction);
    return { kind: 'done' };
  }

  collect(held: readonly string[], olderThanMs: number): void {
    const before = this.#world.time.now() - olderThanMs;
    for (const [gid, { at }] of this.decisions) if (at < before && !held.includes(gid)) this.decisions.delete(gid);
  }
}

export interface SimWorld {
  readonly time: Scheduler;
  readonly random: SeededRandom;
  readonly rules: ServerRules;
  /** On the way, and at either end: now and then very long, as for who was stopped. */
  delay(): number;
}

type Message = (answered: (answer: Answer) => void) => void;

/** A connection, with the open transaction of a branch or none. Messages are carried out in their order. */
export class SimSession {
  readonly #shard: SimShard;
  #open: Open | null;
  readonly #inbox: { readonly message: Message; readonly told: (answer: Answer) => void }[] = [];
  /** The client's end. */
  #isBroken = false;
  #isDead = false;
  #isBusy = false;
  readonly #awaited = new Set<(answer: Answer) => void>();

  constructor(shard: SimShard, open: Open | null) {
    this.#shard = shard;
    this.#open = open;
  }

  get isBroken(): boolean {
    return this.#isBroken;
  }

  prepare(gid: string, told: (answer: Answer) => void): void {
    this.#send((answered) => {
      const open = this.#open;
      this.#open = null;
      const { world } = this.#shard;
      if (open === null || open.fails) {
        if (open !== null) this.#shard.ended(open, 'abort');
        return answered(refused('23503'));
      }
      const isLocal = world.random.oneIn(25);
      this.#shard.prepared.set(gid, { transaction: open.transaction, at: world.time.now(), isLocal });
      answered(isLocal ? { kind: 'local' } : { kind: 'done' });
    }, told);
  }

  /** Two statements in one write. */
  decide(gid: string, told: (answer: Answer) => void): void {
    let failure: Answer | null = null;
    this.#send(
      (answered) => {
        const answer = this.#open === null ? refused('25P01') : this.#shard.insertDecision(this.#open, gid);
        if (answer.kind === 'refused') failure = answer;
        answered({ kind: 'done' });
      },
      () => undefined,
    );
    this.#send((answered) => {
      const open = this.#open;
      this.#open = null;
      if (open === null) return answered(failure ?? refused('25P01'));
      const how = failure === null && !open.fails ? 'commit' : 'abort';
      this.#shard.ended(open, how);
      answered(how === 'commit' ? { kind: 'done' } : (failure ?? refused('23503')));
    }, told);
  }

  rollback(told: (answer: Answer) => void): void {
    this.#send((answered) => {
      this.#endOpen();
      answered({ kind: 'done' });
    }, told);
  }

  run(message: Message, told: (answer: Answer) => void): void {
    this.#send(message, told);
  }

  /** The client's end is gone. What was sent may arrive, in part, later. */
  cut(): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    const { random, time } = this.#shard.world;
    this.#inbox.splice(random.integer(this.#inbox.length + 1));
    for (const told of this.#awaited) time.after(this.#shard.world.delay(), () => told({ kind: 'lost' }));
    this.#awaited.clear();
    this.#work();
  }

  /** The server is gone. */
  killed(): void {
    this.#isDead = true;
    this.#inbox.length = 0;
    this.cut();
  }

  #send(message: Message, told: (answer: Answer) => void): void {
    const { world } = this.#shard;
    if (this.#isBroken) {
      world.time.after(0, () => told({ kind: 'lost' }));
      return;
    }
    this.#awaited.add(told);
    this.#inbox.push({ message, told });
    this.#work();
  }

  #work(): void {
    if (this.#isBusy || this.#isDead) return;
    const next = this.#inbox[0];
    const { time } = this.#shard.world;
    if (next === undefined) {
      // EOF behind what was sent.
      if (this.#isBroken) {
        this.#isDead = true;
        this.#shard.left(this);
        this.#endOpen();
      }
      return;
    }
    this.#isBusy = true;
    time.after(this.#shard.world.delay(), () => {
      if (this.#isDead) return;
      // A cut may have dropped it.
      if (this.#inbox[0] !== next) {
        this.#isBusy = false;
        return this.#work();
      }
      next.message((answer) => {
        if (this.#isDead) return;
        this.#isBusy = false;
        if (this.#inbox[0] === next) this.#inbox.shift();
        time.after(this.#shard.world.delay(), () => {
          if (!this.#awaited.delete(next.told)) return;
          next.told(answer);
        });
        this.#work();
      });
    });
  }

  #endOpen(): void {
    if (this.#open === null) return;
    const open = this.#open;
    this.#open = null;
    this.#shard.ended(open, 'abort');
  }
}
