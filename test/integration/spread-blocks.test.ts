// Blocks over several shards (D14, D31): generated ones get the same answers through pgkv as from one plain Postgres, and leave the
// same rows; transfers between accounts by clients that run into each other, with connections cut at any byte, keep the total.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { blockScript } from '../support/block-script.js';
import { FaultProxy } from '../support/fault-proxy.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf, valueFrom } from '../support/kv-extension.js';
import { timeLimit } from '../support/machine-speed.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';
import { type ServerError, SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const isLong = process.env['PGKV_LONG'] === '1';
const BLOCKS = isLong ? 2_000 : 40;

const NOTES = 'CREATE TABLE notes (n int); GRANT ALL ON notes TO app';
const PLAIN = `CREATE TABLE kv (tenant_id text COLLATE "C", key text COLLATE "C", version bigint NOT NULL DEFAULT 1,
  value jsonb, ttl timestamptz, updated_at timestamptz NOT NULL DEFAULT statement_timestamp(), PRIMARY KEY (tenant_id, key));
  GRANT ALL ON kv TO app`;

async function start(t: Test, version: '15' | 'embedded', shards: number) {
  const cluster = await kvServers(t, shards, { version, stated: true });
  const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
  for (const admin of admins) await admin.query(GRANTS);
  await admins[0]!.query(NOTES);
  await admins[0]!.query('CREATE DATABASE plain');
  const plainAdmin = await connectTo(t, cluster.servers[0]!, { database: 'plain' });
  await plainAdmin.query(`${PLAIN}; ${NOTES}`);
  const live = await kvRouter(t, cluster);
  const prepared = async () =>
    (await Promise.all(admins.map((admin) => rowsOf(admin, 'SELECT gid FROM pg_prepared_xacts')))).flat();
  const plain = () => SqlClient.connect(cluster.servers[0]!, { user: 'app', database: 'plain' });
  return { cluster, admins, live, plain, prepared };
}

/** As far as the two have to agree: rows that no ORDER BY orders come in any order, and in front of an error there may be any. */
function told(messages: readonly BackendMessage[]): string[] {
  const lines: string[] = [];
  let rows: string[] = [];
  for (const line of linesOf(messages)) {
    if (line.startsWith('row ') || line.startsWith('columns ')) rows.push(line);
    else {
      if (!line.startsWith('ErrorResponse')) lines.push(...rows.sort());
      rows = [];
      lines.push(line);
    }
  }
  return lines;
}

function linesOf(messages: readonly BackendMessage[]): string[] {
  return messages.flatMap((message) => {
    switch (message.type) {
      case 'ParameterStatus':
        return [];
      case 'ErrorResponse':
      case 'NoticeResponse':
        return [`${message.type} ${message.fields['C']} ${message.fields['M']} ${message.fields['P'] ?? ''}`];
      case 'RowDescription':
        return [`columns ${message.columns.map(({ name }) => name).join()}`];
      case 'DataRow':
        return [`row ${message.values.map((value) => value?.toString() ?? 'NULL').join('|')}`];
      case 'CommandComplete':
        return [message.tag];
      case 'ReadyForQuery':
        return [`ready ${message.status}`];
      default:
        return [message.type];
    }
  });
}

const isRefusal = (lines: readonly string[]): boolean => lines.some((line) => /0A000 .*leave its shard/.test(line));

const BENCHES = PLAYED_VERSIONS.flatMap((version) => [1, 3, 5].map((shards) => ({ version, shards })));
for (const { version, shards } of BENCHES) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  const name = `blocks as on one server, Postgres ${version}, ${shards} shards, seed ${SEED}`;
  t.test(name, { ...skip, timeout: 1_200_000 }, async (t) => {
    const { live, plain, admins, prepared } = await start(t, version, shards);
    const [client, one] = [await live.connect({ user: 'app' }), await plain()];
    const random = new SeededRandom(SEED, (version === '15' ? 15 : 18) + 100 * shards);
    const rows = async (of: SqlClient) => [
      await of.rows('SELECT key, value FROM kv ORDER BY key'),
      await of.rows('SELECT count(*) FROM notes'),
      await of.rows(`SELECT current_setting('work_mem'), coalesce(current_setting('app.name', true), '')`),
    ];
    const decisions = async () =>
      (
        await Promise.all(admins.map((admin) => valueFrom(admin, 'SELECT count(*)::int FROM pgkv.decisions')))
      ).reduce<number>((sum, count) => sum + Number(count), 0);
    let refused = 0;
    for (let n = 0; n < BLOCKS; n++) {
      const said: FrontendMessage[][] = [];
      for (const part of blockScript(random)) {
        said.push(part);
        const [through, direct] = [told(await client.send(part)), told(await one.send(part))];
        if (isRefusal(through)) {
          refused++;
          for (const of of [client, one]) await of.run('ROLLBACK');
          break;
        }
        if (!t.strictSame(through, direct, `block ${n}: ${JSON.stringify(said)}`)) return;
      }
      for (const of of [client, one]) await of.run('ROLLBACK');
      if (!t.strictSame(await rows(client), await rows(one), `block ${n}: ${JSON.stringify(said)}`)) return;
    }
    const committed = await decisions();
    t.comment(`${refused} of ${BLOCKS} refused, ${committed} committed by two-phase commit`);
    // Behind AND CHAIN of a block with options that has failed without a savepoint, these are not known: one in ten.
    t.ok(refused <= BLOCKS / 4, `${refused} were refused`);
    if (shards > 1) t.ok(committed > BLOCKS / 20, 'they were over several shards');
    t.strictSame(await prepared(), []);
    await Promise.all([client.end(), one.end()]);
  });
}

const ACCOUNTS = 60;
const FIRST = 100;
const ROUNDS = isLong ? 100 : 5;
const CLIENTS = 4;
const TRANSFERS = 6;
const WITHIN_MS = 10_000;

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test(`transfers over several shards, connections cut, seed ${SEED}`, { ...skip, timeout: 1_200_000 }, async (t) => {
  const cluster = await kvServers(t, 4, { stated: true });
  const proxies = await Promise.all(cluster.servers.map((server) => FaultProxy.start(server)));
  t.teardown(() => Promise.all(proxies.map((proxy) => proxy.down())));
  const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
  for (const admin of admins) await admin.query(GRANTS);
  const servers = cluster.servers.map((server, index) => proxies[index]!.standInFor(server));
  const live = await kvRouter(t, { ...cluster, servers });
  const random = new SeededRandom(SEED, 4);
  const found = async (sql: string) => (await Promise.all(admins.map((admin) => rowsOf(admin, sql)))).flat();
  const setup = await live.connect({ user: 'app' });
  for (let n = 0; n < ACCOUNTS; n++) {
    await setup.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('bank', 'a${n}', '${FIRST}')`);
  }
  const outcomes = { committed: 0, failed: 0, unknown: 0 };
  let number = 0;
  /** @returns what it was told; the row `t<id>` is there if, and only if, it was committed */
  const transfer = async (client: SqlClient, id: number): Promise<keyof typeof outcomes> => {
    const accounts = random.some(
      Array.from({ length: ACCOUNTS }, (_, n) => n),
      random.between(2, 5),
    );
    const [first, ...others] = accounts;
    const pay = (account: number, amount: number) =>
      `UPDATE kv SET value = to_jsonb((value #>> '{}')::int + (${amount})) WHERE tenant_id = 'bank' AND key = 'a${account}'`;
    let isEnding = false;
    try {
      await client.run('BEGIN', `SET LOCAL lock_timeout = '300ms'`, pay(first!, -others.length));
      if (random.oneIn(3)) await client.run('SAVEPOINT s', pay(first!, 1_000), 'ROLLBACK TO s');
      for (const other of others) await client.extended(`${pay(other, 1).replace(`'a${other}'`, '$1')}`, [`a${other}`]);
      await client.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('bank', 't${id}', '0')`);
      isEnding = true;
      const [tag] = await client.run('COMMIT');
      return tag === 'COMMIT' ? 'committed' : 'failed';
    } catch (error) {
      const { code } = error as ServerError;
      if (!isEnding) await client.run('ROLLBACK').catch(() => undefined);
      return isEnding && (code === '08007' || code === undefined) ? 'unknown' : 'failed';
    }
  };
  const told = new Map<number, keyof typeof outcomes>();
  for (let round = 1; round <= ROUNDS; round++) {
    const proxy = random.pick(proxies);
    const side = random.pick(['request', 'answer'] as const);
    proxy.arm({ kind: 'cut', side, after: random.integer(6_000), reset: random.oneIn(2), once: true });
    const clients = await Promise.all(Array.from({ length: CLIENTS }, () => live.connect({ user: 'app' })));
    await Promise.all(
      clients.map(async (client) => {
        for (let n = 0; n < TRANSFERS; n++) {
          const id = number++;
          const outcome = await transfer(client, id);
          told.set(id, outcome);
          outcomes[outcome]++;
        }
      }),
    );
    proxy.disarm();
    for (const client of clients) client.wire.destroy();
    const isOver = timeLimit(WITHIN_MS);
    while ((await found('SELECT FROM pg_prepared_xacts')).length > 0 && !(await isOver())) await sleep(50);
    t.strictSame(await found('SELECT gid FROM pg_prepared_xacts'), [], `round ${round}: nothing is left prepared`);
    const rows = await found(`SELECT key, value #>> '{}' AS value FROM kv`);
    const sum = rows.reduce((all, row) => all + (String(row[0]).startsWith('a') ? Number(row[1]) : 0), 0);
    if (!t.equal(sum, ACCOUNTS * FIRST, `round ${round}: the total`)) return;
    const there = new Set(rows.map((row) => String(row[0])));
    const untrue = [...told].filter(
      ([id, outcome]) => outcome !== 'unknown' && (outcome === 'committed') !== there.has(`t${id}`),
    );
    if (!t.strictSame(untrue, [], `round ${round}: what was told is true`)) return;
  }
  t.comment(JSON.stringify(outcomes));
  t.ok(outcomes.committed > (ROUNDS * CLIENTS * TRANSFERS) / 4, 'most of them are committed');
  await setup.end();
});
