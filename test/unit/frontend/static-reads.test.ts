import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { poisonReads } from '../../../src/base/read-poison.js';
import { readStatically } from '../../../src/frontend/door/static-reads.js';
import { SeededRandom } from '../../support/seeded-random.js';

// What is kept of the shared buffer shows as bytes that nobody sent.
poisonReads();

/** A pair of connected sockets, the accepted one as the listener makes them. */
async function pair(test: Test, path?: string): Promise<{ client: Socket; accepted: Socket }> {
  const server = createServer({ allowHalfOpen: true, noDelay: true });
  server.listen(path === undefined ? { port: 0, host: '127.0.0.1' } : { path });
  await once(server, 'listening');
  const address = server.address();
  const client = typeof address === 'object' && address !== null ? connect(address.port, '127.0.0.1') : connect(path!);
  const [accepted] = (await once(server, 'connection')) as [Socket];
  test.teardown(() => {
    client.destroy();
    accepted.destroy();
    server.close();
  });
  return { client, accepted };
}

const joined = (chunks: readonly Buffer[]): Buffer => Buffer.concat(chunks as Buffer[]);

t.test('what sockets receive is theirs to keep, however many read in turn', async (test) => {
  const random = new SeededRandom(71);
  const pairs = await Promise.all(Array.from({ length: 8 }, () => pair(test)));
  const kept = pairs.map(({ accepted }) => {
    const chunks: Buffer[] = [];
    test.equal(readStatically(accepted), true);
    accepted.on('data', (chunk: Buffer) => chunks.push(chunk));
    return chunks;
  });
  const sent: Buffer[][] = pairs.map(() => []);
  for (let round = 0; round < 200; round++) {
    const to = random.integer(pairs.length);
    const bytes = Buffer.alloc(1 + random.integer(random.chance(0.1) ? 200_000 : 400), 1 + random.integer(100));
    sent[to]!.push(bytes);
    const { client } = pairs[to]!;
    if (!client.write(bytes)) await once(client, 'drain');
  }
  const ended = pairs.map(({ accepted }) => once(accepted.resume(), 'end'));
  for (const { client } of pairs) client.end();
  await Promise.all(ended);
  for (const [index, chunks] of kept.entries()) test.ok(joined(chunks).equals(joined(sent[index]!)), `socket ${index}`);
});

t.test('what came before is told before what comes after, also on a Unix socket', async (test) => {
  const { client, accepted } = await pair(test, join(tmpdir(), `static-reads-${process.pid}`));
  const told: Buffer[] = [];
  accepted.pause();
  client.write('early ');
  while (accepted.readableLength < 6) await new Promise((resolve) => setImmediate(resolve));
  accepted.on('data', (chunk: Buffer) => told.push(chunk));
  accepted.pause();
  test.equal(readStatically(accepted), true);
  client.end('late');
  accepted.resume();
  await once(accepted, 'end');
  test.equal(joined(told).toString(), 'early late');
});

t.test('a paused socket is told nothing, and all of it when it goes on', async (test) => {
  const { client, accepted } = await pair(test);
  const chunks: Buffer[] = [];
  let isPaused = false;
  readStatically(accepted);
  accepted.on('data', (chunk: Buffer) => {
    test.notOk(isPaused);
    chunks.push(chunk);
    isPaused = true;
    accepted.pause();
    setImmediate(() => {
      isPaused = false;
      accepted.resume();
    });
  });
  accepted.resume();
  const sent = Buffer.alloc(3_000_000, 'abcdefg');
  client.end(sent);
  await once(accepted, 'end');
  test.ok(joined(chunks).equals(sent));
  test.ok(chunks.length > 10, 'it was paused in between');
});

t.test('a socket that reads into a buffer already, or is none, stays as it is', async (test) => {
  const { client, accepted } = await pair(test);
  const told: Buffer[] = [];
  accepted.on('data', (chunk: Buffer) => told.push(chunk));
  test.equal(readStatically(accepted), true);
  test.equal(readStatically(accepted), false);
  client.end('once');
  await once(accepted, 'end');
  test.equal(joined(told).toString(), 'once');
  accepted.destroy();
  test.equal(readStatically(accepted), false, 'closed');
});
