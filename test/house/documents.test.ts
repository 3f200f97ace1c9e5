// Documents can be read without a wide screen, and what they point at is there: links, files of the source, decisions by their
// labels, environment variables of the tests.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import t from 'tap';
import { PROJECT_ROOT } from '../support/project-root.js';

const ROOT = PROJECT_ROOT;
const LINE_MAX = 160;
const NOT_OURS = new Set(['.git', '.pgkv', '.tap', 'dist', 'node_modules']);

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (NOT_OURS.has(entry.name)) return [];
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return filesBelow(path);
    return entry.isFile() ? [path] : [];
  });
}

const files = filesBelow(ROOT);
const textOf = (path: string): string => readFileSync(path, 'utf8');
const documents = files.filter((path) => path.endsWith('.md')).map((path) => ({ path, text: textOf(path) }));
const named = (path: string): string => relative(ROOT, path);
const document = (name: string): string => textOf(join(ROOT, name));

/** Lines that are no code, with what stands between backquotes left out. */
const prose = (text: string): string => text.replace(/^ *```[\s\S]*?^ *```/gm, '').replace(/`[^`\n]*`/g, '``');

/** What GitHub makes of a heading. */
function anchorOf(heading: string): string {
  const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
  return plain.replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-');
}

const anchorsOf = (path: string): Set<string> =>
  new Set([...textOf(path).matchAll(/^#+ (.*)$/gm)].map((match) => anchorOf(match[1]!)));

t.test(`no line of a document is longer than ${LINE_MAX} characters`, async (t) => {
  t.ok(documents.length > 10);
  const long = documents.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => ([...line].length > LINE_MAX ? [`${named(path)}:${index + 1}`] : [])),
  );
  t.same(long, []);
});

t.test('every link inside the repository leads somewhere', async (t) => {
  let seen = 0;
  const broken = documents.flatMap(({ path, text }) =>
    [...prose(text).matchAll(/\]\(([^)\s]+)\)/g)].flatMap((match) => {
      const target = match[1]!;
      if (/^[a-z]+:/.test(target)) return [];
      seen++;
      const [file, anchor] = target.split('#');
      const to = file === '' ? path : resolve(dirname(path), file!);
      if (!existsSync(to)) return [`${named(path)}: ${target}`];
      const isThere = anchor === undefined || (statSync(to).isFile() && anchorsOf(to).has(anchor));
      return isThere ? [] : [`${named(path)}: ${target}`];
    }),
  );
  t.ok(seen > 20);
  t.same(broken, []);
});

const labels = [...document('docs/DECISIONS.md').matchAll(/^- \*\*([DR])(\d+) /gm)].map((match) => ({
  letter: match[1]!,
  number: Number(match[2]),
}));

// Whoever works beside others is given numbers to begin from: there may be gaps between those.
t.test('decisions have one label each, in order', async (t) => {
  for (const letter of ['D', 'R']) {
    const numbers = labels.filter((label) => label.letter === letter).map(({ number }) => number);
    t.ok(numbers.length > 20, letter);
    t.same(
      numbers,
      [...new Set(numbers)].sort((a, b) => a - b),
      letter,
    );
  }
});

t.test('a decision that is cited has been taken', async (t) => {
  const taken = new Set(labels.map(({ letter, number }) => `${letter}${number}`));
  const cited = files.filter((path) => /\.(?:ts|mjs|sql|md|toml)$/.test(path) || named(path).startsWith('.ci/'));
  let seen = 0;
  const unknown = cited.flatMap((path) => {
    const text = textOf(path);
    // In code a label stands in a comment, or in the reason or name of a test.
    const lines = path.endsWith('.md') ? prose(text).split('\n') : text.split('\n').filter(isProse);
    return lines.flatMap((line) =>
      [...line.matchAll(/(?<![\w'"`$-])[DR]\d{1,2}(?![\w'"`])/g)].flatMap(([label]) => {
        seen++;
        return taken.has(label) ? [] : [`${named(path)}: ${label}`];
      }),
    );
  });
  t.ok(seen > 200);
  t.same(unknown, []);
});

const isProse = (line: string): boolean => /^\s*(?:\/\/|\/?\*|--|#)/.test(line) || /\([DR]\d+[,) ]/.test(line);

t.test('nothing refers the reader to a document that is not here', async (t) => {
  const names = new Set(documents.map(({ path }) => path.slice(path.lastIndexOf('/') + 1)));
  const missing = files.flatMap((path) => {
    if (!/\.(?:ts|mjs|sql|md|toml)$/.test(path)) return [];
    return [...textOf(path).matchAll(/(?<![\w/.`'])([\w-]+\.md)\b/g)].flatMap((match) =>
      names.has(match[1]!) ? [] : [`${named(path)}: ${match[1]}`],
    );
  });
  t.same(missing, []);
});

t.test('source files that documents name are there', async (t) => {
  const sources = files.map(named);
  const gone = documents.flatMap(({ path, text }) =>
    [...text.matchAll(/(?<![\w./*-])((?:[\w.-]+\/)*[\w.-]+\.(?:ts|mjs))\b/g)].flatMap((match) => {
      const name = match[1]!;
      const isThere = sources.some((source) => source === name || source.endsWith(`/${name}`));
      return isThere ? [] : [`${named(path)}: ${name}`];
    }),
  );
  t.same(gone, []);
});

t.test('functions and classes that docs/ARCHITECTURE.md follows are there', async (t) => {
  const code = files.filter((path) => /^src\/.*\.ts$/.test(named(path))).map(textOf);
  const words = new Set(code.flatMap((text) => text.match(/#?\b[A-Za-z]\w+/g) ?? []));
  const page = document('docs/ARCHITECTURE.md');
  // `name()`, `Class.name()`, `Class`
  const followed = [...page.matchAll(/`((?:\w+\.)?#?\w+)\(.*?\)`|`([A-Z][a-z]+[A-Z]\w+)`/g)];
  const parts = followed.flatMap(([, call, name]) => (call ?? name!).split('.').map((part) => part.replace(/^#/, '')));
  t.ok(parts.length > 40, `${parts.length} names`);
  t.same(
    parts.filter((part) => !words.has(part) && !words.has(`#${part}`)),
    [],
  );
});

t.test('test/README.md names the environment variables of tests, and no others', async (t) => {
  const code = files.filter((path) => /^test\/.*\.(?:ts|mjs)$/.test(named(path))).map(textOf);
  const read = new Set(
    code.flatMap((text) => [...text.matchAll(/(?:env\.|\[|number\()'?(PGKV_[A-Z_]+)/g)].map(([, name]) => name!)),
  );
  const told = new Set([...document('test/README.md').matchAll(/PGKV_[A-Z_]+/g)].map(([name]) => name));
  t.ok(read.size > 5);
  t.strictSame([...told].sort(), [...read].sort());
});
