// The table of workloads. A new one is a script in scripts/ and a row here; what it needs in the database goes into `setup`.
// Scripts are pgbench scripts, so that pgbench and loader.mjs (for machines without pgbench) run the very same text; the loader
// knows `\set NAME random(LOW, HIGH)` and one statement a line.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ORDINARY_ROWS = 100_000;

/**
 * @typedef {object} Workload
 * @property {string} name
 * @property {string} about for people
 * @property {string[]} setup statements that make what the script uses; run once
 * @property {{ clients: number, lane: string, against: string, atLeast: number }[]} goals ratios that the project promises
 */

/** @type {Workload[]} */
export const workloads = [
  {
    name: 'point-read',
    about: `one row of an ordinary table of ${ORDINARY_ROWS} rows by its primary key`,
    setup: [
      'CREATE TABLE bench_ordinary (id int PRIMARY KEY, value text NOT NULL)',
      `INSERT INTO bench_ordinary SELECT i, rpad(md5(i::text), 100, 'x') FROM generate_series(1, ${ORDINARY_ROWS}) AS i`,
      'VACUUM (ANALYZE) bench_ordinary',
    ],
    goals: [{ clients: 32, lane: 'pgkv', against: 'pgbouncer', atLeast: 0.85 }],
  },
];

/** Path of a workload's pgbench script. */
export function scriptOf(workload) {
  return fileURLToPath(new URL(`scripts/${workload.name}.sql`, import.meta.url));
}

/**
 * A pgbench script in the loader's form: the random variables, and statements whose :names became $1, $2 ….
 * @returns {{ variables: Map<string, { low: number, high: number }>, statements: { sql: string, parameters: string[] }[] }}
 */
export function parseScript(path) {
  const variables = new Map();
  const statements = [];
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (line.trim() === '' || line.startsWith('--')) continue;
    if (line.startsWith('\\')) {
      const [, name, low, high] = line.match(/^\\set (\w+) random\((\d+), (\d+)\)$/) ?? [];
      if (name === undefined) throw new Error(`${path}: the loader does not know "${line}"`);
      variables.set(name, { low: Number(low), high: Number(high) });
      continue;
    }
    const parameters = [];
    const sql = line.replace(/;\s*$/, '').replace(/(?<!:):([a-z]\w*)/gi, (_, name) => {
      if (!variables.has(name)) throw new Error(`${path}: ":${name}" is used before it is set`);
      parameters.push(name);
      return `$${parameters.length}`;
    });
    statements.push({ sql, parameters });
  }
  if (statements.length === 0) throw new Error(`${path} holds no statement`);
  return { variables, statements };
}
