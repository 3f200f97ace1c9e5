// Tells the log of logins that failed: the first few of every window one by one, the rest as a number, so that whoever
// tries passwords in a flood cannot flood the log.
import type { Clock } from '../../base/clock.js';
import { messageOf, PgkvError } from '../../base/errors.js';

export interface FailedLogin {
  /** As the client gave it. */
  readonly role: string;
  readonly address: string;
  readonly sqlstate: string;
  readonly reason: string;
}

type Tell = (fields: FailedLogin | { readonly logins: number }, message: string) => void;

const WINDOW_MS = 10_000;
const TOLD_PER_WINDOW_MAX = 10;
/** A name longer than Postgres's own (NAMEDATALEN) is nobody's. */
const ROLE_LENGTH_MAX = 64;

export class FailedLogins {
  readonly #clock: Clock;
  readonly #tell: Tell;
  #windowEnd = 0;
  #told = 0;
  #untold = 0;

  constructor(clock: Clock, tell: Tell) {
    this.#clock = clock;
    this.#tell = tell;
  }

  note(login: FailedLogin): void {
    this.tellRest();
    if (this.#told >= TOLD_PER_WINDOW_MAX) {
      this.#untold++;
      return;
    }
    if (this.#told === 0) this.#windowEnd = this.#clock.now() + WINDOW_MS;
    this.#told++;
    this.#tell({ ...login, role: login.role.slice(0, ROLE_LENGTH_MAX) }, 'login failed');
  }

  /** To be called now and then: a window that is over is summed up. */
  tellRest(): void {
    if (this.#told === 0 || this.#clock.now() < this.#windowEnd) return;
    if (this.#untold > 0) this.#tell({ logins: this.#untold }, 'more logins failed, not logged one by one');
    this.#told = this.#untold = 0;
  }
}

/** What the log may say and the client, who is nobody yet, may not: which server failed, and how. */
export function reasonFor(error: PgkvError): string {
  const { cause } = error;
  if (cause === undefined) return error.detail ?? error.message;
  return cause instanceof PgkvError ? (cause.detail ?? cause.message) : messageOf(cause);
}
