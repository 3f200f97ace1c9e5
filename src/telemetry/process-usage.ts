// What a process has used so far, as plain numbers that can be sent to the process that shows them.

export interface ProcessUsage {
  /** Seconds since 1970. */
  readonly startedAt: number;
  readonly residentBytes: number;
  readonly heapUsedBytes: number;
  /** User and system. */
  readonly cpuSeconds: number;
  /** Milliseconds the event loop has been idle and active since the start. */
  readonly loopIdleMs: number;
  readonly loopActiveMs: number;
}

const STARTED_AT = Date.now() / 1000 - process.uptime();

export function readProcessUsage(): ProcessUsage {
  const { user, system } = process.cpuUsage();
  const { idle, active } = performance.eventLoopUtilization();
  const { rss, heapUsed } = process.memoryUsage();
  return {
    startedAt: STARTED_AT,
    residentBytes: rss,
    heapUsedBytes: heapUsed,
    cpuSeconds: (user + system) / 1e6,
    loopIdleMs: idle,
    loopActiveMs: active,
  };
}
