// Compiles src and test into build/, only what has changed, for `npm test` and `npm run check`: a test file
// starts in 0.5 s of CPU instead of 2.5 (tap's TypeScript loader reads the compiler itself and every source, once a file).
// Types are `npm run check`'s. What tests look for at the top of the project is linked there.
import { mkdirSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const BUILD = join(ROOT, 'build');
const COMPILED = ['src', 'test'];
const NOT_LINKED = new Set([...COMPILED, 'build', 'dist', 'node_modules']);
/** No file is looked at but those to compile, and each by itself: that is half of the work of `tsc --noCheck`. */
const OPTIONS = {
  module: ts.ModuleKind.ESNext,
  target: ts.ScriptTarget.ES2022,
  moduleDetection: ts.ModuleDetectionKind.Force,
  verbatimModuleSyntax: true,
  isolatedModules: true,
  noCheck: true,
  noResolve: true,
  noLib: true,
  types: [],
  inlineSourceMap: true,
  rootDir: ROOT,
  outDir: BUILD,
};

const isSource = (name) => name.endsWith('.ts');

/** Takes away from build/ what is no longer there. @returns files that have changed since they were compiled */
function changedIn(folder) {
  const target = join(BUILD, folder);
  mkdirSync(target, { recursive: true });
  const entries = readdirSync(join(ROOT, folder), { withFileTypes: true });
  const wanted = new Set();
  const changed = [];
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      wanted.add(entry.name);
      changed.push(...changedIn(path));
    } else if (isSource(entry.name)) {
      const name = entry.name.replace(/\.ts$/, '.js');
      wanted.add(name);
      if (isChanged(join(ROOT, path), join(target, name))) changed.push(join(ROOT, path));
    }
  }
  for (const name of readdirSync(target)) if (!wanted.has(name)) rmSync(join(target, name), { recursive: true });
  return changed;
}

const isChanged = (from, to) => (statSync(to, { throwIfNoEntry: false })?.mtimeMs ?? 0) <= statSync(from).mtimeMs;

const changed = COMPILED.flatMap(changedIn);
if (changed.length > 0) ts.createProgram(changed, OPTIONS).emit();
for (const name of readdirSync(ROOT)) {
  const link = join(BUILD, name);
  if (NOT_LINKED.has(name) || name.startsWith('.')) continue;
  rmSync(link, { force: true });
  symlinkSync(join(ROOT, name), link);
}
