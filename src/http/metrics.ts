// /metrics in Prometheus' text format. The data path counts in plain numbers; prom-client's metrics are filled from
// them only while a scrape is answered (one inc() costs 140 ns, a plain one under 1).
import { Counter, Gauge, type MetricObjectWithValues, type MetricValueWithName, Registry, Summary } from 'prom-client';
import { type Counters, type ErrorCounts, GAUGE_NAMES, SQLSTATE_CLASSES } from '../telemetry/counters.js';
import type { DurationHistogram } from '../telemetry/histogram.js';

export interface MetricsSource {
  readonly counters: Readonly<Counters>;
  /** By metric name without `pgkv_` and unit: `{ lease_wait: … }` gives `pgkv_lease_wait_seconds…`. */
  readonly durations: Readonly<Record<string, DurationHistogram>>;
}

export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

export function createMetrics(source: MetricsSource): Metrics {
  const registry = new Registry();
  addCounters(registry, source.counters);
  addErrors(registry, source.counters);
  for (const [name, histogram] of Object.entries(source.durations))
    new DurationSummaryMetric(registry, name, histogram);
  addProcess(registry);
  return { contentType: registry.contentType, text: () => registry.metrics() };
}

type NumberName = { [Name in keyof Counters]: Counters[Name] extends number ? Name : never }[keyof Counters];

const HELP: Readonly<Record<NumberName, string>> = {
  clientsAccepted: 'Client connections accepted',
  clientsConnected: 'Client connections open now',
  clientsRefused: 'Client connections refused for a limit',
  startupsPending: 'Client connections in start-up now',
  startupsTimedOut: 'Client connections closed because start-up took too long',
  loginsSucceeded: 'Logins that succeeded',
  loginsFailed: 'Logins that failed',
  tlsClients: 'Client connections that use TLS',
  cancelsReceived: 'Cancel requests received',
  cancelsForwarded: 'Cancel requests passed on to a server',
  protocolViolations: 'Client connections closed for a protocol violation',
  sessionsPinned: 'Sessions that hold a server connection between transactions now',
  statements: 'Statements run',
  transactions: 'Transactions finished, a single statement being one; one that is scattered counts on each shard',
  serverConnections: 'Server connections open now',
  serverConnectionsOpened: 'Server connections opened',
  serverConnectionsFailed: 'Attempts to open a server connection that failed',
  serverConnectionsDestroyed: 'Server connections closed because a session left them in a state nobody knows',
  leases: 'Server connections leased to a session now',
  leasesGranted: 'Server connections given to a session; a pinned one counts once',
  waits: 'Statements waiting for a server connection now, one that is being opened included',
  waitsStarted: 'Statements that found every server connection in use and had to wait',
  waitsTimedOut: 'Statements that waited for a server connection in vain',
  waitsRefused: 'Statements refused because the queue was full',
  clientBytesIn: 'Bytes received from clients',
  clientBytesOut: 'Bytes sent to clients',
  serverBytesIn: 'Bytes received from servers for clients, logins not counted',
  serverBytesOut: 'Bytes sent to servers for clients, logins not counted',
};

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function addCounters(registry: Registry, counters: Readonly<Counters>): void {
  const gauges = new Set<string>(GAUGE_NAMES);
  for (const [key, help] of Object.entries(HELP)) {
    const name = key as NumberName;
    if (gauges.has(name)) addGauge(registry, `pgkv_${snakeCase(name)}`, help, () => counters[name]);
    else addTotal(registry, `pgkv_${snakeCase(name)}_total`, help, () => counters[name]);
  }
}

function addGauge(registry: Registry, name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

function addTotal(registry: Registry, name: string, help: string, read: () => number): void {
  new Counter({
    name,
    help,
    registers: [registry],
    collect() {
      this.reset();
      this.inc(read());
    },
  });
}

function addErrors(registry: Registry, counters: Readonly<Counters>): void {
  const origins: readonly (readonly [string, Readonly<ErrorCounts>])[] = [
    ['pgkv', counters.ownErrors],
    ['server', counters.serverErrors],
  ];
  new Counter({
    name: 'pgkv_errors_total',
    help: 'Errors for clients, by origin and SQLSTATE class; a scattered statement may have one from each shard',
    labelNames: ['origin', 'sqlstate_class'],
    registers: [registry],
    collect() {
      this.reset();
      for (const [origin, counts] of origins) {
        for (const name of SQLSTATE_CLASSES) this.inc({ origin, sqlstate_class: name }, counts[name]);
      }
    },
  });
}

/** A Prometheus summary whose numbers come from a DurationHistogram; prom-client's own would be fed one by one. */
class DurationSummaryMetric extends Summary<'quantile'> {
  readonly #histogram: DurationHistogram;

  constructor(registry: Registry, name: string, histogram: DurationHistogram) {
    const help = `Duration of ${name.replaceAll('_', ' ')}; quantiles over the last minute or two`;
    super({ name: `pgkv_${name}_seconds`, help, percentiles: [], registers: [registry] });
    this.#histogram = histogram;
  }

  override async get(): Promise<MetricObjectWithValues<MetricValueWithName<'quantile'>>> {
    const metric = await super.get();
    const { count, sumUs, p50Us, p95Us, p99Us } = this.#histogram.summary();
    const quantile = (rank: number, us: number) => {
      return { metricName: metric.name, labels: { quantile: rank }, value: us / 1e6 };
    };
    const whole = (suffix: string, value: number) => ({ metricName: `${metric.name}_${suffix}`, labels: {}, value });
    const values = [quantile(0.5, p50Us), quantile(0.95, p95Us), quantile(0.99, p99Us)];
    return { ...metric, values: [...values, whole('sum', sumUs / 1e6), whole('count', count)] };
  }
}

/** prom-client's own process metrics would keep an event-loop timer and a GC observer running; these cost nothing. */
function addProcess(registry: Registry): void {
  const startedAt = Date.now() / 1000 - process.uptime();
  let lastUtilization = performance.eventLoopUtilization();
  addGauge(registry, 'process_start_time_seconds', 'Start of the process, seconds since 1970', () => startedAt);
  addGauge(registry, 'process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss());
  addGauge(registry, 'nodejs_heap_used_bytes', 'JavaScript heap in use', () => process.memoryUsage().heapUsed);
  addTotal(registry, 'process_cpu_seconds_total', 'CPU time used, user and system', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  addGauge(
    registry,
    'nodejs_eventloop_utilization',
    'Share of time the event loop was busy since the last scrape',
    () => {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, lastUtilization);
      lastUtilization = now;
      return utilization;
    },
  );
}
