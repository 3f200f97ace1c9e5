// `pgkv table`: the key-value tables of a cluster. Shards first, one transaction each; then the catalogue, which a
// running router watches; then the shards' state rows. Each step looks first: what failed half way is run again.
import type { CatalogDriver } from '../catalog/catalog-driver.js';
import type { CatalogState } from '../catalog/catalog-state.js';
import { viewFrom } from '../catalog/view-from.js';
import type { KvTable } from '../cluster/kv-table.js';
import { type ClusterAccess, clusterAccess, requireCatalog, requireState } from './cluster/cluster-access.js';
import { explainRefusal } from './cluster/server-refusal.js';
import { accessFrom, type ShardConnection, shardPlaces, withShards } from './cluster/shard-connection.js';
import { dropTable, ensureTable, inTransaction, requireOwnRows, requireUsableServers } from './cluster/shard-setup.js';
import { readShardState, writeShardState } from './cluster/shard-state.js';
import { CommandFailure } from './command-failure.js';
import type { TableCreateOptions, TableDropOptions, TableListOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import { alignedTable } from './sql/aligned-table.js';
import type { Terminal } from './terminal.js';

/** Other changes of the catalogue may come between reading and writing; nobody changes it this often. */
const ATTEMPTS_MAX = 5;

export async function runTableCreate(options: TableCreateOptions, terminal: Terminal): Promise<number> {
  const { table } = options;
  const cluster = clusterAccess(options);
  const catalog = requireCatalog(cluster);
  const before = await requireState(catalog, cluster);
  requireSameType(before, table);
  const epoch = await onShards(cluster, before, terminal, async (shards) => {
    await requireUsableServers(shards);
    await onEach(shards, async (shard) => {
      if (await ensureTable(shard, table)) return;
      const { hashSlots } = before.shards.find(({ name }) => name === shard.name)!;
      if (findTable(before, table) === undefined) await requireOwnRows(shard, table, hashSlots);
    });
    const after = await change(catalog, cluster, (state) => {
      requireSameType(state, table);
      return findTable(state, table) === undefined ? [...state.tables, table] : null;
    });
    await onEach(shards, (shard) => recordEpoch(shard, after));
    return after.epoch;
  });
  const isNew = findTable(before, table) === undefined;
  report(terminal, options, table, isNew ? 'created' : 'present', epoch);
  return 0;
}

export async function runTableDrop(options: TableDropOptions, terminal: Terminal): Promise<number> {
  const { name } = options;
  const cluster = clusterAccess(options);
  const catalog = requireCatalog(cluster);
  const before = await requireState(catalog, cluster);
  const table = findTable(before, options);
  if (table === undefined) {
    const known = before.tables.map((other) => `${other.schema}.${other.name}`).join(', ') || 'none';
    throw new CommandFailure(1, `there is no key-value table ${options.schema}.${name}`, `There is: ${known}.`);
  }
  if (!options.yes) {
    throw new CommandFailure(1, `this drops ${table.schema}.${table.name} with all its keys`, 'If so, add --yes.');
  }
  // The shards first: a table that is gone gives errors, one that is no longer known as a key-value table would give
  // the home shard's rows as if they were all.
  const epoch = await onShards(cluster, before, terminal, async (shards) => {
    await onEach(shards, (shard) => dropTable(shard, table));
    const after = await change(catalog, cluster, (state) => {
      const rest = state.tables.filter((other) => other !== findTable(state, table));
      return rest.length === state.tables.length ? null : rest;
    });
    await onEach(shards, (shard) => recordEpoch(shard, after));
    return after.epoch;
  });
  report(terminal, options, table, 'dropped', epoch);
  return 0;
}

export async function runTableList(options: TableListOptions, terminal: Terminal): Promise<number> {
  const cluster = clusterAccess(options);
  const state = await requireState(requireCatalog(cluster), cluster);
  if (options.json) {
    const { epoch, database, tables } = state;
    terminal.output.write(`${JSON.stringify({ epoch, database, tables })}\n`);
    return 0;
  }
  const lines = alignedTable({
    columns: ['schema', 'table', 'value'].map((name) => ({ name, align: 'left' })),
    rows: state.tables.map(({ schema, name, valueType }) => [schema, name, valueType]),
    footers: [
      `(${state.tables.length} ${state.tables.length === 1 ? 'table' : 'tables'} in database ${state.database})`,
    ],
  });
  terminal.output.write(`${[...lines].join('\n')}`);
  return 0;
}

function onShards<T>(
  { settings, user }: ClusterAccess,
  state: CatalogState,
  terminal: Terminal,
  work: (shards: readonly ShardConnection[]) => Promise<T>,
): Promise<T> {
  viewFrom(settings.shards, state); // throws where configuration and catalogue name other shards
  const access = accessFrom(settings, { user, database: state.database }, terminal.env);
  return withShards(shardPlaces(settings), access, passwordPrompt(terminal.input, terminal.errors), work);
}

/** All at once; the first failure counts, when all have ended. */
async function onEach(
  shards: readonly ShardConnection[],
  work: (shard: ShardConnection) => Promise<unknown>,
): Promise<void> {
  const outcomes = await Promise.allSettled(
    shards.map((shard) =>
      inTransaction(shard.client, 'COMMIT', () => work(shard)).catch((error: unknown) => explainRefusal(shard, error)),
    ),
  );
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

/** @param next the tables there are to be; null: what there is suffices. @returns the state in force after it */
async function change(
  catalog: CatalogDriver,
  cluster: ClusterAccess,
  next: (state: CatalogState) => readonly KvTable[] | null,
): Promise<CatalogState> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const state = await requireState(catalog, cluster);
    const tables = next(state);
    if (tables === null) return state;
    const changed = { ...state, epoch: state.epoch + 1, tables };
    if (await catalog.compareAndSet(state.epoch, changed)) return changed;
  }
  throw new CommandFailure(1, `the catalogue ${catalog.place} is changed by others all the time`, 'Run this again.');
}

/** In a transaction alone on this shard; whoever changed the catalogue after us may have been here first. */
async function recordEpoch({ name, client }: ShardConnection, { epoch, shards }: CatalogState): Promise<void> {
  const present = await readShardState(client);
  if (present !== null && present.epoch >= epoch) return;
  await writeShardState(client, { epoch, ...shards.find((shard) => shard.name === name)! });
}

function findTable(state: CatalogState, { schema, name }: Pick<KvTable, 'schema' | 'name'>): KvTable | undefined {
  return state.tables.find((table) => table.schema === schema && table.name === name);
}

function requireSameType(state: CatalogState, table: KvTable): void {
  const present = findTable(state, table);
  if (present === undefined || present.valueType === table.valueType) return;
  throw new CommandFailure(
    1,
    `there is a table ${table.schema}.${table.name} already, with ${present.valueType} values`,
    'Choose another name, or drop that one first.',
  );
}

function report(
  terminal: Terminal,
  { json }: { readonly json: boolean },
  table: KvTable,
  outcome: 'created' | 'present' | 'dropped',
  epoch: number,
): void {
  const text = { created: 'created on all shards', present: 'was there already', dropped: 'dropped on all shards' };
  terminal.output.write(
    json
      ? `${JSON.stringify({ ok: true, table, outcome, epoch })}\n`
      : `table ${table.schema}.${table.name} (${table.valueType}) ${text[outcome]}; catalogue epoch ${epoch}\n`,
  );
}
