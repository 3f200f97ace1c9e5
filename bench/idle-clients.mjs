// Memory of a router for each client that is connected and does nothing, and in all: `node bench/idle-clients.mjs [--clients 2000]
// [--assert]`; the promise in all is made for 5,000.
// Each client logs in and runs one statement first, as a connection in an application's pool has done.

import { usageOf } from './process-usage.mjs';
import { stopServers } from './processes.mjs';
import { openFilesMax, openRouter } from './router-options.mjs';
import { WireClient } from './wire-client.mjs';

const GOAL_BYTES_PER_CLIENT = 25 * 1024;
const GOAL_BYTES_IN_ALL = 300 * 2 ** 20;
const WARM_UP_CLIENTS = 20;
const AT_ONCE = 50;
const SETTLE_MS = 5000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function openClients(router, count) {
  const clients = [];
  while (clients.length < count) {
    const batch = Array.from({ length: Math.min(AT_ONCE, count - clients.length) }, () => WireClient.open(router));
    for (const client of await Promise.all(batch)) {
      await client.run('SELECT 1');
      clients.push(client);
    }
  }
  return clients;
}

/** The least of several looks: garbage not yet collected is not what a client costs. */
async function settledRss(pid) {
  let least = Number.POSITIVE_INFINITY;
  for (let waitedMs = 0; waitedMs < SETTLE_MS; waitedMs += 250) {
    await pause(250);
    least = Math.min(least, usageOf(pid).rssBytes);
  }
  return least;
}

const { router, values } = await openRouter('idle', { clients: { type: 'string' } });
try {
  const count = Number(values.clients ?? 2000);
  if (openFilesMax() < count + 100)
    throw new Error(`${count} clients need more open files than ${openFilesMax()}: raise ulimit -n`);
  // Code compiled and buffers grown by the first clients would otherwise be counted as the cost of all.
  for (const client of await openClients(router, WARM_UP_CLIENTS)) client.close();
  const before = await settledRss(router.pid);
  const clients = await openClients(router, count);
  const during = await settledRss(router.pid);
  for (const client of clients) client.close();
  const perClient = (during - before) / count;
  const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  console.log(
    `${count} idle clients: ${mebibytes(before)} before, ${mebibytes(during)} with them, ${(perClient / 1024).toFixed(1)} KiB each`,
  );
  const goals = [
    [`at most ${GOAL_BYTES_PER_CLIENT / 1024} KiB each`, perClient <= GOAL_BYTES_PER_CLIENT],
    [`at most ${mebibytes(GOAL_BYTES_IN_ALL)} in all`, during <= GOAL_BYTES_IN_ALL],
  ];
  for (const [text, met] of goals) console.log(`goal: ${text}: ${met ? 'met' : 'MISSED'}`);
  if (values.assert && goals.some(([, met]) => !met)) process.exitCode = 1;
} finally {
  await stopServers();
}
