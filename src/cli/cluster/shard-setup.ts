// What a shard holds so that pgkv can serve from it: extension, tables, and the row that says which shard it is. Each
// step looks first, so that a command that failed half way is simply run again.
import type { CatalogShard } from '../../catalog/catalog-state.js';
import type { KvTable } from '../../cluster/kv-table.js';
import { CommandFailure } from '../command-failure.js';
import type { DriverClient } from '../connect.js';
import { type ExtensionSource, installExtension, installedExtension } from './extension.js';
import { readServerFacts, SERVER_MAJOR_MAX, SERVER_MAJOR_MIN, type ServerFacts } from './server-facts.js';
import type { ShardConnection } from './shard-connection.js';
import { readShardState, sameRanges, writeShardState } from './shard-state.js';
import { slotText } from './slot-text.js';
import { kvFault, readTableDefinition } from './table-definition.js';

/** Held to the end of the transaction by whoever sets up a shard; the number is 'pgkv' in ASCII. */
const SETUP_LOCK = 0x70676b76;
/** Whoever waits for a table's lock makes all later statements on it wait too. */
const LOCK_TIMEOUT_MS = 5000;

/** Runs `work` in one transaction, alone among those that set up this database. */
export async function inTransaction<T>(
  client: DriverClient,
  end: 'COMMIT' | 'ROLLBACK',
  work: () => Promise<T>,
): Promise<T> {
  await client.query('BEGIN');
  try {
    await client.query(`SET LOCAL lock_timeout = '${LOCK_TIMEOUT_MS}ms'`);
    await client.query('SELECT pg_catalog.pg_advisory_xact_lock($1)', [SETUP_LOCK]);
    const result = await work();
    await client.query(end);
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined); // the connection is lost: then so is the transaction
    throw error;
  }
}

/** Why pgkv cannot keep keys on this server; null where it can. */
export function serverFault(facts: ServerFacts): string | null {
  const { major, version, encoding, inRecovery } = facts;
  if (major < SERVER_MAJOR_MIN || major > SERVER_MAJOR_MAX) {
    return `it runs PostgreSQL ${version}; pgkv works with ${SERVER_MAJOR_MIN} to ${SERVER_MAJOR_MAX}`;
  }
  if (encoding !== 'UTF8') {
    return `the encoding of its database is ${encoding}, not UTF8: keys are hashed by their UTF-8 bytes`;
  }
  return inRecovery ? 'it is a replica (in recovery): the primary is needed' : null;
}

/** @throws CommandFailure for every server that is not usable, and where two shards are one server */
export async function requireUsableServers(connections: readonly ShardConnection[]): Promise<void> {
  const faults: string[] = [];
  const shardOfIdentity = new Map<string, string>();
  const facts = await Promise.all(connections.map(({ client }) => readServerFacts(client)));
  for (const [index, { name }] of connections.entries()) {
    const fault = serverFault(facts[index]!);
    if (fault !== null) faults.push(`shard ${name}: ${fault}`);
    const { identity } = facts[index]!;
    const twin = shardOfIdentity.get(identity);
    if (twin !== undefined) faults.push(`shards ${twin} and ${name} are one server, reached by two addresses`);
    shardOfIdentity.set(identity, name);
  }
  if (faults.length > 0) throw new CommandFailure(1, faults.join('\n'));
}

/** @returns whether it was installed now. @throws CommandFailure where another version is there */
export async function ensureExtension({ name, client }: ShardConnection, source: ExtensionSource): Promise<boolean> {
  const installed = await installedExtension(client);
  if (installed.kind === 'none') {
    await installExtension(client, source);
    return true;
  }
  if (installed.version === source.version) return false;
  throw new CommandFailure(
    1,
    `shard ${name} has version ${installed.version} of the extension pgkv, this program needs ${source.version}`,
    installed.kind === 'extension'
      ? `Install the files of ${source.version} there and run: ALTER EXTENSION pgkv UPDATE TO '${source.version}'`
      : 'Use the version of pgkv that belongs to it.',
  );
}

/** @returns whether it was made now. @throws CommandFailure where something else has this name */
export async function ensureTable({ name, client }: ShardConnection, table: KvTable): Promise<boolean> {
  const present = await readTableDefinition(client, table);
  if (present !== null) {
    const fault = kvFault(present, table.valueType);
    if (fault === null) return false;
    throw new CommandFailure(
      1,
      `shard ${name} has another table ${table.schema}.${table.name}: ${fault}`,
      'Rename that one, or choose another name.',
    );
  }
  await client.query('SELECT pgkv.create_table($1, $2)', [qualifiedName(client, table), table.valueType]);
  return true;
}

/**
 * Refuses rows that pgkv would not find where they are: of a table that was filled before the cluster knew it.
 * @throws CommandFailure
 */
export async function requireOwnRows(
  { name, client }: ShardConnection,
  table: KvTable,
  hashSlots: CatalogShard['hashSlots'],
): Promise<void> {
  const own = hashSlots.map(([first, last]) => `slot BETWEEN ${first} AND ${last}`).join(' OR ') || 'false';
  const { rows } = await client.query(`SELECT FROM ${qualifiedName(client, table)} WHERE NOT (${own}) LIMIT 1`);
  if (rows.length === 0) return;
  throw new CommandFailure(
    1,
    `shard ${name} has a table ${table.schema}.${table.name} already, with rows whose hash slots belong to other shards`,
    'Rename it, create the table, and insert the rows through pgkv.',
  );
}

/** Functions and triggers of a table as this version of the extension makes them. */
export async function refreshTable(client: DriverClient, table: KvTable): Promise<void> {
  await client.query('SELECT pgkv.refresh_table($1)', [qualifiedName(client, table)]);
}

/** @returns whether it was there */
export async function dropTable({ client }: ShardConnection, table: KvTable): Promise<boolean> {
  if ((await readTableDefinition(client, table)) === null) return false;
  await client.query('SELECT pgkv.drop_table($1)', [qualifiedName(client, table)]);
  return true;
}

/** Refuses a server that belongs to another cluster, or is another shard of this one. */
export async function ensureFirstShardState({ name, client }: ShardConnection, shard: CatalogShard): Promise<void> {
  const present = await readShardState(client);
  if (present === null) return await writeShardState(client, { ...shard, epoch: 1 });
  if (present.name === name && present.epoch === 1 && sameRanges(present.hashSlots, shard.hashSlots)) return;
  throw new CommandFailure(
    1,
    `the server of shard ${name} already is shard ${present.name} of a cluster, with hash slots ` +
      `${slotText(present.hashSlots)} at epoch ${present.epoch}`,
    'Bring back the catalogue of that cluster, or use an empty database.',
  );
}

function qualifiedName(client: DriverClient, { schema, name }: Pick<KvTable, 'schema' | 'name'>): string {
  return `${client.escapeIdentifier(schema)}.${client.escapeIdentifier(name)}`;
}
