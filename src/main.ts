// The composition root, with main/: the only place that wires the parts of a router together. Everything below takes its
// clock, random numbers and sockets from here. Here is the router that is one process; main/start-workers.ts has several.
import { systemClock, systemRandom } from './base/clock.js';
import { SERVICE_CONNECTIONS } from './config/server-connections.js';
import { requireConnections, tellMisfit } from './control/connection-check.js';
import { isSameCertificate, readCertificate, tlsMaterial } from './frontend/door/tls-material.js';
import type { HttpServer } from './http/health-server.js';
import { openCatalogViews } from './main/catalog-views.js';
import { type DataPlane, openDataPlane } from './main/data-plane.js';
import { shardHeartbeats } from './main/heartbeats.js';
import { startHttp } from './main/http-endpoints.js';
import { listenForClients } from './main/listen.js';
import { mockSecret } from './main/mock-secret.js';
import { poolServices, serviceNodes } from './main/node-pools.js';
import { RECOVERY_CONNECTIONS, shardRecovery } from './main/recovery.js';
import type { Router, RouterOptions } from './main/router.js';
import { routerStatus } from './main/router-status.js';
import { askPrimary, shardProbes, shardStates, unhealthyReasons } from './main/shard-probes.js';

export type { Router, RouterOptions, RunningRouter } from './main/router.js';
export { startWorkers } from './main/start-workers.js';

/**
 * Rejects with ListenError where a port cannot be had, ConnectionsError where a server is too small for
 * its pools. Servers that are down do not keep it from starting.
 */
export async function startRouter(options: RouterOptions): Promise<Router> {
  const { settings, log, version } = options;
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const catalogViews = await openCatalogViews(settings, options.catalog ?? null, log);
  const { views } = catalogViews;
  const services = poolServices(settings, clock, random);
  const login = options.probeAs ?? settings.auth.service;
  const service = serviceNodes(views, SERVICE_CONNECTIONS - RECOVERY_CONNECTIONS, login, services);
  const ask = askPrimary(service, clock);
  const health = shardProbes(views, service, clock, log, (shard, { state }) => {
    if (state === 'answers') tellMisfit(shard, settings, ask, log);
  });
  const heartbeats = shardHeartbeats(views, service, clock, log);
  const recovery = serviceNodes(views, RECOVERY_CONNECTIONS, login, services);
  const recoverer = shardRecovery({ views, service, recovery, settings, clock, log });
  let plane: DataPlane | null = null;
  let http: HttpServer | null = null;
  let draining = false;
  const stop = async (): Promise<void> => {
    health.stop();
    heartbeats.stop();
    recoverer.stop();
    recovery.nodes.destroy();
    if (plane === null) service.nodes.destroy();
    else plane.destroy();
    catalogViews.close();
    await http?.close();
  };
  const start = async (): Promise<Router> => {
    let certificate = readCertificate(settings);
    await requireConnections(views.current.shards, settings, ask, log);
    const serving = await openDataPlane({
      ...services,
      log,
      version,
      views,
      tls: tlsMaterial(certificate, settings),
      mockSecret: mockSecret(settings, random, log),
      service,
      status: () =>
        routerStatus({
          view: views.current,
          version,
          health: (shard) => health.of(shard),
          workers: null,
        }),
      prepared: () => recoverer.prepared,
      copiesElsewhere: () => [],
      warmsUp: options.warmsUp === true,
      siblings: null,
    });
    plane = serving;
    const { counters, nodes, listener } = serving;
    const pools = views.current.shards.map((shard) => nodes.primary(shard));
    const port = await listenForClients(listener, settings);
    http = await startHttp(settings, log, {
      reasons: () => (draining ? ['pgkv is draining'] : []),
      warnings: () => unhealthyReasons(views.current.shards, health),
      metrics: {
        counters,
        durations: {},
        shards: () => shardStates(views.current.shards, health),
        recovery: () => recoverer.figures,
      },
      refresh: () => serving.refreshCounters(),
    });
    return {
      port,
      httpPort: http?.port ?? 0,
      get view() {
        return views.current;
      },
      counters,
      pool: pools[0]!,
      pools,
      listener,
      reload(next = settings) {
        const read = readCertificate(next);
        const tls = tlsMaterial(read, next);
        const certificateRenewed = !isSameCertificate(certificate, read);
        certificate = read;
        serving.reload({ tls, allow: next.auth.allow, adminRoles: next.admin.roles });
        log.level = next.log.level;
        return { certificateRenewed };
      },
      async drain() {
        draining = true;
        await serving.drain();
        await stop();
      },
      stop,
    };
  };
  try {
    const router = await start();
    void health.start();
    heartbeats.start();
    recoverer.start();
    catalogViews.watch();
    return router;
  } catch (error) {
    await stop();
    throw error;
  }
}
