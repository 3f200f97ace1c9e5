// Messages of the protocol as the model sees them: cut from a stream, and those a server sends, built. Independent of
// pgkv's own codecs on purpose. Manual: "Message Formats".
import { cstring, frame, int16, int32 } from '../support/frontend-message.js';

export interface Message {
  /** The type byte as a letter. */
  readonly type: string;
  readonly body: Buffer;
  /** The whole message. */
  readonly bytes: Buffer;
}

/** Cuts a stream into messages, however it arrives. */
export class MessageSplitter {
  #pending: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): Message[] {
    let bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const messages: Message[] = [];
    while (bytes.length >= 5) {
      const end = bytes.readInt32BE(1) + 1;
      if (end < 5) throw new Error(`a message of length ${end - 1}`);
      if (bytes.length < end) break;
      messages.push(messageOf(bytes.subarray(0, end)));
      bytes = bytes.subarray(end);
    }
    this.#pending = bytes;
    return messages;
  }

  /** What has arrived of a message that is not whole. */
  get pendingBytes(): number {
    return this.#pending.length;
  }
}

export const messageOf = (bytes: Buffer): Message => ({
  type: String.fromCharCode(bytes[0]!),
  body: bytes.subarray(5),
  bytes,
});

/** Reads the body of a message from front to back. */
export class BodyReader {
  readonly #body: Buffer;
  #offset = 0;

  constructor(body: Buffer) {
    this.#body = body;
  }

  text(): string {
    const end = this.#body.indexOf(0, this.#offset);
    const text = this.#body.toString('utf8', this.#offset, end);
    this.#offset = end + 1;
    return text;
  }

  letter(): string {
    return String.fromCharCode(this.#body[this.#offset++]!);
  }

  int16(): number {
    this.#offset += 2;
    return this.#body.readInt16BE(this.#offset - 2);
  }

  int32(): number {
    this.#offset += 4;
    return this.#body.readInt32BE(this.#offset - 4);
  }

  value(): string | null {
    const length = this.int32();
    if (length < 0) return null;
    this.#offset += length;
    return this.#body.toString('utf8', this.#offset - length, this.#offset);
  }
}

export const PARSE_COMPLETE = frame('1');
export const BIND_COMPLETE = frame('2');
export const CLOSE_COMPLETE = frame('3');
export const NO_DATA = frame('n');
export const EMPTY_QUERY = frame('I');
export const PORTAL_SUSPENDED = frame('s');
export const COPY_DONE = frame('c');
export const COPY_IN = frame('G', Buffer.of(0), int16(1), int16(0));
export const COPY_OUT = frame('H', Buffer.of(0), int16(1), int16(0));
export const AUTHENTICATION_OK = frame('R', int32(0));

export const ready = (status: string): Buffer => frame('Z', Buffer.from(status));
export const commandComplete = (tag: string): Buffer => frame('C', cstring(tag));
export const parameterStatus = (name: string, value: string): Buffer => frame('S', cstring(name), cstring(value));
export const backendKey = (pid: number, key: Buffer): Buffer => frame('K', int32(pid), key);
export const copyData = (text: string): Buffer => frame('d', Buffer.from(text));
export const notification = (pid: number, channel: string, payload: string): Buffer =>
  frame('A', int32(pid), cstring(channel), cstring(payload));
export const parameterDescription = (count: number): Buffer =>
  frame('t', int16(count), ...Array.from({ length: count }, () => int32(25)));

export function rowDescription(names: readonly string[]): Buffer {
  const columns = names.map((name) =>
    Buffer.concat([cstring(name), int32(0), int16(0), int32(25), int16(-1), int32(-1), int16(0)]),
  );
  return frame('T', int16(names.length), ...columns);
}

export function dataRow(values: readonly (string | null)[]): Buffer {
  const cells = values.map((value) => {
    if (value === null) return int32(-1);
    const bytes = Buffer.from(value);
    return Buffer.concat([int32(bytes.length), bytes]);
  });
  return frame('D', int16(values.length), ...cells);
}

export function readRow(body: Buffer): (string | null)[] {
  const reader = new BodyReader(body);
  return Array.from({ length: reader.int16() }, () => reader.value());
}

/** One letter a field: S, V, C, M, D, R … */
export type Fields = Readonly<Record<string, string>>;

const encodeFields = (type: string, fields: Fields): Buffer =>
  frame(
    type,
    ...Object.entries(fields).map(([code, text]) => Buffer.concat([Buffer.from(code), cstring(text)])),
    Buffer.of(0),
  );

export const errorResponse = (fields: Fields): Buffer => encodeFields('E', fields);
export const notice = (sqlstate: string, text: string): Buffer =>
  encodeFields('N', { S: 'WARNING', V: 'WARNING', C: sqlstate, M: text });

export function readFields(body: Buffer): Fields {
  const fields: Record<string, string> = {};
  const reader = new BodyReader(body);
  for (let code = reader.letter(); code !== '\0'; code = reader.letter()) fields[code] = reader.text();
  return fields;
}
