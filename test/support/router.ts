// The one place where the differential suite starts a pgkv router in front of servers.
import type { CatalogDriver } from '../../src/catalog/catalog-driver.js';
import { startRouter as startPgkv } from '../../src/main.js';
import { createLogger } from '../../src/telemetry/log.js';
import { watchListener } from '../oracle/watch.js';
import { routerSettings } from './live-router.js';
import type { PostgresServer } from './postgres-server.js';
import type { Target } from './target.js';

export interface RouterOptions {
  /** Those behind it, the first of them home; they trust TCP clients from loopback. */
  readonly servers: readonly PostgresServer[];
  /** Without one there are no key-value tables. */
  readonly catalog?: CatalogDriver;
  readonly user: string;
  readonly database: string;
  /** Connections to a server, all databases and roles together. */
  readonly poolSize: number;
}

/** Starts a router in this process; it serves every database and role of the servers. */
export async function startRouter({ servers, user, database, poolSize, catalog }: RouterOptions): Promise<Target> {
  const router = await startPgkv({
    settings: routerSettings(servers, { pool: { sizeMax: poolSize } }),
    log: createLogger({ level: 'silent', format: 'json', values: false }),
    version: '0.0.0-test',
    probeAs: { user: servers[0]!.superuser, database: 'postgres' },
    catalog: catalog ?? null,
  });
  watchListener(router.listener);
  return { host: '127.0.0.1', port: router.port, user, database, close: () => router.stop() };
}
