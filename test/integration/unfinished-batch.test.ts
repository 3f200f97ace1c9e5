// A client that goes in the middle of a batch has had nothing committed: no Sync comes, and none of the next client's, nor a
// statement of pgkv's own, may stand for it.
import t from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { rowsOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const PLAIN = 'create table plain (tenant_id text, key text, value jsonb)';
const CLOSE: FrontendMessage = { close: 'portal' };
/** What comes behind the writes, and is answered before the client goes. */
const ENDS: Readonly<Record<string, readonly FrontendMessage[]>> = {
  nothing: [],
  Close: [CLOSE, 'flush'],
  query: [{ query: 'select 1' }],
  'query and Close': [{ query: 'select 1' }, CLOSE, 'flush'],
};
/** What the session has left on its connection. */
const BEFORE = ['select 1', 'create temp table own (a int)', 'create temp table own (a int); drop table own'];

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) ? false : `no Postgres ${version}`;
  t.test(`a client goes behind a write and no Sync, ${version}`, { skip }, async (t) => {
    const cluster = await kvServers(t, 1, { version });
    const login = { user: cluster.servers[0]!.superuser, database: 'postgres' };
    const router = await kvRouter(t, cluster, { pool: { sizeMax: 1 } });
    const other = await WireClient.connect(router, login);
    await other.query(PLAIN);
    const goes = async (table: string, before: string, end: readonly FrontendMessage[], writes: number) => {
      const client = await WireClient.connect(router, login);
      await client.query(before);
      const batch = Array.from({ length: writes }, (_, key): FrontendMessage[] => [
        { parse: `insert into ${table} (tenant_id, key, value) values ('a', '${key}', '1')` },
        { bind: [] },
        { execute: '' },
      ]);
      await client.exchange([...batch.flat(), 'flush'], { type: 'CommandComplete', count: writes });
      if (end.includes(CLOSE)) await client.exchange(end, { type: 'CloseComplete' });
      else if (end.length > 0) await client.exchange(end);
      client.destroy();
    };
    for (const table of ['kv', 'plain']) {
      for (const before of BEFORE) {
        for (const [name, end] of Object.entries(ENDS)) {
          for (const writes of [1, 2]) {
            await goes(table, before, end, writes);
            const read: FrontendMessage[] = [
              { parse: `select key from ${table}` },
              { bind: [] },
              { execute: '' },
              'sync',
            ];
            const { messages } = await other.exchange(read);
            // PostgreSQL 15 commits a batch with its simple query.
            const kept = version === '15' && name.startsWith('query') ? writes : 0;
            t.equal(rowsOf(messages).length, kept, `${table}, ${before}, ${writes} writes, ${name}`);
            await other.query(`delete from ${table} where tenant_id = 'a' and key in ('0', '1')`);
          }
        }
      }
    }
    other.destroy();
    await router.quiet();
  });
}
