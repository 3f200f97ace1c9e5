// Runs one workload once against one port, by pgbench where it is installed, else by loader.mjs.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { findProgram } from './processes.mjs';
import { scriptOf } from './workloads.mjs';

/** Which generator runs here: "pgbench" or "loader". */
export function chooseGenerator(wanted) {
  const installed = findProgram('pgbench') !== undefined;
  if (wanted === 'pgbench' && !installed) throw new Error('pgbench is not installed');
  return wanted ?? (installed ? 'pgbench' : 'loader');
}

function output(program, args) {
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
      if (status === 0) resolve(stdout);
      else reject(new Error(`${program} ended with ${status}: ${stderr.slice(0, 2000)}`));
    });
  });
}

/**
 * @param {{ generator: string, workload: object, port: number, user: string, database: string, mode: string, clients: number, seconds: number }} run
 * @returns {Promise<{ tps: number, transactions: number, latencyUs: number }>}
 */
export async function runLoad({ generator, workload, port, user, database, mode, clients, seconds }) {
  const script = scriptOf(workload);
  if (generator === 'loader') {
    const loader = fileURLToPath(new URL('loader.mjs', import.meta.url));
    const named = { port, user, database, script, mode, clients, seconds };
    return JSON.parse(
      await output(process.execPath, [
        loader,
        ...Object.entries(named).flatMap(([name, value]) => [`--${name}`, String(value)]),
      ]),
    );
  }
  const where = ['-h', '127.0.0.1', '-p', String(port), '-U', user];
  const text = await output('pgbench', [
    ...where,
    '-n',
    '-M',
    mode,
    '-j',
    '1',
    '-c',
    String(clients),
    '-T',
    String(seconds),
    '-f',
    script,
    database,
  ]);
  const number = (pattern) => Number(text.match(pattern)?.[1]);
  const result = {
    tps: number(/^tps = ([\d.]+)/m),
    transactions: number(/transactions actually processed: (\d+)/),
    latencyUs: number(/^latency average = ([\d.]+) ms/m) * 1000,
  };
  if (!(result.tps > 0)) throw new Error(`pgbench measured nothing:\n${text}`);
  return result;
}
