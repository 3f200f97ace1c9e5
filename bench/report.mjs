// From single runs to ratios and a table. Machines and their moods differ, so only ratios within one round count: each run is
// divided by another lane's run of the same cell and round, and the median over the rounds is taken.

import { goals, goalText } from './goals.mjs';

const FIGURES = [
  'opsPerSecond',
  'p50Us',
  'p99Us',
  'p999Us',
  'routerCpuUs',
  'routerRssBytes',
  'serverCpuUs',
  'loadCpuUs',
  'idleShare',
  'othersShare',
];
const RATIO_FIGURES = ['opsPerSecond', 'p50Us', 'p99Us', 'p999Us'];

export function median(values) {
  const sorted = values.filter((value) => value !== undefined && !Number.isNaN(value)).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const inCell = (cell) => (run) =>
  ['workload', 'keys', 'protocol', 'clients'].every((name) => cell[name] === undefined || cell[name] === run[name]);

/** Median over the rounds of one figure of `lane` divided by that of `against`; undefined where one was not measured. */
function ratioOf(runs, figure, lane, against) {
  const ratios = runs
    .filter((run) => run.lane === lane)
    .map((run) => run[figure] / runs.find((other) => other.lane === against && other.round === run.round)?.[figure]);
  return median(ratios);
}

/**
 * @param {object[]} runs { workload, keys, protocol, clients, lane, mode, round, opsPerSecond, p50Us, p99Us, p999Us, routerCpuUs?, routerRssBytes?, serverCpuUs?, loadCpuUs?, idleShare?, othersShare? }
 * @returns one entry per cell: { workload, keys, protocol, clients, lanes: { NAME: medians of the figures, and `to` other lanes } }
 */
export function summarise(runs) {
  const cells = new Map();
  for (const { workload, keys, protocol, clients } of runs)
    cells.set(`${workload} ${keys} ${protocol} ${clients}`, { workload, keys, protocol, clients });
  return [...cells.values()].map((cell) => {
    const own = runs.filter(inCell(cell));
    const names = [...new Set(own.map(({ lane }) => lane))].sort();
    return { ...cell, lanes: Object.fromEntries(names.map((name) => [name, summariseLane(own, name, names)])) };
  });
}

function summariseLane(runs, name, names) {
  const own = runs.filter(({ lane }) => lane === name);
  const figures = FIGURES.map((figure) => [figure, median(own.map((run) => run[figure]))]);
  const ratios = names
    .filter((other) => other !== name)
    .map((other) => [other, Object.fromEntries(RATIO_FIGURES.map((of) => [of, ratioOf(runs, of, name, other)]))]);
  return { mode: own[0].mode, ...Object.fromEntries(figures), to: Object.fromEntries(ratios) };
}

const shown = (value, digits, unit = '') => (value === undefined ? '-' : `${value.toFixed(digits)}${unit}`);
const milliseconds = (us) => shown(us === undefined ? undefined : us / 1000, 2);

const percent = (share) => (share === undefined ? undefined : 100 * share);

/** The lane that the table is about. */
const own = ({ pgkv, leased }) => pgkv ?? leased;

const columns = [
  ['work', ({ workload }) => workload],
  ['keys', ({ keys }) => keys],
  ['protocol', ({ protocol }) => protocol],
  ['clients', ({ clients }) => String(clients)],
  ['direct/s', ({ lanes }) => shown(lanes.direct?.opsPerSecond, 0)],
  ['bouncer/s', ({ lanes }) => shown(lanes.pgbouncer?.opsPerSecond, 0)],
  ['pgkv/s', ({ lanes }) => shown(own(lanes)?.opsPerSecond, 0)],
  ['to direct', ({ lanes }) => shown(own(lanes)?.to.direct?.opsPerSecond, 2, '×')],
  ['to bouncer', ({ lanes }) => shown(own(lanes)?.to.pgbouncer?.opsPerSecond, 2, '×')],
  ['p50 ms', ({ lanes }) => milliseconds(own(lanes)?.p50Us)],
  ['p99', ({ lanes }) => milliseconds(own(lanes)?.p99Us)],
  ['p99.9', ({ lanes }) => milliseconds(own(lanes)?.p999Us)],
  ['p99 direct', ({ lanes }) => milliseconds(lanes.direct?.p99Us)],
  ['p99 bouncer', ({ lanes }) => milliseconds(lanes.pgbouncer?.p99Us)],
  ['µs CPU: router', ({ lanes }) => shown(own(lanes)?.routerCpuUs, 1)],
  ['servers', ({ lanes }) => shown(own(lanes)?.serverCpuUs, 1)],
  ['load', ({ lanes }) => shown(own(lanes)?.loadCpuUs, 1)],
  ['idle', ({ lanes }) => shown(percent(own(lanes)?.idleShare), 0, ' %')],
  ['others', ({ lanes }) => shown(percent(own(lanes)?.othersShare), 0, ' %')],
  ['bouncer', ({ lanes }) => shown(lanes.pgbouncer?.routerCpuUs, 1)],
  ['constant', ({ lanes }) => shown(lanes.constant?.routerCpuUs, 1)],
  [
    'MiB',
    ({ lanes }) => {
      const bytes = own(lanes)?.routerRssBytes;
      return shown(bytes === undefined ? undefined : bytes / 2 ** 20, 0);
    },
  ],
];
const TEXT_COLUMNS = 3;

export function formatTable(summary) {
  const measured = columns.filter(([, cell]) => summary.some((entry) => cell(entry) !== '-'));
  const rows = [measured.map(([title]) => title), ...summary.map((entry) => measured.map(([, cell]) => cell(entry)))];
  const widths = measured.map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row) =>
    row
      .map((cell, column) => (column < TEXT_COLUMNS ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}

/** What interrupts take, and what is not seen of processes that come and go, is less. */
const OTHERS_MAX = 0.1;

/** Says that the machine had other work to do, so that the figures are not to be quoted; '' where it had not. */
export function loadedNote(runs) {
  const others = median(runs.map(({ othersShare }) => othersShare));
  if (others === undefined || others <= OTHERS_MAX) return '';
  return `the machine is loaded: other programs had ${shown(percent(others), 0, ' %')} of its cores' time. Ratios within a round hold still, if roughly`;
}

/** The project's promises beside what was measured: `measured` and `met` are undefined where it was not. */
export function judgeGoals(runs) {
  return goals.map((goal) => {
    const measured = measuredFor(goal, runs.filter(inCell(goal)));
    const { atLeast, atMost } = goal;
    const met =
      measured === undefined ? undefined : measured >= (atLeast ?? measured) && measured <= (atMost ?? measured);
    const direct =
      goal.against === undefined ? median(figuresOf(runs.filter(inCell(goal)), 'direct', goal.of)) : undefined;
    return { ...goal, text: goalText(goal), measured, direct, met };
  });
}

const figuresOf = (runs, lane, figure) => runs.filter((run) => run.lane === lane).map((run) => run[figure]);

function measuredFor({ workload, of, against }, runs) {
  if (against !== undefined) return ratioOf(runs, of, 'pgkv', against);
  const figures = figuresOf(runs, 'pgkv', of).filter((figure) => figure !== undefined);
  if (workload !== undefined || figures.length === 0) return median(figures);
  return Math.max(...figures); // of no cell in particular: what must hold in all of them
}
