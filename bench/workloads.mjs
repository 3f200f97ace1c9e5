// The table of workloads. A new one is a script in scripts/ and a row here. Scripts are pgbench scripts; the way they are written
// is for -M extended and prepared, scripts.mjs makes the rest of it. NAME.sql is what an application sends (to pgkv);
// NAME.postgres.sql, where there is one, is what pgkv would make of it, for Postgres asked directly or through PgBouncer.

export const PIPELINE_LENGTH = 20;

/**
 * @typedef {object} Workload
 * @property {string} name
 * @property {string} about for people
 * @property {{ script: string, weight: number }[]} parts
 * @property {number} [pipeline] statements sent before the first answer is awaited
 * @property {boolean} [pgbenchOnly] uses what loader.mjs does not know
 * @property {{ keys: string, protocol: string, clients: number[], quick: number[] }[]} cells where it is measured;
 *   `quick` are the client counts with --quick
 */

const FEW_TO_MANY = [1, 3, 8, 16, 32, 200];

const kvCells = (quick) => [
  { keys: 'uniform', protocol: 'prepared', clients: FEW_TO_MANY, quick },
  { keys: 'uniform', protocol: 'simple', clients: [1, 8, 32, 200], quick: [] },
  { keys: 'zipf', protocol: 'prepared', clients: [32, 200], quick: [] },
  { keys: 'zipf', protocol: 'simple', clients: [32, 200], quick: [] },
];

/** @type {Workload[]} */
export const workloads = [
  {
    name: 'point-read',
    about: 'value and version of one key',
    parts: [{ script: 'point-read', weight: 1 }],
    cells: [...kvCells([1, 8, 32, 200]), { keys: 'uniform', protocol: 'extended', clients: [32], quick: [] }],
  },
  {
    name: 'upsert',
    about: 'INSERT … ON CONFLICT DO UPDATE of one key',
    parts: [{ script: 'upsert', weight: 1 }],
    cells: kvCells([32, 200]),
  },
  {
    name: 'literal-read',
    about: 'point-read with the tenant written in the text, as most applications do',
    parts: [{ script: 'literal-read', weight: 1 }],
    cells: [{ keys: 'uniform', protocol: 'prepared', clients: FEW_TO_MANY, quick: [32, 200] }],
  },
  {
    name: 'literal-upsert',
    about: 'upsert with the tenant written in the text',
    parts: [{ script: 'literal-upsert', weight: 1 }],
    cells: [{ keys: 'uniform', protocol: 'prepared', clients: FEW_TO_MANY, quick: [32, 200] }],
  },
  {
    name: 'cas-update',
    about: 'reads a version, then UPDATE … WHERE version = that; both are one operation',
    parts: [{ script: 'cas-update', weight: 1 }],
    pgbenchOnly: true,
    cells: kvCells([]),
  },
  {
    name: 'cas-function',
    about: 'reads a version, then kv_cas expecting it; both are one operation',
    parts: [{ script: 'cas-function', weight: 1 }],
    pgbenchOnly: true,
    cells: kvCells([]),
  },
  {
    name: 'mix',
    about: '95 % point reads, 5 % upserts',
    parts: [
      { script: 'point-read', weight: 95 },
      { script: 'upsert', weight: 5 },
    ],
    cells: kvCells([200]),
  },
  {
    name: 'pipelined-read',
    about: `point reads, ${PIPELINE_LENGTH} to a pipeline; latencies are those of whole pipelines`,
    parts: [{ script: 'point-read', weight: 1 }],
    pipeline: PIPELINE_LENGTH,
    cells: [
      { keys: 'uniform', protocol: 'prepared', clients: [1, 16], quick: [16] },
      { keys: 'zipf', protocol: 'prepared', clients: [16], quick: [] },
    ],
  },
  {
    name: 'ordinary-read',
    about: 'one row of an ordinary table by its primary key',
    parts: [{ script: 'ordinary-read', weight: 1 }],
    cells: [
      { keys: 'uniform', protocol: 'extended', clients: [1, 8, 32], quick: [32] },
      { keys: 'uniform', protocol: 'prepared', clients: [32], quick: [] },
    ],
  },
];

/** @returns {{ workload: Workload, keys: string, protocol: string, clients: number }[]} what a run measures, lane after lane */
export function cellsOf({ workloads: chosen, keys, protocols, clients, quick, generator }) {
  const isNarrowed = keys !== undefined || protocols !== undefined || clients !== undefined;
  return chosen
    .filter(({ pgbenchOnly }) => !(pgbenchOnly && generator === 'loader'))
    .flatMap((workload) =>
      workload.cells
        .filter((cell) => keys?.includes(cell.keys) ?? true)
        .filter((cell) => protocols?.includes(cell.protocol) ?? true)
        .filter((cell) => !(cell.protocol === 'simple' && generator === 'loader'))
        .flatMap((cell) =>
          (clients ?? (quick && !isNarrowed ? cell.quick : cell.clients)).map((count) => ({
            workload,
            keys: cell.keys,
            protocol: cell.protocol,
            clients: count,
          })),
        ),
    );
}
