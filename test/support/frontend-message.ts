// Frontend (client to server) protocol messages from a small description, for tests. Nothing is validated: tests must
// be able to say anything. Manual: "Message Formats".

/** A string is sent as UTF-8; a Buffer goes out as it is, invalid text included. */
export type Text = string | Buffer;
/** A parameter: a string travels in text format, a Buffer in binary, null as NULL. */
export type Value = Text | null;

export type FrontendMessage =
  | 'sync'
  | 'flush'
  | 'copyDone'
  | 'terminate'
  | { readonly query: Text }
  | { readonly parse: Text; readonly name?: Text; readonly types?: readonly number[] }
  | BindMessage
  | { readonly describe: 'statement' | 'portal'; readonly name?: string }
  | { readonly execute: string; readonly rows?: number }
  | { readonly close: 'statement' | 'portal'; readonly name?: string }
  | { readonly copyData: Text }
  | { readonly copyFail: string }
  | FunctionCallMessage
  | { readonly password: Text }
  | { readonly raw: Buffer };

export interface BindMessage {
  readonly bind: readonly Value[];
  readonly portal?: string;
  readonly statement?: string;
  /** Format codes as sent; by default one per parameter when any is binary, else none. */
  readonly formats?: readonly number[];
  readonly resultFormats?: readonly number[];
}

export interface FunctionCallMessage {
  /** The function's OID. */
  readonly functionCall: number;
  readonly args: readonly Value[];
  readonly formats?: readonly number[];
  readonly resultFormat?: number;
}

export function encode(message: FrontendMessage): Buffer {
  if (message === 'sync') return frame('S');
  if (message === 'flush') return frame('H');
  if (message === 'copyDone') return frame('c');
  if (message === 'terminate') return frame('X');
  if ('query' in message) return frame('Q', cstring(message.query));
  if ('parse' in message) return encodeParse(message.parse, message.name ?? '', message.types ?? []);
  if ('bind' in message) return encodeBind(message);
  if ('describe' in message) return frame('D', targetOf(message.describe), cstring(message.name ?? ''));
  if ('execute' in message) return frame('E', cstring(message.execute), int32(message.rows ?? 0));
  if ('close' in message) return frame('C', targetOf(message.close), cstring(message.name ?? ''));
  if ('copyData' in message) return frame('d', bytes(message.copyData));
  if ('copyFail' in message) return frame('f', cstring(message.copyFail));
  if ('functionCall' in message) return encodeFunctionCall(message);
  if ('password' in message) return frame('p', bytes(message.password));
  return message.raw;
}

export function encodeAll(messages: readonly FrontendMessage[]): Buffer {
  return Buffer.concat(messages.map(encode));
}

/** How many ReadyForQuery Postgres answers with, provided nothing is skipped, refused or in COPY. */
export function readyForQueryCount(messages: readonly FrontendMessage[]): number {
  return messages.filter((message) =>
    typeof message === 'string' ? message === 'sync' : 'query' in message || 'functionCall' in message,
  ).length;
}

/** A StartupMessage. `protocol` is `major << 16 | minor`. */
export function encodeStartup(protocol: number, parameters: Readonly<Record<string, string>>): Buffer {
  const pairs = Object.entries(parameters).flatMap(([name, value]) => [cstring(name), cstring(value)]);
  return withLength(Buffer.concat([int32(protocol), ...pairs, Buffer.of(0)]));
}

/** SSLRequest, GSSENCRequest and CancelRequest are StartupMessages with these codes. */
export const REQUEST_CODES = { cancel: 80877102, ssl: 80877103, gssenc: 80877104 } as const;

export function encodeRequest(code: number, body: Buffer = Buffer.alloc(0)): Buffer {
  return withLength(Buffer.concat([int32(code), body]));
}

export function encodeCancel(pid: number, key: Buffer): Buffer {
  return encodeRequest(REQUEST_CODES.cancel, Buffer.concat([int32(pid), key]));
}

/** A message with a tag of one letter and a right length around `parts`. */
export function frame(tag: string, ...parts: readonly Buffer[]): Buffer {
  return Buffer.concat([Buffer.from(tag, 'latin1'), withLength(Buffer.concat(parts))]);
}

/** Also takes unsigned values: counts go up to 2¹⁶−1. */
export function int16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeInt16BE((value << 16) >> 16);
  return buffer;
}

/** Also takes unsigned values: OIDs and request codes go up to 2³²−1. */
export function int32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value | 0);
  return buffer;
}

export function cstring(text: Text): Buffer {
  return Buffer.concat([bytes(text), Buffer.of(0)]);
}

function withLength(body: Buffer): Buffer {
  return Buffer.concat([int32(body.length + 4), body]);
}

function bytes(text: Text): Buffer {
  return typeof text === 'string' ? Buffer.from(text, 'utf8') : text;
}

function targetOf(kind: 'statement' | 'portal'): Buffer {
  return Buffer.from(kind === 'statement' ? 'S' : 'P', 'latin1');
}

function encodeParse(text: Text, name: Text, types: readonly number[]): Buffer {
  return frame('P', cstring(name), cstring(text), int16(types.length), ...types.map(int32));
}

function encodeBind(message: BindMessage): Buffer {
  return frame(
    'B',
    cstring(message.portal ?? ''),
    cstring(message.statement ?? ''),
    formatCodes(message.formats ?? formatsOf(message.bind)),
    values(message.bind),
    formatCodes(message.resultFormats ?? []),
  );
}

function encodeFunctionCall(message: FunctionCallMessage): Buffer {
  const formats = formatCodes(message.formats ?? formatsOf(message.args));
  return frame('F', int32(message.functionCall), formats, values(message.args), int16(message.resultFormat ?? 0));
}

function formatsOf(list: readonly Value[]): readonly number[] {
  return list.some((value) => Buffer.isBuffer(value)) ? list.map((value) => (Buffer.isBuffer(value) ? 1 : 0)) : [];
}

function formatCodes(codes: readonly number[]): Buffer {
  return Buffer.concat([int16(codes.length), ...codes.map(int16)]);
}

function values(list: readonly Value[]): Buffer {
  const encoded = list.map((value) => {
    if (value === null) return int32(-1);
    const body = bytes(value);
    return Buffer.concat([int32(body.length), body]);
  });
  return Buffer.concat([int16(list.length), ...encoded]);
}
