// A project folder as npm with install scripts blocked leaves it: pgkv's dev folder compiled, node_modules without the
// library links. Tests put it where they need it and run it in a process of its own, which they may kill.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, copyFileSync, linkSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, sep } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type TypeScript from 'typescript';
import type { EmbeddedClusterOptions, EmbeddedShard } from '../../src/dev/embedded-cluster.js';
import { findPlatformPackage } from '../../src/dev/platform-package.js';
import { PROJECT_ROOT } from './project-root.js';

/** Compiled where this file runs compiled (test/compile.mjs). */
const IS_COMPILED = import.meta.url.endsWith('.js');
const SOURCES = IS_COMPILED ? fileURLToPath(new URL('../../src', import.meta.url)) : join(PROJECT_ROOT, 'src');

/** Starts a cluster, says so in one line of JSON, stops it on SIGTERM. */
const PROGRAM = `
import { startEmbeddedCluster } from './src/dev/embedded-cluster.js';
const say = (report) => process.stdout.write(JSON.stringify(report) + '\\n');
const logged = [];
process.on('SIGINT', () => logged.push('SIGINT'));
try {
  const options = { ...JSON.parse(process.argv[2]), log: (level, message) => logged.push(message) };
  const { shards, dataDir, stop } = await startEmbeddedCluster(options).then((cluster) => ({
    shards: cluster.shards, dataDir: cluster.dataDir, stop: () => cluster.stop(),
  }));
  process.once('SIGTERM', () => stop());
  say({ shards, dataDir, logged });
} catch (error) {
  say({ name: error.name, message: error.message, hint: error.hint, logged });
}
`;

export function makeProject(dir: string, options: { withPostgres: boolean }): string {
  mkdirSync(dir, { recursive: true });
  for (const layer of ['base', 'config', 'cluster', 'catalog', 'dev'])
    makeLayer(join(SOURCES, layer), join(dir, 'src', layer));
  writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
  writeFileSync(join(dir, 'program.js'), PROGRAM);
  for (const name of ['pg', 'zod']) copyPackage(name, join(dir, 'node_modules'), import.meta.url);
  if (options.withPostgres) {
    const { name, dir: from } = findPlatformPackage();
    copyTree(from, join(dir, 'node_modules', ...name.split('/')));
  }
  return dir;
}

export interface ProjectReport {
  readonly shards?: readonly EmbeddedShard[];
  readonly dataDir?: string;
  readonly name?: string;
  readonly message?: string;
  readonly hint?: string;
  readonly logged: readonly string[];
}

export interface ProjectRun {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly report: ProjectReport;
  readonly exited: Promise<void>;
}

/** Resolves when the cluster runs or could not be started. */
export async function runProject(
  dir: string,
  options: Partial<EmbeddedClusterOptions>,
  user: { uid?: number; gid?: number } = {},
): Promise<ProjectRun> {
  // env -i: tap adds its loaders to the environment of every child, and writes files in their name.
  const environment = ['-i', `PATH=${process.env['PATH']}`, 'HOME=/nonexistent', 'LC_ALL=C'];
  const child = spawn('env', [...environment, process.execPath, 'program.js', JSON.stringify(options)], {
    cwd: dir,
    // A group of its own, as a terminal gives it.
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
    ...user,
  });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const line = new Promise<string>((resolve) => createInterface({ input: child.stdout }).once('line', resolve));
  const text = await Promise.race([line, exited]);
  if (text === undefined || child.pid === undefined) throw new Error(`the project in ${dir} ended without a report`);
  return { child, pid: child.pid, report: JSON.parse(text), exited };
}

function makeLayer(from: string, to: string): void {
  if (IS_COMPILED) copyTree(from, to);
  else compileFolder(createRequire(import.meta.url)('typescript'), from, to);
}

function compileFolder(ts: typeof TypeScript, from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    if (!name.endsWith('.ts')) continue;
    const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
    const { outputText } = ts.transpileModule(readFileSync(join(from, name), 'utf8'), { compilerOptions });
    writeFileSync(join(to, name.replace(/\.ts$/, '.js')), outputText);
  }
}

/** With its dependencies, flat. */
function copyPackage(name: string, nodeModules: string, importer: string): void {
  const entry = createRequire(importer).resolve(name);
  const inside = `${sep}node_modules${sep}${name}${sep}`;
  const from = entry.slice(0, entry.lastIndexOf(inside) + inside.length);
  copyTree(from, join(nodeModules, name));
  const manifest = JSON.parse(readFileSync(join(from, 'package.json'), 'utf8'));
  for (const dependency of Object.keys(manifest.dependencies ?? {})) copyPackage(dependency, nodeModules, entry);
}

/** Files only, no links; hard-linked where the file system lets us, as Postgres alone is 60 MB. */
function copyTree(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  chmodSync(to, 0o755);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    if (entry.isDirectory() && entry.name !== 'node_modules') copyTree(source, target);
    if (!entry.isFile()) continue;
    try {
      linkSync(source, target);
    } catch {
      // Another file system, or one without hard links.
      copyFileSync(source, target);
    }
  }
}
