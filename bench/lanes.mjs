// The ways to the same Postgres that a run compares, and how each speaks a protocol. A new lane is a row in `lanes`. PgBouncer before
// 1.21 knows no protocol-level prepared statements in transaction mode: beside prepared ones it gets `-M extended` (parse, bind,
// execute each time). The first `pgbouncer` in PATH is taken.

import { startConstantServer, startPgbouncer, startPgkv } from './servers.mjs';

export const POOL_SIZE = 20;
export const protocols = ['prepared', 'simple', 'extended'];

/**
 * @typedef {object} Lane
 * @property {string} name
 * @property {'pgkv' | 'postgres'} dialect which form of a script it gets
 * @property {boolean} [onRequest] only measured where --lanes names it
 * @property {(cell: { workload: object, protocol: string }) => boolean} [takes] cells that it can do; default all
 * @property {Record<string, string>} modes by protocol, pgbench's query mode where it is another
 * @property {(context: { scratch: string, postgres: object, pgkvOptions: object }) => Promise<{ name: string, host: string, port: number, pid?: number } | undefined>} start
 *   undefined where its program is not installed; `pid` is the process whose CPU and memory are the lane's cost
 */

/** @type {Lane[]} */
export const lanes = [
  {
    name: 'direct',
    dialect: 'postgres',
    modes: {},
    start: async ({ postgres }) => ({ name: postgres.name, host: postgres.host, port: postgres.port }),
  },
  {
    name: 'pgbouncer',
    dialect: 'postgres',
    modes: { prepared: 'extended' },
    start: ({ scratch, postgres }) => startPgbouncer({ scratch, postgres, poolSize: POOL_SIZE }),
  },
  {
    name: 'pgkv',
    dialect: 'pgkv',
    modes: {},
    start: ({ scratch, postgres, pgkvOptions }) =>
      startPgkv({ scratch, postgres, poolSize: POOL_SIZE, withCatalog: true, ...pgkvOptions }),
  },
  {
    name: 'leased',
    onRequest: true,
    dialect: 'pgkv',
    modes: {},
    start: ({ scratch, postgres, pgkvOptions }) =>
      startPgkv({
        scratch,
        postgres,
        label: 'leased',
        poolSize: POOL_SIZE,
        withCatalog: true,
        mergedDisabled: true,
        ...pgkvOptions,
      }),
  },
  {
    name: 'constant',
    onRequest: true,
    takes: ({ workload, protocol }) => workload.name === 'point-read' && protocol === 'prepared',
    dialect: 'pgkv',
    modes: {},
    start: startConstantServer,
  },
];

export const takes = (lane, cell) => lane.takes?.(cell) ?? true;
/** @param server of the lane, which may have a say in it */
export const modeOf = (lane, protocol, server) => (server.modes ?? lane.modes)[protocol] ?? protocol;
