// Bytes that came in chunks and are not used up: `bytes[start, end)`. What comes while nothing is left is used where it is; what
// is left is copied into memory that grows by half, so that a long part in small chunks is copied a few times at most.
const FIRST_BYTES = 16 * 1024;
/** Memory that is larger than what is in it by more than that is not used again. */
const SPARE_FACTOR = 4;

export class ByteBacklog {
  bytes: Buffer = Buffer.alloc(0);
  start = 0;
  end = 0;
  #isOwn = false;

  /** @returns by how much what is left has moved to the front */
  push(chunk: Buffer): number {
    const moved = this.start;
    if (this.start < this.end) this.#append(chunk);
    else {
      this.bytes = chunk;
      this.#isOwn = false;
      this.end = chunk.length;
    }
    this.start = 0;
    return moved;
  }

  /** What is left is kept beyond this event. @returns as `push` does */
  keep(): number {
    const moved = this.start;
    if (this.#isOwn || this.start === this.end) return 0;
    this.#append(Buffer.alloc(0));
    this.start = 0;
    return moved;
  }

  #append(chunk: Buffer): void {
    const from = this.bytes;
    const kept = this.end - this.start;
    const wanted = kept + chunk.length;
    const fits = this.#isOwn && wanted <= from.length && from.length <= Math.max(FIRST_BYTES, SPARE_FACTOR * wanted);
    if (!fits) this.bytes = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, wanted + (wanted >> 1)));
    if (!fits || this.start > 0) from.copy(this.bytes, 0, this.start, this.end);
    chunk.copy(this.bytes, kept);
    this.#isOwn = true;
    this.end = wanted;
  }
}
