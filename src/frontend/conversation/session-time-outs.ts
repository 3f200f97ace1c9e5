// The client's own time-outs (SET …) where no server can see that they have passed: idle_in_transaction_session_timeout and
// transaction_timeout while pgkv holds the block (D13), idle_session_timeout between transactions, when the session has no
// connection. A server that has the block keeps them itself. Invariant: a timer runs only while the client is awaited in
// the state that it is for; what the role or the database sets is not known here (docs/LIMITS.md).
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { Clock, Timer } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { milliseconds } from '../../session/milliseconds.js';

/** Where the session stands while the client is awaited: `away` is wherever a server keeps its own time, or runs something. */
export type Resting = 'in block here' | 'between transactions' | 'away';

export class SessionTimeOuts {
  readonly #clock: Clock;
  readonly #end: (error: PgkvError) => void;
  /** Whose values are known. */
  #group: SettingsGroup | null = null;
  #inTransaction = 0;
  #transaction = 0;
  #session = 0;
  #idleTimer: Timer | null = null;
  /** The one that the timer counts for. */
  #block: object | null = null;
  #blockTimer: Timer | null = null;

  constructor(clock: Clock, end: (error: PgkvError) => void) {
    this.#clock = clock;
    this.#end = end;
  }

  /** Whether the session has set any: else nothing need be told here. */
  concerns(group: SettingsGroup): boolean {
    if (group !== this.#group) this.#read(group);
    return this.#inTransaction + this.#transaction + this.#session > 0;
  }

  /** The client has sent something. */
  heard(): void {
    this.#idleTimer?.cancel();
    this.#idleTimer = null;
  }

  /**
   * All that has come is taken.
   * @param held the block in order that pgkv holds, whether or not the client is awaited: an object that no other block has
   */
  rests(resting: Resting, held: object | null): void {
    if (held !== this.#block) this.#leaveBlock();
    this.#block = held;
    if (held !== null && this.#transaction > 0 && this.#blockTimer === null) {
      this.#blockTimer = this.#clock.after(this.#transaction, () => this.#end(new PgkvError('transaction_timeout')));
    }
    if (resting === 'away') return this.heard();
    if (this.#idleTimer !== null) return;
    const inBlock = resting === 'in block here';
    const delay = inBlock ? this.#inTransaction : this.#session;
    if (delay === 0) return;
    this.#idleTimer = this.#clock.after(delay, () =>
      this.#end(inBlock ? new PgkvError('idle_in_transaction_timeout') : new PgkvError('idle_timeout', IDLE_SESSION)),
    );
  }

  stop(): void {
    this.heard();
    this.#leaveBlock();
  }

  #leaveBlock(): void {
    this.#block = null;
    this.#blockTimer?.cancel();
    this.#blockTimer = null;
  }

  #read(group: SettingsGroup): void {
    this.#group = group;
    const of = (name: string): number => milliseconds(group.values.get(name));
    this.#inTransaction = of('idle_in_transaction_session_timeout');
    this.#transaction = of('transaction_timeout');
    this.#session = of('idle_session_timeout');
    if (this.#inTransaction + this.#transaction + this.#session === 0) this.stop();
  }
}

/** In Postgres's words. */
const IDLE_SESSION = { message: 'terminating connection due to idle-session timeout' };
