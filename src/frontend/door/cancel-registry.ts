// Pids and cancel keys of all sessions of this process: a CancelRequest reaches exactly the session whose key it carries, also
// one of another process, whose pids are others. Who may reach a session without its key is session-signals.ts's.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
import { timingSafeEqual } from 'node:crypto';
import type { Random } from '../../base/clock.js';
import { ALL_PIDS, type PidRange } from '../../cluster/session-pids.js';
import type { SessionPid } from '../../session/session.js';
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

  /** The session with that pid, for who has the right to reach it. */
  session(pid: number): Signals | undefined {
    return this.#entries.get(pid);
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
