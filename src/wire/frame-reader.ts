// Cuts a byte stream into protocol messages. Owns the partly received message; hands out offsets into the chunk it was
// given, no copies. Invariant: a length is checked against the limit of its type before a byte of the body is kept.
// Messages of the types named in `streamed` (rows, COPY data) are handed out in parts as they arrive, so that a message
// of a gigabyte needs no gigabyte here; all others are handed out whole.
import { PgkvError } from '../base/errors.js';
import { frontendLimits, LARGE_MESSAGE_BYTES_MAX } from './protocol.js';

const HEADER_BYTES = 5;
const EMPTY = Buffer.alloc(0);
/** What Postgres takes: a client's message within these limits breaks no protocol, only a setting of pgkv. */
const POSTGRES_LIMITS = frontendLimits(LARGE_MESSAGE_BYTES_MAX);
/** Held chunks below this are joined: a message that comes byte by byte must cost its bytes, not an object for each. */
const JOINED_CHUNK_BYTES_MAX = 4_096;
/** What is put back again and again, from this on, is copied to where more has room behind it. */
const ROOMY_BYTES_MIN = 16_384;

/** What `next()` found. */
export const Frame = {
  /** Nothing whole to hand out: push more bytes. */
  none: 0,
  /** `buffer[start, end)` is a whole message, header included. */
  whole: 1,
  /** `buffer[start, end)` is the header and the first bytes of a streamed message. */
  first: 2,
  /** `buffer[start, end)` are further bytes of it. */
  more: 3,
  /** The same, and its last ones. */
  last: 4,
} as const;

export type FrameFound = (typeof Frame)[keyof typeof Frame];

export class FrameReader {
  /** The bytes the offsets below refer to; valid until the next `push`. */
  buffer: Buffer = EMPTY;
  /** Type byte of the message found last. */
  type = 0;
  start = 0;
  end = 0;
  /** No more bytes come. */
  ended = false;

  readonly #limits: Int32Array;
  readonly #streamed: number;
  readonly #peer: string;
  #offset = 0;
  /** Chunks of a message not yet whole, when joining them at once would copy them again and again. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  #wantedBytes = 0;
  /** Where `buffer` is followed by room for more, that nobody has been given; null: it is not. */
  #store: Buffer | null = null;
  /** Of all that was pushed. */
  #pushedBytes = 0;
  /** Bytes of a streamed message that have not arrived yet. */
  #remaining = 0;

  /**
   * @param limits longest message per type byte (see `frontendLimits`), 0 = a type that does not exist
   * @param streamed second streamed type byte beside COPY data ('D' from servers), 0 for none
   * @param peer 'frontend' or 'backend', for error texts
   */
  constructor(limits: Int32Array, streamed: number, peer: 'frontend' | 'backend') {
    this.#limits = limits;
    this.#streamed = streamed;
    this.#peer = peer;
  }

  /** Bytes received and not yet handed out. */
  get bufferedBytes(): number {
    return this.#heldBytes + this.buffer.length - this.#offset;
  }

  /** Where in all that was pushed the message found last begins. */
  get position(): number {
    return this.#pushedBytes - this.#heldBytes - (this.buffer.length - this.start);
  }

  /** Adds received bytes. The reader keeps the chunk; the caller must not change it. */
  push(chunk: Buffer): void {
    this.#pushedBytes += chunk.length;
    if (this.#heldBytes === 0 && this.#offset === this.buffer.length) {
      this.buffer = chunk;
      this.#store = null;
      this.#offset = 0;
      return;
    }
    if (this.#heldBytes === 0) {
      const rest = this.buffer.subarray(this.#offset);
      this.#held.push(rest);
      this.#heldBytes = rest.length;
      this.buffer = EMPTY;
      this.#offset = 0;
    }
    const last = this.#held.length - 1;
    const before = this.#held[last]!;
    if (before.length + chunk.length <= JOINED_CHUNK_BYTES_MAX) this.#held[last] = Buffer.concat([before, chunk]);
    else this.#held.push(chunk);
    this.#heldBytes += chunk.length;
  }

  /** All bytes not yet handed out, for a reader with other limits to go on with. */
  takeRest(): Buffer {
    const rest = Buffer.concat([...this.#held, this.buffer.subarray(this.#offset)]);
    this.#held = [];
    this.#heldBytes = 0;
    this.#drained();
    return rest;
  }

  /** Finds the next message. Throws 08P01 on a type or length no peer of ours sends. */
  next(): FrameFound {
    if (this.#heldBytes > 0) {
      if (this.#heldBytes < this.#wantedBytes) return Frame.none;
      this.buffer = this.#joined();
      this.#held = [];
      this.#heldBytes = 0;
      this.#wantedBytes = 0;
      this.#offset = 0;
    }
    const buffer = this.buffer;
    const offset = this.#offset;
    const available = buffer.length - offset;
    if (available === 0) return this.#drained();
    if (this.#remaining > 0) return this.#streamMore(available);

    const type = buffer[offset]!;
    const limit = this.#limits[type]!;
    if (limit === 0) throw this.#badType(type);
    if (available < HEADER_BYTES) return this.#want(HEADER_BYTES);
    const length = buffer.readInt32BE(offset + 1);
    if (length < 4 || length > limit) throw this.#badLength(type, length, limit);

    this.type = type;
    const frameBytes = length + 1;
    if (available >= frameBytes) {
      this.start = offset;
      this.end = this.#offset = offset + frameBytes;
      return Frame.whole;
    }
    if (type !== 0x64 && type !== this.#streamed) return this.#want(frameBytes);
    this.#remaining = frameBytes - available;
    this.start = offset;
    this.end = this.#offset = buffer.length;
    return Frame.first;
  }

  /** Whether a streamed message has been handed out in part. */
  get midMessage(): boolean {
    return this.#remaining > 0;
  }

  /** Puts the message found last back: `next` finds it again, also after further `push`es. */
  unread(): void {
    this.#offset = this.start;
  }

  /** Marks the bytes up to `offset` as handed out: the caller has read whole messages there itself. */
  skipTo(offset: number): void {
    this.#offset = offset;
  }

  /** Of a whole message that was put back each further chunk is appended, so that waiting for many costs their bytes. */
  #joined(): Buffer {
    const [first, ...further] = this.#held as [Buffer, ...Buffer[]];
    if (further.length === 0) return first;
    const bytes = this.#heldBytes;
    // Where more has come than was there, it is copied as often as it doubles.
    if (this.#wantedBytes > 0 || bytes < ROOMY_BYTES_MIN || bytes > 2 * first.length) {
      this.#store = null;
      return Buffer.concat(this.#held, bytes);
    }
    const isThere = this.#store !== null && first.buffer === this.#store.buffer;
    let start = isThere ? first.byteOffset : 0;
    if (!isThere || start + bytes > this.#store!.length) {
      // Not of the pool: its offsets are those in the store.
      this.#store = Buffer.allocUnsafeSlow(2 * bytes);
      first.copy(this.#store, 0);
      start = 0;
    }
    let end = start + first.length;
    for (const chunk of further) end += chunk.copy(this.#store!, end);
    return this.#store!.subarray(start, end);
  }

  #drained(): FrameFound {
    // Dropping the reference lets the slab of an idle peer be collected.
    this.buffer = EMPTY;
    this.#store = null;
    this.#offset = 0;
    this.#wantedBytes = 0;
    return Frame.none;
  }

  #want(bytes: number): FrameFound {
    this.#wantedBytes = bytes;
    // A few leftover bytes must not pin the whole chunk they came in.
    if (this.#offset > 0 && this.buffer.length - this.#offset < this.buffer.length / 2) {
      this.buffer = Buffer.from(this.buffer.subarray(this.#offset));
      this.#store = null;
      this.#offset = 0;
    }
    return Frame.none;
  }

  #streamMore(available: number): FrameFound {
    const take = Math.min(available, this.#remaining);
    this.start = this.#offset;
    this.end = this.#offset = this.#offset + take;
    this.#remaining -= take;
    return this.#remaining === 0 ? Frame.last : Frame.more;
  }

  #badType(type: number): PgkvError {
    return new PgkvError('protocol_violation', { message: `invalid ${this.#peer} message type ${type}` });
  }

  #badLength(type: number, length: number, limit: number): PgkvError {
    const letter = String.fromCharCode(type);
    const detail =
      length < 4
        ? `message "${letter}" claims ${length} bytes; its length word alone has 4`
        : `message "${letter}" claims ${length} bytes, the limit is ${limit}`;
    if (length > limit && this.#peer === 'frontend' && length <= POSTGRES_LIMITS[type]!) {
      return new PgkvError('limit_exceeded', { detail, hint: 'see clients.message_bytes_max and query_bytes_max' });
    }
    return new PgkvError('protocol_violation', { message: 'invalid message length', detail });
  }
}
