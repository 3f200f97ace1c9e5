// Functions fit on a screen: at most 70 lines, but for the exceptions named here, each with its reason.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { PROJECT_ROOT } from '../support/project-root.js';

const SRC = join(PROJECT_ROOT, 'src');
const LINES_MAX = 70;

/** `file:function` → why it is longer. One that has become short is taken off. */
const LONGER: ReadonlyMap<string, string> = new Map([
  ['main.ts:startRouter', 'the composition root: part after part, each handed to the next'],
  ['main/data-plane.ts:openDataPlane', 'the same for one process that serves clients'],
  ['main/start-workers.ts:startWorkers', 'the same for the control process'],
  ['sql/text/shape-lexer.ts:lexShape', 'the lexer loop, one case for each kind of token: run for every simple query'],
]);

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sources(path);
    return name.endsWith('.ts') ? [path] : [];
  });
}

/** Name and lines of each function of a file, bodies of functions within it included. */
function functionsOf(file: string, text: string): { readonly name: string; readonly lines: number }[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  const found: { name: string; lines: number }[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node) && 'body' in node && node.body !== undefined) {
      const lineOf = (position: number): number => source.getLineAndCharacterOfPosition(position).line;
      const lines = lineOf(node.getEnd()) - lineOf(node.getStart(source)) + 1;
      const named = node.name ?? (ts.isVariableDeclaration(node.parent) ? node.parent.name : undefined);
      found.push({ name: `${relative(SRC, file)}:${named?.getText(source) ?? 'constructor'}`, lines });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

t.test('functions are at most 70 lines long', async (t) => {
  const long = sources(SRC)
    .flatMap((file) => functionsOf(file, readFileSync(file, 'utf8')))
    .filter(({ lines }) => lines > LINES_MAX);
  t.same(
    long.filter(({ name }) => !LONGER.has(name)),
    [],
  );
  const stillLong = new Set(long.map(({ name }) => name));
  t.same(
    [...LONGER.keys()].filter((name) => !stillLong.has(name)),
    [],
    'no exception is out of date',
  );
});

t.test('the measure counts', async (t) => {
  const body = '  x();\n'.repeat(80);
  t.same(functionsOf('a.ts', `const long = () => {\n${body}};\nfunction short() {}`), [
    { name: `${relative(SRC, 'a.ts')}:long`, lines: 82 },
    { name: `${relative(SRC, 'a.ts')}:short`, lines: 1 },
  ]);
});
