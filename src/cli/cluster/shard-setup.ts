// What a shard holds so that pgkv can serve from it: extension, tables, and the row that says which shard it is. Each
// step looks first, so that a command that failed half way is simply run again.
import type { CatalogShard, CatalogState } from '../../catalog/catalog-state.js';
import type { KvTable } from '../../cluster/kv-table.js';
import { CommandFailure } from '../command-failure.js';
import type { DriverClient } from '../connect.js';
import { type ExtensionSource, installExtension, installedExtension, isOlder, updateExtension } from './extension.js';
import { RECOVER_ROLE, readRecovery } from './recovery-check.js';
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

/**
 * @returns what each says about itself
 * @throws CommandFailure for every server that is not usable, and where two shards are one server
 */
export async function requireUsableServers(connections: readonly ShardConnection[]): Promise<ServerFacts[]> {
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
  return facts;
}

export type ExtensionOutcome = 'installed' | 'updated' | 'present';

/** Installs it, or brings an older version to ours. @throws CommandFailure where that cannot be done */
export async function ensureExtension(
  { name, client }: ShardConnection,
  source: ExtensionSource,
): Promise<ExtensionOutcome> {
  const installed = await installedExtension(client);
  if (installed.kind === 'none') {
    await installExtension(client, source);
    return 'installed';
  }
  if (installed.version === source.version) return 'present';
  const older = isOlder(installed.version, source.version);
  if (older && (await updateExtension(client, installed, source))) return 'updated';
  throw new CommandFailure(
    1,
    `shard ${name} has version ${installed.version} of the extension pgkv, this program needs ${source.version}`,
    older
      ? `Put the files of ${source.version} (extensions/pgkv) among that server's extensions, and run pgkv init again.`
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

/** Behind what was dropped and made anew of the extension: the default may be gone with it, and how far versions had come. */
export async function restoreVersions(client: DriverClient, table: KvTable): Promise<void> {
  const { rowCount } = await client.query(
    `SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = 'version' AND NOT a.atthasdef`,
    [table.schema, table.name],
  );
  const name = qualifiedName(client, table);
  if (rowCount !== 0) await client.query(`ALTER TABLE ${name} ALTER version SET DEFAULT pgkv.first_version()`);
  await client.query(
    `SELECT pgkv.keep_versions_above(pg_catalog.max(version)) FROM ${name} HAVING pg_catalog.count(*) > 0`,
  );
}

/** @returns whether it was there */
export async function dropTable({ client }: ShardConnection, table: KvTable): Promise<boolean> {
  if ((await readTableDefinition(client, table)) === null) return false;
  await client.query('SELECT pgkv.drop_table($1)', [qualifiedName(client, table)]);
  return true;
}

/**
 * Writes who this server is. Refuses one that belongs to another cluster, or is another shard of this one.
 * @param isNew the catalogue is still to be written: nobody can have changed the map
 */
export async function ensureShardState(
  { name, client }: ShardConnection,
  shard: CatalogShard,
  { epoch, clusterId }: Pick<CatalogState, 'epoch' | 'clusterId'>,
  isNew: boolean,
): Promise<void> {
  const present = await readShardState(client);
  const wanted = { name, hashSlots: shard.hashSlots, epoch, clusterId };
  if (present === null) return await writeShardState(client, wanted);
  const isOurs = present.name === name && (present.clusterId ?? clusterId) === clusterId;
  const isSame = isNew
    ? present.epoch === epoch && sameRanges(present.hashSlots, shard.hashSlots)
    : present.epoch <= epoch;
  if (isOurs && isSame) return await writeShardState(client, wanted);
  throw new CommandFailure(
    1,
    `the server of shard ${name} already is shard ${present.name} of a cluster, with hash slots ` +
      `${slotText(present.hashSlots)} at epoch ${present.epoch}`,
    'Bring back the catalogue of that cluster, or use an empty database.',
  );
}

/** What pgkv's own role does on a shard while it serves: heartbeats. Nothing where the role is not there. */
export async function grantService({ client }: ShardConnection, service: string): Promise<void> {
  const { rowCount } = await client.query('SELECT FROM pg_catalog.pg_roles WHERE rolname = $1', [service]);
  if (rowCount === 0) return;
  const role = client.escapeIdentifier(service);
  await client.query(`GRANT USAGE ON SCHEMA pgkv TO ${role}; GRANT EXECUTE ON FUNCTION pgkv.beat() TO ${role}`);
}

/**
 * What pgkv_recover needs to finish transactions over several shards (D14): its functions, and to act for every role that may
 * log in, as far as who asks may grant that. Nothing where that role is not there: auth.sql makes it, if it is wanted.
 */
export async function grantRecovery({ client }: ShardConnection, service: string): Promise<void> {
  const { exists, grantable } = await readRecovery(client, service);
  if (!exists) return;
  await client.query(`GRANT USAGE ON SCHEMA pgkv TO ${RECOVER_ROLE};
    GRANT EXECUTE ON FUNCTION pgkv.settle(text), pgkv.collect_decisions(text[]) TO ${RECOVER_ROLE}`);
  const { rows } = await client.query<{ options: string }>(`
    SELECT CASE WHEN current_setting('server_version_num')::int >= 160000
                THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END AS options`);
  for (const role of grantable) {
    await client.query(`GRANT ${client.escapeIdentifier(role)} TO ${RECOVER_ROLE}${rows[0]!.options}`);
  }
}

function qualifiedName(client: DriverClient, { schema, name }: Pick<KvTable, 'schema' | 'name'>): string {
  return `${client.escapeIdentifier(schema)}.${client.escapeIdentifier(name)}`;
}
