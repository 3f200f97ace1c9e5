// The client programs: where each stands, what it needs on the machine, how its pinned dependencies get into the cache folder
// (outside the repository), and how it is started. run.mjs does the rest.

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const cache = process.env.PGKV_COMPAT_CACHE ?? join(tmpdir(), 'pgkv-compat');
const INSTALL_TIMEOUT_MS = 300_000;

/**
 * @typedef {object} Client
 * @property {string} name
 * @property {() => string | undefined} missing why it cannot run on this machine
 * @property {() => Promise<string[]>} prepare installs what it needs; gives its command line
 */

function hasProgram(name) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, name)));
}

function missingProgram(...names) {
  const absent = names.filter((name) => !hasProgram(name));
  return absent.length > 0 ? `${absent.join(', ')} not installed` : undefined;
}

/** Runs an install step; rejects with the end of what it printed. */
function install(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: INSTALL_TIMEOUT_MS, ...options });
    let output = '';
    const collect = (chunk) => {
      output = (output + chunk).slice(-2000);
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    child.once('error', reject);
    child.once('close', (status) =>
      status === 0 ? resolve() : reject(new Error(`${program} ${args[0]} ended with ${status}: ${output}`)),
    );
  });
}

/** A folder of the cache named after the content of the given files, filled once by `fill`. */
async function cached(label, files, fill) {
  const hash = createHash('sha256');
  for (const file of files) hash.update(readFileSync(join(here, file)));
  const folder = join(cache, `${label}-${hash.digest('hex').slice(0, 12)}`);
  const marker = join(folder, '.complete');
  if (!existsSync(marker)) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    await fill(folder);
    writeFileSync(marker, '');
  }
  return folder;
}

/** A Node program that needs a package of this repository. */
function nodeClient(name, packageName) {
  return {
    name,
    missing() {
      try {
        createRequire(import.meta.url).resolve(packageName);
      } catch {
        return `npm package ${packageName} not installed`;
      }
    },
    prepare: async () => [process.execPath, join(here, name, 'main.mjs')],
  };
}

/** A Python program with a virtual environment of its own. */
function pythonClient(name) {
  const requirements = join(name, 'requirements.txt');
  return {
    name,
    missing: () =>
      missingProgram('python3') ??
      (spawnSync('python3', ['-c', 'import venv, ensurepip']).status === 0 ? undefined : 'python3 has no venv module'),
    async prepare() {
      const folder = await cached(name, [requirements], async (target) => {
        await install('python3', ['-m', 'venv', target]);
        await install(join(target, 'bin', 'pip'), [
          'install',
          '--quiet',
          '--only-binary',
          ':all:',
          '-r',
          join(here, requirements),
        ]);
      });
      return [join(folder, 'bin', 'python'), join(here, name, 'main.py')];
    },
  };
}

/** @type {Client[]} */
export const clients = [
  nodeClient('node-pg', 'pg'),
  nodeClient('postgres-js', 'postgres'),
  pythonClient('psycopg'),
  pythonClient('asyncpg'),
  {
    name: 'pgx',
    missing: () => missingProgram('go'),
    async prepare() {
      const source = join(here, 'pgx');
      const folder = await cached('pgx', ['pgx/go.mod', 'pgx/go.sum', 'pgx/main.go'], (target) =>
        install('go', ['build', '-o', join(target, 'compat'), '.'], { cwd: source }),
      );
      return [join(folder, 'compat')];
    },
  },
  {
    name: 'pgjdbc',
    missing: () => missingProgram('java', 'javac', 'mvn'),
    async prepare() {
      const folder = await cached('pgjdbc', ['pgjdbc/pom.xml', 'pgjdbc/Main.java'], async (target) => {
        const jars = join(target, 'jars');
        // Maven writes beside the pom it reads, so it gets a copy.
        cpSync(join(here, 'pgjdbc', 'pom.xml'), join(target, 'pom.xml'));
        await install('mvn', ['-q', '-B', 'dependency:copy-dependencies', `-DoutputDirectory=${jars}`], {
          cwd: target,
        });
        await install('javac', ['-cp', join(jars, '*'), '-d', target, join(here, 'pgjdbc', 'Main.java')]);
      });
      return ['java', '-cp', `${folder}${delimiter}${join(folder, 'jars', '*')}`, 'Main'];
    },
  },
  {
    name: 'psql',
    missing: () => missingProgram('psql', 'pg_dump'),
    prepare: async () => [process.execPath, join(here, 'psql', 'main.mjs')],
  },
  {
    name: 'pgbench',
    missing: () => missingProgram('pgbench'),
    prepare: async () => [process.execPath, join(here, 'pgbench', 'main.mjs')],
  },
];
