// Statements prepared by name in the protocol, which pgkv keeps on servers under names of its own, are named in texts that end
// a block: what they are called there is settled when the text runs, and no error shows a name that is not the client's.
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { evenSpread, fixedCatalog, KV, prepareShard } from '../support/kv-cluster.js';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const servers = await Promise.all([1, 2].map(() => startPostgres({ version: 'embedded' })));
t.teardown(() => Promise.all(servers.map((server) => server.stop())));
const DATABASE = 'template1';
await Promise.all(servers.map((server) => prepareShard(server, [KV], DATABASE)));
const direct = await SqlClient.connect(servers[0]!, { user: servers[0]!.superuser, database: DATABASE });
await direct.run('CREATE TABLE plain (a int)');
await direct.end();

/** What has been said when the text comes. */
const STATES: Readonly<Record<string, readonly string[]>> = {
  idle: [],
  held: ['BEGIN'],
  written: ['BEGIN', 'INSERT INTO plain VALUES (1)'],
  'failed behind a write': ['BEGIN', 'INSERT INTO plain VALUES (1)', 'SELECT 1/0'],
  'failed with a savepoint': ['BEGIN', 'SAVEPOINT s', 'SELECT 1/0'],
};

const USES = [
  'DEALLOCATE mine',
  'EXECUTE mine(3)',
  'DEALLOCATE mine; DEALLOCATE mine',
  'EXECUTE mine(3); DEALLOCATE mine; EXECUTE mine(4)',
  'EXECUTE mine(3); SELECT 1/0; DEALLOCATE mine',
];
const ENDS = ['', 'COMMIT; ', 'ROLLBACK; ', 'COMMIT; BEGIN; ', 'ROLLBACK TO s; '];

const shown = (message: BackendMessage): string => {
  if (message.type === 'ErrorResponse') return `error ${message.fields['C']} ${message.fields['M']}`;
  if (message.type === 'NoticeResponse') return `notice ${message.fields['M']}`;
  return JSON.stringify(message, (key, value) => (key === 'tableOid' ? 0 : value));
};

/** What a session answers to a text said in a state, and afterwards: whether the statement is still there. */
async function play(address: { host: string; port: number }, state: string, text: string): Promise<string[]> {
  const client = await WireClient.connect(address, { user: servers[0]!.superuser, database: DATABASE });
  const heard: BackendMessage[] = [];
  const say = async (...messages: Parameters<WireClient['exchange']>[0]): Promise<void> => {
    heard.push(...(await client.exchange(messages, 1)).messages);
  };
  await say({ parse: 'SELECT 6 / $1::int AS six', name: 'mine' }, 'sync');
  for (const sql of STATES[state]!) await say({ query: sql });
  heard.length = 0;
  await say({ query: text });
  await say({ query: 'ROLLBACK' });
  await say({ bind: ['2'], statement: 'mine' }, { execute: '' }, 'sync');
  await say({ query: 'SELECT 7' });
  client.destroy();
  return heard.filter(({ type }) => type !== 'ParameterStatus').map(shown);
}

/** What Postgres answers. */
const expected = new Map<string, string[]>();

async function compare(t: Test, router: { host: string; port: number }): Promise<void> {
  const [server] = servers;
  for (const state of Object.keys(STATES)) {
    for (const text of ENDS.flatMap((end) => USES.map((use) => `${end}${use}`))) {
      const what = `${state}: ${text}`;
      if (!expected.has(what)) expected.set(what, await play(server!, state, text));
      t.same(await play(router, state, text), expected.get(what), what);
    }
  }
}

t.test('beside key-value tables', async (t) => {
  const live = await liveRouter(t, servers, {}, { catalog: fixedCatalog(evenSpread(2, [KV], DATABASE)) });
  await compare(t, live);
});

t.test('without them', async (t) => {
  await compare(t, await liveRouter(t, [servers[0]!]));
});
