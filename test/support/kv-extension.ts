// The pgkv extension on real servers: its script as plain SQL, and a database that has it on every Postgres there is here.
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import t, { type Test } from 'tap';
import { extensionSource } from '../../src/cli/cluster/extension.js';
import { findPostgres, PLAYED_VERSIONS } from './postgres-binaries.js';
import { type PostgresServer, startPostgres } from './postgres-server.js';

/** The folder with the control file and the scripts. */
export const EXTENSION_FOLDER = fileURLToPath(new URL('../../extensions/pgkv', import.meta.url));
export const { sql: EXTENSION_SQL, version: EXTENSION_VERSION } = extensionSource();

export interface KvServer {
  readonly server: PostgresServer;
  /** A session of its own, ended with the test. */
  connect(t: Test, config?: pg.ClientConfig): Promise<pg.Client>;
}

/** Runs tests on each Postgres of this machine; the database `postgres` has pgkv, installed as plain SQL. */
export function onEveryPostgres(run: (t: Test, kv: KvServer) => Promise<void>): void {
  for (const version of PLAYED_VERSIONS) {
    const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
    t.test(`Postgres ${version}`, skip, async (t) => {
      const server = await startPostgres({ version });
      t.teardown(() => server.stop());
      const kv = { server, connect: (t: Test, config?: pg.ClientConfig) => connectTo(t, server, config) };
      const installer = await kv.connect(t);
      await installer.query(EXTENSION_SQL);
      await run(t, kv);
    });
  }
}

/** A session of the superuser in database `postgres`, unless the configuration says otherwise; ended with the test. */
export async function connectTo(t: Test, server: PostgresServer, config: pg.ClientConfig = {}): Promise<pg.Client> {
  const address = { host: server.host, port: server.port, user: server.superuser, database: 'postgres' };
  const client = new pg.Client({ ...address, ...config });
  await client.connect();
  t.teardown(() => client.end());
  return client;
}

/** The only value of a query's only row. */
export async function valueFrom(client: pg.Client, sql: string, parameters: readonly unknown[] = []): Promise<unknown> {
  const rows = await rowsOf(client, sql, parameters);
  if (rows.length !== 1 || rows[0]?.length !== 1) throw new Error(`not one value: ${JSON.stringify(rows)}`);
  return rows[0][0];
}

export async function rowsOf(
  client: pg.Client,
  sql: string,
  parameters: readonly unknown[] = [],
): Promise<unknown[][]> {
  return (await client.query({ text: sql, values: [...parameters], rowMode: 'array' })).rows;
}

/** The error of a statement that must fail. */
export async function errorOf(
  client: pg.Client,
  sql: string,
  parameters: readonly unknown[] = [],
): Promise<pg.DatabaseError> {
  try {
    await client.query(sql, [...parameters]);
  } catch (error) {
    if (error instanceof pg.DatabaseError) return error;
    throw error;
  }
  throw new Error(`succeeded: ${sql}`);
}

/** Resolves when the session waits for a lock of another. */
export async function blocked(observer: pg.Client, session: pg.Client): Promise<void> {
  const { processID } = session as unknown as { processID: number };
  for (let attempt = 0; attempt < 500; attempt++) {
    const waiting = `SELECT count(*)::int FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'`;
    if ((await valueFrom(observer, waiting, [processID])) === 1) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('the session waits for no lock');
}
