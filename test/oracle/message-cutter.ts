// Cuts one direction of a connection into messages, however its bytes arrive. Keeps no more of a body than a rule could
// want to read, so that watching a large result costs a look at each header. Manual: "Message Formats".

/** Longer bodies are handed on cut off: nobody asks for what lies behind. */
const BODY_BYTES_MAX = 65_536;
const NOTHING = Buffer.alloc(0);

/** How the next message begins: with a tag, or (start-up of a client) with its length. */
export type Framing = 'tagged' | 'untagged';

export class MessageCutter {
  framing: Framing;
  /** A single byte may come in place of a message: the answer to a request for encryption. */
  expectsByte = false;
  /** A length that no message has: nothing behind it can be read. */
  broken = false;
  readonly #message: (tag: string, body: Buffer, bodyBytes: number) => void;
  /** Of a header or body that is not whole. */
  #pending: Buffer = NOTHING;
  /** Bytes of the current message that are not kept and still to come. */
  #skip = 0;
  #stopped = false;

  /** @param message `tag` is '' where the message has none; `body` is valid during the call only */
  constructor(framing: Framing, message: (tag: string, body: Buffer, bodyBytes: number) => void) {
    this.framing = framing;
    this.#message = message;
  }

  /** True between the first and the last byte of a message. */
  get midMessage(): boolean {
    return this.#pending.length > 0 || this.#skip > 0;
  }

  /** Reads no further, not even the rest of a chunk at hand. */
  stop(): void {
    this.#stopped = true;
  }

  push(chunk: Buffer): void {
    let rest = chunk;
    if (this.#skip > 0) {
      const skipped = Math.min(this.#skip, rest.length);
      this.#skip -= skipped;
      rest = rest.subarray(skipped);
    }
    if (this.#pending.length > 0) rest = Buffer.concat([this.#pending, rest]);
    this.#pending = NOTHING;
    while (rest.length > 0 && !this.#stopped && !this.broken) {
      const taken = this.#cut(rest);
      if (taken < 0) {
        this.#pending = Buffer.from(rest);
        return;
      }
      rest = rest.subarray(taken);
    }
  }

  /** Hands on the message at the front. Returns its bytes within `bytes`, -1 where too few are there. */
  #cut(bytes: Buffer): number {
    const tag = this.framing === 'tagged' ? String.fromCharCode(bytes[0]!) : '';
    if (this.expectsByte && 'SNG'.includes(tag)) {
      this.expectsByte = false;
      this.#message(tag, NOTHING, 0);
      return 1;
    }
    const headBytes = tag.length + 4;
    if (bytes.length < headBytes) return -1;
    const bodyBytes = bytes.readInt32BE(tag.length) - 4;
    if (bodyBytes < 0) {
      this.broken = true;
      return bytes.length;
    }
    const kept = Math.min(bodyBytes, BODY_BYTES_MAX);
    if (bytes.length < headBytes + kept) return -1;
    const end = Math.min(headBytes + bodyBytes, bytes.length);
    this.#skip = headBytes + bodyBytes - end;
    this.#message(tag, bytes.subarray(headBytes, headBytes + kept), bodyBytes);
    return end;
  }
}
