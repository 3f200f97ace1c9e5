// Cancel keys of all sessions of this process: a CancelRequest reaches exactly the session whose key it carries, also
// one of another process, whose pids are others.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
import { timingSafeEqual } from 'node:crypto';
import type { Random } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { ALL_PIDS, FIRST_SESSION_PID, type PidRange } from '../../cluster/session-pids.js';
import type { SessionPid } from '../../session/session.js';
import type { BackendCall } from '../../sql/plan/backend-call.js';
import { PROTOCOL_3_2 } from '../../wire/protocol.js';

/** Protocol 3.2 allows up to 256 bytes; Postgres 18 sends 32. Protocol 3.0 fixes it at 4. */
const KEY_BYTES_3_2 = 32;
const KEY_BYTES_3_0 = 4;

/** What can be done to a session from outside. */
export interface Signals {
  readonly user: string;
  readonly cancel: () => void;
  /** As pg_terminate_backend() ends one. */
  readonly terminate: () => void;
}

/** Who asks for it in SQL. */
export interface Signaller {
  readonly user: string;
  readonly isSuperuser: boolean;
}

interface Entry extends Signals {
  readonly secretKey: Buffer;
}

export type ForwardCancel = (pid: number, secretKey: Buffer, done: () => void) => void;

export class CancelRegistry {
  readonly #entries = new Map<number, Entry>();
  readonly #random: Random;
  readonly #pids: PidRange;
  readonly #forward: ForwardCancel | null;
  #lastPid: number;

  /** @param forward null: there are no other processes, and `pids` are all there are */
  constructor(random: Random, pids: PidRange = ALL_PIDS, forward: ForwardCancel | null = null) {
    this.#random = random;
    this.#pids = pids;
    this.#forward = forward;
    // Within the smallest range there is.
    this.#lastPid = pids.first - 1 + (random.bytes(4).readUInt32BE(0) & 0xffffff);
  }

  get size(): number {
    return this.#entries.size;
  }

  /** A pid no living session has, and a key of the length the client's protocol version allows. */
  register(version: number, signals: Signals): { pid: SessionPid; secretKey: Buffer } {
    do {
      this.#lastPid = this.#lastPid >= this.#pids.last ? this.#pids.first : this.#lastPid + 1;
    } while (this.#entries.has(this.#lastPid));
    const secretKey = this.#random.bytes(version >= PROTOCOL_3_2 ? KEY_BYTES_3_2 : KEY_BYTES_3_0);
    this.#entries.set(this.#lastPid, { ...signals, secretKey });
    return { pid: this.#lastPid as SessionPid, secretKey };
  }

  unregister(pid: SessionPid): void {
    this.#entries.delete(pid);
  }

  /** Returns whether pid and key belong to a session. The client is never told. */
  cancel(pid: number, secretKey: Buffer): boolean {
    const entry = this.#entries.get(pid);
    if (entry === undefined || entry.secretKey.length !== secretKey.length) return false;
    if (!timingSafeEqual(entry.secretKey, secretKey)) return false;
    entry.cancel();
    return true;
  }

  /** The same for who knows a session's pid and has the right. A session of another process is `absent`. */
  signal(pid: number, what: 'cancel' | 'terminate', by: Signaller): 'done' | 'absent' | 'forbidden' {
    const entry = this.#entries.get(pid);
    if (entry === undefined) return 'absent';
    if (!by.isSuperuser && by.user !== entry.user) return 'forbidden';
    entry[what]();
    return 'done';
  }

  /** Whether only another process can have a session with this pid. */
  isElsewhere(pid: number): boolean {
    return this.#forward !== null && (pid < this.#pids.first || pid > this.#pids.last);
  }

  /** Passes such a request on. Calls `done` when the other process has it, or nobody can. */
  forward(pid: number, secretKey: Buffer, done: () => void): void {
    this.#forward!(pid, secretKey, done);
  }
}

/** Who asks for a session by its pid in SQL, which smaller pids than pgkv's make the server's matter. */
export interface Caller extends Signaller {
  readonly pid: number;
  /** The setting search_path of the session, null for the server's default. */
  readonly searchPath: string | null;
}

/** One row of one column: `pid` as int4, or `done` as bool; null is NULL. */
export type BackendAnswer =
  /** The statement is the server's. */
  | { readonly kind: 'server' }
  | { readonly kind: 'pid'; readonly value: number }
  | { readonly kind: 'done'; readonly value: boolean | null; readonly warning: string | null }
  | { readonly kind: 'error'; readonly error: PgkvError };

const SERVER: BackendAnswer = { kind: 'server' };

/** @param pid the argument's value; of no account where there is none */
export function backendAnswer(
  call: BackendCall,
  pid: number | null,
  caller: Caller,
  sessions: CancelRegistry,
): BackendAnswer {
  if (!call.isQualified && namesCatalog(caller.searchPath)) return SERVER;
  if (call.function === 'pg_backend_pid') return { kind: 'pid', value: caller.pid };
  if (pid === null) return { kind: 'done', value: null, warning: null };
  if (pid < FIRST_SESSION_PID) return SERVER;
  const ends = call.function === 'pg_terminate_backend';
  switch (sessions.signal(pid, ends ? 'terminate' : 'cancel', caller)) {
    case 'done':
      return { kind: 'done', value: true, warning: null };
    case 'absent':
      return { kind: 'done', value: false, warning: `PID ${pid} is not a PostgreSQL backend process` };
    case 'forbidden':
      return { kind: 'error', error: forbidden(ends) };
  }
}

/** Postgres's words. Membership in pg_signal_backend is not known here. */
function forbidden(ends: boolean): PgkvError {
  const message = ends ? 'permission denied to terminate process' : 'permission denied to cancel query';
  const what = ends ? 'terminate sessions' : 'cancel queries';
  return new PgkvError('insufficient_privilege', {
    message,
    detail: `Through pgkv only superusers and the role itself may ${what} of a role.`,
  });
}

/** pg_catalog comes first where the path does not name it. */
const namesCatalog = (searchPath: string | null): boolean => searchPath !== null && /pg_catalog/i.test(searchPath);
