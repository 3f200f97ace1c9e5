// A table that becomes a key-value table while sessions have statements on it prepared (D25): each of them is read anew, by
// whatever name and protocol it was prepared, so that no row goes where its key does not lie.
import t from 'tap';
import type { CatalogDriver } from '../../src/catalog/catalog-driver.js';
import type { CatalogState } from '../../src/catalog/catalog-state.js';
import { evenSpread, KV, kvServers } from '../support/kv-cluster.js';
import { liveRouter } from '../support/live-router.js';

const LATER = { schema: 'public', name: 'later', valueType: 'jsonb' } as const;
const ROWS = 24;

/** A catalogue whose state a test changes. */
function changingCatalog(first: CatalogState): { driver: CatalogDriver; change(state: CatalogState): void } {
  let state = first;
  const watchers = new Set<(state: CatalogState) => void>();
  const driver: CatalogDriver = {
    place: 'memory',
    read: async () => state,
    compareAndSet: async () => false,
    watch: (changed) => {
      const watcher = changed as (state: CatalogState) => void;
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    acquireRouterLock: async () => ({ release: () => undefined }),
    close: () => undefined,
  };
  const change = (next: CatalogState): void => {
    state = next;
    for (const watcher of watchers) watcher(next);
  };
  return { driver, change };
}

const INSERT = "insert into later (tenant_id, key, value) values ('t', $1, '1')";
const DELETE = "delete from later where tenant_id = 't' and key = $1";

/** How a client may have prepared its statement before the table was one. */
const PREPARED: Readonly<Record<string, { readonly name: string; readonly sql: boolean }>> = {
  'by a name': { name: 'named', sql: false },
  'without a name': { name: '', sql: false },
};

t.test('statements prepared before a table is a key-value table are read anew', async (t) => {
  const { servers } = await kvServers(t, 3, { tables: [KV, LATER] });
  for (const [how, { name }] of Object.entries(PREPARED)) {
    const before = evenSpread(3, [KV]);
    const catalog = changingCatalog(before);
    const live = await liveRouter(t, servers, {}, { catalog: catalog.driver });
    const who = { user: servers[0]!.superuser, database: 'postgres' };
    const { wire } = await live.connect(who);
    const bound = async (key: string): Promise<string[]> => {
      const { messages } = await wire.exchange([{ bind: [key], statement: name }, { execute: '' }, 'sync'], 1);
      return messages.flatMap((message) => (message.type === 'CommandComplete' ? [message.tag] : []));
    };
    const settle = await live.connect(who);

    await wire.exchange([{ parse: INSERT, name }, 'sync'], 1);
    t.same(await bound(`first ${how}`), ['INSERT 0 1'], `${how}: an ordinary table`);
    catalog.change({ ...before, epoch: 2, tables: [KV, LATER] });
    while ((await settle.rows(`explain (route) ${DELETE.replace('$1', "'k'")}`)).flat()[0] !== 'Route: keyed') {
      // Until the new view is in force.
    }
    for (let row = 0; row < ROWS; row++) t.same(await bound(`k${row} ${how}`), ['INSERT 0 1']);
    const keys = Array.from({ length: ROWS }, (_, row) => `'k${row} ${how}'`);
    for (const key of keys) {
      t.equal(await settle.value(`select count(*) from later where tenant_id = 't' and key = ${key}`), '1', key);
    }
    await settle.end();
    wire.destroy();
  }
});
