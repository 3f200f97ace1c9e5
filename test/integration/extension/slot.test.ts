// D1, D2: pgkv.slot() in SQL against xxhash-wasm, the router's own hash and published vectors of XXH32.
import fc from 'fast-check';
import loadXxhash from 'xxhash-wasm';
import { hashSlotOf, loadKeyHash } from '../../../src/cluster/key-hash.js';
import { onEveryPostgres, rowsOf, valueFrom } from '../../support/kv-extension.js';

const { h32Raw } = await loadXxhash();
await loadKeyHash();

/** Of xxHash's own documentation and test suite; seed 0. */
const VECTORS: readonly (readonly [string, number])[] = [
  ['', 0x02cc5d05],
  ['a', 0x550d7456],
  ['abc', 0x32d153ff],
  ['Nobody inspects the spammish repetition', 0xe2293b2f],
];

/** Slot by the text of D1, sharing nothing with key-hash.ts but xxhash-wasm. */
function slotByTheBook(tenant: string, key: string): number {
  const tag = /^[^{]*\{([^}]+)\}/su.exec(key)?.[1] ?? key;
  return h32Raw(Buffer.concat([Buffer.from(tenant), Buffer.of(0), Buffer.from(tag)]), 0) % 16384;
}

const SPECIAL_KEYS = [
  '',
  'k',
  '{',
  '}',
  '{}',
  '{}tail',
  '{a}',
  'x{a}y',
  'x{a}y{b}',
  'x{}y{b}',
  '}{a}',
  '{{a}}',
  '{a',
  'a}',
  '}a{b',
  'x{a}}',
  '\u{1f600}{é}ß',
  'line\nbreak{\n}',
  ...[1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 17, 30, 31, 32, 33].map((length) => 'x'.repeat(length)),
  'x'.repeat(1024),
  'é'.repeat(512),
  `{${'y'.repeat(1022)}}`,
];

// No NUL and no lone surrogates: Postgres's text has neither.
const text = (maxLength: number) =>
  fc
    .oneof(
      fc.string({ unit: 'binary', maxLength }),
      fc.string({ unit: fc.constantFrom('{', '}', 'a', 'é', '😀'), maxLength }),
    )
    .map((s) => s.replaceAll('\0', ''));

onEveryPostgres(async (t, kv) => {
  const client = await kv.connect(t);

  t.test('hashes bytes as XXH32 does', async (t) => {
    for (const [input, hash] of VECTORS) {
      t.equal(h32Raw(Buffer.from(input), 0), hash, 'the vector itself');
      t.equal(Number(await valueFrom(client, 'SELECT pgkv.xxh32($1::bytea)', [Buffer.from(input)])), hash, input);
    }
    // Every length up to four stripes, bytes above 127 and all ones: where signs and carries would show.
    for (const fill of [0x00, 0x7f, 0x80, 0xff]) {
      const inputs = Array.from({ length: 66 }, (_, length) => Buffer.alloc(length, fill));
      const rows = await rowsOf(
        client,
        'SELECT pgkv.xxh32(b) FROM unnest($1::bytea[]) WITH ORDINALITY u(b, n) ORDER BY n',
        [inputs],
      );
      t.strictSame(
        rows.map(([hash]) => Number(hash)),
        inputs.map((input) => h32Raw(input, 0)),
      );
    }
  });

  t.test('takes the tag of a key, or the key, in all special cases', async (t) => {
    const tenants = SPECIAL_KEYS.map((_, index) => ['', 't', 'tenant é{x}'][index % 3]!);
    t.strictSame(
      await slots(tenants, SPECIAL_KEYS),
      SPECIAL_KEYS.map((key, index) => slotByTheBook(tenants[index]!, key)),
    );
    t.equal((await slots(['t', 't'], ['cart{42}', 'profile{42}']))[0], (await slots(['t'], ['42']))[0]);
  });

  t.test('agrees with the router on any text', async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(text(20), text(60)), { minLength: 40, maxLength: 80 }), async (pairs) => {
        const tenants = pairs.map(([tenant]) => tenant);
        const keys = pairs.map(([, key]) => key);
        const wanted = pairs.map(([tenant, key]) => slotByTheBook(tenant, key));
        t.strictSame(
          pairs.map(([tenant, key]) => hashSlotOf(tenant, key) as number),
          wanted,
        );
        t.strictSame(await slots(tenants, keys), wanted);
      }),
      { numRuns: 40 },
    );
  });

  t.test('does not depend on collations, and is null for null', async (t) => {
    await client.query(`CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level1', deterministic = false)`);
    const wanted = slotByTheBook('T', 'É{é}');
    t.equal(await valueFrom(client, `SELECT pgkv.slot('T' COLLATE blind, 'É{é}' COLLATE blind)`), wanted);
    t.equal(await valueFrom(client, `SELECT pgkv.slot(NULL, 'k')`), null);
  });

  t.test('is quick', async (t) => {
    // Prints the figure the script states (3.5 µs); fails only on something of another order.
    const timed = `DO $$ BEGIN FOR i IN 1 .. 5000 LOOP PERFORM pgkv.slot('t', 'key' || i); END LOOP; END $$`;
    await client.query(timed);
    const started = performance.now();
    await client.query(timed);
    const microseconds = ((performance.now() - started) * 1000) / 5000;
    t.comment(`${microseconds.toFixed(1)} µs a slot, the loop included`);
    t.ok(microseconds < 100);
  });

  async function slots(tenants: readonly string[], keys: readonly string[]): Promise<unknown[]> {
    const sql = 'SELECT pgkv.slot(t, k) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(t, k, n) ORDER BY n';
    return (await rowsOf(client, sql, [tenants, keys])).flat();
  }
});
