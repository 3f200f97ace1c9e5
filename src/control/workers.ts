// The data processes as the control process sees them: starts them, replaces those that end, and passes on what one has
// to tell the others. Invariant: a number stands for one process at a time. Clients are handed to the workers in turn;
// from then on a client and its worker are alone. (With node:cluster a client on its way to a worker that dies hangs: R14.)
import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import { type Deferred, deferred } from '../base/deferred.js';
import type {
  ClusterState,
  ControlMessage,
  PreparedState,
  ShardHealth,
  WorkerAssignment,
  WorkerMessage,
  WorkerState,
} from '../cluster/control-port.js';
import { workerOf } from '../cluster/session-pids.js';
import type { Logger } from '../telemetry/log.js';
import { WorkerStatistics } from './worker-statistics.js';

export interface WorkersOptions {
  readonly count: number;
  /** What is started for each of them. */
  readonly program: string;
  /** Clients that may wait for a worker. */
  readonly waitingMax: number;
  /** A worker is about to send what wants nobody to be connected to the database. */
  databaseLeft(database: string): void;
  readonly log: Logger;
  /** What a worker that starts now begins with. */
  assignment(place: Pick<WorkerAssignment, 'worker' | 'state'>): WorkerAssignment;
}

interface Member {
  readonly worker: number;
  readonly process: ChildProcess;
  readonly startedAt: number;
  serving: boolean;
  /** Has not answered in time: clients go to others while there are any. */
  silent: boolean;
  /** Clients that it was handed since its last report. */
  handed: number;
  /** The client on its way to it; the next ones wait, so that they are not lost with the process. */
  handing: Socket | null;
  readonly waiting: Socket[];
  /** What it said before it ended in its start. */
  failure: Error | null;
  readonly started: Deferred<void>;
  readonly ended: Deferred<void>;
}

/** One that has not answered by then is busy; its last report stands. */
const REPORT_TIMEOUT_MS = 1_000;
const COLLECT_INTERVAL_MS = 2_000;
/** Who has lived that long has not failed for the same reason as its predecessor. */
const STEADY_MS = 60_000;
/** A worker with that many times, and that many more, of the clients of another is passed over. */
const UNEVEN = 1.25;
const UNEVEN_CLIENTS = 8;
const RESTART_MIN_MS = 100;
const RESTART_MAX_MS = 30_000;

/** @param failures workers of one number that ended in a row, each soon after its start */
export function restartDelayMs(failures: number): number {
  return Math.min(RESTART_MIN_MS * 2 ** (failures - 1), RESTART_MAX_MS);
}

export class Workers {
  readonly statistics = new WorkerStatistics();
  /** How often one that ended was replaced. */
  restarts = 0;
  readonly #options: WorkersOptions;
  readonly #numbers: readonly number[];
  readonly #members = new Map<number, Member>();
  readonly #failures = new Map<number, number>();
  readonly #timers = new Set<NodeJS.Timeout>();
  /** Have not reported yet since they were asked last. */
  readonly #asked = new Set<number>();
  #collecting: Deferred<void> | null = null;
  #health: readonly ShardHealth[] = [];
  #prepared: readonly PreparedState[] = [];
  /** While no worker takes clients. */
  readonly #waiting: Socket[] = [];
  #lastHanded = 0;
  #phase: 'starting' | 'running' | 'ending' = 'starting';

  constructor(options: WorkersOptions) {
    this.#options = options;
    this.#numbers = Array.from({ length: options.count }, (_, index) => index + 1);
  }

  /** Starts all of them; one that ends in its start keeps pgkv from starting. */
  async start(): Promise<void> {
    try {
      await Promise.all(this.#numbers.map((worker) => this.#fork(worker)));
      if (this.#members.size < this.#numbers.length) throw new Error('a worker ended while others were starting');
    } catch (error) {
      await this.end('stop', 0);
      throw error;
    }
    this.#phase = 'running';
    this.#timers.add(setInterval(() => void this.collect(), COLLECT_INTERVAL_MS).unref());
  }

  /** Hands over a client, of which nothing has been read, to the next worker in turn. */
  hand(client: Socket): void {
    const next = this.#nextServing();
    const queue = next?.waiting ?? this.#waiting;
    // Behind the end nobody would take it, and it would keep the process alive.
    if (this.#phase === 'ending' || queue.length >= this.#options.waitingMax) {
      client.destroy();
      return;
    }
    queue.push(client);
    if (next === null) return;
    this.#lastHanded = next.worker;
    next.handed++;
    this.#handNext(next);
  }

  /** One sentence for each worker that takes no clients now. */
  get troubles(): string[] {
    return this.#numbers.flatMap((worker) => {
      const member = this.#members.get(worker);
      if (member?.serving !== true) return [`worker ${worker} is being replaced`];
      return member.silent ? [`worker ${worker} does not answer`] : [];
    });
  }

  tell(message: ControlMessage): void {
    for (const member of this.#members.values()) this.#send(member, message);
  }

  /** By shard id. */
  setHealth(health: readonly ShardHealth[]): void {
    this.#health = health;
    this.tell({ kind: 'state', state: this.#state() });
  }

  setPrepared(prepared: readonly PreparedState[]): void {
    if (prepared.length === 0 && this.#prepared.length === 0) return;
    this.#prepared = prepared;
    this.tell({ kind: 'state', state: this.#state() });
  }

  /** Brings the statistics up to date. */
  collect(): Promise<void> {
    if (this.#collecting !== null) return this.#collecting.promise;
    const collecting = deferred<void>();
    this.#collecting = collecting;
    const timeout = setTimeout(() => {
      for (const worker of this.#asked) this.#fallsSilent(worker);
      this.#collected();
    }, REPORT_TIMEOUT_MS);
    void collecting.promise.then(() => clearTimeout(timeout));
    for (const member of this.#members.values()) {
      if (!member.serving) continue;
      this.#asked.add(member.worker);
      this.#send(member, { kind: 'report-wanted' });
    }
    if (this.#asked.size === 0) this.#collected();
    return collecting.promise;
  }

  /** Asks all of them to end, and ends those at once that are left after `graceMs`. Resolves when none is left. */
  async end(how: 'drain' | 'stop', graceMs: number): Promise<void> {
    this.#phase = 'ending';
    for (const timer of this.#timers) clearTimeout(timer);
    for (const client of this.#waiting.splice(0)) client.destroy();
    const members = [...this.#members.values()];
    this.tell({ kind: how });
    const deadline = setTimeout(() => {
      for (const { worker, process } of this.#members.values()) {
        this.#options.log.warn({ worker }, 'did not end by itself');
        process.kill('SIGKILL');
      }
    }, graceMs);
    await Promise.all(members.map(({ ended }) => ended.promise));
    clearTimeout(deadline);
  }

  /**
   * The next in turn; where that one has many more clients than another, as behind the end of a worker whose clients have come back
   * before its successor was there, the one with the fewest. Those that are silent only where all are.
   */
  #nextServing(): Member | null {
    let silent: Member | null = null;
    let next: Member | null = null;
    let least: Member | null = null;
    for (let step = 0; step < this.#numbers.length; step++) {
      const member = this.#members.get(((this.#lastHanded + step) % this.#numbers.length) + 1);
      if (member?.serving !== true || !member.process.connected) continue;
      if (member.silent) {
        silent ??= member;
        continue;
      }
      next ??= member;
      if (least === null || this.#clientsOf(member) < this.#clientsOf(least)) least = member;
    }
    if (next === null || least === null) return silent;
    return this.#clientsOf(next) > UNEVEN * this.#clientsOf(least) + UNEVEN_CLIENTS ? least : next;
  }

  /** About: those that have left since its last report are counted, too. */
  #clientsOf({ worker, handed }: Member): number {
    return handed + (this.statistics.reports.get(worker)?.counters.clientsConnected ?? 0);
  }

  /** Else its clients would wait for as long as it is busy with something else. */
  #fallsSilent(worker: number): void {
    const member = this.#members.get(worker);
    if (member === undefined || member.silent) return;
    member.silent = true;
    this.#options.log.warn({ worker }, 'a worker does not answer; new clients go to others');
    for (const client of member.waiting.splice(0)) this.hand(client);
  }

  #handNext(member: Member): void {
    if (member.handing !== null || !member.process.connected) return;
    const client = member.waiting.shift();
    if (client === undefined) return;
    member.handing = client;
    // Kept open here until it has arrived: the channel forgets what is on its way to a process that dies.
    member.process.send({ kind: 'client' } satisfies ControlMessage, client, { keepOpen: true }, (error) => {
      if (error !== null) this.#handed(member, client);
    });
  }

  /** It has arrived, or cannot: our side of it is closed. */
  #handed(member: Member, client: Socket | null): void {
    if (client === null || member.handing !== client) return;
    client.destroy();
    member.handing = null;
    this.#handNext(member);
  }

  /** Resolves when clients can come. */
  #fork(worker: number): Promise<void> {
    // The number shows in ps.
    const process = fork(this.#options.program, [`${worker}`], { serialization: 'advanced' });
    const member: Member = {
      worker,
      process,
      startedAt: performance.now(),
      serving: false,
      silent: false,
      handed: 0,
      handing: null,
      waiting: [],
      failure: null,
      started: deferred(),
      ended: deferred(),
    };
    this.#members.set(worker, member);
    process.on('message', (message) => this.#received(member, message as WorkerMessage));
    process.on('exit', (code, signal) => this.#ended(member, signal ?? code ?? 'unknown'));
    process.on('error', (error) => {
      this.#options.log.error({ worker, reason: error.message }, 'a worker cannot be reached');
      // It never came to be: no exit follows.
      if (process.pid === undefined) this.#ended(member, error.message);
    });
    this.#send(member, { kind: 'start', assignment: this.#options.assignment({ worker, state: this.#state() }) });
    return member.started.promise;
  }

  #send({ process, worker }: Member, message: ControlMessage): void {
    // Without file descriptors for its channel it never came to be; its 'error' follows.
    if (process.send === undefined) return;
    process.send(message, (error) => {
      if (error !== null) this.#options.log.debug({ worker, reason: error.message }, 'a worker has left');
    });
  }

  #received(member: Member, message: WorkerMessage): void {
    const { worker } = member;
    switch (message.kind) {
      case 'serving':
        member.serving = true;
        member.started.resolve();
        for (const client of this.#waiting.splice(0)) this.hand(client);
        return;
      case 'taken':
        this.#handed(member, member.handing);
        return;
      case 'failed':
        member.failure = new Error(message.reason);
        return;
      case 'report':
        // It came behind its sender's end, whose figures are in the sums by now.
        if (this.#members.get(worker) !== member) return;
        member.silent = false;
        member.handed = 0;
        this.statistics.take(worker, message.report);
        this.#answered(worker);
        return;
      case 'database-left':
        this.#options.databaseLeft(message.database);
        for (const other of this.#members.values()) if (other !== member) this.#send(other, message);
        return;
      case 'schema-changed':
      case 'verifier-forgotten':
        for (const other of this.#members.values()) if (other !== member) this.#send(other, message);
        return;
      case 'cancel': {
        const owner = this.#members.get(workerOf(message.pid));
        if (owner !== undefined && owner !== member) this.#send(owner, { ...message, from: worker });
        else this.#send(member, { kind: 'cancel-done', request: message.request });
        return;
      }
      case 'signal': {
        const owner = this.#members.get(workerOf(message.pid));
        if (owner !== undefined && owner !== member) this.#send(owner, { ...message, from: worker });
        else this.#send(member, { kind: 'signal-done', request: message.request, outcome: 'absent' });
        return;
      }
      case 'cancel-done':
      case 'signal-done': {
        const asker = this.#members.get(message.from);
        if (asker === undefined) return;
        const { from: _asker, ...answer } = message;
        this.#send(asker, answer);
        return;
      }
    }
  }

  #answered(worker: number): void {
    if (this.#asked.delete(worker) && this.#asked.size === 0) this.#collected();
  }

  #collected(): void {
    this.#asked.clear();
    this.statistics.refresh();
    this.#collecting?.resolve();
    this.#collecting = null;
    if (this.#phase === 'running') this.tell({ kind: 'state', state: this.#state() });
  }

  #state(): ClusterState {
    const workers = [...this.#members.values()].map((member): WorkerState => {
      const report = this.statistics.reports.get(member.worker);
      return {
        worker: member.worker,
        pid: member.process.pid ?? 0,
        serving: member.serving,
        epoch: report?.epoch ?? 0,
        clients: report?.counters.clientsConnected ?? 0,
        serverConnections: report?.counters.serverConnections ?? 0,
        statements: report?.counters.statements ?? 0,
        handedOver: report?.counters.mergedHanded ?? 0,
        taken: report?.counters.mergedOwned ?? 0,
      };
    });
    workers.sort((a, b) => a.worker - b.worker);
    return { health: this.#health, prepared: this.#prepared, workers, copies: this.statistics.copies };
  }

  /** @param how exit code, signal, or why it could not be started */
  #ended(member: Member, how: string | number): void {
    const { worker } = member;
    this.#members.delete(worker);
    this.statistics.ended(worker);
    this.#answered(worker);
    member.ended.resolve();
    // It may have been read from: nobody else can go on with it.
    member.handing?.destroy();
    for (const client of member.waiting.splice(0)) this.hand(client);
    if (this.#phase !== 'running') {
      member.started.reject(member.failure ?? new Error(`worker ${worker} ended in its start: ${how}`));
      return;
    }
    const isSteady = performance.now() - member.startedAt > STEADY_MS;
    const failures = isSteady ? 1 : (this.#failures.get(worker) ?? 0) + 1;
    this.#failures.set(worker, failures);
    const delayMs = restartDelayMs(failures);
    const fields = {
      worker,
      workerPid: member.process.pid,
      exit: how,
      reason: member.failure?.message,
      delayMs,
    };
    this.#options.log.error(fields, 'a worker has ended, its sessions with it; it is replaced');
    // Not a clock's timer: while no worker is left, it is all that keeps the process alive.
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.restarts++;
      this.#fork(worker).then(
        () => this.#options.log.info({ worker }, 'a worker was replaced'),
        // Its end is told and seen to above.
        () => undefined,
      );
    }, delayMs);
    this.#timers.add(timer);
  }
}
