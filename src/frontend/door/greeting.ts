// What a client is told of the server as its session begins: the parameters that a server reports at the login of the
// client's pool group. Asks the home shard's, and another's where that one cannot be reached; a server that answers has
// the last word, also where it refuses the login.
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { LeaseRequest, PoolGroup } from '../../backend/pool/pool-group.js';
import type { ReportedParameters } from '../../backend/replies/parameter-status.js';
import type { ErrorName, PgkvError } from '../../base/errors.js';

export interface GreetingSource {
  readonly pool: NodePool;
  readonly group: PoolGroup;
}

export interface GreetingPort {
  greeted(reported: ReportedParameters): void;
  /** `message`: the server's own ErrorResponse. */
  refused(error: PgkvError, message: Buffer | null): void;
}

/** The server is not there, whatever it would have said. */
const UNREACHED: ReadonlySet<ErrorName> = new Set(['server_unreachable', 'server_silent', 'wrong_server']);

export class Greeting {
  readonly #sources: readonly GreetingSource[];
  readonly #noSettings: SettingsGroup;
  readonly #port: GreetingPort;
  #waiting: { readonly pool: NodePool; readonly request: LeaseRequest } | null = null;
  #over = false;

  /** @param sources in the order in which they are asked; at least one */
  constructor(sources: readonly GreetingSource[], noSettings: SettingsGroup, port: GreetingPort) {
    this.#sources = sources;
    this.#noSettings = noSettings;
    this.#port = port;
  }

  begin(): void {
    this.#ask(0);
  }

  /** The client is gone. */
  withdraw(): void {
    this.#over = true;
    this.#waiting?.pool.withdraw(this.#waiting.request);
    this.#waiting = null;
  }

  #ask(index: number): void {
    const { pool, group } = this.#sources[index]!;
    if (group.parameters !== null) return this.#port.greeted(group.parameters);
    const request: LeaseRequest = {
      group,
      settings: this.#noSettings,
      purpose: 'login',
      queuedAt: 0,
      granted: (connection) => {
        this.#waiting = null;
        // The connection's own may be those of a session that has used it since.
        const reported = group.parameters ?? connection.parameters;
        pool.release(connection, group);
        if (!this.#over) this.#port.greeted(reported);
      },
      refused: (error, message) => {
        this.#waiting = null;
        if (this.#over) return;
        const isLast = index + 1 === this.#sources.length;
        if (message === null && !isLast && UNREACHED.has(error.errorName)) this.#ask(index + 1);
        else this.#port.refused(error, message);
      },
    };
    this.#waiting = { pool, request };
    pool.acquire(request);
  }
}
