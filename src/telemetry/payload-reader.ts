// Reads the fields of one message payload for the trace. A trace shows what is there, also when it is wrong: reading
// beyond the end throws `PayloadEnd`, which the caller shows as "malformed".

export class PayloadEnd extends Error {}

export class PayloadReader {
  readonly #bytes: Buffer;
  #position = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#position;
  }

  uint8(): number {
    return this.#take(1)[0]!;
  }

  int16(): number {
    return this.#take(2).readInt16BE();
  }

  uint16(): number {
    return this.#take(2).readUInt16BE();
  }

  int32(): number {
    return this.#take(4).readInt32BE();
  }

  uint32(): number {
    return this.#take(4).readUInt32BE();
  }

  /** Up to the next NUL, which is consumed. */
  text(): string {
    const end = this.#bytes.indexOf(0, this.#position);
    if (end === -1) throw new PayloadEnd();
    const text = this.#bytes.toString('utf8', this.#position, end);
    this.#position = end + 1;
    return text;
  }

  /** A value as Bind, DataRow and FunctionCall carry it: length, -1 for NULL, then the bytes. */
  value(): Buffer | null {
    const length = this.int32();
    if (length === -1) return null;
    if (length < 0) throw new PayloadEnd();
    return this.#take(length);
  }

  /** All that is left. */
  rest(): Buffer {
    return this.#take(this.remaining);
  }

  #take(length: number): Buffer {
    if (this.remaining < length) throw new PayloadEnd();
    this.#position += length;
    return this.#bytes.subarray(this.#position - length, this.#position);
  }
}
