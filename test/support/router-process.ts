// `pgkv start` as a process of its own, from the sources as they are: for what only whole processes show.
import { type ChildProcess, spawn } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type TypeScript from 'typescript';
import { PROJECT_ROOT } from './project-root.js';

const ROOT = PROJECT_ROOT;
const START_TIMEOUT_MS = 30_000;

/** The sources where this file runs compiled (test/compile.mjs): they are compiled, too. */
const COMPILED = fileURLToPath(new URL('../../src', import.meta.url));

/** The command of the sources as they are; what has to be compiled for it is gone at the end of `t`. */
export function buildPackage(t: Test): { readonly program: string } {
  if (import.meta.url.endsWith('.js')) return { program: join(COMPILED, 'cli.js') };
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-package-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  // The compiler takes half a second to load: most runs do without.
  compile(createRequire(import.meta.url)('typescript'), join(ROOT, 'src'), join(folder, 'dist'));
  copyFileSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
  for (const name of ['node_modules', 'extensions']) symlinkSync(join(ROOT, name), join(folder, name));
  return { program: join(folder, 'dist', 'cli.js') };
}

function compile(ts: typeof TypeScript, from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    if (entry.isDirectory()) compile(ts, source, join(to, entry.name));
    else if (entry.name.endsWith('.ts')) {
      const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
      const { outputText } = ts.transpileModule(readFileSync(source, 'utf8'), { compilerOptions });
      writeFileSync(join(to, entry.name.replace(/\.ts$/, '.js')), outputText);
    }
  }
}

export interface RouterProcess {
  readonly pid: number;
  readonly port: number;
  /** What it and its workers have written to standard error: JSON lines of the log, mostly. */
  output(): string;
  /** Lines of the log with this message. */
  logged(message: string): Record<string, unknown>[];
  signal(name: NodeJS.Signals): void;
  /** Resolves with exit code or signal. */
  readonly exited: Promise<number | NodeJS.Signals>;
}

/** Resolves when it is ready; rejects with its output where it ends before. It is ended with `t` at the latest. */
export async function startProcess(t: Test, program: string, configFile: string): Promise<RouterProcess> {
  // env -i: tap adds its loaders to the environment of every child.
  const environment = ['-i', `PATH=${process.env['PATH']}`, 'HOME=/nonexistent', 'LC_ALL=C'];
  const child = spawn('env', [...environment, process.execPath, program, 'start', '--config', configFile], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const exited = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal ?? code ?? -1));
  });
  t.teardown(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const port = await readyPort(child, exited, () => output);
  return {
    pid: child.pid!,
    port,
    output: () => output,
    logged: (message) =>
      output.split('\n').flatMap((line) => {
        if (!line.startsWith('{')) return [];
        const record = JSON.parse(line) as Record<string, unknown>;
        return record['msg'] === message ? [record] : [];
      }),
    signal: (name) => void child.kill(name),
    exited,
  };
}

async function readyPort(child: ChildProcess, exited: Promise<unknown>, output: () => string): Promise<number> {
  let text = '';
  const ready = new Promise<number>((resolve) => {
    child.stdout!.setEncoding('utf8').on('data', (more: string) => {
      text += more;
      const found = text.match(/^pgkv ready on \S+:(\d+)$/m);
      if (found !== null) resolve(Number(found[1]));
    });
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), START_TIMEOUT_MS);
  });
  const port = await Promise.race([ready, late, exited.then(() => null)]);
  clearTimeout(timer);
  if (port === null) throw new Error(`the router did not start: ${output()}`);
  return port;
}
