// A pgkv router in this process for integration tests, with clients that say what they expect in one line, and the
// check every test ends with: nothing of it is left in the router.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { poisonReads } from '../../src/base/read-poison.js';
import type { CatalogDriver } from '../../src/catalog/catalog-driver.js';
import { defaultSettings } from '../../src/config/load.js';
import type { Settings, SettingsOverrides } from '../../src/config/settings.js';
import { type Router, startRouter } from '../../src/main.js';
import { createLogger } from '../../src/telemetry/log.js';
import { watchListener } from '../oracle/watch.js';
import { stretched } from './machine-speed.js';
import { holdsSockets, type SocketHolder, socketsOfOthers } from './other-sockets.js';
import type { PostgresServer } from './postgres-server.js';
import { SqlClient, type SqlClientOptions } from './sql-client.js';

// Routers of tests show what is kept of memory that sockets read into again.
poisonReads();

/** What belongs to the test process itself, not to a router: pipes and processes of test servers, the reporter. */
const OWN_RESOURCES = new Set(['PipeWrap', 'ProcessWrap', 'TTYWrap', 'Timeout', 'Immediate', 'FSReqCallback']);
/** Shorter than the time a closed client is given to go: its timer must not outlive it. */
const QUIET_TIMEOUT_MS = 1_800;
/** Sweeps of the pools and the listener, the rounds of health, heartbeats and recovery: they run as long as the router. */
const STANDING_TIMERS_MAX = 9;

export interface LiveRouter {
  readonly router: Router;
  readonly host: string;
  readonly port: number;
  /** Timers asked for and neither run nor cancelled. */
  readonly timersPending: () => number;
  /** Lines of the log of that level, without time and process. */
  logged(level: string): Record<string, unknown>[];
  /** Signs in; the client is cut off at the end of the test if it has not ended itself. */
  connect(options?: Partial<SqlClientOptions>): Promise<SqlClient>;
  /** Resolves when no client, lease, waiter or surplus timer is left; throws what is after a while. */
  quiet(): Promise<void>;
}

export type RouterOverrides = Omit<SettingsOverrides, 'shards' | 'listen' | 'http'> & {
  readonly listen?: SettingsOverrides['listen'];
  readonly http?: SettingsOverrides['http'];
};

/** Knows what is pending: a timer that is never cancelled keeps what it refers to alive. */
class CountingClock implements Clock {
  /** Delays of the timers pending, milliseconds. */
  readonly pending = new Map<symbol, number>();
  readonly now = systemClock.now;
  readonly wallTime = systemClock.wallTime;

  after(delayMs: number, callback: () => void): ReturnType<Clock['after']> {
    const key = Symbol();
    this.pending.set(key, delayMs);
    const timer = systemClock.after(delayMs, () => {
      this.pending.delete(key);
      callback();
    });
    return {
      cancel: () => {
        this.pending.delete(key);
        timer.cancel();
      },
    };
  }
}

export const routerSettings = (
  servers: readonly Pick<PostgresServer, 'host' | 'port'>[],
  overrides: RouterOverrides = {},
  servicePassword?: string,
) =>
  defaultSettings(
    {
      auth: { method: 'trust' },
      // The tests' superuser.
      admin: { roles: ['postgres'] },
      ...overrides,
      listen: { port: 0, ...overrides.listen },
      http: { disabled: true, ...overrides.http },
      servers: { tls: 'disable', ...overrides.servers },
      shards: servers.map(({ host, port }, index) => ({ name: `s${index + 1}`, nodes: [{ host, port }] })),
    },
    servicePassword,
  );

/**
 * Starts a router that is stopped at the end of test `t`; then no socket may be left in the process either. Statements
 * go to the first server.
 */
export async function liveRouter(
  t: Test,
  servers: readonly PostgresServer[],
  overrides: RouterOverrides = {},
  options: {
    readonly servicePassword?: string;
    /** For settings that would be refused in a file. */
    readonly adjust?: (settings: Settings) => Settings;
    readonly catalog?: CatalogDriver;
  } = {},
): Promise<LiveRouter> {
  const before = ownSockets() - socketsOfOthers(null);
  const clock = new CountingClock();
  const [home] = servers;
  const lines: string[] = [];
  const settings = routerSettings(servers, overrides, options.servicePassword);
  // Under "trust" there is no service role: probes run as the superuser.
  const trusts = settings.auth.method === 'trust';
  const router = await startRouter({
    settings: options.adjust?.(settings) ?? settings,
    log: createLogger({ level: 'info', format: 'json', values: false }, { write: (line) => lines.push(line) }),
    version: '0.0.0-test',
    clock,
    catalog: options.catalog ?? null,
    ...(trusts ? { probeAs: { user: home!.superuser, database: 'postgres' } } : {}),
  });
  const { listener, pools } = router;
  watchListener(listener);
  const holder: SocketHolder = {
    get socketCount() {
      return pools.reduce((count, { placesTaken }) => count + placesTaken, listener.connections.size);
    },
  };
  const letGo = holdsSockets(holder);
  const clients: SqlClient[] = [];
  const host = overrides.listen?.host ?? '127.0.0.1';
  const live: LiveRouter = {
    router,
    host,
    port: router.port,
    timersPending: () => clock.pending.size,
    logged: (level) =>
      lines.flatMap((line) => {
        const { level: its, time: _time, pid: _pid, ...fields } = JSON.parse(line) as Record<string, unknown>;
        return its === level ? [fields] : [];
      }),
    async connect(clientOptions) {
      const address = { host, port: router.port };
      const client = await SqlClient.connect(address, {
        user: home!.superuser,
        database: 'postgres',
        ...clientOptions,
      });
      clients.push(client);
      return client;
    },
    quiet: () => becomesTrue(() => leftovers(router, clock)),
  };
  t.teardown(async () => {
    for (const client of clients) client.wire.destroy();
    await live.quiet();
    await router.stop();
    await becomesTrue(() => {
      const surplus = ownSockets() - socketsOfOthers(holder) - before;
      return surplus > 0 ? [`${surplus} sockets or listeners: ${process.getActiveResourcesInfo().join(' ')}`] : [];
    });
    letGo();
  });
  return live;
}

function leftovers(router: Router, clock: CountingClock): string[] {
  const { pools, listener } = router;
  const left: string[] = [];
  if (listener.connections.size > 0) left.push(`${listener.connections.size} clients`);
  for (const pool of pools) {
    if (pool.waitingCount > 0) left.push(`${pool.waitingCount} waiting requests`);
    if (pool.openCount !== pool.idleCount) left.push(`${pool.openCount - pool.idleCount} leases`);
  }
  if (router.counters.startupsPending !== 0) left.push(`${router.counters.startupsPending} start-ups`);
  if (router.counters.clientsConnected !== 0) left.push(`${router.counters.clientsConnected} clients counted`);
  if (clock.pending.size > STANDING_TIMERS_MAX + 2 * pools.length)
    left.push(`timers: ${[...clock.pending.values()].join(', ')} ms`);
  for (const connection of pools.flatMap((pool) => [...pool.connections()])) {
    if (!connection.atRest || connection.receiver !== null) left.push(`connection ${connection.pid} is not at rest`);
  }
  return left;
}

/** Waits until `problems` is empty; throws the problems where it does not become so. */
async function becomesTrue(problems: () => string[]): Promise<void> {
  let end = performance.now() + QUIET_TIMEOUT_MS;
  let isLast = false;
  for (;;) {
    const left = problems();
    if (left.length === 0) return;
    if (performance.now() > end && !isLast) {
      isLast = true;
      end += (await stretched(QUIET_TIMEOUT_MS)) - QUIET_TIMEOUT_MS;
    } else if (performance.now() > end) throw new Error(`left over: ${left.join(', ')}`);
    await sleep(10);
  }
}

const ownSockets = (): number => process.getActiveResourcesInfo().filter((name) => !OWN_RESOURCES.has(name)).length;
