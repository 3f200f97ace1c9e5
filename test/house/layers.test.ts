// The layers of docs/ARCHITECTURE.md: a folder of src imports only from layers with a smaller number, never from a sibling.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import t from 'tap';
import { PROJECT_ROOT } from '../support/project-root.js';

const SRC = join(PROJECT_ROOT, 'src');

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

/** Wings inside `sql`: a wing imports from wings with a smaller number and from itself. Files of `sql` itself use all. */
const SQL_WINGS: Readonly<Record<string, number>> = {
  text: 0,
  plan: 1,
  meaning: 2,
  rewrite: 3,
  batch: 4,
  scatter: 4,
  keyed: 5,
};

t.test('wings of sql are built upon one another', async (t) => {
  const wingOf = (path: string): string | null => {
    const [folder, wing, file] = relative(SRC, path).split('/');
    return folder === 'sql' && file !== undefined ? wing! : null;
  };
  const wrong: string[] = [];
  for (const file of files) {
    const from = wingOf(file);
    if (from === null) continue;
    t.ok(from in SQL_WINGS, `the wing ${from} has its place`);
    for (const target of importsOf(file)) {
      if (part(target) !== 'sql') continue;
      const to = wingOf(target);
      if (to === from || (to !== null && SQL_WINGS[to]! < SQL_WINGS[from]!)) continue;
      wrong.push(`${relative(SRC, file)} imports ${relative(SRC, target)}`);
    }
  }
  t.same(wrong, []);
});

t.test('no grab-bag files', async (t) => {
  const bags = files.filter((file) => /(^|\/)(utils?|helpers?|common|lib|manager|misc)\.ts$/.test(file));
  t.same(bags, []);
});

t.test('no circle between files, types included', async (t) => {
  const circles = circlesAmong(files, (file) => importsOf(file).filter((target) => files.includes(target)));
  const named = circles.map((circle) => circle.map((file) => relative(SRC, file)).sort());
  t.same(named, []);
  t.ok(circlesAmong(['a', 'b', 'c'], (file) => (file === 'a' ? ['b'] : file === 'b' ? ['a'] : [])).length === 1);
});

/** Sets of files each of which reaches all others of its set (Tarjan's strongly connected components). */
function circlesAmong(all: readonly string[], importedBy: (file: string) => readonly string[]): string[][] {
  const order = new Map<string, number>();
  const lowest = new Map<string, number>();
  const path: string[] = [];
  const circles: string[][] = [];
  const visit = (file: string): void => {
    order.set(file, order.size);
    lowest.set(file, order.get(file)!);
    path.push(file);
    for (const target of importedBy(file)) {
      if (!order.has(target)) visit(target);
      if (path.includes(target)) lowest.set(file, Math.min(lowest.get(file)!, lowest.get(target)!));
    }
    if (lowest.get(file) !== order.get(file)) return;
    const circle = path.splice(path.indexOf(file));
    if (circle.length > 1) circles.push(circle);
  };
  for (const file of all) if (!order.has(file)) visit(file);
  return circles;
}

t.test('what a server owes is said where it is sent: nobody but backend/ puts it on a reply queue', async (t) => {
  const byHand = files.filter(
    (file) => part(file) !== 'backend' && /\breplies\.push\(/.test(readFileSync(file, 'utf8')),
  );
  t.same(
    byHand.map((file) => relative(SRC, file)),
    [],
  );
});

t.test('texts of statements are read in sql/ alone: whoever is behind that goes by the Template', async (t) => {
  const readers = /\.test\(text\)|\.exec\(text\)|\btext\.(?:match|matchAll|search|replace|replaceAll|split)\(/;
  // What a text that runs code says of settings and of names is to become the template's as well; texts in route/ are values.
  const known = ['execute/leased/hidden-settings.ts', 'execute/leased/state-behind-lease.ts'];
  const found = files.filter(
    (file) => ['session', 'execute'].includes(part(file)) && readers.test(readFileSync(file, 'utf8')),
  );
  t.same(
    found.map((file) => relative(SRC, file)),
    known,
  );
});
