// A 1 GiB result through a router while 50 other clients work: growth of its memory, and the others' waiting times before and
// meanwhile. Half-way the reader stops for a while: a router that does not hold its server back would swallow the rest.
// `node bench/stream-large-result.mjs [--mib 1024] [--assert]`

import { peakRssWhile, usageOf } from './process-usage.mjs';
import { stopServers } from './processes.mjs';
import { openRouter } from './router-options.mjs';
import { errorText, queryMessage, WireClient } from './wire-client.mjs';

const GOAL_GROWTH_BYTES = 32 * 2 ** 20;
const GOAL_LATENCY_P99_MS = 100;
const OTHER_CLIENTS = 50;
const THINK_MS = 20;
const ROW_BYTES = 16 * 1024;
const STALL_MS = 2000;
const ALONE_MS = 3000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Reads the whole result and throws it away; stops reading for STALL_MS at half of it. */
async function readLargeResult(router, bytes) {
  const client = await WireClient.open(router);
  const rows = Math.ceil(bytes / ROW_BYTES);
  let received = 0;
  let stalled = false;
  const started = performance.now();
  await new Promise((resolve, reject) => {
    client.onClose = () => reject(new Error('connection closed in the middle of the result'));
    client.onFrame = (type, body) => {
      if (type === 69) reject(new Error(errorText(body)));
      if (type === 90) resolve();
      if (type !== 68) return;
      received += body.length;
      if (stalled || received < bytes / 2) return;
      stalled = true;
      client.pause();
      setTimeout(() => client.resume(), STALL_MS);
    };
    client.send(queryMessage(`SELECT repeat('x', ${ROW_BYTES}) FROM generate_series(1, ${rows})`));
  });
  client.close();
  return { received, seconds: (performance.now() - started - STALL_MS) / 1000 };
}

/** Clients that each ask a small question, think, and ask again; their waiting times go to `latencies` of the current phase. */
async function startOthers(router) {
  const clients = await Promise.all(Array.from({ length: OTHER_CLIENTS }, () => WireClient.open(router)));
  const phase = { latencies: [], running: true };
  const work = clients.map(async (client) => {
    while (phase.running) {
      const asked = performance.now();
      await client.run('SELECT 1');
      phase.latencies.push(performance.now() - asked);
      await pause(THINK_MS * (0.5 + Math.random()));
    }
    client.close();
  });
  return {
    takeLatencies() {
      const taken = phase.latencies.sort((a, b) => a - b);
      phase.latencies = [];
      return taken;
    },
    async stop() {
      phase.running = false;
      await Promise.all(work);
    },
  };
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
const describeLatencies = (sorted) =>
  `${sorted.length} statements, median ${quantile(sorted, 0.5).toFixed(1)} ms, p99 ${quantile(sorted, 0.99).toFixed(1)} ms, longest ${quantile(sorted, 1).toFixed(1)} ms`;

const { router, values } = await openRouter('stream', { mib: { type: 'string' } });
try {
  const bytes = Number(values.mib ?? 1024) * 2 ** 20;
  const others = await startOthers(router);
  await readLargeResult(router, 8 * 2 ** 20); // the buffers of one stream are grown before the measuring starts
  await pause(1000);
  others.takeLatencies();
  await pause(ALONE_MS);
  const alone = others.takeLatencies();
  const before = usageOf(router.pid).rssBytes;
  const { value: stream, peakRssBytes } = await peakRssWhile(router.pid, 50, () => readLargeResult(router, bytes));
  const meanwhile = others.takeLatencies();
  await others.stop();
  const growth = peakRssBytes - before;
  const p99 = quantile(meanwhile, 0.99);
  console.log(
    `${(stream.received / 2 ** 20).toFixed(0)} MiB in ${stream.seconds.toFixed(1)} s, ${(stream.received / 2 ** 20 / stream.seconds).toFixed(0)} MiB/s, one stop of ${STALL_MS} ms left out`,
  );
  console.log(
    `router memory: ${(before / 2 ** 20).toFixed(1)} MiB before, ${(peakRssBytes / 2 ** 20).toFixed(1)} MiB at most, ${(growth / 2 ** 20).toFixed(1)} MiB more`,
  );
  console.log(`${OTHER_CLIENTS} other clients alone:     ${describeLatencies(alone)}`);
  console.log(`${OTHER_CLIENTS} other clients meanwhile: ${describeLatencies(meanwhile)}`);
  const met = growth <= GOAL_GROWTH_BYTES && p99 <= GOAL_LATENCY_P99_MS;
  console.log(
    `goal: at most ${GOAL_GROWTH_BYTES / 2 ** 20} MiB more, others' p99 at most ${GOAL_LATENCY_P99_MS} ms: ${met ? 'met' : 'MISSED'}`,
  );
  if (values.assert && !met) process.exitCode = 1;
} finally {
  await stopServers();
}
