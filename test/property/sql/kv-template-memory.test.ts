// 100,000 texts on a key-value table, all different, leave a bounded cache and the process as large as they were: plans
// are larger than other templates, and their texts are cut from the client's.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { tableScope } from '../../../src/cluster/table-scope.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { TemplateCache } from '../../../src/sql/template-cache.js';

await loadParser();

// V8 lets garbage pile up where there is room: what is left behind it is what counts.
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const MEBIBYTE = 1024 * 1024;
const TEXTS = 100_000;
/** One in so many has a shape of its own: reading one takes a hundred times as long as finding one. */
const SHAPE_EVERY = 12;

const view = initialView(
  [{ name: 's1', hashSlots: [[0, 16383]], nodes: [{ host: '', port: 1 }] }],
  [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
);
const scope = tableScope(view, null);

/** Shapes as careless clients make them: names of columns, comments that matter not, lists of every length. */
const SHAPES: readonly ((n: number) => string)[] = [
  (n) => `SELECT value AS c${n} FROM kv WHERE tenant_id = 't${n}' AND key = 'k${n}'`,
  (n) => `SELECT version + $${(n % 9) + 3} AS "column ${n}" FROM kv WHERE tenant_id = $1 AND key = $2`,
  (n) => `INSERT INTO kv (tenant_id, key, value) VALUES ('t', 'k${n}', '1') RETURNING version AS v${n}`,
  (n) => `UPDATE kv SET value = '${n}' WHERE tenant_id = 't' AND key = 'k' AND version = ${n} RETURNING key AS k${n}`,
  (n) => `SELECT tenant_id AS t${n}, count(*) FROM kv GROUP BY tenant_id`,
  (n) => `SELECT key AS k${n} FROM kv ORDER BY key LIMIT 10`,
];
/** Of few shapes, with literals of their own. */
const LITERALS: readonly ((n: number) => string)[] = [
  (n) => `SELECT value FROM kv WHERE tenant_id = 'tenant-${n}' AND key = 'user:${n * 7919}'`,
  (n) => `/* trace ${n} */ DELETE FROM kv WHERE tenant_id = 't' AND key IN ('a${n}', 'b${n}')`,
  (n) =>
    `INSERT INTO kv VALUES ('t', 'k${n}', ${n}, '{"n": ${n}}') ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`,
  (n) => `SELECT kv_put('t', 'k${n}', '{"n": ${n}, "text": "${'x'.repeat(n % 200)}"}')`,
  (n) => `SELECT key FROM kv WHERE key > 'a${n}' ORDER BY key LIMIT ${n}`,
];

const textOf = (n: number): string =>
  n % SHAPE_EVERY === 0 ? SHAPES[(n / SHAPE_EVERY) % SHAPES.length]!(n) : LITERALS[n % LITERALS.length]!(n);

t.test('memory stays flat', async (t) => {
  const bytesMax = 2 * MEBIBYTE;
  const cache = new TemplateCache({ bytesMax });
  const sizes: number[] = [];
  let planned = 0;
  for (let n = 0; n < TEXTS; n++) {
    if (cache.get(textOf(n), true, scope).kv?.kind === 'kv') planned++;
    if (cache.bytes > bytesMax) return t.fail(`${cache.bytes} bytes after ${n} texts`);
    if (n % (TEXTS / 20) !== TEXTS / 20 - 1) continue;
    collectGarbage();
    sizes.push(process.memoryUsage().rss / MEBIBYTE);
  }
  t.equal(planned, TEXTS, 'every text has a plan');
  t.ok(cache.misses < TEXTS / SHAPE_EVERY + 20, `${cache.misses} texts were parsed`);
  t.ok(cache.entries > 300, `${cache.entries} entries`);
  const shown = sizes.map(Math.round).join(', ');
  t.comment(`${cache.entries} entries, ${(cache.bytes / MEBIBYTE).toFixed(1)} MiB; RSS ${shown} MiB`);
  // The cache is full after a quarter of the texts.
  const early = Math.max(...sizes.slice(4, 8));
  const late = Math.max(...sizes.slice(-4));
  t.ok(late - early < 24, `${Math.round(early)} MiB early, ${Math.round(late)} MiB at the end`);
});

t.test('what the cache says it holds is no less than what it holds', async (t) => {
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  const cache = new TemplateCache({ bytesMax: 64 * MEBIBYTE });
  for (let n = 0; n < 2400; n++) cache.get(SHAPES[n % SHAPES.length]!(n), true, scope);
  collectGarbage();
  const held = process.memoryUsage().heapUsed - before;
  t.comment(`${Math.round(held / cache.entries)} bytes an entry, ${Math.round(cache.bytes / cache.entries)} counted`);
  t.ok(held < 1.3 * cache.bytes, `${held} bytes for ${cache.bytes}`);
});
