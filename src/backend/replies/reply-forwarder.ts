// The way from a server's chunks to whoever holds its connection: consecutive messages leave as one view of the chunk, bytes
// of pgkv's own go between them. Owns the receiver, and says when the memory of a chunk may be read into again.
// Invariant: bytes leave in the order in which they were handed in, each once, and before the chunk's end is told.

import type { ReadBuffer } from '../connection/server-socket.js';
import type { ReplyReceiver } from './reply-receiver.js';

const NOTHING = Buffer.alloc(0);

export class ReplyForwarder {
  /** Whoever holds the lease. */
  receiver: ReplyReceiver | null = null;
  readonly #readBuffer: ReadBuffer | null;
  /** Span of the chunk that is to be forwarded and has not been yet. */
  #runBuffer: Buffer = NOTHING;
  #runStart = 0;
  #runEnd = 0;
  /** Who may still hold bytes of chunks received. */
  #holder: ReplyReceiver | null = null;

  constructor(readBuffer: ReadBuffer | null) {
    this.#readBuffer = readBuffer;
  }

  /** @param partHeld a message in part is kept of the chunks before */
  chunkBegins(partHeld: boolean): void {
    if (this.#readBuffer !== null && !this.#holdsChunks(partHeld)) this.#readBuffer.earlierAreFree();
    this.#runStart = this.#runEnd = 0;
    this.#runBuffer = NOTHING;
  }

  /** Nothing more has arrived for now. @param partHeld a message in part is kept of this chunk or those before */
  chunkEnds(partHeld: boolean): void {
    this.#runBuffer = NOTHING;
    this.receiver?.serverPaused();
    if (this.#readBuffer !== null && !this.#holdsChunks(partHeld)) this.#readBuffer.kept = false;
  }

  /** A message, or a part of one, for the client: it leaves with those around it. */
  pass(buffer: Buffer, start: number, end: number): void {
    if (this.#runEnd !== start || this.#runBuffer !== buffer) {
      this.flush();
      this.#runBuffer = buffer;
      this.#runStart = start;
    }
    this.#runEnd = end;
  }

  /** Bytes of pgkv's own, behind all that was passed. */
  insert(bytes: Buffer): void {
    this.flush();
    this.receiver?.serverBytes(bytes);
  }

  /** The receiver gets all that was passed. */
  flush(): void {
    if (this.#runEnd > this.#runStart && this.receiver !== null) {
      if (this.#holder !== this.receiver) {
        if (this.#holder?.holdsBytes === true) this.#readBuffer?.abandon();
        this.#holder = this.receiver;
      }
      const start = this.#runStart;
      // Before the call: what it throws must not have the same bytes told again when the connection is closed for it.
      this.#runStart = this.#runEnd;
      this.receiver.serverBytes(this.#runBuffer.subarray(start, this.#runEnd));
    }
    this.#runStart = this.#runEnd;
  }

  /** Whether a part of a message, or the client's socket, still points to bytes received. */
  #holdsChunks(partHeld: boolean): boolean {
    return partHeld || (this.#holder?.holdsBytes ?? false);
  }
}
