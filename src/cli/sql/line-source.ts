// Where the shell's text comes from, line by line: a pipe or file (bytes, since COPY data need not be UTF-8), or a person
// (interactive-source.ts). COPY FROM STDIN reads on from the same place.
import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { messageOf } from '../../base/errors.js';

/** Ctrl-C at the prompt: what was typed so far is dropped. */
export const INTERRUPTED = Symbol('interrupted');

export interface LineSource {
  /** How messages name it (`file:line:`); undefined for standard input and people. */
  readonly name: string | undefined;
  /** Lines given out so far. */
  readonly lineNumber: number;
  readonly interactive: boolean;
  /** The next line without its line end; undefined at the end. `prompt` is for people. */
  nextLine(prompt: string): Promise<Buffer | undefined | typeof INTERRUPTED>;
  /** Everything up to the end, in pieces; for binary COPY data. */
  rest(): AsyncIterable<Buffer>;
  close(): void;
}

const LINE_FEED = 0x0a;
const OPEN_FAILURES: Record<string, string> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
};

export class StreamSource implements LineSource {
  readonly name: string | undefined;
  readonly interactive = false;
  lineNumber = 0;
  readonly #stream: Readable;
  /** Made at the first read: asking for it starts the stream. */
  #chunks: AsyncIterator<Buffer> | undefined;
  #pending: Buffer = Buffer.alloc(0);
  #ended = false;

  constructor(stream: Readable, name?: string) {
    this.#stream = stream;
    this.name = name;
  }

  /** A file, or a text that says why it cannot be read. */
  static async openFile(path: string): Promise<StreamSource | string> {
    try {
      const file = await open(path);
      if ((await file.stat()).isDirectory()) {
        await file.close();
        return `${path}: Is a directory`;
      }
      return new StreamSource(file.createReadStream(), path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      return `${path}: ${(code && OPEN_FAILURES[code]) ?? messageOf(error)}`;
    }
  }

  async nextLine(): Promise<Buffer | undefined> {
    const parts: Buffer[] = [];
    for (;;) {
      const end = this.#pending.indexOf(LINE_FEED);
      if (end >= 0) {
        parts.push(this.#pending.subarray(0, end));
        this.#pending = this.#pending.subarray(end + 1);
        break;
      }
      parts.push(this.#pending);
      this.#pending = await this.#nextChunk();
      if (this.#ended) {
        if (parts.every((part) => part.length === 0)) return undefined;
        break;
      }
    }
    this.lineNumber++;
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  async *rest(): AsyncGenerator<Buffer> {
    for (let chunk = this.#pending; !this.#ended; chunk = await this.#nextChunk()) {
      if (chunk.length > 0) yield chunk;
    }
    this.#pending = Buffer.alloc(0);
  }

  close(): void {
    this.#stream.destroy();
  }

  async #nextChunk(): Promise<Buffer> {
    if (this.#ended) return Buffer.alloc(0);
    this.#chunks ??= this.#stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    const { value, done } = await this.#chunks.next();
    if (done) this.#ended = true;
    return done ? Buffer.alloc(0) : Buffer.from(value);
  }
}
