// design.md §1: a folder of src imports only from layers with a smaller number, never from a sibling.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));

const LAYERS: Readonly<Record<string, number>> = {
  base: 0,
  config: 1,
  telemetry: 1,
  wire: 1,
  cluster: 2,
  sql: 3,
  route: 4,
  backend: 4,
  catalog: 4,
  session: 5,
  execute: 6,
  kv: 7,
  control: 8,
  frontend: 9,
  http: 9,
  dev: 9,
  sdk: 9,
  cli: 10,
  main: 10,
  'main.ts': 10,
  'cli.ts': 10,
};
/** The command line starts the composition root, which has parts; nothing else may. */
const WITHIN_TOP = new Set(['cli->main.ts', 'cli.ts->cli', 'main.ts->main']);

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sources(path);
    return name.endsWith('.ts') ? [path] : [];
  });
}

/** Relative import targets of a file, as paths of TypeScript sources. */
function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  const targets = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((match) => match[1]!);
  return targets.map((target) => resolve(dirname(file), target.replace(/\.js$/, '.ts')));
}

/** The folder (or top-level file) of src that a path belongs to. */
const part = (path: string): string => relative(SRC, path).split('/')[0]!;

const files = sources(SRC);

t.test('every file lies in a known layer', async (t) => {
  for (const file of files) t.ok(part(file) in LAYERS, relative(SRC, file));
});

t.test('imports go to lower layers only', async (t) => {
  const wrong: string[] = [];
  for (const file of files) {
    const from = part(file);
    for (const target of importsOf(file)) {
      const to = part(target);
      if (from === to || WITHIN_TOP.has(`${from}->${to}`)) continue;
      if (!(LAYERS[to]! < LAYERS[from]!)) wrong.push(`${relative(SRC, file)} imports ${relative(SRC, target)}`);
    }
  }
  t.same(wrong, []);
});

t.test('every import leads to a file, and every file is imported by something', async (t) => {
  const known = new Set(files);
  const imported = new Set<string>();
  for (const file of files) {
    for (const target of importsOf(file)) {
      if (target.endsWith('.json')) continue;
      t.ok(known.has(target), `${relative(SRC, file)} -> ${relative(SRC, target)}`);
      imported.add(target);
    }
  }
  const entries = ['cli.ts', 'main/worker.ts'];
  const dead = files.filter((file) => !imported.has(file) && !entries.includes(relative(SRC, file)));
  t.same(
    dead.map((file) => relative(SRC, file)),
    [],
  );
});

t.test('no grab-bag files, no cycle between files', async (t) => {
  const bags = files.filter((file) => /(^|\/)(utils?|helpers?|common|lib|manager|misc)\.ts$/.test(file));
  t.same(bags, []);
  const state = new Map<string, 'open' | 'done'>();
  const cycles: string[] = [];
  const typeOnly = (file: string, target: string): boolean => {
    const text = readFileSync(file, 'utf8');
    const statements = [...text.matchAll(/import\s+(type\s+)?([^;]*?)from\s+'([^']+)'/g)];
    return statements
      .filter((match) => resolve(dirname(file), match[3]!.replace(/\.js$/, '.ts')) === target)
      .every((match) => match[1] !== undefined);
  };
  const visit = (file: string, path: readonly string[]): void => {
    if (state.get(file) === 'done') return;
    if (state.get(file) === 'open') {
      cycles.push([...path.slice(path.indexOf(file)), file].map((name) => relative(SRC, name)).join(' -> '));
      return;
    }
    state.set(file, 'open');
    for (const target of importsOf(file)) {
      if (files.includes(target) && !typeOnly(file, target)) visit(target, [...path, file]);
    }
    state.set(file, 'done');
  };
  for (const file of files) visit(file, []);
  t.same(cycles, []);
});
