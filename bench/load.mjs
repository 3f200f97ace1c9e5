// Measures one cell on one lane once, by pgbench where it is installed, else by loader.mjs. What counts is a window of the run that
// begins some time after all clients are at work, so that logging in, first statements and the end of the run are in no figure:
// throughput, latencies and the router's CPU are all of that window.

import { spawn } from 'node:child_process';
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { latenciesBetween, percentile } from './latency-log.mjs';
import { cpuBetween, machineTicks, ticksPerSecond, usageOf } from './process-usage.mjs';
import { findProgram } from './processes.mjs';
import { fixedVariables, pgbenchScript } from './scripts.mjs';

/** Shares of the wanted seconds: clients at work but not counted, then counted. */
const SETTLING = 0.25;
const COUNTED = 0.6;
/** A server process that has just started is slow: its caches are empty. */
const SETTLING_PER_CLIENT_MS = 3;
const MARGIN_MS = 100;
const LOOK_EVERY_MS = 20;
const ATTEMPTS = 8;

const settlingMs = (clients, seconds) => Math.max(SETTLING * seconds * 1000, SETTLING_PER_CLIENT_MS * clients);
/** How long the generator is told to work, in whole seconds as pgbench wants them, if logging in takes no time. */
export const workSeconds = (clients, seconds) =>
  Math.ceil((settlingMs(clients, seconds) + COUNTED * seconds * 1000 + MARGIN_MS) / 1000);

/** Seconds more, for logging in, that runs like this one have needed before. */
const loginSeconds = new Map();

/** Which generator runs here: "pgbench" or "loader". */
export function chooseGenerator(wanted) {
  const installed = findProgram('pgbench') !== undefined;
  if (wanted === 'pgbench' && !installed) throw new Error('pgbench is not installed');
  return wanted ?? (installed ? 'pgbench' : 'loader');
}

/** @param spawned hears of the process id */
function runProgram(program, args, spawned) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    spawned(child.pid);
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

function pgbenchArguments({
  workload,
  dialect,
  mode,
  keys,
  host,
  port,
  user,
  database,
  clients,
  seconds,
  log,
  scratch,
}) {
  const scripts = workload.parts.flatMap(({ script, weight }) => {
    const path = join(
      scratch,
      `${script}-${dialect}-${mode}-${keys}${workload.pipeline === undefined ? '' : '-pipelined'}.sql`,
    );
    writeFileSync(path, pgbenchScript(script, { dialect, mode, keys, pipeline: workload.pipeline }));
    return ['-f', `${path}@${weight}`];
  });
  const variables = Object.entries(fixedVariables(dialect)).flatMap(([name, value]) => ['-D', `${name}=${value}`]);
  const where = ['-h', host, '-p', String(port), '-U', user];
  const size = ['-j', '1', '-c', String(clients), '-T', String(seconds)];
  return [...where, '-n', '-M', mode, ...size, '-l', `--log-prefix=${log}`, ...variables, ...scripts, database];
}

function loaderArguments({ workload, dialect, mode, keys, host, port, user, database, clients, seconds, log }) {
  const parts = workload.parts.map(({ script, weight }) => `${script}@${weight}`).join(',');
  const named = {
    host,
    port,
    user,
    database,
    parts,
    dialect,
    mode,
    keys,
    clients,
    seconds,
    log,
  };
  const pipeline = workload.pipeline === undefined ? {} : { pipeline: workload.pipeline };
  return [
    fileURLToPath(new URL('loader.mjs', import.meta.url)),
    ...Object.entries({ ...named, ...pipeline }).flatMap(([name, value]) => [`--${name}`, String(value)]),
  ];
}

/**
 * Waits for the first lines of the log, then looks at the processes at both ends of the window.
 * @param {{ router?: number, server?: number, load?: number }} pids
 */
function watchWindow(log, pids, clients, seconds) {
  const look = () => ({
    atUs: Date.now() * 1000,
    router: usageOf(pids.router),
    server: usageOf(pids.server),
    load: usageOf(pids.load),
    ticks: machineTicks(),
  });
  const looks = [];
  const timers = [];
  const after = (ms) => timers.push(setTimeout(() => looks.push(look()), ms));
  const poll = setInterval(() => {
    if (!logsOf(log).some((path) => statSync(path).size > 0)) return;
    clearInterval(poll);
    const beginsMs = settlingMs(clients, seconds);
    after(beginsMs);
    after(beginsMs + COUNTED * seconds * 1000);
  }, LOOK_EVERY_MS);
  return () => {
    clearInterval(poll);
    for (const timer of timers) clearTimeout(timer);
    return looks;
  };
}

/**
 * @param {{ generator: string, workload: object, dialect: string, mode: string, keys: string, host: string, port: number, pid?: number, serverPid?: number, user: string, database: string, clients: number, seconds: number, scratch: string }} run
 *   `pid` of the router, if there is one; `serverPid` of the database, if it is one
 * @returns {Promise<{ opsPerSecond: number, operations: number, p50Us: number, p99Us: number, p999Us: number, routerCpuUs?: number, routerRssBytes?: number, serverCpuUs?: number, loadCpuUs?: number, idleShare?: number, othersShare?: number } | undefined>}
 *   latencies of transactions (of whole pipelines), CPU by operation, the shares of the machine's cores' time that nobody used, and
 *   that programs which take no part have used; undefined where the machine was too busy for as much work as was wanted
 */
export async function runLoad(run) {
  const { workload, port, clients, seconds } = run;
  const like = `${workload.name} ${port} ${clients}`;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const extra = loginSeconds.get(like) ?? 0;
    const figures = await runOnce(run, workSeconds(clients, seconds) + extra);
    if (figures !== undefined) return figures;
    loginSeconds.set(like, extra + 1);
  }
  const what = `${workload.name} on port ${port}, ${clients} clients`;
  console.log(`${what}: not measured, no ${seconds} s of work in ${ATTEMPTS} attempts: is the machine loaded?`);
  return undefined;
}

/** Undefined where the load ended before the window did, or nothing was done in it. */
async function runOnce(run, workFor) {
  const { generator, workload, pid, serverPid, clients, seconds, scratch } = run;
  const log = join(scratch, 'latencies');
  const pids = { router: pid, server: serverPid };
  const takeLooks = watchWindow(log, pids, clients, seconds);
  const spawned = (load) => Object.assign(pids, { load });
  const told = { ...run, log, seconds: workFor };
  try {
    if (generator === 'pgbench') await runProgram('pgbench', pgbenchArguments(told), spawned);
    else await runProgram(process.execPath, loaderArguments(told), spawned);
    const [from, to] = takeLooks();
    const sorted = to === undefined ? [] : latenciesBetween(logsOf(log)[0], from.atUs, to.atUs);
    return sorted.length === 0 ? undefined : figuresOf(sorted, from, to, workload.pipeline ?? 1);
  } finally {
    takeLooks();
    for (const path of logsOf(log)) rmSync(path);
  }
}

function figuresOf(sorted, from, to, operationsEach) {
  const operations = sorted.length * operationsEach;
  const cpuOf = (which) =>
    from[which] && to[which] ? { [`${which}CpuUs`]: cpuBetween(from[which], to[which]) / operations } : {};
  return {
    opsPerSecond: (operations / (to.atUs - from.atUs)) * 1e6,
    operations,
    p50Us: percentile(sorted, 0.5),
    p99Us: percentile(sorted, 0.99),
    p999Us: percentile(sorted, 0.999),
    ...cpuOf('router'),
    ...cpuOf('server'),
    ...cpuOf('load'),
    ...(to.router ? { routerRssBytes: to.router.rssBytes } : {}),
    ...(from.ticks && to.ticks ? sharesBetween(from, to) : {}),
  };
}

/** How much of the cores' time nobody used, and how much went to others than those that are measured. */
function sharesBetween(from, to) {
  const all = to.ticks.all - from.ticks.all;
  const idle = to.ticks.idle - from.ticks.idle;
  const taking = ['router', 'server', 'load'].filter((which) => from[which] && to[which]);
  const ownUs = taking.reduce((sum, which) => sum + cpuBetween(from[which], to[which]), 0);
  const own = (ownUs / 1e6) * ticksPerSecond;
  return { idleShare: idle / all, othersShare: Math.max(0, all - idle - own) / all };
}

/** pgbench puts its process id behind the prefix. */
const logsOf = (prefix) =>
  readdirSync(dirname(prefix))
    .filter((name) => name.startsWith(`${basename(prefix)}.`))
    .map((name) => join(dirname(prefix), name));
