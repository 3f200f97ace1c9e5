// Backend (server to client) protocol messages decoded to plain objects with every field, for tests. Independent of
// pgkv's own codecs on purpose. Manual: "Message Formats", "Error and Notice Message Fields".

export interface ColumnDescription {
  readonly name: string;
  readonly tableOid: number;
  readonly columnNumber: number;
  readonly typeOid: number;
  readonly typeSize: number;
  readonly typeModifier: number;
  readonly format: number;
}

interface CopyResponse<Type extends string> {
  readonly type: Type;
  readonly format: number;
  readonly columnFormats: readonly number[];
}

/** One key per field code: S, V, C, M, D, H, P, p, q, W, s, t, c, d, n, F, L, R. */
export type ErrorFields = Readonly<Record<string, string>>;

export type BackendMessage =
  | { readonly type: 'Authentication'; readonly code: number; readonly data: Buffer }
  | { readonly type: 'ParameterStatus'; readonly name: string; readonly value: string }
  | { readonly type: 'BackendKeyData'; readonly pid: number; readonly key: Buffer }
  | {
      readonly type: 'NegotiateProtocolVersion';
      readonly minor: number;
      readonly unrecognized: readonly string[];
    }
  | { readonly type: 'ReadyForQuery'; readonly status: string }
  | { readonly type: 'RowDescription'; readonly columns: readonly ColumnDescription[] }
  | { readonly type: 'DataRow'; readonly values: readonly (Buffer | null)[] }
  | { readonly type: 'CommandComplete'; readonly tag: string }
  | { readonly type: 'ErrorResponse'; readonly fields: ErrorFields }
  | { readonly type: 'NoticeResponse'; readonly fields: ErrorFields }
  | {
      readonly type: 'NotificationResponse';
      readonly pid: number;
      readonly channel: string;
      readonly payload: string;
    }
  | { readonly type: 'ParameterDescription'; readonly typeOids: readonly number[] }
  | CopyResponse<'CopyInResponse'>
  | CopyResponse<'CopyOutResponse'>
  | CopyResponse<'CopyBothResponse'>
  | { readonly type: 'CopyData'; readonly data: Buffer }
  | { readonly type: 'FunctionCallResponse'; readonly value: Buffer | null }
  | { readonly type: EmptyMessageType }
  /** A tag Postgres does not have, or a body that does not fit its tag. */
  | { readonly type: 'Malformed'; readonly tag: string; readonly body: Buffer };

type EmptyMessageType = (typeof EMPTY_MESSAGES)[keyof typeof EMPTY_MESSAGES];

export type BackendMessageType = BackendMessage['type'];

const EMPTY_MESSAGES = {
  '1': 'ParseComplete',
  '2': 'BindComplete',
  '3': 'CloseComplete',
  I: 'EmptyQueryResponse',
  n: 'NoData',
  s: 'PortalSuspended',
  c: 'CopyDone',
} as const;

/** Splits a byte stream into messages, however it arrives. */
export class BackendMessageReader {
  #pending: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): BackendMessage[] {
    let bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const messages: BackendMessage[] = [];
    while (bytes.length >= 5) {
      const length = bytes.readInt32BE(1);
      if (length < 4) throw new Error(`the server sent a message of length ${length}`);
      if (bytes.length < length + 1) break;
      messages.push(decode(bytes.toString('latin1', 0, 1), bytes.subarray(5, length + 1)));
      bytes = bytes.subarray(length + 1);
    }
    this.#pending = bytes;
    return messages;
  }

  /** Bytes of an unfinished message. */
  get pendingBytes(): number {
    return this.#pending.length;
  }
}

function decode(tag: string, body: Buffer): BackendMessage {
  const cursor = new Cursor(body);
  try {
    const message = decodeBody(tag, cursor);
    if (message && cursor.atEnd) return message;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // RangeError: the body is shorter than its tag wants
  }
  return { type: 'Malformed', tag, body: Buffer.from(body) };
}

function decodeBody(tag: string, cursor: Cursor): BackendMessage | undefined {
  switch (tag) {
    case 'R':
      return { type: 'Authentication', code: cursor.int32(), data: cursor.rest() };
    case 'S':
      return { type: 'ParameterStatus', name: cursor.cstring(), value: cursor.cstring() };
    case 'K':
      return { type: 'BackendKeyData', pid: cursor.int32(), key: cursor.rest() };
    case 'v':
      return {
        type: 'NegotiateProtocolVersion',
        minor: cursor.int32(),
        unrecognized: list(cursor.int32(), () => cursor.cstring()),
      };
    case 'Z':
      return { type: 'ReadyForQuery', status: cursor.bytes(1).toString('latin1') };
    case 'T':
      return { type: 'RowDescription', columns: list(cursor.int16(), () => columnDescription(cursor)) };
    case 'D':
      return { type: 'DataRow', values: list(cursor.int16(), () => cursor.value()) };
    case 'C':
      return { type: 'CommandComplete', tag: cursor.cstring() };
    case 'E':
      return { type: 'ErrorResponse', fields: errorFields(cursor) };
    case 'N':
      return { type: 'NoticeResponse', fields: errorFields(cursor) };
    case 'A':
      return {
        type: 'NotificationResponse',
        pid: cursor.int32(),
        channel: cursor.cstring(),
        payload: cursor.cstring(),
      };
    case 't':
      return { type: 'ParameterDescription', typeOids: list(cursor.int16(), () => cursor.uint32()) };
    case 'G':
      return copyResponse('CopyInResponse', cursor);
    case 'H':
      return copyResponse('CopyOutResponse', cursor);
    case 'W':
      return copyResponse('CopyBothResponse', cursor);
    case 'd':
      return { type: 'CopyData', data: cursor.rest() };
    case 'V':
      return { type: 'FunctionCallResponse', value: cursor.value() };
    default:
      return tag in EMPTY_MESSAGES ? { type: EMPTY_MESSAGES[tag as keyof typeof EMPTY_MESSAGES] } : undefined;
  }
}

function columnDescription(cursor: Cursor): ColumnDescription {
  return {
    name: cursor.cstring(),
    tableOid: cursor.uint32(),
    columnNumber: cursor.int16(),
    typeOid: cursor.uint32(),
    typeSize: cursor.int16(),
    typeModifier: cursor.int32(),
    format: cursor.int16(),
  };
}

function errorFields(cursor: Cursor): ErrorFields {
  const fields: Record<string, string> = {};
  for (let code = cursor.bytes(1).toString('latin1'); code !== '\0'; code = cursor.bytes(1).toString('latin1')) {
    fields[code] = cursor.cstring();
  }
  return fields;
}

function copyResponse<Type extends 'CopyInResponse' | 'CopyOutResponse' | 'CopyBothResponse'>(
  type: Type,
  cursor: Cursor,
): CopyResponse<Type> {
  return { type, format: cursor.bytes(1).readUInt8(), columnFormats: list(cursor.int16(), () => cursor.int16()) };
}

function list<Item>(count: number, read: () => Item): Item[] {
  if (count < 0) throw new RangeError('a negative count');
  return Array.from({ length: count }, read);
}

/** Reads a body from front to back; a read past its end is a RangeError. */
class Cursor {
  readonly #body: Buffer;
  #offset = 0;

  constructor(body: Buffer) {
    this.#body = body;
  }

  get atEnd(): boolean {
    return this.#offset === this.#body.length;
  }

  int16(): number {
    return this.bytes(2).readInt16BE();
  }

  int32(): number {
    return this.bytes(4).readInt32BE();
  }

  uint32(): number {
    return this.bytes(4).readUInt32BE();
  }

  /** Bytes that are not UTF-8 survive as latin1 behind a mark that no text of ours begins with. */
  cstring(): string {
    const end = this.#body.indexOf(0, this.#offset);
    if (end < 0) throw new RangeError('a string without its terminating NUL');
    const raw = this.#body.subarray(this.#offset, end);
    this.#offset = end + 1;
    const text = raw.toString('utf8');
    return Buffer.from(text, 'utf8').equals(raw) ? text : `\u{FFFD}latin1:${raw.toString('latin1')}`;
  }

  value(): Buffer | null {
    const length = this.int32();
    return length === -1 ? null : Buffer.from(this.bytes(length));
  }

  rest(): Buffer {
    return Buffer.from(this.bytes(this.#body.length - this.#offset));
  }

  bytes(count: number): Buffer {
    const end = this.#offset + count;
    if (count < 0 || end > this.#body.length)
      throw new RangeError('a field has a negative length, or ends behind the message');
    const part = this.#body.subarray(this.#offset, end);
    this.#offset = end;
    return part;
  }
}
