// The composition root: the only place that wires the parts of a router together. Everything below takes its clock,
// random numbers and sockets from here.
import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { sendCancelRequest } from './backend/cancel-request.js';
import type { Credential } from './backend/credential.js';
import { NodePool } from './backend/node-pool.js';
import { openServerSocket } from './backend/server-socket.js';
import { serviceQuery } from './backend/service-query.js';
import { SettingsRegistry } from './backend/settings-group.js';
import { type ReadTemplate, StatementSources } from './backend/statement-source.js';
import { type Clock, type Random, systemClock, systemRandom } from './base/clock.js';
import { ListenError } from './base/listen-error.js';
import { type ClusterView, homeShard, initialView, type NodeAddress } from './cluster/cluster-view.js';
import type { Settings } from './config/settings.js';
import { ShardHealthMonitor } from './control/shard-health.js';
import { CancelRegistry } from './frontend/cancel-registry.js';
import type { FrontendServices } from './frontend/frontend-services.js';
import { Listener } from './frontend/listener.js';
import { ProtocolTap } from './frontend/protocol-tap.js';
import { loadTlsMaterial, type TlsMaterial } from './frontend/tls-material.js';
import { VerifierSource } from './frontend/verifier-source.js';
import { type HttpServer, startHttpServer } from './http/health-server.js';
import { createMetrics } from './http/metrics.js';
import { loadParser } from './sql/parse.js';
import { TemplateCache } from './sql/template-cache.js';
import { type Counters, createCounters } from './telemetry/counters.js';
import type { Logger } from './telemetry/log.js';
import { Frontend, frontendLimits } from './wire/protocol.js';

export interface RouterOptions {
  readonly settings: Settings;
  readonly log: Logger;
  readonly version: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Role and database for health probes when they are not those of `auth.service` (pgkv dev). */
  readonly probeAs?: { readonly user: string; readonly database: string };
}

export interface Router {
  readonly port: number;
  /** 0 when HTTP is disabled. */
  readonly httpPort: number;
  readonly view: ClusterView;
  readonly counters: Counters;
  readonly pool: NodePool;
  readonly listener: Listener;
  /** Reads certificates again. Throws, and keeps the old ones, where they are not usable. */
  reload(): void;
  /** Ends gracefully: see `drain.timeout_ms`. */
  drain(): Promise<void>;
  /** Ends at once. */
  stop(): Promise<void>;
}

/** A client that was sent its last message gets this long to close its side. */
const CLOSE_GRACE_MS = 2_000;
/** Per node: a look-up and a probe at one time. */
const SERVICE_CONNECTIONS_MAX = 2;
const CANCEL_TIMEOUT_MS = 5_000;
/** Messages of a server other than rows and COPY data: errors, descriptions. Postgres's largest are far below. */
const SERVER_MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

/** Rejects with ListenError where a port cannot be had. Servers that are down do not keep it from starting. */
export async function startRouter(options: RouterOptions): Promise<Router> {
  const { settings, log } = options;
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  await loadParser();

  const view = initialView(
    settings.shards.map(({ name, slots, nodes }) => ({ name, hashSlots: slots, nodes: primaryFirst(nodes) })),
  );
  const counters = createCounters();
  const registry = new SettingsRegistry();
  const templates = new TemplateCache({ bytesMax: settings.limits.templateCacheBytes });
  const templateOf: ReadTemplate = (text, standardStrings) => templates.get(text, standardStrings);
  const openStream = openServerSocket({
    tls: settings.servers.tls,
    tlsCaFile: settings.servers.tlsCaFile,
    keepaliveMs: settings.servers.keepaliveMs,
  });
  const home = homeShard(view).primary;
  const pool = new NodePool({
    address: home,
    limits: poolLimits(settings),
    openStream,
    clock,
    random,
    noSettings: registry.empty,
  });
  const { service } = settings.auth;
  const serviceUser = options.probeAs?.user ?? service.user;
  const serviceDatabase = options.probeAs?.database ?? service.database;
  const startup = serviceStartup(serviceUser, serviceDatabase);
  const password = service.password?.reveal();
  const credential: Credential = password === undefined ? { kind: 'none' } : { kind: 'password', password };
  const limits = { ...poolLimits(settings), sizeMax: SERVICE_CONNECTIONS_MAX };
  const servicePools = new Map(
    view.shards.map(({ primary }) => {
      const options = { address: primary, limits, openStream, clock, random, noSettings: registry.empty };
      const servicePool = new NodePool(options);
      return [primary, { pool: servicePool, group: servicePool.group(startup, credential) }] as const;
    }),
  );
  const verifiers =
    settings.auth.method === 'trust'
      ? null
      : new VerifierSource({ ...servicePools.get(home)!, query: service.query, cacheMs: settings.auth.cacheMs, clock });
  let tls = tlsFrom(settings);
  const cancels = new CancelRegistry(random);

  const services: Omit<FrontendServices, 'closed'> = {
    clock,
    counters,
    pool,
    registry,
    cancels,
    limits: {
      connectionsMax: settings.clients.connectionsMax,
      startupPendingMax: settings.clients.startupPendingMax,
      startupTimeoutMs: settings.clients.startupTimeoutMs,
      idleTimeoutMs: settings.clients.idleTimeoutMs,
      idleInTransactionTimeoutMs: settings.clients.idleInTransactionTimeoutMs,
      closeGraceMs: CLOSE_GRACE_MS,
      frontendLimits: clientMessageLimits(settings),
    },
    cancelStatement: (connection, delivered) =>
      sendCancelRequest({
        openStream,
        address: home,
        pid: connection.pid,
        secretKey: connection.secretKey,
        clock,
        timeoutMs: CANCEL_TIMEOUT_MS,
        delivered,
      }),
    authentication: {
      method: settings.auth.method,
      verifiers,
      failureDelayMs: settings.auth.failureDelayMs,
      mockSecret: random.bytes(32),
      clock,
      random,
    },
    conversation: {
      clock,
      counters,
      sources: new StatementSources(settings.limits.templateCacheBytes, templateOf),
      templateOf,
      show: (name) => (name === 'status' ? JSON.stringify(statusOf()) : name === 'version' ? options.version : null),
      bufferBytesMax: settings.clients.bufferBytesMax,
      statementBytesMax: settings.limits.sessionStatementBytes,
      tapFor: (session) => {
        const names = settings.log.traceSessions;
        const applicationName = session.told.get('application_name') ?? '';
        if (!names.some((name) => name === '*' || name === session.user || name === applicationName)) return null;
        return new ProtocolTap((line) => log.info({ session: session.pid }, line), settings.log.values);
      },
    },
    tlsRequired: settings.tls.required,
    tls: () => tls,
  };

  const health = new ShardHealthMonitor({
    shards: view.shards,
    clock,
    probe: async (node) => {
      const { pool: servicePool, group } = servicePools.get(node)!;
      await serviceQuery(servicePool, group, clock, 'SELECT 1');
    },
    changed: (shard, state) => {
      if (state.healthy) log.info({ shard: shard.name }, 'shard answers');
      else log.warn({ shard: shard.name, reason: state.reason }, 'shard does not answer');
    },
  });
  const statusOf = () => ({
    epoch: view.epoch,
    version: options.version,
    shards: view.shards.map((shard) => ({
      id: shard.id,
      name: shard.name,
      primary: shard.primary,
      replicas: shard.replicas,
      slots: shard.hashSlots,
      healthy: health.of(shard).healthy,
    })),
  });

  const listener = new Listener(services);
  const destroyPools = (): void => {
    pool.destroy();
    for (const { pool: servicePool } of servicePools.values()) servicePool.destroy();
  };
  const metrics = createMetrics({ counters, durations: {} });
  let draining = false;
  let http: HttpServer | null = null;
  let port: number;
  try {
    port = await listenForClients(listener, settings);
    if (!settings.http.disabled) {
      http = await startHttpServer({
        host: settings.http.host,
        port: settings.http.port,
        log,
        state: {
          live: () => true,
          ready: () => {
            const reasons = view.shards
              .filter((shard) => !health.of(shard).healthy)
              .map((shard) => `shard ${shard.name}: ${health.of(shard).reason}`);
            if (draining) reasons.push('pgkv is draining');
            return { ready: reasons.length === 0, reasons };
          },
          metrics: {
            contentType: metrics.contentType,
            text: () => {
              refreshGauges(counters, pool, listener);
              return metrics.text();
            },
          },
        },
      });
    }
  } catch (error) {
    listener.destroy();
    destroyPools();
    throw error;
  }
  void health.start();

  const stop = async (): Promise<void> => {
    health.stop();
    listener.destroy();
    destroyPools();
    await http?.close();
  };
  return {
    port,
    httpPort: http?.port ?? 0,
    view,
    counters,
    pool,
    listener,
    reload() {
      tls = tlsFrom(settings);
    },
    async drain() {
      draining = true;
      await listener.drain(settings.drain.timeoutMs);
      await stop();
    },
    stop,
  };
}

type NodeSettings = Settings['shards'][number]['nodes'][number];

/** Nodes whose role is not stated count as stated in order: the first is taken for the primary (D18 verifies later). */
function primaryFirst(nodes: readonly NodeSettings[]): NodeAddress[] {
  const sorted = [...nodes].sort((a, b) => Number(b.role === 'primary') - Number(a.role === 'primary'));
  return sorted.map(({ host, port }) => ({ host, port }));
}

function poolLimits(settings: Settings): ConstructorParameters<typeof NodePool>[0]['limits'] {
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

function clientMessageLimits(settings: Settings): Int32Array {
  const limits = frontendLimits(settings.clients.messageBytesMax);
  for (const type of [Frontend.query, Frontend.parse]) limits[type] = settings.clients.queryBytesMax;
  return limits;
}

/** Start-up parameters of pgkv's own connections: the answer to a look-up is read as ISO dates and UTF-8. */
function serviceStartup(user: string, database: string): Map<string, string> {
  return new Map([
    ['user', user],
    ['database', database],
    ['application_name', 'pgkv'],
    ['client_encoding', 'UTF8'],
    ['DateStyle', 'ISO'],
    ['TimeZone', 'UTC'],
  ]);
}

function tlsFrom(settings: Settings): TlsMaterial | null {
  const { certFile, keyFile, minVersion } = settings.tls;
  return certFile === null || keyFile === null ? null : loadTlsMaterial({ certFile, keyFile, minVersion });
}

async function listenForClients(listener: Listener, settings: Settings): Promise<number> {
  const { host, port, backlog, socketDir } = settings.listen;
  const { keepaliveMs } = settings.clients;
  let bound: number;
  try {
    bound = await listener.listen({ host, port, socketPath: null, backlog, keepaliveMs });
  } catch (error) {
    throw new ListenError('listen', host, port, error);
  }
  if (socketDir !== null) {
    const path = join(socketDir, `.s.PGSQL.${bound}`);
    removeStaleSocket(path);
    await listener.listen({ host: null, port: bound, socketPath: path, backlog, keepaliveMs: 0 });
  }
  return bound;
}

/** The TCP port is ours by now, so a socket file of the same number was left by a crash. */
function removeStaleSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** Brings the gauges that others own up to date. */
function refreshGauges(counters: Counters, pool: NodePool, listener: Listener): void {
  counters.serverConnections = pool.openCount;
  counters.waits = pool.waitingCount;
  counters.serverConnectionsOpened = pool.counters.connectsTotal;
  counters.serverConnectionsFailed = pool.counters.connectFailuresTotal;
  counters.waitsStarted = pool.counters.waitsTotal;
  counters.waitsTimedOut = pool.counters.waitTimeoutsTotal;
  counters.leases = pool.openCount - pool.idleCount;
  counters.sessionsPinned = 0;
  for (const { conversation } of listener.connections) {
    if (conversation !== null && conversation.lane.pins.length > 0) counters.sessionsPinned++;
  }
}
