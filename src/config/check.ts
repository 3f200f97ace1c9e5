// What `pgkv check-config` prints when all is well: what the router will do, and the connection arithmetic that each
// server's max_connections has to hold.
import { isLoopback, nodeAddress } from './cross-check.js';
import { SERVICE_CONNECTIONS } from './server-connections.js';
import type { Settings, ShardSettings } from './settings.js';

/** Pools of fewer connections keep none from leases (backend/pool/shares.ts): one in five is. */
const SHARED_FROM = 5;

export function describeSettings(settings: Settings): string[] {
  return [
    ...listenLines(settings),
    ...authLines(settings),
    `catalog  ${settings.catalog.path ?? 'none: no key-value tables, only the first shard is used'}`,
    `shards   ${settings.shards.length}`,
    ...settings.shards.flatMap((shard, index) => shardLines(shard, index === 0)),
    ...arithmeticLines(settings),
  ];
}

function listenLines({ listen, http, tls }: Settings): string[] {
  const offered = tls.certFile === null ? 'TLS off' : tls.required ? 'TLS required' : 'TLS offered';
  const socket = listen.socketDir === null ? [] : [nodeAddress({ host: listen.socketDir, port: listen.port })];
  const lines = [`listen   ${[nodeAddress(listen), ...socket].join(', ')}, ${offered}`];
  lines.push(`http     ${http.disabled ? 'disabled' : nodeAddress(http)}`);
  if (tls.certFile === null && !isLoopback(listen.host)) {
    lines.push(`         note: clients reach ${listen.host} without TLS; give [tls] cert_file and key_file`);
  }
  return lines;
}

function authLines({ auth, servers }: Settings): string[] {
  const { user, database, password } = auth.service;
  const from = password === null ? 'no password' : 'with password';
  const method = auth.method === 'trust' ? 'trust (loopback and Unix socket clients only)' : auth.method;
  return [`auth     ${method}; service role ${user} in database ${database}, ${from}`, `servers  tls ${servers.tls}`];
}

function shardLines(shard: ShardSettings, isHome: boolean): string[] {
  const slotCount = shard.slots.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const ranges = shard.slots.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ');
  return [
    `  ${shard.name}${isHome ? ' (home)' : ''}: slots ${ranges} (${slotCount})`,
    ...shard.nodes.map((node) => `    ${nodeAddress(node)} ${node.role}`),
  ];
}

function arithmeticLines({ pool, workers, clients, shards }: Settings): string[] {
  const perNode = (pool.sizeMax + SERVICE_CONNECTIONS) * workers;
  const nodes = shards.reduce((sum, shard) => sum + shard.nodes.length, 0);
  const bufferMiB = Math.ceil((clients.connectionsMax * workers * clients.bufferBytesMax) / 2 ** 20);
  return [
    `connections to each server: (pool.size_max ${pool.sizeMax} + ${SERVICE_CONNECTIONS}) x workers ${workers} = ${perNode}; its`,
    `  max_connections must hold these, superuser_reserved_connections and other users`,
    ...(pool.sizeMax < SHARED_FROM
      ? [
          `  note: with pool.size_max below ${SHARED_FROM} no connection is kept from transactions: clients that hold one each stop`,
          '  merged statements and log-ins',
        ]
      : []),
    `connections to all ${nodes} servers: at most ${perNode * nodes}`,
    `clients: at most ${clients.connectionsMax} x workers ${workers} = ${clients.connectionsMax * workers}; if all were slow, their`,
    `  buffers would take ${bufferMiB} MiB (clients.buffer_bytes_max)`,
  ];
}
