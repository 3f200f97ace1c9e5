// Messages pgkv sends to servers, and reading of the ones clients send that it has to look into.
import { CANCEL_REQUEST_CODE, Frontend, PROTOCOL_3_0, SSL_REQUEST_CODE } from './protocol.js';

export const SYNC = Buffer.from([Frontend.sync, 0, 0, 0, 4]);
export const FLUSH = Buffer.from([Frontend.flush, 0, 0, 0, 4]);
export const TERMINATE = Buffer.from([Frontend.terminate, 0, 0, 0, 4]);
/** Begins a command of a transaction and does nothing in it, even in a block that has failed. */
export const EMPTY_PARSE = encodeParse('', Buffer.from('\0\0\0'));
/** A statement that is run, as one of the empty text is not, and whose portal is gone behind that. */
export const EMPTY_SELECT = Buffer.concat([
  encodeParse('', Buffer.from('SELECT\0\0\0')),
  encodeBareBind(''),
  encodeExecute(''),
  encodeNamed(Frontend.close, 'P', ''),
]);
export const SSL_REQUEST = Buffer.from([0, 0, 0, 8, SSL_REQUEST_CODE >> 24, 210, 22, 47]);

/** Start-up packet of protocol 3.0, which every supported server speaks. */
export function encodeStartup(parameters: ReadonlyMap<string, string>): Buffer {
  let text = '';
  for (const [name, value] of parameters) text += `${name}\0${value}\0`;
  const body = Buffer.from(`${text}\0`, 'utf8');
  const packet = Buffer.allocUnsafe(8 + body.length);
  packet.writeInt32BE(packet.length, 0);
  packet.writeInt32BE(PROTOCOL_3_0, 4);
  body.copy(packet, 8);
  return packet;
}

export function encodeCancelRequest(pid: number, secretKey: Buffer): Buffer {
  const packet = Buffer.allocUnsafe(12 + secretKey.length);
  packet.writeInt32BE(packet.length, 0);
  packet.writeInt32BE(CANCEL_REQUEST_CODE, 4);
  packet.writeInt32BE(pid, 8);
  secretKey.copy(packet, 12);
  return packet;
}

export function encodeQuery(sql: string): Buffer {
  const bytes = Buffer.byteLength(sql, 'utf8');
  const message = Buffer.allocUnsafe(bytes + 6);
  message[0] = Frontend.query;
  message.writeInt32BE(bytes + 5, 1);
  message.write(sql, 5, 'utf8');
  message[bytes + 5] = 0;
  return message;
}

/** A Query whose text has its bytes already. */
export function encodeQueryBytes(text: Buffer): Buffer {
  const message = Buffer.allocUnsafe(text.length + 6);
  message[0] = Frontend.query;
  message.writeInt32BE(text.length + 5, 1);
  text.copy(message, 5);
  message[text.length + 5] = 0;
  return message;
}

/** PasswordMessage, SASLInitialResponse and SASLResponse share the type byte 'p'. */
export function encodePassword(body: Buffer): Buffer {
  const message = Buffer.allocUnsafe(5 + body.length);
  message[0] = Frontend.password;
  message.writeInt32BE(body.length + 4, 1);
  body.copy(message, 5);
  return message;
}

export function encodeSaslInitialResponse(mechanism: string, data: Buffer): Buffer {
  const name = Buffer.from(`${mechanism}\0`, 'latin1');
  const length = Buffer.allocUnsafe(4);
  length.writeInt32BE(data.length, 0);
  return encodePassword(Buffer.concat([name, length, data]));
}

/** @param tail what stands behind the name in a Parse message, bytes or a character for each: text, NUL, parameter types */
export function encodeParse(name: string, tail: Buffer | string): Buffer {
  const nameBytes = Buffer.byteLength(name, 'latin1');
  const message = Buffer.allocUnsafe(6 + nameBytes + tail.length);
  message[0] = Frontend.parse;
  message.writeInt32BE(message.length - 1, 1);
  message.write(name, 5, 'latin1');
  message[5 + nameBytes] = 0;
  if (typeof tail === 'string') message.write(tail, 6 + nameBytes, 'latin1');
  else tail.copy(message, 6 + nameBytes);
  return message;
}

/** Bind of the unnamed portal without parameters. */
export function encodeBareBind(statement: string): Buffer {
  const message = Buffer.alloc(13 + statement.length);
  message[0] = Frontend.bind;
  message.writeInt32BE(message.length - 1, 1);
  message.write(statement, 6, 'latin1');
  return message;
}

/** Execute of a portal to its end. */
export function encodeExecute(portal: string): Buffer {
  const message = Buffer.alloc(10 + portal.length);
  message[0] = Frontend.execute;
  message.writeInt32BE(message.length - 1, 1);
  message.write(portal, 5, 'latin1');
  return message;
}

/** Close or Describe of a statement ('S') or portal ('P'). */
export function encodeNamed(type: number, target: 'S' | 'P', name: string): Buffer {
  const nameBytes = Buffer.byteLength(name, 'latin1');
  const message = Buffer.allocUnsafe(7 + nameBytes);
  message[0] = type;
  message.writeInt32BE(message.length - 1, 1);
  message[5] = target.charCodeAt(0);
  message.write(name, 6, 'latin1');
  message[6 + nameBytes] = 0;
  return message;
}

/**
 * The Bind message `buffer[start, end)` with its statement name, which stands at `[nameStart, nameEnd)` without its
 * NUL, replaced. Lengths are computed from the parts, never from what the client claimed.
 */
export function encodeBindFor(
  buffer: Buffer,
  start: number,
  end: number,
  nameStart: number,
  nameEnd: number,
  name: string,
): Buffer {
  const nameBytes = name.length;
  const message = Buffer.allocUnsafe(end - start - (nameEnd - nameStart) + nameBytes);
  buffer.copy(message, 0, start, nameStart);
  message.writeInt32BE(message.length - 1, 1);
  const offset = nameStart - start;
  message.write(name, offset, 'latin1');
  buffer.copy(message, offset + nameBytes, nameEnd, end);
  return message;
}

/** Offset of the NUL that ends the string at `offset`, or -1 where there is none before `end`. */
export function stringEnd(buffer: Buffer, offset: number, end: number): number {
  const stop = offset < end ? buffer.indexOf(0, offset) : -1;
  return stop < end ? stop : -1;
}
