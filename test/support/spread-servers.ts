// Servers for statements that write on several shards, with plain Postgres beside them (a database of the first server) that gets
// the same, and a way to compare what both have said: forms of messages that do not say where a row lies.
import type pg from 'pg';
import type { Test } from 'tap';
import type { BackendMessage } from './backend-message.js';
import type { FrontendMessage } from './frontend-message.js';
import { type KvServers, kvRouter, kvServers } from './kv-cluster.js';
import { connectTo, rowsOf, valueFrom } from './kv-extension.js';
import type { LiveRouter } from './live-router.js';
import type { PostgresServer } from './postgres-server.js';
import { SqlClient } from './sql-client.js';

export const TENANTS = ['acme', 'globex', "o'hara"];
export const COLUMNS = 'tenant_id, key, value, ttl IS NULL';

/** Role app, which may do all with table kv, and for which transactions over several shards can be recovered. */
export const GRANTS = `CREATE ROLE app LOGIN; CREATE ROLE pgkv_recover LOGIN NOINHERIT; GRANT app TO pgkv_recover;
  GRANT EXECUTE ON FUNCTION pgkv.settle(text), pgkv.collect_decisions(text[]) TO pgkv_recover; GRANT ALL ON kv TO app`;
const PLAIN_TABLE = `CREATE TABLE kv (tenant_id text COLLATE "C", key text COLLATE "C", version bigint NOT NULL DEFAULT 1,
  value jsonb, ttl timestamptz, updated_at timestamptz NOT NULL DEFAULT statement_timestamp(), PRIMARY KEY (tenant_id, key));
  GRANT ALL ON kv TO app`;

export interface SpreadServers {
  readonly cluster: KvServers;
  readonly live: LiveRouter;
  /** A superuser on each shard. */
  readonly admins: readonly pg.Client[];
  /** Through pgkv, and to plain Postgres. */
  readonly client: SqlClient;
  readonly plain: SqlClient;
  /** The same rows on both: twelve keys of each tenant. */
  fill(): Promise<void>;
  rows(of: SqlClient): Promise<(string | null)[][]>;
  /** What is prepared on any shard. */
  prepared(): Promise<unknown[]>;
  /** How many transactions over shards have been decided. */
  decisions(): Promise<number>;
}

/** @param standIn what the router is to take for a server */
export async function spreadServers(
  t: Test,
  version: '15' | 'embedded',
  shards: number,
  standIn: (server: PostgresServer) => Promise<PostgresServer> = async (server) => server,
): Promise<SpreadServers> {
  const cluster = await kvServers(t, shards, { version, stated: true });
  const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
  for (const admin of admins) await admin.query(GRANTS);
  await admins[0]!.query('CREATE DATABASE plain');
  const plainAdmin = await connectTo(t, cluster.servers[0]!, { database: 'plain' });
  await plainAdmin.query(PLAIN_TABLE);
  const seen: PostgresServer[] = [];
  for (const server of cluster.servers) seen.push(await standIn(server));
  const live = await kvRouter(t, { ...cluster, servers: seen });
  const client = await live.connect({ user: 'app' });
  const plain = await SqlClient.connect(cluster.servers[0]!, { user: 'app', database: 'plain' });
  t.teardown(() => plain.end());
  return {
    cluster,
    live,
    admins,
    client,
    plain,
    rows: (of) => of.rows(`SELECT ${COLUMNS} FROM kv ORDER BY tenant_id, key`),
    async fill() {
      for (const one of [client, plain]) await one.run(`DELETE FROM kv`);
      for (const tenant of TENANTS) {
        for (let n = 0; n < 12; n++) {
          const values = `(${literal(tenant)}, 'k${n}', '{"n": ${n}}')`;
          for (const one of [client, plain]) await one.run(`INSERT INTO kv (tenant_id, key, value) VALUES ${values}`);
        }
      }
    },
    prepared: async () =>
      (await Promise.all(admins.map((admin) => rowsOf(admin, 'SELECT gid FROM pg_prepared_xacts')))).flat(),
    async decisions() {
      const counts = await Promise.all(admins.map((admin) => valueFrom(admin, 'SELECT count(*) FROM pgkv.decisions')));
      return counts.reduce<number>((sum, count) => sum + Number(count), 0);
    },
  };
}

export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

export interface Comparison {
  /** The rows come in no certain order. */
  readonly unordered?: boolean;
}

/**
 * What is said to messages of one batch, without what may differ: where tables and columns are, and in which order rows of an
 * UPDATE or DELETE come. Of what fails only the error counts: pgkv reads values when they are run.
 */
export async function said(
  of: SqlClient,
  messages: readonly FrontendMessage[],
  { unordered = false }: Comparison = {},
): Promise<unknown[]> {
  const answers = await of.send(messages);
  const failed = answers.find(({ type }) => type === 'ErrorResponse');
  const told = answers.filter(({ type }) => type !== 'NoticeResponse' && type !== 'ParameterStatus');
  if (failed?.type === 'ErrorResponse') {
    const { C, M, P } = failed.fields;
    return [C, M, P, told.at(-1)];
  }
  const forms = told.map(formOf);
  if (!unordered) return forms;
  const rows = forms.filter((form) => form[0] === 'DataRow').map((form) => JSON.stringify(form));
  // Which ones come first is open, too.
  if (!told.some(({ type }) => type === 'CommandComplete')) rows.fill('a row');
  return [...forms.filter((form) => form[0] !== 'DataRow'), ...rows.sort()];
}

function formOf(message: BackendMessage): readonly unknown[] {
  switch (message.type) {
    case 'RowDescription':
      return [
        message.type,
        ...message.columns.map(({ name, typeOid, typeModifier, format }) => [name, typeOid, typeModifier, format]),
      ];
    case 'DataRow':
      return [message.type, ...message.values.map((value) => value?.toString('hex') ?? null)];
    default:
      return [message.type, JSON.stringify(message)];
  }
}
