// The figures that the project promises, each for one cell (workload, keys, protocol, clients). `of` is a field of a run;
// `against` makes it a ratio, the median over the rounds of pgkv's run to the other lane's of the same round.

const MIB = 2 ** 20;

const cell = (workload, clients, protocol = 'prepared') => ({ workload, keys: 'uniform', protocol, clients });
const faster = (where, direct, pgbouncer) =>
  Object.entries({ direct, pgbouncer }).flatMap(([against, atLeast]) =>
    atLeast === undefined ? [] : [{ ...where, of: 'opsPerSecond', against, atLeast }],
  );

/** @type {{ workload?: string, keys?: string, protocol?: string, clients?: number, of: string, against?: string, atLeast?: number, atMost?: number }[]} */
export const goals = [
  ...faster(cell('point-read', 200), 2, 3),
  ...faster(cell('point-read', 32), 1.15, 2.2),
  ...faster(cell('point-read', 8), undefined, 1),
  ...faster(cell('point-read', 1), undefined, 0.9),
  ...faster(cell('point-read', 200, 'simple'), 3.5, 2.8),
  ...faster(cell('point-read', 32, 'simple'), 2, 2.2),
  ...faster(cell('pipelined-read', 16), 1.1, undefined),
  ...faster(cell('upsert', 200), 4, 5),
  ...faster(cell('upsert', 32), 1.3, 2.5),
  ...faster(cell('cas-update', 200), 3, 3.5),
  ...faster(cell('cas-function', 200), 3, 3.5),
  ...faster(cell('mix', 200), 2, 3),
  { ...cell('point-read', 32), of: 'p99Us', against: 'direct', atMost: 1 },
  { ...cell('point-read', 32), of: 'p99Us', against: 'pgbouncer', atMost: 0.7 },
  { ...cell('point-read', 32), of: 'p99Us', atMost: 5000 },
  { ...cell('upsert', 32), of: 'p99Us', atMost: 20_000 },
  { ...cell('point-read', 32), of: 'routerCpuUs', atMost: 12 },
  { of: 'routerRssBytes', atMost: 250 * MIB },
  ...faster(cell('ordinary-read', 32, 'extended'), undefined, 0.85),
];

/** Whether one of them is about this cell. */
export const hasGoal = ({ workload, keys, protocol, clients }) =>
  goals.some(
    (goal) =>
      goal.workload === workload.name && goal.keys === keys && goal.protocol === protocol && goal.clients === clients,
  );

/** What is promised here, in words. */
export function goalText({ workload, keys, protocol, clients, of, against, atLeast, atMost }) {
  const where = workload === undefined ? 'everywhere' : `${workload}, ${keys}, ${protocol}, ${clients} clients`;
  const bound = atLeast ?? atMost;
  const shown = against === undefined ? amount(of, bound) : `${bound}× of ${against}`;
  return `${where}: ${fieldNames[of]} ${atLeast === undefined ? 'at most' : 'at least'} ${shown}`;
}

const fieldNames = {
  opsPerSecond: 'operations a second',
  p99Us: 'p99',
  routerCpuUs: 'router CPU an operation',
  routerRssBytes: 'router memory',
};

export function amount(field, value) {
  if (value === undefined) return '-';
  if (field === 'routerRssBytes') return `${(value / MIB).toFixed(0)} MiB`;
  if (field === 'p99Us') return `${(value / 1000).toFixed(2)} ms`;
  if (field === 'routerCpuUs') return `${value.toFixed(1)} µs`;
  return value.toFixed(0);
}
