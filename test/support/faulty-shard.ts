// One server with table kv, and routers in front of it that reach it through a FaultProxy.
import type { Test } from 'tap';
import { FaultProxy } from './fault-proxy.js';
import { evenSpread, fixedCatalog, KV, prepareShard } from './kv-cluster.js';
import { liveRouter, type RouterOverrides } from './live-router.js';
import { startPostgres } from './postgres-server.js';

/** Not the database of the health checks, which no fault touches. */
export const DATABASE = 'template1';

export async function faultyShard(t: Test) {
  const server = await startPostgres({ version: 'embedded' });
  t.teardown(() => server.stop());
  await prepareShard(server, [KV], DATABASE);
  const catalog = fixedCatalog(evenSpread(1, [KV], DATABASE));
  const routerBehindProxy = async (t: Test, overrides: RouterOverrides) => {
    const proxy = await FaultProxy.start(server, DATABASE);
    t.teardown(() => proxy.down());
    return { proxy, live: await liveRouter(t, [proxy.standInFor(server)], overrides, { catalog }) };
  };
  return { server, catalog, routerBehindProxy };
}
