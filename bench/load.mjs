// Measures one cell on one lane once, by pgbench where it is installed, else by loader.mjs. What counts is a window in the middle
// of the run, so that logging in, the first Parse and the end of the run are in no figure: throughput, latencies and the router's
// CPU are all of that window. Many clients get a second more, for logging in.

import { spawn } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { latenciesBetween, percentile } from './latency-log.mjs';
import { usageOf } from './process-usage.mjs';
import { findProgram } from './processes.mjs';
import { fixedVariables, pgbenchScript } from './scripts.mjs';

const WINDOW_FROM = 0.35;
const WINDOW_TO = 0.9;
const MANY_CLIENTS = 50;
const ATTEMPTS = 3;

/** Seconds that a run takes in which `seconds` of full load are wanted. */
export const runSeconds = (clients, seconds) => seconds + (clients > MANY_CLIENTS ? Math.ceil(clients / 250) : 0);

/** Which generator runs here: "pgbench" or "loader". */
export function chooseGenerator(wanted) {
  const installed = findProgram('pgbench') !== undefined;
  if (wanted === 'pgbench' && !installed) throw new Error('pgbench is not installed');
  return wanted ?? (installed ? 'pgbench' : 'loader');
}

function runProgram(program, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const killNow = () => child.kill('SIGKILL');
    process.on('exit', killNow);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.once('error', reject);
    child.once('close', (status) => {
      process.off('exit', killNow);
      // pgbench ends with 2 when some clients were cut off, and with 0 when transactions failed: neither may pass for a figure.
      const failed = stdout.match(/^number of failed transactions: ([1-9]\d*)/m);
      if (status === 0 && failed === null) resolve(stdout);
      else reject(new Error(`${program} ended with ${status}: ${stderr.slice(0, 2000)}${failed?.[0] ?? ''}`));
    });
  });
}

function pgbenchArguments({ workload, dialect, mode, keys, port, user, database, clients, seconds, log, scratch }) {
  const scripts = workload.parts.flatMap(({ script, weight }) => {
    const path = join(
      scratch,
      `${script}-${dialect}-${mode}-${keys}${workload.pipeline === undefined ? '' : '-pipelined'}.sql`,
    );
    writeFileSync(path, pgbenchScript(script, { dialect, mode, keys, pipeline: workload.pipeline }));
    return ['-f', `${path}@${weight}`];
  });
  const variables = Object.entries(fixedVariables(dialect)).flatMap(([name, value]) => ['-D', `${name}=${value}`]);
  const where = ['-h', '127.0.0.1', '-p', String(port), '-U', user];
  const size = ['-j', '1', '-c', String(clients), '-T', String(runSeconds(clients, seconds))];
  return [...where, '-n', '-M', mode, ...size, '-l', `--log-prefix=${log}`, ...variables, ...scripts, database];
}

function loaderArguments({ workload, dialect, mode, keys, port, user, database, clients, seconds, log }) {
  const parts = workload.parts.map(({ script, weight }) => `${script}@${weight}`).join(',');
  const named = {
    port,
    user,
    database,
    parts,
    dialect,
    mode,
    keys,
    clients,
    seconds: runSeconds(clients, seconds),
    log,
  };
  const pipeline = workload.pipeline === undefined ? {} : { pipeline: workload.pipeline };
  return [
    fileURLToPath(new URL('loader.mjs', import.meta.url)),
    ...Object.entries({ ...named, ...pipeline }).flatMap(([name, value]) => [`--${name}`, String(value)]),
  ];
}

/** Looks at the router at both ends of the window. */
function watchWindow(pid, clients, seconds) {
  const look = () => ({ atUs: Date.now() * 1000, usage: usageOf(pid) });
  const looks = [];
  const loginMs = (runSeconds(clients, seconds) - seconds) * 1000;
  const timers = [WINDOW_FROM, WINDOW_TO].map((share) =>
    setTimeout(() => looks.push(look()), loginMs + seconds * 1000 * share),
  );
  return () => {
    for (const timer of timers) clearTimeout(timer);
    const [from, to] = looks;
    if (to === undefined) throw new Error('the load ended before its time');
    return { from, to };
  };
}

/**
 * @param {{ generator: string, workload: object, dialect: string, mode: string, keys: string, port: number, pid?: number, user: string, database: string, clients: number, seconds: number, scratch: string }} run
 *   `pid` of the router, if there is one
 * @returns {Promise<{ opsPerSecond: number, operations: number, p50Us: number, p99Us: number, p999Us: number, routerCpuUs?: number, routerRssBytes?: number }>}
 *   latencies of transactions (of whole pipelines), all else by operation
 */
export async function runLoad(run) {
  const { workload, seconds } = run;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const { sorted, from, to } = await runOnce(run);
    if (sorted.length === 0) continue; // a machine that stood still for that long says nothing about a lane
    const operations = sorted.length * (workload.pipeline ?? 1);
    const cost =
      from.usage && to.usage
        ? { routerCpuUs: (to.usage.cpuUs - from.usage.cpuUs) / operations, routerRssBytes: to.usage.rssBytes }
        : {};
    return {
      opsPerSecond: (operations / (to.atUs - from.atUs)) * 1e6,
      operations,
      p50Us: percentile(sorted, 0.5),
      p99Us: percentile(sorted, 0.99),
      p999Us: percentile(sorted, 0.999),
      ...cost,
    };
  }
  throw new Error(`${workload.name} on port ${run.port}: nothing was done in ${seconds} s, ${ATTEMPTS} times`);
}

async function runOnce(run) {
  const { generator, pid, clients, seconds, scratch } = run;
  const log = join(scratch, 'latencies');
  const windowOf = watchWindow(pid, clients, seconds);
  if (generator === 'pgbench') await runProgram('pgbench', pgbenchArguments({ ...run, log }));
  else await runProgram(process.execPath, loaderArguments({ ...run, log }));
  const { from, to } = windowOf();
  const logs = logsOf(log);
  const sorted = latenciesBetween(logs[0], from.atUs, to.atUs);
  for (const path of logs) rmSync(path);
  return { sorted, from, to };
}

/** pgbench puts its process id behind the prefix. */
const logsOf = (prefix) =>
  readdirSync(dirname(prefix))
    .filter((name) => name.startsWith(`${basename(prefix)}.`))
    .map((name) => join(dirname(prefix), name));
