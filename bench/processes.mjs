// Programs that benches and the compatibility stack start: scratch folders, free ports, an identity other than root, launching and
// ending. Invariant: whatever was launched here is ended by its own handle, also when this process is interrupted.

import { spawn, spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

// Each server has an exit listener of its own; shards.mjs starts 36.
process.setMaxListeners(100);

export const LOOPBACK = '127.0.0.1';

const running = new Set();

/**
 * @typedef {object} Server
 * @property {string} name for people, with version
 * @property {string} host where clients find it: 127.0.0.1, or the folder of its Unix socket
 * @property {number} port
 * @property {number} pid
 * @property {() => Promise<void>} stop ends the process and waits for it
 */

/** A scratch folder that any user may enter; removed when this process ends. */
export function createScratch(label) {
  const folder = mkdtempSync(join(tmpdir(), `pgkv-${label}-`));
  spawnSync('chmod', ['755', folder]);
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Ends everything still running when the process is told to stop; call once in a main program. */
export function stopServersOnSignals() {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, async () => {
      await stopServers();
      process.exit(130);
    });
  }
}

export async function stopServers() {
  // Newest first: routers go before the databases they hold connections to.
  for (const server of [...running].reverse()) await server.stop();
}

export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, LOOPBACK, () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** The first of the directories in PATH (or the usual system ones) that holds the program. */
export function findProgram(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/** Postgres and PgBouncer refuse root: root starts them as `postgres` where that user exists, else as `nobody`. */
export function unprivilegedIdentity() {
  if (process.getuid?.() !== 0) return {};
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  for (const wanted of ['postgres', 'nobody']) {
    const entry = users.find(([name]) => name === wanted);
    if (entry) return { uid: Number(entry[2]), gid: Number(entry[3]) };
  }
  throw new Error('running as root and neither user postgres nor nobody exists: start the bench as an ordinary user');
}

export function makeOwnedFolder(path) {
  mkdirSync(path, { mode: 0o700 });
  const { uid, gid } = unprivilegedIdentity();
  if (uid !== undefined) chownSync(path, uid, gid);
  return path;
}

export function runToEnd(program, args, options) {
  const done = spawnSync(program, args, { encoding: 'utf8', ...options });
  if (done.error) throw done.error;
  if (done.status !== 0)
    throw new Error(`${program} ended with ${done.status ?? done.signal}: ${done.stderr || done.stdout}`);
  return done.stdout;
}

/** Spawns a server, keeps the last lines it printed for error messages, and registers it for stopServers(). */
export function launch(name, program, args, { stopSignal = 'SIGTERM', ...options }) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  let tail = '';
  const keepTail = (chunk) => {
    tail = (tail + chunk).slice(-4000);
  };
  child.stdout.on('data', keepTail);
  child.stderr.on('data', keepTail);
  const ended = new Promise((resolve) => {
    child.once('exit', resolve);
    child.once('error', (error) => {
      keepTail(error.message);
      resolve();
    });
  });
  const killNow = () => child.kill('SIGKILL');
  process.prependListener('exit', killNow); // before its scratch folder is removed
  const server = {
    name,
    host: LOOPBACK,
    port: 0,
    pid: child.pid ?? 0,
    output: () => tail,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null || child.pid === undefined,
    async stop() {
      running.delete(server);
      child.kill(stopSignal);
      const impatience = setTimeout(killNow, 10_000);
      await ended;
      clearTimeout(impatience);
      process.off('exit', killNow);
    },
  };
  running.add(server);
  return server;
}

export function acceptsConnections(port) {
  return new Promise((resolve) => {
    const socket = connect({ port, host: LOOPBACK });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export async function waitUntil(server, condition, { timeoutMs }) {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (server.hasEnded()) throw new Error(`${server.name} ended while starting:\n${server.output()}`);
    if (Date.now() > deadline)
      throw new Error(`${server.name} was not ready after ${timeoutMs} ms:\n${server.output()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
