// The connection of a block breaks while its server is asked for the time of a read beside it: at every byte of the question and of
// the answer. The client is told, the block has failed, and the session goes on.
import t from 'tap';
import { INSTANT_SQL } from '../../src/execute/scatter/instant.js';
import { FaultProxy, type Side } from '../support/fault-proxy.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvServers } from '../support/kv-cluster.js';
import { liveRouter } from '../support/live-router.js';
import { errorOf } from '../support/sql-client.js';

const cluster = await kvServers(t, 2);
const proxy = await FaultProxy.start(cluster.servers[0]!);
t.teardown(() => proxy.down());
// Sessions that are to be hit have a start-up parameter of their own, and so have their connections.
proxy.only = 'geqo_threshold';
const servers = [proxy.standInFor(cluster.servers[0]!), cluster.servers[1]!];

const WAYS: readonly (readonly FrontendMessage[])[] = [
  [{ query: 'select now(), key from kv order by key' }],
  [{ parse: 'select now(), key from kv order by key' }, { bind: [] }, { describe: 'portal' }, { execute: '' }, 'sync'],
];

/** Description and row. */
const ANSWER_BYTES = 90;

for (const side of ['request', 'answer'] satisfies Side[]) {
  t.test(`cut in the ${side}`, async (t) => {
    const router = await liveRouter(t, servers, { pool: { sizeMax: 6 } }, { catalog: cluster.catalog });
    const seed = await router.connect();
    await seed.run("delete from kv where tenant_id = 't' and key = 'a'");
    for (const key of ['a', 'b', 'c', 'd']) {
      await seed.run(
        `insert into kv (tenant_id, key, value) values ('t', '${key}', '1') on conflict (tenant_id, key) do nothing`,
      );
    }
    await seed.end();
    const bytes = side === 'request' ? INSTANT_SQL.length : ANSWER_BYTES;
    for (let after = 0; after < bytes; after += side === 'request' ? 31 : 9) {
      for (const messages of WAYS) {
        const client = await router.connect({ parameters: { geqo_threshold: '17' } });
        await client.run('begin');
        await client.value('select now()');
        proxy.arm({ kind: 'cut', side, after });
        const answers = await client.send(messages);
        t.ok(proxy.struck);
        proxy.disarm();
        t.equal(errorOf(answers)?.code, '40001', `${after}`);
        t.equal(client.status, 'E', 'its block has failed');
        t.equal(await client.fails('select 1'), '25P02');
        await client.run('rollback');
        t.equal(await client.value('select 5'), '5');
        await client.end();
      }
    }
    await router.quiet();
  });
}
