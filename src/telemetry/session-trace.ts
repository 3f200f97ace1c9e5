// One protocol message as one line for `pgkv trace` and the trace log, all types of protocol 3.0 to 3.2.
// Never throws, whatever the bytes; never longer than a few hundred characters; passwords, SCRAM messages and cancel
// keys are never shown, SQL literals and values only where asked for.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
import { PayloadEnd, PayloadReader } from './payload-reader.js';
import { redactServerMessage } from './redact.js';
import {
  bytesText,
  clip,
  copyDataText,
  LIST_LENGTH_MAX,
  listOf,
  quoted,
  sqlText,
  type TraceOptions,
  valueText,
} from './trace-text.js';

export type Direction = 'from-client' | 'to-client' | 'to-server' | 'from-server';

/** Type byte for the packets that have none: StartupMessage, SSLRequest, GSSENCRequest, CancelRequest. */
export const UNTYPED = 0;

const ARROWS: Readonly<Record<Direction, string>> = {
  'from-client': 'client >',
  'to-client': 'client <',
  'to-server': 'server <',
  'from-server': 'server >',
};

type Describe = (payload: PayloadReader, options: TraceOptions) => string;
type Description = readonly [name: string, describe?: Describe];

/**
 * `client > Parse "s1" SELECT * FROM kv WHERE key = $1 parameters=1`. `type` is the type byte or UNTYPED, `payload` the
 * bytes behind the length word.
 */
export function describeMessage(direction: Direction, type: number, payload: Buffer, options: TraceOptions): string {
  const isFrontend = direction === 'from-client' || direction === 'to-server';
  const letter = String.fromCharCode(type);
  const table = isFrontend ? FRONTEND : BACKEND;
  const [name, describe] =
    isFrontend && type === UNTYPED ? (['Startup', describeStartup] as const) : (table[letter] ?? unknown(type));
  const body = describe === undefined ? '' : bodyOf(describe, payload, options);
  return `${ARROWS[direction]} ${name}${body === '' ? '' : ` ${body}`}`;
}

function unknown(type: number): Description {
  return [`Unknown(0x${type.toString(16).padStart(2, '0')})`, (payload) => bytesText(payload.remaining)];
}

function bodyOf(describe: Describe, payload: Buffer, options: TraceOptions): string {
  try {
    return describe(new PayloadReader(payload), options);
  } catch (error) {
    if (error instanceof PayloadEnd) return `malformed, ${bytesText(payload.length)}`;
    throw error;
  }
}

const FRONTEND: Readonly<Record<string, Description>> = {
  Q: ['Query', (payload, options) => sqlText(payload.text(), options)],
  P: [
    'Parse',
    (payload, options) => {
      const name = quoted(payload.text());
      const sql = sqlText(payload.text(), options);
      return `${name} ${sql} parameters=${payload.uint16()}`;
    },
  ],
  B: ['Bind', describeBind],
  E: [
    'Execute',
    (payload) => {
      const portal = quoted(payload.text());
      const rows = payload.int32();
      return rows === 0 ? portal : `${portal} rows=${rows}`;
    },
  ],
  D: ['Describe', describeTarget],
  C: ['Close', describeTarget],
  S: ['Sync'],
  H: ['Flush'],
  X: ['Terminate'],
  F: [
    'FunctionCall',
    (payload, options) => {
      const oid = payload.uint32();
      skipFormats(payload);
      return `oid=${oid} ${valueList(payload, payload.uint16(), options)}`;
    },
  ],
  d: ['CopyData', describeCopyData],
  c: ['CopyDone'],
  f: ['CopyFail', (payload, options) => (options.values ? quoted(payload.text()) : '')],
  // PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share the byte: secret, all of them.
  p: ['Password', (payload) => `${bytesText(payload.remaining)}, never shown`],
};

const BACKEND: Readonly<Record<string, Description>> = {
  R: ['Authentication', describeAuthentication],
  K: ['BackendKeyData', (payload) => `pid=${payload.int32()} key of ${bytesText(payload.remaining)}`],
  S: ['ParameterStatus', (payload) => `${clip(payload.text())}=${quoted(payload.text())}`],
  Z: ['ReadyForQuery', (payload) => transactionStatus(payload.uint8())],
  T: [
    'RowDescription',
    (payload) => {
      const names = listOf(payload.uint16(), () => {
        const name = clip(payload.text());
        // Table OID, column number, type OID, type size, modifier, format.
        payload.uint32();
        payload.int16();
        const type = payload.uint32();
        payload.int16();
        payload.int32();
        return `${name}:${type}${payload.int16() === 1 ? ':binary' : ''}`;
      });
      return `(${names})`;
    },
  ],
  D: ['DataRow', (payload, options) => valueList(payload, payload.uint16(), options)],
  C: ['CommandComplete', (payload) => clip(payload.text())],
  E: ['ErrorResponse', describeFields],
  N: ['NoticeResponse', describeFields],
  A: [
    'NotificationResponse',
    (payload, options) => {
      const pid = payload.int32();
      const channel = quoted(payload.text());
      const content = payload.text();
      return `pid=${pid} ${channel} ${options.values ? quoted(content) : bytesText(Buffer.byteLength(content))}`;
    },
  ],
  '1': ['ParseComplete'],
  '2': ['BindComplete'],
  '3': ['CloseComplete'],
  n: ['NoData'],
  s: ['PortalSuspended'],
  I: ['EmptyQueryResponse'],
  t: ['ParameterDescription', (payload) => `(${listOf(payload.uint16(), () => `${payload.uint32()}`)})`],
  d: ['CopyData', describeCopyData],
  c: ['CopyDone'],
  G: ['CopyInResponse', describeCopyResponse],
  H: ['CopyOutResponse', describeCopyResponse],
  W: ['CopyBothResponse', describeCopyResponse],
  V: ['FunctionCallResponse', (payload, options) => valueText(payload.value(), options)],
  v: [
    'NegotiateProtocolVersion',
    (payload) => {
      const version = payload.uint32();
      const options = listOf(payload.uint32(), () => clip(payload.text()));
      return `${versionText(version)} unknown options (${options})`;
    },
  ],
};

function describeStartup(payload: PayloadReader): string {
  const code = payload.uint32();
  if (code === 80877103) return 'SSLRequest';
  if (code === 80877104) return 'GSSENCRequest';
  if (code === 80877102) return `CancelRequest pid=${payload.int32()} key of ${bytesText(payload.remaining)}`;
  const parameters: string[] = [];
  for (;;) {
    const name = payload.text();
    if (name === '') break;
    const value = payload.text();
    if (parameters.length < LIST_LENGTH_MAX) parameters.push(`${clip(name)}=${quoted(value)}`);
    else if (parameters.length === LIST_LENGTH_MAX) parameters.push('...');
  }
  return [versionText(code), ...parameters].join(' ');
}

function versionText(version: number): string {
  return `${version >>> 16}.${version & 0xffff}`;
}

function describeBind(payload: PayloadReader, options: TraceOptions): string {
  const portal = quoted(payload.text());
  const statement = quoted(payload.text());
  skipFormats(payload);
  const values = valueList(payload, payload.uint16(), options);
  const formats = listOf(payload.uint16(), () => (payload.int16() === 1 ? 'binary' : 'text'));
  return `${portal} ${statement} ${values}${formats === '' ? '' : ` results=${formats}`}`;
}

function skipFormats(payload: PayloadReader): void {
  for (let count = payload.uint16(); count > 0; count--) payload.int16();
}

function describeTarget(payload: PayloadReader): string {
  const kind = String.fromCharCode(payload.uint8());
  const label = kind === 'S' ? 'statement' : kind === 'P' ? 'portal' : 'unknown';
  return `${label} ${quoted(payload.text())}`;
}

const AUTHENTICATION: Readonly<Record<number, string>> = {
  0: 'Ok',
  2: 'KerberosV5',
  3: 'CleartextPassword',
  5: 'MD5Password',
  7: 'GSS',
  8: 'GSSContinue',
  9: 'SSPI',
  11: 'SASLContinue',
  12: 'SASLFinal',
};

function describeAuthentication(payload: PayloadReader): string {
  const kind = payload.int32();
  if (kind !== 10) return AUTHENTICATION[kind] ?? `Unknown(${kind})`;
  const mechanisms: string[] = [];
  for (let name = payload.text(); name !== ''; name = payload.text()) mechanisms.push(clip(name));
  return `SASL ${mechanisms.slice(0, LIST_LENGTH_MAX).join(', ')}`;
}

function transactionStatus(status: number): string {
  const letter = String.fromCharCode(status);
  if (letter === 'I') return 'idle';
  if (letter === 'T') return 'in transaction';
  return letter === 'E' ? 'in failed transaction' : `unknown status ${status}`;
}

/** Severity, SQLSTATE, message; detail, hint and the rest only with values. */
function describeFields(payload: PayloadReader, options: TraceOptions): string {
  const fields = new Map<string, string>();
  for (let type = payload.uint8(); type !== 0; type = payload.uint8()) {
    fields.set(String.fromCharCode(type), payload.text());
  }
  const sqlstate = fields.get('C') ?? '';
  const message = fields.get('M') ?? '';
  const parts = [fields.get('V') ?? fields.get('S') ?? '', sqlstate].map(clip);
  parts.push(clip(options.values ? message : redactServerMessage(sqlstate, message)));
  if (options.values) {
    for (const [type, label] of [
      ['D', 'detail'],
      ['H', 'hint'],
      ['W', 'where'],
      ['P', 'position'],
    ] as const) {
      const text = fields.get(type);
      if (text !== undefined) parts.push(`${label}=${quoted(text)}`);
    }
  }
  return parts.join(' ');
}

function describeCopyResponse(payload: PayloadReader): string {
  const format = payload.uint8() === 1 ? 'binary' : 'text';
  return `${format} columns=${payload.uint16()}`;
}

function describeCopyData(payload: PayloadReader, options: TraceOptions): string {
  return copyDataText(payload.rest(), options);
}

function valueList(payload: PayloadReader, count: number, options: TraceOptions): string {
  return `(${listOf(count, () => valueText(payload.value(), options))})`;
}
