// How long a server may take over what pgkv itself has asked of it (D29): a host that is gone without a word, or a middlebox
// that swallows bytes, leaves connections on which nothing ever comes. Owns what is known of a node's silence; closing a
// connection, and testing others, is the pool's. Statements of clients have no such deadline: they take as long as they take.
// Invariant: what a server has been asked by pgkv is answered, or its connection is closed, within the deadline and a sweep.
import type { ServerConnection } from '../connection/server-connection.js';
import { Reply } from '../replies/reply-queue.js';

/** What a connection owed when it was looked at, and since when. */
interface Seen {
  readonly place: number;
  readonly since: number;
}

/** Two that miss it within this time are the node's fault; one may be its own. */
const TOGETHER_MS = 60_000;

export class AnswerDeadlines {
  readonly #limitMs: number;
  readonly #seen = new WeakMap<ServerConnection, Seen>();
  #missedAt = Number.NEGATIVE_INFINITY;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Those whose server has been at a statement of pgkv's own for too long. To be asked at intervals shorter than the limit. */
  overdue(connections: Iterable<ServerConnection>, now: number): ServerConnection[] {
    const late: ServerConnection[] = [];
    for (const connection of connections) {
      const { head, headPlace } = connection.replies;
      // What is read no further, because its client is slow, may have been answered long since.
      const owes = head !== null && head.control !== null && head.kind === Reply.query && !connection.isPaused;
      if (!owes) this.#seen.delete(connection);
      else if (this.#seen.get(connection)?.place !== headPlace) {
        this.#seen.set(connection, { place: headPlace, since: now });
      } else if (now - this.#seen.get(connection)!.since >= this.#limitMs) late.push(connection);
    }
    return late;
  }

  /** A connection has missed a deadline. Returns whether the node has to be taken for silent. */
  missed(now: number): boolean {
    const isSecond = now - this.#missedAt <= TOGETHER_MS;
    this.#missedAt = isSecond ? Number.NEGATIVE_INFINITY : now;
    return isSecond;
  }
}
