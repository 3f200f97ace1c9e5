// One simulated run: pgkv's own sessions, lanes and pool between scripted clients and the model server, on virtual time
// and an invented network. A seed gives the whole run: sizes, limits, scripts, delays, faults. While it runs and at its
// end everything is checked that has to hold whatever happens; the first thing that does not is thrown.
import type { Socket } from 'node:net';
import { sendCancelRequest } from '../../src/backend/connection/cancel-request.js';
import type { OpenStream } from '../../src/backend/connection/server-socket.js';
import { SettingsRegistry } from '../../src/backend/connection/settings-group.js';
import { NodePool, type PoolLimits } from '../../src/backend/pool/node-pool.js';
import { type ReadTemplate, StatementSources } from '../../src/backend/replies/statement-source.js';
import { messageOf } from '../../src/base/errors.js';
import { initialView } from '../../src/cluster/cluster-view.js';
import { LockContention } from '../../src/execute/two-phase/lock-contention.js';
import { LockWatch } from '../../src/execute/two-phase/lock-watch.js';
import { PreparedSlots } from '../../src/execute/two-phase/prepared-slots.js';
import { AllowList } from '../../src/frontend/door/allow-list.js';
import { CancelRegistry } from '../../src/frontend/door/cancel-registry.js';
import { ClientConnection } from '../../src/frontend/door/client-connection.js';
import { FailedLogins } from '../../src/frontend/door/failed-logins.js';
import type { FrontendServices } from '../../src/frontend/door/frontend-services.js';
import { PendingStartups } from '../../src/frontend/door/pending-startups.js';
import { RefusedClients } from '../../src/frontend/door/refused-clients.js';
import { TemplateCache } from '../../src/sql/template-cache.js';
import { TextBudget } from '../../src/sql/text-budget.js';
import { type Counters, createCounters } from '../../src/telemetry/counters.js';
import { RunningCopies } from '../../src/telemetry/running-copies.js';
import { frontendLimits } from '../../src/wire/protocol.js';
import { SeededRandom } from '../support/seeded-random.js';
import { Expectations, type Mishaps } from './expectations.js';
import type { Message } from './frames.js';
import { ModelServer, type ServerConditions, type ServerSession } from './model-server.js';
import { checkDatabase, checkIdleConnection } from './resting-state.js';
import { Scheduler } from './scheduler.js';
import { chooseSubjects, writeScript } from './script.js';
import { SimClient } from './sim-client.js';
import { connectSockets, type NetworkConditions, type SimSocket } from './sim-socket.js';

/** Templates are a pure function of texts: all runs share them. */
const templates = new TemplateCache({ bytesMax: 32 * 1024 * 1024 });
const templateOf: ReadTemplate = (text, standardStrings, scope) => templates.get(text, standardStrings, scope);

const ADDRESS = { host: 'model', port: 1 };
const VIEW = initialView([{ name: 's1', hashSlots: [], nodes: [ADDRESS] }]);
const CANCEL_TIMEOUT_MS = 2_000;
/** As long as statements parsed before DDL may be under way. */
const SCHEMA_NEWS_MS = 1_000;
const POOL_SWEEP_MS = 500;
/** By then faults are over. */
const FAULTS_UNTIL_MS = 3_000;
/** Longer than any time-out of pgkv's: what has not ended by then hangs. */
const RUN_MAX_MS = 120_000;
const EVENTS_MAX = 200_000;
/** Statements of pgkv's own, which it sends whatever else is under way. */
const ALLOWED = new AllowList([]);
const OWN_BYTES_MAX = 11_000;

export interface RunOptions {
  readonly seed: number;
  /** Told of every event, a line each. */
  readonly trace?: (line: string) => void;
}

/** An invariant does not hold, or pgkv threw: what, and the seed that shows it again. */
export class RunFailure extends Error {
  readonly seed: number;

  constructor(seed: number, what: string, cause: unknown) {
    super(`seed ${seed}: ${what}`, cause === undefined ? undefined : { cause });
    this.name = 'RunFailure';
    this.seed = seed;
  }
}

/** Throws RunFailure. The SQL parser must be loaded. */
export function simulate(options: RunOptions): RunStatistics {
  return new World(options).run();
}

export interface RunStatistics {
  readonly events: number;
  readonly answers: number;
  readonly faults: number;
}

class World {
  readonly #seed: number;
  readonly #trace: ((line: string) => void) | null;
  readonly #random: SeededRandom;
  readonly #scheduler = new Scheduler();
  readonly #network: NetworkConditions;
  readonly #conditions: ServerConditions;
  readonly #server: ModelServer;
  readonly #counters: Counters = createCounters();
  readonly #registry = new SettingsRegistry();
  readonly #limits: PoolLimits;
  readonly #pool: NodePool;
  readonly #cancels: CancelRegistry;
  readonly #services: FrontendServices;
  readonly #clients: SimClient[] = [];
  readonly #connections = new Map<SimClient, ClientConnection>();
  readonly #openConnections = new Set<ClientConnection>();
  readonly #sockets: SimSocket[] = [];
  /** Bytes a waiting client's connection had received when it began to wait. */
  readonly #receivedBefore = new Map<SimSocket, { readonly received: number; readonly written: number }>();
  readonly #bufferBytesMax: number;
  /** Faults a second, 0 in runs in which nothing may fail. */
  readonly #faultRate: number;
  readonly #mishaps: Mishaps & { connectFailures: boolean };
  #schemaChangedAt = Number.NEGATIVE_INFINITY;
  #violation: string | null = null;
  #faults = 0;
  #events = 0;

  constructor({ seed, trace }: RunOptions) {
    this.#seed = seed;
    this.#trace = trace ?? null;
    this.#random = new SeededRandom(seed);
    const random = this.#random;
    this.#network = {
      highWaterMark: random.pick([300, 2_000, 16_384, 65_536]),
      chunkBytesMax: random.pick([200, 1_000, 8_192]),
      latencyMaxMs: random.pick([0.5, 5, 30]),
      cutShare: random.pick([0, 0.1, 0.5]),
    };
    this.#faultRate = random.chance(0.5) ? 0 : random.pick([0.5, 2, 10]);
    const failsLogins = this.#faultRate > 0 && random.chance(0.5);
    this.#conditions = { thinkingMaxMs: random.pick([0.5, 5, 20]), loginFailureShare: failsLogins ? 0.2 : 0 };
    this.#limits = {
      sizeMax: random.between(1, 4),
      queueMax: random.chance(0.1) ? 2 : 100,
      answerTimeoutMs: 10_000,
      roleShare: random.pick([0.3, 0.8, 1]),
      waitTimeoutMs: random.pick([1_000, 30_000, 30_000]),
      idleTimeoutMs: random.pick([300, 10_000, Number.POSITIVE_INFINITY]),
      lifetimeMaxMs: random.pick([200, 5_000, Number.POSITIVE_INFINITY]),
      connectTimeoutMs: 1_500,
      preparedStatementsMax: random.pick([1, 3, 100]),
      serverMessageBytesMax: 1_000_000,
    };
    const { queueMax, waitTimeoutMs } = this.#limits;
    const scarcity = queueMax < 10 || waitTimeoutMs < 10_000;
    const justChanged = (): boolean => this.#scheduler.now() - this.#schemaChangedAt < SCHEMA_NEWS_MS;
    this.#mishaps = {
      connectFailures: false,
      scarcity,
      get schemaJustChanged() {
        return justChanged();
      },
    };
    this.#server = new ModelServer({
      scheduler: this.#scheduler,
      random,
      conditions: this.#conditions,
      violated: (what) => this.#violated(what),
      traced: (what) => this.#traced(what),
      connectFailed: () => {
        this.#mishaps.connectFailures = true;
      },
      handled: (session, message) => this.#delicateMoment(session, message),
    });
    this.#server.database.schemaChanged = () => {
      this.#schemaChangedAt = this.#scheduler.now();
    };
    this.#server.database.hidesNames = random.chance(0.5);
    this.#server.database.hasTrigger = random.chance(0.2);
    this.#pool = new NodePool({
      address: ADDRESS,
      shardName: null,
      limits: this.#limits,
      openStream: this.#openStream,
      clock: this.#scheduler,
      random,
      noSettings: this.#registry.empty,
    });
    this.#bufferBytesMax = random.pick([100, 500, 16_384]);
    this.#cancels = new CancelRegistry(random);
    this.#services = this.#composeServices();
  }

  run(): RunStatistics {
    try {
      this.#start();
      this.#runUntil(RUN_MAX_MS, () => this.#clients.every(({ gone }) => gone));
      for (const client of this.#clients) {
        if (client.unfinished !== null) this.#violated(`${client.expectations.owner} hangs: ${client.unfinished}`);
      }
      // What clients have left behind: connections to roll back, close, hand over to nobody. Looked at between sweeps of
      // the pool, when nothing is under way.
      const sweeps = Math.ceil(this.#scheduler.now() / POOL_SWEEP_MS) + 20;
      this.#runUntil(sweeps * POOL_SWEEP_MS - 50, () => false);
      this.#checkRest();
      this.#stopIfViolated();
      this.#pool.close();
      this.#runUntil(this.#scheduler.now() + 60_000, () => false);
      this.#checkEnd();
      this.#stopIfViolated();
    } catch (error) {
      const what = this.#violation ?? `threw ${error instanceof Error ? error.stack : messageOf(error)}`;
      throw new RunFailure(this.#seed, what, error instanceof Violation ? undefined : error);
    }
    const answers = this.#clients.reduce((sum, { expectations }) => sum + expectations.readies, 0);
    return { events: this.#events, answers, faults: this.#faults };
  }

  #start(): void {
    const random = this.#random;
    const subjects = chooseSubjects(random);
    const dawdles = random.pick([0, 0, 0.05, 0.3]);
    for (let count = random.between(1, 5), id = 1; id <= count; id++) {
      const owner = `c${id}`;
      const startup: Record<string, string> = { user: random.pick(['u', 'u', 'u', 'v']), database: 'd' };
      const hasName = random.chance(0.3);
      if (hasName) startup['application_name'] = `${owner}.0`;
      const ownRandom = new SeededRandom(this.#seed, id);
      const script = writeScript(ownRandom, owner, subjects, hasName);
      const mishaps: Mishaps = this.#mishaps;
      const expectations = new Expectations(owner, new Map(Object.entries(startup)), mishaps, (what) =>
        this.#violated(what),
      );
      expectations.database.hasTrigger = this.#server.database.hasTrigger;
      this.#scheduler.after(random.fraction() * random.pick([1, 200]), () => {
        let connection: ClientConnection | null = null;
        const client = new SimClient({
          scheduler: this.#scheduler,
          random: ownRandom,
          script,
          expectations,
          startup,
          dawdles,
          connect: (name) => {
            const [own, other] = this.#connect(name);
            const accepted = new ClientConnection(own.asDuplex() as Socket, this.#services, null, (over) =>
              this.#openConnections.delete(over),
            );
            this.#openConnections.add(accepted);
            connection ??= accepted;
            return other;
          },
          traced: (what) => this.#traced(what),
          violated: (what) => this.#violated(what),
        });
        this.#connections.set(client, connection!);
        this.#clients.push(client);
      });
    }
    // All clients exist before the run may be found to be over.
    this.#runUntil(250, () => false);
    if (this.#faultRate > 0) this.#scheduleFault();
  }

  #composeServices(): FrontendServices {
    const clock = this.#scheduler;
    const random = this.#random;
    const counters = this.#counters;
    return {
      clock,
      counters,
      nodes: { primary: () => this.#pool, home: this.#pool },
      view: () => VIEW,
      merged: null,
      registry: this.#registry,
      cancels: this.#cancels,
      limits: {
        connectionsMax: 100,
        startupPendingMax: 100,
        startupPendingPerAddressMax: 100,
        startupTimeoutMs: 60_000,
        idleTimeoutMs: 0,
        idleInTransactionTimeoutMs: 0,
        closeGraceMs: 500,
        frontendLimits: frontendLimits(1_000_000),
      },
      cancelStatement: (_shard, connection, delivered) =>
        sendCancelRequest({
          openStream: this.#openStream,
          address: ADDRESS,
          pid: connection.pid,
          secretKey: connection.secretKey,
          clock,
          timeoutMs: CANCEL_TIMEOUT_MS,
          delivered,
        }),
      authentication: {
        method: 'trust',
        roles: null,
        failureDelayMs: 0,
        mockSecret: Buffer.alloc(32),
        clock,
        random,
      },
      allowed: () => ALLOWED,
      pending: new PendingStartups(),
      failedLogins: new FailedLogins(clock, () => undefined),
      refusedClients: new RefusedClients(clock, this.#counters, () => undefined),
      conversation: {
        clock,
        counters,
        copies: new RunningCopies(clock),
        // One shard: nobody waits over several.
        preparedSlots: new PreparedSlots({ clock, processes: 1, ask: async () => 100 }),
        lockContention: new LockContention(clock),
        lockWatch: new LockWatch({
          ...{ clock, random: this.#random },
          looks: { look: async () => [] },
          ended: () => undefined,
        }),
        sources: new StatementSources(new TextBudget(1_000_000), templateOf),
        templateOf,
        literalsOf: (text, standardStrings) => templates.literalsOf(text, standardStrings),
        view: () => VIEW,
        random: this.#random,
        show: () => null,
        signal: (_pid, _what, _by, done) => done('absent'),
        bufferBytesMax: this.#bufferBytesMax,
        statementBytesMax: 1_000_000,
        tapFor: () => null,
      },
      tlsRequired: false,
      tls: () => null,
    };
  }

  /** Both ends of a connection: pgkv's, and the other. */
  #connect(name: string): [SimSocket, SimSocket] {
    const [own, other] = connectSockets(name, this.#scheduler, this.#random, this.#network);
    this.#sockets.push(own);
    return [own, other];
  }

  readonly #openStream: OpenStream = (_address, opened, failed) => {
    const random = this.#random;
    let aborted = false;
    // Now and then long enough for a cancel to come when its statement is over.
    const delayMaxMs = random.chance(0.2) ? 100 : this.#network.latencyMaxMs;
    this.#scheduler.after(random.fraction() * delayMaxMs, () => {
      if (aborted) return;
      if (random.chance(this.#conditions.loginFailureShare)) {
        this.#mishaps.connectFailures = true;
        this.#faults++;
        // Refused, or no answer at all: then pgkv gives up by itself.
        if (random.chance(0.7)) failed(new Error('connect ECONNREFUSED'));
        return;
      }
      const [own, other] = this.#connect('a server');
      const session = this.#server.accept(other);
      // First to hear of it, before pgkv acts on it.
      for (const event of ['end', 'error'] as const) own.once(event, () => this.#connectionLost(session.pid));
      own.on('data', () => {
        if (session.saidGoodbye) this.#connectionLost(session.pid, true);
      });
      opened({ stream: own.asDuplex(), readBuffer: own.reuseReads(), certificate: null });
    });
    return {
      abort: () => {
        aborted = true;
      },
    };
  };

  /** @param afterAnswers other bytes came with the news: who waits may get the connection just before it is known */
  #connectionLost(pid: number, afterAnswers = false): void {
    this.#traced(() => `pgkv loses server ${pid}`);
    for (const [client, { conversation }] of this.#connections) {
      if (conversation === null) continue;
      const { connection, mode } = conversation.lane;
      if (connection?.pid === pid || (afterAnswers && mode === 'waiting')) client.expectations.losses++;
    }
  }

  #scheduleFault(): void {
    const random = this.#random;
    this.#scheduler.after((random.fraction() * 2_000) / this.#faultRate, () => {
      if (this.#scheduler.now() > FAULTS_UNTIL_MS) {
        this.#conditions.loginFailureShare = 0;
        return;
      }
      this.#fault();
      this.#scheduleFault();
    });
  }

  /** Faults where they hurt: something has just been done, and its answer has not arrived. */
  #delicateMoment(session: ServerSession, { bytes }: Message): void {
    if (this.#faultRate === 0 || this.#scheduler.now() > FAULTS_UNTIL_MS) return;
    const ends = bytes.includes('COMMIT') || bytes.includes('ROLLBACK');
    const inBlock = session.model?.state.transaction?.block === true;
    if (this.#random.chance(ends ? 0.05 : inBlock ? 0.02 : 0.005)) this.#breakSession(session);
  }

  #fault(): void {
    const sessions = [...this.#server.sessions];
    if (sessions.length > 0) this.#breakSession(this.#random.pick(sessions));
  }

  #breakSession(session: ServerSession): void {
    const random = this.#random;
    this.#faults++;
    const isLoggedIn = [...this.#pool.connections()].some(({ pid }) => pid === session.pid);
    if (!isLoggedIn) this.#mishaps.connectFailures = true;
    const roll = random.fraction();
    if (roll < 0.25) session.kill(true);
    else if (roll < 0.5) session.kill(false);
    else if (roll < 0.75) {
      this.#traced(() => `the network resets server ${session.pid}`);
      session.socket.reset();
    } else if (roll < 0.85) session.silence(random.fraction() * 1_000);
    else if (roll < 0.95) random.pick([session.socket, session.socket.peer]).stall(random.fraction() * 1_000);
    else {
      this.#mishaps.connectFailures = true;
      for (const one of [...this.#server.sessions]) one.kill(random.chance(0.5));
    }
  }

  #runUntil(deadline: number, isOver: () => boolean): void {
    while (!isOver()) {
      if (!this.#scheduler.step(deadline)) break;
      this.#stopIfViolated();
      if (++this.#events > EVENTS_MAX) this.#violated('the run does not come to an end');
      if ((this.#events & 15) === 0) this.#checkRunning();
    }
    this.#stopIfViolated();
  }

  #stopIfViolated(): void {
    if (this.#violation !== null) throw new Violation();
  }

  /** Holds at any moment. */
  #checkRunning(): void {
    const holders = new Map<unknown, string>();
    for (const [client, { conversation }] of this.#connections) {
      if (client.gone || conversation === null) continue;
      const { connection, mode } = conversation.lane;
      this.#checkReceived(client.socket.peer, mode === 'waiting');
      if (connection === null) continue;
      const { owner } = client.expectations;
      const other = holders.get(connection);
      if (other !== undefined) this.#violated(`${owner} and ${other} hold server ${connection.pid} at one time`);
      holders.set(connection, owner);
    }
    if (this.#pool.openCount > this.#limits.sizeMax) this.#violated('the pool is larger than its limit');
    if (this.#pool.waitingCount > this.#limits.queueMax) this.#violated('more wait than may');
    const { highWaterMark, chunkBytesMax } = this.#network;
    const bytesMax = highWaterMark + 2 * chunkBytesMax + OWN_BYTES_MAX;
    for (const socket of this.#sockets) {
      if (socket.pendingBytesPeak > bytesMax)
        this.#violated(`${socket.pendingBytesPeak} bytes wait for ${socket.name}`);
    }
  }

  /** What a client sends while it waits for a connection stays in the network, but for a bounded part. */
  #checkReceived(socket: SimSocket, isWaiting: boolean): void {
    const before = this.#receivedBefore.get(socket);
    if (!isWaiting) this.#receivedBefore.delete(socket);
    else if (before === undefined || before.written !== socket.writtenBytes) {
      // What is answered meanwhile (a cancel takes back what waits) makes room for more.
      this.#receivedBefore.set(socket, { received: socket.receivedBytes, written: socket.writtenBytes });
    } else if (socket.receivedBytes - before.received > this.#bufferBytesMax + 2 * this.#network.chunkBytesMax) {
      this.#violated(`${socket.receivedBytes - before.received} bytes of ${socket.name} were taken while it waits`);
    }
  }

  /** Holds when all clients have gone and everything has calmed down. */
  #checkRest(): void {
    const pool = this.#pool;
    if (pool.waitingCount !== 0) this.#violated(`${pool.waitingCount} requests wait for nobody`);
    if (pool.idleCount !== pool.openCount) {
      this.#violated(`${pool.openCount - pool.idleCount} connections are leased to nobody`);
    }
    if (this.#cancels.size !== 0) this.#violated(`${this.#cancels.size} cancel keys are left`);
    if (this.#counters.clientsConnected !== 0) this.#violated(`${this.#counters.clientsConnected} clients are counted`);
    if (this.#counters.startupsPending !== 0) this.#violated(`${this.#counters.startupsPending} log-ins are counted`);
    if (this.#openConnections.size !== 0) this.#violated(`${this.#openConnections.size} client connections are open`);
    const sessions = new Map([...this.#server.sessions].map((session) => [session.pid, session]));
    if (sessions.size !== pool.openCount) {
      this.#violated(`the server has ${sessions.size} sessions, the pool ${pool.openCount} connections`);
    }
    for (const connection of pool.connections()) {
      const model = sessions.get(connection.pid)?.model;
      if (model === undefined || model === null) {
        this.#violated(`connection ${connection.pid} leads nowhere`);
        continue;
      }
      if (!connection.atRest) this.#violated(`connection ${connection.pid} is idle, but not at rest`);
      checkIdleConnection(connection, model, (what) => this.#violated(what));
    }
    const clients = this.#clients.map(({ expectations }) => expectations);
    checkDatabase(this.#server.database.committed, clients, (what) => this.#violated(what));
  }

  /** The pool is closed: nothing is left. */
  #checkEnd(): void {
    if (this.#pool.openCount !== 0) this.#violated(`${this.#pool.openCount} connections are open behind close()`);
    const left = this.#server.sessions.size;
    if (left !== 0) this.#violated(`${left} sessions are left on the server`);
    if (this.#scheduler.size !== 0) this.#violated(`${this.#scheduler.size} timers are left`);
  }

  #violated(what: string): void {
    this.#violation ??= what;
    this.#traced(() => `violated: ${what}`);
  }

  #traced(what: () => string): void {
    this.#trace?.(`${this.#scheduler.now().toFixed(2).padStart(9)} ${what()}`);
  }
}

/** Leaves the run; what was violated is known. */
class Violation extends Error {}
