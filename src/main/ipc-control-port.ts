// A worker's line to the control process, over the channel it was started with.
import type { Clock, Timer } from '../base/clock.js';
import type { ShardId } from '../cluster/cluster-view.js';
import type { ControlPort, WorkerMessage } from '../cluster/control-port.js';
import type { SessionSignal, SignalOutcome } from '../cluster/session-pids.js';

/** The other worker may have ended meanwhile. */
const CANCEL_TIMEOUT_MS = 1_000;

export class IpcControlPort implements ControlPort {
  readonly #tell: (message: WorkerMessage) => void;
  readonly #clock: Clock;
  readonly #signalTimeoutMs: number;
  readonly #cancels: Requests<void>;
  readonly #signals: Requests<SignalOutcome>;

  /** @param signalTimeoutMs in which a worker has asked its server what it has to know */
  constructor(tell: (message: WorkerMessage) => void, clock: Clock, signalTimeoutMs: number) {
    this.#tell = tell;
    this.#clock = clock;
    this.#signalTimeoutMs = signalTimeoutMs;
    this.#cancels = new Requests(this.#clock);
    this.#signals = new Requests(this.#clock);
  }

  schemaChanged(shard: ShardId): void {
    this.#tell({ kind: 'schema-changed', shard });
  }

  verifierForgotten(role: string): void {
    this.#tell({ kind: 'verifier-forgotten', role });
  }

  databaseLeft(database: string): void {
    this.#tell({ kind: 'database-left', database });
  }

  cancel(pid: number, secretKey: Uint8Array, done: () => void): void {
    const request = this.#cancels.begin(CANCEL_TIMEOUT_MS, undefined, done);
    this.#tell({ kind: 'cancel', request, pid, secretKey });
  }

  cancelDone(request: number): void {
    this.#cancels.end(request, undefined);
  }

  signal(pid: number, what: SessionSignal, by: string, done: (outcome: SignalOutcome) => void): void {
    const request = this.#signals.begin(this.#signalTimeoutMs, 'unanswered', done);
    this.#tell({ kind: 'signal', request, pid, what, by });
  }

  signalDone(request: number, outcome: SignalOutcome): void {
    this.#signals.end(request, outcome);
  }
}

/** Requests whose answers are still to come. Each ends once: with its answer, or when its time is over. */
class Requests<Answer> {
  readonly #clock: Clock;
  readonly #open = new Map<number, { readonly done: (answer: Answer) => void; readonly timer: Timer }>();
  #last = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param late what stands for an answer that does not come in time */
  begin(timeoutMs: number, late: Answer, done: (answer: Answer) => void): number {
    const request = ++this.#last;
    const timer = this.#clock.after(timeoutMs, () => this.end(request, late));
    this.#open.set(request, { done, timer });
    return request;
  }

  end(request: number, answer: Answer): void {
    const open = this.#open.get(request);
    if (open === undefined) return;
    this.#open.delete(request);
    open.timer.cancel();
    open.done(answer);
  }
}
