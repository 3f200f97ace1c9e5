// Compiles src and test into build/, file by file and only what has changed, for `npm test` and `npm run check`: a test file
// starts in 0.5 s of CPU instead of 2.5 (tap's TypeScript loader reads the compiler itself and every source, once a file).
// Types are `npm run check`'s. What tests look for at the top of the project is linked there.
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const BUILD = join(ROOT, 'build');
const COMPILED = ['src', 'test'];
const NOT_LINKED = new Set([...COMPILED, 'build', 'dist', 'node_modules']);
const OPTIONS = {
  module: ts.ModuleKind.ESNext,
  target: ts.ScriptTarget.ES2022,
  verbatimModuleSyntax: true,
  inlineSourceMap: true,
};

const isSource = (name) => name.endsWith('.ts');

function compileFolder(folder) {
  const target = join(BUILD, folder);
  mkdirSync(target, { recursive: true });
  const entries = readdirSync(join(ROOT, folder), { withFileTypes: true });
  const wanted = new Set();
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      wanted.add(entry.name);
      compileFolder(path);
    } else if (isSource(entry.name)) {
      const name = entry.name.replace(/\.ts$/, '.js');
      wanted.add(name);
      compileFile(join(ROOT, path), join(target, name));
    }
  }
  for (const name of readdirSync(target)) if (!wanted.has(name)) rmSync(join(target, name), { recursive: true });
}

function compileFile(from, to) {
  const changed = statSync(from).mtimeMs;
  if ((statSync(to, { throwIfNoEntry: false })?.mtimeMs ?? 0) > changed) return;
  const { outputText } = ts.transpileModule(readFileSync(from, 'utf8'), { compilerOptions: OPTIONS, fileName: from });
  writeFileSync(to, outputText);
}

for (const folder of COMPILED) compileFolder(folder);
for (const name of readdirSync(ROOT)) {
  const link = join(BUILD, name);
  if (NOT_LINKED.has(name) || name.startsWith('.')) continue;
  rmSync(link, { force: true });
  symlinkSync(join(ROOT, name), link);
}
