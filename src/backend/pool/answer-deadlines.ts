// How long a server may take over what pgkv itself has asked of it (D29): a host that is gone without a word, or a middlebox
// that swallows bytes, leaves connections on which nothing ever comes. Owns what is known of a node's silence, and
// closes and tests connections for it. Statements of clients have no such deadline: they take as long as they take.
// Invariant: what a server has been asked by pgkv is answered, or its connection is closed, within the deadline and a sweep.
import type { Clock } from '../../base/clock.js';
import type { ServerConnection } from '../connection/server-connection.js';
import { untilReady } from '../replies/control-answers.js';
import { Reply } from '../replies/reply-queue.js';
import type { PoolGroup } from './pool-group.js';

/** What a connection owed when it was looked at, and since when. */
interface Seen {
  readonly place: number;
  readonly since: number;
}

/** Two that miss it within this time are the node's fault; one may be its own. */
const TOGETHER_MS = 60_000;
/** Short: others wait meanwhile, and closing one that would have answered later costs a login. */
const TEST_TIMEOUT_MS = 1_000;

/** The node's connections, as far as they are of concern here. */
interface DeadlineOptions {
  readonly limitMs: number;
  readonly clock: Clock;
  readonly counters: { silentTotal: number };
  readonly label: string;
  groups(): Iterable<PoolGroup>;
  release(connection: ServerConnection, group: PoolGroup): void;
}

export class AnswerDeadlines {
  readonly #options: DeadlineOptions;
  readonly #seen = new WeakMap<ServerConnection, Seen>();
  #missedAt = Number.NEGATIVE_INFINITY;

  constructor(options: DeadlineOptions) {
    this.#options = options;
  }

  /** Looks for servers that have been at a statement of pgkv's own for too long; at intervals shorter than the limit. */
  sweep(connections: Iterable<ServerConnection>, now: number): void {
    const { limitMs } = this.#options;
    for (const connection of [...connections]) {
      const { head, headPlace } = connection.replies;
      // What is read no further, because its client is slow, may have been answered long since.
      const owes = head !== null && head.control !== null && head.kind === Reply.query && !connection.isPaused;
      if (!owes) this.#seen.delete(connection);
      else if (this.#seen.get(connection)?.place !== headPlace) {
        this.#seen.set(connection, { place: headPlace, since: now });
      } else if (now - this.#seen.get(connection)!.since >= limitMs) this.missed(connection, limitMs);
    }
  }

  /** Closes the connection; with the second one, those that are idle are tested before anybody gets them. */
  missed(connection: ServerConnection, waitedMs: number): void {
    if (connection.dead) return;
    const { counters, label, clock, groups } = this.#options;
    counters.silentTotal++;
    connection.destroy(`${label}: no answer within ${waitedMs} ms`);
    const now = clock.now();
    const isSecond = now - this.#missedAt <= TOGETHER_MS;
    this.#missedAt = isSecond ? Number.NEGATIVE_INFINITY : now;
    if (!isSecond) return;
    for (const group of groups()) {
      for (const idle of group.idle.splice(0)) this.test(idle, group);
    }
  }

  /** An idle connection, taken from the idle ones, goes back to them when its server has answered. */
  test(connection: ServerConnection, group: PoolGroup): void {
    const { counters, label, clock, release } = this.#options;
    const timer = clock.after(TEST_TIMEOUT_MS, () => {
      if (connection.dead) return;
      counters.silentTotal++;
      connection.destroy(`${label}: no answer to a test within ${TEST_TIMEOUT_MS} ms`);
    });
    const answered = untilReady(() => {
      timer.cancel();
      release(connection, group);
    });
    connection.runControl('', answered);
  }
}
