// One registry of refusals (base/refusal-rules.ts), one form in which they are told, and docs/REFUSALS.md that lists them.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import t from 'tap';
import { REFUSAL_RULES, type RefusalRule } from '../../src/base/refusal-rules.js';
import { type RefusalName, refusalError, refuse } from '../../src/base/refusals.js';
import { PROJECT_ROOT } from '../support/project-root.js';

const ROOT = PROJECT_ROOT;
const PAGE = join(ROOT, 'docs/REFUSALS.md');
const RULES = Object.entries(REFUSAL_RULES) as [RefusalName, RefusalRule][];

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? sources(path) : [path];
  });
}

const files = sources(join(ROOT, 'src')).map((path) => ({
  path: relative(ROOT, path),
  text: readFileSync(path, 'utf8'),
}));

/** As a reader of the page sees a rule's text: words to be filled in are set in italics. */
const shown = (text: string): string =>
  text.replace(/\{\{(\w+)\}\}/g, '`{$1}`').replace(/(?<!`)\{(\w+)\}(?!`)/g, '*$1*');

/** Lines of at most 150 characters, the first one behind `mark`, the others under it. */
function wrapped(mark: string, text: string): string[] {
  const lines: string[] = [];
  let line = mark;
  for (const word of text.split(' ')) {
    if (line.length + 1 + word.length > 150) {
      lines.push(line);
      line = ' ';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}

const entry = ({ code, reason, hint }: RefusalRule): string[] => [
  ...wrapped(`- **${code}**`, shown(reason)),
  ...wrapped('  →', shown(hint)),
];

t.test('docs/REFUSALS.md lists every rule as it is told, in order of the codes', async (t) => {
  const lines = readFileSync(PAGE, 'utf8').trimEnd().split('\n');
  const wanted = RULES.map(([, rule]) => rule)
    .sort((one, other) => one.code.localeCompare(other.code))
    .flatMap(entry);
  const first = lines.findIndex((line) => line.startsWith('- **PGKV-'));
  // PGKV_WRITE_DOCS=1 puts the rules into the page, for a look and a commit.
  if (process.env['PGKV_WRITE_DOCS'] === '1') {
    writeFileSync(PAGE, `${[...lines.slice(0, first), ...wanted].join('\n')}\n`);
  } else t.strictSame(lines.slice(first), wanted, 'run this test with PGKV_WRITE_DOCS=1 to write them');
});

t.test('codes are of one form and each is used once', async (t) => {
  const codes = RULES.map(([, { code }]) => code);
  t.equal(new Set(codes).size, codes.length);
  for (const code of codes) t.match(code, /^PGKV-\d{3}$/);
});

t.test('a message is worded as Postgres words messages, a hint is a sentence', async (t) => {
  for (const [name, { reason, hint }] of RULES) {
    t.match(reason, /^(?:[a-z{]|[A-Z]{2}|(?:INSERT|EXPLAIN) )/, `${name}: ${reason}`);
    t.notMatch(reason, /[.!]$/, name);
    t.match(hint, /^(?:[A-Z].*\.|\{instead\})$/, `${name}: ${hint}`);
  }
});

t.test('the reason is the message, the code is the detail, and no word is left open', async (t) => {
  for (const [name, { code, reason, hint, isLimit }] of RULES) {
    const words = [...`${reason} ${hint}`.matchAll(/(?<!\{)\{(\w+)\}/g)].map((match) => match[1]!);
    const filled = refuse(name, Object.fromEntries(words.map((word) => [word, `<${word}>`])));
    const error = refusalError(filled);
    t.same([error.sqlstate, error.detail, error.hint], [isLimit === true ? '54000' : '0A000', code, filled.hint], name);
    for (const word of words) t.match(`${error.message} ${error.hint}`, `<${word}>`);
    t.notMatch(`${error.message} ${error.hint}`, /\{\{|\}\}/, name);
    if (words.length > 0) t.throws(() => refuse(name), /invariant broken/, `${name} without its words`);
  }
});

t.test('every rule refuses something, and nothing is refused in any other form', async (t) => {
  for (const [name] of RULES) {
    const isUsed = files.some(({ path, text }) => !path.endsWith('refusal-rules.ts') && text.includes(`'${name}'`));
    t.ok(isUsed, name);
  }
  const others = files.filter(({ text }) => /PgkvError\(\s*'refused'/.test(text)).map(({ path }) => path);
  t.same(others, ['src/base/refusals.ts']);
  // 0A000 of the protocol itself, in Postgres's own words, is no refusal of a statement.
  const protocol = files
    .filter(({ text }) => text.includes("PgkvError('unsupported_protocol'"))
    .map(({ path }) => path);
  for (const path of protocol) t.match(path, /^src\/(wire|frontend\/door)\//);
});
