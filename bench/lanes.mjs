// The ways to the same Postgres that a run compares. A new lane is a row in `lanes`; which query modes are measured on which lane
// and where is the table `variants`. PgBouncer 1.18 knows no protocol-level prepared statements in transaction mode, so everything
// is compared with pgbench's `-M extended` (parse, bind, execute each time); prepared is shown beside it where it works.

import { startPgbouncer, startPgkv } from './servers.mjs';

export const POOL_SIZE = 20;

/**
 * @typedef {object} Lane
 * @property {string} name
 * @property {(context: { scratch: string, postgres: object }) => Promise<{ name: string, port: number, pid?: number } | undefined>} start
 *   undefined where its program is not installed; `pid` is the process whose CPU and memory are the lane's cost
 */

/** @type {Lane[]} */
export const lanes = [
  { name: 'direct', start: async ({ postgres }) => ({ name: postgres.name, port: postgres.port }) },
  { name: 'pgbouncer', start: ({ scratch, postgres }) => startPgbouncer({ scratch, postgres, poolSize: POOL_SIZE }) },
  { name: 'pgkv', start: ({ scratch, postgres }) => startPgkv({ scratch, postgres, poolSize: POOL_SIZE }) },
];

export const clientCounts = [1, 8, 32];

/** In --quick prepared statements are measured at one client count only. */
export const variants = [
  { lane: 'direct', mode: 'extended', quickClients: clientCounts },
  { lane: 'pgbouncer', mode: 'extended', quickClients: clientCounts },
  { lane: 'pgkv', mode: 'extended', quickClients: clientCounts },
  { lane: 'direct', mode: 'prepared', quickClients: [32] },
  { lane: 'pgkv', mode: 'prepared', quickClients: [32] },
];

export const variantName = ({ lane, mode }) => (mode === 'extended' ? lane : `${lane} ${mode}`);
/** What all others are divided by. */
export const BASE = 'direct';
