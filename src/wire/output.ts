// The one writer of a connection: gathers what one event produces and hands it to the socket in one write.
// Invariant: everything pushed is flushed before the event handler that pushed it returns; a full socket buffer is
// reported by `flush`, and the producer stops until 'drain'.
import type { Duplex } from 'node:stream';

/** Up to here parts are copied together: one small copy is cheaper than a writev of many parts. */
const JOIN_BYTES_MAX = 16_384;

export class Output {
  #stream: Duplex;
  #parts: Buffer[] = [];
  #bytes = 0;
  /** True from a flush that filled the socket's buffer until its 'drain'. */
  blocked = false;
  /** Bytes handed to the socket so far. */
  bytesWritten = 0;

  constructor(stream: Duplex) {
    this.#stream = stream;
  }

  /** The same writer continues on a stream that wraps the former one (TLS). */
  replaceStream(stream: Duplex): void {
    this.#stream = stream;
  }

  /** Whether bytes pushed are still to be read from where they were: the system has not taken a copy of all of them. */
  get holdsBytes(): boolean {
    return this.#bytes > 0 || this.#stream.writableLength > 0;
  }

  push(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.#bytes += bytes.length;
  }

  /** Hands all parts to the socket. Returns false when the peer does not keep up. */
  flush(): boolean {
    const count = this.#parts.length;
    if (count === 0) return !this.blocked;
    const parts = this.#parts;
    const bytes = this.#bytes;
    const stream = this.#stream;
    this.bytesWritten += bytes;
    this.#bytes = 0;
    if (count === 1) {
      const only = parts[0]!;
      parts.length = 0;
      this.blocked = !stream.write(only);
    } else if (bytes <= JOIN_BYTES_MAX) {
      const joined = Buffer.concat(parts, bytes);
      parts.length = 0;
      this.blocked = !stream.write(joined);
    } else {
      this.#parts = [];
      stream.cork();
      for (let index = 0; index < count - 1; index++) stream.write(parts[index]!);
      this.blocked = !stream.write(parts[count - 1]!);
      stream.uncork();
    }
    return !this.blocked;
  }

  drained(): void {
    this.blocked = false;
  }
}
