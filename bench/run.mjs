// `npm run bench`: pgkv beside plain Postgres and PgBouncer, as ratios. Starts every server itself, as an ordinary user, with
// durable commits; the lanes take turns at each cell of each round, so that a slow minute of the machine hits them all alike.

import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkKvTable, createKvTable, loadKvTable, loadOrdinaryTable } from './data.mjs';
import { amount, hasGoal } from './goals.mjs';
import { KEY_COUNT, keyDistributions } from './keys.mjs';
import { lanes, modeOf, POOL_SIZE, protocols, takes } from './lanes.mjs';
import { chooseGenerator, runLoad, workSeconds } from './load.mjs';
import { writePlot } from './plot.mjs';
import { createScratch, stopServers, stopServersOnSignals } from './processes.mjs';
import { formatTable, judgeGoals, loadedNote, summarise } from './report.mjs';
import { startPostgres } from './servers.mjs';
import { cellsOf, workloads } from './workloads.mjs';

// --quick has to end within two minutes, servers and loading included: a round that would not fit is not begun.
const QUICK_MS = 112_000;
const QUICK_ROUNDS = 3;
const QUICK_RUN_S = 1;
const FULL_ROUNDS = 5;
const FULL_RUN_S = 5;
const WARM_UP_S = 2;
const WARM_UP_CLIENTS = 8;
const POSTGRES_SETTINGS = {
  max_connections: 400,
  // A checkpoint in the middle of one lane's turn would be counted against it.
  max_wal_size: '8GB',
  checkpoint_timeout: '1h',
};

const names = (list) => list.map(({ name }) => name).join(',');
const usage = `npm run bench -- [options]
  --quick            up to ${QUICK_ROUNDS} rounds of the most telling cells within two minutes
  --goals            only the cells that something is promised for
  --json FILE        where the results go; default bench/out/latest.json
  --svg FILE         draws them; bench/plot.mjs does it later from the JSON
  --workloads NAMES  comma-separated; default all: ${names(workloads)}
  --lanes NAMES      default all but "leased" (pgkv that merges nothing) and "constant" (the least that a Node server costs;
                     prepared point reads only): ${names(lanes)}
  --keys NAMES       default all: ${Object.keys(keyDistributions).join(',')}
  --protocols NAMES  default all: ${protocols.join(',')}
  --clients NUMBERS  instead of each workload's own
  --rounds N  --seconds N   default ${FULL_ROUNDS} rounds, ${FULL_RUN_S} s of work each
  --generator NAME   pgbench or loader (Node alone: no simple protocol, no CAS); default pgbench where installed
  --transport NAME   tcp (loopback, the default) or unix: Unix sockets between all that takes part
  --workers N        of pgkv
  --node-options=OPTIONS    for pgkv, such as --node-options="--cpu-prof --cpu-prof-dir=FOLDER"
  --assert           exit code 1 when a goal is missed`;

/** Ends the program with what is wrong with its command line. */
function refuse(message) {
  console.error(`${message}\n${usage}`);
  process.exit(2);
}

function parseCommandLine() {
  const texts =
    'json svg workloads lanes keys protocols clients rounds seconds generator transport workers node-options'.split(
      ' ',
    );
  const flags = ['quick', 'goals', 'assert', 'help'];
  const typed = (list, type) => list.map((name) => [name, { type }]);
  try {
    return parseArgs({ options: Object.fromEntries([...typed(texts, 'string'), ...typed(flags, 'boolean')]) }).values;
  } catch (error) {
    return refuse(error.message);
  }
}

function positive(name, text) {
  const number = Number(text);
  if (!(Number.isInteger(number) && number > 0)) refuse(`--${name} ${text}: a whole number above 0 is needed`);
  return number;
}

/** The wanted ones of `known`; undefined where all are. */
function choose(name, text, known) {
  const wanted = text?.split(',');
  for (const one of wanted ?? []) if (!known.includes(one)) refuse(`--${name}: there is no "${one}"`);
  return wanted;
}

function pick(name, text, all) {
  const wanted = choose(
    name,
    text,
    all.map((entry) => entry.name),
  );
  return all.filter((entry) => wanted?.includes(entry.name) ?? entry.onRequest !== true);
}

function readOptions() {
  const values = parseCommandLine();
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  if (![undefined, 'pgbench', 'loader'].includes(values.generator))
    refuse(`--generator ${values.generator}: pgbench or loader`);
  if (![undefined, 'tcp', 'unix'].includes(values.transport)) refuse(`--transport ${values.transport}: tcp or unix`);
  if (values.transport === 'unix' && values.lanes?.split(',').includes('constant'))
    refuse('lane "constant" has no Unix socket');
  const quick = values.quick ?? false;
  const generator = chooseGenerator(values.generator);
  const chosen = {
    workloads: pick('workloads', values.workloads, workloads),
    keys: choose('keys', values.keys, Object.keys(keyDistributions)),
    protocols: choose('protocols', values.protocols, protocols),
    clients: values.clients?.split(',').map((text) => positive('clients', text)),
  };
  const cells = cellsOf({ ...chosen, quick, generator }).filter((cell) => !values.goals || hasGoal(cell));
  if (cells.length === 0) refuse('nothing is left to measure');
  return {
    cells,
    generator,
    transport: values.transport ?? 'tcp',
    assert: values.assert ?? false,
    rounds: values.rounds === undefined ? (quick ? QUICK_ROUNDS : FULL_ROUNDS) : positive('rounds', values.rounds),
    seconds: values.seconds === undefined ? (quick ? QUICK_RUN_S : FULL_RUN_S) : positive('seconds', values.seconds),
    deadlineMs: quick && values.rounds === undefined ? QUICK_MS : Number.POSITIVE_INFINITY,
    json: values.json ?? fileURLToPath(new URL('out/latest.json', import.meta.url)),
    svg: values.svg,
    lanes: pick('lanes', values.lanes, lanes),
    pgkvOptions: {
      workers: values.workers === undefined ? 1 : positive('workers', values.workers),
      nodeOptions: values['node-options']?.split(' ') ?? [],
    },
  };
}

/** Turned by one place each round, so that no lane always runs behind the same other one. */
function rotate(list, by) {
  const from = by % list.length;
  return [...list.slice(from), ...list.slice(0, from)];
}

async function startLanes(options, context) {
  const started = [];
  for (const lane of options.lanes) {
    const server = await lane.start(context);
    if (server === undefined) console.log(`  ${lane.name}: not installed, left out`);
    else {
      console.log(`  ${lane.name}: ${server.name}, port ${server.port}`);
      started.push({ lane, server });
    }
  }
  return started;
}

/** One run of one cell on one lane; undefined where nothing could be measured. */
async function measure(cell, { lane, server }, { postgres, generator, seconds, scratch }) {
  const { user, database } = postgres;
  const mode = modeOf(lane, cell.protocol, server);
  const { host, port, pid } = server;
  const where = { host, port, pid, serverPid: postgres.pid, user, database };
  const figures = await runLoad({ ...cell, ...where, generator, dialect: lane.dialect, mode, seconds, scratch });
  return figures && { mode, ...figures };
}

/** Connections opened, caches filled, JavaScript compiled: none of it belongs to the first run. */
async function warmUp(cells, started, context) {
  for (const { lane, server } of started) {
    const taken = cells.filter((cell) => takes(lane, cell));
    for (const workload of new Set(taken.map((cell) => cell.workload))) {
      const cell = { ...taken.find((one) => one.workload === workload), clients: WARM_UP_CLIENTS };
      await measure(cell, { lane, server }, { ...context, seconds: Math.min(WARM_UP_S, context.seconds) });
    }
  }
}

async function measureRounds({ cells, rounds, deadlineMs }, started, context) {
  const runs = [];
  let roundMs = 0;
  for (let round = 0; round < rounds; round++) {
    const begunMs = performance.now();
    if (round > 0 && begunMs + roundMs > deadlineMs) {
      console.log(`no time for more than ${round} rounds`);
      break;
    }
    for (const cell of cells) {
      for (const way of rotate(started, round).filter(({ lane }) => takes(lane, cell))) {
        const { workload, keys, protocol, clients } = cell;
        const figures = await measure(cell, way, context);
        if (figures === undefined) continue;
        runs.push({ workload: workload.name, keys, protocol, clients, lane: way.lane.name, round, ...figures });
      }
    }
    roundMs = Math.max(roundMs, performance.now() - begunMs);
    console.log(`round ${round + 1} done after ${(performance.now() / 1000).toFixed(0)} s`);
  }
  return runs;
}

async function bench(options) {
  const scratch = createScratch('bench');
  const account = { user: 'bench', database: 'bench' };
  const postgres = await startPostgres({
    scratch,
    label: 'postgres',
    ...account,
    transport: options.transport,
    newest: 15,
    settings: POSTGRES_SETTINGS,
  });
  await createKvTable(postgres);
  await loadKvTable(postgres);
  await loadOrdinaryTable(postgres);
  const { generator, transport, seconds, cells, pgkvOptions } = options;
  const processor = cpus()[0]?.model ?? 'unknown processor';
  const setting = `load by ${generator}, ${KEY_COUNT} keys, durable commits, pools of ${POOL_SIZE}, ${transport} sockets`;
  console.log(`${cpus().length} × ${processor}, Node ${process.version}, ${setting}`);
  const started = await startLanes(options, { scratch, postgres, pgkvOptions });
  const roundS = cells.reduce((sum, { clients }) => sum + workSeconds(clients, seconds), 0) * started.length;
  console.log(`${options.rounds} rounds of ${cells.length * started.length} runs: ${roundS} s a round and more`);
  const context = { postgres, generator, seconds, scratch };
  await warmUp(cells, started, context);
  const runs = await measureRounds(options, started, context);
  await checkKvTable(postgres);
  const servers = Object.fromEntries(started.map(({ lane, server }) => [lane.name, server.name]));
  return {
    at: new Date().toISOString(),
    machine: { processor, cores: cpus().length, node: process.version },
    setting: {
      generator,
      transport,
      seconds,
      keys: KEY_COUNT,
      poolSize: POOL_SIZE,
      workers: pgkvOptions.workers,
      servers,
    },
    summary: summarise(runs),
    goals: judgeGoals(runs),
    runs,
  };
}

function printGoals(goals) {
  for (const { text, of, against, measured, direct, met } of goals) {
    if (met === undefined) continue;
    const figure = against === undefined ? amount(of, measured) : `${measured.toFixed(2)}×`;
    const beside = direct === undefined ? '' : ` (direct: ${amount(of, direct)})`;
    console.log(`${met ? 'met   ' : 'MISSED'}  ${text}: ${figure}${beside}`);
  }
  const unmeasured = goals.filter(({ met }) => met === undefined).length;
  if (unmeasured > 0) console.log(`${unmeasured} goals not measured in this run`);
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
printGoals(results.goals);
const note = loadedNote(results.runs);
if (note !== '') console.log(note);
console.log(`results: ${options.json}`);
if (options.svg !== undefined) writePlot(results, options.svg);
if (options.assert && results.goals.some(({ met }) => met === false)) process.exitCode = 1;
