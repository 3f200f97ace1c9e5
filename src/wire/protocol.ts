// Message type bytes and length limits of the frontend/backend protocol, versions 3.0 to 3.2.
// https://www.postgresql.org/docs/current/protocol-message-formats.html

const code = (letter: string): number => letter.charCodeAt(0);

/** Messages a client sends. */
export const Frontend = {
  bind: code('B'),
  close: code('C'),
  copyData: code('d'),
  copyDone: code('c'),
  copyFail: code('f'),
  describe: code('D'),
  execute: code('E'),
  flush: code('H'),
  functionCall: code('F'),
  parse: code('P'),
  password: code('p'),
  query: code('Q'),
  sync: code('S'),
  terminate: code('X'),
} as const;

/** Messages a server sends. */
export const Backend = {
  authentication: code('R'),
  backendKeyData: code('K'),
  bindComplete: code('2'),
  closeComplete: code('3'),
  commandComplete: code('C'),
  copyData: code('d'),
  copyDone: code('c'),
  copyInResponse: code('G'),
  copyOutResponse: code('H'),
  copyBothResponse: code('W'),
  dataRow: code('D'),
  emptyQueryResponse: code('I'),
  errorResponse: code('E'),
  functionCallResponse: code('V'),
  negotiateProtocolVersion: code('v'),
  noData: code('n'),
  noticeResponse: code('N'),
  notificationResponse: code('A'),
  parameterDescription: code('t'),
  parameterStatus: code('S'),
  parseComplete: code('1'),
  portalSuspended: code('s'),
  readyForQuery: code('Z'),
  rowDescription: code('T'),
} as const;

/** Transaction status byte of ReadyForQuery. */
export const TransactionStatus = { idle: code('I'), open: code('T'), failed: code('E') } as const;

/** Postgres's own limit for messages that carry no data (PQ_SMALL_MESSAGE_LIMIT), bytes including the length word. */
export const SMALL_MESSAGE_BYTES_MAX = 10_000;
/** Postgres's own limit for start-up packets (MAX_STARTUP_PACKET_LENGTH), bytes including the length word. */
export const STARTUP_PACKET_BYTES_MAX = 10_000;
/** Postgres's own limit for messages before authentication has finished (PG_MAX_AUTH_TOKEN_LENGTH). */
export const AUTH_MESSAGE_BYTES_MAX = 65_535;
/** Postgres's own limit for any message (PQ_LARGE_MESSAGE_LIMIT = MaxAllocSize - 1). */
export const LARGE_MESSAGE_BYTES_MAX = 0x3ffffffe;

export const PROTOCOL_3_0 = 0x0003_0000;
/** Variable-length cancel keys. */
export const PROTOCOL_3_2 = 0x0003_0002;
/** The newest version pgkv speaks to clients. */
export const PROTOCOL_NEWEST = PROTOCOL_3_2;
export const CANCEL_REQUEST_CODE = 80877102;
export const SSL_REQUEST_CODE = 80877103;
export const GSSENC_REQUEST_CODE = 80877104;

/** Per type byte, the longest message accepted from a client in bytes (length word included); 0 = no such message. */
export function frontendLimits(messageBytesMax: number): Int32Array {
  const limits = new Int32Array(256);
  const large = Math.min(messageBytesMax, LARGE_MESSAGE_BYTES_MAX);
  for (const type of [Frontend.query, Frontend.parse, Frontend.bind, Frontend.functionCall]) limits[type] = large;
  limits[Frontend.copyData] = LARGE_MESSAGE_BYTES_MAX;
  for (const type of [
    Frontend.close,
    Frontend.copyDone,
    Frontend.copyFail,
    Frontend.describe,
    Frontend.execute,
    Frontend.flush,
    Frontend.sync,
    Frontend.terminate,
  ]) {
    limits[type] = SMALL_MESSAGE_BYTES_MAX;
  }
  return limits;
}

/** The same for messages from a server: rows and COPY data as long as Postgres makes them, all else `otherBytesMax`. */
export function backendLimits(otherBytesMax: number): Int32Array {
  const limits = new Int32Array(256);
  for (const type of Object.values(Backend)) limits[type] = otherBytesMax;
  limits[Backend.dataRow] = 0x7fffffff;
  limits[Backend.copyData] = 0x7fffffff;
  return limits;
}
