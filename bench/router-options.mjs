// What the single-figure benches (idle-clients, distinct-texts, stream-large-result) share: a router of their own, or one that is already running.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { createScratch, LOOPBACK, stopServersOnSignals } from './processes.mjs';
import { startPgkv, startPostgres } from './servers.mjs';

const routerOptions = {
  port: { type: 'string' },
  pid: { type: 'string' },
  user: { type: 'string' },
  database: { type: 'string' },
  assert: { type: 'boolean' },
};

/**
 * Reads the command line; without --port and --pid it starts Postgres and pgkv.
 * @param {string} label for the scratch folder
 * @param {Record<string, object>} own further options, as util.parseArgs takes them
 * @param {{ shardCount?: number, withCatalog?: boolean, nodeOptions?: string[] }} cluster with a catalogue there is table kv
 * @returns {Promise<{ router: { host: string, port: number, pid: number, user: string, database: string }, values: Record<string, any> }>}
 */
export async function openRouter(label, own, { shardCount = 1, withCatalog = false, nodeOptions = [] } = {}) {
  const { values } = parseArgs({ options: { ...routerOptions, ...own } });
  if (values.port !== undefined && values.pid !== undefined) {
    const { user = 'pgkv', database = 'kv' } = values;
    return { router: { host: LOOPBACK, port: Number(values.port), pid: Number(values.pid), user, database }, values };
  }
  stopServersOnSignals();
  const scratch = createScratch(label);
  const shards = [];
  while (shards.length < shardCount) {
    const name = shardCount === 1 ? 'postgres' : `postgres-${shards.length + 1}`;
    shards.push(await startPostgres({ scratch, label: name, user: 'bench', database: 'bench', newest: 15 }));
  }
  const router = await startPgkv({ scratch, postgres: shards[0], shards, poolSize: 60, withCatalog, nodeOptions });
  console.log(`${router.name} in front of ${shards.length} × ${shards[0].name}, Node ${process.version}`);
  return { router, values };
}

/** How many files this process may have open, sockets included. */
export function openFilesMax() {
  try {
    const line = readFileSync('/proc/self/limits', 'latin1').match(/^Max open files\s+(\d+)/m);
    return line ? Number(line[1]) : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
