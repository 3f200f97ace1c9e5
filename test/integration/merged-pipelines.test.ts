// Pipelines and the merged lane (D11 rules 3 and 4, D12): one that holds a write is one transaction, on one lease; the reads
// of one that does not are merged, and see one state of the table.
import t from 'tap';
import { MERGED_LIMITS } from '../../src/execute/merged/merged-lane.js';
import { encodeAll, type FrontendMessage } from '../support/frontend-message.js';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { FILL, forPostgres, GET, INCR, UPSERT } from '../support/merged-cases.js';
import { batchBytes, directClient, queryBytes, tickClients, told, untilMerged } from '../support/merged-clients.js';

const cluster = await kvServers(t, 1, { tables: [KV] });
const direct = await directClient(cluster.servers[0]!);
t.teardown(() => direct.sql.wire.destroy());

/** The same statement with each of these values, and one Sync. */
function pipeline(sql: string, values: readonly (readonly string[])[]): Buffer {
  const units = values.flatMap((given): FrontendMessage[] => [
    { parse: sql },
    { bind: given },
    { describe: 'portal' },
    { execute: '' },
  ]);
  return encodeAll([...units, 'sync']);
}

t.test('a pipeline with a write is one transaction', async (t) => {
  await direct.ask(queryBytes(FILL));
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const [client] = clients;
  const { counters } = live.router;
  await untilMerged(t, live, clients, (i) => batchBytes(UPSERT, ['t', `k${i}`, '1']));
  await untilMerged(t, live, clients, (i) => batchBytes(INCR, ['t', `n${i}`]));
  const before = counters.mergedStatements;
  const twice = told(
    await client!.ask(
      pipeline(INCR, [
        ['t', 'n0'],
        ['t', 'twice'],
        ['t', 'twice'],
      ]),
    ),
  );
  t.same(twice.rows.slice(1), [['1'], ['2']]);
  for (const key of ['k0', 'fresh']) {
    const { code, tags } = told(
      await client!.ask(
        pipeline(UPSERT, [
          ['t', key, '"first"'],
          ['t', key, '{"unfinished'],
          ['t', 'k7', '"last"'],
        ]),
      ),
    );
    t.same([code, tags], ['22P02', ['INSERT 0 1']]);
  }
  t.equal(counters.mergedStatements, before, 'none of it was merged');
  const { rows } = told(await direct.ask(queryBytes(`select key from kv where value in ('"first"', '"last"')`)));
  t.same(rows, [], 'nothing of what failed was kept');
});

t.test('the reads of a pipeline are asked at one time, however many there are', async (t) => {
  await direct.ask(queryBytes(FILL));
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const [client] = clients;
  const { counters } = live.router;
  await untilMerged(t, live, clients, (i) => batchBytes(GET, ['t', `k${i}`]));
  const count = MERGED_LIMITS.readMembersMax + 40;
  const before = counters.mergedBatches;
  const { rows } = told(
    await client!.ask(
      pipeline(
        GET,
        Array.from({ length: count }, (_, i) => ['t', `k${i % 64}`]),
      ),
    ),
  );
  t.same(
    rows,
    Array.from({ length: count }, (_, i) => [`{"n": ${i % 64}}`]),
  );
  t.equal(counters.mergedBatches - before, 1);
});

t.test('reads of several kinds are asked in turn: none is to see less than one before it', async (t) => {
  await direct.ask(queryBytes(FILL));
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const version = GET.replace('value', 'version');
  for (const sql of [GET, version]) await untilMerged(t, live, clients, (i) => batchBytes(sql, ['t', `k${i}`]));
  const { counters } = live.router;
  const before = counters.mergedStatements;
  const values = [['t', 'k1']];
  const SYNC_BYTES = 5;
  const bytes = Buffer.concat([pipeline(GET, values).subarray(0, -SYNC_BYTES), pipeline(version, values)]);
  const { rows } = told(await clients[0]!.ask(bytes));
  t.same(rows, [['{"n": 1}'], ['1']]);
  t.equal(counters.mergedStatements, before);
});

t.test('an error in a pipeline of reads ends it there, as by Postgres', async (t) => {
  await direct.ask(queryBytes(FILL));
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 8);
  const sql = 'SELECT 6 / $3::int4 AS part, key FROM kv WHERE tenant_id = $1 AND key = $2';
  await untilMerged(t, live, clients, (i) => batchBytes(sql, ['t', `k${i}`, '2']));
  const bytes = (text: string): Buffer =>
    pipeline(text, [
      ['t', 'k1', '2'],
      ['t', 'k2', '0'],
      ['t', 'k3', '3'],
    ]);
  const answer = told(await clients[0]!.ask(bytes(sql)));
  const own = told(await direct.ask(bytes(forPostgres(sql))));
  t.same([answer.code, answer.rows, answer.tags], ['22012', own.rows, own.tags]);
  t.same(
    answer.messages.map(({ type }) => type),
    own.messages.map(({ type }) => type),
  );
});
