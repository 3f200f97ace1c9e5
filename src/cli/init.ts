// `pgkv init`: from empty databases to a cluster: extension, first table and state row on every shard, then the
// catalogue. Each shard is done in one transaction and the catalogue comes last, so that it can be run again after any
// failure.
import type { CatalogDriver } from '../catalog/catalog-driver.js';
import type { CatalogShard, CatalogState } from '../catalog/catalog-state.js';
import type { KvTable } from '../cluster/kv-table.js';
import type { Settings } from '../config/settings.js';
import { type ClusterAccess, clusterAccess, requireCatalog } from './cluster/cluster-access.js';
import { type ExtensionSource, extensionSource } from './cluster/extension.js';
import { explainRefusal } from './cluster/server-refusal.js';
import { accessFrom, type ShardConnection, shardPlaces, withShards } from './cluster/shard-connection.js';
import {
  ensureExtension,
  ensureFirstShardState,
  ensureTable,
  inTransaction,
  requireUsableServers,
} from './cluster/shard-setup.js';
import { slotText } from './cluster/slot-text.js';
import { CommandFailure } from './command-failure.js';
import type { InitOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import type { Terminal } from './terminal.js';

export async function runInit(options: InitOptions, terminal: Terminal): Promise<number> {
  const cluster = clusterAccess(options);
  const catalog = requireCatalog(cluster);
  const state = firstState(cluster.settings, options);
  await requireNoState(catalog, cluster);
  const access = accessFrom(cluster.settings, { user: cluster.user, database: options.database }, terminal.env);
  const askPassword = passwordPrompt(terminal.input, terminal.errors);
  const done = await withShards(shardPlaces(cluster.settings), access, askPassword, (shards) =>
    initShards(shards, state, { dryRun: options.dryRun }),
  );
  if (!options.dryRun && !(await catalog.compareAndSet(null, state))) await requireNoState(catalog, cluster);
  report(done, state, catalog, options, terminal);
  return 0;
}

/** What the first catalogue of this configuration says. */
export function firstState(
  { shards }: Pick<Settings, 'shards'>,
  { database, table }: { readonly database: string; readonly table: KvTable | null },
): CatalogState {
  return {
    epoch: 1,
    database,
    shards: shards.map(({ name, slots }) => ({ name, hashSlots: slots })),
    tables: table === null ? [] : [table],
  };
}

export interface InitialisedShard extends CatalogShard {
  readonly host: string;
  readonly port: number;
  readonly extension: 'installed' | 'present';
  readonly table: 'created' | 'present' | 'none';
}

/** Everything but the catalogue. `dryRun` does all of it and rolls back. @throws CommandFailure */
export async function initShards(
  connections: readonly ShardConnection[],
  state: CatalogState,
  { dryRun }: { readonly dryRun: boolean },
): Promise<InitialisedShard[]> {
  await requireUsableServers(connections);
  const source = extensionSource();
  // All are settled before a failure is reported: none is still at work when its connection is closed.
  const outcomes = await Promise.allSettled(
    connections.map((shard, index) =>
      inTransaction(shard.client, dryRun ? 'ROLLBACK' : 'COMMIT', () =>
        initShard(shard, state.shards[index]!, state.tables, source),
      ).catch((error: unknown) => explainRefusal(shard, error)),
    ),
  );
  return outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  });
}

async function initShard(
  connection: ShardConnection,
  shard: CatalogShard,
  tables: readonly KvTable[],
  source: ExtensionSource,
): Promise<InitialisedShard> {
  const isInstalled = await ensureExtension(connection, source);
  let table: InitialisedShard['table'] = 'none';
  for (const wanted of tables) table = (await ensureTable(connection, wanted)) ? 'created' : 'present';
  await ensureFirstShardState(connection, shard);
  return { ...shard, ...connection.primary, extension: isInstalled ? 'installed' : 'present', table };
}

async function requireNoState(catalog: CatalogDriver, { source }: ClusterAccess): Promise<void> {
  const state = await catalog.read();
  if (state === null) return;
  throw new CommandFailure(
    1,
    `there is a catalogue already: ${catalog.place} (epoch ${state.epoch}, ${state.shards.length} shards)`,
    `Add tables with: pgkv table create NAME --config ${source}`,
  );
}

function report(
  done: readonly InitialisedShard[],
  state: CatalogState,
  catalog: CatalogDriver,
  { json, dryRun }: InitOptions,
  terminal: Terminal,
): void {
  const { epoch, database, tables } = state;
  if (json) {
    terminal.output.write(
      `${JSON.stringify({ ok: true, dryRun, catalog: catalog.place, epoch, database, tables, shards: done })}\n`,
    );
    return;
  }
  const lines = done.map(({ name, host, port, hashSlots, extension, table }) => {
    const made = table === 'none' ? '' : `, table ${table}`;
    return `${name} (${host}:${port}): hash slots ${slotText(hashSlots)}; extension ${extension}${made}`;
  });
  const named = tables.map((table) => `${table.schema}.${table.name} (${table.valueType})`).join(', ') || 'no table';
  const last = dryRun
    ? 'nothing was changed: this was a dry run'
    : `catalogue ${catalog.place}: epoch ${epoch}, ${named}`;
  terminal.output.write(`${[...lines, last].join('\n')}\n`);
}
