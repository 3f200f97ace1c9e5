// One embedded Postgres server: started, watched, started again when it dies, stopped. Leaves its data directory's
// making to shard-data.ts, its settings to server-settings.ts, and which ports and folders it gets to the cluster.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fchownSync, fstatSync, openSync, readSync, renameSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { assert } from '../base/assert.js';
import { messageOf } from '../base/errors.js';
import type { Binaries } from './binaries.js';
import type { ClusterLog } from './cluster-log.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';
import { findFreePort } from './free-port.js';
import { readPostmasterFile } from './postmaster-file.js';
import { replaceFile } from './replace-file.js';
import { ACCESS_RULES, renderSettings, type ServerSettings } from './server-settings.js';
import { type ServerUser, spawnAs } from './server-user.js';
import { serverEnvironment } from './shard-data.js';
import type { Watchdog } from './watchdog.js';

const READY_TIMEOUT_MS = 60_000;
const START_ATTEMPTS = 20;
/** Fast shutdown, immediate shutdown, kill: the whole within 5 s. */
const STOP_STEPS: readonly [NodeJS.Signals, number][] = [
  ['SIGINT', 3000],
  ['SIGQUIT', 1000],
  ['SIGKILL', 1000],
];
const RESTART_DELAY_MIN_MS = 100;
const RESTART_DELAY_MAX_MS = 10_000;
/** A server that ran this long is not in a crash loop. */
const HEALTHY_AFTER_MS = 30_000;
const LOG_BYTES_MAX = 16 << 20;
const LOG_TAIL_BYTES = 4096;

export interface ShardServerOptions {
  readonly settings: ServerSettings;
  /** Where the settings go; outside the data directory. */
  readonly settingsFile: string;
  readonly logFile: string;
  readonly binaries: Binaries;
  readonly user: ServerUser | undefined;
  readonly watchdog: Watchdog;
  readonly log: ClusterLog;
}

interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Why there never was a process. */
  readonly failure?: string;
}

interface RunningServer {
  readonly child: ChildProcess;
  readonly exited: Promise<Exit>;
  readonly startedAt: number;
}

/**
 * Modes, in this order, with restarting ⇄ running in between:
 * new (no process) → starting (a process that does not accept yet) → running (accepts; its end leads to restarting)
 * ⇄ restarting (waits, then starts on the same port) → stopped (no process, never again one).
 */
export class ShardServer {
  readonly #options: ShardServerOptions;
  readonly #stopping = new AbortController();
  #settings: ServerSettings;
  #running: RunningServer | undefined;
  #supervision: Promise<void> | undefined;
  #restartDelayMs = RESTART_DELAY_MIN_MS;

  constructor(options: ShardServerOptions) {
    this.#options = options;
    this.#settings = options.settings;
  }

  /** The port it listens on: the one of the settings, or another if that one was taken at the first start. */
  get port(): number {
    return this.#settings.port;
  }

  /** Resolves when it accepts connections. */
  async start(): Promise<void> {
    assert(this.#supervision === undefined, 'a shard server is started once');
    for (let attempt = 1; ; attempt++) {
      try {
        const server = await this.#launch();
        this.#supervision = this.#supervise(server);
        return;
      } catch (error) {
        const obstacle = passingObstacle(messageOf(error));
        if (obstacle === undefined || attempt === START_ATTEMPTS || this.#stopping.signal.aborted) throw error;
        if (obstacle === 'port') await this.#changePort();
        else await sleep(250);
      }
    }
  }

  /** Resolves when no process is left, after 5 s at most. Idempotent; also ends a start under way. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    const server = this.#running;
    if (server !== undefined) await endProcess(server);
    await this.#supervision;
  }

  async #launch(): Promise<RunningServer> {
    const { logFile } = this.#options;
    assert(this.#running === undefined, 'one process per shard server');
    this.#stopping.signal.throwIfAborted();
    rotateLog(logFile);
    const logStart = sizeOf(logFile);
    const server = this.#spawn();
    this.#running = server;
    if (await becomesReady(server, this.#settings.dataDir)) return server;
    const tookMs = performance.now() - server.startedAt;
    await endProcess(server);
    this.#running = undefined;
    const { code, signal, failure } = await server.exited;
    const why = failure ?? (tookMs < READY_TIMEOUT_MS ? `code ${code}, signal ${signal}` : `not ready in ${tookMs} ms`);
    throw new EmbeddedClusterError(
      `the Postgres server of ${this.#settings.name} did not start (${why}); the end of ${logFile}:\n${tailOf(logFile, logStart)}`,
    );
  }

  #spawn(): RunningServer {
    const { binaries, settingsFile, logFile, user, watchdog } = this.#options;
    const { dataDir } = this.#settings;
    replaceFile(this.#settings.accessFile, ACCESS_RULES);
    replaceFile(settingsFile, renderSettings(this.#settings));
    const log = openLog(logFile, user);
    // Its own session: Ctrl-C in the terminal goes to us alone, and we stop the servers in order.
    const child = spawn(binaries.postgres, ['-D', dataDir, '-c', `config_file=${settingsFile}`], {
      cwd: dataDir,
      detached: true,
      stdio: ['ignore', log, log],
      env: serverEnvironment(),
      ...spawnAs(user),
    });
    closeSync(log);
    if (child.pid !== undefined) watchdog.addServer(child.pid, dataDir);
    return { child, exited: exitOf(child), startedAt: performance.now() };
  }

  /** Until stop(): each unexpected end is logged and answered by a new start. */
  async #supervise(first: RunningServer): Promise<void> {
    const { log, logFile } = this.#options;
    for (let server: RunningServer | undefined = first; server !== undefined; server = await this.#restart()) {
      const { code, signal } = await server.exited;
      if (this.#stopping.signal.aborted) return;
      this.#running = undefined;
      log('error', `the Postgres server of ${this.#settings.name} ended by itself; starting it again`, {
        code,
        signal,
        logFile,
      });
      if (performance.now() - server.startedAt > HEALTHY_AFTER_MS) this.#restartDelayMs = RESTART_DELAY_MIN_MS;
    }
  }

  /** On the same port, at growing intervals; undefined when stop() comes first. */
  async #restart(): Promise<RunningServer | undefined> {
    const { log } = this.#options;
    for (;;) {
      await sleep(this.#restartDelayMs, undefined, { signal: this.#stopping.signal }).catch(ignoreAbort);
      if (this.#stopping.signal.aborted) return undefined;
      this.#restartDelayMs = Math.min(this.#restartDelayMs * 2, RESTART_DELAY_MAX_MS);
      try {
        const server = await this.#launch();
        log('info', `the Postgres server of ${this.#settings.name} is back`, { port: this.port });
        return server;
      } catch (error) {
        if (!this.#stopping.signal.aborted) log('error', messageOf(error));
      }
    }
  }

  async #changePort(): Promise<void> {
    const port = await findFreePort('127.0.0.1');
    this.#options.log('warn', `port ${this.#settings.port} is taken; ${this.#settings.name} moves to ${port}`);
    this.#settings = { ...this.#settings, port };
  }
}

/** What may be gone at the next attempt: a port taken since it was chosen; backends of a killed server still ending. */
function passingObstacle(message: string): 'port' | 'memory' | undefined {
  if (/could not bind .*Address already in use/.test(message)) return 'port';
  return message.includes('pre-existing shared memory block') ? 'memory' : undefined;
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.once('error', (error) => resolve({ code: null, signal: null, failure: error.message }));
  });
}

/** The postmaster writes its state into its pid file; asking costs less than a connection. */
async function becomesReady(server: RunningServer, dataDir: string): Promise<boolean> {
  let ended = false;
  const end = server.exited.then(() => {
    ended = true;
  });
  while (!ended && performance.now() - server.startedAt < READY_TIMEOUT_MS) {
    const file = readPostmasterFile(dataDir);
    if (file !== undefined && file !== 'garbled' && file.pid === server.child.pid && file.status === 'ready')
      return true;
    await Promise.race([end, sleep(10)]);
  }
  return false;
}

async function endProcess(server: RunningServer): Promise<void> {
  for (const [signal, patienceMs] of STOP_STEPS) {
    // No-op when it has ended; the exit is known before the pid could go to another process.
    server.child.kill(signal);
    const timer = new AbortController();
    const late = sleep(patienceMs, 'late' as const, { signal: timer.signal }).catch(ignoreAbort);
    const outcome = await Promise.race([server.exited, late]);
    timer.abort();
    if (outcome !== 'late') return;
  }
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
}

/** What earlier runs wrote is kept, up to a limit, for the question what happened last night. */
function rotateLog(path: string): void {
  if (sizeOf(path) > LOG_BYTES_MAX) renameSync(path, `${path}.1`);
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** It holds values of statements that failed: only the servers' user reads it. */
function openLog(path: string, user: ServerUser | undefined): number {
  const log = openSync(path, 'a', 0o600);
  if (user !== undefined) fchownSync(log, user.uid, user.gid);
  return log;
}

function tailOf(path: string, from: number): string {
  const log = openSync(path, 'r');
  try {
    const { size } = fstatSync(log);
    const start = Math.max(from, size - LOG_TAIL_BYTES);
    const tail = Buffer.alloc(Math.max(0, size - start));
    readSync(log, tail, 0, tail.length, start);
    return tail.toString('utf8').trim() || '(nothing)';
  } finally {
    closeSync(log);
  }
}
