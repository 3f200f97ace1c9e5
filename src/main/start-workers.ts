// The control process of a router with workers (R14): holds the catalogue, asks the shards whether they answer,
// answers HTTP, and sees to the workers. No statement passes through it.
import { fileURLToPath } from 'node:url';
import { systemClock, systemRandom } from '../base/clock.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import type { Settings } from '../config/settings.js';
import { requireConnections, tellMisfit } from '../control/connection-check.js';
import { Workers } from '../control/workers.js';
import { isSameCertificate, readCertificate, tlsMaterial } from '../frontend/door/tls-material.js';
import type { HttpServer } from '../http/health-server.js';
import type { MetricsSource } from '../http/metrics.js';
import { openCatalogViews } from './catalog-views.js';
import { ClientDoor } from './client-door.js';
import { shardHeartbeats } from './heartbeats.js';
import { type HttpSource, startHttp } from './http-endpoints.js';
import { makeLaneFolder, removeLaneFolder } from './lane-sockets.js';
import { listenForClients } from './listen.js';
import { mockSecret } from './mock-secret.js';
import { poolServices, type ServiceNodes, serviceNodes } from './node-pools.js';
import { RECOVERY_CONNECTIONS, shardRecovery } from './recovery.js';
import type { RouterOptions, RunningRouter } from './router.js';
import { askPrimary, shardProbes, shardStates, unhealthyReasons } from './shard-probes.js';

const WORKER_PROGRAM = fileURLToPath(new URL('./worker.js', import.meta.url));
/** To each server: probes, and heartbeats, run one after the other; they may be in two databases. */
const PROBE_CONNECTIONS = 2;
/** Behind drain.timeout_ms, and for who is to stop at once. */
const END_GRACE_MS = 4_000;

/**
 * Starts `settings.workers` data processes. Rejects with ListenError where a port cannot be had, ConnectionsError where
 * a server is too small. Servers that are down do not keep it from starting.
 */
export async function startWorkers({
  settings,
  log,
  version,
  catalog = null,
}: Omit<RouterOptions, 'clock' | 'random' | 'probeAs'>): Promise<RunningRouter> {
  let inForce = settings;
  let certificate = readCertificate(settings);
  tlsMaterial(certificate, settings);
  const catalogViews = await openCatalogViews(settings, catalog, log);
  const { views } = catalogViews;
  const { shards } = views.current;
  const service = controlNodes(views, PROBE_CONNECTIONS, settings);
  const ask = askPrimary(service, systemClock);
  const { password } = settings.auth.service;
  const secret = mockSecret(settings, systemRandom, log);
  const laneFolder = makeLaneFolder(settings, log);
  const workers = new Workers({
    count: settings.workers,
    program: WORKER_PROGRAM,
    waitingMax: settings.listen.backlog,
    databaseLeft: (database) => service.nodes.closeIdle(database),
    log,
    assignment: (place) => ({
      ...place,
      settings: withoutPassword(inForce),
      servicePassword: password?.reveal() ?? null,
      version,
      view: views.current,
      certificate,
      laneFolder,
      mockSecret: secret,
    }),
  });
  const heartbeats = shardHeartbeats(views, service, systemClock, log);
  const recovery = controlNodes(views, RECOVERY_CONNECTIONS, settings);
  const recoverer = shardRecovery({ views, service, recovery, settings, clock: systemClock, log }, (prepared) =>
    workers.setPrepared(prepared),
  );
  const health = shardProbes(views, service, systemClock, log, (shard, { state }) => {
    workers.setHealth(views.current.shards.map((each) => health.of(each)));
    if (state === 'answers') tellMisfit(shard, settings, ask, log);
  });
  const stopPassingViews = views.onChange((view: ClusterView) => workers.tell({ kind: 'view', view }));
  const door = new ClientDoor((client) => workers.hand(client));
  let http: HttpServer | null = null;
  let draining = false;
  let stopping: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    health.stop();
    heartbeats.stop();
    recoverer.stop();
    recovery.nodes.destroy();
    stopPassingViews();
    service.nodes.destroy();
    catalogViews.close();
    removeLaneFolder(laneFolder);
    await http?.close();
  };
  let port: number;
  try {
    await requireConnections(shards, settings, ask, log);
    await workers.start();
    port = await listenForClients(door, settings);
    const reasons = () => (draining ? ['pgkv is draining'] : []);
    http = await startHttp(settings, log, {
      ...httpSource(workers, settings.workers, reasons),
      warnings: () => [...unhealthyReasons(views.current.shards, health), ...workers.troubles],
      metrics: {
        ...metricsOf(workers),
        shards: () => shardStates(views.current.shards, health),
        recovery: () => recoverer.figures,
      },
    });
  } catch (error) {
    door.close();
    await workers.end('stop', 0);
    await close();
    throw error;
  }
  void health.start();
  heartbeats.start();
  recoverer.start();
  catalogViews.watch();
  return {
    port,
    httpPort: http?.port ?? 0,
    reload(next = inForce) {
      const read = readCertificate(next);
      tlsMaterial(read, next);
      const certificateRenewed = !isSameCertificate(certificate, read);
      certificate = read;
      inForce = next;
      log.level = next.log.level;
      workers.tell({ kind: 'reload', settings: withoutPassword(next), certificate });
      return { certificateRenewed };
    },
    async drain() {
      draining = true;
      door.close();
      await workers.end('drain', settings.drain.timeoutMs + END_GRACE_MS);
      await (stopping ?? close());
    },
    stop() {
      door.close();
      stopping ??= workers.end('stop', END_GRACE_MS).then(close);
      return stopping;
    },
  };
}

function httpSource(
  workers: Workers,
  count: number,
  reasons: () => string[],
): Omit<HttpSource, 'metrics' | 'warnings'> {
  return {
    reasons: () => (workers.troubles.length < count ? reasons() : [...reasons(), 'no worker takes clients']),
    refresh: () => workers.collect(),
  };
}

function metricsOf(workers: Workers): MetricsSource {
  const { statistics } = workers;
  return {
    counters: statistics.sum,
    durations: {},
    workers: {
      reports: () => [...statistics.reports].map(([worker, report]) => ({ worker, ...report })),
      restarts: () => workers.restarts,
    },
  };
}

function controlNodes(views: ViewHolder, connections: number, settings: Settings): ServiceNodes {
  const services = poolServices(settings, systemClock, systemRandom);
  return serviceNodes(views, connections, settings.auth.service, services);
}

/** A secret does not survive the way to another process; it travels by itself. */
function withoutPassword(settings: Settings): Settings {
  const { service, recover } = settings.auth;
  const auth = { ...settings.auth, service: { ...service, password: null }, recover: { ...recover, password: null } };
  return { ...settings, auth };
}
