// /live, /ready, /metrics over real sockets, and peers that misbehave.
import { connect } from 'node:net';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/base/clock.js';
import { ListenError } from '../../../src/base/listen-error.js';
import { type HealthState, type HttpServer, startHttpServer } from '../../../src/http/health-server.js';
import { createMetrics } from '../../../src/http/metrics.js';
import { countError, createCounters } from '../../../src/telemetry/counters.js';
import { DurationHistogram } from '../../../src/telemetry/histogram.js';
import { createLogger } from '../../../src/telemetry/log.js';
import { stretched } from '../../support/machine-speed.js';

const logged: string[] = [];
const log = createLogger({ level: 'info', format: 'json', values: false }, { write: (line) => void logged.push(line) });
const sound: HealthState = { live: () => true, ready: () => ({ ready: true, reasons: [] }) };

async function start(t: Test, state: HealthState): Promise<HttpServer> {
  const server = await startHttpServer({ host: '127.0.0.1', port: 0, state, log });
  t.teardown(() => server.close());
  return server;
}

async function get(server: HttpServer, path: string, init?: RequestInit) {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, init);
  return { status: response.status, type: response.headers.get('content-type'), body: await response.text() };
}

/** Sends bytes and gives all that comes back until the server closes, with the milliseconds that took. */
function exchange(port: number, bytes: string): Promise<{ answer: string; ms: number }> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.setEncoding('latin1');
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve({ answer, ms: performance.now() - startedAt }));
  });
}

t.test('/live and /ready follow the state', async (t) => {
  let live = true;
  let reasons: string[] = [];
  const server = await start(t, { live: () => live, ready: () => ({ ready: reasons.length === 0, reasons }) });
  t.match(await get(server, '/live'), { status: 200, type: /application\/json/, body: '{"status":"live"}' });
  t.match(await get(server, '/ready'), { status: 200, body: '{"status":"ready","reasons":[]}' });
  live = false;
  reasons = ['shard "a" has no serving primary', 'draining'];
  t.match(await get(server, '/live'), { status: 503, type: /^application\/problem\+json/ });
  const notReady = await get(server, '/ready');
  t.match(notReady, { status: 503, type: /^application\/problem\+json/ });
  t.same(JSON.parse(notReady.body), {
    type: 'about:blank',
    title: 'Service Unavailable',
    status: 503,
    detail: 'shard "a" has no serving primary; draining',
    reasons,
  });
  t.match(await get(server, '/ready', { method: 'HEAD' }), { status: 503, body: '' });
});

t.test('what is not there is a problem document, and a failing state is no secret kept from the log', async (t) => {
  const server = await start(t, {
    ...sound,
    ready: () => {
      throw new Error('state is broken');
    },
  });
  const missing = await get(server, '/nothing?x=1');
  t.match(missing, { status: 404, type: /^application\/problem\+json/ });
  t.match(JSON.parse(missing.body), { status: 404, detail: 'there is no GET /nothing?x=1' });
  t.match(await get(server, '/metrics'), { status: 404 });
  t.match(await get(server, '/live', { method: 'POST', body: 'x' }), { status: 404, type: /problem/ });
  const tooLarge = { method: 'POST', body: 'x'.repeat(20_000), headers: { 'content-type': 'application/json' } };
  t.match((await get(server, '/live', tooLarge)).status, /^4/);
  const failed = await get(server, '/ready');
  t.match(failed, { status: 500, type: /problem/ });
  t.notMatch(failed.body, /broken/);
  t.match(logged.join(''), /state is broken/);
});

t.test('/metrics shows the counters as they are at the scrape', async (t) => {
  const counters = createCounters();
  const leaseWait = new DurationHistogram(systemClock);
  const server = await start(t, {
    ...sound,
    metrics: createMetrics({ counters, durations: { lease_wait: leaseWait } }),
  });
  const scrape = async () => (await get(server, '/metrics')).body;
  t.match(await scrape(), /^pgkv_statements_total 0$/m);
  counters.statements = 7;
  counters.clientsConnected = 3;
  countError(counters.serverErrors, '23505');
  leaseWait.recordUs(2_000_000);
  const text = await scrape();
  for (const line of [
    'pgkv_statements_total 7',
    'pgkv_clients_connected 3',
    'pgkv_errors_total{origin="server",sqlstate_class="23"} 1',
    'pgkv_errors_total{origin="pgkv",sqlstate_class="23"} 0',
    '# TYPE pgkv_lease_wait_seconds summary',
    'pgkv_lease_wait_seconds_count 1',
    'pgkv_lease_wait_seconds_sum 2',
  ]) {
    t.ok(text.split('\n').includes(line), line);
  }
  t.match(text, /^pgkv_lease_wait_seconds\{quantile="0.99"\} (1\.9|2)/m);
  t.match(text, /^process_resident_memory_bytes \d{7,}$/m);
  counters.clientsConnected = 0;
  t.match(await scrape(), /^pgkv_statements_total 7$/m, 'a second scrape does not add up');
  t.match(await scrape(), /^pgkv_clients_connected 0$/m);
  const own = Object.values(counters).filter((value) => typeof value === 'number').length;
  t.equal(text.match(/^pgkv_(?!errors|lease_wait)\w+ \d+$/gm)?.length, own, 'every counter is shown');
  const together = await Promise.all(Array.from({ length: 8 }, scrape));
  t.ok(together.every((body) => body.includes('pgkv_statements_total 7')));
});

t.test('a busy port and a wrong address are named, and a port can be had again', async (t) => {
  const first = await startHttpServer({ host: '127.0.0.1', port: 0, state: sound, log });
  const again = () => startHttpServer({ host: '127.0.0.1', port: first.port, state: sound, log });
  const error = await again().then(
    () => null,
    (thrown: unknown) => thrown,
  );
  t.ok(error instanceof ListenError);
  t.match(error, { code: 'EADDRINUSE', port: first.port, message: `port ${first.port} on 127.0.0.1 is in use` });
  await first.close();
  await (await again()).close();
  await t.rejects(startHttpServer({ host: '192.0.2.1', port: 0, state: sound, log }), {
    message: /not an address of this/,
  });
});

t.test('peers that are slow, silent or talk nonsense are cut', async (t) => {
  const server = await start(t, sound);
  const nonsense = await exchange(server.port, '\x16\x03\x01 hello\r\n\r\n');
  t.match(nonsense.answer, /^HTTP\/1\.1 400 [\s\S]*application\/problem\+json[\s\S]*"status":400/);
  const long = await exchange(server.port, `GET /live HTTP/1.1\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`);
  t.match(long.answer, /^HTTP\/1\.1 431 /);
  const slow = await exchange(server.port, 'GET /live HTTP/1.1\r\nHost: x\r\n');
  t.match(slow.answer, /^HTTP\/1\.1 408 /);
  t.ok(slow.ms < (await stretched(6_000)), `headers that never end: ${Math.round(slow.ms)} ms`);
  t.match(await get(server, '/live'), { status: 200 });
});

t.test('closing does not wait for idle or stuck connections', async (t) => {
  const server = await startHttpServer({ host: '127.0.0.1', port: 0, state: sound, log });
  const stuck = exchange(server.port, 'GET /live HT');
  const idle = exchange(server.port, 'GET /live HTTP/1.1\r\nHost: x\r\n\r\n');
  await get(server, '/live');
  const startedAt = performance.now();
  await server.close();
  await Promise.allSettled([stuck, idle]);
  const elapsed = performance.now() - startedAt;
  t.ok(elapsed < (await stretched(2_000)));
});
