// From single runs to ratios and a table. Machines and their moods differ, so only ratios within one round count: each run is
// divided by the base lane's run of the same round, and the median over the rounds is taken.

import { BASE, variantName } from './lanes.mjs';

export function median(values) {
  const sorted = values.filter((value) => value !== undefined && !Number.isNaN(value)).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Median over the rounds of `measure(run of name) / measure(run of other)`. */
function ratioOf(runs, name, other) {
  const rounds = [...new Set(runs.map(({ round }) => round))];
  const tps = (round, variant) => runs.find((run) => run.round === round && run.variant === variant)?.tps;
  return median(rounds.map((round) => tps(round, name) / tps(round, other)));
}

/**
 * @param {object[]} runs { workload, clients, variant, round, tps, latencyUs, routerCpuUs?, routerRssBytes? }
 * @returns one entry per workload, client count and variant
 */
export function summarise(runs, variants) {
  const summary = [];
  const cells = new Set(runs.map(({ workload, clients }) => `${workload}\0${clients}`));
  for (const cell of cells) {
    const [workload, clients] = cell.split('\0');
    const own = runs.filter((run) => run.workload === workload && run.clients === Number(clients));
    for (const variant of variants.map(variantName)) {
      const those = own.filter((run) => run.variant === variant);
      if (those.length === 0) continue;
      summary.push({
        workload,
        clients: Number(clients),
        variant,
        tps: median(those.map(({ tps }) => tps)),
        latencyUs: median(those.map(({ latencyUs }) => latencyUs)),
        toDirect: ratioOf(own, variant, BASE),
        toPgbouncer: ratioOf(own, variant, 'pgbouncer'),
        routerCpuUs: median(those.map(({ routerCpuUs }) => routerCpuUs)),
        routerRssBytes: median(those.map(({ routerRssBytes }) => routerRssBytes)),
      });
    }
  }
  return summary;
}

const shown = (value, digits, unit = '') => (value === undefined ? '-' : `${value.toFixed(digits)}${unit}`);

const columns = [
  ['workload', ({ workload }) => workload],
  ['clients', ({ clients }) => String(clients)],
  ['way', ({ variant }) => variant],
  ['per second', ({ tps }) => shown(tps, 0)],
  ['latency', ({ latencyUs }) => shown(latencyUs, 0, ' µs')],
  ['to direct', ({ toDirect }) => shown(toDirect, 2, '×')],
  ['to pgbouncer', ({ toPgbouncer }) => shown(toPgbouncer, 2, '×')],
  ['router CPU', ({ routerCpuUs }) => shown(routerCpuUs, 1, ' µs/op')],
  [
    'router RSS',
    ({ routerRssBytes }) => shown(routerRssBytes === undefined ? undefined : routerRssBytes / 2 ** 20, 0, ' MiB'),
  ],
];

export function formatTable(summary) {
  const rows = [columns.map(([title]) => title), ...summary.map((entry) => columns.map(([, cell]) => cell(entry)))];
  const widths = columns.map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const isText = (column) => column === 0 || column === 2;
  const line = (row) =>
    row
      .map((cell, column) => (isText(column) ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}

/** The project's promises beside what was measured. */
export function judgeGoals(workloads, runs) {
  return workloads.flatMap((workload) =>
    workload.goals.map((goal) => {
      const own = runs.filter((run) => run.workload === workload.name && run.clients === goal.clients);
      const measured = ratioOf(own, goal.lane, goal.against);
      return {
        workload: workload.name,
        ...goal,
        measured,
        met: measured === undefined ? undefined : measured >= goal.atLeast,
      };
    }),
  );
}
