// Gathers rows without their hidden columns into few large chunks. A chunk handed out is never written again.

/** Chunks begin small, since most answers are, and double. */
const CHUNK_BYTES_MIN = 2_048;
const CHUNK_BYTES_MAX = 32_768;
const NOTHING = Buffer.alloc(0);
const HEADER_BYTES = 7;

export class RowOutput {
  #chunk: Buffer = NOTHING;
  #used = 0;
  #chunkBytes = CHUNK_BYTES_MIN;

  get empty(): boolean {
    return this.#used === 0;
  }

  /** Whether a row of that many bytes still fits in; where not, take what is there first. */
  fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#chunk.length;
  }

  /** Adds the row that begins at `start` up to `visibleEnd`, with as many columns fewer as are hidden. */
  append(buffer: Buffer, start: number, visibleEnd: number, hidden: number): void {
    const bytes = visibleEnd - start;
    if (this.#used === 0) {
      this.#chunk = Buffer.allocUnsafeSlow(Math.max(this.#chunkBytes, bytes));
      this.#chunkBytes = Math.min(this.#chunkBytes * 2, CHUNK_BYTES_MAX);
    }
    const chunk = this.#chunk;
    const at = this.#used;
    chunk[at] = buffer[start]!;
    chunk.writeInt32BE(bytes - 1, at + 1);
    chunk.writeUInt16BE(buffer.readUInt16BE(start + 5) - hidden, at + 5);
    buffer.copy(chunk, at + HEADER_BYTES, start + HEADER_BYTES, visibleEnd);
    this.#used += bytes;
  }

  take(): Buffer {
    const rows = this.#chunk.subarray(0, this.#used);
    this.#chunk = NOTHING;
    this.#used = 0;
    return rows;
  }
}
