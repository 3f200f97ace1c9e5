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
import { messageOf } from './base/errors.js';
import { ListenError } from './base/listen-error.js';
import type { CatalogDriver } from './catalog/catalog-driver.js';
import { CatalogError } from './catalog/catalog-error.js';
import { primaryFirst, viewFrom } from './catalog/view-from.js';
import { type ClusterView, homeShard, initialView } from './cluster/cluster-view.js';
import { loadKeyHash } from './cluster/key-hash.js';
import { ViewHolder } from './cluster/view-holder.js';
import type { Settings } from './config/settings.js';
import { ShardHealthMonitor } from './control/shard-health.js';
import { MergedLanes } from './execute/merged/merged-lanes.js';
import { CancelRegistry } from './frontend/cancel-registry.js';
import { FailedLogins } from './frontend/failed-logins.js';
import type { FrontendServices } from './frontend/frontend-services.js';
import { Listener } from './frontend/listener.js';
import { ProtocolTap } from './frontend/protocol-tap.js';
import { loadTlsMaterial, type TlsMaterial } from './frontend/tls-material.js';
import { VerifierSource } from './frontend/verifier-source.js';
import { type HttpServer, startHttpServer } from './http/health-server.js';
import { createMetrics } from './http/metrics.js';
import { loadParser } from './sql/parse.js';
import { TemplateCache } from './sql/template-cache.js';
import { type Counters, countError, createCounters, type ErrorCounts, SQLSTATE_CLASSES } from './telemetry/counters.js';
import type { Logger } from './telemetry/log.js';
import { Frontend, frontendLimits } from './wire/protocol.js';
import { errorsWritten } from './wire/server-messages.js';

export interface RouterOptions {
  readonly settings: Settings;
  readonly log: Logger;
  readonly version: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Role and database for health probes when they are not those of `auth.service` (pgkv dev). */
  readonly probeAs?: { readonly user: string; readonly database: string };
  /** Where slots and key-value tables are kept; without one pgkv only pools the first shard's server. */
  readonly catalog?: CatalogDriver | null;
}

export interface Router {
  readonly port: number;
  /** 0 when HTTP is disabled. */
  readonly httpPort: number;
  /** The one in force. */
  readonly view: ClusterView;
  readonly counters: Counters;
  /** Connections to the home shard's primary, which is the first of `pools`. */
  readonly pool: NodePool;
  /** By shard id. */
  readonly pools: readonly NodePool[];
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
  await Promise.all([loadParser(), loadKeyHash()]);

  const catalog = options.catalog ?? null;
  const routerLock = (await catalog?.acquireRouterLock()) ?? null;
  const views = await firstView(settings, catalog).catch((error: unknown) => {
    routerLock?.release();
    throw error;
  });
  const { shards } = views.current;
  const counters = createCounters();
  const errorsBefore = new Map(errorsWritten);
  const registry = new SettingsRegistry();
  const templates = new TemplateCache({ bytesMax: settings.limits.templateCacheBytes });
  const templateOf: ReadTemplate = (text, standardStrings, scope) => templates.get(text, standardStrings, scope);
  const openStream = openServerSocket({
    tls: settings.servers.tls,
    tlsCaFile: settings.servers.tlsCaFile,
    keepaliveMs: settings.servers.keepaliveMs,
  });
  const pools = shards.map(
    ({ name, primary }) =>
      new NodePool({
        address: primary,
        shardName: shards.length > 1 ? name : null,
        limits: poolLimits(settings),
        openStream,
        clock,
        random,
        noSettings: registry.empty,
      }),
  );
  const home = homeShard(views.current).primary;
  const pool = pools[0]!;
  const { service } = settings.auth;
  const serviceUser = options.probeAs?.user ?? service.user;
  const serviceDatabase = options.probeAs?.database ?? service.database;
  const startup = serviceStartup(serviceUser, serviceDatabase);
  const password = service.password?.reveal();
  const credential: Credential = password === undefined ? { kind: 'none' } : { kind: 'password', password };
  const limits = { ...poolLimits(settings), sizeMax: SERVICE_CONNECTIONS_MAX };
  const servicePools = new Map(
    shards.map(({ name, primary }) => {
      const shardName = shards.length > 1 ? name : null;
      const options = { address: primary, shardName, limits, openStream, clock, random, noSettings: registry.empty };
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
    pools,
    view: () => views.current,
    merged: settings.merged.disabled ? null : new MergedLanes(registry, clock),
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
    cancelStatement: (shard, connection, delivered) =>
      sendCancelRequest({
        openStream,
        address: shard.primary,
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
      literalsOf: (text, standardStrings) => templates.literalsOf(text, standardStrings),
      view: () => views.current,
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
    failedLogins: new FailedLogins(clock, (fields, message) => log.info(fields, message)),
    tlsRequired: settings.tls.required,
    tls: () => tls,
  };

  const health = new ShardHealthMonitor({
    shards,
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
    epoch: views.current.epoch,
    version: options.version,
    tables: views.current.tables,
    shards: shards.map((shard) => ({
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
    for (const shardPool of pools) shardPool.destroy();
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
            const reasons = shards
              .filter((shard) => !health.of(shard).healthy)
              .map((shard) => `shard ${shard.name}: ${health.of(shard).reason}`);
            if (draining) reasons.push('pgkv is draining');
            return { ready: reasons.length === 0, reasons };
          },
          metrics: {
            contentType: metrics.contentType,
            text: () => {
              refreshGauges(counters, pools, listener);
              refreshOwnErrors(counters.ownErrors, errorsBefore);
              return metrics.text();
            },
          },
        },
      });
    }
  } catch (error) {
    listener.destroy();
    destroyPools();
    catalog?.close();
    routerLock?.release();
    throw error;
  }
  void health.start();
  const stopWatching = catalog === null ? null : watchCatalog(catalog, settings, views, log);

  const logCut = (sessions: number): void => {
    if (sessions > 0) log.warn({ sessions }, 'sessions were cut');
  };
  const stop = async (): Promise<void> => {
    health.stop();
    stopWatching?.();
    logCut(listener.destroy());
    destroyPools();
    catalog?.close();
    routerLock?.release();
    await http?.close();
  };
  return {
    port,
    httpPort: http?.port ?? 0,
    get view() {
      return views.current;
    },
    counters,
    pool,
    pools,
    listener,
    reload() {
      tls = tlsFrom(settings);
    },
    async drain() {
      draining = true;
      logCut(await listener.drain(settings.drain.timeoutMs));
      await stop();
    },
    stop,
  };
}

/** @throws CatalogError where configuration and catalogue do not fit */
async function firstView(settings: Settings, catalog: CatalogDriver | null): Promise<ViewHolder> {
  if (catalog !== null) {
    const state = await catalog.read();
    // Without its catalogue a key-value table would be taken for an ordinary one of the home shard.
    if (state === null)
      throw new CatalogError(`there is no catalogue at ${catalog.place}`, { hint: 'Run "pgkv init".' });
    return new ViewHolder(viewFrom(settings.shards, state));
  }
  const shards = settings.shards.map(({ name, slots, nodes }) => {
    return { name, hashSlots: slots, nodes: primaryFirst(nodes) };
  });
  return new ViewHolder(initialView(shards));
}

/** Takes over what is written to the catalogue while the router runs. */
function watchCatalog(catalog: CatalogDriver, settings: Settings, views: ViewHolder, log: Logger): () => void {
  const failed = (error: unknown): void => {
    log.error({ catalog: catalog.place, reason: messageOf(error) }, 'the catalogue cannot be used; the last map stays');
  };
  return catalog.watch((state) => {
    try {
      const next = viewFrom(settings.shards, state);
      if (next.shards.some(({ name }, index) => views.current.shards[index]?.name !== name)) {
        throw new Error('its shards are others than at the start; restart pgkv');
      }
      views.swap(next);
      log.info({ epoch: next.epoch, tables: next.tables.length }, 'the map has changed');
    } catch (error) {
      failed(error);
    }
  }, failed);
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
function refreshGauges(counters: Counters, pools: readonly NodePool[], listener: Listener): void {
  const sum = (of: (pool: NodePool) => number): number => pools.reduce((total, pool) => total + of(pool), 0);
  counters.serverConnections = sum((pool) => pool.openCount);
  counters.waits = sum((pool) => pool.waitingCount);
  counters.serverConnectionsOpened = sum((pool) => pool.counters.connectsTotal);
  counters.serverConnectionsFailed = sum((pool) => pool.counters.connectFailuresTotal);
  counters.serverConnectionsDestroyed = sum((pool) => pool.counters.destroyedTotal);
  counters.waitsStarted = sum((pool) => pool.counters.waitsTotal);
  counters.waitsTimedOut = sum((pool) => pool.counters.waitTimeoutsTotal);
  counters.waitsRefused = sum((pool) => pool.counters.waitsRefusedTotal);
  counters.leasesGranted = sum((pool) => pool.counters.grantsTotal);
  counters.transactions = sum((pool) => pool.counters.transactionsTotal);
  counters.clientBytesOut = listener.bytesOut;
  counters.serverBytesIn = sum((pool) => pool.bytesIn);
  counters.serverBytesOut = sum((pool) => pool.bytesOut);
  for (const name of SQLSTATE_CLASSES) counters.serverErrors[name] = sum((pool) => pool.counters.errors[name]);
  counters.leases = sum((pool) => pool.openCount - pool.idleCount);
  counters.sessionsPinned = 0;
  for (const { conversation } of listener.connections) {
    if (conversation?.lanes.pinned === true) counters.sessionsPinned++;
  }
}

/** @param before how many had been written when this router started */
function refreshOwnErrors(counts: ErrorCounts, before: ReadonlyMap<string, number>): void {
  for (const name of SQLSTATE_CLASSES) counts[name] = 0;
  for (const [sqlstate, total] of errorsWritten) countError(counts, sqlstate, total - (before.get(sqlstate) ?? 0));
}
