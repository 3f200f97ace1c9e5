// A router over several real servers with key-value tables, in this process.
import type { Test } from 'tap';
import type { CatalogDriver } from '../../src/catalog/catalog-driver.js';
import type { CatalogState } from '../../src/catalog/catalog-state.js';
import { extensionSource } from '../../src/cli/cluster/extension.js';
import type { KvTable } from '../../src/cluster/kv-table.js';
import { type LiveRouter, liveRouter, type RouterOverrides } from './live-router.js';
import type { PostgresVersion } from './postgres-binaries.js';
import { type PostgresServer, startPostgres } from './postgres-server.js';
import { SqlClient } from './sql-client.js';

const EXTENSION_SQL = extensionSource().sql;
const HASH_SLOTS = 16_384;

export const KV: KvTable = { schema: 'public', name: 'kv', valueType: 'jsonb' };
export const BLOBS: KvTable = { schema: 'public', name: 'blobs', valueType: 'bytea' };

export interface KvServers {
  readonly servers: readonly PostgresServer[];
  readonly catalog: CatalogDriver;
}

/** Servers with the extension and its tables in database `postgres`; stopped at the end of `t`. */
export async function kvServers(
  t: Test,
  shards: number,
  options: {
    readonly version?: PostgresVersion;
    readonly tables?: readonly KvTable[];
    /** Each shard says which slots it owns, as init lets it: no row of others can be laid on it. */
    readonly stated?: boolean;
    readonly parameters?: Readonly<Record<string, string>>;
  } = {},
): Promise<KvServers> {
  const { version = 'embedded', tables = [KV, BLOBS], stated = false, parameters = {} } = options;
  const servers = await Promise.all(Array.from({ length: shards }, () => startPostgres({ version, parameters })));
  t.teardown(() => Promise.all(servers.map((server) => server.stop())));
  await Promise.all(servers.map((server) => prepareShard(server, tables)));
  const state = evenSpread(shards, tables);
  if (!stated) return { servers, catalog: fixedCatalog(state) };
  const clusterId = 'cluster of a test';
  await Promise.all(servers.map((server, index) => stateShard(server, state, index, clusterId)));
  return { servers, catalog: fixedCatalog({ ...state, clusterId }) };
}

async function stateShard(server: PostgresServer, state: CatalogState, index: number, clusterId: string) {
  const { name, hashSlots } = state.shards[index]!;
  const client = await SqlClient.connect(server, { user: server.superuser, database: state.database });
  const ranges = hashSlots.map(([first, last]) => `[${first},${last}]`).join(',');
  await client.run(`select pgkv.set_shard_state('${name}', ${state.epoch}, '{${ranges}}', '${clusterId}')`);
  await client.end();
}

/** The extension as plain SQL, and its tables with versions that begin at 1, as in a plain table. */
export async function prepareShard(
  server: PostgresServer,
  tables: readonly KvTable[],
  database = 'postgres',
): Promise<void> {
  const client = await SqlClient.connect(server, { user: server.superuser, database });
  await client.run(EXTENSION_SQL);
  for (const { schema, name, valueType } of tables) {
    await client.run(`select pgkv.create_table('${schema}.${name}', '${valueType}')`);
    await client.run(`alter table ${schema}.${name} alter column version set default 1`);
  }
  await client.end();
}

export function evenSpread(shards: number, tables: readonly KvTable[], database = 'postgres'): CatalogState {
  const edge = (index: number): number => Math.floor((index * HASH_SLOTS) / shards);
  return {
    epoch: 1,
    database,
    shards: Array.from({ length: shards }, (_, index) => {
      return { name: `s${index + 1}`, hashSlots: [[edge(index), edge(index + 1) - 1] as const] };
    }),
    tables: [...tables],
  };
}

/** A catalogue that is never written. */
export function fixedCatalog(state: CatalogState): CatalogDriver {
  return {
    place: 'memory',
    read: async () => state,
    compareAndSet: async () => false,
    watch: () => () => undefined,
    acquireRouterLock: async () => ({ release: () => undefined }),
    close: () => undefined,
  };
}

export async function kvRouter(t: Test, cluster: KvServers, overrides: RouterOverrides = {}): Promise<LiveRouter> {
  return liveRouter(t, cluster.servers, overrides, { catalog: cluster.catalog });
}
