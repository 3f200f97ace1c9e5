// A node's pool between clients that come, hold, give back and go away, and a server that takes its time over log-ins,
// refuses them and loses connections: all drawn from a seed, in virtual time. Owns what must hold after every event, worked out
// from the groups anew: it shares no code with what decides whose turn it is.
import type { ServerConnection } from '../../../src/backend/connection/server-connection.js';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { NodePool } from '../../../src/backend/pool/node-pool.js';
import type { LeaseRequest, PoolGroup } from '../../../src/backend/pool/pool-group.js';
import { AUTHENTICATION_OK, backendKey, errorResponse, ready } from '../../model/frames.js';
import { Scheduler } from '../../model/scheduler.js';
import { connectSockets, type SimSocket } from '../../model/sim-socket.js';
import { SeededRandom } from '../../support/seeded-random.js';

const RUN_MS = 5_000;
const LATENCY_MS = 2;
const LOGIN_MAX_MS = 30;
const LEASE_MAX_MS = 300;
const MERGED_MAX_MS = 20;
/** How long somebody may be overtaken, as the pool promises; and how often it looks anew where a server was full. */
const UNFAIRNESS_MAX_MS = 250;
const SWEEP_MS = 500;
const NETWORK = { highWaterMark: 65_536, chunkBytesMax: 65_536, latencyMaxMs: LATENCY_MS, cutShare: 0 };
const REFUSAL = { S: 'FATAL', V: 'FATAL', R: 'model' };

export interface Outcome {
  readonly faults: readonly string[];
  readonly served: number;
  readonly refused: number;
}

/** Plays one seed to its end. */
export function playPool(seed: number): Outcome {
  return new PoolWorld(seed).play();
}

class PoolWorld {
  readonly #scheduler = new Scheduler();
  readonly #random: SeededRandom;
  readonly #registry = new SettingsRegistry();
  readonly #pool: NodePool;
  readonly #sizeMax: number;
  readonly #roleShare: number;
  readonly #groups: PoolGroup[];
  readonly #sockets = new Set<SimSocket>();
  readonly #held = new Map<ServerConnection, LeaseRequest>();
  /** Everybody who waits, since when. */
  readonly #waiting = new Map<LeaseRequest, number>();
  readonly #faults = new Set<string>();
  readonly #clientCount: number;
  readonly #mergedCount: number;
  /** Shares of log-ins that are refused, and that find the server full. */
  readonly #refusedShare: number;
  readonly #fullShare: number;
  readonly #lossShare: number;
  readonly #thinkMaxMs: number;
  #neededSince: number | null = null;
  #pid = 0;
  #served = 0;
  #refused = 0;

  constructor(seed: number) {
    const random = new SeededRandom(seed);
    this.#random = random;
    this.#sizeMax = random.between(1, 12);
    this.#roleShare = random.pick([0.3, 0.5, 0.8, 1]);
    this.#clientCount = random.between(2, 30);
    this.#mergedCount = random.between(0, this.#clientCount);
    this.#refusedShare = random.pick([0, 0, 0.05, 0.3]);
    this.#fullShare = random.pick([0, 0, 0, 0.3]);
    this.#lossShare = random.pick([0, 0, 0.02, 0.2]);
    this.#thinkMaxMs = random.pick([0, 1, 20, 200]);
    this.#pool = new NodePool({
      address: { host: 'h', port: 1 },
      limits: {
        sizeMax: this.#sizeMax,
        roleShare: this.#roleShare,
        queueMax: 1_000,
        waitTimeoutMs: 1e9,
        answerTimeoutMs: 1e9,
        idleTimeoutMs: random.pick([1e9, 100]),
        lifetimeMaxMs: random.pick([1e9, 400]),
        connectTimeoutMs: 1_000,
        preparedStatementsMax: 10,
        serverMessageBytesMax: 10_000,
      },
      openStream: (_, opened) => {
        const [own, peer] = connectSockets('server', this.#scheduler, random, NETWORK);
        this.#accept(peer);
        opened({ stream: own.asDuplex(), readBuffer: null, certificate: null });
        return { abort: () => own.destroy() };
      },
      clock: this.#scheduler,
      random,
      noSettings: this.#registry.empty,
    });
    this.#groups = Array.from({ length: random.between(1, 6) }, (_, index) => this.#group(index));
  }

  play(): Outcome {
    const { scheduler, random } = { scheduler: this.#scheduler, random: this.#random };
    for (let client = 0; client < this.#clientCount; client++) {
      const isMerged = client < this.#mergedCount;
      scheduler.after(random.integer(100), () => this.#ask(isMerged));
    }
    while (this.#faults.size === 0 && scheduler.step(RUN_MS)) this.#check();
    // Nobody asks any more: those who wait are all served.
    const last = RUN_MS + this.#boundMs(false) + this.#boundMs(true);
    while (this.#faults.size === 0 && this.#waiting.size > 0 && scheduler.step(last)) this.#check();
    if (this.#faults.size === 0 && this.#waiting.size > 0) this.#fault(`${this.#waiting.size} wait at the end`);
    this.#pool.destroy();
    return { faults: [...this.#faults], served: this.#served, refused: this.#refused };
  }

  #group(index: number): PoolGroup {
    const startup = new Map([
      ['user', this.#random.pick(['a', 'b', 'c'])],
      ['database', this.#random.pick(['d', 'e'])],
      ['options', `-c number=${index}`],
    ]);
    return this.#pool.group(startup, { kind: 'none' });
  }

  #accept(socket: SimSocket): void {
    const random = this.#random;
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('end', () => socket.destroy());
    socket.once('data', () => {
      this.#scheduler.after(random.integer(LOGIN_MAX_MS), () => {
        const refusal = random.chance(this.#fullShare) ? '53300' : random.pick(['28P01', '3D000', 'lost']);
        const isRefused = refusal === '53300' || random.chance(this.#refusedShare);
        if (!isRefused) {
          const key = backendKey(++this.#pid, Buffer.alloc(4));
          socket.write(Buffer.concat([AUTHENTICATION_OK, key, ready('I')]));
        } else if (refusal === 'lost') socket.destroy();
        else socket.write(errorResponse({ ...REFUSAL, C: refusal, M: 'refused' }));
      });
    });
  }

  /** A client asks, and again when it has what it wanted or was refused. */
  #ask(isMerged: boolean): void {
    const random = this.#random;
    if (this.#scheduler.now() >= RUN_MS) return;
    const again = (): void => {
      this.#scheduler.after(random.integer(this.#thinkMaxMs + 1), () => this.#ask(isMerged));
    };
    const group = random.pick(this.#groups);
    const request: LeaseRequest = {
      group,
      ...(isMerged && { purpose: 'merged' as const }),
      settings: random.oneIn(3) ? this.#registry.intern(new Map([['app.x', '1']])) : this.#registry.empty,
      queuedAt: 0,
      granted: (connection) => {
        this.#served++;
        this.#waiting.delete(request);
        this.#hold(request, connection, again);
      },
      refused: () => {
        this.#refused++;
        this.#waiting.delete(request);
        // Not in the same instant, or a server that refuses all would be asked for ever.
        this.#scheduler.after(1, again);
      },
    };
    this.#waiting.set(request, this.#scheduler.now());
    this.#pool.acquire(request);
    if (!random.oneIn(20)) return;
    this.#scheduler.after(random.integer(LEASE_MAX_MS), () => {
      if (!this.#pool.withdraw(request)) return;
      this.#waiting.delete(request);
      again();
    });
  }

  #hold(request: LeaseRequest, connection: ServerConnection, again: () => void): void {
    const random = this.#random;
    if (this.#held.has(connection)) this.#fault('granted twice');
    for (const name of connection.placeholders) {
      if (!request.settings.values.has(name)) this.#fault('a custom setting of another session');
    }
    connection.settings = request.settings;
    for (const name of request.settings.placeholders) connection.placeholders.add(name);
    this.#held.set(connection, request);
    const isMerged = request.purpose !== undefined;
    if (random.chance(this.#lossShare)) for (const socket of this.#sockets) if (random.oneIn(10)) socket.reset();
    this.#scheduler.after(random.integer(isMerged ? MERGED_MAX_MS : LEASE_MAX_MS), () => {
      this.#held.delete(connection);
      this.#pool.release(connection, request.group);
      again();
    });
  }

  /** Longest that one may wait: everybody before it, one by one, on what is left when leases are held. */
  #boundMs(isMerged: boolean): number {
    const hasReserve = isMerged && this.#sizeMax >= 5;
    const ahead = hasReserve ? this.#mergedCount : this.#clientCount;
    const hold = hasReserve ? MERGED_MAX_MS : LEASE_MAX_MS;
    const full = this.#fullShare > 0 ? 20 * SWEEP_MS : 0;
    return UNFAIRNESS_MAX_MS + (ahead + 1) * (hold + LOGIN_MAX_MS + 6 * LATENCY_MS) + full;
  }

  #fault(what: string): void {
    this.#faults.add(`at ${Math.round(this.#scheduler.now())} ms, ${this.#sizeMax} at most: ${what}`);
  }

  #roomOf({ roleKey }: PoolGroup): number {
    const leases = [...this.#held].filter(([{ dead }, { purpose }]) => !dead && purpose === undefined);
    const left = this.#leasesMax - leases.length;
    const othersWait = this.#groups.some((other) => other.roleKey !== roleKey && other.leaseWaiting > 0);
    if (!othersWait) return left;
    const perRole = Math.max(1, Math.floor(this.#leasesMax * this.#roleShare));
    const ofRole = leases.filter(([, { group }]) => group.roleKey === roleKey).length;
    return Math.max(0, Math.min(left, perRole - ofRole));
  }

  get #leasesMax(): number {
    return this.#sizeMax - Math.floor(this.#sizeMax / 5);
  }

  /** Those of a group that may have a connection now. */
  #entitled(group: PoolGroup): LeaseRequest[] {
    let room = this.#roomOf(group);
    return [...group.waiting].filter(({ purpose }) => purpose !== undefined || room-- > 0);
  }

  #check(): void {
    const now = this.#scheduler.now();
    const known = this.#groups.map((group) => this.#pool.group(group.startup, group.credential));
    this.#groups.splice(0, this.#groups.length, ...known);
    const leases = [...this.#held].filter(([{ dead }, { purpose }]) => !dead && purpose === undefined);
    if (leases.length > this.#leasesMax) this.#fault(`${leases.length} leases`);
    const opening = known.reduce((sum, group) => sum + group.opening, 0);
    const { openCount, idleCount } = this.#pool;
    if (openCount + opening > this.#sizeMax) this.#fault(`${openCount} are open and ${opening} opening`);
    let needed = 0;
    for (const group of known) {
      const entitled = this.#entitled(group);
      needed += Math.max(0, entitled.length - group.opening);
      for (const { placeholders } of group.idle) {
        const fits = ({ settings }: LeaseRequest): boolean =>
          [...placeholders].every((name) => settings.values.has(name));
        if (entitled.some(fits)) this.#fault('a connection is idle for which somebody of its group waits');
      }
    }
    const canHelp = idleCount > 0 || openCount + opening < this.#sizeMax;
    if (needed === 0 || !canHelp) this.#neededSince = null;
    else {
      this.#neededSince ??= now;
      const isOverdue = this.#fullShare === 0 || now - this.#neededSince > SWEEP_MS;
      if (isOverdue) this.#fault(`${needed} wait, ${idleCount} are idle, ${openCount} open, ${opening} opening`);
    }
    for (const [request, since] of this.#waiting) {
      const bound = this.#boundMs(request.purpose !== undefined);
      if (now - since > bound) this.#fault(`one (${request.purpose ?? 'lease'}) waits for more than ${bound} ms`);
    }
  }
}
