// The pools of a process: those of clients, and small ones for pgkv's own service role.
import type { Credential } from '../backend/connection/credential.js';
import { type OpenStream, openServerSocket } from '../backend/connection/server-socket.js';
import { SettingsRegistry } from '../backend/connection/settings-group.js';
import { NodePool, type PoolLimits } from '../backend/pool/node-pool.js';
import type { PoolGroup } from '../backend/pool/pool-group.js';
import type { Clock, Random } from '../base/clock.js';
import type { NodeAddress, ShardView } from '../cluster/cluster-view.js';
import type { Settings } from '../config/settings.js';

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

/** A pool of service connections to one node, all of one kind. */
export interface ServicePool {
  readonly pool: NodePool;
  readonly group: PoolGroup;
}

export type ServicePools = ReadonlyMap<NodeAddress, ServicePool>;

/** Messages of a server other than rows and COPY data: errors, descriptions. Postgres's largest are far below. */
const SERVER_MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

/** Those of one process. */
export function poolServices(settings: Settings, clock: Clock, random: Random): PoolServices {
  const { tls, tlsCaFile, keepaliveMs } = settings.servers;
  const openStream = openServerSocket({ tls, tlsCaFile, keepaliveMs });
  return { settings, openStream, registry: new SettingsRegistry(), clock, random };
}

/** One for each shard's primary, by shard id. */
export function clientPools(shards: readonly ShardView[], services: PoolServices): NodePool[] {
  return shards.map((shard) => openPool(shard, shards.length, poolLimits(services.settings), services));
}

/** @param connections to each of `shards`, out of `shardCount` */
export function servicePools(
  shards: readonly ShardView[],
  shardCount: number,
  connections: number,
  login: ServiceLogin,
  services: PoolServices,
): ServicePools {
  const password = services.settings.auth.service.password?.reveal();
  const credential: Credential = password === undefined ? { kind: 'none' } : { kind: 'password', password };
  const limits = { ...poolLimits(services.settings), sizeMax: connections };
  return new Map(
    shards.map((shard) => {
      const pool = openPool(shard, shardCount, limits, services);
      return [shard.primary, { pool, group: pool.group(serviceStartup(login), credential) }] as const;
    }),
  );
}

function openPool(shard: ShardView, shardCount: number, limits: PoolLimits, services: PoolServices): NodePool {
  const { openStream, clock, random, registry } = services;
  return new NodePool({
    address: shard.primary,
    shardName: shardCount > 1 ? shard.name : null,
    limits,
    openStream,
    clock,
    random,
    noSettings: registry.empty,
  });
}

function poolLimits(settings: Settings): PoolLimits {
  const orNever = (ms: number): number => (ms === 0 ? Number.POSITIVE_INFINITY : ms);
  return {
    sizeMax: settings.pool.sizeMax,
    queueMax: settings.pool.queueMax,
    waitTimeoutMs: settings.pool.waitTimeoutMs,
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
