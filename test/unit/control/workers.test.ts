// Clients on their way to a worker when all workers are to end: none is left open, wherever it stood.
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { WorkerAssignment } from '../../../src/cluster/control-port.js';
import { Workers } from '../../../src/control/workers.js';
import { createLogger } from '../../../src/telemetry/log.js';

/** A worker that says it serves, takes no client, and ends when it is told to. */
const program = join(mkdtempSync(join(tmpdir(), 'pgkv-worker-')), 'worker.mjs');
writeFileSync(
  program,
  `process.send({ kind: 'serving' });
process.on('message', ({ kind }) => {
  if (kind === 'stop' || kind === 'drain') process.exit();
});`,
);

for (const how of ['stop', 'drain'] as const) {
  t.test(how, async (t) => {
    const workers = new Workers({
      count: 2,
      program,
      waitingMax: 100,
      databaseLeft: () => undefined,
      log: createLogger({ level: 'fatal' } as Parameters<typeof createLogger>[0]),
      assignment: () => ({}) as WorkerAssignment,
    });
    await workers.start();
    const accepted: Socket[] = [];
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      accepted.push(socket);
      socket.on('error', () => undefined);
      workers.hand(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const clients = Array.from({ length: 9 }, () => connect((server.address() as AddressInfo).port, '127.0.0.1'));
    for (const client of clients) client.on('error', () => undefined);
    while (accepted.length < clients.length) await once(server, 'connection');
    await workers.end(how, 10_000);
    t.same(
      accepted.map(({ destroyed }) => destroyed),
      clients.map(() => true),
    );
    for (const socket of [...clients, ...accepted]) socket.destroy();
    server.close();
  });
}
