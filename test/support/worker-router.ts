// A router process with workers before real servers, and clients that know which worker they are with.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { workerOf } from '../../src/cluster/session-pids.js';
import { watchSocket } from '../oracle/watch.js';
import { eventually } from './bystander.js';
import { freePort, type PostgresServer } from './postgres-server.js';
import { type RouterProcess, startProcess } from './router-process.js';
import { SqlClient, type SqlClientOptions } from './sql-client.js';

export interface WorkerStatus {
  readonly worker: number;
  readonly pid: number;
  readonly serving: boolean;
  readonly epoch: number;
  readonly clients: number;
  readonly statements: number;
}

export interface WorkerRouter extends RouterProcess {
  readonly host: string;
  readonly httpPort: number;
  readonly folder: string;
  /** Signs in; the client is cut off at the end of the test. `host` may be the folder of a Unix socket. */
  connect(options?: Partial<SqlClientOptions>, host?: string): Promise<SqlClient>;
  /** One client at each worker, in the order of their numbers. */
  connectToEach(options?: Partial<SqlClientOptions>): Promise<SqlClient[]>;
  /** By name, `{…}` included. */
  metrics(): Promise<Map<string, number>>;
  workers(client: SqlClient): Promise<WorkerStatus[]>;
}

export interface WorkerRouterOptions {
  readonly program: string;
  readonly servers: readonly PostgresServer[];
  readonly workers: number;
  /** Further lines: whole sections, but for [http], [auth] and [servers]. */
  readonly more?: string;
  readonly auth?: string;
}

/** Makes a folder with a configuration; gone at the end of `t`. */
export async function workerConfig(
  t: Test,
  { servers, workers, more = '', auth }: Omit<WorkerRouterOptions, 'program'>,
): Promise<{ readonly folder: string; readonly configFile: string; readonly httpPort: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-workers-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const httpPort = await freePort();
  const shards = servers.map(
    ({ host, port }, index) =>
      `[[shards]]\nname = "s${index + 1}"\n[[shards.nodes]]\nhost = "${host}"\nport = ${port}\n`,
  );
  const trust = `method = "trust"\n[auth.service]\nuser = "${servers[0]!.superuser}"\n`;
  const text = [
    `workers = ${workers}`,
    ...shards,
    `[admin]\nroles = ["${servers[0]!.superuser}"]`,
    ...[`[http]\nport = ${httpPort}`, '[servers]\ntls = "disable"', '[log]\nformat = "json"'],
    `[auth]\n${auth ?? trust}`,
    /^\[listen\]/m.test(more) ? more : `[listen]\nport = 0\n${more}`,
  ].join('\n');
  const configFile = join(folder, 'pgkv.toml');
  writeFileSync(configFile, text);
  return { folder, configFile, httpPort };
}

export async function workerRouter(t: Test, options: WorkerRouterOptions): Promise<WorkerRouter> {
  const { folder, configFile, httpPort } = await workerConfig(t, options);
  return startWorkerRouter(t, options, { folder, configFile, httpPort });
}

export async function startWorkerRouter(
  t: Test,
  { program, servers, workers }: WorkerRouterOptions,
  { folder, configFile, httpPort }: { folder: string; configFile: string; httpPort: number },
): Promise<WorkerRouter> {
  const router = await startProcess(t, program, configFile);
  const clients: SqlClient[] = [];
  t.teardown(() => {
    for (const client of clients) client.wire.destroy();
  });
  const connect: WorkerRouter['connect'] = async (clientOptions, host = '127.0.0.1') => {
    const address = { host, port: router.port };
    const login = { user: servers[0]!.superuser, database: 'postgres', ...clientOptions };
    const client = await SqlClient.connect(address, { ...login, watch: (socket) => watchSocket(socket, 'client') });
    clients.push(client);
    return client;
  };
  return {
    ...router,
    host: '127.0.0.1',
    httpPort,
    folder,
    connect,
    async connectToEach(clientOptions) {
      const found = new Map<number, SqlClient>();
      for (let attempt = 0; found.size < workers; attempt++) {
        if (attempt > 20 * workers) throw new Error(`only the workers ${[...found.keys()]} take clients`);
        const client = await connect(clientOptions);
        const worker = workerWith(client);
        if (found.has(worker)) await client.end();
        else found.set(worker, client);
      }
      return [...found].sort(([a], [b]) => a - b).map(([, client]) => client);
    },
    async metrics() {
      const response = await fetch(`http://127.0.0.1:${httpPort}/metrics`, { headers: { connection: 'close' } });
      const lines = (await response.text()).matchAll(/^([a-z]\S+) (\S+)$/gm);
      return new Map([...lines].map(([, name, value]) => [name!, Number(value)]));
    },
    workers: async (client) => JSON.parse((await client.value('SHOW pgkv.status'))!).workers,
  };
}

/** The number of the worker that has this client's session. */
export function workerWith(client: SqlClient): number {
  return workerOf(client.wire.pid!);
}

/** Waits until the workers' own reports, seconds old, say so. */
export async function untilWorkers(
  t: Test,
  router: WorkerRouter,
  client: SqlClient,
  what: string,
  fits: (workers: readonly WorkerStatus[]) => boolean,
): Promise<WorkerStatus[]> {
  let last: WorkerStatus[] = [];
  const fit = async () => {
    last = await router.workers(client);
    return fits(last);
  };
  await eventually(t, what, fit, 8_000);
  return last;
}
