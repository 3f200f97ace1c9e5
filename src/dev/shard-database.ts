// What a shard of `pgkv dev` has when its server answers: the role that everybody on this machine may log in as, no superuser,
// and the database that it owns. Made as the superuser, over the socket.
import pg from 'pg';
import { EmbeddedClusterError } from './embedded-cluster-error.js';
import { SUPERUSER } from './server-settings.js';

const INVALID_AUTHORIZATION = '28000';

/**
 * Also mends data whose first start was cut off in between.
 * @throws EmbeddedClusterError for data of a pgkv whose role was a superuser
 */
export async function prepareDatabase(
  { host, port }: { readonly host: string; readonly port: number },
  dataDir: string,
  role: string,
  database: string,
): Promise<void> {
  const client = new pg.Client({ host, port, user: SUPERUSER, database: 'postgres', ssl: false });
  await client.connect().catch((error: unknown) => {
    if (!(error instanceof pg.DatabaseError) || error.code !== INVALID_AUTHORIZATION) throw error;
    throw new EmbeddedClusterError(`${dataDir} was made by a pgkv whose role ${role} was a superuser`, {
      hint: 'Dump it with the pgkv that made it and restore into an empty --data-dir.',
      cause: error,
    });
  });
  try {
    const [name, owned] = [client.escapeIdentifier(role), client.escapeIdentifier(database)];
    const roles = await client.query('SELECT FROM pg_catalog.pg_roles WHERE rolname = $1', [role]);
    // pg_monitor: statistics and settings of the whole server. Trusted extensions are the owner's to make.
    if (roles.rowCount === 0) {
      await client.query(`CREATE ROLE ${name} LOGIN CREATEDB CREATEROLE IN ROLE pg_monitor`);
    }
    // Finishes transactions over several shards that were left behind (D14). Set without rights of its own.
    const recoverers = await client.query(`SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgkv_recover'`);
    if (recoverers.rowCount === 0) {
      await client.query(`CREATE ROLE pgkv_recover LOGIN NOINHERIT; GRANT ${name} TO pgkv_recover`);
    }
    const databases = await client.query('SELECT FROM pg_catalog.pg_database WHERE datname = $1', [database]);
    if (databases.rowCount === 0) await client.query(`CREATE DATABASE ${owned} OWNER ${name}`);
  } finally {
    await client.end();
  }
}
