import t from 'tap';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { Effect } from '../../../src/sql/plan/template.js';
import { readTemplate } from '../../../src/sql/read-template.js';
import { TemplateCache } from '../../../src/sql/template-cache.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { CORPUS_TEXTS } from './corpus.js';

await loadParser();

const MEBIBYTE = 1024 * 1024;
const counters = (cache: TemplateCache) => [cache.textHits, cache.shapeHits, cache.misses];
const pointRead = (n: number): string =>
  `SELECT value FROM kv WHERE tenant_id = 'tenant-${n}' AND key = 'user:${n * 7919}' AND version > ${n}`;

t.test('a new text of a known shape costs no parse', async (t) => {
  const cache = new TemplateCache({ bytesMax: MEBIBYTE });
  const first = cache.get(pointRead(1), true);
  t.equal(first.kind, 'read');
  t.same(counters(cache), [0, 0, 1]);
  for (let n = 2; n <= 100; n++) t.equal(cache.get(pointRead(n), true), first);
  t.same(counters(cache), [0, 99, 1]);
  t.equal(cache.entries, 1, 'nothing is kept of texts with literals');
});

t.test('a text without literals is found by itself the next time', async (t) => {
  const cache = new TemplateCache({ bytesMax: MEBIBYTE });
  const text = 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2';
  const template = cache.get(text, true);
  t.equal(cache.get(text, true), template);
  t.same(counters(cache), [1, 0, 1]);
  const commented = `/* trace 1 */ ${text}`;
  t.equal(cache.get(commented, true), template, 'comments make no other shape');
  t.equal(cache.get(commented, true), template);
  t.same(counters(cache), [2, 1, 1]);
});

t.test('templates that depend on literals are kept by text', async (t) => {
  const cache = new TemplateCache({ bytesMax: MEBIBYTE });
  const texts = ["SELECT set_config('work_mem', '1MB', false)", "SELECT set_config('role', '1MB', false)"];
  for (let round = 0; round < 2; round++) {
    t.same(
      texts.map((text) => cache.get(text, true).settingNames),
      [['work_mem'], ['role']],
    );
  }
  t.same(counters(cache), [2, 0, 2]);
  // float(24) and float(25) have one shape and are two types.
  cache.get('SELECT a::float(24)', true);
  cache.get('SELECT a::float(25)', true);
  t.same(counters(cache), [2, 0, 4]);
  const analyzed = (value: string) => cache.get(`EXPLAIN (ANALYZE ${value}) DELETE FROM t`, true).kind;
  t.same([analyzed('1'), analyzed('0'), analyzed('1')], ['write', 'read', 'write']);
  const executed = ["EXECUTE a('1')", "EXECUTE  a('2')"].map((text) => cache.get(text, true).statementNames[0]?.start);
  t.same(executed, [8, 9]);
});

t.test('standard_conforming_strings counts only where there is a backslash', async (t) => {
  const cache = new TemplateCache({ bytesMax: MEBIBYTE });
  t.equal(cache.get(pointRead(1), true), cache.get(pointRead(2), false));
  const text = "SET x.y = '\\'; DISCARD ALL; --'";
  for (let round = 0; round < 2; round++) {
    t.equal(cache.get(text, true).kind, 'multi');
    t.equal(cache.get(text, false).kind, 'set');
  }
  t.same(counters(cache), [2, 1, 3]);
});

t.test('the cache answers as reading every time would', async (t) => {
  const cache = new TemplateCache({ bytesMax: MEBIBYTE, oldestServerMajor: 18 });
  for (let round = 0; round < 3; round++) {
    for (const text of CORPUS_TEXTS) {
      const fresh = readTemplate(text, true, lexShape(text, true), 18).template;
      const cached = cache.get(text, true);
      if (JSON.stringify(cached) !== JSON.stringify(fresh)) t.same(cached, fresh, text);
    }
  }
  t.ok(cache.textHits + cache.shapeHits > cache.misses);
  t.equal(cache.get('SELECT uuidv7()', true).effects, Effect.none, 'the oldest server is known to be an 18');
});

t.test('memory is bounded whatever is asked', async (t) => {
  const bytesMax = 256 * 1024;
  const cache = new TemplateCache({ bytesMax });
  const long = 'x'.repeat(40_000);
  for (let n = 0; n < 5000; n++) {
    cache.get(pointRead(n), true);
    cache.get(`SET x.y = '${n}'`, true);
    if (n % 5 === 0) cache.get(`SELECT a${n} FROM t WHERE b = ${n}`, true);
    if (n % 50 === 0) {
      cache.get(`SELECT "${long}${n}"`, true);
      cache.get(`SET x.y = '${long}${n}'`, true);
      cache.get(`SELEC ${n}`, true);
    }
    if (cache.bytes > bytesMax) return t.fail(`${cache.bytes} bytes after ${n}`);
  }
  t.ok(cache.entries > 50 && cache.entries < bytesMax / 400, `${cache.entries} entries`);
  const before = counters(cache);
  cache.get(pointRead(6000), true);
  t.same(counters(cache), [before[0]!, before[1]! + 1, before[2]!], 'what is used stays');
});

t.test('a shape does not keep the text it was cut from alive', async (t) => {
  const cache = new TemplateCache({ bytesMax: 64 * MEBIBYTE });
  const value = 'x'.repeat(MEBIBYTE);
  const before = process.memoryUsage().rss;
  for (let n = 0; n < 200; n++) cache.get(`INSERT INTO t${n}_with_a_name VALUES ('${value}${n}', 'y')`, true);
  const grown = (process.memoryUsage().rss - before) / MEBIBYTE;
  t.equal(cache.entries, 200);
  t.ok(grown < 150, `${Math.round(grown)} MiB more for 200 texts of 1 MiB`);
});

// Told, not asserted: the machine may be busy. CPU time, so that waiting does not count.
t.test('what a look-up costs', async (t) => {
  const cache = new TemplateCache({ bytesMax: MEBIBYTE });
  const count = 20_000;
  const texts = Array.from({ length: 500 }, (_, n) => Buffer.from(pointRead(n)));
  const measure = (what: string, run: (n: number) => unknown): void => {
    for (let n = 0; n < count; n++) run(n);
    const start = process.cpuUsage();
    for (let n = 0; n < count; n++) run(n);
    const { user, system } = process.cpuUsage(start);
    t.comment(`${what}: ${((user + system) / count).toFixed(2)} µs`);
  };
  const received = (n: number): string => texts[n % texts.length]!.toString();
  t.comment(`a point read of ${received(1).length} characters`);
  measure('decoding it', received);
  measure('decoding and lexing it', (n) => lexShape(received(n), true));
  measure('decoding it and finding its template by shape', (n) => cache.get(received(n), true));
  const text = 'SELECT value, version FROM kv WHERE tenant_id = $1 AND key = $2';
  measure('finding a template by text', () => cache.get(text, true));
  measure('reading the text without a cache', (n) => {
    if (n % 20 === 0) readTemplate(received(n), true, null, 15);
  });
  t.comment('(the last is per 20 texts)');
  t.pass();
});
