// The HTTP side of a router, in the one process that has it.
import type { Settings } from '../config/settings.js';
import { type HttpServer, startHttpServer } from '../http/health-server.js';
import { createMetrics, type MetricsSource } from '../http/metrics.js';
import type { Logger } from '../telemetry/log.js';

export interface HttpSource {
  /** Why no requests should be sent here, one sentence each; none: ready. */
  reasons(): string[];
  /** What is amiss without that. */
  warnings?(): string[];
  readonly metrics: MetricsSource;
  /** Brings what `metrics` reads up to date. */
  refresh(): void | Promise<void>;
}

/** Null where it is disabled. Rejects with ListenError where the port cannot be had. */
export async function startHttp({ http }: Settings, log: Logger, source: HttpSource): Promise<HttpServer | null> {
  if (http.disabled) return null;
  const metrics = createMetrics(source.metrics);
  return startHttpServer({
    host: http.host,
    port: http.port,
    log,
    state: {
      live: () => true,
      ready: () => {
        const reasons = source.reasons();
        return { ready: reasons.length === 0, reasons: [...reasons, ...(source.warnings?.() ?? [])] };
      },
      metrics: {
        contentType: metrics.contentType,
        text: async () => {
          await source.refresh();
          return metrics.text();
        },
      },
    },
  });
}
