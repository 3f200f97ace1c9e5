// Who answers at a node's address is not taken for granted (D28): ports of two shards swapped, a server of another cluster, a
// standby, a server exchanged while pgkv runs. Whatever the lane, an answer is the right one or an error that says who was
// expected and who was found; when the right server is back, it is used again.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { CatalogState } from '../../src/catalog/catalog-state.js';
import { evenSpread, fixedCatalog, KV, prepareShard } from '../support/kv-cluster.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { type NodeAddress, nodeAddress } from '../support/node-address.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { ServerError, SqlClient } from '../support/sql-client.js';

/** Not the database of the health checks' own log-in. */
const DATABASE = 'template1';
const KEYS = Array.from({ length: 12 }, (_, index) => `k${index}`);

const [first, second, foreign, standby, bare] = await Promise.all([
  startPostgres({ version: 'embedded' }),
  startPostgres({ version: 'embedded' }),
  startPostgres({ version: 'embedded' }),
  startPostgres({ version: 'embedded', standby: true }),
  startPostgres({ version: 'embedded' }),
]);
t.teardown(() => Promise.all([first, second, foreign, standby, bare].map((server) => server.stop())));

async function init(server: PostgresServer, name: string, clusterId: string): Promise<void> {
  await prepareShard(server, [KV], DATABASE);
  const client = await SqlClient.connect(server, { user: server.superuser, database: DATABASE });
  const range = name === 's1' ? '[0,8191]' : '[8192,16383]';
  await client.run(`SELECT pgkv.set_shard_state('${name}', 1, '{${range}}', '${clusterId}')`);
  await client.end();
}
await init(first, 's1', 'ours');
await init(second, 's2', 'ours');
await init(foreign, 's1', 'theirs');

const STATE: CatalogState = evenSpread(2, [KV], DATABASE);
const NAMED: CatalogState = { ...STATE, clusterId: 'ours' };

const LANES: readonly (readonly [lane: string, answer: (client: SqlClient) => Promise<unknown>, right: unknown])[] = [
  ['home', (client) => client.value("SELECT 'home'"), 'home'],
  [
    'merged',
    async (client) => {
      const found: unknown[] = [];
      for (const key of KEYS) {
        const rows = await client.extended("SELECT value FROM kv WHERE tenant_id = 'a' AND key = $1", [key]);
        found.push(rows[0]?.[0]);
      }
      return found;
    },
    KEYS.map((key) => `"${key}"`),
  ],
  [
    'leased',
    async (client) => {
      const found: unknown[] = [];
      for (const key of KEYS) {
        await client.run('BEGIN');
        found.push(await client.value(`SELECT value FROM kv WHERE tenant_id = 'a' AND key = '${key}' FOR UPDATE`));
        await client.run('COMMIT');
      }
      return found;
    },
    KEYS.map((key) => `"${key}"`),
  ],
  ['scattered', (client) => client.value("SELECT count(*) FROM kv WHERE tenant_id = 'a'"), `${KEYS.length}`],
];

interface Bed {
  readonly live: LiveRouter;
  readonly nodes: readonly [NodeAddress, NodeAddress];
}

async function bed(t: Test, behind: readonly [PostgresServer, PostgresServer], state: CatalogState): Promise<Bed> {
  const nodes: [NodeAddress, NodeAddress] = [await nodeAddress(behind[0]), await nodeAddress(behind[1])];
  t.teardown(() => Promise.all(nodes.map((node) => node.close())));
  const servers = nodes.map(({ host, port }) => ({ ...first, host, port }));
  const live = await liveRouter(
    t,
    servers,
    { pool: { sizeMax: 6 }, http: { disabled: false, port: 0 } },
    { catalog: fixedCatalog(state) },
  );
  return { live, nodes };
}

const login = async (live: LiveRouter): Promise<SqlClient> => live.connect({ database: DATABASE });

/** Every lane, each with a client of its own. Returns messages of errors. */
async function everyLane(t: Test, live: LiveRouter, mayFail: boolean): Promise<string[]> {
  const messages: string[] = [];
  for (const [lane, answer, right] of LANES) {
    for (let round = 0; round < 3; round++) {
      let client: SqlClient | null = null;
      try {
        client = await login(live);
        t.strictSame(await answer(client), right, `${lane}: an answer is the right one`);
      } catch (error) {
        const told = error instanceof ServerError ? error : null;
        const code = told?.code ?? /\b08006\b/.exec(`${error}`)?.[0];
        t.ok(mayFail && code === '08006', `${lane}: ${error}`);
        messages.push(`${error}`);
      } finally {
        client?.wire.destroy();
      }
    }
  }
  return messages;
}

async function shardsShown(live: LiveRouter, of: (client: SqlClient) => Promise<string | null>): Promise<string> {
  const client = await live.connect({ database: 'postgres' });
  const text = await of(client).finally(() => client.wire.destroy());
  return text ?? '';
}

await t.test('the right servers', async (t) => {
  const { live } = await bed(t, [first, second], NAMED);
  const client = await login(live);
  for (const key of KEYS) await client.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('a', '${key}', '"${key}"')`);
  t.strictSame(await everyLane(t, live, false), []);
});

const WRONG: readonly (readonly [
  what: string,
  behind: readonly [PostgresServer, PostgresServer],
  state: CatalogState,
  says: RegExp,
])[] = [
  ['swapped', [second, first], NAMED, /expected shard "s[12]" of cluster ours, found shard "s[12]"/],
  ['swapped, set up by an older pgkv', [second, first], STATE, /expected shard "s[12]", found shard "s[12]"/],
  ['the same server twice', [first, first], NAMED, /expected shard "s2" of cluster ours, found shard "s1"/],
  ['of another cluster', [foreign, second], NAMED, /expected shard "s1" of cluster ours, found .* cluster theirs/],
  ['no shard at all', [first, bare], NAMED, /expected shard "s2" of cluster ours, found a server that is no shard/],
  ['a standby', [first, standby], STATE, /expected shard "s2" as a primary, found a standby/],
];

for (const [what, behind, state, says] of WRONG) {
  await t.test(`${what}: from the start`, async (t) => {
    const { live, nodes } = await bed(t, behind, state);
    const messages = await everyLane(t, live, true);
    t.ok(messages.length > 0 && messages.some((message) => says.test(message)), messages.join('\n'));
    t.ok(
      live.logged('error').some(({ reason }) => says.test(String(reason))),
      'the log says it',
    );
    nodes[0].leadTo(first);
    nodes[1].leadTo(second);
    await t.test('and used again when it is the right one', async (t) => {
      t.strictSame(await everyLane(t, live, false), []);
    });
  });

  await t.test(`${what}: exchanged while pgkv runs`, async (t) => {
    const { live, nodes } = await bed(t, [first, second], state);
    t.strictSame(await everyLane(t, live, false), []);
    nodes[0].leadTo(behind[0]);
    nodes[1].leadTo(behind[1]);
    const messages = await everyLane(t, live, true);
    t.ok(messages.length > 0 && messages.some((message) => says.test(message)), messages.join('\n'));
    // Where the home shard is right it can be asked for the status.
    if (behind[0] === first) {
      let status = '';
      while (!says.test(status.replaceAll('\\"', '"'))) {
        status = await shardsShown(live, (client) => client.value('SHOW pgkv.status'));
        await sleep(50);
      }
      t.match(status, /"healthy":false,"state":"other"/);
      const metrics = await (await fetch(`http://127.0.0.1:${live.router.httpPort}/metrics`)).text();
      t.match(metrics, /pgkv_shard_state\{shard="s2",state="other"\} 1/);
    }
    nodes[0].leadTo(first);
    nodes[1].leadTo(second);
    await t.test('and used again when it is the right one', async (t) => {
      t.strictSame(await everyLane(t, live, false), []);
    });
  });
}

await t.test('a database without shard state: the system identifier', async (t) => {
  const direct = await SqlClient.connect(first, { user: first.superuser, database: 'postgres' });
  const systemIdentifier = (await direct.value('SELECT system_identifier FROM pg_control_system()'))!;
  await direct.end();
  const shards = (identifier: string) => NAMED.shards.map((shard) => ({ ...shard, systemIdentifier: identifier }));
  await t.test('that is the expected one', async (t) => {
    const { live } = await bed(t, [first, second], { ...NAMED, shards: shards(systemIdentifier) });
    const client = await live.connect({ database: 'postgres' });
    t.equal(await client.value('SELECT 7'), '7');
  });
  await t.test('that is another', async (t) => {
    const { live } = await bed(t, [first, second], { ...NAMED, shards: shards('12345') });
    await t.rejects(live.connect({ database: 'postgres' }), {
      message: new RegExp(`expected shard "s1" .*12345, found ${systemIdentifier}`),
    });
  });
});
