// A worker's line to the control process, over the channel it was started with.
import type { Clock, Timer } from '../base/clock.js';
import type { ShardId } from '../cluster/cluster-view.js';
import type { ControlPort, WorkerMessage } from '../cluster/control-port.js';

/** The other worker may have ended meanwhile. */
const CANCEL_TIMEOUT_MS = 1_000;

export class IpcControlPort implements ControlPort {
  readonly #tell: (message: WorkerMessage) => void;
  readonly #clock: Clock;
  readonly #cancels = new Map<number, { done: () => void; timer: Timer }>();
  #lastRequest = 0;

  constructor(tell: (message: WorkerMessage) => void, clock: Clock) {
    this.#tell = tell;
    this.#clock = clock;
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
    const request = ++this.#lastRequest;
    const timer = this.#clock.after(CANCEL_TIMEOUT_MS, () => this.cancelDone(request));
    this.#cancels.set(request, { done, timer });
    this.#tell({ kind: 'cancel', request, pid, secretKey });
  }

  cancelDone(request: number): void {
    const cancel = this.#cancels.get(request);
    if (cancel === undefined) return;
    this.#cancels.delete(request);
    cancel.timer.cancel();
    cancel.done();
  }
}
