// Plain numbers that the data path increments in place: one object of one shape for the whole process, a few
// nanoseconds each (prom-client's own inc() costs 140 ns). Readers (http/metrics.ts, SHOW) copy them when asked.

/** SQLSTATE classes counted apart; all others share `other`, so that no client can grow the set. */
export const SQLSTATE_CLASSES = [
  '08',
  '0A',
  '22',
  '23',
  '25',
  '26',
  '28',
  '3D',
  '40',
  '42',
  '53',
  '54',
  '55',
  '57',
  '58',
  'P0',
  'XX',
  'other',
] as const;
export type SqlstateClass = (typeof SQLSTATE_CLASSES)[number];
export type ErrorCounts = Record<SqlstateClass, number>;

export interface Counters {
  // Clients
  clientsAccepted: number;
  clientsConnected: number;
  /** Refused for a limit: connections_max, startup_pending_max. */
  clientsRefused: number;
  startupsPending: number;
  startupsTimedOut: number;
  loginsSucceeded: number;
  loginsFailed: number;
  tlsClients: number;
  cancelsReceived: number;
  cancelsForwarded: number;
  protocolViolations: number;
  // Sessions
  sessionsPinned: number;
  statements: number;
  transactions: number;
  // The merged lane
  mergedBatches: number;
  /** Answered by those batches. */
  mergedStatements: number;
  /** Given back by a batch, to run by themselves. */
  mergedReruns: number;
  /** Handed to another worker to be merged there; taken from others; taken back, or never taken. */
  mergedHanded: number;
  mergedOwned: number;
  mergedTakenBack: number;
  // Server connections
  serverConnections: number;
  serverConnectionsOpened: number;
  serverConnectionsFailed: number;
  /** Closed because a session left them in a state nobody knows. */
  serverConnectionsDestroyed: number;
  /** Closed because their server did not answer pgkv in time. */
  serverConnectionsSilent: number;
  // Leases
  leases: number;
  leasesGranted: number;
  waits: number;
  /** Found every connection in use; one that only had to be opened is no wait. */
  waitsStarted: number;
  waitsTimedOut: number;
  waitsRefused: number;
  // Bytes on sockets, TLS not counted; those of servers without logins and without pgkv's own connections
  clientBytesIn: number;
  clientBytesOut: number;
  serverBytesIn: number;
  serverBytesOut: number;
  /** Errors written for clients, raised by pgkv. */
  readonly ownErrors: ErrorCounts;
  /** Errors forwarded from servers. */
  readonly serverErrors: ErrorCounts;
}

/** All but the error counts. */
export type NumberName = { [Name in keyof Counters]: Counters[Name] extends number ? Name : never }[keyof Counters];

/** Names of the counters that go down again; all other numbers only grow. */
export const GAUGE_NAMES = [
  'clientsConnected',
  'startupsPending',
  'sessionsPinned',
  'serverConnections',
  'leases',
  'waits',
] as const satisfies readonly (keyof Counters)[];
const IS_GAUGE: ReadonlySet<keyof Counters> = new Set(GAUGE_NAMES);

export function createCounters(): Counters {
  return {
    clientsAccepted: 0,
    clientsConnected: 0,
    clientsRefused: 0,
    startupsPending: 0,
    startupsTimedOut: 0,
    loginsSucceeded: 0,
    loginsFailed: 0,
    tlsClients: 0,
    cancelsReceived: 0,
    cancelsForwarded: 0,
    protocolViolations: 0,
    sessionsPinned: 0,
    statements: 0,
    transactions: 0,
    mergedBatches: 0,
    mergedStatements: 0,
    mergedReruns: 0,
    mergedHanded: 0,
    mergedOwned: 0,
    mergedTakenBack: 0,
    serverConnections: 0,
    serverConnectionsOpened: 0,
    serverConnectionsFailed: 0,
    serverConnectionsDestroyed: 0,
    serverConnectionsSilent: 0,
    leases: 0,
    leasesGranted: 0,
    waits: 0,
    waitsStarted: 0,
    waitsTimedOut: 0,
    waitsRefused: 0,
    clientBytesIn: 0,
    clientBytesOut: 0,
    serverBytesIn: 0,
    serverBytesOut: 0,
    ownErrors: createErrorCounts(),
    serverErrors: createErrorCounts(),
  };
}

export function createErrorCounts(): ErrorCounts {
  return Object.fromEntries(SQLSTATE_CLASSES.map((name) => [name, 0])) as ErrorCounts;
}

/** Counts an error, or several, by the first two characters of its SQLSTATE. */
export function countError(counts: ErrorCounts, sqlstate: string, times = 1): void {
  const name = sqlstate.slice(0, 2);
  counts[Object.hasOwn(counts, name) ? (name as SqlstateClass) : 'other'] += times;
}

/** Adds up in place. `gauges` false: only what never goes down again, as of a process that is gone. */
export function addCounters(sum: Counters, more: Readonly<Counters>, gauges = true): void {
  for (const key of Object.keys(sum) as (keyof Counters)[]) {
    if (key === 'ownErrors' || key === 'serverErrors') {
      for (const name of SQLSTATE_CLASSES) sum[key][name] += more[key][name];
    } else if (gauges || !IS_GAUGE.has(key)) sum[key] += more[key];
  }
}
