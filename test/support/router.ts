// The one place where the differential suite starts a pgkv router in front of a server.
import { startRouter as startPgkv } from '../../src/main.js';
import { createLogger } from '../../src/telemetry/log.js';
import { routerSettings } from './live-router.js';
import type { PostgresServer } from './postgres-server.js';
import type { Target } from './target.js';

export interface RouterOptions {
  /** The server behind it; trusts TCP clients from loopback. */
  readonly server: PostgresServer;
  readonly user: string;
  readonly database: string;
  /** Server connections, all databases and roles together. */
  readonly poolSize: number;
}

/** Starts a router in this process; it serves every database and role of the server. */
export async function startRouter({ server, user, database, poolSize }: RouterOptions): Promise<Target> {
  const router = await startPgkv({
    settings: routerSettings([server], { pool: { sizeMax: poolSize } }),
    log: createLogger({ level: 'silent', format: 'json', values: false }),
    version: '0.0.0-test',
    probeAs: { user: server.superuser, database: 'postgres' },
  });
  return { host: '127.0.0.1', port: router.port, user, database, close: () => router.stop() };
}
