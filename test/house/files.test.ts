// Files have one owner's worth of text: at most 400 lines, but for the exceptions named here, which are data and nothing else.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import t from 'tap';
import { PROJECT_ROOT } from '../support/project-root.js';

const SRC = join(PROJECT_ROOT, 'src');
const LINES_MAX = 400;

/** File → why it is longer. One that has become short is taken off. */
const LONGER: ReadonlyMap<string, string> = new Map([
  ['base/refusal-rules.ts', 'the catalogue of refusals: one entry after the other'],
]);

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sources(path);
    return name.endsWith('.ts') ? [path] : [];
  });
}

/** Lines of a text, the last of which may end without a line feed. */
const linesOf = (text: string): number => text.split('\n').length - (text.endsWith('\n') ? 1 : 0);

t.test('no file of src is longer than 400 lines', async (t) => {
  const long = sources(SRC)
    .map((file) => ({ file: relative(SRC, file), lines: linesOf(readFileSync(file, 'utf8')) }))
    .filter(({ lines }) => lines > LINES_MAX);
  t.same(
    long.filter(({ file }) => !LONGER.has(file)),
    [],
    'look for the seam: which state has another owner',
  );
  const stillLong = new Set(long.map(({ file }) => file));
  t.same(
    [...LONGER.keys()].filter((file) => !stillLong.has(file)),
    [],
    'no exception is out of date',
  );
});

t.test('the measure counts', async (t) => {
  t.equal(linesOf('a\nb\n'), 2);
  t.equal(linesOf('a\nb'), 2);
  t.equal(linesOf('x\n'.repeat(LINES_MAX + 1)), LINES_MAX + 1);
});
