// CPU time and memory of a process and its children, from /proc. Elsewhere than on Linux everything is undefined.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** Of /proc. */
export const ticksPerSecond = Number(spawnSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }).stdout) || 100;
const pageBytes = Number(spawnSync('getconf', ['PAGESIZE'], { encoding: 'utf8' }).stdout) || 4096;

/** Fields of /proc/PID/stat behind the command name, which may hold spaces; undefined when the process is gone. */
function statOf(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

/** @returns {number[]} the process and its descendants: pgkv's workers count too */
function processTree(root) {
  const parents = new Map();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = statOf(name);
    if (stat) parents.set(Number(name), Number(stat[1]));
  }
  const tree = [root];
  for (const parent of tree) for (const [pid, of] of parents) if (of === parent) tree.push(pid);
  return tree;
}

/**
 * @returns {{ cpuUs: number, rssBytes: number, byProcess: Map<number, number> } | undefined} summed over the process and its
 *   descendants; CPU in µs also by process
 */
export function usageOf(pid) {
  if (process.platform !== 'linux' || pid === undefined) return undefined;
  const byProcess = new Map();
  let cpuUs = 0;
  let pages = 0;
  for (const one of processTree(pid)) {
    const stat = statOf(one);
    if (stat === undefined) continue;
    const ticks = Number(stat[11]) + Number(stat[12]); // utime, stime
    byProcess.set(one, (ticks / ticksPerSecond) * 1e6);
    cpuUs += byProcess.get(one);
    pages += Number(stat[21]);
  }
  return { cpuUs, rssBytes: pages * pageBytes, byProcess };
}

/** CPU time between two looks in µs; what processes used that have ended meanwhile is not in it. */
export function cpuBetween(from, to) {
  let sum = 0;
  for (const [pid, cpuUs] of to.byProcess) sum += cpuUs - (from.byProcess.get(pid) ?? 0);
  return sum;
}

/** @returns {{ idle: number, all: number } | undefined} of all cores since the machine began, in ticks */
export function machineTicks() {
  if (process.platform !== 'linux') return undefined;
  const [first] = readFileSync('/proc/stat', 'latin1').split('\n', 1);
  const ticks = first.split(/\s+/).slice(1, 9).map(Number); // guest time, behind them, is in user time, too
  return { idle: ticks[3] + ticks[4], all: ticks.reduce((sum, one) => sum + one, 0) };
}

/** Calls `use` and tells the most memory the process held meanwhile, looked at every `everyMs`. */
export async function peakRssWhile(pid, everyMs, use) {
  let peak = usageOf(pid)?.rssBytes ?? 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, usageOf(pid)?.rssBytes ?? 0);
  }, everyMs);
  try {
    const value = await use();
    return { value, peakRssBytes: Math.max(peak, usageOf(pid)?.rssBytes ?? 0) };
  } finally {
    clearInterval(timer);
  }
}
