// Postgres's programs at a place where the server's user can run them: in the npm package itself where that works, else
// in a copy per version (60 MB) under a cache folder. Works means tried: `postgres --version`, as that user.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { chmod, copyFile, lstat, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert } from '../base/assert.js';
import { errnoOf } from '../catalog/errno.js';
import type { ClusterLog } from './cluster-log.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';
import { findPlatformPackage, linkLibraries, type PlatformPackage } from './platform-package.js';
import { type ServerUser, spawnAs } from './server-user.js';

export interface Binaries {
  readonly postgres: string;
  readonly initdb: string;
  /** 18 for 18.4. */
  readonly major: number;
}

export interface BinariesOptions {
  readonly user: ServerUser | undefined;
  /** Replaces the default cache folder. */
  readonly cacheRoot: string | undefined;
  readonly log: ClusterLog;
}

export async function prepareBinaries(options: BinariesOptions): Promise<Binaries> {
  const found = findPlatformPackage();
  if (await linkLibraries(found.dir)) {
    const inPlace = await tryBinaries(found.dir, options.user);
    if (typeof inPlace !== 'string') return inPlace;
  }
  const cache = await openCache(options.cacheRoot);
  const copy = join(cache, `${found.name.replace('/', '-').slice(1)}-${found.version}`);
  if (existsSync(copy)) {
    const cached = await tryBinaries(copy, options.user);
    if (typeof cached !== 'string') return cached;
    options.log('warn', `the copy of Postgres's binaries in ${copy} does not run: ${cached}; making a new one`);
    await discard(copy);
  }
  options.log('info', `copying Postgres's binaries to ${copy}`, { from: found.dir });
  await installCopy(found, copy);
  const tried = await tryBinaries(copy, options.user);
  if (typeof tried !== 'string') return tried;
  throw new EmbeddedClusterError(`Postgres's binaries in ${copy} do not run: ${tried}`, {
    hint: 'Check that the folder is not on a file system mounted noexec and that its user may enter it.',
  });
}

/** The binaries below `dir`, or why they do not run. */
async function tryBinaries(dir: string, user: ServerUser | undefined): Promise<Binaries | string> {
  const bin = join(dir, 'native', 'bin');
  const postgres = join(bin, 'postgres');
  const outcome = await new Promise<{ version: string } | { failure: Error }>((resolve) => {
    execFile(postgres, ['--version'], { cwd: '/', ...spawnAs(user) }, (error, stdout) =>
      resolve(error === null ? { version: stdout } : { failure: error }),
    );
  });
  if ('failure' in outcome) {
    // The file is there, yet the kernel says ENOENT: it is the program's loader that is missing.
    if (errnoOf(outcome.failure) === 'ENOENT' && existsSync(postgres)) {
      throw new EmbeddedClusterError(
        'the embedded Postgres needs glibc, which this system does not have (musl, Alpine)',
        {
          hint: 'Use a Debian-based image, or put pgkv in front of servers of your own with `pgkv start --config FILE`.',
        },
      );
    }
    return outcome.failure.message;
  }
  const major = Number(/^postgres \(PostgreSQL\) (\d+)/.exec(outcome.version)?.[1]);
  assert(major > 0, `${postgres} --version tells a version, not ${JSON.stringify(outcome.version)}`);
  return { postgres, initdb: join(bin, 'initdb'), major };
}

/** The first cache folder that can be made and is ours. */
async function openCache(cacheRoot: string | undefined): Promise<string> {
  const uid = process.geteuid?.() ?? 0;
  const home = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  const candidates =
    cacheRoot !== undefined
      ? [cacheRoot]
      : [uid === 0 ? '/var/cache/pgkv' : join(home, 'pgkv'), join(tmpdir(), `pgkv-cache-${uid}`)];
  let refusal: unknown;
  for (const folder of candidates) {
    try {
      await mkdir(folder, { recursive: true });
      const { uid: owner } = await lstat(folder);
      // Programs are run from here: nobody else may have made it (the temporary folder is open to all).
      if (owner !== uid) throw new Error(`${folder} belongs to another user (uid ${owner})`);
      await chmod(folder, 0o755);
      return folder;
    } catch (error) {
      refusal = error;
    }
  }
  throw new EmbeddedClusterError(`no folder to copy Postgres's binaries to (tried ${candidates.join(', ')})`, {
    hint: "Make one of them writable, or the package's own folder under node_modules.",
    cause: refusal,
  });
}

/** Copies beside the target and renames, so that a pgkv that starts at the same time never sees half a copy. */
async function installCopy(from: PlatformPackage, to: string): Promise<void> {
  const fresh = besides(to);
  try {
    await copyFolder(join(from.dir, 'native'), join(fresh, 'native'));
    await chmod(fresh, 0o755);
    await linkLibraries(fresh);
    await rename(fresh, to);
  } catch (error) {
    // Another pgkv was faster, and may already run servers from its copy: that one stays.
    if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw error;
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

async function discard(folder: string): Promise<void> {
  const doomed = besides(folder);
  await rename(folder, doomed);
  await rm(doomed, { recursive: true, force: true });
}

function besides(path: string): string {
  return `${path}.${randomBytes(6).toString('hex')}`;
}

/** Modes are set, not inherited: with root's umask 077 the server's user could not read the copy. */
async function copyFolder(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  await chmod(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    if (entry.isDirectory()) await copyFolder(source, target);
    else if (entry.isFile() && !entry.name.endsWith('.a')) {
      await copyFile(source, target, constants.COPYFILE_FICLONE);
      const { mode } = await lstat(source);
      await chmod(target, mode & 0o100 ? 0o755 : 0o644);
    }
  }
}
