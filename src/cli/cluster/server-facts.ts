// What a shard's primary says about itself, in one query that Postgres 15 to 18 all answer.
import type { DriverClient } from '../connect.js';

export const SERVER_MAJOR_MIN = 15;
export const SERVER_MAJOR_MAX = 18;

export interface ServerFacts {
  /** 18 for 18.4. */
  readonly major: number;
  readonly version: string;
  readonly encoding: string;
  /** Name of the database's collation, for messages. */
  readonly collation: string;
  /** Text of no stated collation sorts by its bytes. */
  readonly sortsByBytes: boolean;
  readonly inRecovery: boolean;
  /** The same for two connections to one running server, whatever the way to it; differs for copies of one. */
  readonly identity: string;
  /** Of its data, in decimal: a primary's and its standbys'. */
  readonly systemIdentifier: string;
  readonly connectionsMax: number;
  /** Kept back for superusers and, from 16 on, for members of pg_use_reserved_connections. */
  readonly connectionsReserved: number;
  readonly preparedTransactionsMax: number;
  /** The server's clock against this machine's, milliseconds; positive: the server's is ahead. */
  readonly clockOffsetMs: number;
  /** Half the time the question took: the offset is not known better. */
  readonly clockDoubtMs: number;
}

// Builtin collations (17) sort by code point, which for UTF-8 is the order of bytes.
const FACTS = `
  SELECT current_setting('server_version_num')::int / 10000 AS major,
         current_setting('server_version') AS version,
         current_setting('server_encoding') AS encoding,
         d.datcollate AS collation,
         d.datlocprovider = 'b' OR d.datlocprovider = 'c' AND d.datcollate IN ('C', 'POSIX') AS sorts_by_bytes,
         pg_catalog.pg_is_in_recovery() AS in_recovery,
         (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier, extract(epoch FROM pg_catalog.pg_postmaster_start_time()) AS started_at,
         current_setting('max_connections')::int AS connections_max,
         current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true), '0')::int AS connections_reserved,
         current_setting('max_prepared_transactions')::int AS prepared_transactions_max
    FROM pg_catalog.pg_database d
   WHERE d.datname = current_database()`;
const CLOCK = `SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS now_ms`;
/** The quickest of these answers tells the time best. */
const CLOCK_SAMPLES = 3;

export async function readServerFacts(client: DriverClient): Promise<ServerFacts> {
  const { rows } = await client.query(FACTS);
  const [row] = rows;
  return {
    major: row.major,
    version: row.version,
    encoding: row.encoding,
    collation: row.collation,
    sortsByBytes: row.sorts_by_bytes,
    inRecovery: row.in_recovery,
    identity: `${row.system_identifier}/${row.started_at}`,
    systemIdentifier: row.system_identifier,
    connectionsMax: row.connections_max,
    connectionsReserved: row.connections_reserved,
    preparedTransactionsMax: row.prepared_transactions_max,
    ...(await readClock(client)),
  };
}

async function readClock(client: DriverClient): Promise<Pick<ServerFacts, 'clockOffsetMs' | 'clockDoubtMs'>> {
  let best = { clockOffsetMs: 0, clockDoubtMs: Number.POSITIVE_INFINITY };
  for (let sample = 0; sample < CLOCK_SAMPLES; sample++) {
    const askedAt = Date.now();
    const startedAt = performance.now();
    const { rows } = await client.query<{ now_ms: number }>(CLOCK);
    const clockDoubtMs = (performance.now() - startedAt) / 2;
    if (clockDoubtMs >= best.clockDoubtMs) continue;
    best = { clockOffsetMs: rows[0]!.now_ms - (askedAt + clockDoubtMs), clockDoubtMs };
  }
  return best;
}
