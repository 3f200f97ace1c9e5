// One simulated life of a cluster: transactions over two to four shards, committed by the coordinator, while routers and
// shards crash, connections break, answers get lost, and whoever acts is stopped for any time between two steps. Then peace,
// with a recoverer at work; and then each transaction has to be whole.
import { type CommitBranch, Coordinator, type Outcome } from '../../../src/execute/two-phase/coordinator.js';
import { type Answer, type Decision, PROTOCOL, type ProtocolRules } from '../../../src/execute/two-phase/protocol.js';
import { type PreparedBranch, RecoveryRound, type RecoveryServers } from '../../../src/execute/two-phase/recovery.js';
import { SeededRandom } from '../../support/seeded-random.js';
import { Scheduler } from '../scheduler.js';
import { SERVER_RULES, type ServerRules, SimShard, type SimWorld } from './sim-shard.js';

/** What is broken in a run, where something is to be. */
export interface Sabotage {
  readonly protocol?: Partial<ProtocolRules>;
  readonly server?: Partial<ServerRules>;
  /** The recoverer leaves these alone. */
  readonly skips?: (decision: Decision) => boolean;
  /** A COMMIT PREPARED that went wrong is not said again, by nobody. */
  readonly neverRetries?: boolean;
}

const SHARDS = ['a', 'b', 'c', 'd'];
const TROUBLE_MS = 30_000;
const PEACE_MS = 40_000;
const ROUND_MS = 1_000;
const LEFT_MS = 3_000;
/** Longer than anything is on its way: a decision is kept for a day, and no message travels for one. */
const KEEP_MS = 25_000;
const FINISH_MS = 5_000;

interface Told {
  readonly transaction: number;
  readonly shards: readonly SimShard[];
  outcome: Outcome | null;
}

class World implements SimWorld {
  readonly time = new Scheduler();
  readonly random: SeededRandom;
  readonly rules: ServerRules;
  readonly protocol: ProtocolRules;
  readonly shards = SHARDS.map((name) => new SimShard(name, this));
  readonly sabotage: Sabotage;
  readonly log: string[] = [];
  peace = false;

  constructor(seed: number, sabotage: Sabotage) {
    this.random = new SeededRandom(seed);
    this.sabotage = sabotage;
    this.rules = { ...SERVER_RULES, ...sabotage.server };
    this.protocol = { ...PROTOCOL, ...sabotage.protocol };
  }

  delay(): number {
    if (!this.peace && this.random.oneIn(40)) return this.random.integer(12_000);
    return this.random.integer(this.peace ? 5 : 50);
  }

  shard(name: string): SimShard {
    return this.shards.find((shard) => shard.name === name)!;
  }
}

/** A process: what it has begun ends with it. */
class Router {
  readonly #world: World;
  readonly #sessions = new Set<ReturnType<SimShard['connect']>>();
  readonly #coordinators = new Set<Coordinator>();
  readonly #left = new Set<string>();
  #isAlive = true;

  constructor(world: World) {
    this.#world = world;
    this.#recover();
  }

  crash(): void {
    this.#isAlive = false;
    for (const coordinator of this.#coordinators) coordinator.abandon();
    for (const session of this.#sessions) session.cut();
  }

  /** Breaks one of its connections. */
  cutOne(): void {
    const open = [...this.#sessions].filter(({ isBroken }) => !isBroken);
    if (open.length > 0) this.#world.random.pick(open).cut();
  }

  commit(told: Told): void {
    const { random, time } = this.#world;
    const gid = `${told.shards.at(-1)!.name}:${told.transaction}`;
    const branches = told.shards.map((shard): CommitBranch => {
      const fails = random.oneIn(15);
      const session = this.#connect(shard, { transaction: told.transaction, fails, decides: null });
      const mine = (answer: (answer: Answer) => void) => (got: Answer) => {
        if (this.#isAlive) answer(got);
      };
      return {
        shardName: shard.name,
        prepare: (name, answer) => session.prepare(name, mine(answer)),
        decide: (name, answer) => session.decide(name, mine(answer)),
        rollback: (answer) => session.rollback(mine(() => answer())),
        finish: (name, decision, answer) => {
          const heard = mine((got) => answer(this.#world.sabotage.neverRetries ? { kind: 'done' } : got));
          this.#ask(shard, (done) => done(shard.finish(name, decision)), heard);
        },
      };
    });
    const coordinator = new Coordinator({
      gid,
      branches,
      clock: time,
      finishMs: FINISH_MS,
      rules: this.#world.protocol,
      over: (outcome, left) => {
        told.outcome = outcome;
        this.#coordinators.delete(coordinator);
        if (left) this.#left.add(gid);
        if (outcome.kind === 'committed') requireVisible(told);
      },
    });
    this.#coordinators.add(coordinator);
    coordinator.start();
  }

  #connect(shard: SimShard, open: Parameters<SimShard['connect']>[0]) {
    const session = shard.connect(open);
    this.#sessions.add(session);
    return session;
  }

  /** One question on a connection of its own. */
  #ask(shard: SimShard, message: (done: (answer: Answer) => void) => void, told: (answer: Answer) => void): void {
    if (!shard.isUp) {
      this.#world.time.after(this.#world.delay(), () => told({ kind: 'lost' }));
      return;
    }
    const session = this.#connect(shard, null);
    session.run(message, (answer) => {
      this.#sessions.delete(session);
      session.cut();
      told(answer);
    });
  }

  #recover(): void {
    if (!this.#isAlive) return;
    const { time, protocol } = this.#world;
    const round = new RecoveryRound({
      servers: this.#servers(),
      isLeft: ({ gid, ageMs }) => ageMs >= LEFT_MS || this.#left.has(gid),
      collects: this.#world.random.oneIn(3),
      rules: protocol,
      over: ({ finished }) => {
        for (const { branch } of finished) this.#left.delete(branch.gid);
        if (this.#isAlive) time.after(ROUND_MS, () => this.#recover());
      },
    });
    round.start();
  }

  #servers(): RecoveryServers {
    const world = this.#world;
    return {
      shardNames: SHARDS,
      prepared: (name, told) => {
        const shard = world.shard(name);
        let found: PreparedBranch[] | null = null;
        this.#ask(
          shard,
          (done) => {
            found = [...shard.prepared].map(([gid, { at }]) => {
              return { gid, shardName: name, database: 'd', owner: 'o', ageMs: world.time.now() - at };
            });
            done({ kind: 'done' });
          },
          ({ kind }) => this.#isAlive && told(kind === 'done' ? found : null),
        );
      },
      settle: ({ gid }, told) => {
        const shard = world.shard(gid.split(':')[0]!);
        let decision: Decision | null = null;
        this.#ask(
          shard,
          (done) =>
            shard.settle(gid, (settled) => {
              decision = settled;
              done({ kind: 'done' });
            }),
          ({ kind }) => this.#isAlive && told(kind === 'done' ? decision : null),
        );
      },
      finish: ({ gid, shardName }, decision, told) => {
        if (world.sabotage.skips?.(decision)) return void world.time.after(0, () => told({ kind: 'done' }));
        const shard = world.shard(shardName);
        this.#ask(
          shard,
          (done) => done(shard.finish(gid, decision)),
          (answer) => this.#isAlive && told(answer),
        );
      },
      collect: (name, held, told) => {
        const shard = world.shard(name);
        this.#ask(
          shard,
          (done) => {
            shard.collect(held, KEEP_MS);
            done({ kind: 'done' });
          },
          () => this.#isAlive && told(),
        );
      },
    };
  }
}

export class RunFailure extends Error {}

function requireVisible({ transaction, shards }: Told): void {
  const missing = shards.filter(({ committed }) => !committed.has(transaction));
  if (missing.length > 0) {
    throw new RunFailure(`${transaction} was told as committed and is not on ${missing.map(({ name }) => name)}`);
  }
}

function requireWhole({ transaction, shards, outcome }: Told): void {
  const count = shards.filter(({ committed }) => committed.has(transaction)).length;
  if (count !== 0 && count !== shards.length)
    throw new RunFailure(`${transaction}: ${count} of ${shards.length} branches`);
  const committed = count > 0;
  if (outcome === null || outcome.kind === 'unknown') return;
  if (committed === (outcome.kind === 'aborted')) {
    throw new RunFailure(`${transaction} was told as ${outcome.kind}, and ${committed ? 'is' : 'is not'} committed`);
  }
}

export interface RunFigures {
  readonly outcomes: ReadonlyMap<string, number>;
}

/** @throws RunFailure */
export function simulate(seed: number, sabotage: Sabotage = {}): RunFigures {
  const world = new World(seed, sabotage);
  const { random, time } = world;
  const routers = [new Router(world)];
  if (random.oneIn(3)) routers.push(new Router(world));
  const told: Told[] = [];
  for (let transaction = 1, count = random.between(1, 6); transaction <= count; transaction++) {
    time.after(random.integer(TROUBLE_MS / 2), () => {
      const router = random.pick(routers);
      const shards = random.some(
        world.shards.filter(({ isUp }) => isUp),
        random.between(2, 4),
      );
      if (shards.length < 2) return;
      const one = { transaction, shards, outcome: null };
      told.push(one);
      router.commit(one);
    });
  }
  const trouble = (): void => {
    if (world.peace) return;
    const kind = random.integer(4);
    if (kind === 0) {
      const place = random.integer(routers.length);
      routers[place]!.crash();
      routers[place] = new Router(world);
    } else if (kind === 1) {
      const shard = random.pick(world.shards);
      shard.crash();
      time.after(random.integer(6_000), () => {
        shard.isUp = true;
      });
    } else random.pick(routers).cutOne();
    time.after(random.integer(random.oneIn(2) ? 200 : 8_000), trouble);
  };
  time.after(random.integer(TROUBLE_MS / 2), trouble);
  while (time.step(TROUBLE_MS));
  world.peace = true;
  while (time.step(TROUBLE_MS + PEACE_MS));
  for (const one of told) requireWhole(one);
  for (const { name, prepared } of world.shards) {
    if (prepared.size > 0) throw new RunFailure(`${[...prepared.keys()]} is still prepared on ${name}`);
  }
  const outcomes = new Map<string, number>();
  for (const { outcome } of told) {
    const kind = outcome?.kind ?? 'untold';
    outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1);
  }
  return { outcomes };
}
