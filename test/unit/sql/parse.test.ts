import t from 'tap';
import { loadParser, parse, scanTokens } from '../../../src/sql/meaning/parse.js';
import { CORPUS_TEXTS } from './corpus.js';

t.test('before it is loaded the parser says so', async (t) => {
  t.match(parse('SELECT 1'), { kind: 'failed', reason: 'exhausted' });
  await Promise.all([loadParser(), loadParser()]);
  t.match(parse('SELECT 1'), { kind: 'parsed' });
});

t.test('statements come with their places in bytes', async (t) => {
  const parsed = parse("SELECT 'é😀'; /* c */ SELECT 2;; SELECT 3 -- c");
  if (parsed.kind !== 'parsed') return t.fail(parsed.message);
  const bytes = Buffer.from("SELECT 'é😀'; /* c */ SELECT 2;; SELECT 3 -- c");
  t.same(
    parsed.statements.map(({ startByte, endByte }) => bytes.toString('utf8', startByte, endByte)),
    ["SELECT 'é😀'", 'SELECT 2', 'SELECT 3 -- c'],
  );
  t.same(parse(''), { kind: 'parsed', statements: [] });
  t.same(parse(' -- c'), { kind: 'parsed', statements: [] });
});

t.test("what is no SQL fails with Postgres's words, and harms nothing", async (t) => {
  t.same(parse('SELEC 1'), { kind: 'failed', reason: 'rejected', message: 'syntax error at or near "SELEC"' });
  t.match(parse("SELECT 'x"), { kind: 'failed', reason: 'rejected', message: /unterminated/ });
  t.match(parse('SELECT 1\0 FROM x'), { kind: 'failed', reason: 'rejected', message: /NUL/ });
  t.match(parse("SELECT '\ud83d'"), { kind: 'failed', reason: 'rejected', message: /surrogate/ });
  t.match(parse("SELECT '\ud83d\ude00'"), { kind: 'parsed' });
});

t.test('tokens come without comments', async (t) => {
  t.same(scanTokens('EXECUTE "é" -- c\n(/* d */1)'), [
    { text: 'EXECUTE', startByte: 0, endByte: 7 },
    { text: '"é"', startByte: 8, endByte: 12 },
    { text: '(', startByte: 18, endByte: 19 },
    { text: '1', startByte: 26, endByte: 27 },
    { text: ')', startByte: 27, endByte: 28 },
  ]);
  t.same(scanTokens("SELECT 'x"), []);
  t.same(scanTokens('\0'), []);
});

// Without replacing the module the 27th overflow breaks every later parse.
t.test('statements nested too deeply cost a module, not the parser', async (t) => {
  const overflowing = `SELECT 1${'+1'.repeat(12_000)}`;
  const others = [
    `SELECT ${'('.repeat(50_000)}1`,
    `SELECT ${'f('.repeat(4000)}1${')'.repeat(4000)}`,
    `SELECT ${'(SELECT '.repeat(3000)}1${')'.repeat(3000)}`,
    `SELECT 1${' UNION SELECT 1'.repeat(12_000)}`,
  ];
  for (const [round, text] of [...others, ...Array<string>(30).fill(overflowing)].entries()) {
    const result = parse(text);
    if (text === overflowing) t.match(result, { kind: 'failed', reason: 'exhausted' });
    // The spare module takes over at once; the next spare takes a moment.
    t.match(parse('SELECT a FROM b WHERE c = 1'), { kind: 'parsed' }, `round ${round}`);
    await loadParser();
  }
});

t.test('the same text gives the same tree every time', async (t) => {
  await loadParser();
  const first = new Map<string, string>();
  for (let round = 0; round < 5; round++) {
    for (const text of CORPUS_TEXTS) {
      const tree = JSON.stringify(parse(text));
      if (first.has(text) && first.get(text) !== tree) return t.fail(text);
      first.set(text, tree);
    }
  }
  t.pass();
});
