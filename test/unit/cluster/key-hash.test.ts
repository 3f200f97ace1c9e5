// D1: keys to hash slots, against XXH32 written down from its specification and against its published values.
import fc from 'fast-check';
import t from 'tap';
import { hashSlotInBuffer, hashSlotOf, loadKeyHash, UNREAD } from '../../../src/cluster/key-hash.js';
import { evenSlotRanges, HASH_SLOT_COUNT } from '../../../src/config/slot-ranges.js';

/** https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, 32 bit, in arithmetic modulo 2³². */
function xxh32(input: Uint8Array): number {
  const [p1, p2, p3, p4, p5]: readonly [bigint, bigint, bigint, bigint, bigint] = [
    0x9e3779b1n,
    0x85ebca77n,
    0xc2b2ae3dn,
    0x27d4eb2fn,
    0x165667b1n,
  ];
  const mod = (value: bigint) => BigInt.asUintN(32, value);
  const rotate = (value: bigint, bits: bigint) => mod((value << bits) | (mod(value) >> (32n - bits)));
  const bytes = Buffer.from(input);
  const lane = (at: number) => BigInt(bytes.readUInt32LE(at));
  let at = 0;
  let hash = p5;
  if (bytes.length >= 16) {
    const lanes = [mod(p1 + p2), p2, 0n, mod(-p1)];
    for (; at + 16 <= bytes.length; at += 16) {
      for (const [n, value] of lanes.entries()) lanes[n] = mod(rotate(mod(value + lane(at + 4 * n) * p2), 13n) * p1);
    }
    hash = mod([1n, 7n, 12n, 18n].reduce((sum, bits, n) => sum + rotate(lanes[n]!, bits), 0n));
  }
  hash = mod(hash + BigInt(bytes.length));
  for (; at + 4 <= bytes.length; at += 4) hash = mod(rotate(mod(hash + lane(at) * p3), 17n) * p4);
  for (; at < bytes.length; at++) hash = mod(rotate(mod(hash + BigInt(bytes[at]!) * p5), 11n) * p1);
  hash = mod((hash ^ (hash >> 15n)) * p2);
  hash = mod((hash ^ (hash >> 13n)) * p3);
  return Number(hash ^ (hash >> 16n));
}

const expectedSlot = (tenant: string, hashPart: string) =>
  xxh32(Buffer.from(`${tenant}\0${hashPart}`)) % HASH_SLOT_COUNT;

/** The slot as it is read in a message, with other bytes around; the long way's where that has to be taken. */
function slotInMessage(tenant: string, key: string): number {
  const message = Buffer.from(`..${tenant}--${key}..`);
  const keyStart = 2 + Buffer.byteLength(tenant) + 2;
  const slot = hashSlotInBuffer(message, 2, keyStart - 2, keyStart, message.length - 2);
  if (slot !== UNREAD) return slot;
  const isPlain = /^[\0-\x7f]*$/.test(tenant) && /^[\0-z|}~\x7f]*$/.test(key) && tenant.length + key.length < 257;
  return isPlain ? UNREAD : hashSlotOf(tenant, key);
}

t.test('before the hash is loaded, asking for a slot is a broken invariant', async (t) => {
  t.throws(() => hashSlotOf('shop', 'cart:1'), { message: /loadKeyHash/ });
  await loadKeyHash();
  await loadKeyHash();
  t.equal(hashSlotOf('shop', 'cart:1'), expectedSlot('shop', 'cart:1'));
});

t.test('the oracle of this file gives the published values of XXH32', async (t) => {
  t.equal(xxh32(Buffer.from('')), 0x02cc5d05);
  t.equal(xxh32(Buffer.from('a')), 0x550d7456);
  t.equal(xxh32(Buffer.from('abc')), 0x32d153ff);
  t.equal(xxh32(Buffer.from('Nobody inspects the spammish repetition')), 0xe2293b2f);
});

t.test('these slots never change: data is stored under them', async (t) => {
  const slots = [
    ['', ''],
    ['shop', 'cart:1'],
    ['shop', 'user:{42}:cart'],
    ['shop', 'user:{42}:orders'],
    ['tenant', 'ключ'],
    ['t', '🔑'],
  ].map(([tenant, key]) => hashSlotOf(tenant!, key!));
  t.strictSame(slots, [12350, 698, 6610, 6610, 16253, 13574]);
});

t.test('text and bytes give the same slot as the specification, whatever the characters and lengths', async () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 100 }),
    fc.string({ unit: 'grapheme-ascii', maxLength: 1024 }),
    fc.string({ unit: fc.constantFrom('é', '漢', '🔑', 'a'), maxLength: 1100 }),
  );
  const withoutTag = text.map((key) => key.replaceAll('{', '['));
  fc.assert(
    fc.property(text, withoutTag, (tenant, key) => {
      const expected = expectedSlot(tenant, key);
      return hashSlotOf(tenant, key) === expected && slotInMessage(tenant, key) === expected;
    }),
    { numRuns: 2000 },
  );
});

t.test('lengths around every limit inside', async (t) => {
  const lengths = [0, 1, 15, 16, 63, 64, 65, 254, 255, 256, 257, 1023, 1024, 1364, 1365, 1366, 4090, 4095, 4096, 4097];
  for (const length of [...lengths, 65_535, 65_536, 65_537, 200_001]) {
    for (const unit of ['k', 'é']) {
      const key = unit.repeat(length);
      for (const tenant of ['', 't', unit.repeat(40)]) {
        const expected = expectedSlot(tenant, key);
        if (hashSlotOf(tenant, key) !== expected) t.fail(`text of ${length} ${unit}, tenant ${tenant}`);
        if (slotInMessage(tenant, key) !== expected) t.fail(`bytes of ${length} ${unit}, tenant ${tenant}`);
      }
    }
  }
});

t.test('{tag}: from the first brace to the first closing one behind it, where something stands between', async (t) => {
  const cases: readonly (readonly [key: string, hashPart: string])[] = [
    ['user:{42}:cart', '42'],
    ['{42}', '42'],
    ['{42}{43}', '42'],
    ['{{42}}', '{42'],
    ['a}b{c}d', 'c'],
    ['{}{42}', '{}{42}'],
    ['{}', '{}'],
    ['{42', '{42'],
    ['42}', '42}'],
    ['}{', '}{'],
    ['{é漢}x', 'é漢'],
    ['{ }', ' '],
  ];
  for (const [key, hashPart] of cases) {
    t.equal(hashSlotOf('shop', key), expectedSlot('shop', hashPart), `text ${key}`);
    t.equal(slotInMessage('shop', key), expectedSlot('shop', hashPart), `bytes ${key}`);
  }
  t.not(hashSlotOf('{a}1', 'k'), hashSlotOf('{a}2', 'k'), 'braces in a tenant mean nothing');
});

t.test('a million keys over eight shards: the fullest holds at most 5 % more than the mean', async (t) => {
  const ranges = evenSlotRanges(8);
  const shardOfSlot = new Uint8Array(HASH_SLOT_COUNT);
  for (const [shard, [first, last]] of ranges.entries()) shardOfSlot.fill(shard, first, last + 1);
  const counts = new Array<number>(8).fill(0);
  const startedAt = performance.now();
  for (let index = 0; index < 1_000_000; index++) {
    const shard = shardOfSlot[hashSlotOf(`tenant-${index % 100}`, `session:${index}`)]!;
    counts[shard] = counts[shard]! + 1;
  }
  t.comment(`${(performance.now() - startedAt).toFixed(0)} ns a key, two texts made for each included`);
  t.ok(Math.max(...counts) / (1_000_000 / 8) <= 1.05, counts.join(', '));
});
