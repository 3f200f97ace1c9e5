// `pgkv dev` with several shards: tables and catalogue at the first start, the same at the next one, and the router it
// leads to. The embedded servers run in this process's charge, as under the command.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t, { type Test } from 'tap';
import { FileCatalog } from '../../src/catalog/file-catalog.js';
import { devSettings } from '../../src/cli/cluster/cluster-access.js';
import { prepareDevTables } from '../../src/cli/cluster/dev-tables.js';
import { homeShard } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { catalogPath, type EmbeddedCluster, startEmbeddedCluster } from '../../src/dev/embedded-cluster.js';
import { startRouter } from '../../src/main.js';
import { createLogger } from '../../src/telemetry/log.js';
import { runCli } from '../support/cli-run.js';
import { serversFolder } from '../support/postgres-server.js';

const AS = { user: 'pgkv', database: 'kv' };

function freshFolder(t: Test): string {
  const folder = mkdtempSync(join(serversFolder(), 'pgkv-cluster-dev-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'data');
}

async function start(t: Test, dataDir: string, shards: number): Promise<EmbeddedCluster> {
  const cluster = await startEmbeddedCluster({ shards, dataDir, ephemeral: false, log: () => undefined });
  t.teardown(() => cluster.stop());
  return cluster;
}

async function prepare(cluster: EmbeddedCluster, value?: 'jsonb' | 'bytea'): Promise<FileCatalog> {
  const path = catalogPath(cluster.dataDir);
  const catalog = new FileCatalog(path);
  await prepareDevTables(devSettings({ ...AS, shards: cluster.shards, catalog: path }), catalog, { ...AS, value });
  return catalog;
}

async function askShard(shard: { readonly port: number }, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ host: '127.0.0.1', port: shard.port, ...AS });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

t.test('three shards share the slots; the router knows them and notices a new table', async (t) => {
  const dataDir = freshFolder(t);
  const cluster = await start(t, dataDir, 3);
  const catalog = await prepare(cluster);
  const state = await catalog.read();
  t.match(state, { epoch: 1, database: 'kv', tables: [{ schema: 'public', name: 'kv', valueType: 'jsonb' }] });
  t.strictSame(
    state?.shards.map(({ hashSlots }) => hashSlots),
    [[[0, 5460]], [[5461, 10921]], [[10922, 16383]]],
  );

  const settings = devSettings({ ...AS, shards: cluster.shards, catalog: catalog.place });
  const router = await startRouter({
    settings: { ...settings, listen: { ...settings.listen, port: 0 }, http: { ...settings.http, disabled: true } },
    log: createLogger({ level: 'silent', format: 'json', values: false }),
    version: '0.0.0-test',
    probeAs: AS,
    catalog,
  });
  t.teardown(() => router.stop());
  t.equal(homeShard(router.view).name, 'shard-0');
  const client = new pg.Client({ host: '127.0.0.1', port: router.port, ...AS });
  await client.connect();
  t.teardown(() => client.end());
  await loadKeyHash();
  for (let key = 0; key < 30; key++) {
    await client.query('INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)', ['shop', `cart:${key}`, '{}']);
  }
  for (const [index, shard] of cluster.shards.entries()) {
    const expected = Array.from({ length: 30 }, (_, key) => `cart:${key}`).filter(
      (key) => router.view.shardOfSlot[hashSlotOf('shop', key)] === index,
    );
    const rows = await askShard(shard, 'SELECT key FROM kv');
    t.strictSame(rows.map(({ key }) => key).sort(), expected.sort(), `keys of ${shard.name}`);
  }

  writeFileSync(join(dataDir, 'run.json'), JSON.stringify({ ...AS, shards: cluster.shards, catalog: catalog.place }));
  const made = await runCli(['table', 'create', 'blobs', '--value', 'bytea', '--data-dir', dataDir]);
  t.match(made, { exitCode: 0, output: /created on all shards; catalogue epoch 2/ });
  for (const end = performance.now() + 5000; router.view.epoch < 2 && performance.now() < end; ) await sleep(10);
  t.strictSame(
    router.view.tables.map(({ name }) => name),
    ['kv', 'blobs'],
  );
  t.equal((await runCli(['doctor', '--data-dir', dataDir])).exitCode, 0);
});

t.test('a later start keeps data and tables, renews the extension, and refuses another number of shards', async (t) => {
  const dataDir = freshFolder(t);
  const first = await start(t, dataDir, 2);
  await prepare(first, 'bytea');
  for (const shard of first.shards) {
    t.strictSame(await askShard(shard, 'SHOW search_path'), [{ search_path: 'public' }], 'not the schema pgkv');
    // As an earlier version would have left it.
    await askShard(shard, `CREATE OR REPLACE FUNCTION pgkv.version() RETURNS text IMMUTABLE RETURN '0.0.9'`);
    await askShard(shard, 'DROP FUNCTION kv_slot');
  }
  await first.stop();

  for (const shards of [1, 3]) {
    await t.rejects(startEmbeddedCluster({ shards, dataDir, ephemeral: false, log: () => undefined }), {
      name: 'EmbeddedClusterError',
      message: /holds 2 shards/,
      hint: /--shards 2/,
    });
  }
  const second = await start(t, dataDir, 2);
  await t.rejects(prepare(second, 'jsonb'), { message: 'the table kv of this data holds bytea values, not jsonb' });
  t.equal((await (await prepare(second)).read())?.epoch, 1);
  for (const shard of second.shards) {
    t.strictSame(await askShard(shard, `SELECT pgkv.version() <> '0.0.9' AS renewed, kv_slot('a', 'b') AS slot`), [
      { renewed: true, slot: 900 },
    ]);
  }
});

t.test('data whose first start was cut off before its catalogue is completed', async (t) => {
  const cluster = await start(t, freshFolder(t), 2);
  const catalog = await prepare(cluster);
  rmSync(catalog.place);
  await askShard(cluster.shards[1]!, `SELECT pgkv.drop_table('kv'); DELETE FROM pgkv.shard_state`);
  t.match(await (await prepare(cluster)).read(), { epoch: 1, shards: [{ name: 'shard-0' }, { name: 'shard-1' }] });
  t.strictSame(await askShard(cluster.shards[1]!, 'SELECT shard_name FROM pgkv.shard_state'), [
    { shard_name: 'shard-1' },
  ]);
});

t.test('a damaged catalogue keeps the servers from starting, since nobody knows where keys are', async (t) => {
  const dataDir = freshFolder(t);
  const cluster = await start(t, dataDir, 1);
  const catalog = await prepare(cluster);
  await cluster.stop();
  writeFileSync(catalog.place, '{');
  await t.rejects(startEmbeddedCluster({ shards: 1, dataDir, ephemeral: false, log: () => undefined }), {
    name: 'EmbeddedClusterError',
    message: /catalog\.json is not usable: it is not JSON/,
  });
});
