// `pgkv dev`: embedded Postgres servers with a router in front, for development. Lets everybody on this machine in, though not as superuser.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ListenError } from '../base/listen-error.js';
import { FileCatalog } from '../catalog/file-catalog.js';
import { defaultSettings } from '../config/load.js';
import { catalogPath, type EmbeddedCluster, startEmbeddedCluster } from '../dev/embedded-cluster.js';
import { EmbeddedClusterError } from '../dev/embedded-cluster-error.js';
import { isPortFree } from '../dev/free-port.js';
import { type Router, startRouter } from '../main.js';
import { createLogger, type Logger } from '../telemetry/log.js';
import { prepareDevTables } from './cluster/dev-tables.js';
import { CommandFailure } from './command-failure.js';
import type { DevOptions } from './options.js';
import { type EndSignals, runUntilSignalled } from './process-life.js';
import { RUN_FILE, type RunFile } from './run-file.js';
import { packageVersion } from './version.js';

const HOST = '127.0.0.1';
const ROLE = 'pgkv';
const DATABASE = 'kv';

export async function runDev(options: DevOptions, signals: EndSignals): Promise<number> {
  // Before half a minute's work is done for nothing.
  await requireFreePort(options.port, '--port');
  await requireFreePort(options.httpPort, '--http-port');
  const log = createLogger({ level: 'info', format: 'auto', values: false });
  const cluster = await startEmbeddedCluster({
    shards: options.shards,
    dataDir: options.dataDir,
    ephemeral: options.ephemeral,
    role: ROLE,
    database: DATABASE,
    log: (level, message, fields) => log[level](fields ?? {}, message),
  }).catch((error: unknown) => {
    throw error instanceof EmbeddedClusterError ? new CommandFailure(1, error.message, error.hint) : error;
  });
  let router: Router;
  try {
    router = await startDevRouter(cluster, options, log);
  } catch (error) {
    await cluster.stop();
    if (!(error instanceof ListenError)) throw error;
    throw new CommandFailure(1, error.saying(error.section === 'http' ? '--http-port' : '--port'));
  }
  const runFile = options.ephemeral ? null : writeRunFile(options.dataDir, router, cluster);
  process.stdout.write(`pgkv ready\n  psql -h ${HOST} -p ${router.port} -U ${ROLE} ${DATABASE}\n`);
  // Nobody's work is lost by ending at once here, and a developer's Ctrl-C should not wait for an open psql.
  const exitCode = await runUntilSignalled(router, log, { graceful: false, signals, reload: () => ({ changed: [] }) });
  if (runFile !== null) rmSync(runFile, { force: true });
  await cluster.stop();
  return exitCode;
}

async function startDevRouter(cluster: EmbeddedCluster, options: DevOptions, log: Logger): Promise<Router> {
  const path = catalogPath(cluster.dataDir);
  const settings = defaultSettings({
    listen: { host: HOST, port: options.port },
    http: { host: HOST, port: options.httpPort },
    auth: { method: 'trust' },
    admin: { roles: [ROLE] },
    catalog: { path },
    servers: { tls: 'disable' },
    shards: cluster.shards.map(({ name, host, port }) => ({
      name,
      nodes: [{ host, port, role: 'primary' as const }],
    })),
  });
  const catalog = new FileCatalog(path);
  await prepareDevTables(settings, catalog, { user: ROLE, database: DATABASE, value: options.value });
  return await startRouter({
    settings,
    log,
    version: packageVersion(),
    probeAs: { user: ROLE, database: DATABASE },
    catalog,
    warmsUp: true,
  });
}

async function requireFreePort(port: number, flag: string): Promise<void> {
  if (port === 0 || (await isPortFree(HOST, port))) return;
  throw new CommandFailure(
    1,
    `port ${port} on ${HOST} is in use by another process`,
    `choose another with ${flag}, or 0 for a free one`,
  );
}

/** Lets `pgkv status --data-dir` find the router. */
function writeRunFile(dataDir: string, router: Router, cluster: EmbeddedCluster): string {
  mkdirSync(dataDir, { recursive: true });
  const path = join(dataDir, RUN_FILE);
  const content: RunFile = {
    pid: process.pid,
    host: HOST,
    port: router.port,
    httpPort: router.httpPort,
    user: ROLE,
    database: DATABASE,
    startedAt: new Date().toISOString(),
    shards: cluster.shards.map(({ name, host, port, socketDir }) => ({ name, host, port, socketDir })),
    catalog: catalogPath(cluster.dataDir),
  };
  writeFileSync(path, `${JSON.stringify(content, null, 2)}\n`);
  return path;
}
