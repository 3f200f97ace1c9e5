// What workers that merge together send each other, over a Unix socket (R50): binary frames, each with its length (without these
// four bytes) and type in front. Numbers are big-endian. Entries of one kind are gathered in one frame, which goes out at the end
// of the turn of the event loop.
//
//   to the owner of a lane                                    from it
//   hello      version of these frames                        accepted   handle
//   statement  handle, texts (see remote-statements.ts)       declined   handle
//   requests   epoch, time, then for each: number, handle,    answers    for each: number, Outcome, rows, bytes of the answer
//              slot, count of values, lengths, values                    (-1: none), the answer
//   cancel     number                                         pong
//   release    number                                         closing    no more requests, please
//   ping
import { copyBytes } from '../../wire/copy-bytes.js';

export const SHARE_VERSION = 1;

export const ToOwner = { hello: 1, statement: 2, requests: 3, cancel: 4, release: 5, ping: 6 } as const;
export const FromOwner = { accepted: 1, declined: 2, answers: 3, pong: 4, closing: 5 } as const;

/** How a statement that was handed to the owner of its lane ended there. */
export const Outcome = {
  completed: 0,
  /** Nothing was done: it is to run by itself. */
  rerun: 1,
  /** The same, and nobody else writes its key until it is released. */
  rerunHolding: 2,
  /** The owner does not take it: its own worker merges it. */
  refused: 3,
  /** It was cancelled before it was sent. */
  withdrawn: 4,
  /** An error is its answer: name, message, detail, each ended by NUL. */
  failed: 5,
} as const;

const HEADER_BYTES = 5;
const FIRST_BYTES = 16 * 1024;
/** More than that is not kept for the next turn. */
const KEPT_BYTES_MAX = 256 * 1024;
/** No frame is longer: answers are at most 8 MiB, and each is in a frame of its own beyond some size. */
const FRAME_BYTES_MAX = 64 * 1024 * 1024;
const EMPTY = Buffer.alloc(0);

/** What came is no frame: whoever sent it is not to be trusted with more. */
export class FrameError extends Error {}

/** Gathers frames in one buffer. */
export class FrameWriter {
  #buffer = EMPTY;
  #at = 0;
  /** Where the frame begins that is written to; -1: none. */
  #frame = -1;

  get bytes(): number {
    return this.#at;
  }

  /** Whether a frame of that type is open, to which more may be written. */
  isOpen(type: number): boolean {
    return this.#frame >= 0 && this.#buffer[this.#frame + 4] === type;
  }

  /** Begins a frame; `bytes` are about to be written to it. */
  open(type: number, bytes: number): void {
    this.close();
    this.room(HEADER_BYTES + bytes);
    this.#frame = this.#at;
    this.#buffer[this.#at + 4] = type;
    this.#at += HEADER_BYTES;
  }

  close(): void {
    if (this.#frame < 0) return;
    this.#buffer.writeUInt32BE(this.#at - this.#frame - 4, this.#frame);
    this.#frame = -1;
  }

  /** Must be called before so many bytes are written. */
  room(bytes: number): void {
    const wanted = this.#at + bytes;
    if (wanted <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(wanted, 2 * this.#buffer.length, FIRST_BYTES));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }

  byte(value: number): void {
    this.#buffer[this.#at++] = value;
  }

  short(value: number): void {
    this.#at = this.#buffer.writeUInt16BE(value, this.#at);
  }

  int(value: number): void {
    this.#at = this.#buffer.writeInt32BE(value | 0, this.#at);
  }

  double(value: number): void {
    this.#at = this.#buffer.writeDoubleBE(value, this.#at);
  }

  copy(from: Buffer, start: number, end: number): void {
    this.#at = copyBytes(from, start, end, this.#buffer, this.#at);
  }

  /** A frame with a number in it, or none. */
  small(type: number, value: number | null = null): void {
    this.open(type, 4);
    if (value !== null) this.int(value);
    this.close();
  }

  /** What was gathered: the caller's until `kept`. */
  take(): Buffer {
    this.close();
    return this.#buffer.subarray(0, this.#at);
  }

  /**
   * Begins anew. What was gathered and not taken is thrown away, an open frame with it.
   * @param isFree nobody reads from what was taken any more
   */
  taken(isFree: boolean): void {
    if (!isFree || this.#buffer.length > KEPT_BYTES_MAX) this.#buffer = EMPTY;
    this.#at = 0;
    this.#frame = -1;
  }
}

/** Hears of each frame as it has come whole; `start` is behind its type. What it is given may be kept. */
export type FrameTaker = (type: number, buffer: Buffer, start: number, end: number) => void;

/** Cuts what comes into frames. */
export class FrameCutter {
  readonly #take: FrameTaker;
  #rest: Buffer[] = [];
  #bytes = 0;
  #wanted = 0;

  constructor(take: FrameTaker) {
    this.#take = take;
  }

  /** @throws FrameError */
  push(chunk: Buffer): void {
    let buffer = chunk;
    if (this.#bytes > 0) {
      this.#rest.push(chunk);
      this.#bytes += chunk.length;
      if (this.#bytes < this.#wanted) return;
      buffer = Buffer.concat(this.#rest, this.#bytes);
      this.#rest = [];
      this.#bytes = 0;
    }
    let at = 0;
    const { length } = buffer;
    while (at + HEADER_BYTES <= length) {
      const bytes = buffer.readUInt32BE(at);
      if (bytes < 1 || bytes > FRAME_BYTES_MAX) throw new FrameError(`a frame of ${bytes} bytes`);
      const end = at + 4 + bytes;
      if (end > length) break;
      this.#take(buffer[at + 4]!, buffer, at + HEADER_BYTES, end);
      at = end;
    }
    if (at === length) return;
    this.#rest = [buffer.subarray(at)];
    this.#bytes = length - at;
    this.#wanted = this.#bytes < HEADER_BYTES ? HEADER_BYTES : 4 + buffer.readUInt32BE(at);
  }
}

/** Texts, each with its length in front. */
export function writeTexts(writer: FrameWriter, texts: readonly string[]): void {
  for (const text of texts) {
    const bytes = Buffer.from(text);
    writer.room(4 + bytes.length);
    writer.int(bytes.length);
    writer.copy(bytes, 0, bytes.length);
  }
}

export function readTexts(buffer: Buffer, start: number, end: number): string[] {
  const texts: string[] = [];
  let at = start;
  while (at < end) {
    const textEnd = at + 4 + buffer.readInt32BE(at);
    if (textEnd < at + 4 || textEnd > end) throw new FrameError('a text ends behind its frame');
    texts.push(buffer.toString('utf8', at + 4, textEnd));
    at = textEnd;
  }
  return texts;
}
