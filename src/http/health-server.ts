// The HTTP listener for orchestrators: /live (is the process sound), /ready (should clients be sent here), /metrics.
// Answers are small and bounded in time on purpose: a slow or silent peer is cut, whatever it does, and one scrape at a
// time is computed. The HTTP API and the console will be routes of the same server.
import type { AddressInfo } from 'node:net';
import fastify, { type FastifyInstance } from 'fastify';
import { ListenError } from '../base/listen-error.js';
import type { Logger } from '../telemetry/log.js';
import type { Metrics } from './metrics.js';
import { PROBLEM_TYPE, problemText, sendProblem } from './problem.js';

/** Nobody has reason to send these endpoints a body. */
const BODY_BYTES_MAX = 16 * 1024;
const HEADERS_TIMEOUT_MS = 3_000;
const REQUEST_TIMEOUT_MS = 6_000;
const IDLE_TIMEOUT_MS = 30_000;
/** Node looks for expired requests this often; its default of 30 s would make the time-outs above meaningless. */
const TIMEOUT_CHECK_MS = 1_000;
const CONNECTIONS_MAX = 256;

export interface Readiness {
  readonly ready: boolean;
  /** Why not, one sentence each; may also hold warnings while ready. */
  readonly reasons: readonly string[];
}

export interface HealthState {
  /** False asks the orchestrator to restart the process. */
  live(): boolean;
  ready(): Readiness;
  readonly metrics?: Metrics;
}

export interface HttpServerOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly state: HealthState;
  readonly log: Logger;
}

export interface HttpServer {
  readonly port: number;
  /** Ends the listener and all its connections; resolves when both are gone. */
  close(): Promise<void>;
}

/** Rejects with `ListenError` where the port cannot be had. */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { host, port, state, log } = options;
  const server = createServer(log);
  addRoutes(server, state);
  try {
    await server.listen({ host, port });
  } catch (error) {
    await server.close();
    throw new ListenError('http', host, port, error);
  }
  return {
    port: (server.server.address() as AddressInfo).port,
    close: async () => {
      await server.close();
    },
  };
}

function createServer(log: Logger): FastifyInstance {
  const server = fastify({
    logger: false,
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: IDLE_TIMEOUT_MS,
    keepAliveTimeout: IDLE_TIMEOUT_MS,
    forceCloseConnections: true,
    http: { headersTimeout: HEADERS_TIMEOUT_MS, connectionsCheckingInterval: TIMEOUT_CHECK_MS },
    clientErrorHandler(error, socket) {
      if (!socket.writable || error.code === 'ECONNRESET') {
        socket.destroy();
        return;
      }
      const status = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : error.code === 'HPE_HEADER_OVERFLOW' ? 431 : 400;
      const body = problemText({ status, detail: 'the request could not be read as HTTP, or not in time' });
      const head = `HTTP/1.1 ${status} Error\r\nConnection: close\r\nContent-Type: ${PROBLEM_TYPE}\r\n`;
      socket.end(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`, () => socket.destroy());
    },
  });
  server.server.maxConnections = CONNECTIONS_MAX;
  server.setNotFoundHandler((request, reply) =>
    sendProblem(reply, { status: 404, detail: `there is no ${request.method} ${request.url.slice(0, 200)}` }),
  );
  server.setErrorHandler<Error & { statusCode?: number }>((error, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status < 500) return sendProblem(reply, { status, detail: error.message });
    log.error({ err: error, url: request.url }, 'an HTTP request failed');
    return sendProblem(reply, { status, detail: 'the request failed; the log says why' });
  });
  return server;
}

function addRoutes(server: FastifyInstance, state: HealthState): void {
  server.addHook('onSend', async (_request, reply) => {
    reply.header('cache-control', 'no-store');
  });
  server.get('/live', (_request, reply) =>
    state.live() ? { status: 'live' } : sendProblem(reply, { status: 503, detail: 'the process should be restarted' }),
  );
  server.get('/ready', (_request, reply) => {
    const { ready, reasons } = state.ready();
    if (ready) return reply.send({ status: 'ready', reasons });
    return sendProblem(reply, { status: 503, detail: reasons.join('; ') || 'not ready', extra: { reasons } });
  });
  const { metrics } = state;
  if (metrics === undefined) return;
  // Scrapes that come together share one answer.
  let running: Promise<string> | null = null;
  server.get('/metrics', async (_request, reply) => {
    running ??= metrics.text().finally(() => {
      running = null;
    });
    const text = await running;
    return reply.header('content-type', metrics.contentType).send(text);
  });
}
