// CPU an operation of router and server by number of workers, one after the other in each round: node bench/workers.mjs --workers 1,2,4,8 --share off,auto.
// On a machine with few cores that is what can be compared, not throughput. --builds NAME=FOLDER,… compares checkouts that are built.

import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { createKvTable, loadKvTable } from './data.mjs';
import { chooseGenerator, runLoad } from './load.mjs';
import { createScratch, stopServers, stopServersOnSignals } from './processes.mjs';
import { startPostgres } from './servers.mjs';
import { workloads } from './workloads.mjs';

const { values } = parseArgs({
  options: {
    workers: { type: 'string', default: '1,2,4,8' },
    share: { type: 'string', default: 'off,auto' },
    builds: { type: 'string', default: `this=${fileURLToPath(new URL('..', import.meta.url))}` },
    workloads: { type: 'string', default: 'point-read,upsert' },
    clients: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    pool: { type: 'string', default: '8' },
  },
});
const list = (text) => text.split(',');
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

const routers = [];

async function run() {
  const scratch = createScratch('workers');
  const settings = { max_connections: 600, max_wal_size: '8GB', checkpoint_timeout: '1h' };
  const account = { user: 'bench', database: 'bench' };
  const postgres = await startPostgres({ scratch, label: 'postgres', ...account, newest: 15, settings });
  await createKvTable(postgres);
  await loadKvTable(postgres);
  const generator = chooseGenerator();
  for (const build of list(values.builds)) {
    const [name, folder] = build.split('=');
    const { startPgkv } = await import(pathToFileURL(`${folder}/bench/servers.mjs`));
    for (const workers of list(values.workers).map(Number)) {
      for (const share of workers === 1 ? [undefined] : list(values.share)) {
        const label = `${name}-${workers}${share === undefined ? '' : `-${share}`}`;
        const options = { scratch, postgres, label, poolSize: Number(values.pool), withCatalog: true, workers, share };
        routers.push({ label, figures: new Map(), server: await startPgkv(options) });
      }
    }
  }
  for (let round = -1; round < Number(values.rounds); round++) {
    for (const name of list(values.workloads)) {
      const workload = workloads.find((one) => one.name === name);
      for (const clients of list(values.clients).map(Number)) {
        for (const { label, figures, server } of routers) {
          const where = { ...server, serverPid: postgres.pid, keys: 'uniform', dialect: 'pgkv', mode: 'prepared' };
          const seconds = round < 0 ? 1 : Number(values.seconds);
          const found = await runLoad({ workload, clients, generator, seconds, scratch, ...where });
          if (found === undefined || round < 0) continue;
          const cell = `${name} ${clients}`;
          const { routerCpuUs, serverCpuUs, opsPerSecond, p50Us, p99Us, othersShare } = found;
          if (!figures.has(cell)) figures.set(cell, []);
          figures
            .get(cell)
            .push({ routerCpuUs, serverCpuUs, sum: routerCpuUs + serverCpuUs, opsPerSecond, p50Us, p99Us });
          const shown = [routerCpuUs, serverCpuUs, routerCpuUs + serverCpuUs].map((us) => us.toFixed(1)).join(' ');
          console.log(
            `${round} ${cell} ${label}: ${shown} µs, ${opsPerSecond.toFixed(0)}/s, p50 ${p50Us} p99 ${p99Us}, others ${othersShare?.toFixed(2)}`,
          );
        }
      }
    }
  }
  console.log('medians: router + server = sum µs, operations a second, p50 and p99 in µs');
  for (const { label, figures } of routers) {
    for (const [cell, all] of figures) {
      const of = (key) => median(all.map((one) => one[key]));
      const shown = [of('routerCpuUs'), of('serverCpuUs'), of('sum')].map((us) => us.toFixed(1));
      console.log(
        `${cell} ${label}: ${shown[0]} + ${shown[1]} = ${shown[2]}, ${of('opsPerSecond').toFixed(0)}/s, ${of('p50Us')}, ${of('p99Us')}`,
      );
    }
  }
}

stopServersOnSignals();
try {
  await run();
} finally {
  // Those of other checkouts are not known to this one's list.
  for (const { server } of routers) await server.stop();
  await stopServers();
}
