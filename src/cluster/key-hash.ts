// Which hash slot a key belongs to (D1): XXH32(utf8(tenant) ‖ 0x00 ‖ utf8(hash part of key), seed 0) mod 16384. The hash
// part is the tag of a key with `{tag}`, else the key. pgkv.slot() of the extension gives the same in SQL (D2).
import loadXxhash, { type XXHashAPI } from 'xxhash-wasm';
import { assert } from '../base/assert.js';
import { HASH_SLOT_COUNT } from '../config/slot-ranges.js';
import type { HashSlot } from './cluster-view.js';

const SEED = 0;
const SLOT_MASK = HASH_SLOT_COUNT - 1;
const TAG_OPEN = 0x7b;
/** Tenant, separator and hash part of up to this many bytes are put together here; keys hold up to 1 KiB. */
const INPUT_BYTES_MAX = 4096;
/** Up to here a loop over characters beats TextEncoder, whose call alone takes 60 ns. */
const LOOP_CHARACTERS_MAX = 64;
/** What is longer goes to the hash in pieces, since WebAssembly's memory grows to the largest and never shrinks. */
const PIECE_BYTES = 65_536;

const input = new Uint8Array(INPUT_BYTES_MAX);
/** Views on the first n bytes of `input`, made once: making one costs as much as hashing it. */
const inputOf: readonly Uint8Array[] = Array.from({ length: 257 }, (_, length) => input.subarray(0, length));
const encoder = new TextEncoder();
const SEPARATOR = new Uint8Array(1);

let xxhash: XXHashAPI | null = null;

/** Has to be awaited once before slots are asked for; compiles the 3 KB WebAssembly module. Idempotent. */
export async function loadKeyHash(): Promise<void> {
  xxhash ??= await loadXxhash();
}

/** The slot of a key given as text; about 100 ns for a short one (the unit test prints it). */
export function hashSlotOf(tenant: string, key: string): HashSlot {
  const hashPart = hashPartOf(key);
  // A character takes three bytes of UTF-8 at most (one beyond the BMP is two characters and takes four).
  if ((tenant.length + hashPart.length) * 3 >= INPUT_BYTES_MAX) {
    return slotOfPieces(encoder.encode(tenant), encoder.encode(hashPart));
  }
  const separatorAt = putText(tenant, 0);
  input[separatorAt] = 0;
  return slotOfInput(putText(hashPart, separatorAt + 1));
}

/** No slot: the key has to be read in another way. */
export const UNREAD = -1;

/**
 * The slot of a tenant and key that stand in a buffer, where they are short, ASCII and without a `{`, as they nearly always
 * are: no view of them and no text is made. Else UNREAD. One of them may be known: in UTF-8, of the key its hash part.
 */
export function hashSlotInBuffer(
  buffer: Uint8Array,
  tenantStart: number,
  tenantEnd: number,
  keyStart: number,
  keyEnd: number,
  knownTenant: Uint8Array | null = null,
  knownKey: Uint8Array | null = null,
): HashSlot | typeof UNREAD {
  const tenantBytes = knownTenant === null ? tenantEnd - tenantStart : knownTenant.length;
  const keyBytes = knownKey === null ? keyEnd - keyStart : knownKey.length;
  if (tenantBytes + keyBytes >= inputOf.length) return UNREAD;
  if (knownTenant !== null) input.set(knownTenant);
  else {
    for (let at = 0; at < tenantBytes; at++) {
      const code = buffer[tenantStart + at]!;
      if (code > 0x7f) return UNREAD;
      input[at] = code;
    }
  }
  input[tenantBytes] = 0;
  const keyAt = tenantBytes + 1;
  if (knownKey !== null) input.set(knownKey, keyAt);
  else {
    for (let at = 0; at < keyBytes; at++) {
      const code = buffer[keyStart + at]!;
      if (code > 0x7f || code === TAG_OPEN) return UNREAD;
      input[keyAt + at] = code;
    }
  }
  return slotOfInput(keyAt + keyBytes);
}

/** The UTF-8 of what of a key counts. */
export const hashPartBytes = (key: string): Uint8Array => encoder.encode(hashPartOf(key));

function hashPartOf(key: string): string {
  const open = key.indexOf('{');
  const close = open < 0 ? -1 : key.indexOf('}', open + 1);
  return close > open + 1 ? key.slice(open + 1, close) : key;
}

/** Writes UTF-8 into `input` from `at`; returns where it ends. */
function putText(text: string, at: number): number {
  if (text.length > LOOP_CHARACTERS_MAX) return encodeText(text, at);
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code > 0x7f) return encodeText(text, at);
    input[at + index] = code;
  }
  return at + text.length;
}

function encodeText(text: string, at: number): number {
  return at + encoder.encodeInto(text, input.subarray(at)).written;
}

function slotOfInput(length: number): HashSlot {
  assert(xxhash !== null, 'loadKeyHash() comes before the first slot');
  return (xxhash.h32Raw(inputOf[length] ?? input.subarray(0, length), SEED) & SLOT_MASK) as HashSlot;
}

function slotOfPieces(tenant: Uint8Array, hashPart: Uint8Array): HashSlot {
  assert(xxhash !== null, 'loadKeyHash() comes before the first slot');
  const hash = xxhash.create32(SEED);
  for (const part of [tenant, SEPARATOR, hashPart]) {
    for (let at = 0; at < part.length; at += PIECE_BYTES) hash.update(part.subarray(at, at + PIECE_BYTES));
  }
  return (hash.digest() & SLOT_MASK) as HashSlot;
}
