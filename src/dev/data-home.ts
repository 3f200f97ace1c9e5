// Where a cluster's data lies and who owns it. Normally in the folder that was asked for; under a folder the servers'
// user cannot enter (root's home is 0700) below a state folder instead, with a pointer left in the asked-for one.
// Removing the asked-for folder, pointer included, starts afresh in both cases.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { messageOf } from '../base/errors.js';
import { errnoOf } from '../catalog/errno.js';
import type { ClusterLog } from './cluster-log.js';
import { type DataLock, LOCK_FILE, lockData } from './data-lock.js';
import { chooseHome, pointedHome, writeOwner, writePointer } from './data-pointer.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';
import { chooseServerUser, firstClosedFolder, type ServerUser } from './server-user.js';
import { clearRemains } from './shard-data.js';

export interface DataHome {
  readonly dir: string;
  readonly user: ServerUser | undefined;
  readonly lock: DataLock;
}

export interface DataHomeOptions {
  readonly dataDir: string;
  readonly ephemeral: boolean;
  /** Replaces /var/lib/pgkv. */
  readonly stateRoot: string | undefined;
  readonly log: ClusterLog;
}

const SHARD_FOLDER = /^shard-(\d+)$/;
/** 103 (a socket's name on macOS; Linux 107) less `/pgkv-sock-XXXXXX/.s.PGSQL.65535`, rounded down. */
const TEMPORARY_ROOT_BYTES_MAX = 64;

export function shardName(id: number): string {
  return `shard-${id}`;
}

/** The ids of the shards whose data is in `dir`, ascending. */
export function existingShards(dir: string): number[] {
  const ids = readdirSync(dir).flatMap((name) => SHARD_FOLDER.exec(name)?.[1] ?? []);
  return ids.map(Number).sort((a, b) => a - b);
}

/** Makes or finds the folder, locks it for this process, and picks the servers' user. */
export async function openDataHome(options: DataHomeOptions): Promise<DataHome> {
  if (options.ephemeral) {
    const user = chooseServerUser(undefined);
    const dir = await makeTemporaryFolder('pgkv-data-', user);
    return { dir, user, lock: lockData(dir) };
  }
  try {
    return await openKeptHome(options);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    throw new EmbeddedClusterError(`the data directory ${options.dataDir} cannot be used: ${messageOf(error)}`, {
      hint: 'Start pgkv as the user it belongs to, or use another --data-dir.',
      cause: error,
    });
  }
}

/** In the system's temporary folder if `user` can enter it and the names of sockets fit, else in /tmp. */
export async function makeTemporaryFolder(prefix: string, user: ServerUser | undefined): Promise<string> {
  const preferred = realpathSync(tmpdir());
  const isShort = Buffer.byteLength(preferred) <= TEMPORARY_ROOT_BYTES_MAX;
  const root = isShort && (await firstClosedFolder(preferred, user)) === undefined ? preferred : '/tmp';
  const dir = mkdtempSync(join(root, prefix));
  chmodSync(dir, 0o755);
  return dir;
}

async function openKeptHome({ dataDir, stateRoot = '/var/lib/pgkv', log }: DataHomeOptions): Promise<DataHome> {
  if (/[\n\r]/.test(dataDir)) throw new EmbeddedClusterError('a --data-dir cannot have a line break in its name');
  makeEnterable(resolve(dataDir));
  const asked = realpathSync(dataDir);
  const pointed = pointedHome(asked, stateRoot);
  if (pointed !== undefined) {
    if (!existsSync(pointed)) log('warn', `the data of ${asked} is gone from ${pointed}; starting with none`);
    return await openElsewhere(asked, pointed, log);
  }
  if (existingShards(asked).length > 0) return await openPlace(asked);
  const user = chooseServerUser(undefined);
  const closed = await firstClosedFolder(asked, user);
  if (closed === undefined) return await openPlace(asked);

  log('info', `the servers' user ${user?.name} cannot enter ${closed}`);
  const home = chooseHome(asked, stateRoot);
  if (existsSync(home)) await setAside(home, asked, log);
  writePointer(asked, home);
  return await openElsewhere(asked, home, log);
}

async function openElsewhere(asked: string, home: string, log: ClusterLog): Promise<DataHome> {
  makeEnterable(home);
  writeOwner(home, asked);
  log('info', `the data of ${asked} is in ${home}`);
  return await openPlace(home);
}

/** One generation is kept: whoever removes a data directory wants an empty one, but may have wanted something else. */
async function setAside(home: string, asked: string, log: ClusterLog): Promise<void> {
  const previous = `${home}.previous`;
  lockData(home);
  for (const id of existingShards(home)) await clearRemains(join(home, shardName(id)), log);
  rmSync(previous, { recursive: true, force: true });
  renameSync(home, previous);
  rmSync(join(previous, LOCK_FILE));
  log('warn', `${asked} was removed and made again: starting afresh; the data it had is kept in ${previous}`);
}

async function openPlace(dir: string): Promise<DataHome> {
  const shardDirs = existingShards(dir).map((id) => join(dir, shardName(id)));
  const user = chooseServerUser(shardDirs[0]);
  const closed = await firstClosedFolder(dir, user);
  if (closed !== undefined) {
    throw new EmbeddedClusterError(`the servers' user ${user?.name} can no longer enter ${closed}, where its data is`, {
      hint: `Let it in (chmod o+x ${closed}), or move ${dir} to a folder that is open to it.`,
    });
  }
  const uid = user?.uid ?? process.geteuid?.();
  const foreign = shardDirs.find((shardDir) => statSync(shardDir).uid !== uid);
  if (foreign !== undefined) {
    throw new EmbeddedClusterError(`${foreign} belongs to another user (uid ${statSync(foreign).uid})`, {
      hint: 'Start pgkv as that user or as root, or use another --data-dir.',
    });
  }
  return { dir, user, lock: lockData(dir) };
}

/** Makes what is missing, 0755 whatever the umask: each shard's own folder below is 0700. */
function makeEnterable(dir: string): void {
  const first = mkdirSync(dir, { recursive: true });
  if (first === undefined) return;
  for (let made = dir; made.length >= first.length; made = dirname(made)) chmodSync(made, 0o755);
}
