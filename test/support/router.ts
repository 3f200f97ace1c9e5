// The one place where tests start a pgkv router in front of a server.
import { defaultSettings } from '../../src/config/load.js';
import { startRouter as startPgkv } from '../../src/main.js';
import { createLogger } from '../../src/telemetry/log.js';
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
export async function startRouter(options: RouterOptions): Promise<Target> {
  const { server, user, database, poolSize } = options;
  const { host, port } = server;
  const router = await startPgkv({
    settings: defaultSettings({
      listen: { port: 0 },
      http: { disabled: true },
      auth: { method: 'trust' },
      servers: { tls: 'disable' },
      pool: { sizeMax: poolSize },
      shards: [{ name: 'shard-0', nodes: [{ host, port, role: 'primary' }] }],
    }),
    log: createLogger({ level: 'silent', format: 'json', values: false }),
    version: '0.0.0-test',
    probeAs: { user, database },
  });
  return { host: '127.0.0.1', port: router.port, user, database, close: () => router.stop() };
}
