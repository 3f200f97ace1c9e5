// /metrics in Prometheus' text format. The data path counts in plain numbers; prom-client's metrics are filled from
// them only while a scrape is answered (one inc() costs 140 ns, a plain one under 1).
import { Counter, Gauge, type MetricObjectWithValues, type MetricValueWithName, Registry, Summary } from 'prom-client';
import type { ShardState } from '../cluster/control-port.js';
import {
  type Counters,
  type ErrorCounts,
  GAUGE_NAMES,
  type NumberName,
  SQLSTATE_CLASSES,
} from '../telemetry/counters.js';
import type { DurationHistogram } from '../telemetry/histogram.js';
import { type ProcessUsage, readProcessUsage } from '../telemetry/process-usage.js';

export interface WorkerMetrics {
  readonly worker: number;
  readonly counters: Readonly<Counters>;
  readonly usage: ProcessUsage;
}

export interface WorkersSource {
  /** Those that run now, as they reported last. */
  reports(): readonly WorkerMetrics[];
  /** How often one that ended has been replaced. */
  restarts(): number;
}

export interface ShardGauge {
  readonly shard: string;
  readonly state: ShardState;
}

/** Of transactions over several shards that were left behind (D14). */
export interface RecoveryGauges {
  readonly prepared: number;
  readonly orphans: number;
  readonly committed: number;
  readonly aborted: number;
}

const SHARD_STATES: readonly ShardState[] = ['answers', 'unreachable', 'silent', 'other', 'unknown'];

export interface MetricsSource {
  /** As probes found them last. */
  readonly shards?: () => readonly ShardGauge[];
  readonly recovery?: () => RecoveryGauges;
  /** Of all workers together, where there are workers. */
  readonly counters: Readonly<Counters>;
  /** Null: this process does everything itself. */
  readonly workers?: WorkersSource | null;
  /** By metric name without `pgkv_` and unit: `{ lease_wait: … }` gives `pgkv_lease_wait_seconds…`. */
  readonly durations: Readonly<Record<string, DurationHistogram>>;
}

export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

export function createMetrics(source: MetricsSource): Metrics {
  const registry = new Registry();
  const { counters, workers = null } = source;
  addCounters(registry, 'pgkv', '', null, (name) => [['', counters[name]]]);
  addErrors(registry, counters);
  if (source.shards !== undefined) addShards(registry, source.shards);
  if (source.recovery !== undefined) addRecovery(registry, source.recovery);
  if (workers !== null) addWorkers(registry, workers);
  for (const [name, histogram] of Object.entries(source.durations))
    new DurationSummaryMetric(registry, name, histogram);
  addProcesses(registry, workers);
  return { contentType: registry.contentType, text: () => registry.metrics() };
}

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
  mergedBatches: 'Statements sent to a server in place of those of several clients, or of one',
  mergedStatements: 'Statements of clients that were answered by such a batch',
  mergedReruns: 'Statements of clients that such a batch could not answer and that ran by themselves',
  mergedHanded: 'Statements of clients that were handed to another worker, to be merged with those of its own',
  mergedOwned: 'Statements that other workers have handed to be merged here',
  mergedTakenBack:
    'Statements that the other worker did not take, or did not answer, and that were merged here after all',
  serverConnections: 'Server connections open now',
  serverConnectionsOpened: 'Server connections opened',
  serverConnectionsFailed: 'Attempts to open a server connection that failed',
  serverConnectionsDestroyed: 'Server connections closed because a session left them in a state nobody knows',
  serverConnectionsSilent: 'Server connections closed because their server did not answer pgkv in time',
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

/** A value and that of its label; '' where the metric has none. */
type Sample = readonly [label: string, value: number];
type Kind = 'gauge' | 'total';

/** Gives a metric whose values are read while a scrape is answered. `label`: what tells them apart, null for only one. */
function addMetric(
  registry: Registry,
  { kind, name, help, label }: { kind: Kind; name: string; help: string; label: string | null },
  read: () => readonly Sample[],
): void {
  const options = { name, help, labelNames: label === null ? [] : [label], registers: [registry] };
  const labelled = (value: string) => (label === null ? {} : { [label]: value });
  if (kind === 'gauge') {
    new Gauge({
      ...options,
      collect() {
        this.reset();
        for (const [of, value] of read()) this.set(labelled(of), value);
      },
    });
  } else {
    new Counter({
      ...options,
      collect() {
        this.reset();
        for (const [of, value] of read()) this.inc(labelled(of), value);
      },
    });
  }
}

function addCounters(
  registry: Registry,
  prefix: string,
  of: string,
  label: string | null,
  read: (name: NumberName) => readonly Sample[],
): void {
  const gauges = new Set<string>(GAUGE_NAMES);
  for (const [key, text] of Object.entries(HELP)) {
    const counter = key as NumberName;
    const kind: Kind = gauges.has(counter) ? 'gauge' : 'total';
    const name = `${prefix}_${snakeCase(counter)}${kind === 'total' ? '_total' : ''}`;
    addMetric(registry, { kind, name, help: text + of, label }, () => read(counter));
  }
}

/** Those above are sums over the workers; here is each by itself. A worker that is replaced begins at 0 again. */
function addWorkers(registry: Registry, workers: WorkersSource): void {
  addCounters(registry, 'pgkv_worker', ', by worker', 'worker', (name) =>
    workers.reports().map(({ worker, counters }): Sample => [`${worker}`, counters[name]]),
  );
  const running = { kind: 'gauge', name: 'pgkv_workers', help: 'Workers that take clients now', label: null } as const;
  addMetric(registry, running, () => [['', workers.reports().length]]);
  const help = 'Workers that ended by themselves and were replaced';
  addMetric(registry, { kind: 'total', name: 'pgkv_worker_restarts_total', help, label: null }, () => [
    ['', workers.restarts()],
  ]);
}

function addShards(registry: Registry, read: () => readonly ShardGauge[]): void {
  new Gauge({
    name: 'pgkv_shard_state',
    help: "State of each shard's primary: 1 for the one it is in (other: a server that is not the one expected)",
    labelNames: ['shard', 'state'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { shard, state } of read()) {
        for (const each of SHARD_STATES) this.set({ shard, state: each }, each === state ? 1 : 0);
      }
    },
  });
}

function addRecovery(registry: Registry, read: () => RecoveryGauges): void {
  const gauge = (name: string, help: string, of: (figures: RecoveryGauges) => number): void =>
    addMetric(registry, { kind: 'gauge', name, help, label: null }, () => [['', of(read())]]);
  const prepared = 'Branches of transactions over several shards that are prepared, as looked for every two seconds';
  gauge('pgkv_prepared_transactions', prepared, (figures) => figures.prepared);
  const orphans = 'Of these, those older than half a minute that cannot be finished: they hold back vacuum';
  gauge('pgkv_prepared_orphans', orphans, (figures) => figures.orphans);
  const help = 'Branches that were left behind and finished by recovery, by outcome';
  addMetric(registry, { kind: 'total', name: 'pgkv_recovered_branches_total', help, label: 'outcome' }, () => {
    const { committed, aborted } = read();
    return [
      ['commit', committed],
      ['abort', aborted],
    ];
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
function addProcesses(registry: Registry, workers: WorkersSource | null): void {
  const label = workers === null ? null : 'process';
  const processes = (): readonly (readonly [process: string, usage: ProcessUsage])[] => [
    ['control', readProcessUsage()],
    ...(workers?.reports() ?? []).map(({ worker, usage }) => [`worker-${worker}`, usage] as const),
  ];
  const add = (kind: Kind, name: string, help: string, of: (usage: ProcessUsage, process: string) => number): void =>
    addMetric(registry, { kind, name, help, label }, () =>
      processes().map(([process, usage]): Sample => [process, of(usage, process)]),
    );
  const start = 'Start of the process, seconds since 1970';
  add('gauge', 'process_start_time_seconds', start, ({ startedAt }) => startedAt);
  add('gauge', 'process_resident_memory_bytes', 'Resident memory', ({ residentBytes }) => residentBytes);
  add('gauge', 'nodejs_heap_used_bytes', 'JavaScript heap in use', ({ heapUsedBytes }) => heapUsedBytes);
  add('total', 'process_cpu_seconds_total', 'CPU time used, user and system', ({ cpuSeconds }) => cpuSeconds);
  const seen = new Map<string, ProcessUsage>();
  const busy = 'Share of time the event loop was busy since the last scrape';
  add('gauge', 'nodejs_eventloop_utilization', busy, (usage, process) => {
    const before = seen.get(process);
    seen.set(process, usage);
    return loopUtilization(usage, before?.startedAt === usage.startedAt ? before : undefined);
  });
}

function loopUtilization(now: ProcessUsage, before: ProcessUsage | undefined): number {
  const active = now.loopActiveMs - (before?.loopActiveMs ?? 0);
  const idle = now.loopIdleMs - (before?.loopIdleMs ?? 0);
  return active + idle > 0 ? active / (active + idle) : 0;
}
