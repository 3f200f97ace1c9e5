// Time-outs that the client sets, where no server can see that they have passed: pgkv holds BEGIN back, or the session has no
// connection. The same bytes to Postgres and to pgkv: the same last words, and the connection is closed.
import t from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf } from '../support/sql-client.js';
import { type Exchange, WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 2);
const [server] = cluster.servers;
const login = { user: server!.superuser, database: 'postgres' };

const TIME_OUTS = ['idle_in_transaction_session_timeout', 'transaction_timeout', 'idle_session_timeout'];
const VALUES = ["'80'", "'0.08s'", '80'];
const run = (text: string): FrontendMessage[] => [{ parse: text }, { bind: [] }, { execute: '' }, 'sync'];
/** What the client has said last before it is silent. */
const LAST: Readonly<Record<string, readonly FrontendMessage[]>> = {
  BEGIN: [{ query: 'begin' }],
  'BEGIN, extended': run('begin'),
  'BEGIN and a savepoint': [{ query: 'begin' }, { query: 'savepoint s' }],
  'BEGIN that has failed': [{ query: 'begin' }, { query: 'selec' }],
  'a statement outside a block': [{ query: 'select 1' }],
  'a block that has ended': [{ query: 'begin' }, { query: 'commit' }],
};

t.test('the last words are those of Postgres', async (t) => {
  const router = await kvRouter(t, cluster);
  const play = async (
    address: { host: string; port: number },
    name: string,
    value: string,
    last: readonly FrontendMessage[],
    wait: (client: WireClient) => Promise<Exchange>,
  ) => {
    const client = await WireClient.connect(address, login);
    await client.query(`set ${name} = ${value}`);
    await client.exchange(last);
    const { outcome, messages } = await wait(client);
    client.destroy();
    const told = errorOf(messages);
    return [outcome, told?.code ?? null, told?.message ?? null];
  };
  for (const name of TIME_OUTS) {
    const each = Object.entries(LAST).map(async ([last, messages], index) => {
      const value = VALUES[index % VALUES.length]!;
      const there = await play(server!, name, value, messages, (client) => client.closesWithin(3_000));
      // Where nothing ends it, it answers for as long as anybody likes.
      const here = await play(router, name, value, messages, (client) =>
        there[0] === 'reached' ? client.wait('closed', 30_000) : client.closesWithin(300),
      );
      t.same(here, there, `${name} behind ${last}: ${there}`);
    });
    await Promise.all(each);
  }
});

t.test('each block has its own time, and the next one that comes in the same bytes', async (t) => {
  const router = await kvRouter(t, cluster);
  const [live, ended] = await Promise.all([WireClient.connect(router, login), WireClient.connect(router, login)]);
  const start = performance.now();
  for (const client of [live!, ended!]) await client.query("set transaction_timeout = '1200ms'");
  await live!.query('begin');
  await ended!.query('begin');
  const first = await ended!.wait('closed', 30_000);
  t.equal(errorOf(first.messages)?.code, '25P04');
  live!.destroy();
  const again = await WireClient.connect(router, login);
  await again.query("set transaction_timeout = '1200ms'");
  for (let block = 0; performance.now() - start < 4_000; block++) {
    // Commit and begin are taken together: no moment without a block is seen.
    await again.exchange(block === 0 ? [{ query: 'begin' }] : [{ query: 'commit' }, { query: 'begin' }]);
    const { outcome } = await again.closesWithin(300);
    t.not(outcome, 'reached', `block ${block}`);
  }
  again.destroy();
});

t.test('a client that goes on in time is not ended', async (t) => {
  const router = await kvRouter(t, cluster);
  const client = await WireClient.connect(router, login);
  await client.query("set idle_in_transaction_session_timeout = '30s'; set idle_session_timeout = '30s'");
  for (let round = 0; round < 20; round++) {
    await client.query('begin');
    t.equal(errorOf(await client.query("select value from kv where tenant_id = 'a' and key = 'k'")), null);
    await client.query('commit');
  }
  client.destroy();
  await router.quiet();
});
