// One shard's data directory: made by initdb under a provisional name and renamed when complete, so that a crash leaves
// either a whole one or none; checked for Postgres's version; freed of what a crash left (a server, a pid file).
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../catalog/errno.js';
import type { Binaries } from './binaries.js';
import type { ClusterLog } from './cluster-log.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';
import { isPostmasterOf, type PostmasterFile, postmasterFilePath, readPostmasterFile } from './postmaster-file.js';
import { SUPERUSER } from './server-settings.js';
import { type ServerUser, spawnAs } from './server-user.js';

export const SOCKET_DIR_PREFIX = 'pgkv-sock-';
const DRAFT_MARK = '.new-';

export interface InitOptions {
  readonly binaries: Binaries;
  readonly user: ServerUser | undefined;
  readonly ephemeral: boolean;
}

/** About 0.4 s, also with its final sync, so that the first acknowledged write is as safe as any later one. */
export async function initShardData(dataDir: string, options: InitOptions): Promise<void> {
  // A name of its own: the initdb of a pgkv that was killed may still be writing into another.
  const draft = `${dataDir}${DRAFT_MARK}${randomBytes(4).toString('hex')}`;
  mkdirSync(draft, { mode: 0o700 });
  if (options.user !== undefined) chownSync(draft, options.user.uid, options.user.gid);
  const args = ['-D', draft, '--username', SUPERUSER, '--auth=trust', '--encoding=UTF8', '--locale=C'];
  args.push('--no-instructions', ...(options.ephemeral ? ['--no-sync'] : []));
  await new Promise<void>((resolve, reject) => {
    const as = { cwd: '/', env: serverEnvironment(), ...spawnAs(options.user) };
    execFile(options.binaries.initdb, args, as, (error, _stdout, stderr) => {
      if (error === null) return resolve();
      const reason = stderr.trim() || error.message;
      reject(new EmbeddedClusterError(`initdb failed for ${dataDir}: ${reason}`, { cause: error }));
    });
  });
  renameSync(draft, dataDir);
}

/** The parent's environment without what would steer Postgres (PGDATA, PGPORT, PGOPTIONS …) or translate its messages. */
export function serverEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('PG') && !name.startsWith('LC_'));
  return { ...Object.fromEntries(kept), LC_ALL: 'C' };
}

/** Removes what an initdb that did not finish left in `folder`. */
export function removeDrafts(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (!name.includes(DRAFT_MARK)) continue;
    // The retries are for one that is still writing: it gives up when its folder is gone.
    rmSync(join(folder, name), { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

export function checkVersion(dataDir: string, major: number): void {
  const versionFile = join(dataDir, 'PG_VERSION');
  if (!existsSync(versionFile)) {
    throw new EmbeddedClusterError(`${dataDir} is not the data directory of a Postgres server: PG_VERSION is missing`, {
      hint: 'Restore it, or use another --data-dir.',
    });
  }
  const found = Number.parseInt(readFileSync(versionFile, 'utf8'), 10);
  if (found === major) return;
  throw new EmbeddedClusterError(`${dataDir} was made by Postgres ${found}, and this pgkv brings Postgres ${major}`, {
    hint: `Dump it with the pgkv that made it and restore into an empty --data-dir; Postgres ${major} cannot read its files.`,
  });
}

/**
 * Stops a server that a crash left running, and removes a pid file that would keep the next one from starting. To be
 * called by the holder of the data's lock: then such a server belongs to nobody.
 */
export async function clearRemains(dataDir: string, log: ClusterLog): Promise<void> {
  const found = readPostmasterFile(dataDir);
  if (found === undefined) return;
  if (found === 'garbled') {
    log('warn', `removing an unreadable postmaster.pid from ${dataDir}`);
    rmSync(postmasterFilePath(dataDir), { force: true });
    return;
  }
  if (isPostmasterOf(found.pid, dataDir)) {
    log('warn', `stopping a server that a crash left running on ${dataDir}`, { pid: found.pid });
    await stopOrphan(found.pid, dataDir);
  } else {
    log('warn', `${dataDir} was not shut down properly; Postgres recovers it`, { stalePid: found.pid });
    // Postgres removes such a file itself, except when the pid has gone to another process of the same user.
    rmSync(postmasterFilePath(dataDir), { force: true });
  }
  removeSockets(found);
}

async function stopOrphan(pid: number, dataDir: string): Promise<void> {
  const steps: readonly [NodeJS.Signals, number][] = [
    ['SIGINT', 3000],
    ['SIGQUIT', 5000],
  ];
  for (const [signal, patienceMs] of steps) {
    if (!isPostmasterOf(pid, dataDir)) return;
    process.kill(pid, signal);
    for (const deadline = performance.now() + patienceMs; performance.now() < deadline; await sleep(20)) {
      if (!isPostmasterOf(pid, dataDir)) return;
    }
  }
  throw new EmbeddedClusterError(`process ${pid}, a server left running on ${dataDir}, does not stop`, {
    hint: `End it with \`kill -9 ${pid}\` and start again.`,
  });
}

/** Exactly the names Postgres makes, in a folder that pgkv made: the file they come from is the server user's to write. */
function removeSockets(remains: PostmasterFile): void {
  const { socketDir, port } = remains;
  if (socketDir === undefined || port === undefined || !basename(socketDir).startsWith(SOCKET_DIR_PREFIX)) return;
  rmSync(join(socketDir, `.s.PGSQL.${port}`), { force: true });
  rmSync(join(socketDir, `.s.PGSQL.${port}.lock`), { force: true });
  try {
    rmdirSync(socketDir);
  } catch (error) {
    // Other shards' sockets are still in it, or it is gone already.
    const code = errnoOf(error);
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}
