// The pools of a process: those of clients, and small ones for pgkv's own service role.
import type { Credential } from '../backend/connection/credential.js';
import type { ServerProof } from '../backend/connection/server-proof.js';
import { type OpenStream, openServerSocket } from '../backend/connection/server-socket.js';
import { SettingsRegistry } from '../backend/connection/settings-group.js';
import { NodePool, type PoolLimits } from '../backend/pool/node-pool.js';
import { type NamedNode, NodeDirectory } from '../backend/pool/nodes.js';
import type { PoolGroup } from '../backend/pool/pool-group.js';
import type { AskControl } from '../backend/pool/routine-lookup.js';
import { serviceQuery } from '../backend/pool/service-query.js';
import type { Clock, Random } from '../base/clock.js';
import type { NodeView, ShardView } from '../cluster/cluster-view.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import type { Settings } from '../config/settings.js';
import type { Logger } from '../telemetry/log.js';

export interface PoolServices {
  readonly settings: Settings;
  readonly openStream: OpenStream;
  readonly registry: SettingsRegistry;
  readonly clock: Clock;
  readonly random: Random;
}

/** Role and database of pgkv's own statements. */
export interface ServiceLogin {
  readonly user: string;
  readonly database: string;
}

/** A pool of service connections to one node, and those of one kind in it. */
export interface ServicePool {
  readonly pool: NodePool;
  readonly group: PoolGroup;
}

export interface ServiceNodes {
  readonly nodes: NodeDirectory;
  of(node: NodeView): ServicePool;
  /** The same login in another database. */
  inDatabase(node: NodeView, database: string): ServicePool;
}

/** Messages of a server other than rows and COPY data: errors, descriptions. Postgres's largest are far below. */
const SERVER_MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

/** Those of one process. */
export function poolServices(settings: Settings, clock: Clock, random: Random): PoolServices {
  const { tls, tlsCaFile, keepaliveMs } = settings.servers;
  const openStream = openServerSocket({ tls, tlsCaFile, keepaliveMs });
  return { settings, openStream, registry: new SettingsRegistry(), clock, random };
}

/**
 * Those of clients, which follow the views.
 * @param service for what pgkv itself asks
 * @param opened is told of each pool
 */
export function clientNodes(
  views: ViewHolder,
  services: PoolServices,
  service: ServiceNodes,
  log: Logger,
  opened: (pool: NodePool, shard: ShardView) => void,
): NodeDirectory {
  const limits = poolLimits(services.settings);
  const nodes = new NodeDirectory({
    view: views.current,
    open: (named, proof) => {
      const control: AskControl = (startup, credential, sql) => {
        const own = service.nodes.pool(named.node.id);
        return serviceQuery(own, own.group(startup, credential), services.clock, sql);
      };
      const pool = openPool(named, views.current.shards.length, limits, services, { proof, control });
      opened(pool, named.shard);
      return pool;
    },
    identityChanged: ({ node, shard }, fault) => {
      const fields = { shard: shard.name, node: node.id };
      if (fault === null) log.info(fields, 'the node is the server that is expected again');
      else log.error({ ...fields, reason: fault }, 'the node is not used: it is another server');
    },
  });
  views.onChange((view) => nodes.follow(view));
  return nodes;
}

/** Those of pgkv's own role, `connections` to each node. */
export function serviceNodes(
  views: ViewHolder,
  connections: number,
  login: ServiceLogin,
  services: PoolServices,
): ServiceNodes {
  const password = services.settings.auth.service.password?.reveal();
  const credential: Credential = password === undefined ? { kind: 'none' } : { kind: 'password', password };
  const limits = { ...poolLimits(services.settings), sizeMax: connections };
  const nodes = new NodeDirectory({
    view: views.current,
    open: (named, proof) => openPool(named, views.current.shards.length, limits, services, { proof }),
  });
  views.onChange((view) => nodes.follow(view));
  const startup = serviceStartup(login);
  return {
    nodes,
    of(node) {
      const pool = nodes.pool(node.id);
      return { pool, group: pool.group(startup, credential) };
    },
    inDatabase(node, database) {
      const pool = nodes.pool(node.id);
      return { pool, group: pool.group(new Map(startup).set('database', database), credential) };
    },
  };
}

function openPool(
  { node, shard }: NamedNode,
  shardCount: number,
  limits: PoolLimits,
  services: PoolServices,
  more: { readonly proof: ServerProof; readonly control?: AskControl },
): NodePool {
  const { openStream, clock, random, registry } = services;
  return new NodePool({
    address: node,
    shardName: shardCount > 1 ? shard.name : null,
    limits,
    openStream,
    clock,
    random,
    noSettings: registry.empty,
    ...more,
  });
}

function poolLimits(settings: Settings): PoolLimits {
  const orNever = (ms: number): number => (ms === 0 ? Number.POSITIVE_INFINITY : ms);
  return {
    sizeMax: settings.pool.sizeMax,
    roleShare: settings.pool.roleShare,
    queueMax: settings.pool.queueMax,
    waitTimeoutMs: settings.pool.waitTimeoutMs,
    answerTimeoutMs: settings.servers.answerTimeoutMs,
    idleTimeoutMs: orNever(settings.pool.idleTimeoutMs),
    lifetimeMaxMs: orNever(settings.pool.lifetimeMaxMs),
    connectTimeoutMs: settings.servers.connectTimeoutMs,
    preparedStatementsMax: settings.pool.preparedStatementsMax,
    serverMessageBytesMax: SERVER_MESSAGE_BYTES_MAX,
  };
}

/** Start-up parameters of pgkv's own connections: the answer to a look-up is read as ISO dates and UTF-8. */
function serviceStartup({ user, database }: ServiceLogin): Map<string, string> {
  return new Map([
    ['user', user],
    ['database', database],
    ['application_name', 'pgkv'],
    ['client_encoding', 'UTF8'],
    ['DateStyle', 'ISO'],
    ['TimeZone', 'UTC'],
  ]);
}
