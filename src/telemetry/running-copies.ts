// The copies into and out of key-value tables that clients of this process are at, for SHOW pgkv.copies. A client is at one at most.
import type { Clock } from '../base/clock.js';

export interface CopyState {
  /** Of the client, as BackendKeyData told it. */
  readonly pid: number;
  readonly user: string;
  readonly database: string;
  /** With its schema. */
  readonly table: string;
  readonly direction: 'in' | 'out';
  /** What the client has sent, or was sent, without the frames of messages. */
  readonly rows: number;
  readonly bytes: number;
  /** ISO 8601. */
  readonly startedAt: string;
}

export type CopyBegun = Omit<CopyState, 'rows' | 'bytes' | 'startedAt'>;

export interface RunningCopy {
  rows: number;
  bytes: number;
}

export class RunningCopies {
  readonly #clock: Pick<Clock, 'wallTime'>;
  readonly #running = new Map<RunningCopy, Omit<CopyState, 'rows' | 'bytes'>>();

  constructor(clock: Pick<Clock, 'wallTime'>) {
    this.#clock = clock;
  }

  begin(copy: CopyBegun): RunningCopy {
    const running: RunningCopy = { rows: 0, bytes: 0 };
    this.#running.set(running, { ...copy, startedAt: new Date(this.#clock.wallTime()).toISOString() });
    return running;
  }

  end(copy: RunningCopy | null): void {
    if (copy !== null) this.#running.delete(copy);
  }

  get states(): CopyState[] {
    return [...this.#running].map(([{ rows, bytes }, { startedAt, ...copy }]) => ({ ...copy, rows, bytes, startedAt }));
  }
}
