// The servers for `run.mjs --servers KIND`, started for one run and ended after it.

import { createScratch, stopServers, stopServersOnSignals } from '../../bench/processes.mjs';
import { startPgkv, startPgkvDev, startPostgres } from '../../bench/servers.mjs';

// Fewer server connections than the programs open: their sessions must take turns on them.
const POOL_SIZE = 8;

export const serverKinds = ['pgkv', 'dev', 'plain'];

/**
 * @param {string} kind one of serverKinds
 * @returns where to connect, and (except for plain) `against`, the port of the Postgres behind
 */
export async function startServers(kind) {
  stopServersOnSignals();
  const scratch = createScratch('compat');
  try {
    const servers = await start(kind, scratch);
    return { host: '127.0.0.1', ...servers, stop: stopServers };
  } catch (error) {
    await stopServers();
    throw error;
  }
}

async function start(kind, scratch) {
  if (kind === 'dev') {
    const { port, shardPort, user, database } = await startPgkvDev({ scratch });
    return { port, against: shardPort, user, database, password: undefined };
  }
  const account = { user: 'compat', password: 'open sesame', database: 'compat' };
  // 15 is what psql and pg_dump beside it know in full.
  const postgres = await startPostgres({ scratch, label: 'postgres', ...account, newest: 15 });
  if (kind === 'plain') return { port: postgres.port, ...account };
  const pgkv = await startPgkv({ scratch, postgres, poolSize: POOL_SIZE });
  return { port: pgkv.port, against: postgres.port, ...account };
}
