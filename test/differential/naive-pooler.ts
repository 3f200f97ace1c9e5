// A pooler that does everything wrong: all clients of a database, one after the other, get the same server connection,
// as the client before left it. The suite must notice whatever it lets through; comparer-can-fail.test.ts holds that.
import { createServer, type Socket } from 'node:net';
import { frame } from '../support/frontend-message.js';
import type { PostgresServer } from '../support/postgres-server.js';
import type { Target } from '../support/target.js';
import { WireClient } from '../support/wire-client.js';

export async function startNaivePooler(server: PostgresServer, user: string, database: string): Promise<Target> {
  const upstream = await WireClient.open(server);
  let greeting = Buffer.alloc(0);
  const keepGreeting = (chunk: Buffer) => {
    greeting = Buffer.concat([greeting, chunk]);
  };
  upstream.socket.on('data', keepGreeting);
  await upstream.startUp({ user, database });
  upstream.socket.off('data', keepGreeting);

  let current: Socket | undefined;
  upstream.socket.on('data', (chunk: Buffer) => current?.write(chunk));
  let turn: Promise<void> = Promise.resolve();

  const serve = (client: Socket): Promise<void> => {
    if (client.destroyed) return Promise.resolve();
    current = client;
    return new Promise((resolve) => {
      client.once('data', (startup: Buffer) => {
        client.write(greeting);
        const first = startup.subarray(startup.readInt32BE(0));
        const forward = (chunk: Buffer) => {
          if (chunk.equals(TERMINATE)) client.end();
          else upstream.sendBytes(chunk);
        };
        if (first.length > 0) forward(first);
        client.on('data', forward);
      });
      client.on('close', () => {
        // What is still on its way belongs to the client that has gone.
        setTimeout(() => {
          current = undefined;
          resolve();
        }, 5);
      });
    });
  };

  const listener = createServer((client) => {
    client.on('error', () => client.destroy());
    client.on('end', () => client.destroy());
    turn = turn.then(() => serve(client));
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as { port: number };
  return {
    host: '127.0.0.1',
    port,
    user,
    database,
    close: async () => {
      upstream.destroy();
      listener.close();
    },
  };
}

/** WireClient.end sends it as a packet of its own. */
const TERMINATE = frame('X');
