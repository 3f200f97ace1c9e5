// A batch whose last message in front of the Sync is a simple query. PostgreSQL 18.4 itself does not commit it: what it wrote is
// undone by the next statement on the connection, which fails (XX000). Behind pgkv that would be anybody's statement.
import t from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 1);
const login = { user: cluster.servers[0]!.superuser, database: 'postgres' };

const insert = (key: string): string => `insert into kv (tenant_id, key, value) values ('a', '${key}', '1')`;
const run = (text: string): FrontendMessage[] => [{ parse: text }, { bind: [] }, { execute: '' }];

/** What comes behind the write, by what it is. */
const QUERIES: Readonly<Record<string, string>> = {
  read: 'select 1',
  write: insert('other'),
  setting: "set application_name = 'x'",
  'text of several statements': 'select 1; select 2',
  COMMIT: 'commit',
};

t.test('its writes are kept, and the next statement on the connection is served', async (t) => {
  const router = await kvRouter(t, cluster, { pool: { sizeMax: 1 } });
  for (const [name, query] of Object.entries(QUERIES)) {
    for (const apart of [false, true]) {
      const key = `${name} ${apart}`;
      const [client, other] = await Promise.all([WireClient.connect(router, login), WireClient.connect(router, login)]);
      const batch = [...run(insert(key)), { query }];
      const sync: FrontendMessage[] = ['sync'];
      const first = await client.exchange(apart ? batch : [...batch, ...sync]);
      const last = apart ? await client.exchange(sync) : first;
      t.equal(errorOf([...first.messages, ...last.messages]), null, key);
      const end = last.messages.at(-1);
      t.equal(end?.type === 'ReadyForQuery' && end.status, 'I', `${key}: its transaction is over`);
      const read = await other.query(`select value from kv where tenant_id = 'a' and key = '${key}'`);
      t.equal(read.filter(({ type }) => type === 'DataRow').length, 1, `${key}: the row is there for others`);
      await other.query("delete from kv where key = 'other' and tenant_id = 'a'");
      client.destroy();
      other.destroy();
    }
  }
  await router.quiet();
});
