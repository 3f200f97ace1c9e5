// The one place where tests start a pgkv router in front of a server.
import type { PostgresServer } from './postgres-server.js';
import type { Target } from './target.js';

export interface RouterOptions {
  /** The server behind it; trusts TCP clients from loopback. */
  readonly server: PostgresServer;
  readonly user: string;
  readonly database: string;
  /** Server connections per database and role. */
  readonly poolSize: number;
}

/** Starts a router in this process; it must serve every database and role of the server. */
export async function startRouter(options: RouterOptions): Promise<Target> {
  throw new Error(
    `not yet: no router can be started in front of port ${options.server.port}; set PGKV_DIFF_TARGET=direct`,
  );
}
