// Servers behind proxies, made ready by `pgkv init`, and the built program: for tests that kill processes and cut connections.
import type { Test } from 'tap';
import { runCli } from './cli-run.js';
import { ask, clusterFolder } from './cluster-folder.js';
import { FaultProxy } from './fault-proxy.js';
import { type PostgresServer, startPostgres } from './postgres-server.js';
import { buildPackage } from './router-process.js';

export interface ProxiedCluster {
  readonly servers: readonly PostgresServer[];
  /** By server. */
  readonly proxies: readonly FaultProxy[];
  readonly configFile: string;
  readonly program: string;
}

/** The role app may all on kv. @param parameters of the servers */
export async function proxiedCluster(
  t: Test,
  shards: number,
  parameters: Readonly<Record<string, string>> = {},
): Promise<ProxiedCluster> {
  const start = () => startPostgres({ version: 'embedded', parameters });
  const servers = await Promise.all(Array.from({ length: shards }, start));
  t.teardown(() => Promise.all(servers.map((server) => server.stop())));
  const proxies = await Promise.all(servers.map((server) => FaultProxy.start(server)));
  t.teardown(() => Promise.all(proxies.map((proxy) => proxy.down())));
  const named = proxies.map((proxy, index) => ({ ...proxy.standInFor(servers[index]!), name: `s${index + 1}` }));
  const { superuser } = servers[0]!;
  for (const server of servers) {
    await ask(server, 'postgres', 'CREATE ROLE app LOGIN; CREATE ROLE pgkv_recover LOGIN NOINHERIT');
  }
  const more = `[auth]\nmethod = "trust"\n[auth.service]\nuser = "${superuser}"\n[servers]\ntls = "disable"\n[listen]\nport = 0\n[http]\ndisabled = true\n`;
  const { configFile } = clusterFolder(t, named, more);
  const init = await runCli(['init', '--config', configFile, '--dbname', 'postgres', '--user', superuser]);
  t.equal(init.exitCode, 0, init.errors);
  for (const server of servers) await ask(server, 'postgres', 'GRANT ALL ON kv TO app');
  return { servers, proxies, configFile, program: buildPackage(t).program };
}
