// Temporary Postgres servers for tests: a copied data directory, a free port, no fsync, gone when the test is gone
// (also after kill -9 of the test process: a watchdog notices the closed pipe). One initdb per release and machine.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  accessSync,
  appendFileSync,
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { freemem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { findPostgres, type PostgresBinaries, type PostgresVersion, serverAccount } from './postgres-binaries.js';

export interface PostgresServerOptions {
  readonly version: PostgresVersion;
  /** Server settings, over those of a small test server. */
  readonly parameters?: Readonly<Record<string, string>>;
  /** How TCP clients sign in; the Unix socket always trusts. Default `trust`. */
  readonly hba?: 'trust' | 'scram';
  /** In recovery, with nothing to follow: reads only. */
  readonly standby?: boolean;
  /** Of the server's processes, over our own. */
  readonly environment?: Readonly<Record<string, string>>;
}

export interface PostgresServer {
  readonly release: string;
  readonly host: string;
  readonly port: number;
  readonly socketDir: string;
  readonly dataDir: string;
  readonly superuser: string;
  /** The superuser's password; used only under `hba: 'scram'`. */
  readonly password: string;
  readonly psql: string | undefined;
  /** The server's log so far. */
  log(): string;
  /** Ends the server at once (no checkpoint) and removes all its files. Idempotent. */
  stop(): Promise<void>;
}

const SUPERUSER = 'postgres';
const PASSWORD = 'test superuser password';
const START_ATTEMPTS_MAX = 5;
const START_TIMEOUT_MS = 20_000;
const SHARED_MEMORY = '/dev/shm';
/** The six servers of a test hold some hundred MB together, and several tests run at once. */
const MEMORY_FREE_MIN = 4 * 1024 ** 3;

const SMALL_SERVER = {
  listen_addresses: '127.0.0.1',
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  shared_buffers: '8MB',
  max_connections: '60',
  max_wal_size: '64MB',
  autovacuum: 'off', // plans and locks of tests must not depend on when it runs
  max_prepared_transactions: '20',
  wal_level: 'logical',
  log_checkpoints: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
};

/** Starts a server and resolves when it accepts connections (about 0.3 s once the template directory exists). */
export async function startPostgres(options: PostgresServerOptions): Promise<PostgresServer> {
  const binaries = findPostgres(options.version);
  if (!binaries) throw new Error(`Postgres ${options.version} is not installed on this machine`);
  const template = templateDirectory(binaries);
  for (let attempt = 1; ; attempt++) {
    const started = await tryStart(binaries, template, options);
    if (!('failure' in started)) return started;
    // The free port we found may be taken by the time the server binds it: tests run in parallel.
    const portTaken = started.failure.includes('could not bind');
    if (!portTaken || attempt === START_ATTEMPTS_MAX) throw new Error(`Postgres did not start:\n${started.failure}`);
  }
}

async function tryStart(
  binaries: PostgresBinaries,
  template: string,
  options: PostgresServerOptions,
): Promise<PostgresServer | { failure: string }> {
  const account = serverAccount();
  const home = mkdtempSync(join(serversFolder(), 'pgkv-pg-'));
  const watchdog = watchOver(home);
  const dataDir = join(home, 'data');
  const socketDir = join(home, 'socket');
  mkdirSync(socketDir);
  chmodSync(home, 0o755);
  if (account) for (const path of [home, socketDir]) chownSync(path, account.uid, account.gid);
  run('cp', ['-R', template, dataDir]);
  if (options.standby === true) {
    writeFileSync(join(dataDir, 'standby.signal'), '');
    if (account) chownSync(join(dataDir, 'standby.signal'), account.uid, account.gid);
  }
  appendFileSync(join(dataDir, 'pg_hba.conf'), hostRules(options.hba ?? 'trust'));

  const port = await freePort();
  // A standby has at least the connections of the server that its data come from.
  const connections = options.standby === true ? { max_connections: '100' } : {};
  const settings = {
    ...SMALL_SERVER,
    ...connections,
    unix_socket_directories: socketDir,
    port: String(port),
    ...options.parameters,
  };
  const child = spawn(
    join(binaries.binDir, 'postgres'),
    ['-D', dataDir, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    {
      ...account,
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC', ...options.environment },
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true, // Ctrl-C must reach the tests only; they stop the server
    },
  );
  if (child.pid !== undefined) watchdog.server(child.pid);
  let log = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    log += chunk;
  });
  let stopped: Promise<void> | undefined;
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.ref(); // waiting for it must keep the process alive; merely having it must not
      child.kill('SIGQUIT');
      await exited;
    }
    rmSync(home, { recursive: true, force: true });
    watchdog.dismiss();
  };
  const stopOnce = () => {
    stopped ??= stop();
    return stopped;
  };
  if (!(await becomesReady(child, () => log))) {
    await stopOnce();
    return { failure: log };
  }
  child.unref();
  (child.stderr as unknown as { unref(): void }).unref();
  return {
    release: binaries.release,
    host: '127.0.0.1',
    port,
    socketDir,
    dataDir,
    superuser: SUPERUSER,
    password: PASSWORD,
    psql: binaries.psql,
    log: () => log,
    stop: stopOnce,
  };
}

/** Resolves true at "ready to accept connections", false when the server ends or takes too long. */
function becomesReady(child: ChildProcess, log: () => string): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), START_TIMEOUT_MS);
    const settle = (ready: boolean) => {
      clearTimeout(timer);
      resolve(ready);
    };
    child.stderr?.on('data', () => {
      if (/database system is ready to accept (read-only )?connections/.test(log())) settle(true);
    });
    child.once('exit', () => settle(false));
    child.once('error', () => settle(false));
  });
}

/**
 * A shell that removes the files at `home`, and ends the server once it is named, when our end of its pipe closes
 * without a word: that happens however this process dies.
 */
function watchOver(home: string): { server(pid: number): void; dismiss(): void } {
  const script = `
    read -r pid && read -r word && [ "$word" = dismissed ] && exit 0
    for attempt in 1 2 3 4 5; do
      [ -z "$pid" ] || kill -QUIT "$pid" 2>/dev/null
      sleep 0.4
      rm -rf "$1" && break # fails while a backend still writes
    done`;
  const watchdog = spawn('/bin/sh', ['-c', script, 'watchdog', home], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  watchdog.unref();
  const pipe = watchdog.stdin;
  (pipe as unknown as { unref(): void }).unref();
  pipe.on('error', () => undefined); // the watchdog was killed with the rest of a process group: nothing to dismiss
  return {
    server: (pid) => pipe.write(`${pid}\n`),
    dismiss: () => pipe.end('dismissed\n'),
  };
}

/**
 * Where servers keep their files: in memory where there is plenty of it. A copied data directory took up to 0.8 s of the
 * system's CPU on a disk (ext4, 31 MB in 1,000 files), and takes 0.04 s there; a run of all tests makes hundreds.
 */
export function serversFolder(): string {
  try {
    const { bavail, bsize } = statfsSync(SHARED_MEMORY);
    accessSync(SHARED_MEMORY, constants.W_OK);
    if (Math.min(bavail * bsize, freemem()) > MEMORY_FREE_MIN) return SHARED_MEMORY;
  } catch {
    // Not on this system.
  }
  return tmpdir();
}

/** The data directory all servers of one release are copied from; made once, in os.tmpdir. */
function templateDirectory(binaries: PostgresBinaries): string {
  const account = serverAccount();
  const owner = account?.uid ?? process.getuid?.() ?? 0;
  const template = join(tmpdir(), `pgkv-test-template-${binaries.release}-${owner}`);
  if (existsSync(template)) return template;
  const half = mkdtempSync(`${template}-`);
  const passwordFile = `${half}.password`;
  writeFileSync(passwordFile, PASSWORD);
  if (account) for (const path of [half, passwordFile]) chownSync(path, account.uid, account.gid);
  run(join(binaries.binDir, 'initdb'), [
    ...['-D', half, '-U', SUPERUSER, '--pwfile', passwordFile, '--encoding=UTF8', '--locale=C', '--no-sync'],
    ...['--auth=trust', '--wal-segsize=1', '--no-instructions'],
  ]);
  writeFileSync(join(half, 'pg_hba.conf'), 'local all all trust\nlocal replication all trust\n');
  rmSync(passwordFile);
  try {
    renameSync(half, template);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    if (!existsSync(template)) throw error; // else another test process was faster
  }
  return template;
}

function hostRules(hba: 'trust' | 'scram'): string {
  const method = hba === 'scram' ? 'scram-sha-256' : 'trust';
  return `host all all 127.0.0.1/32 ${method}\nhost replication all 127.0.0.1/32 ${method}\n`;
}

/** Runs a program to its end under the servers' account, so that what it makes belongs to it. */
function run(program: string, args: readonly string[]): void {
  const done = spawnSync(program, args, {
    ...serverAccount(),
    cwd: tmpdir(),
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
  });
  if (done.status !== 0) throw new Error(`${program} failed: ${done.error?.message ?? ''}${done.stderr}`);
}

/**
 * A TCP port that was free a moment ago. Below the range from which systems take the ports of outgoing connections: one
 * of those would have it by the time it is used.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('listening', () => resolve(true)).once('error', () => resolve(false));
    });
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}
