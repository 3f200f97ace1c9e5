// `pgkv init`: from empty databases to a cluster: extension, first table and state row on every shard, then the
// catalogue. Each shard is done in one transaction and the catalogue comes last, so that it can be run again after any
// failure. Run again over a cluster, it brings to this version and repairs what it makes, and says so.
import type { CatalogDriver } from '../catalog/catalog-driver.js';
import type { CatalogShard, CatalogState } from '../catalog/catalog-state.js';
import { viewFrom } from '../catalog/view-from.js';
import type { KvTable } from '../cluster/kv-table.js';
import type { Settings } from '../config/settings.js';
import { clusterAccess, requireCatalog } from './cluster/cluster-access.js';
import { withIdentity } from './cluster/cluster-identity.js';
import { type ExtensionSource, extensionSource, installedExtension } from './cluster/extension.js';
import { requireWholeTables, restoreObjects } from './cluster/extension-objects.js';
import { readHoldings, repairsBetween } from './cluster/repairs.js';
import { explainRefusal } from './cluster/server-refusal.js';
import { accessFrom, type ShardConnection, shardPlaces, withShards } from './cluster/shard-connection.js';
import {
  type ExtensionOutcome,
  ensureExtension,
  ensureShardState,
  ensureTable,
  grantRecovery,
  grantService,
  inTransaction,
  refreshTable,
  requireUsableServers,
  restoreVersions,
} from './cluster/shard-setup.js';
import { slotText } from './cluster/slot-text.js';
import { CommandFailure } from './command-failure.js';
import { DEFAULT_DATABASE, DEFAULT_SCHEMA, type InitOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import { quotedName } from './table-name.js';
import type { Terminal } from './terminal.js';

export async function runInit(options: InitOptions, terminal: Terminal): Promise<number> {
  const cluster = clusterAccess(options);
  const catalog = requireCatalog(cluster);
  const present = await catalog.read();
  const state = present ?? firstState(cluster.settings, wantedFrom(options));
  if (present !== null) {
    viewFrom(cluster.settings.shards, present); // throws where they name other shards
    requireAgreement(present, options, catalog);
  }
  const { settings, user } = cluster;
  const access = accessFrom(settings, { user, database: state.database }, terminal.env);
  const askPassword = passwordPrompt(terminal.input, terminal.errors);
  const done = await withShards(shardPlaces(settings), access, askPassword, (shards) =>
    initShards(shards, state, { dryRun: options.dryRun, isNew: present === null, service: settings.auth.service.user }),
  );
  if (!options.dryRun && done.state !== present) {
    const isWritten = await catalog.compareAndSet(present?.epoch ?? null, done.state);
    if (!isWritten) throw new CommandFailure(1, `${catalog.place} was changed by somebody else`, 'Run this again.');
  }
  report(done, catalog, options, terminal);
  return 0;
}

/** Of the first catalogue. */
function wantedFrom({ database, table, valueType }: InitOptions): { database: string; table: KvTable | null } {
  const named = { schema: DEFAULT_SCHEMA, name: 'kv', ...table, valueType: valueType ?? 'jsonb' };
  return { database: database ?? DEFAULT_DATABASE, table: table === null ? null : named };
}

/** What init is told and what the catalogue says. @throws CommandFailure where they differ */
function requireAgreement(state: CatalogState, options: InitOptions, catalog: CatalogDriver): void {
  const { database, table, valueType, configFile } = options;
  const there = `there is a catalogue already: ${catalog.place} (epoch ${state.epoch}, ${state.shards.length} shards)`;
  if (database !== undefined && database !== state.database) {
    const hint = 'Leave out --dbname to bring that cluster up to date.';
    throw new CommandFailure(1, `${there}, of the database ${state.database}, not ${database}`, hint);
  }
  const named = { schema: DEFAULT_SCHEMA, name: 'kv', ...table };
  const known = state.tables.find(({ schema, name }) => schema === named.schema && name === named.name);
  if (table != null && known === undefined) {
    const add = `Add tables with: pgkv table create ${quotedName(named)} --config ${configFile}`;
    throw new CommandFailure(1, `${there}, without a table ${named.schema}.${named.name}`, add);
  }
  if (valueType === undefined || (known?.valueType ?? valueType) === valueType) return;
  const hint = 'Leave out --value to bring that cluster up to date.';
  throw new CommandFailure(1, `${there}, with ${known?.valueType} values in ${named.schema}.${named.name}`, hint);
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
  readonly extension: ExtensionOutcome;
  readonly table: 'created' | 'present' | 'none';
  /** What was there otherwise than this version makes it, by name. */
  readonly repaired: readonly string[];
}

export interface InitialisedCluster {
  /** In the order of the connections. */
  readonly shards: readonly InitialisedShard[];
  /** What the catalogue is to say; the state that was given where it says that already. */
  readonly state: CatalogState;
  /** Everything was there, as this version makes it. */
  readonly wasDone: boolean;
}

interface InitManner {
  readonly dryRun: boolean;
  /** There is no catalogue yet; else what an older pgkv has set up is brought to this version. */
  readonly isNew: boolean;
  /** The role of pgkv's own statements. */
  readonly service: string;
}

/** Everything but the catalogue. `dryRun` does all of it and rolls back. @throws CommandFailure */
export async function initShards(
  connections: readonly ShardConnection[],
  state: CatalogState,
  manner: InitManner,
): Promise<InitialisedCluster> {
  const facts = await requireUsableServers(connections);
  const source = extensionSource();
  for (const connection of connections) await requireWholeTables(connection, source);
  const known = await withIdentity(state, connections, facts);
  const isKnown = JSON.stringify(known) === JSON.stringify(state);
  const next = isKnown ? state : manner.isNew ? known : { ...known, epoch: state.epoch + 1 };
  // All are settled before a failure is reported: none is still at work when its connection is closed.
  const outcomes = await Promise.allSettled(
    connections.map((connection) =>
      inTransaction(connection.client, manner.dryRun ? 'ROLLBACK' : 'COMMIT', () =>
        initShard(connection, next, source, manner),
      ).catch((error: unknown) => explainRefusal(connection, error)),
    ),
  );
  const shards = outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  });
  const wasDone =
    isKnown &&
    shards.every(
      ({ extension, table, repaired }) => extension === 'present' && table !== 'created' && repaired.length === 0,
    );
  return { shards, state: next, wasDone };
}

async function initShard(
  connection: ShardConnection,
  state: CatalogState,
  source: ExtensionSource,
  { isNew, service }: InitManner,
): Promise<InitialisedShard> {
  const shard = state.shards.find(({ name }) => name === connection.name)!;
  const extension = await ensureExtension(connection, source);
  const { kind } = await installedExtension(connection.client);
  const restored = extension === 'installed' ? [] : await restoreObjects(connection, kind, source);
  const looksForRepairs = !isNew && extension === 'present';
  const before = looksForRepairs ? await readHoldings(connection.client, state.tables) : null;
  let table: InitialisedShard['table'] = 'none';
  for (const wanted of state.tables) {
    table = (await ensureTable(connection, wanted)) ? 'created' : 'present';
    // Who updated the extension by hand may not have gone on to its tables.
    if (extension === 'updated' || restored.length > 0 || !isNew) await refreshTable(connection.client, wanted);
    if (restored.length > 0 || (extension === 'installed' && !isNew)) await restoreVersions(connection.client, wanted);
  }
  await ensureShardState(connection, shard, state, isNew);
  await grantService(connection, service);
  await grantRecovery(connection, service);
  const renewed = before === null ? [] : repairsBetween(before, await readHoldings(connection.client, state.tables));
  return { ...shard, ...connection.primary, extension, table, repaired: [...restored, ...renewed] };
}

function report(
  { shards, state, wasDone }: InitialisedCluster,
  catalog: CatalogDriver,
  { json, dryRun }: InitOptions,
  terminal: Terminal,
): void {
  const { epoch, database, tables } = state;
  if (json) {
    terminal.output.write(
      `${JSON.stringify({ ok: true, dryRun, catalog: catalog.place, epoch, database, tables, wasDone, shards })}\n`,
    );
    return;
  }
  const lines = shards.map(({ name, host, port, hashSlots, extension, table, repaired }) => {
    const made = table === 'none' ? '' : `, table ${table}`;
    const renewed = repaired.length === 0 ? '' : `; renewed: ${repaired.join(', ')}`;
    return `${name} (${host}:${port}): hash slots ${slotText(hashSlots)}; extension ${extension}${made}${renewed}`;
  });
  const named = tables.map((table) => `${table.schema}.${table.name} (${table.valueType})`).join(', ') || 'no table';
  const last = dryRun
    ? 'nothing was changed: this was a dry run'
    : `${wasDone ? 'all is as it should be; ' : ''}catalogue ${catalog.place}: epoch ${epoch}, ${named}`;
  terminal.output.write(`${[...lines, last].join('\n')}\n`);
}
