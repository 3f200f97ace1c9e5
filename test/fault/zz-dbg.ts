import type { Socket } from 'node:net';
import t from 'tap';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
t.test('x', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 3 } });
  const client = await live.connect();
  await client.run('CREATE TABLE written (who text, n int)');
  await client.send([{ query: 'COPY written FROM STDIN' }], { type: 'CopyInResponse' });
  client.wire.send({ copyData: 'a\t1\n' });
  (client.wire.socket as Socket).resetAndDestroy();
  await new Promise((r) => setTimeout(r, 500));
  console.error('clients', live.router.listener.connections.size, live.router.pool.openCount, live.router.pool.idleCount);
  for (const c of live.router.listener.connections) console.error(c, c.conversation?.lane.mode);
});
