// What a point read costs the router as shards are added, with the clients for each shard kept constant: `node bench/shards.mjs
// [--shards 1,2,4,8,16] [--clients-per-shard 32] [--rounds 5] [--seconds 5] [--json FILE] [--assert]`. Every shard is a Postgres of
// its own on this machine, so throughput cannot grow with them here; the router's CPU for each operation must not either.

import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { createKvTable, loadShard, slotsOfKeys } from './data.mjs';
import { chooseGenerator, runLoad } from './load.mjs';
import { createScratch, stopServers, stopServersOnSignals } from './processes.mjs';
import { median } from './report.mjs';
import { startPgkv, startPostgres } from './servers.mjs';
import { workloads } from './workloads.mjs';

const GOAL_SPREAD = 0.1;
const POOL_SIZE = 20;
const WARM_UP_S = 2;
const SMALL_SERVER = { shared_buffers: '32MB', max_connections: 60, autovacuum: 'off', max_parallel_workers: 0 };

const string = { type: 'string' };
const { values } = parseArgs({
  options: {
    shards: string,
    'clients-per-shard': string,
    rounds: string,
    seconds: string,
    generator: string,
    json: string,
    assert: { type: 'boolean' },
  },
});
const counts = (values.shards ?? '1,2,4,8,16').split(',').map(Number);
const clientsPerShard = Number(values['clients-per-shard'] ?? 32);
const rounds = Number(values.rounds ?? 5);
const seconds = Number(values.seconds ?? 5);
const generator = chooseGenerator(values.generator);
const workload = workloads.find(({ name }) => name === 'point-read');

/** A cluster of `count` shards, with its rows. */
async function startCluster(scratch, count) {
  const folder = join(scratch, `of-${count}`);
  mkdirSync(folder);
  const account = { user: 'bench', database: 'bench', newest: 15, settings: SMALL_SERVER };
  const shards = [];
  while (shards.length < count)
    shards.push(await startPostgres({ scratch: folder, label: `shard-${shards.length + 1}`, ...account }));
  for (const shard of shards) await createKvTable(shard);
  const router = await startPgkv({
    scratch: folder,
    postgres: shards[0],
    shards,
    poolSize: POOL_SIZE,
    withCatalog: true,
  });
  const slots = await slotsOfKeys(shards[0]);
  for (const [index, shard] of shards.entries()) await loadShard(shard, slots, router.hashSlots[index]);
  return { router, shards };
}

async function measure({ router, shards }, scratch, runSeconds) {
  const { host, port, pid, user, database } = router;
  const clients = clientsPerShard * shards.length;
  const load = { workload, dialect: 'pgkv', mode: 'prepared', keys: 'uniform', clients, seconds: runSeconds };
  const figures = await runLoad({ generator, host, port, pid, user, database, scratch, ...load });
  if (figures === undefined) throw new Error('the machine is too busy to compare clusters on it');
  return figures;
}

/** All clusters stand at the same time, so that they can take turns; those that wait cost nothing but memory. */
async function bench() {
  const scratch = createScratch('shards');
  const clusters = [];
  for (const count of counts) {
    clusters.push(await startCluster(scratch, count));
    await measure(clusters.at(-1), scratch, Math.min(WARM_UP_S, seconds));
  }
  const runs = [];
  for (let round = 0; round < rounds; round++)
    for (const cluster of clusters)
      runs.push({ shards: cluster.shards.length, round, ...(await measure(cluster, scratch, seconds)) });
  return runs;
}

function summarise(runs) {
  const figures = ['opsPerSecond', 'p50Us', 'p99Us', 'routerCpuUs', 'routerRssBytes'];
  const [fewest] = counts;
  return counts.map((count) => {
    const own = runs.filter(({ shards }) => shards === count);
    const ratios = own.map(
      ({ round, routerCpuUs }) =>
        routerCpuUs / runs.find((run) => run.shards === fewest && run.round === round).routerCpuUs,
    );
    const medians = figures.map((figure) => [figure, median(own.map((run) => run[figure]))]);
    return {
      shards: count,
      clients: clientsPerShard * count,
      ...Object.fromEntries(medians),
      cpuRatio: median(ratios),
    };
  });
}

stopServersOnSignals();
let runs;
try {
  runs = await bench();
} finally {
  await stopServers();
}
const summary = summarise(runs);
console.log(
  `${cpus().length} cores, Node ${process.version}, load by ${generator}, ${clientsPerShard} clients a shard`,
);
console.log('shards  clients  reads/s  p50 ms  p99 ms  router CPU µs/read     ratio  router MiB');
for (const row of summary) {
  const cells = [
    String(row.shards).padStart(6),
    String(row.clients).padStart(7),
    row.opsPerSecond.toFixed(0).padStart(7),
    (row.p50Us / 1000).toFixed(2).padStart(6),
    (row.p99Us / 1000).toFixed(2).padStart(6),
    (row.routerCpuUs?.toFixed(1) ?? '-').padStart(18),
    (row.cpuRatio === undefined ? '-' : `${row.cpuRatio.toFixed(2)}×`).padStart(8),
    (row.routerRssBytes === undefined ? '-' : (row.routerRssBytes / 2 ** 20).toFixed(0)).padStart(10),
  ];
  console.log(cells.join('  '));
}
const ratios = summary.map(({ cpuRatio }) => cpuRatio).filter((ratio) => ratio !== undefined);
const met = ratios.length > 0 && Math.max(...ratios) <= 1 + GOAL_SPREAD;
console.log(
  `goal: the router's CPU a read grows by at most ${GOAL_SPREAD * 100} % from ${counts[0]} to ${counts.at(-1)} shards: ${met ? 'met' : 'MISSED'}`,
);
if (values.json !== undefined) {
  mkdirSync(dirname(values.json), { recursive: true });
  const setting = { generator, seconds, clientsPerShard, node: process.version, cores: cpus().length };
  writeFileSync(values.json, `${JSON.stringify({ at: new Date().toISOString(), setting, summary, runs }, null, 2)}\n`);
}
if (values.assert && !met) process.exitCode = 1;
