// `npm run bench`: throughput of pgkv beside plain Postgres and PgBouncer, as ratios. Starts every server itself, as an ordinary
// user, with durable commits; the lanes take turns within each round, so that a slow minute of the machine hits them all alike.

import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { clientCounts, lanes, POOL_SIZE, variantName, variants } from './lanes.mjs';
import { chooseGenerator, runLoad } from './load.mjs';
import { usageOf } from './process-usage.mjs';
import { createScratch, stopServers, stopServersOnSignals } from './processes.mjs';
import { formatTable, judgeGoals, summarise } from './report.mjs';
import { startPostgres } from './servers.mjs';
import { workloads } from './workloads.mjs';

// --quick has to end within two minutes, servers and loading included, however many workloads there are.
const QUICK_MEASURING_S = 95;
const QUICK_RUN_MAX_S = 3;
const FULL_RUN_S = 6;
const WARM_UP_S = 2;

const usage = `npm run bench -- [options]
  --quick            3 rounds within two minutes instead of 5 long ones
  --json FILE        where the results go; default bench/out/latest.json
  --workloads NAMES  comma-separated; default all: ${workloads.map(({ name }) => name).join(',')}
  --lanes NAMES      comma-separated; default all: ${lanes.map(({ name }) => name).join(',')}
  --rounds N  --seconds N   overrule the above
  --generator NAME   pgbench or loader (Node alone); default pgbench where installed
  --assert           exit code 1 when a goal is missed`;

/** Ends the program with what is wrong with its command line. */
function refuse(message) {
  console.error(`${message}\n${usage}`);
  process.exit(2);
}

function parseCommandLine() {
  const string = { type: 'string' };
  const flag = { type: 'boolean' };
  const texts = { json: string, workloads: string, lanes: string, rounds: string, seconds: string, generator: string };
  try {
    return parseArgs({ options: { ...texts, quick: flag, assert: flag, help: flag } }).values;
  } catch (error) {
    return refuse(error.message);
  }
}

function readOptions() {
  const values = parseCommandLine();
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const pick = (all, names) => {
    const wanted = names?.split(',') ?? all.map(({ name }) => name);
    for (const name of wanted) if (!all.some((entry) => entry.name === name)) refuse(`there is no "${name}"`);
    return all.filter(({ name }) => wanted.includes(name));
  };
  const positive = (name) => {
    const number = Number(values[name]);
    if (values[name] !== undefined && !(Number.isInteger(number) && number > 0))
      refuse(`--${name} ${values[name]}: a whole number above 0 is needed`);
    return values[name] === undefined ? undefined : number;
  };
  if (![undefined, 'pgbench', 'loader'].includes(values.generator))
    refuse(`--generator ${values.generator}: pgbench or loader`);
  return {
    quick: values.quick ?? false,
    assert: values.assert ?? false,
    rounds: positive('rounds') ?? (values.quick ? 3 : 5),
    seconds: positive('seconds'),
    json: values.json ?? fileURLToPath(new URL('out/latest.json', import.meta.url)),
    generator: chooseGenerator(values.generator),
    workloads: pick(workloads, values.workloads),
    lanes: pick(lanes, values.lanes),
  };
}

/** Turned by one place each round, so that no variant always runs behind the same other one. */
function rotate(list, by) {
  const from = by % list.length;
  return [...list.slice(from), ...list.slice(0, from)];
}

/** All single runs of one round, in the order in which they are made. */
function planRound(options, started, round) {
  const plan = [];
  for (const workload of options.workloads) {
    for (const clients of clientCounts) {
      for (const variant of rotate(variants, round)) {
        const isWanted = !options.quick || variant.quickClients.includes(clients);
        if (isWanted && started.has(variant.lane)) plan.push({ workload, clients, variant });
      }
    }
  }
  return plan;
}

async function prepareDatabase(postgres, chosen) {
  const client = new pg.Client({
    host: '127.0.0.1',
    port: postgres.port,
    user: postgres.user,
    database: postgres.database,
  });
  await client.connect();
  for (const statement of new Set(chosen.flatMap(({ setup }) => setup))) await client.query(statement);
  await client.end();
}

async function measure({ workload, clients, variant, round, lane, postgres, generator, seconds }) {
  const before = usageOf(lane.pid);
  const { user, database } = postgres;
  const result = await runLoad({
    generator,
    workload,
    port: lane.port,
    user,
    database,
    mode: variant.mode,
    clients,
    seconds,
  });
  const after = usageOf(lane.pid);
  const cost =
    before && after
      ? { routerCpuUs: (after.cpuUs - before.cpuUs) / result.transactions, routerRssBytes: after.rssBytes }
      : {};
  return { workload: workload.name, clients, variant: variantName(variant), round, ...result, ...cost };
}

/** Connections opened, caches filled, JavaScript compiled: none of it belongs to the first run. */
async function warmUp({ workload, lane, postgres, generator }) {
  const { user, database } = postgres;
  await runLoad({
    generator,
    workload,
    port: lane.port,
    user,
    database,
    mode: 'extended',
    clients: 8,
    seconds: WARM_UP_S,
  });
}

async function startLanes(options, context) {
  const started = new Map();
  for (const lane of options.lanes) {
    const server = await lane.start(context);
    if (server === undefined) console.log(`  ${lane.name}: not installed, left out`);
    else {
      console.log(`  ${lane.name}: ${server.name}, port ${server.port}`);
      started.set(lane.name, server);
    }
  }
  return started;
}

async function bench(options) {
  const scratch = createScratch('bench');
  const postgres = await startPostgres({ scratch, label: 'postgres', user: 'bench', database: 'bench', newest: 15 });
  await prepareDatabase(postgres, options.workloads);
  const processor = cpus()[0]?.model ?? 'unknown processor';
  console.log(
    `${cpus().length} × ${processor}, Node ${process.version}, load by ${options.generator}, durable commits, pools of ${POOL_SIZE}, -M extended`,
  );
  const started = await startLanes(options, { scratch, postgres });
  const runsPerRound = planRound(options, started, 0).length;
  const quickSeconds = Math.max(
    1,
    Math.min(QUICK_RUN_MAX_S, Math.floor(QUICK_MEASURING_S / (runsPerRound * options.rounds))),
  );
  const seconds = options.seconds ?? (options.quick ? quickSeconds : FULL_RUN_S);
  console.log(`${options.rounds} rounds of ${runsPerRound} runs of ${seconds} s`);
  const { generator } = options;
  for (const lane of started.values()) await warmUp({ workload: options.workloads[0], lane, postgres, generator });
  const runs = [];
  for (let round = 0; round < options.rounds; round++) {
    for (const { workload, clients, variant } of planRound(options, started, round)) {
      const lane = started.get(variant.lane);
      runs.push(await measure({ workload, clients, variant, round, lane, postgres, generator, seconds }));
    }
    console.log(`round ${round + 1} done`);
  }
  const summary = summarise(runs, variants);
  const goals = judgeGoals(options.workloads, runs);
  const servers = Object.fromEntries([...started].map(([name, server]) => [name, server.name]));
  return {
    at: new Date().toISOString(),
    processor,
    node: process.version,
    generator,
    seconds,
    servers,
    summary,
    goals,
    runs,
  };
}

const options = readOptions();
stopServersOnSignals();
let results;
try {
  results = await bench(options);
} finally {
  await stopServers();
}
mkdirSync(dirname(options.json), { recursive: true });
writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`);
console.log(`\n${formatTable(results.summary)}\n`);
for (const { workload, clients, lane, against, atLeast, measured, met } of results.goals) {
  const outcome = met === undefined ? 'not measured' : `${measured.toFixed(2)}× ${met ? 'met' : 'MISSED'}`;
  console.log(`goal: ${workload}, ${clients} clients, ${lane} at least ${atLeast}× of ${against}: ${outcome}`);
}
console.log(`results: ${options.json}`);
if (options.assert && results.goals.some(({ met }) => met === false)) process.exitCode = 1;
